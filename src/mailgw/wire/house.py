"""What the wire asks of the others: who may come in, what to answer, who takes a mail.

Policy reaches this room through these protocols only, so a listener can be tested with
any, and reloading is giving it another House: who is there keeps the old one.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

from mailgw.config.networks import NOWHERE, Networks
from mailgw.mail.identifiers import Identifiers
from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Message, Recipient
from mailgw.mail.unseen import Unseen
from mailgw.smtp import events
from mailgw.smtp.extensions import Rules
from mailgw.smtp.reply import Reply

T = TypeVar("T")
# What is known at once, or must be waited for.
Now: TypeAlias = T | Awaitable[T]
# A Recipient is taken; a Reply says what else is to be said.
Answer = Reply | Recipient
# RFC 5321 4.5.3.2 gives a client minutes; a handshake is a matter of seconds.
_HANDSHAKE = 30.0
# PROXY protocol 2: balancers send their header at once, but 3 seconds are to be allowed
# for a segment that is lost.
_PROXY_HEADER = 5.0


class Door(Protocol):
    """Who may come in: asked before TLS and before the banner, so nothing in it waits.

    A client has a place from the moment it is accepted until it is turned away or gone;
    every place that was reserved is given back once, by one of the other three.
    """

    def reserve(self, again: Callable[[], None], /) -> bool:
        """Take a place for the next client. False: there is none, clients stay in the backlog.

        `again` is called then, once, when a place becomes free in this process. It may be
        taken before by somebody else, and one of another process is not told.
        """

    def release(self) -> None:
        """Give the place back: nobody came, or whoever came did not get as far as `enter`."""

    def enter(self, peer: Peer, /) -> Reply | None:
        """Count the client in. A Reply, 4xx or 5xx, turns it away instead and frees its place."""

    def leave(self, peer: Peer, /) -> None:
        """Count out a client that was let in, and free its place."""


class Gate(Protocol):
    """Policy before the message, asked once per event.

    Raising Refusal says the same as returning its reply.
    """

    def connected(self, peer: Peer, /) -> Now[Reply]:
        """220 lets the client in."""

    def hello(self, peer: Peer, /) -> Now[Reply]:
        """Asked with the new name in `peer`; any 2xx lets it go on."""

    def credentials(self, peer: Peer, username: str, password: str, /) -> Now[Reply]:
        """235 makes the client that user."""

    def sender(self, peer: Peer, event: events.MailFrom, /) -> Now[Reply]: ...

    def recipient(self, peer: Peer, event: events.RcptTo, accepted: int, /) -> Now[Answer]:
        """A Recipient is accepted as it is; a Reply refuses. `accepted` were before it."""

    def data(self, peer: Peer, /) -> Now[Reply]:
        """354 lets the message come."""

    def courtesy(self, peer: Peer, event: events.Courtesy, /) -> Now[Reply]:
        """Asked only where the rules say so. The reply is said, and changes nothing."""

    def secured(self, peer: Peer, /) -> None:
        """TLS is active since now, from the start or by STARTTLS. Only told: nobody waits."""

    def gone(self, peer: Peer, /) -> None:
        """The client has gone, and nothing more is asked about it. Only told."""

    async def close(self) -> None:
        """Let go of what was opened to decide; asked once, when the house is no more needed."""


# Takes the message and closes its content; 250 promises that it is safe.
Intake = Callable[[Message], Now[Reply]]
# Begun in the loop that serves, and cancelled.
Background = Callable[[], Coroutine[object, object, None]]
Closer = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class House:
    """What all conversations of a process share.

    Peers in `proxies` begin with a PROXY header; those in `auth_in_clear` may authenticate
    without TLS. `patience` is how long a silent client is waited for, `deadline` how long
    a decision may take, both in seconds. Bodies above `spool_memory` octets go to a file.
    `greeting_delay` is how long the banner is held back, in seconds; `minimum_rate` the
    octets per second that a message has to come at, 0 for none. What is in `background`
    goes on beside the conversations for as long as newcomers meet this house; `closers`
    end what its rooms share. `unseen` is told of the replies that a client may not have
    seen; None where nobody asks.
    """

    rules: Rules
    door: Door
    gate: Gate
    intake: Intake
    identifiers: Identifiers
    patience: float
    deadline: float
    spool_memory: int
    tls: ssl.SSLContext | None = None
    proxies: Networks = NOWHERE
    auth_in_clear: Networks = NOWHERE
    spool_directory: Path | None = None
    greeting_delay: float = 0.0
    minimum_rate: int = 1000
    background: tuple[Background, ...] = ()
    closers: tuple[Closer, ...] = ()
    unseen: Unseen | None = None

    async def close(self) -> None:
        """Let go of what was opened while it served: the gate first, then what it leaned on."""
        await self.gate.close()
        for close in self.closers:
            await close()

    @property
    def handshake(self) -> float:
        """How long a client may take to shake hands, in seconds."""
        return min(_HANDSHAKE, self.patience)

    @property
    def proxy_header(self) -> float:
        """How long a balancer may take to say for whom it speaks, in seconds."""
        return min(_PROXY_HEADER, self.patience)
