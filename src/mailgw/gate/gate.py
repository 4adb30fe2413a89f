"""May this client, this sender, this recipient go on? One method per event.

A method answers at once where it can. Only logins may have to wait, for a web service or
for a hash that takes its time; how long is bounded where they are looked up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from mailgw.gate.credentials import Authenticator, CannotTell
from mailgw.gate.guesses import Guesses
from mailgw.gate.locals import Locals
from mailgw.gate.rates import MessageRate
from mailgw.gate.recipients import LocalAddresses
from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Recipient
from mailgw.observe import log
from mailgw.smtp import reply
from mailgw.smtp.address import Address
from mailgw.smtp.events import Courtesy, MailFrom, RcptTo
from mailgw.smtp.reply import Reply

if TYPE_CHECKING:  # who asks no lists need not wait for the library behind them
    from mailgw.gate.dnsbl import Blocklists


@dataclass(frozen=True, slots=True)
class Gate:
    """The rules of one process.

    `trouble` says the 4xx to give while documents could not be made safe. `logins` is
    None where nobody can authenticate; where somebody can, the others may write to local
    addresses only. `guesses` counts the failed ones. `recipients` "local" holds everybody
    who is not authenticated to that. `blocklists` and `message_rate` are None where none are
    asked, and where there is no limit. `largest` is how many octets a message may have for
    its documents to be taken, None where nobody knows.
    """

    hostname: str
    locals: LocalAddresses | Locals
    max_recipients: int
    trouble: Callable[[], Reply | None]
    logins: Authenticator | None = None
    guesses: Guesses = field(default_factory=lambda: Guesses(0))
    recipients: Literal["any", "local"] = "any"
    blocklists: Blocklists | None = None
    message_rate: MessageRate | None = None
    largest: Callable[[], int | None] = lambda: None

    def connected(self, peer: Peer) -> Reply | Awaitable[Reply]:
        # A balancer that looks whether we are there is no client.
        if (
            self.blocklists is None
            or peer.health_check
            or not self.blocklists.concern(peer.remote_ip)
        ):
            return reply.banner(self.hostname)
        return self._unless_listed(self.blocklists, peer)

    def hello(self, _peer: Peer) -> Reply:
        return reply.OK

    async def credentials(self, peer: Peer, username: str, password: str) -> Reply:
        if self.logins is None:
            return reply.AUTH_FAILED
        question = partial(self.logins.verify, username, password)
        try:
            right = await self.guesses.ask(peer.remote_ip, question)
        except CannotTell as trouble:
            log.error("auth.unavailable", id=peer.connection_id, reason=trouble.reason)
            return reply.AUTH_UNAVAILABLE
        return reply.AUTHENTICATED if right else reply.AUTH_FAILED

    def sender(self, peer: Peer, event: MailFrom) -> Reply:
        # What we know early we say early: before the message is sent, not after.
        largest = self.largest()
        if largest is not None and event.size > largest:
            return reply.TOO_BIG
        trouble = self.trouble()
        if trouble is None and self.message_rate is not None:
            trouble = self.message_rate.refuse(peer)
        return trouble or reply.SENDER_OK

    def recipient(self, peer: Peer, event: RcptTo, accepted: int) -> Recipient | Reply:
        if accepted >= self.max_recipients:
            return reply.TOO_MANY_RECIPIENTS
        address = event.recipient
        local = self._is_local(address)
        if not local and peer.user is None:
            refusal = self._stranger_to_foreign(address)
            if refusal is not None:
                return refusal
        return Recipient(address, local, event.notify, event.orcpt)

    def data(self, _peer: Peer) -> Reply:
        return self.trouble() or reply.START_DATA

    def courtesy(self, _peer: Peer, event: Courtesy) -> Reply:
        return event.usual

    def secured(self, _peer: Peer) -> None:
        """No rule looks at it."""

    def gone(self, _peer: Peer) -> None:
        """Nothing is kept about a client."""

    async def close(self) -> None:
        """Let go of what the look-ups opened; clients that stay may not find it any more."""
        if self.logins is not None:
            await self.logins.close()
        if isinstance(self.locals, Locals):
            await self.locals.close()

    async def _unless_listed(self, blocklists: Blocklists, peer: Peer) -> Reply:
        return await blocklists.refuse(peer) or reply.banner(self.hostname)

    def _is_local(self, address: Address) -> bool:
        if not address.domain:
            # RFC 5321 4.5.1: postmaster without a domain is ours, if anything is.
            return bool(self.locals)
        return bool(self.locals) and self.locals.is_local(str(address))

    def _stranger_to_foreign(self, address: Address) -> Reply | None:
        if self.recipients == "local":
            known = self.locals.knows_domain(address.domain)
            return reply.NO_SUCH_RECIPIENT if known else reply.RELAY_DENIED
        return reply.AUTH_REQUIRED if self.logins is not None else None
