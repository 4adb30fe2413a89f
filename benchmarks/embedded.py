"""The embedded queue, beside what SQLite alone reaches in groups of the same size.

    .venv/bin/python benchmarks/embedded.py [--rounds N] [--folder FOLDER] [--sync-ms N] [--quick]
        [--json FILE]

No broker: a mail is safe when it is synced to the disk of FOLDER, all that wait share one
sync; --sync-ms makes of it a disk whose syncs take longer, for everybody. Beside it one thread
inserts the same documents into the same table of another file on the same disk, in groups as
large as the gateway's were on average in the turn before, and does nothing else. And the same
gateway drops the same mail, which is what one worker can do at all. See README.md for how to read
it. Exit 0 when the numbers stand, whatever they are; 1 when a process died or a document was lost.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import frame
import report
import store_writer
from processes import Failed, Process, cpu_seconds, machine_cpu_seconds, run_to_end, running
from samples import WARM_UP, Contender, Figure, Run, Sample, compare
from servers import NULL, Server, mailgw
from source import Source

from mailgw.outlets.store_file import connect

_HERE = Path(__file__).parent
_FOLDER = _HERE.parent / ".cache" / "benchmarks"
_SIZE = 4096
_SESSIONS = (50, 500)
_OURS, _ALONE, _DROPPED = "mailgw", "SQLite alone", "mailgw, dropped"
_SHARE = 0.8


def main() -> int:
    """Run the comparison for each number of sessions."""
    parser = frame.parser(__doc__, rounds=7)
    parser.add_argument(
        "--folder",
        type=Path,
        default=_FOLDER,
        help="on the disk to use (default .cache/benchmarks)",
    )
    parser.add_argument(
        "--sync-ms", type=float, default=0.0, help="each sync takes so many ms more (needs cc)"
    )
    options = parser.parse_args()
    slower = f", syncs {options.sync_ms:g} ms longer" if options.sync_ms else ""
    rounds, seconds = (2, 0.5) if options.quick else (options.rounds, 2.0)

    def measure(run: Run) -> None:
        options.folder.mkdir(parents=True, exist_ok=True)
        run.machine["file system"] = _file_system(options.folder)
        print(
            f"\nSafe in the embedded queue on {run.machine['file system']}, 4 KB, connections "
            f"reused, {rounds} rounds of {seconds} s"
        )
        if options.sync_ms:
            _slow_down(options.folder, options.sync_ms)
        for sessions in _SESSIONS:
            _measure(run, options.folder, sessions, slower, rounds, seconds)

    return frame.run(measure, options.json)


def _slow_down(folder: Path, milliseconds: float) -> None:
    """Make every program that is started from here wait so much longer for its syncs."""
    library = folder.resolve() / "slow_sync.so"
    source = str(_HERE / "slow_sync.c")
    run_to_end("cc", ["cc", "-shared", "-fPIC", "-o", str(library), source, "-ldl"], 60)
    os.environ["LD_PRELOAD"], os.environ["SYNC_US"] = str(library), str(int(milliseconds * 1000))


def _measure(
    run: Run, folder: Path, sessions: int, slower: str, rounds: int, seconds: float
) -> None:
    with ExitStack() as stack:
        gateway = stack.enter_context(_gateway(folder, sessions))
        # One document is there for the other to take as its model.
        gateway.source.turn(1)
        writer = stack.enter_context(_writer(gateway.store))
        _settle(gateway.store, 1, _OURS)
        dropping = stack.enter_context(mailgw(NULL))
        dropped = stack.enter_context(Source.to(dropping, _SIZE, sessions, "clear"))
        contenders = [
            Contender(_OURS, gateway.turn),
            Contender(_ALONE, lambda count: _alone(writer, gateway, count)),
            Contender(_DROPPED, dropped.turn),
        ]
        least = max(WARM_UP, 5 * sessions)
        case = compare(f"{sessions} sessions{slower}", contenders, rounds, seconds, least)
    case = replace(case, part="embedded")
    run.cases.append(case)
    print("\n".join(report.reception(case)))
    title = f"{case.title}: "
    alone, _ = report.compared(case, _OURS, _ALONE)
    dropped_too, _ = report.compared(case, _OURS, _DROPPED)
    for what, values, least in (
        ("documents a sync", gateway.groups[-rounds:], None),
        ("rate / that of SQLite alone", alone, _SHARE),
        ("rate / that of mail that is dropped", dropped_too, None),
    ):
        frame.note(run, Figure("embedded", title + what, "", values, at_least=least))


@dataclass(frozen=True, slots=True)
class _Gateway:
    """The gateway, its source of mail, and how many documents shared a sync, turn by turn."""

    server: Server
    source: Source
    store: Path
    groups: list[float]

    def turn(self, count: int) -> Sample:
        """Send so many, which are counted and taken off."""
        before = _commits(self.store)
        sample = self.source.turn(count)
        self.groups.append(count / (_commits(self.store) - before & 0xFFFFFFFF))
        _settle(self.store, count, _OURS)
        return sample


@contextmanager
def _gateway(folder: Path, sessions: int) -> Iterator[_Gateway]:
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="queue-", dir=folder))
        store = Path(name) / "queue.sqlite"
        keys = {"MAILGW_RABBITMQ_ADDRESS": "", "MAILGW_QUEUE_STORE": str(store)}
        server = stack.enter_context(mailgw(keys))
        source = stack.enter_context(Source.to(server, _SIZE, sessions, "clear"))
        yield _Gateway(server, source, store, [])


@contextmanager
def _writer(store: Path) -> Iterator[Process]:
    command = [sys.executable, str(_HERE / "store_writer.py"), str(store)]
    with running(_ALONE, command, pipes=True) as process:
        # It has read its model and made its file when it has done something.
        process.ask("1 1")
        _settle(store_writer.beside(store), 1, _ALONE)
        yield process


def _alone(writer: Process, gateway: _Gateway, count: int) -> Sample:
    group = max(1, round(gateway.groups[-1]))
    before, all_before = cpu_seconds(writer.pid), machine_cpu_seconds()
    started = time.perf_counter()
    answer = writer.ask(f"{count} {group}")
    seconds = time.perf_counter() - started
    if answer != "done":
        raise Failed(f"{_ALONE} said {answer!r}")
    cpu = cpu_seconds(writer.pid) - before
    others = max(0.0, machine_cpu_seconds() - all_before - cpu)
    _settle(store_writer.beside(gateway.store), count, _ALONE)
    return Sample(count, seconds, cpu, 0.0, 0.0, others)


def _commits(store: Path) -> int:
    """How many transactions were committed, modulo 2**32.

    SQLite counts them in the header of the WAL index, native byte order: iChange, octets 8
    to 11 (sqlite.org/walformat.html, 2.1).
    """
    with store.with_name(f"{store.name}-shm").open("rb") as index:
        header = index.read(12)
    (count,) = struct.unpack("=8xI", header)
    return int(count)


def _settle(store: Path, sent: int, name: str) -> None:
    """Count what lies in the store, and take it off before the next turn."""
    with closing(connect(store, create=False)) as connection:
        (found,) = connection.execute("SELECT count(*) FROM document").fetchone()
        connection.execute("DELETE FROM document")
    if found != sent:
        raise Failed(f"{name}: {sent} documents were safe and {found} are in the store")


def _file_system(folder: Path) -> str:
    """The type of what the folder is on, by the longest place that holds it."""
    where = folder.resolve()
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [words for words in mounts if where.is_relative_to(words[1])]
    return max(holding, key=lambda words: len(words[1]))[2] if holding else os.name


if __name__ == "__main__":
    sys.exit(main())
