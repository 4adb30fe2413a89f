"""`mailgw consume` as it is typed: a process, its output, what is left in the queue."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import aio_pika
import pytest

from mailgw.mail.publication import Publication
from mailgw.outlets.store import Store
from mailgw.outlets.store_file import depths
from rabbitmq import RabbitMQ

# The process must not see the key-like variables of whoever runs the tests.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("MAILGW_")} | {
    "PYTHONPATH": os.pathsep.join(sys.path)
}


def consume_line(path: Path, *arguments: str) -> list[str]:
    keys = ["--rabbitmq-address=", f"--queue-store={path}"]
    return [sys.executable, "-m", "mailgw", "consume", *arguments, *keys]


def consume(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = consume_line(path, *arguments)
    return subprocess.run(
        line, env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=False
    )


def document(number: int, size: int = 0) -> str:
    return json.dumps({"number": number, "mime": "x" * size})


def fill(path: Path, queue: str, documents: Sequence[str]) -> None:
    received = datetime(2026, 1, 2, tzinfo=UTC)

    async def publish() -> None:
        store = Store(path)
        await store.open()
        await store.publish(
            [Publication(queue, (text.encode(),), "m", "t", "d", received) for text in documents]
        )
        await store.close()

    asyncio.run(publish())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite"


def test_it_prints_one_document_a_line_and_takes_them_off(path: Path) -> None:
    fill(path, "inbox", [document(n) for n in range(5)])
    run = consume(path, "inbox")
    assert run.stdout.splitlines() == [document(n) for n in range(5)]
    assert run.stderr == ""
    assert run.returncode == 0
    assert depths(path) == {}


def test_max_prints_so_many(path: Path) -> None:
    fill(path, "inbox", [document(n) for n in range(5)])
    assert consume(path, "inbox", "--max", "2").stdout.splitlines() == [document(0), document(1)]
    assert depths(path) == {"inbox": 3}


def test_keep_leaves_them(path: Path) -> None:
    fill(path, "inbox", [document(n) for n in range(5)])
    assert consume(path, "inbox", "--keep").stdout.splitlines() == [document(n) for n in range(5)]
    assert depths(path) == {"inbox": 5}


def test_an_empty_queue_is_said_on_stderr_and_no_failure(path: Path) -> None:
    fill(path, "local", [document(1), document(2)])
    fill(path, "re\x1bports", [document(3)])
    run = consume(path, "inbox")
    assert run.stdout == ""
    assert run.stderr == (
        f"nothing in queue 'inbox' of {path}; there is mail in 'local' (2), 're\\x1bports' (1)\n"
    )
    assert run.returncode == 0


def test_a_store_that_is_not_there_is_one_sentence(path: Path) -> None:
    run = consume(path, "inbox")
    assert run.stdout == ""
    assert run.stderr == f"mailgw consume: queue store {path}: does not exist\n"
    assert run.returncode == 2


@pytest.mark.parametrize("size", [0, 100_000], ids=["small", "more than a pipe holds"])
def test_a_reader_that_wants_one_line_takes_one_document(path: Path, size: int) -> None:
    fill(path, "inbox", [document(n, size) for n in range(300)])
    first = subprocess.Popen(
        consume_line(path, "inbox"),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    head = subprocess.run(
        ["head", "-1"], stdin=first.stdout, capture_output=True, text=True, check=True, timeout=30
    )
    assert first.stdout is not None
    first.stdout.close()  # now nobody has the reading end
    _, complaints = first.communicate(timeout=30)
    assert head.stdout == document(0, size) + "\n"
    assert complaints == b""
    assert first.returncode == 0
    assert consume(path, "inbox").stdout.splitlines() == [document(n, size) for n in range(1, 300)]


def test_output_that_cannot_be_written_is_one_sentence_and_nothing_is_lost(path: Path) -> None:
    fill(path, "inbox", [document(1), document(2)])
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(
            consume_line(path, "inbox"),
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert run.stderr == "mailgw consume: standard output: No space left on device\n"
    assert run.returncode == 2
    assert depths(path) == {"inbox": 2}


def test_follow_prints_what_comes_and_ends_with_an_interrupt(path: Path) -> None:
    fill(path, "inbox", [document(1)])
    run = subprocess.Popen(
        consume_line(path, "inbox", "--follow"),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == document(1) + "\n"
    fill(path, "inbox", [document(2)])
    assert run.stdout.readline() == document(2) + "\n"
    deadline = time.monotonic() + 10
    while depths(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=30) == ("", "")
    assert run.returncode == 0
    assert depths(path) == {}


def put(broker: RabbitMQ, queue: str, documents: Sequence[str]) -> None:
    async def publish() -> None:
        async with await aio_pika.connect(broker.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue(queue, durable=True)
            for text in documents:
                await channel.default_exchange.publish(
                    aio_pika.Message(text.encode()), routing_key=queue
                )

    asyncio.run(publish())


def from_broker(broker: RabbitMQ, *arguments: str) -> list[str]:
    return [
        *(sys.executable, "-m", "mailgw", "consume", *arguments),
        f"--rabbitmq-address={broker.url}",
    ]


def test_with_a_broker_it_prints_the_broker_s_queue_and_takes_it_off(broker: RabbitMQ) -> None:
    put(broker, "consume-all", [document(n) for n in range(3)])
    line = from_broker(broker, "consume-all")
    first, second = (
        subprocess.run(
            line, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=30
        )
        for _ in range(2)
    )
    assert first.stdout.splitlines() == [document(n) for n in range(3)]
    assert second.stdout == ""
    assert second.stderr == "nothing in queue 'consume-all' of the broker\n"


def test_a_queue_that_the_broker_does_not_have_is_one_sentence(broker: RabbitMQ) -> None:
    line = from_broker(broker, "consume-none")
    run = subprocess.run(
        line, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=30
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("mailgw consume: ")
    assert "consume-none" in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_reader_that_wants_one_line_loses_nothing_from_the_broker(broker: RabbitMQ) -> None:
    put(broker, "consume-head", [document(n) for n in range(50)])
    first = subprocess.Popen(
        from_broker(broker, "consume-head"),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    head = subprocess.run(
        ["head", "-1"], stdin=first.stdout, capture_output=True, text=True, check=True, timeout=30
    )
    assert first.stdout is not None
    first.stdout.close()
    _, complaints = first.communicate(timeout=30)
    assert head.stdout == document(0) + "\n"
    assert complaints == b""
    assert first.returncode == 0
    rest = subprocess.run(
        from_broker(broker, "consume-head"),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert set(rest.stdout.splitlines()) >= {document(n) for n in range(1, 50)}


def test_the_schema_is_printed_as_json() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "mailgw", "schema"],
        env=ENVIRONMENT,
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert "recipient" in json.loads(run.stdout)["properties"]
