"""What the checks cost: SPF, DKIM, DMARC, ARC and SpamAssassin, alone and in the gateway.

    .venv/bin/python benchmarks/checks.py [--part NAME] [--quick]

See README.md for how to read it. Exit 0 when the numbers stand, whatever they are; 1 when
a process died, a mail was lost, or a check did not find what is true.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterable
from statistics import median

import checks_cost
import checks_gateway
import checks_held
import report
from checks_held import Held
from processes import Failed

# What is meant to be.
_MOST_CPU = 1.5
_LONGEST_HOLD = 20.0
_SHARE_BESIDE = 0.9

_PARTS = ("cost", "rate", "held", "beside")


def main() -> int:
    """Run all parts, one after the other, or the one that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: does it work?")
    parser.add_argument("--part", choices=_PARTS, help="only this part")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    wanted = (options.part,) if options.part else _PARTS
    try:
        facts = report.machine(None)
        print(", ".join(f"{name} {text}" for name, text in facts.items() if name != "RabbitMQ"))
        for part in wanted:
            _RUNS[part](options.quick)
    except Failed as failure:
        print(f"benchmark failed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _cost(quick: bool) -> None:
    rounds, times = (3, 60) if quick else (9, 200)
    print(f"\nCPU ms for a signed message of 10 KB, DNS cached, {rounds} rounds of {times}")
    print(f"  {'check':<12}{'mailgw':>9}{'stock':>9}{'stock / mailgw':>16}   stock is")
    for each in checks_cost.measure(rounds, times):
        ours, stock = median(each.ours), median(each.stock)
        print(f"  {each.name:<12}{ours:>9.3f}{stock:>9.3f}{each.ratio:>16.1f}   {each.said}")
        if each.name == "all four":
            print(f"  expected: all four at most {_MOST_CPU:g} ms: {_yes(ours <= _MOST_CPU)}")
    rounds, times = (1, 10) if quick else (5, 20)
    print(
        f"\nThe same message to a real spamd, one after the other, {rounds} rounds of {times}, ms"
    )
    print(f"  {'client':<18}{'its CPU':>9}{'spamd CPU':>11}{'waited':>9}")
    for each in checks_cost.measure_spamd(rounds, times):
        print(f"  {each.name:<18}{each.client:>9.2f}{each.spamd:>11.1f}{each.waited:>9.1f}")


def _rate(quick: bool) -> None:
    rounds, seconds = (2, 0.5) if quick else (7, 2.0)
    print(
        f"\nThe whole gateway, into the embedded queue, one worker, 50 sessions of smtp-source,\n"
        f"{rounds} rounds of {seconds} s: all of spf, dkim, dmarc, arc, and none"
    )
    case = checks_gateway.measure(rounds, seconds)
    print(*report.reception(case), report.ratio(case, "all four", "none", None), sep="\n")
    four, none = (median(s.server_cost for s in case.samples[n]) for n in ("all four", "none"))
    print(f"  the checks in the gateway: {(four - none) / 1e3:.2f} ms of CPU a message", flush=True)


def _held(quick: bool) -> None:
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
    _say_longest([each for by_size in rows.values() for each in by_size.values()])


def _say_longest(found: Iterable[Held]) -> None:
    usual = max(found, key=lambda each: each.usual)
    worst = max(found, key=lambda each: each.worst)
    print(
        f"  the longest: {usual.usual:.1f} ms ({usual.shape}, {usual.size}); in any round: "
        f"{worst.worst:.1f} ms ({worst.shape}, {worst.size})\n"
        f"  expected: at most {_LONGEST_HOLD:g} ms: {_yes(usual.usual <= _LONGEST_HOLD)}",
        flush=True,
    )


def _beside(quick: bool) -> None:
    rounds, seconds = (1, 0.5) if quick else (5, 2.0)
    print(
        "\nMail that needs no slow server (names cached, too large for spamd), beside 50 sessions\n"
        f"that need it; all four checks, {rounds} rounds of {seconds} s"
    )
    for found in checks_gateway.beside(rounds, seconds):
        print(f"{found.title}: {found.slow} slow mails taken, one after {found.longest:.1f} s")
        print(report.ratio(found.case, "beside", "alone", _SHARE_BESIDE), flush=True)


def _yes(holds: bool) -> str:
    return "yes" if holds else "NO"


_RUNS = {"cost": _cost, "rate": _rate, "held": _held, "beside": _beside}


if __name__ == "__main__":
    sys.exit(main())
