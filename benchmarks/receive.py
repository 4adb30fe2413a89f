"""How fast mail is received, measured against others in the same run.

    .venv/bin/python benchmarks/receive.py [--rounds N] [--quick] [--json FILE]

See README.md for what is compared and how to read it. Exit 0 when the numbers stand,
whatever they are; 1 when a process died or a message was lost.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import endtoend
import reception
import report
from processes import Failed
from samples import Case

# (case of part 1, peer) -> how many times as fast mailgw is meant to be.
_TIMES_AIOSMTPD = {reception.Shape(4096, True): 6.0, reception.Shape(102_400, True): 10.0}
_TIMES_SMTP_SINK = 1.0
_SHARE_OF_BARE = 0.6

_REMARKS = """\
One process each, 50 sessions of smtp-source, loopback. mailgw writes its log, to /dev/null,
and makes no JSON here; aiosmtpd's log is off, smtp-sink has none. "server", "source" and
"others" are the shares of one core that the server, smtp-source and the rest of the machine
used. Where smtp-source is the bottleneck the server could do more: compare CPU time.
Medians; ratios are round by round.
"""


def main() -> int:
    """Run what the command line asks for."""
    options = _options()
    # As Ctrl-C: what was started is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        _run(options)
    except Failed as failure:
        print(f"benchmark failed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default 5)")
    parser.add_argument("--quick", action="store_true", help="2 short rounds: does it work?")
    parser.add_argument("--part", type=int, choices=(1, 2), help="only this part")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers here")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    return options


def _run(options: argparse.Namespace) -> None:
    rounds, seconds = (2, 0.5) if options.quick else (options.rounds, 1.75)
    cases: list[Case] = []
    facts = report.machine(None)
    _say_facts(facts)
    if options.part != 2:
        cases += _part_1(rounds, seconds)
    if options.part != 1:
        with endtoend.private_broker() as broker:
            facts["RabbitMQ"] = broker.version
            cases.append(_part_2(broker, rounds, seconds))
    if options.json:
        _write(options.json, facts, cases)


def _part_1(rounds: int, seconds: float) -> list[Case]:
    print(f"\nPart 1: accepted and dropped, {rounds} rounds of {seconds} s\n{_REMARKS}")
    cases = []
    for shape, case in zip(
        reception.SHAPES, reception.measure(reception.SHAPES, rounds, seconds), strict=True
    ):
        cases.append(case)
        _say(*report.reception(case))
        _say(
            report.ratio(case, "mailgw", "aiosmtpd", _TIMES_AIOSMTPD.get(shape)),
            report.ratio(case, "mailgw", "smtp-sink", _TIMES_SMTP_SINK),
            "",
        )
    return cases


def _part_2(broker: endtoend.Broker, rounds: int, seconds: float) -> Case:
    print(
        f"\nPart 2: confirmed by a quorum queue of a private RabbitMQ {broker.version}, "
        f"{rounds} rounds of {seconds} s,\n50 in flight; every turn's messages were counted "
        "in the queue."
    )
    case = endtoend.measure(broker, rounds, seconds)
    _say(*report.end_to_end(case))
    _say(
        report.ratio(case, "mailgw", "aio-pika", _SHARE_OF_BARE),
        report.ratio(case, "mailgw", "outlet", None),
        report.ratio(case, "outlet", "aio-pika", None),
    )
    return case


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)


def _say_facts(facts: dict[str, str]) -> None:
    _say(", ".join(f"{name} {text}" for name, text in facts.items() if name != "RabbitMQ"))


def _write(file: Path, facts: dict[str, str], cases: list[Case]) -> None:
    numbers = {"machine": facts, "cases": [asdict(case) for case in cases]}
    file.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
