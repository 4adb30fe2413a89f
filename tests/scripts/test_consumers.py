"""The consumers that people copy, run as people run them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import signal
import stat
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest

from rabbitmq import RabbitMQ

SCRIPTS = Path(__file__).parents[2] / "scripts"
MIME = "From: alice@sender.test\r\nSubject: grüße\r\n\r\nhello\r\n"


def fresh(word: str) -> str:
    return f"{word}-{uuid.uuid4().hex[:8]}"


def mail(message_id: str, **more: object) -> bytes:
    return json.dumps(
        {
            "envelope": "alice@sender.test",
            "recipient": "bob@ours.test",
            "message-id": message_id,
            "mime": MIME,
            **more,
        }
    ).encode()


@contextlib.asynccontextmanager
async def running(script: str, *arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPTS / script), *arguments, stdout=PIPE, stderr=PIPE, umask=0
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    return (await asyncio.wait_for(stream.readline(), 20)).decode().strip()


class Queues:
    """A test's own look at the broker."""

    def __init__(self, channel: aio_pika.abc.AbstractChannel) -> None:
        self._channel = channel

    async def make(self, name: str) -> str:
        await self._channel.declare_queue(name, durable=True)
        return name

    async def put(
        self, queue: str, body: bytes, encoding: str | None = None, dedupe: str = ""
    ) -> None:
        message = aio_pika.Message(
            body,
            content_encoding=encoding,
            message_id="k3x9a1",
            type="mailgw.message",
            headers={"x-mailgw-dedupe": dedupe} if dedupe else None,
        )
        await self._channel.default_exchange.publish(message, queue)

    async def take(self, queue: str) -> list[aio_pika.abc.AbstractIncomingMessage]:
        source, messages = await self._channel.get_queue(queue), []
        while (message := await source.get(no_ack=True, fail=False)) is not None:
            messages.append(message)
        return messages


@pytest.fixture
async def queues(broker: RabbitMQ) -> AsyncIterator[Queues]:
    connection = await aio_pika.connect(broker.url)
    async with connection:
        yield Queues(await connection.channel())


@pytest.mark.parametrize(
    ("body", "encoding", "expected"),
    [
        (mail("one"), None, MIME.encode()),
        (gzip.compress(mail("two")), "gzip", MIME.encode()),
        (
            mail(
                "three",
                mime=base64.b64encode(b"Subject: \xff\r\n\r\n\xfe\r\n").decode(),
                **{"mime-encoding": "base64"},
            ),
            None,
            b"Subject: \xff\r\n\r\n\xfe\r\n",
        ),
    ],
)
async def test_a_mail_becomes_a_file_and_leaves_the_queue(
    broker: RabbitMQ,
    queues: Queues,
    tmp_path: Path,
    body: bytes,
    encoding: str | None,
    expected: bytes,
) -> None:
    inbox = await queues.make(fresh("inbox"))
    await queues.put(inbox, body, encoding)

    async with running(
        "inbox-to-maildir.py", "--broker", broker.url, "--queue", inbox, str(tmp_path / "box")
    ) as process:
        stored = Path(await line(process.stdout))
        process.send_signal(signal.SIGTERM)
        ended = await asyncio.wait_for(process.wait(), 20)

    content = await asyncio.to_thread(stored.read_bytes)
    assert stored.parent == tmp_path / "box" / "new"
    # It began with an umask that gives everything to everybody.
    assert [stat.S_IMODE(each.stat().st_mode) for each in (stored, *stored.parents[:2])] == [
        0o600,
        0o700,
        0o700,
    ]
    assert content.startswith(b"Return-Path: <alice@sender.test>\nDelivered-To: bob@ours.test\n")
    assert content.endswith(expected.replace(b"\r\n", b"\n"))
    assert ended == 0
    assert await queues.take(inbox) == []


async def test_the_same_mail_twice_is_one_file(
    broker: RabbitMQ, queues: Queues, tmp_path: Path
) -> None:
    inbox = await queues.make(fresh("inbox"))
    for _ in range(2):
        await queues.put(inbox, mail("twice"))

    async with running(
        "inbox-to-maildir.py", "--broker", broker.url, "--queue", inbox, str(tmp_path)
    ) as process:
        first, second = await line(process.stdout), await line(process.stdout)

    assert first == second
    assert len(list((tmp_path / "new").iterdir())) == 1


