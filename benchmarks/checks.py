"""What the checks cost: SPF, DKIM, DMARC, ARC and SpamAssassin, alone and in the gateway.

    .venv/bin/python benchmarks/checks.py [--part NAME] [--quick] [--json FILE]

See README.md for how to read it. Exit 0 when the numbers stand, whatever they are; 1 when
a process died, a mail was lost, or a check did not find what is true.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from statistics import median

import checks_cost
import checks_gateway
import checks_held
import frame
import report
from checks_held import Held
from samples import Figure, Run

# What is meant to be.
_MOST_CPU = 1.5
_LONGEST_HOLD = 20.0
_SHARE_BESIDE = 0.9


def main() -> int:
    """Run all parts, one after the other, or the one that the command line names."""
    parser = frame.parser(__doc__)
    parser.add_argument("--part", choices=_RUNS, help="only this part")
    options = parser.parse_args()

    def measure(run: Run) -> None:
        for part in (options.part,) if options.part else _RUNS:
            _RUNS[part](run, options.quick)

    return frame.run(measure, options.json)


def _note(
    run: Run, title: str, unit: str, values: Iterable[float], at_most: float | None = None
) -> None:
    frame.note(run, Figure("checks", title, unit, list(values), at_most=at_most))


def _cost(run: Run, quick: bool) -> None:
    rounds, times = (3, 60) if quick else (9, 200)
    print(f"\nCPU for a signed message of 10 KB, DNS cached, {rounds} rounds of {times}")
    for each in checks_cost.measure(rounds, times):
        most = _MOST_CPU if each.name == "all four" else None
        _note(run, f"{each.name}: CPU a message of 10 KB", "ms", each.ours, most)
        shares = [b / a for a, b in zip(each.ours, each.stock, strict=True)]
        _note(run, f"{each.name}: {each.said} takes", "times", shares)
    rounds, times = (1, 10) if quick else (5, 20)
    print(f"\nThe same message to a real spamd, one after the other, {rounds} rounds of {times}")
    for each in checks_cost.measure_spamd(rounds, times):
        _note(run, f"spam, {each.name}: its CPU", "ms", each.client)
        _note(run, f"spam, {each.name}: spamd's CPU", "ms", each.spamd)
        _note(run, f"spam, {each.name}: waited", "ms", each.waited)


def _rate(run: Run, quick: bool) -> None:
    rounds, seconds = (2, 0.5) if quick else (7, 2.0)
    print(
        f"\nThe whole gateway, into the embedded queue, one worker, 50 sessions of smtp-source,\n"
        f"{rounds} rounds of {seconds} s: all of spf, dkim, dmarc, arc, and none"
    )
    case = checks_gateway.measure(rounds, seconds)
    run.cases.append(replace(case, part="checks"))
    print(*report.reception(case), report.ratio(case, "all four", "none", None), sep="\n")
    pairs = zip(case.samples["all four"], case.samples["none"], strict=True)
    more = [(four.server_cost - none.server_cost) / 1e3 for four, none in pairs]
    _note(run, "all four in the gateway: CPU more than with none", "ms", more)


def _held(run: Run, quick: bool) -> None:
    rounds = 1 if quick else 5
    print(
        f"\nThe longest time that a message holds the event loop, in ms: the checks alone / with\n"
        f"documents, medians of {rounds} rounds"
    )
    sizes = list(checks_held.SIZES)[: 2 if quick else None]
    rows: dict[str, dict[str, Held]] = {}
    for held in checks_held.measure(sizes, rounds):
        rows.setdefault(held.shape, {})[held.size] = held
    print("  " + " " * 20 + "".join(f"{size:>16}" for size in sizes))
    for shape, by_size in rows.items():
        cells = (f"{median(e.checks):.1f} /{median(e.intake):5.1f}" for e in by_size.values())
        print(f"  {shape:<20}" + "".join(f"{cell:>16}" for cell in cells))
    found = [each for by_size in rows.values() for each in by_size.values()]
    longest = max(found, key=lambda each: each.usual)
    kind = f"the event loop held longest ({longest.shape}, {longest.size})"
    rounds_of_it = max(longest.checks, longest.intake, key=median)
    _note(run, kind, "ms", rounds_of_it, _LONGEST_HOLD)
    worst = max(found, key=lambda each: each.worst)
    _note(run, f"in any round ({worst.shape}, {worst.size})", "ms", [worst.worst])


def _beside(run: Run, quick: bool) -> None:
    rounds, seconds = (1, 0.5) if quick else (5, 2.0)
    print(
        "\nMail that needs no slow server (names cached, too large for spamd), beside 50 sessions\n"
        f"that need it; all four checks, {rounds} rounds of {seconds} s"
    )
    for found in checks_gateway.beside(rounds, seconds):
        print(f"{found.title}: {found.slow} slow mails taken, one after {found.longest:.1f} s")
        run.cases.append(replace(found.case, part="slow neighbours"))
        shares, _ = report.compared(found.case, "beside", "alone")
        title = f"{found.title}: rate beside / alone"
        frame.note(run, Figure("slow neighbours", title, "", shares, at_least=_SHARE_BESIDE))


_RUNS = {"cost": _cost, "rate": _rate, "held": _held, "beside": _beside}


if __name__ == "__main__":
    sys.exit(main())
