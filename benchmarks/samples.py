"""What is measured, and rounds in which everybody takes a turn.

The machine's mood changes in minutes, so nobody runs all rounds in a row: A B C A B C.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import median

# Messages of the first, unmeasured turn, which warms up and tells how many a round takes.
WARM_UP = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn. CPU times are in seconds; `broker_cpu` is 0 where no broker takes part.

    `p50` and `p99` are the milliseconds from final dot to 250, where the source looks.

    `elsewhere` is what the rest of the machine used meanwhile: anything but little makes
    the rate of this turn doubtful.
    """

    messages: int
    seconds: float
    server_cpu: float
    source_cpu: float
    broker_cpu: float
    elsewhere: float
    p50: float | None = None
    p99: float | None = None

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
    """All samples of one comparison, by contender; the order is that of the turns.

    `part` says which comparison it was, and `sessions` how many there were, for the plots.
    """

    title: str
    samples: dict[str, list[Sample]]
    part: str = ""
    sessions: int | None = None


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


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that is no turn of mail: a value from each round, and what is meant to be."""

    part: str
    title: str
    unit: str
    values: list[float]
    at_most: float | None = None
    at_least: float | None = None

    @property
    def middle(self) -> float:
        return median(self.values)

    @property
    def holds(self) -> bool:
        """Whether it is what it is meant to be; so is what nothing is expected of."""
        return (self.at_most is None or self.middle <= self.at_most) and (
            self.at_least is None or self.middle >= self.at_least
        )


@dataclass(frozen=True, slots=True)
class Run:
    """All of one run: the machine, the command that was given, and what came of it."""

    command: str
    machine: dict[str, str]
    cases: list[Case] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)


def write(file: Path, run: Run) -> None:
    """Keep a run for `benchmarks/report`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(run), indent=1) + "\n")


def read(file: Path) -> Run:
    """A run that was kept. Raises KeyError or TypeError where the file is something else."""
    kept = json.loads(file.read_text())
    # A benchmark may keep more of a turn for itself.
    known = {each.name for each in fields(Sample)}
    cases = []
    for case in kept["cases"]:
        samples = {
            name: [
                Sample(**{key: sample[key] for key in known & sample.keys()}) for sample in found
            ]
            for name, found in case["samples"].items()
        }
        cases.append(Case(case["title"], samples, case["part"], case["sessions"]))
    figures = [Figure(**figure) for figure in kept["figures"]]
    return Run(kept["command"], kept["machine"], cases, figures)
