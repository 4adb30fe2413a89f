"""Confirmed publishing without SMTP: the outlet beside the libraries, in one run.

    .venv/bin/python benchmarks/publishers.py [--rounds N] [--quick] [--json FILE]

One document of 5 KB again and again into a quorum queue of a private RabbitMQ, 50 in
flight, persistent, mandatory, confirmed. The queue is counted and emptied after each turn.
Exit 0 whatever the numbers are; 1 when a publisher died or a message was lost.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import aio_pika
import endtoend
import frame
import report
from pamqp.common import FieldTable
from processes import Failed, Process, cpu_seconds, machine_cpu_seconds, running
from samples import Case, Contender, Run, Sample, compare

_KINDS = ("outlet", "aio-pika", "aiormq", "pika")
_QUEUE = "benchmark"
_HERE = Path(__file__).parent
_LIBRARIES = _HERE.parent / ".cache" / "publishers"
_BODY = b'{"mime":"' + b"All work and no play makes a dull mail.\\r\\n" * 115 + b'"}'


def main() -> int:
    """Run what the command line asks for."""
    options = frame.parser(__doc__, rounds=7).parse_args()
    rounds, seconds = (2, 0.5) if options.quick else (options.rounds, 2.5)

    def compared(run: Run) -> None:
        try:
            install()
        except subprocess.CalledProcessError as failure:
            raise Failed(str(failure)) from failure
        with endtoend.private_broker() as broker:
            run.machine["RabbitMQ"] = broker.version
            case = measure(broker, rounds, seconds)
        run.cases.append(case)
        print(*report.end_to_end(case), sep="\n")
        print(*(report.ratio(case, "outlet", kind, None) for kind in _KINDS[1:]), sep="\n")

    return frame.run(compared, options.json)


def install() -> None:
    """Put pika beside the project, where nothing else finds it."""
    wanted, had = _HERE / "publishers.txt", _LIBRARIES / "made-from"
    if had.exists() and had.read_text() == wanted.read_text():
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
    subprocess.run([*command, "--target", str(_LIBRARIES), "-r", str(wanted)], check=True)
    had.write_text(wanted.read_text())


def measure(broker: endtoend.Broker, rounds: int, seconds: float) -> Case:
    """Let the publishers take turns."""
    asyncio.run(_empty(broker))
    # In the environment, because the URL holds a password.
    environ = {
        **os.environ,
        "MAILGW_RABBITMQ_ADDRESS": broker.url,
        "PYTHONPATH": str(_LIBRARIES),
    }
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mailgw-bench-"))
        body = Path(folder) / "document.json"
        body.write_bytes(_BODY)
        contenders = []
        for kind in _KINDS:
            command = [sys.executable, str(_HERE / "publisher.py"), kind, _QUEUE, str(body)]
            started = stack.enter_context(running(kind, command, environ=environ, pipes=True))
            contenders.append(Contender(kind, partial(_turn, started, broker)))
        case = compare(f"documents of {len(_BODY)} octets", contenders, rounds, seconds)
        return replace(case, part="publishers")


def _turn(publisher: Process, broker: endtoend.Broker, count: int) -> Sample:
    before = cpu_seconds(publisher.pid), cpu_seconds(broker.pid), machine_cpu_seconds()
    started = time.perf_counter()
    answer = publisher.ask(str(count))
    seconds = time.perf_counter() - started
    itself = cpu_seconds(publisher.pid) - before[0]
    others = cpu_seconds(broker.pid) - before[1]
    elsewhere = max(0.0, machine_cpu_seconds() - before[2] - itself - others)
    found = asyncio.run(_empty(broker))
    if answer != "done" or found != count:
        raise Failed(f"{publisher.name} said {answer!r}: {found} of {count} are in the queue")
    return Sample(count, seconds, itself, 0.0, others, elsewhere)


async def _empty(broker: endtoend.Broker) -> int:
    connection = await aio_pika.connect(broker.url)
    async with connection:
        channel = await connection.channel()
        arguments: FieldTable = {"x-queue-type": "quorum"}
        queue = await channel.declare_queue(_QUEUE, durable=True, arguments=arguments)
        return (await queue.purge()).message_count or 0


if __name__ == "__main__":
    sys.exit(main())
