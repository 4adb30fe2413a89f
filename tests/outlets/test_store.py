"""The embedded queue as an output: what is safe after publish, and what each fault does."""

from __future__ import annotations

import asyncio
import gc
import resource
import sqlite3
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from mailgw.mail.publication import Publication
from mailgw.outlets import store_file
from mailgw.outlets.store import Store, explain
from mailgw.outlets.store_file import StoreError, read_store
from mailgw.plugins import Unavailable, Undeliverable
from mailgw.smtp import reply
from rabbitmq import eventually


def publication(name: str, body: bytes = b"{}", queue: str = "inbox") -> Publication:
    received = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    return Publication(queue, (body,), name, f"t-{name}", f"d-{name}", received, priority=3)


def bodies(path: Path, queue: str = "inbox") -> list[bytes]:
    found: list[bytes] = []
    read_store(path, queue, limit=None, follow=False, keep=True, emit=found.append)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    store = Store(path)
    await store.open()
    yield store
    await store.close()


async def test_published_documents_are_there_for_another_reader(store: Store, path: Path) -> None:
    await store.publish(
        [publication("1", b'{"n":1}'), publication("2", b'{"n":2}', "local")],
    )
    assert bodies(path) == [b'{"n":1}']
    assert bodies(path, "local") == [b'{"n":2}']


async def test_everything_known_of_a_publication_is_kept(store: Store, path: Path) -> None:
    await store.publish([publication("7", b'{"n":7}')])
    with closing(sqlite3.connect(path)) as file:
        rows = file.execute(
            "SELECT queue, message_id, transaction_id, dedupe, received, priority, body"
            " FROM document"
        ).fetchall()
    assert rows == [("inbox", "7", "t-7", "d-7", "2026-01-02T03:04:05.678901+00:00", 3, b'{"n":7}')]


async def test_one_publisher_s_documents_keep_their_order(store: Store, path: Path) -> None:
    for number in range(150):
        await store.publish([publication(f"{number}", b"%d" % number)])
    assert bodies(path) == [b"%d" % number for number in range(150)]


@pytest.mark.parametrize("count", [0, 1, 5, 63, 64, 85, 1_000])
async def test_a_transaction_of_any_size_is_stored_whole(
    store: Store, path: Path, count: int
) -> None:
    await store.publish([publication(f"{n}", b"%d" % n) for n in range(count)])
    assert bodies(path) == [b"%d" % n for n in range(count)]


async def test_large_and_small_documents_go_together(store: Store, path: Path) -> None:
    world = [b"%d" % n + bytes(400_000 * (n % 2)) for n in range(9)]
    await store.publish([publication(f"{n}", body) for n, body in enumerate(world)])
    assert bodies(path) == world


async def test_many_publishers_at_once_are_all_safe(store: Store, path: Path) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(2_500):
            group.create_task(store.publish([publication(f"{number}", b"%d" % number)]))
    assert sorted(bodies(path)) == sorted(b"%d" % number for number in range(2_500))


async def test_the_documents_of_a_transaction_are_stored_together_or_not_at_all(
    store: Store, path: Path
) -> None:
    # A lone surrogate is no text that SQLite takes.
    with pytest.raises(Unavailable):
        await store.publish([publication("1"), publication("2", queue="\udc80")])
    assert bodies(path) == []


async def test_a_publication_that_cannot_be_stored_does_not_fail_its_neighbours(
    store: Store, path: Path
) -> None:
    world = [publication(f"{n}", b"%d" % n, "\udc80" if n == 7 else "inbox") for n in range(20)]
    outcome = await asyncio.gather(
        *(store.publish([document]) for document in world), return_exceptions=True
    )
    assert [n for n, failure in enumerate(outcome) if failure is not None] == [7]
    assert sorted(bodies(path)) == sorted(b"%d" % n for n in range(20) if n != 7)
    assert store.trouble() is None


