"""What a look has seen, how much it matters, and what would be right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum


class Grade(Enum):
    """An ERROR costs mail or keeps the gateway from starting; a WARNING will, some day or
    for some mail; a NOTE is worth knowing; OK is as it should be."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Observation:
    """One line: `subject` is what was looked at, `right` is "" where nothing is to be done.

    No text of it holds a secret. It may hold what others wrote, control characters too.
    """

    grade: Grade
    subject: str
    seen: str
    right: str = ""

    def __str__(self) -> str:
        return f"{self.seen} ({self.right})" if self.right else self.seen


def ok(subject: str, seen: str) -> Observation:
    return Observation(Grade.OK, subject, seen)


def note(subject: str, seen: str, right: str = "") -> Observation:
    return Observation(Grade.NOTE, subject, seen, right)


def warning(subject: str, seen: str, right: str = "") -> Observation:
    return Observation(Grade.WARNING, subject, seen, right)


def error(subject: str, seen: str, right: str = "") -> Observation:
    return Observation(Grade.ERROR, subject, seen, right)


def aligned(observations: Sequence[Observation]) -> Iterator[str]:
    """Yield a line for each: grade, subject, what was seen and what would be right."""
    widest = max((len(each.subject) for each in observations), default=0)
    for each in observations:
        yield f"{each.grade.value:<7}  {each.subject:<{widest}}  {each}"


def size(octets: int) -> str:
    """As people write it, and as the configuration reads it: 16.8MB."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if octets >= factor:
            return f"{octets / factor:.1f}".removesuffix(".0") + unit
    return f"{octets} octets"
