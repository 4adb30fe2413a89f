"""What is measured, and rounds in which everybody takes a turn.

The machine's mood changes in minutes, so nobody runs all rounds in a row: A B C A B C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Messages of the first, unmeasured turn, which warms up and tells how many a round takes.
WARM_UP = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn. CPU times are in seconds; `broker_cpu` is 0 where no broker takes part.

    `elsewhere` is what the rest of the machine used meanwhile: anything but little makes
    the rate of this turn doubtful.
    """

    messages: int
    seconds: float
    server_cpu: float
    source_cpu: float
    broker_cpu: float
    elsewhere: float

    @property
    def rate(self) -> float:
        return self.messages / self.seconds

    @property
    def server_cost(self) -> float:
        """The server's CPU microseconds a message."""
        return self.server_cpu / self.messages * 1e6

    @property
    def broker_cost(self) -> float:
        return self.broker_cpu / self.messages * 1e6

    def busy(self, cpu: float) -> float:
        """`cpu` as a share of one core."""
        return cpu / self.seconds


@dataclass(frozen=True, slots=True)
class Contender:
    """One who takes turns: handles a number of messages and says what it took."""

    name: str
    turn: Callable[[int], Sample]


@dataclass(frozen=True, slots=True)
class Case:
    """All samples of one comparison, by contender; the order is that of the turns."""

    title: str
    samples: dict[str, list[Sample]]


def compare(
    title: str,
    contenders: Sequence[Contender],
    rounds: int,
    seconds: float,
    least: int = WARM_UP,
) -> Case:
    """Let the contenders take turns of about `seconds` each, `rounds` times.

    `least` is the number of messages of the shortest turn.
    """
    counts = {}
    for contender in contenders:
        trial = contender.turn(least)
        # A cold start is slower than what follows: once more, with a better guess.
        trial = contender.turn(max(least, round(trial.rate * seconds / 4)))
        counts[contender.name] = max(least, round(trial.rate * seconds))
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            samples[contender.name].append(contender.turn(counts[contender.name]))
    return Case(title, samples)
