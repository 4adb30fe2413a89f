"""Where a client is in its SMTP session."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class State(Enum):
    """Where the client is."""

    ARRIVED = auto()  # nothing was said yet, not even by us
    GREETED = auto()  # banner said, EHLO wanted
    TURNED_AWAY = auto()  # a refusal said instead, QUIT wanted
    READY = auto()  # EHLO done, no transaction
    MAIL = auto()  # reverse-path taken
    RCPT = auto()  # and a recipient
    DATA = auto()  # reading to the final dot
    CHUNK = auto()  # reading the octets of a BDAT
    CHUNKS = auto()  # between two BDAT of a message
    AUTH = auto()  # waiting for a line of an exchange
    HANDSHAKE = auto()  # 220 to STARTTLS is said
    CLOSED = auto()  # 221 or 421 is said, nothing more is read


# Asked for several times a line: a global costs next to nothing, a member of an Enum does not.
ARRIVED: Final = State.ARRIVED
GREETED: Final = State.GREETED
TURNED_AWAY: Final = State.TURNED_AWAY
READY: Final = State.READY
MAIL: Final = State.MAIL
RCPT: Final = State.RCPT
DATA: Final = State.DATA
CHUNK: Final = State.CHUNK
CHUNKS: Final = State.CHUNKS
AUTH: Final = State.AUTH
HANDSHAKE: Final = State.HANDSHAKE
CLOSED: Final = State.CLOSED
