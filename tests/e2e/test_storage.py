"""Bodies outside the queue, as clients, consumers and operators meet them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import socket
import stat
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aio_pika
import pytest

from client import Client
from gateway import COMMAND, ENVIRONMENT, Gateway, Json
from mailgw.config.storage_urls import storage_address
from mailgw.storage.bodies import place_of
from mailgw.storage.names import key_of
from parts import needs
from rabbitmq import RabbitMQ, wait_until
from s3server import S3

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
LARGE = b"Subject: large\r\n\r\n" + (b"x" * 998 + b"\r\n") * 5000

Start = Callable[..., Gateway]


@pytest.fixture(params=["dir", pytest.param("s3", marks=needs("s3"))])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "dir":
        yield f"dir://{tmp_path}/bodies"
        return
    server: S3 = request.getfixturevalue("s3")
    yield server.address(server.bucket())


def storage(address: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """`mailgw storage` as it is typed."""
    return subprocess.run(
        [*COMMAND, "storage", *arguments, f"--storage-address={address}"],
        env=ENVIRONMENT,
        capture_output=True,
        timeout=60,
        check=False,
    )


def body(address: str, document: Json) -> bytes:
    """The message of a document, held against the size and the digest in it."""
    assert "mime" not in document
    done = storage(address, "get", document["key"])
    assert done.returncode == 0, done.stderr.decode()
    assert len(done.stdout) == document["mime-size"]
    assert hashlib.sha256(done.stdout).hexdigest() == document["mime-sha256"]
    return done.stdout


def send(server: Gateway, message: bytes, *recipients: str) -> str:
    with Client(server.port) as client:
        client.hello()
        return client.mail(message, *recipients)


def files(folder: Path, state: str) -> list[Path]:
    return [path for path in (folder / "bodies" / state).rglob("*") if path.is_file()]


def swept(address: str, *arguments: str) -> Json:
    done = storage(address, "sweep", "--json", "--smtp-confirm-timeout=1",
                   "--storage-timeout=0.5", *arguments)  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found: Json = json.loads(done.stdout)
    return found


# --- mail ---------------------------------------------------------------------------


def test_a_consumer_fetches_what_the_client_sent(gateway: Start, address: str) -> None:
    server = gateway({"storage-address": address, "storage-policy": "all"})

    assert send(server, LARGE, "bob@ours.test", "eve@ours.test").startswith("250")

    first, second = server.consume()
    assert first["key"] == second["key"]
    assert body(address, first) == LARGE
    assert server.stop() == 0
    # Nothing is left to be swept: the marks went with the end.
    assert "storage.failed" not in server.log


def test_only_large_mail_goes_elsewhere(gateway: Start, address: str) -> None:
    server = gateway({"storage-address": address, "storage-above": "1MB"})

    for each in (MESSAGE, LARGE):
        assert send(server, each).startswith("250")

    small, large = server.consume()
    assert small["mime"] == MESSAGE.decode()
    assert body(address, large) == LARGE


def test_fields_of_ours_are_in_the_stored_bytes(gateway: Start, tmp_path: Path) -> None:
    address = f"dir://{tmp_path}/bodies?compression=gzip"
    (tmp_path / "locals").write_text("@ours.test\n")
    server = gateway(
        {
            "storage-address": address,
            "storage-policy": "in",
            "smtp-received": "true",
            "smtp-check": "spf",
            "smtp-auth-results": "local",
            "local-addresses": tmp_path / "locals",
            "dns-server": "127.0.0.1:9",
            "dns-timeout": "0.2",
        }
    )

    assert send(server, MESSAGE, "bob@ours.test", "eve@elsewhere.test").startswith("250")

    local, other = server.consume()
    assert local["key"] != other["key"]
    assert body(address, local).startswith(b"Authentication-Results: mx.ours.test;")
    assert body(address, other).startswith(b"Received: from ")
    assert body(address, other).endswith(MESSAGE)


def test_what_is_stored_is_for_nobody_else(gateway: Start, tmp_path: Path) -> None:
    server = gateway({"storage-address": f"dir://{tmp_path}/bodies", "storage-policy": "in"})

    assert send(server, MESSAGE).startswith("250")

    server.stop()
    [stored] = files(tmp_path, "mail")
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert {stat.S_IMODE(each.stat().st_mode) for each in stored.parents[:3]} == {0o700}
    assert files(tmp_path, "writing") == files(tmp_path, "publishing") == []


@needs("rabbitmq")
def test_the_broker_takes_what_is_larger_than_its_messages_may_be(
    gateway: Start, broker: RabbitMQ, tmp_path: Path
) -> None:
    queue = f"stored-{uuid.uuid4().hex[:8]}"
    address = f"dir://{tmp_path}/bodies"
    server = gateway(
        {
            "rabbitmq-address": broker.url,
            "rabbitmq-inbox": queue,
            "storage-address": address,
            "storage-above": "1MB",
            "smtp-maxsize": "150MB",
        }
    )
    server.saw("amqp.connected")
    # As text in a document it would be six times as long, and RabbitMQ takes 128 MB.
    message = b"Subject: large\r\n\r\n" + (b"\x01" * 998 + b"\r\n") * 100_000

    assert send(server, message).startswith("250")

    async def take() -> Json:
        connection = await aio_pika.connect(broker.url)
        async with connection:
            channel = await connection.channel()
            got = await (await channel.get_queue(queue, ensure=False)).get(no_ack=True)
            assert got is not None
            document: Json = json.loads(got.body)
            return document

    document = asyncio.run(take())
    assert body(address, document) == message
    wait_until(lambda: files(tmp_path, "publishing") == [], "its marks are gone")


@needs("rabbitmq")
def test_a_body_whose_document_the_broker_turned_down_is_removed(
    gateway: Start, broker: RabbitMQ, tmp_path: Path
) -> None:
    server = gateway(
        {
            "rabbitmq-address": broker.url,
            "rabbitmq-inbox": f"nobody-made-{uuid.uuid4().hex[:8]}",
            "rabbitmq-declare": "false",
            "storage-address": f"dir://{tmp_path}/bodies",
            "storage-policy": "in",
        }
    )
    server.saw("amqp.connected")

    assert send(server, MESSAGE).startswith("451")

    server.saw("amqp.returned")
    wait_until(lambda: files(tmp_path, "") == [], "nothing of it is left")


# --- trouble ------------------------------------------------------------------------


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))


def test_a_disk_that_takes_no_more_is_a_451_for_large_mail_alone(
    gateway: Start, tmp_path: Path
) -> None:
    keys = {
        "storage-address": f"dir://{tmp_path}/bodies",
        "storage-above": "100KB",
        "spool-memory": "50MB",
    }
    server = gateway(keys, before=small_files)

    assert send(server, LARGE).startswith("451 4.3.0")
    assert send(server, MESSAGE).startswith("250")

    assert server.log.count("storage.failed") == 1
    server.stop()
    assert len(server.consume()) == 1
    assert files(tmp_path, "") == []


def test_a_folder_that_is_gone_is_a_451_and_said_once(gateway: Start, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    server = gateway({"storage-address": f"dir://{tmp_path}/disk/bodies", "storage-above": "0"})
    (tmp_path / "disk").rmdir()

    said = [send(server, MESSAGE) for _ in range(3)]
    (tmp_path / "disk").mkdir()
    said.append(send(server, MESSAGE))

    assert [each[:9] for each in said] == ["451 4.3.0"] * 3 + ["250-2.0.0"]
    assert server.log.count("storage.failed") == 1
    assert "No such file" in server.log
    assert not any("disk" in each for each in said)


@needs("s3")
@pytest.mark.parametrize("trouble", ["credentials", "bucket", "hangs"])
def test_a_store_that_fails_is_a_451_in_time(gateway: Start, s3: S3, trouble: str) -> None:
    address = s3.address(
        "no-such-bucket" if trouble == "bucket" else s3.bucket(),
        secret="wrong" if trouble == "credentials" else None,
    )
    server = gateway({"storage-address": address, "storage-policy": "in", "storage-timeout": "1"})
    if trouble == "hangs":
        s3.freeze()
    try:
        with Client(server.port) as client:
            client.hello()
            said = client.mail(MESSAGE)
            # Who comes next need not send it.
            again = client.ask("MAIL FROM:<joe@there.test>")
    finally:
        s3.thaw()

    assert said.startswith("451 4.3.0")
    assert again.startswith("451 4.3.0")
    assert s3.secret_key not in server.log
    server.stop()
    assert server.consume() == []


def test_who_explains_or_drops_mail_stores_nothing(gateway: Start, tmp_path: Path) -> None:
    keys = {"storage-address": f"dir://{tmp_path}/bodies", "storage-policy": "in"}
    server = gateway(keys | {"output": "null"})
    mail = tmp_path / "mail"
    mail.write_bytes(MESSAGE)

    assert send(server, MESSAGE).startswith("250")
    explained = subprocess.run(
        [*COMMAND, "explain", "--ip=192.0.2.1", "--helo=client.test", "--rcpt=bob@ours.test",
         "--from=joe@there.test", "--eml=mail", "--rabbitmq-address=", "--queue-store=q",
         *(f"--{key}={value}" for key, value in keys.items())],
        env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert "250" in explained.stdout, explained.stderr
    assert not (tmp_path / "bodies").exists()


# --- killed -------------------------------------------------------------------------


def names(address: str, *states: str) -> dict[str, datetime]:
    """What the place holds, and since when."""

    async def look() -> dict[str, datetime]:
        url = storage_address(address)
        assert url is not None
        place = place_of(url, threads=1, timeout=10)
        found = {each.name: each.written for state in states async for each in place.entries(state)}
        await place.close()
        return found

    return asyncio.run(look())


@pytest.mark.parametrize("state", ["writing", "mail", "publishing"])
def test_killed_at_any_moment_no_published_body_is_swept_and_every_orphan_is(
    gateway: Start, address: str, state: str, tmp_path: Path
) -> None:
    keys = {"storage-address": address, "storage-policy": "in"}
    said = []
    for _ in range(4):
        (tmp_path / "serve.err").unlink(missing_ok=True)
        server = gateway(keys)
        before = names(address, state).keys()
        with Client(server.port) as client:
            client.hello()
            client.transaction("bob@ours.test")
            client.send(LARGE + b".\r\n")
            # A fast one has been and gone; then its body is all there is to be seen.
            wait_until(
                lambda: bool(names(address, state, "mail").keys() - before),  # noqa: B023
                "it is on its way",
            )
            server.close()
            said.append(_last_word(client))
    whole = names(address, "mail").keys()
    marked = {state: names(address, state).keys() for state in ("writing", "publishing")}
    # The clocks of a store and of this machine may differ by a little.
    wait_until(
        lambda: all(datetime.now(UTC) - since > timedelta(seconds=2)
                    for since in names(address, "writing", "publishing").values()),
        "what was left behind is old enough",
    )  # fmt: skip

    found = swept(address, "--older-than=1.5")

    documents = server.consume()
    published = {document["key"] for document in documents}
    assert said.count("250") <= len(documents)
    assert all(body(address, document) == LARGE for document in documents)
    assert set(found["orphans"]).isdisjoint(published)
    # By the marks: what had the first alone is gone, and nothing else is.
    orphans = {key_of(each) for each in marked["writing"]} - {
        key_of(each) for each in marked["publishing"]
    }
    assert set(found["orphans"]) == orphans
    assert names(address, "mail").keys() == whole - orphans
    # Each body that is left is in a document, or is told.
    assert whole - orphans <= published | set(found["uncertain"])
    assert names(address, "unfinished") == {}


def _last_word(client: Client) -> str:
    try:
        return client.reply()[:3]
    except OSError:
        return ""


@needs("s3")
def test_killed_while_a_body_is_written_leaves_an_orphan_that_the_sweep_removes(
    gateway: Start, s3: S3
) -> None:
    address = s3.address(s3.bucket())
    with Relay(s3.port) as relay:
        slow = address.replace(f":{s3.port}", f":{relay.port}")
        server = gateway({"storage-address": slow, "storage-policy": "in"})
        with Client(server.port) as client:
            client.hello()
            client.transaction("bob@ours.test")
            # The mark is let through whole, and of the body no more than a part.
            client.send(LARGE + b".\r\n")
            wait_until(lambda: relay.passed > 50_000, "a part of the body has gone by")
            server.close()
    wait_until(
        lambda: all(
            datetime.now(UTC) - since > timedelta(seconds=2)
            for since in names(address, "writing").values()
        ),
        "what was left behind is old enough",
    )

    told = swept(address, "--older-than=1.5", "--dry-run")
    found = swept(address, "--older-than=1.5")

    assert len(found["orphans"]) == 1
    assert told["orphans"] == found["orphans"]
    assert names(address, "writing", "publishing", "mail") == {}


class Relay:
    """Passes octets on to `port`, each connection no more than a few at a time and in all."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.passed = 0
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Relay:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._sockets += [near, far]
                for source, sink, most in ((near, far, 100_000), (far, near, 10**9)):
                    self._threads.append(
                        threading.Thread(target=self._pass, args=(source, sink, most), daemon=True)
                    )
                    self._threads[-1].start()

    def _pass(self, source: socket.socket, sink: socket.socket, most: int) -> None:
        with suppress(OSError):
            passed = 0
            while passed < most and (octets := source.recv(10_000)):
                sink.sendall(octets)
                passed += len(octets)
                if most == 100_000:
                    self.passed = max(self.passed, passed)


def test_a_sweep_may_not_look_at_mail_that_is_under_way(tmp_path: Path) -> None:
    done = storage(f"dir://{tmp_path}/bodies", "sweep", "--older-than=30")

    assert done.returncode == 2
    assert b"must be above smtp-confirm-timeout, which is 30 s" in done.stderr


def test_the_command_says_what_it_cannot_do(tmp_path: Path) -> None:
    address = f"dir://{tmp_path}/bodies"
    nothing = f"mail/2026-11-21/1abc-{'0' * 32}"

    assert storage(address, "get", nothing).returncode == 1
    assert storage(address, "get", "../../etc/passwd").returncode == 1
    assert storage("", "get", nothing).returncode == 2
    assert storage("", "sweep").returncode == 2
    assert storage(address, "sweep", "--older-than=soon").returncode == 2
    swept_nothing = storage(address, "sweep")
    assert (swept_nothing.returncode, swept_nothing.stdout) == (0, b"")
    assert b"0 removed (0 octets), 0 uncertain, 0 leftovers" in swept_nothing.stderr