async def test_a_cancelled_publish_leaves_the_others_of_its_group_alone(
    store: Store, path: Path
) -> None:
    tasks = [
        asyncio.create_task(store.publish([publication(f"{n}", b"%d" % n)])) for n in range(40)
    ]
    await asyncio.sleep(0)  # every task has handed its documents over
    for task in tasks[::2]:
        task.cancel()
    outcome = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcome[1::2] == [None] * 20
    assert all(isinstance(failure, asyncio.CancelledError) for failure in outcome[::2])
    assert {b"%d" % n for n in range(1, 40, 2)} <= set(bodies(path))


async def test_what_is_given_up_before_its_turn_is_neither_kept_nor_committed(
    store: Store, path: Path
) -> None:
    # On a disk that hangs there would be more and more of it.
    class Parts(list[bytes]):
        """Parts that tell whether anybody has them."""

    begun, go_on = threading.Event(), threading.Event()

    def hang(_: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(20)

    hanging = asyncio.create_task(store.change(hang))
    await eventually(begun.is_set, "the disk hangs")
    parts = Parts([b"given up"])
    held = weakref.ref(parts)
    waiting = asyncio.create_task(store.publish([replace(publication("1"), parts=parts)]))
    del parts
    await eventually(lambda: not store._inbox.empty(), "it waits for its turn")

    waiting.cancel()
    await asyncio.wait([waiting])
    del waiting

    gc.collect()
    assert held() is None
    go_on.set()
    await hanging
    await store.publish([publication("2", b"the next")])
    assert bodies(path) == [b"the next"]


async def test_close_commits_what_was_handed_over(path: Path) -> None:
    store = Store(path)
    await store.open()
    tasks = [
        asyncio.create_task(store.publish([publication(f"{n}", b"%d" % n)])) for n in range(40)
    ]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*tasks) == [None] * 40
    assert sorted(bodies(path)) == sorted(b"%d" % n for n in range(40))


async def test_a_closed_store_takes_nothing_and_opens_again(path: Path) -> None:
    store = Store(path)
    await store.open()
    await store.close()
    await store.close()
    with pytest.raises(Unavailable):
        await store.publish([publication("1")])
    await store.open()
    await store.publish([publication("2", b"2")])
    await store.close()
    assert bodies(path) == [b"2"]


async def test_a_store_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no/queue\.sqlite: No such file or directory"):
        await Store(tmp_path / "no" / "queue.sqlite").open()


async def test_while_another_process_holds_the_file_mail_is_refused_and_then_taken(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_file, "_PATIENCE", 0.1)
    impatient = Store(path)
    await impatient.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        outcome = await asyncio.gather(
            *(impatient.publish([publication(f"{n}")]) for n in range(10)), return_exceptions=True
        )
        assert {type(failure) for failure in outcome} == {Unavailable}
        assert impatient.trouble() == reply.TRY_AGAIN
        other.execute("ROLLBACK")
    await impatient.publish([publication("after", b"after")])
    assert impatient.trouble() is None
    assert bodies(path) == [b"after"]
    await impatient.close()


