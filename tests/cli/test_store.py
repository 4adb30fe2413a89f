"""`mailgw store status` as it is typed."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mailgw.cli import main
from mailgw.mail.publication import Publication
from mailgw.outlets.backlog import Backlog, set_aside
from mailgw.outlets.lease import Lease, lease_path
from mailgw.outlets.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite"


def run(path: Path | str, *arguments: str) -> Result:
    keys = ["--rabbitmq-address=", f"--queue-store={path}", "--queue-store-max=5MB"]
    return CliRunner().invoke(main, ["store", "status", *arguments, *keys])


def fill(path: Path, *queues: str, ago: timedelta = timedelta(minutes=5)) -> None:
    async def publish() -> None:
        store = Store(path)
        await store.open()
        received = datetime.now(UTC) - ago
        await store.publish(
            [Publication(queue, (b"x" * 100,), "m", "t", "d", received) for queue in queues]
        )
        await store.close()

    asyncio.run(publish())


def put_aside(path: Path, number: int) -> None:
    async def put() -> None:
        backlog = Backlog(path)
        found = [each for each in backlog.line(0, 100, 10_000, without=()) if each.number == number]
        backlog.close()
        store = Store(path)
        await store.open()
        await store.change(set_aside([(each, "too large") for each in found], 0.0))
        await store.close()

    asyncio.run(put())


def test_it_counts_documents_octets_and_age_by_queue(path: Path) -> None:
    fill(path, "inbox", "local", "inbox")
    put_aside(path, 2)
    done = run(path, "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == 1
    ages = [told["oldest-age"], *(each.pop("oldest-age") for each in told["queues"])]
    assert [300 <= age < 360 for age in ages] == [True] * 3
    assert told["queues"] == [
        {"queue": "inbox", "documents": 2, "octets": 200},
        {"queue": "local", "documents": 1, "octets": 100},
    ]
    assert (told["documents"], told["octets"], told["set-aside"]) == (3, 300, 1)
    assert told["path"] == str(path)
    assert 0 < told["used-octets"] <= told["file-octets"] < told["max-octets"] == 5_000_000
    assert told["draining"] is None


def test_for_people_it_is_a_line_a_queue_that_a_terminal_can_show(path: Path) -> None:
    fill(path, "inbox", "re\x1bports")
    put_aside(path, 1)
    done = run(path)
    lines = done.stdout.splitlines()
    assert done.exit_code == 1
    assert lines[0].startswith(f"{path}: 2 documents, ")
    assert " of 5000000 octets used, the oldest 30" in lines[0]
    assert lines[1].startswith("  'inbox': 1 document, 100 octets, the oldest 30")
    assert lines[2].startswith("  're\\x1bports': 1 document, 100 octets, the oldest 30")
    assert lines[3:] == [
        "refused by the broker and set aside: 1 document",
        "nobody hands it on to a broker now",
    ]


def test_an_empty_store_is_exit_code_0(path: Path) -> None:
    fill(path)
    done = run(path)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{path}: 0 documents, ")
    assert json.loads(run(path, "--json").stdout)["oldest-age"] is None


def test_it_says_who_hands_it_on(path: Path) -> None:
    fill(path, "inbox")
    lease = Lease(path)
    assert lease.take()
    held = run(path)
    told = json.loads(run(path, "--json").stdout)
    # To look is not to take it.
    assert not Lease(path).take()
    lease.give_back()
    assert f"process {os.getpid()} hands it on to the broker" in held.stdout
    assert told["draining"] == os.getpid()
    assert json.loads(run(path, "--json").stdout)["draining"] is None
    assert stat.S_IMODE(lease_path(path).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "there is none: queue-store is empty"),
        ("gone.sqlite", "queue store {folder}/gone.sqlite: does not exist"),
        ("foreign", "queue store {folder}/foreign: file is not a database"),
    ],
)
def test_what_cannot_be_told_is_one_sentence_and_exit_code_2(
    tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "foreign").write_text("no database, " * 100)
    path = f"{tmp_path}/{name}" if name else ""
    keys = ["--output=null", "--smtp-ip=::1"]
    done = run(path, *keys)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr == f"mailgw store: {said.format(folder=tmp_path)}\n"
    assert not (tmp_path / "gone.sqlite").exists()
