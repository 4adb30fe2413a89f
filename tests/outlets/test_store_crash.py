"""A writer that is killed loses nothing that it reported as safe."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from mailgw.outlets.store_file import depths, read_store

# Ten publishers, three documents a transaction; a transaction's name is written to the
# ledger (stdout, no buffer in this process) when publish has returned.
WRITER = """
import asyncio, os, sys
from datetime import UTC, datetime
from pathlib import Path
from mailgw.mail.publication import Publication
from mailgw.outlets.store import Store

path, prefix, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

async def publisher(store, number):
    for turn in range(count):
        name = f"{prefix}-{number}-{turn}"
        body = name.encode().ljust(4_000)
        received = datetime.now(UTC)
        documents = [
            Publication("inbox", (body,), f"{name}-{n}", name, name, received) for n in range(3)
        ]
        await store.publish(documents)
        os.write(1, name.encode() + b"\\n")

async def main():
    store = Store(path)
    await store.open()
    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(publisher(store, number))
    await store.close()

asyncio.run(main())
"""


def start_writer(path: Path, prefix: str, count: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), prefix, str(count)],
        stdout=subprocess.PIPE,
        env=environment,
    )


def test_a_killed_writer_loses_nothing_it_reported_as_safe(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    moments = random.Random(20_260_102)
    ledger: set[str] = set()
    for life in range(10):
        writer = start_writer(path, f"life{life}", 1_000_000)
        assert writer.stdout is not None
        for _ in range(moments.randrange(1, 400)):
            ledger.add(writer.stdout.readline().decode().strip())
        writer.kill()
        ledger.update(line.decode().strip() for line in writer.stdout)
        writer.stdout.close()
        assert writer.wait() == -9

    stored: Counter[str] = Counter()
    read_store(
        path,
        "inbox",
        limit=None,
        follow=False,
        keep=True,
        emit=lambda body: stored.update([body.decode().strip()]),
    )
    assert len(ledger) > 10
    assert ledger - stored.keys() == set()
    # Whole transactions only, also the one it died in.
    assert set(stored.values()) == {3}


def test_a_reader_in_another_process_takes_every_document_off_while_it_is_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "queue.sqlite"
    writer = start_writer(path, "w", 30)
    assert writer.stdout is not None
    writer.stdout.readline()  # the file is there
    taken: Counter[str] = Counter()
    read_store(
        path,
        "inbox",
        limit=900,
        follow=True,
        keep=False,
        emit=lambda body: taken.update([body.decode().strip()]),
    )
    writer.stdout.read()
    writer.stdout.close()
    assert writer.wait() == 0
    assert taken == {f"w-{number}-{turn}": 3 for number in range(10) for turn in range(30)}
    assert depths(path) == {}