async def test_a_disk_that_takes_no_more_refuses_and_recovers_by_itself(
    store: Store, path: Path
) -> None:
    await store.publish([publication("before", b"before")])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * 1024 * 1024, hard))
    try:
        outcome = await asyncio.gather(
            store.publish([publication("large", bytes(8 * 1024 * 1024))]),
            store.publish([publication("small", b"small")]),
            return_exceptions=True,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(outcome[0], Unavailable)
    assert outcome[1] is None
    await store.publish([publication("after", b"after")])
    assert sorted(bodies(path)) == [b"after", b"before", b"small"]


async def test_what_is_left_of_the_disk_is_kept_for_those_who_take_mail_off(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.publish([publication("before", b"before")])
    with monkeypatch.context() as world:
        world.setattr("mailgw.outlets.store._RESERVE", 2**70)
        with pytest.raises(Unavailable) as refusal:
            await store.publish([publication("now", b"now")])
        assert refusal.value.reply == reply.STORAGE_FULL
        assert store.trouble() == reply.STORAGE_FULL
        assert read_store(path, "inbox", limit=1, follow=False, keep=False, emit=len) == 1
    await store.publish([publication("after", b"after")])
    assert bodies(path) == [b"after"]


async def test_a_file_that_was_removed_is_made_again_and_not_written_into_the_void(
    store: Store, path: Path
) -> None:
    await store.publish([publication("1", b"1")])
    for file in path.parent.iterdir():
        file.unlink()
    await store.publish([publication("2", b"2")])
    assert bodies(path) == [b"2"]


async def test_a_limit_refuses_what_does_not_fit_and_takes_what_does(path: Path) -> None:
    bounded = Store(path, 1_000_000)
    await bounded.open()
    large, small = bytes(600_000), bytes(1_000)
    await bounded.publish([publication("1", large)])
    outcome = await asyncio.gather(
        bounded.publish([publication("2", large)]),
        bounded.publish([publication("3", small)]),
        return_exceptions=True,
    )
    assert isinstance(outcome[0], Unavailable)
    assert outcome[0].reply == reply.STORAGE_FULL
    assert outcome[1] is None
    assert bounded.trouble() == reply.STORAGE_FULL
    assert store_file.status(path).used <= 1_000_000
    await bounded.close()


async def test_a_store_that_is_nearly_full_refuses_until_something_was_taken_off(
    path: Path,
) -> None:
    bounded = Store(path, 1_000_000)
    await bounded.open()
    await bounded.publish([publication("1", bytes(930_000))])
    await eventually(lambda: bounded.trouble() == reply.STORAGE_FULL, "it is full")
    assert read_store(path, "inbox", limit=None, follow=False, keep=False, emit=len) == 1
    await eventually(lambda: bounded.trouble() is None, "it has room")
    await bounded.publish([publication("2", bytes(930_000))])
    assert len(bodies(path)) == 1
    await bounded.close()


async def test_a_change_shares_the_commit_of_the_mail_and_its_failure_is_its_own(
    store: Store, path: Path
) -> None:
    await store.publish([publication("1", b"1"), publication("2", b"2")])

    def take_off(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM document WHERE message_id = '1'")

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM document")
        connection.execute("DELETE FROM nothing_of_ours")

    outcome = await asyncio.gather(
        store.change(take_off),
        store.change(fail),
        store.publish([publication("3", b"3")]),
        return_exceptions=True,
    )
    assert [type(end) for end in outcome] == [type(None), Unavailable, type(None)]
    assert bodies(path) == [b"2", b"3"]


async def test_mail_can_be_taken_off_a_disk_that_is_nearly_full(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.publish([publication("1", b"1")])
    monkeypatch.setattr("mailgw.outlets.store._RESERVE", 2**70)

    def take_off(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM document")

    outcome = await asyncio.gather(
        store.publish([publication("2")]),
        store.change(take_off),
        return_exceptions=True,
    )
    assert [type(end) for end in outcome] == [Unavailable, type(None)]
    assert bodies(path) == []


def full_database() -> sqlite3.Error:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("PRAGMA max_page_count = 1")
        try:
            database.execute("CREATE TABLE t (a)")
        except sqlite3.Error as error:
            return error
    raise AssertionError("it had room")


def too_big_a_value() -> sqlite3.Error:
    with closing(sqlite3.connect(":memory:")) as database:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000)
        try:
            database.execute("SELECT ?", (bytes(1_001),))
        except sqlite3.Error as error:
            return error
    raise AssertionError("it fitted")


@pytest.mark.parametrize(
    ("error", "kind", "answer"),
    [
        (full_database(), Unavailable, reply.STORAGE_FULL),
        (too_big_a_value(), Undeliverable, reply.TOO_BIG),
        (StoreError("queue store q: does not exist"), Unavailable, reply.TRY_AGAIN),
        (UnicodeEncodeError("utf-8", "\udc80", 0, 1, "surrogate"), Unavailable, reply.TRY_AGAIN),
    ],
    ids=["full", "too big", "no file", "not text"],
)
def test_each_trouble_has_its_reply(
    error: Exception, kind: type[Exception], answer: reply.Reply
) -> None:
    failure = explain(error)
    assert type(failure) is kind
    assert failure.reply == answer
