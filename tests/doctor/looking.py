"""What the doctor's tests share: an observation as a line."""

from __future__ import annotations

from collections.abc import Iterable

from mailgw.doctor.observation import Observation


def lines(observations: Iterable[Observation]) -> list[str]:
    """Each as "grade subject: text", for a comparison by eye."""
    return [f"{each.grade.value} {each.subject}: {each}" for each in observations]


def only(observations: Iterable[Observation], beginning: str) -> str:
    """The one line that begins so."""
    said = lines(observations)
    found = [line for line in said if line.startswith(beginning)]
    assert len(found) == 1, said
    return found[0]
