"""From final dot to 250 at half of the top rate, beside the broker's own confirms.

    .venv/bin/python benchmarks/paced.py [--rounds N] [--quick] [--json FILE]

The top rate is that of sessions which send as fast as they are answered, into a quorum queue.
At half of it each mail has its time, and waits from then on, whoever is late; beside it a bare
publisher (our outlet, without SMTP) publishes the same document as often, and its time is that
from the publish to the broker's confirm. See README.md for how to read it. Exit 0 when the
numbers stand, whatever they are; 1 when a process died or a message was lost.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import endtoend
import frame
import peers
import report
from processes import Process
from samples import WARM_UP, Case, Contender, Figure, Run, Sample, compare
from servers import Server
from source import Source

_SIZE = 4096
_SESSIONS = 50
# So many that a server which stands still for a moment finds all who come meanwhile waiting.
_PACED_SESSIONS = 200
_OURS, _BARE = "mailgw", "outlet"
_LONGEST = 5.0


def main() -> int:
    """Find the top rate, then send at half of it."""
    options = frame.parser(__doc__, rounds=7).parse_args()
    rounds, seconds = (2, 1.0) if options.quick else (options.rounds, 6.0)
    return frame.run(partial(_measure, rounds=rounds, seconds=seconds), options.json)


def _measure(run: Run, rounds: int, seconds: float) -> None:
    with ExitStack() as stack:
        broker = stack.enter_context(endtoend.private_broker())
        run.machine["RabbitMQ"] = broker.version
        receivers = endtoend.receivers(broker, list(peers.RECEIVERS))
        [server] = stack.enter_context(receivers)
        body = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "document.json"
        body.write_bytes(endtoend.document(broker, server))
        publisher = stack.enter_context(endtoend.bare_publisher(_BARE, broker, body))
        top = _top(server, broker, rounds, seconds / 3)
        run.cases.append(top)
        print("\n" + "\n".join(report.sessions(top)), flush=True)
        rate = median(sample.rate for sample in top.samples[_OURS]) / 2
        case = _at(rate, server, publisher, broker, rounds, seconds)
    run.cases.append(case)
    print("\n".join(report.sessions(case)))
    for name, which in (("p50", "p50"), ("p99", "p99")):
        ratios = [
            getattr(ours, which) / getattr(bare, which)
            for ours, bare in zip(case.samples[_OURS], case.samples[_BARE], strict=True)
        ]
        most = _LONGEST if name == "p99" else None
        title = f"{name} to 250 / {name} of the broker's confirm"
        frame.note(run, Figure("paced", title, "", ratios, at_most=most))


def _top(server: Server, broker: endtoend.Broker, rounds: int, seconds: float) -> Case:
    """As fast as it is answered."""
    with Source.to(server, _SIZE, _SESSIONS, "clear", broker.pid) as source:
        contenders = [Contender(_OURS, partial(_mails, source, broker, None))]
        title = f"4 KB, {_SESSIONS} sessions, as fast as they are answered"
        return replace(compare(title, contenders, rounds, seconds), part="paced")


def _at(
    rate: float,
    server: Server,
    publisher: Process,
    broker: endtoend.Broker,
    rounds: int,
    seconds: float,
) -> Case:
    """At a rate, the gateway and the bare publisher in turns."""
    with Source.to(server, _SIZE, _PACED_SESSIONS, "clear", broker.pid) as source:
        contenders = [
            Contender(_OURS, partial(_mails, source, broker, rate)),
            Contender(_BARE, lambda count: endtoend.bare(publisher, broker, count, rate)),
        ]
        least = max(WARM_UP, round(rate * seconds))
        title = f"at {rate:.0f} a second"
        return replace(compare(title, contenders, rounds, seconds, least), part="paced")


def _mails(source: Source, broker: endtoend.Broker, rate: float | None, count: int) -> Sample:
    """A turn, after which the queue is counted and emptied."""
    sample = source.turn(count, rate)
    endtoend.settle(broker, _OURS, count)
    return sample


if __name__ == "__main__":
    sys.exit(main())
