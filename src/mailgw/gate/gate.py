"""May this client, this sender, this recipient go on? One method per event.

A method answers at once where it can; nothing here waits on somebody else's machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mailgw.gate.credentials import Login
from mailgw.gate.recipients import LocalAddresses
from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Recipient
from mailgw.smtp import reply
from mailgw.smtp.address import Address
from mailgw.smtp.events import MailFrom, RcptTo
from mailgw.smtp.reply import Reply


@dataclass(frozen=True, slots=True)
class Gate:
    """The rules of one process.

    `trouble` says the 4xx to give while documents could not be made safe. `login` is
    None where nobody can authenticate; where somebody can, the others may write to local
    addresses only. `recipients` "local" holds everybody who is not authenticated to that.
    """

    hostname: str
    locals: LocalAddresses
    max_recipients: int
    trouble: Callable[[], Reply | None]
    login: Login | None = None
    recipients: Literal["any", "local"] = "any"

    def connected(self, _peer: Peer) -> Reply:
        return reply.banner(self.hostname)

    def hello(self, _peer: Peer) -> Reply:
        return reply.OK

    def credentials(self, _peer: Peer, username: str, password: str) -> Reply:
        if self.login is not None and self.login.verify(username, password):
            return reply.AUTHENTICATED
        return reply.AUTH_FAILED

    def sender(self, _peer: Peer, _event: MailFrom) -> Reply:
        # What we know early we say early: before the message is sent, not after.
        return self.trouble() or reply.SENDER_OK

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

    def _is_local(self, address: Address) -> bool:
        if not address.domain:
            # RFC 5321 4.5.1: postmaster without a domain is ours, if anything is.
            return bool(self.locals)
        return bool(self.locals) and self.locals.is_local(str(address))

    def _stranger_to_foreign(self, address: Address) -> Reply | None:
        if self.recipients == "local":
            known = self.locals.knows_domain(address.domain)
            return reply.NO_SUCH_RECIPIENT if known else reply.RELAY_DENIED
        return reply.AUTH_REQUIRED if self.login is not None else None
