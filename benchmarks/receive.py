"""How fast mail is received, measured against others in the same run.

    .venv/bin/python benchmarks/receive.py [--rounds N] [--quick] [--compiled] [--json FILE]

See README.md for what is compared and how to read it. Exit 0 when the numbers stand,
whatever they are; 1 when a process died or a message was lost.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import encrypted
import endtoend
import frame
import peers
import reception
import report
import servers
from samples import Case, Run

# How many times as fast as a peer mailgw is meant to be, by case and peer.
_EXPECTED: dict[str, dict[str, float]] = {
    reception.SMALL.title: {
        "smtp-sink": 1.0,
        "smtp-server": 2.0,
        "haraka": 4.0,
        "aiosmtpd": 7.0,
    },
    reception.SMALL_ONCE.title: {
        "smtp-sink": 1.0,
        "smtp-server": 3.0,
        "haraka": 3.0,
        "aiosmtpd": 3.0,
        "postfix": 3.0,
    },
    reception.MIDDLE.title: {"smtp-server": 2.0, "aiosmtpd": 10.0},
}
_EXPECTED_END_TO_END = {"haraka nowait": 2.5, "haraka confirm": 2.5, "aiosmtpd confirm": 4.0}
_HANDSHAKE_SHARE = 0.5

_REMARKS = """\
One process each, but Postfix, which has one for each session; 50 sessions of smtp-source
unless said otherwise, loopback. mailgw writes its log, to /dev/null, and makes no JSON here;
the others' logs are off, Postfix's goes to syslog if there is one. "server", "source" and
"others" are the shares of one core that the server with its children, the source of the mail
and the rest of the machine used. Where the source is the bottleneck the server could do
more: compare CPU time. Medians; ratios are round by round.
"""


def main() -> int:
    """Run what the command line asks for."""
    parser = frame.parser(__doc__, rounds=5)
    parser.add_argument("--part", type=int, choices=(1, 2, 3), help="only this part")
    parser.add_argument("--without", type=peers.names, default=[], metavar="PEER,PEER")
    options = parser.parse_args()
    rounds, seconds = (2, 0.5) if options.quick else (options.rounds, 1.75)

    def measure(run: Run) -> None:
        if options.part in (None, 1):
            run.cases.extend(_part_1(options.without, rounds, seconds))
        if options.part in (None, 2):
            with endtoend.private_broker() as broker:
                run.machine["RabbitMQ"] = broker.version
                run.cases.append(_part_2(broker, options.without, rounds, seconds))
        if options.part in (None, 3):
            run.cases.extend(_part_3(options.without, rounds, seconds))

    return frame.run(measure, options.json)


def _part_1(without: list[str], rounds: int, seconds: float) -> list[Case]:
    print(f"\nPart 1: accepted and dropped, {rounds} rounds of {seconds} s\n{_REMARKS}")
    cases = []
    for case in reception.measure(reception.SHAPES, without, rounds, seconds):
        cases.append(case)
        _say(*report.reception(case))
        _say(*_beside_ours(case, _EXPECTED.get(case.title, {})), "")
    return cases


def _part_2(broker: endtoend.Broker, without: list[str], rounds: int, seconds: float) -> Case:
    print(
        f"\nPart 2: safe in a quorum queue of a private RabbitMQ {broker.version}, "
        f"{rounds} rounds of {seconds} s,\n50 in flight, all confirmed but of those named "
        "nowait; every turn's messages were counted\nin the queue. aio-pika and outlet are "
        "publishers without SMTP."
    )
    case = endtoend.measure(broker, without, rounds, seconds)
    _say(*report.end_to_end(case))
    _say(*_beside_ours(case, _EXPECTED_END_TO_END))
    _say(report.ratio(case, "outlet", "aio-pika", None))
    return case


def _part_3(without: list[str], rounds: int, seconds: float) -> list[Case]:
    print(
        f"\nPart 3: over TLS, {rounds} rounds of {seconds} s, {encrypted.SESSIONS} sessions of "
        "sender.py, accepted and dropped"
    )
    cases = []
    for case in encrypted.measure(without, rounds, seconds):
        cases.append(case)
        _say(*report.reception(case))
        _say(*_beside_ours(case, {}, encrypted.ALONE))
        for name in servers.builds():
            _say(report.share(case, encrypted.ALONE, name, _HANDSHAKE_SHARE))
    return cases


def _beside_ours(case: Case, expected: Mapping[str, float], *apart: str) -> Iterator[str]:
    """Each mailgw beside all others but those `apart`, and the compiled one beside the other."""
    ours = [name for name in servers.builds() if name in case.samples]
    for name in ours:
        yield from report.ratios(case, name, expected, without=[*ours, *apart])
    for name in ours[1:]:
        yield report.ratio(case, name, ours[0], None)


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
