"""All that the checks found out about one message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mailgw.mail.finding import Finding


class Seal(Protocol):
    """One ARC set, as far as it matters here; see checks.arc."""

    @property
    def instance(self) -> int: ...
    @property
    def domain(self) -> str: ...
    @property
    def results(self) -> tuple[tuple[str, str], ...]: ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """The findings in the order spf, dkim, dmarc, arc, spam, and the seals of the ARC chain.

    `milliseconds` is how long all of it took.
    """

    findings: tuple[Finding, ...]
    seals: Sequence[Seal] = ()
    milliseconds: float = 0.0

    @property
    def chain_verdict(self) -> str:
        """Of the ARC chain; "none" where nobody looked at it."""
        return next((each.verdict for each in self.findings if each.check == "arc"), "none")