async def test_what_is_no_mail_does_not_stop_the_maildir(
    broker: RabbitMQ, queues: Queues, tmp_path: Path
) -> None:
    inbox = await queues.make(fresh("inbox"))
    await queues.put(inbox, b"no json")
    await queues.put(inbox, b"{}", "gzip")
    await queues.put(inbox, mail("../../after"))

    async with running(
        "inbox-to-maildir.py", "--broker", broker.url, "--queue", inbox, str(tmp_path)
    ) as process:
        stored = Path(await line(process.stdout))

    assert stored.parent == tmp_path / "new"
    assert await queues.take(inbox) == []


async def test_what_passes_is_forwarded_unchanged_and_the_rest_is_set_aside(
    broker: RabbitMQ, queues: Queues
) -> None:
    inbox, outbox, junk = [await queues.make(fresh(n)) for n in ("inbox", "outbox", "junk")]
    good = gzip.compress(mail("good", checks=[{"spf": "pass"}, {"dmarc": "pass"}]))
    bad = mail("bad", checks=[{"spf": "pass"}, {"dmarc": "fail"}])
    await queues.put(inbox, good, "gzip")
    await queues.put(inbox, bad)

    async with running(
        "filter-and-forward.py",
        *("--broker", broker.url, "--from", inbox, "--to", outbox),
        *("--dropped", junk, "--require", "spf=pass", "--require", "dmarc=pass"),
    ) as process:
        said = [await line(process.stdout), await line(process.stdout)]
        process.send_signal(signal.SIGINT)
        ended = await asyncio.wait_for(process.wait(), 20)

    [forwarded], [dropped] = await queues.take(outbox), await queues.take(junk)
    assert said == [f"good -> {outbox}", f"bad -> {junk}"]
    assert (forwarded.body, forwarded.content_encoding) == (good, "gzip")
    assert (forwarded.message_id, forwarded.type) == ("k3x9a1", "mailgw.message")
    assert dropped.body == bad
    assert await queues.take(inbox) == []
    assert ended == 0


async def test_the_same_mail_sent_again_is_forwarded_once_where_that_is_wanted(
    broker: RabbitMQ, queues: Queues
) -> None:
    inbox, outbox = await queues.make(fresh("inbox")), await queues.make(fresh("outbox"))
    for name, dedupe in (("one", "a1"), ("two", "a1"), ("three", "b2"), ("four", "")):
        await queues.put(inbox, mail(name), dedupe=dedupe)

    async with running(
        "filter-and-forward.py",
        *("--broker", broker.url, "--from", inbox, "--to", outbox, "--once", "3600"),
    ) as process:
        said = [await line(process.stdout) for _ in range(4)]

    assert said[1] == "k3x9a1 -> was there before"
    forwarded = await queues.take(outbox)
    assert [m.body for m in forwarded] == [mail("one"), mail("three"), mail("four")]
    assert await queues.take(inbox) == []


async def test_the_same_mail_sent_again_is_forwarded_again_where_nothing_is_said(
    broker: RabbitMQ, queues: Queues
) -> None:
    inbox, outbox = await queues.make(fresh("inbox")), await queues.make(fresh("outbox"))
    for name in ("one", "two"):
        await queues.put(inbox, mail(name), dedupe="a1")

    async with running(
        "filter-and-forward.py", "--broker", broker.url, "--from", inbox, "--to", outbox
    ) as process:
        for _ in range(2):
            await line(process.stdout)

    assert [m.body for m in await queues.take(outbox)] == [mail("one"), mail("two")]


async def test_a_mail_whose_target_queue_went_away_is_still_on_the_first(
    broker: RabbitMQ, queues: Queues
) -> None:
    inbox, outbox = await queues.make(fresh("inbox")), await queues.make(fresh("outbox"))
    await queues.put(inbox, mail("one"))

    async with running(
        "filter-and-forward.py", "--broker", broker.url, "--from", inbox, "--to", outbox
    ) as process:
        await line(process.stdout)
        await broker.rabbitmqctl("delete_queue", outbox)
        await queues.put(inbox, mail("two"))
        error = await line(process.stderr)
        ended = await asyncio.wait_for(process.wait(), 20)

    assert ended == 1
    assert "failed" in error
    assert [m.body for m in await queues.take(inbox)] == [mail("two")]


@pytest.mark.parametrize(
    "arguments",
    [("inbox-to-maildir.py", "{folder}"), ("filter-and-forward.py", "--to", "outbox")],
)
async def test_a_broker_that_is_not_there_is_one_line_without_the_password(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    given = [argument.format(folder=tmp_path) for argument in arguments]

    async with running(*given, "--broker", "amqp://u:s3cret@127.0.0.1:1/") as process:
        _, error = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 1
    assert b"s3cret" not in error
    assert b"Traceback" not in error
