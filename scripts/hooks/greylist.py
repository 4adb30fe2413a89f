"""A hook that greylists: who comes for the first time is asked to come again in a minute.

    PYTHONPATH=scripts/hooks mailgw serve --hook greylist:Greylist

Mail servers come again, programs that only send spam mostly do not. Each worker remembers
for itself; with several of them a client may have to come a few times.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Recipient, Transaction
from mailgw.smtp.reply import Reply

_MOST = 100_000  # what strangers make us remember has an end: the oldest is forgotten


class Greylist:
    def __init__(self, wait: float = 60, clock: Callable[[], float] = monotonic) -> None:
        self.wait, self.clock = wait, clock
        self.seen: dict[tuple[object, ...], float] = {}

    def rcpt(self, peer: Peer, transaction: Transaction, recipient: Recipient) -> Reply | None:
        key = (peer.remote_ip, transaction.reverse_path, recipient.address)
        first = self.seen.setdefault(key, self.clock())
        if len(self.seen) > _MOST:
            del self.seen[next(iter(self.seen))]
        if self.clock() - first < self.wait:
            return Reply(451, "7.1", "Greylisted, try again in a minute")
        return None
