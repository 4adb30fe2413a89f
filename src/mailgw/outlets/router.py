"""Which queue a document goes to (contract section 6)."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailgw.mail.decision import Route, Step
from mailgw.mail.transaction import Recipient


@dataclass(frozen=True, slots=True)
class Queues:
    """The queues by case; one that is empty leaves its mail to the next of them.

    Reports go to `reports`, other local mail to `local`, and both else to the inbox.
    `quarantined` and `refused` are the ways of mail that a verdict sent there, None for
    refused mail where nothing is kept of it.
    """

    inbox: str
    local: str = ""
    reports: str = ""
    quarantine: str = ""
    refuse: str = ""
    quarantined: Route = field(init=False, repr=False)
    refused: Route | None = field(init=False, repr=False)
    _inbox: Route = field(init=False, repr=False)
    _local: Route = field(init=False, repr=False)
    _report: Route = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Made once: mail that nobody checks has nothing else to tell.
        inbox = _route("inbox", "rabbitmq-inbox", self.inbox)
        local = _route("local", "rabbitmq-local", self.local) if self.local else inbox
        report = _route("reports", "rabbitmq-reports", self.reports) if self.reports else local
        refused = _route("refused", "rabbitmq-refused", self.refuse) if self.refuse else None
        quarantined = _route("quarantine", "rabbitmq-quarantine", self.quarantine)
        for name, made in (
            ("_inbox", inbox),
            ("_local", local),
            ("_report", report),
            ("refused", refused),
            ("quarantined", quarantined if self.quarantine else inbox),
        ):
            object.__setattr__(self, name, made)

    def route(self, recipient: Recipient, *, report: bool = False) -> Route:
        """The way of this recipient's document, of a mail that was accepted."""
        if not recipient.local:
            return self._inbox
        return self._report if report else self._local


def _route(case: str, key: str, queue: str) -> Route:
    return Route(queue, Step("queue", case, key, queue))
