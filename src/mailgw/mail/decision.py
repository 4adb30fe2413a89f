"""How it came to what became of a mail: the steps, each with the rule that decided in it.

Law: a step is written for the operator who asks why. It names the key, with the value
that was in force, and not the code.
"""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """One step: `step` is its name (a check, "verdict" or "queue"), `verdict` its outcome.

    `key` is the key of the configuration that decided and `value` its text; `reason` is one
    printable line, "" where the rest says all: what the step is about, which a stranger may
    have written, and our own words.
    """

    step: str
    verdict: str
    key: str
    value: str
    milliseconds: float = 0.0
    reason: str = ""


class Route(NamedTuple):
    """The queue of one document, and the step that chose it."""

    queue: str
    step: Step
