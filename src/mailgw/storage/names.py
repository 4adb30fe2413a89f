"""The names in a place for bodies, and what they say.

    mail/2026-11-21/<transaction>-<random>    a body; this is the `key` of a document
    writing/2026-11-21.<transaction>-<random>     its mark from before it is written
    publishing/2026-11-21.<transaction>-<random>  its mark from before its document goes out

Nothing in them comes from a client, and who was told a transaction's name cannot guess
the rest. A day is a folder, which is what rules for the life of objects go by. Both marks
go when the document is safe, `writing` first, and where there is none, `publishing` first.
So a body with the mark `writing` alone is in no document, one with `publishing` alone is in
one, and one with both may be in one.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

BODIES, WRITING, PUBLISHING = "mail", "writing", "publishing"

_COMPRESSED = ".gz"
_KEY = re.compile(rf"{BODIES}/[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}/[a-zA-Z0-9]+-[0-9a-f]{{32}}(\.gz)?")


def new_key(transaction_id: str, received: datetime, *, compressed: bool) -> str:
    """A name for a body that nobody has used or can guess."""
    day = received.astimezone(UTC).date().isoformat()
    end = _COMPRESSED if compressed else ""
    return f"{BODIES}/{day}/{transaction_id}-{secrets.token_hex(16)}{end}"


def is_key(text: str) -> bool:
    """Whether it is the name of a body, as `new_key` makes them."""
    return _KEY.fullmatch(text) is not None


def is_compressed(key: str) -> bool:
    return key.endswith(_COMPRESSED)


def mark(state: str, key: str) -> str:
    """The name of a body's mark, `state` being WRITING or PUBLISHING."""
    return f"{state}/{key.removeprefix(f'{BODIES}/').replace('/', '.')}"


def key_of(marked: str) -> str | None:
    """The body that a mark is about; None where it is nobody's mark of ours."""
    key = f"{BODIES}/{marked.partition('/')[2].replace('.', '/', 1)}"
    return key if is_key(key) else None
