"""Transactions whose 250 the client may never have seen, and how the same one is known again.

RFC 5321 4.5.4.1 has a client that saw no reply send its mail once more, and RFC 1047 is
about what follows from it. The law: only where a reply may have been lost is a second
transaction a repetition of the first. Who saw its 250 and sends the same mail once more
means two mails.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from mailgw.mail.transaction import Message


class Earlier(NamedTuple):
    """The same transaction as it was before. Not `safe`: what becomes of it is not known yet."""

    transaction_id: str
    safe: bool


class Unseen(Protocol):
    """What all processes together remember, for a while. Nothing here waits or raises."""

    @property
    def empty(self) -> bool:
        """Whether `find` would find nothing, whatever it is asked about."""

    def find(self, message: Message, /) -> Earlier | None:
        """The same transaction of before, one that is safe rather than one under way."""

    def note(self, message: Message, /, *, safe: bool) -> None:
        """Its client may not see the reply. `safe` once that is a 250; before, it is under way.

        What the client was told to be safe is remembered: where `find` gave an earlier
        transaction that was safe, that one. A message whose digest nobody asked for is not
        remembered.
        """

    def forget(self, message: Message, /) -> None:
        """The client has seen the reply, or it was no 250. Costs nothing for one not noted."""


def fingerprint(message: Message) -> bytes:
    """Octets that are equal for the same transaction, and for no other one.

    The same is: from the same client address and login, with the same envelope, recipients
    in the same order, each as local or not as then, and the same content. The address is a
    part of it because a stranger who has the same mail, from a list for example, must not
    be able to have it answered for somebody else.
    """
    peer = message.peer
    agreed = (
        peer.remote_ip,
        peer.user,
        None if message.reverse_path is None else str(message.reverse_path),
        [(str(to.address), to.local, to.notify, to.orcpt) for to in message.recipients],
        message.smtputf8,
        message.eight_bit,
        message.ret,
        message.envid,
        message.content.digest(),
    )
    # Quoted and escaped, so that no text can look like the end of its own.
    return repr(agreed).encode()
