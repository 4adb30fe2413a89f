"""What reading a configuration found: errors, warnings and notes, one line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How much a finding matters.

    An ERROR keeps the gateway from starting; a WARNING is unsafe; a NOTE is worth knowing;
    HONOURED is a key that does what it says, found only where all keys are accounted for.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    HONOURED = "honoured"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about one key; `origin` is where its value came from ("mailgw.conf:41").

    `key` is "" where the finding is about a whole file or line.
    """

    severity: Severity
    origin: str
    key: str
    text: str

    def __str__(self) -> str:
        mark = "" if self.severity is Severity.ERROR else f"{self.severity.value}: "
        where = f"{self.origin}: {self.key}: " if self.key else f"{self.origin}: "
        return (where + mark + self.text).removesuffix(": ")


class ConfigError(Exception):
    """The configuration cannot be used; `findings` are all its errors, not only the first."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("\n".join(str(finding) for finding in findings))
        self.findings = tuple(findings)
