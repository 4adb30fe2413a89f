"""One worker process and two, on the machine that also sends the mail.

    .venv/bin/python benchmarks/workers.py [--rounds N] [--most N] [--quick] [--json FILE]

The engine alone (accepted and dropped), then end to end into a quorum queue, 4 KB, 50 reused
connections of smtp-source. The source of the mail, and the broker where there is one, share the
cores with the workers, so a second worker can have only what they leave. See README.md for how to
read it. Exit 0 when the numbers stand, whatever they are; 1 when a process died or a message was
lost.
"""

from __future__ import annotations

import smtplib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import endtoend
import frame
import report
from processes import wait_for
from reception import SMALL, send
from samples import Case, Contender, Figure, Run, Sample, compare
from servers import NULL, Server, mailgw

_PART = "workers"
# Held at once: they come to all workers, not only to the first that is ready.
_HELD = 8


def main() -> int:
    """Let gateways with one worker and with more take turns."""
    parser = frame.parser(__doc__, rounds=7)
    parser.add_argument("--most", type=int, default=2, help="workers, from one on (default 2)")
    options = parser.parse_args()
    rounds, seconds = (2, 0.5) if options.quick else (options.rounds, 2.0)
    numbers = range(1, options.most + 1)

    def measure(run: Run) -> None:
        case = _dropped(numbers, rounds, seconds)
        _note(run, case, report.reception(case))
        with endtoend.private_broker() as broker:
            run.machine["RabbitMQ"] = broker.version
            case = _confirmed(broker, numbers, rounds, seconds)
        _note(run, case, report.end_to_end(case))

    return frame.run(measure, options.json)


def _dropped(numbers: Sequence[int], rounds: int, seconds: float) -> Case:
    with _gateways(NULL, numbers) as servers:
        contenders = [
            Contender(name, partial(send, server, SMALL)) for name, server in servers.items()
        ]
        title = f"accepted and dropped: {SMALL.title}"
        return replace(compare(title, contenders, rounds, seconds), part=_PART)


def _confirmed(
    broker: endtoend.Broker, numbers: Sequence[int], rounds: int, seconds: float
) -> Case:
    with _gateways(endtoend.keys(broker), numbers) as servers:
        contenders = []
        for name, server in servers.items():
            wait_for(partial(_all_take_mail, server.port), "all take mail", server.process)
            contenders.append(Contender(name, _settled(name, server, broker)))
        title = f"safe in a quorum queue: {SMALL.title}"
        return replace(compare(title, contenders, rounds, seconds), part=_PART)


@contextmanager
def _gateways(keys: Mapping[str, str], numbers: Sequence[int]) -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:
        servers = {}
        for number in numbers:
            name = "1 worker" if number == 1 else f"{number} workers"
            gateway = mailgw({**keys, "MAILGW_SMTP_THREADS": str(number)})
            servers[name] = stack.enter_context(gateway)
        yield servers


def _all_take_mail(port: int) -> bool:
    """Each worker connects to the broker by itself, and says 451 until it has."""
    with ExitStack() as stack:
        codes = []
        for _ in range(_HELD):
            client = smtplib.SMTP("127.0.0.1", port, "client.example", timeout=5)
            stack.enter_context(client)
            client.ehlo()
            codes.append(client.mail("sender@example.com")[0])
    return set(codes) == {250}


def _settled(name: str, server: Server, broker: endtoend.Broker) -> Callable[[int], Sample]:
    """Turns after which the queue is counted and emptied."""

    def turn(count: int) -> Sample:
        sample = send(server, SMALL, count, broker.pid)
        endtoend.settle(broker, name, count)
        return sample

    return turn


def _note(run: Run, case: Case, table: Iterator[str]) -> None:
    run.cases.append(case)
    print("", *table, sep="\n", flush=True)
    one, *others = case.samples
    for more in others:
        rates, _ = report.compared(case, more, one)
        frame.note(run, Figure(_PART, f"{case.title.partition(':')[0]}: {more} / {one}", "", rates))


if __name__ == "__main__":
    sys.exit(main())
