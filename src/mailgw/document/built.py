"""What is known of a message before its documents are made, and what they are then.

They set their own fields, because every mail makes some; see smtp.events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mailgw.document.schema import Document, Requested
from mailgw.mail import decision
from mailgw.mail.finding import Finding
from mailgw.mail.octets import Octets
from mailgw.mail.report import Report
from mailgw.mail.transaction import Recipient


@dataclass(init=False, slots=True)
class Notes:
    """What is known of a message, and has a place in its documents.

    `findings` is None where nothing was checked. `steps` are those that led to the
    `routes`, of which there is one for each recipient, or none where nobody asks. `report`
    is for the documents of local recipients. Without `body` the message is left out, and
    its size and digest still say what it was. `keys` names the bodies, by their size, that
    are kept elsewhere; None for those that are not. What makes documents of more than
    `most` octets is TooLarge.
    """

    routes: Final[Sequence[decision.Route]]
    findings: Final[Sequence[Finding] | None]
    steps: Final[Sequence[decision.Step]]
    report: Final[Report | None]
    body: Final[bool]
    keys: Final[Callable[[int], str | None] | None]
    most: Final[int | None]

    def __init__(
        self,
        routes: Sequence[decision.Route] = (),
        findings: Sequence[Finding] | None = None,
        steps: Sequence[decision.Step] = (),
        report: Report | None = None,
        body: bool = True,
        keys: Callable[[int], str | None] | None = None,
        most: int | None = None,
    ) -> None:
        self.routes = routes
        self.findings = findings
        self.steps = steps
        self.report = report
        self.body = body
        self.keys = keys
        self.most = most


NOTHING_KNOWN: Final = Notes()


@dataclass(init=False, slots=True)
class Built:
    """The document of one recipient.

    `parts` joined are JSON in UTF-8, without line ends; those of the message itself are
    the same objects for all recipients of the mail. `dedupe` is equal for the same envelope
    and received bytes. `priority` is what x-mq-priority asked for. `rejected` names the
    x-mq-* fields of the message that brought nothing: for the log. `document`, `requested`
    and `custom` are what the parts were made of, less the message. `stored` is the message
    where it is to be kept elsewhere, under the key of the document; one object for all
    recipients who share it, and good for as long as anybody has it.
    """

    recipient: Final[Recipient]
    message_id: Final[str]
    dedupe: Final[str]
    priority: Final[int | None]
    rejected: Final[tuple[str, ...]]
    parts: Final[tuple[bytes, ...]]
    document: Final[Document]
    requested: Final[Requested]
    custom: Final[dict[str, str]]
    stored: Final[Octets | None]

    def __init__(
        self,
        recipient: Recipient,
        message_id: str,
        dedupe: str,
        priority: int | None,
        rejected: tuple[str, ...],
        parts: tuple[bytes, ...],
        document: Document,
        requested: Requested,
        custom: dict[str, str],
        stored: Octets | None = None,
    ) -> None:
        self.recipient = recipient
        self.message_id = message_id
        self.dedupe = dedupe
        self.priority = priority
        self.rejected = rejected
        self.parts = parts
        self.document = document
        self.requested = requested
        self.custom = custom
        self.stored = stored

    @property
    def body(self) -> bytes:
        """The JSON as one object."""
        return b"".join(self.parts)


class TooLarge(Exception):
    """The documents of this message would be larger than anybody takes."""


@dataclass(init=False, slots=True)
class Draft:
    """Documents that are not made yet: `documents` makes them, and may be called in a thread.

    It holds `octets` of the message then, as JSON, which is a little more; six times as
    much where all of it are control characters. Raises TooLarge, and OSError where the
    spool cannot be read back.
    """

    octets: Final[int]
    documents: Final[Callable[[], list[Built]]]

    def __init__(self, octets: int, documents: Callable[[], list[Built]]) -> None:
        self.octets = octets
        self.documents = documents
