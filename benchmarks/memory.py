"""What the gateway has in memory: after the start, with large mail, and after long work.

    .venv/bin/python benchmarks/memory.py [--minutes N] [--part NAME] [--quick] [--json FILE]

What an idle client takes is in door.py. One worker each. See README.md for how to read it. Exit 0
when the numbers stand, whatever they are; 1 when a process died or a mail was not answered 250.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import encrypted
import endtoend
import frame
import report
from processes import peak, proportional, resident, wait_for
from samples import Figure, Run
from servers import NULL, mailgw
from source import Source

_PART = "memory"
_FOLDER = Path(__file__).parent.parent / ".cache" / "benchmarks"
_MB = 1_000_000
_LARGE = 25 * 1024 * 1024
# The bound that README.md states for a worker, of the default spool-memory and smtp-maxsize.
_IDLE, _A_CLIENT, _DOCUMENTS = 30.0, 1.5, 3 * 100.0
# Of what it has after a first fifth of the time: what grows longer than that leaks.
_GROWTH = 3.0
# What a soak sends in turns: octets, sessions, over what, and how many.
_MIX = ((4096, 50, "clear", 2000), (4096, 10, "starttls", 200), (1 << 20, 10, "clear", 20))


def main() -> int:
    """Run all parts, or the one that the command line names."""
    parser = frame.parser(__doc__)
    parser.add_argument("--minutes", type=float, help="of the soak (default 3)")
    parts = {"start": _start, "large": _large, "soak": _soak}
    parser.add_argument("--part", choices=parts, help="only this part")
    options = parser.parse_args()
    minutes = options.minutes or (0.3 if options.quick else 3.0)

    def measure(run: Run) -> None:
        for name, part in parts.items():
            if options.part in (None, name):
                part(run, options.quick, minutes)

    return frame.run(measure, options.json)


def _start(run: Run, quick: bool, _minutes: float) -> None:
    """Supervisor and worker, after a first mail."""
    with endtoend.private_broker() as broker:
        run.machine["RabbitMQ"] = broker.version
        for title, keys in (("nothing behind it", NULL), ("a broker", endtoend.keys(broker))):
            found = []
            for _ in range(1 if quick else 3):
                with mailgw(keys) as server:
                    taking = partial(endtoend.takes_mail, server.port)
                    wait_for(taking, "it takes mail", server.process)
                    with Source.to(server, 4096, 1, "clear") as source:
                        source.turn(1)
                    found.append(proportional(server.process.pid) / _MB)
            figure = Figure(_PART, f"all processes after a first mail, {title}", "MB", found)
            frame.note(run, figure)


def _large(run: Run, quick: bool, _minutes: float) -> None:
    """Clients with 25 MB each at the same time, into the embedded queue."""
    clients = 10 if quick else 100
    most = _IDLE + clients * _A_CLIENT + _DOCUMENTS
    _FOLDER.mkdir(parents=True, exist_ok=True)
    found = []
    for _ in range(1 if quick else 3):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=_FOLDER)))
            keys = {
                "MAILGW_RABBITMQ_ADDRESS": "",
                "MAILGW_QUEUE_STORE": str(folder / "queue.sqlite"),
                "MAILGW_QUEUE_STORE_MAX": "",
                # How long the disk needs for them is no question here.
                "MAILGW_SMTP_CONFIRM_TIMEOUT": "600",
                "TMPDIR": str(folder),
            }
            server = stack.enter_context(mailgw(keys))
            source = stack.enter_context(Source.to(server, _LARGE, clients, "clear"))
            source.turn(clients)
            found.append(peak(server.process.pid) / _MB)
    title = f"worker at its peak, {clients} clients with 25 MB each"
    frame.note(run, Figure(_PART, title, "MB", found, at_most=most))


def _soak(run: Run, _quick: bool, minutes: float) -> None:
    """Small, encrypted and larger mail in turns, confirmed by a broker."""
    looks: list[float] = []
    sent, began = 0, time.monotonic()
    with ExitStack() as stack:
        broker = stack.enter_context(endtoend.private_broker())
        run.machine["RabbitMQ"] = broker.version
        shown = stack.enter_context(encrypted.certificate())
        server = stack.enter_context(mailgw(endtoend.keys(broker), shown))
        wait_for(partial(endtoend.takes_mail, server.port), "it takes mail", server.process)
        turns = [
            (stack.enter_context(Source.to(server, size, sessions, how, broker.pid)), count)
            for size, sessions, how, count in _MIX
        ]
        while time.monotonic() < began + minutes * 60 or len(looks) < 10:
            for source, count in turns:
                source.turn(count)
                endtoend.settle(broker, server.process.name, count)
                sent += count
            looks.append(resident(server.process.pid) / _MB)
    _say_growth(run, f"{sent} mails in {minutes:g} minutes", looks)


def _say_growth(run: Run, title: str, looks: Sequence[float]) -> None:
    settled = looks[len(looks) // 5 :]
    third = max(1, len(settled) // 3)
    before, after = median(settled[:third]), median(settled[-third:])
    frame.note(run, Figure(_PART, f"worker, {title}", "MB", list(looks)))
    growth = (after / before - 1) * 100
    title = f"its growth from {report.number(before)} MB, first to last third of that"
    frame.note(run, Figure(_PART, title, "%", [growth], at_most=_GROWTH))


if __name__ == "__main__":
    sys.exit(main())
