"""Rate, and the time from final dot to 250, against the number of sessions.

    .venv/bin/python benchmarks/sessions.py [--rounds N] [--quick] [--json FILE]

See README.md for how to read it. Exit 0 when the numbers stand, whatever they are; 1 when a
process died or a message was lost.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import endtoend
import frame
import peers
import report
from samples import WARM_UP, Case, Contender, Run, Sample, compare
from servers import NULL, Server, mailgw, smtp_sink
from source import Source

_SIZE = 4096
_SESSIONS = (1, 10, 50, 200, 500)
# Postfix has a process for each session, and a limit of them.
_UNFIT = ("postfix",)


def main() -> int:
    """Run both parts: accepted and dropped, and confirmed by a quorum queue."""
    parser = frame.parser(__doc__, rounds=3)
    parser.add_argument("--without", type=peers.names, default=[], metavar="PEER,PEER")
    options = parser.parse_args()
    rounds, seconds = (1, 0.3) if options.quick else (options.rounds, 1.75)
    without = [*options.without, *_UNFIT]

    def measure(run: Run) -> None:
        print("\nAccepted and dropped, 4 KB, connections reused, sent by sender.py")
        for case in _dropped(without, rounds, seconds):
            print("\n".join(report.sessions(case)), flush=True)
            run.cases.append(case)
        with endtoend.private_broker() as broker:
            run.machine["RabbitMQ"] = broker.version
            print(f"\nThe same, confirmed by a quorum queue of RabbitMQ {broker.version}")
            for case in _confirmed(broker, without, rounds, seconds):
                print("\n".join(report.sessions(case)), flush=True)
                run.cases.append(case)

    return frame.run(measure, options.json)


def _dropped(without: Sequence[str], rounds: int, seconds: float) -> Iterator[Case]:
    with ExitStack() as stack:
        servers = [stack.enter_context(mailgw(NULL)), stack.enter_context(smtp_sink())]
        for name, start in peers.RECEIVERS.items():
            if name not in without:
                servers.append(stack.enter_context(start(peers.DROP, None)))
        for sessions in _SESSIONS:
            with ExitStack() as sources:
                contenders = []
                for server in servers:
                    source = Source.to(server, _SIZE, sessions, "clear")
                    turn = sources.enter_context(source).turn
                    contenders.append(Contender(server.process.name, turn))
                case = compare(_title(sessions), contenders, rounds, seconds, _fewest(sessions))
            yield replace(case, part="dropped by sessions", sessions=sessions)


def _confirmed(
    broker: endtoend.Broker, without: Sequence[str], rounds: int, seconds: float
) -> Iterator[Case]:
    with endtoend.receivers(broker, without, unconfirmed=False) as servers:
        for sessions in _SESSIONS:
            with ExitStack() as sources:
                contenders = []
                for server in servers:
                    source = Source.to(server, _SIZE, sessions, "clear", broker.pid)
                    turn = _settled(sources.enter_context(source).turn, server, broker)
                    contenders.append(Contender(server.process.name, turn))
                case = compare(_title(sessions), contenders, rounds, seconds, _fewest(sessions))
            yield replace(case, part="confirmed by sessions", sessions=sessions)


def _title(sessions: int) -> str:
    return "1 session" if sessions == 1 else f"{sessions} sessions"


def _fewest(sessions: int) -> int:
    """Messages of the shortest turn: so many that its beginning and end are little of it."""
    return max(WARM_UP, 5 * sessions)


def _settled(
    send: Callable[[int], Sample], server: Server, broker: endtoend.Broker
) -> Callable[[int], Sample]:
    """Turns after which the queue is counted and emptied."""

    def turn(count: int) -> Sample:
        sample = send(count)
        endtoend.settle(broker, server.process.name, count)
        return sample

    return turn


if __name__ == "__main__":
    sys.exit(main())
