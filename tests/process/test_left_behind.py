"""Mail in a queue store that nobody hands on any more is told at the start."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway import running
from mailgw.config import read
from mailgw.mail.publication import Publication
from mailgw.observe import log
from mailgw.outlets.store import Store
from mailgw.outlets.store_file import depths
from mailgw.process.left_behind import tell_what_is_left_behind

# Nobody listens there.
AWAY = "amqp://127.0.0.1:1/"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite"


def fill(path: Path, *queues: str) -> None:
    async def publish() -> None:
        store, now = Store(path), datetime.now(UTC)
        await store.open()
        await store.publish([Publication(queue, (b"x",), "m", "t", "d", now) for queue in queues])
        await store.close()

    asyncio.run(publish())


def told(capfd: pytest.CaptureFixture[str], path: Path, keys: Mapping[str, str]) -> list[str]:
    """The lines of the log, with a gateway's keys."""
    log.to_stderr()
    given = [("queue-store", str(path)), *keys.items()]
    tell_what_is_left_behind(read((), {}, given).settings)
    return capfd.readouterr().err.splitlines()


def test_who_refuses_during_outages_now_hears_at_the_start_what_waits_since_then(
    tmp_path: Path, path: Path
) -> None:
    fill(path, "inbox", "local", "inbox")
    with running(tmp_path, {"rabbitmq-address": AWAY, "rabbitmq-outage": "refuse"}) as server:
        server.saw("store.left-behind documents=3")
        assert server.stop() == 0
    assert depths(path) == {"inbox": 2, "local": 1}


@pytest.mark.parametrize(
    "keys",
    [{"rabbitmq-address": ""}, {"rabbitmq-address": AWAY, "rabbitmq-outage": "store"}],
    ids=["the store is the queue", "the store is handed on"],
)
def test_what_somebody_takes_is_not_left_behind(
    capfd: pytest.CaptureFixture[str], path: Path, keys: Mapping[str, str]
) -> None:
    fill(path, "inbox")
    assert told(capfd, path, keys) == []


def test_a_store_without_documents_or_without_a_file_is_worth_no_word(
    capfd: pytest.CaptureFixture[str], path: Path
) -> None:
    assert told(capfd, path, {"rabbitmq-address": AWAY}) == []
    assert not path.exists()
    fill(path)
    assert told(capfd, path, {"rabbitmq-address": AWAY}) == []


def test_a_file_that_is_none_of_ours_is_named_and_stops_nobody(
    capfd: pytest.CaptureFixture[str], path: Path
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE document (id INTEGER)")
    [line] = told(capfd, path, {"rabbitmq-address": AWAY})
    assert "warning store.unread " in line
    assert "is a database of another program" in line
