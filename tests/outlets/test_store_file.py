"""The queue store's file: opening it, refusing what is not ours, reading it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailgw.mail.publication import Publication
from mailgw.outlets.store import Store
from mailgw.outlets.store_file import StoreError, connect, depths, read_store


async def fill(path: Path, queue: str, texts: list[str]) -> None:
    received = datetime(2026, 1, 2, tzinfo=UTC)
    store = Store(path)
    await store.open()
    await store.publish(
        [Publication(queue, (text.encode(),), text, "t", "d", received) for text in texts]
    )
    await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite"


def read(path: Path, queue: str, limit: int | None = None, keep: bool = False) -> list[str]:
    found: list[str] = []

    def emit(body: bytes) -> None:
        found.append(body.decode())

    count = read_store(path, queue, limit=limit, follow=False, keep=keep, emit=emit)
    assert count == len(found)
    return found


# --- opening ----------------------------------------------------------------------


def foreign_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE somebody_s (work)")


def later_version(path: Path) -> None:
    connect(path, create=True).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 9")


def no_database(path: Path) -> None:
    path.write_bytes(b"smtp-port: 2525\n" * 100)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Path.mkdir, "is a directory"),
        (os.mkfifo, "is not a file"),
        (no_database, "file is not a database"),
        (foreign_database, "is a database of another program"),
        (later_version, "has version 9, this is for 1"),
    ],
    ids=["directory", "fifo", "no database", "foreign", "version"],
)
@pytest.mark.parametrize("create", [True, False])
def test_what_is_not_ours_is_refused_with_the_reason(
    path: Path, make: Callable[[Path], None], why: str, create: bool
) -> None:
    make(path)
    with pytest.raises(StoreError, match=rf"queue\.sqlite: {why}"):
        connect(path, create=create)


def test_a_foreign_database_is_left_as_it_was(path: Path) -> None:
    foreign_database(path)
    before = path.read_bytes()
    with pytest.raises(StoreError):
        connect(path, create=True)
    assert path.read_bytes() == before


def test_reading_does_not_make_a_file(path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        read(path, "inbox")
    assert not path.exists()


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write everywhere, so for a moment we are somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_store_that_may_only_be_read_is_refused_at_open(path: Path) -> None:
    connect(path, create=True).close()
    path.chmod(0o444)
    folder = os.open(path.parent, os.O_RDONLY)
    before = Path.cwd()
    path.parent.chmod(0o555)
    try:
        # By a relative path: the folders above need not be open to everybody.
        os.fchdir(folder)
        with without_privileges(), pytest.raises(StoreError, match=r"readonly|unable to open"):
            connect(Path(path.name), create=True)
    finally:
        os.chdir(before)
        os.close(folder)
        path.parent.chmod(0o755)


def test_only_the_owner_can_read_the_file_and_what_lies_beside_it(path: Path) -> None:
    before = os.umask(0)
    try:
        connection = connect(path, create=True)
        connection.execute("CREATE TABLE more (a)")
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    connection.close()
    assert modes == {
        "queue.sqlite": 0o600,
        "queue.sqlite-wal": 0o600,
        "queue.sqlite-shm": 0o600,
    }


def test_several_workers_can_make_the_file_at_once(path: Path) -> None:
    start = threading.Barrier(8)
    failures: list[Exception] = []

    def worker() -> None:
        start.wait()
        try:
            connect(path, create=True).close()
        except StoreError as error:
            failures.append(error)

    threads = [threading.Thread(target=worker) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert depths(path) == {}


# --- reading ----------------------------------------------------------------------


async def test_reading_takes_documents_off_oldest_first(path: Path) -> None:
    await fill(path, "inbox", [f"{n}" for n in range(250)])
    await fill(path, "local", ["other"])
    assert read(path, "inbox") == [f"{n}" for n in range(250)]
    assert read(path, "inbox") == []
    assert depths(path) == {"local": 1}


async def test_a_limit_leaves_the_rest(path: Path) -> None:
    await fill(path, "inbox", [f"{n}" for n in range(250)])
    assert read(path, "inbox", limit=120) == [f"{n}" for n in range(120)]
    assert read(path, "inbox", limit=0) == []
    assert depths(path) == {"inbox": 130}


async def test_keep_leaves_everything(path: Path) -> None:
    await fill(path, "inbox", [f"{n}" for n in range(250)])
    assert read(path, "inbox", keep=True) == [f"{n}" for n in range(250)]
    assert depths(path) == {"inbox": 250}


async def test_depths_count_each_queue(path: Path) -> None:
    await fill(path, "inbox", ["1", "2", "3"])
    await fill(path, "Büro", ["4"])
    assert depths(path) == {"inbox": 3, "Büro": 1}


async def test_what_could_not_be_handed_over_stays(path: Path) -> None:
    await fill(path, "inbox", ["1", "2", "3", "4"])
    found: list[bytes] = []

    def emit(body: bytes) -> None:
        if body == b"3":
            raise BrokenPipeError
        found.append(body)

    with pytest.raises(BrokenPipeError):
        read_store(path, "inbox", limit=None, follow=False, keep=False, emit=emit)
    assert found == [b"1", b"2"]
    assert read(path, "inbox") == ["3", "4"]


async def test_without_follow_it_ends_with_what_was_there_when_it_began(path: Path) -> None:
    await fill(path, "inbox", ["1", "2"])
    writer = connect(path, create=False)

    def emit(body: bytes) -> None:
        writer.execute(
            "INSERT INTO document (queue, message_id, transaction_id, dedupe, received, body)"
            " VALUES ('inbox', 'm', 't', 'd', 'now', ?)",
            (b"after " + body,),
        )

    assert read_store(path, "inbox", limit=None, follow=False, keep=False, emit=emit) == 2
    writer.close()
    assert read(path, "inbox") == ["after 1", "after 2"]


@pytest.mark.parametrize("keep", [True, False])
async def test_follow_waits_for_what_comes_later(path: Path, keep: bool) -> None:
    await fill(path, "inbox", ["1", "2"])
    found: list[bytes] = []
    first = threading.Event()

    def emit(body: bytes) -> None:
        found.append(body)
        first.set()

    def follow() -> int:
        return read_store(path, "inbox", limit=4, follow=True, keep=keep, emit=emit)

    reader = asyncio.create_task(asyncio.to_thread(follow))
    assert await asyncio.to_thread(first.wait, 10)
    await fill(path, "inbox", ["3"])
    await fill(path, "inbox", ["4", "5"])
    assert await asyncio.wait_for(reader, 10) == 4
    assert found == [b"1", b"2", b"3", b"4"]
    assert depths(path) == {"inbox": 5 if keep else 1}
