"""A consumer that people copy, with bodies that are kept outside the queue."""

from __future__ import annotations

import shlex
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from client import Client
from gateway import COMMAND, ENVIRONMENT, running
from parts import needs
from rabbitmq import RabbitMQ, wait_until

pytestmark = needs("rabbitmq")

SCRIPT = Path(__file__).parents[2] / "scripts" / "inbox-to-maildir.py"
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"


@pytest.mark.parametrize("trouble", ["none", "no program", "no body", "another body"])
def test_a_body_is_fetched_and_checked_or_its_mail_stays(
    broker: RabbitMQ, tmp_path: Path, trouble: str
) -> None:
    queue = f"bodies-{uuid.uuid4().hex[:8]}"
    address = f"dir://{tmp_path}/bodies"
    keys = {
        "rabbitmq-address": broker.url,
        "rabbitmq-inbox": queue,
        "storage-address": address,
        "storage-policy": "in",
    }
    with running(tmp_path, keys) as server:
        server.saw("amqp.connected")
        with Client(server.port) as client:
            client.hello()
            assert client.mail(MESSAGE).startswith("250")
        server.stop()
        [stored] = [each for each in (tmp_path / "bodies/mail").rglob("*") if each.is_file()]
        if trouble == "no body":
            stored.unlink()
        elif trouble == "another body":
            stored.write_bytes(MESSAGE + b"And more.\r\n")
        fetch = shlex.join([*COMMAND, "storage", "get", f"--storage-address={address}"])

        consumer = subprocess.Popen(
            [sys.executable, SCRIPT, "--broker", broker.url, "--queue", queue,
             *([] if trouble == "no program" else ["--fetch", fetch]), tmp_path / "box"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            if trouble == "none":
                wait_until(lambda: any(tmp_path.glob("box/new/*")), "the mail is in the Maildir")
                consumer.terminate()
            _, said = consumer.communicate(timeout=30)
        finally:
            consumer.kill()
            consumer.wait()

        left = server.consume(queue)
    if trouble == "none":
        [file] = tmp_path.glob("box/new/*")
        assert file.read_bytes().endswith(b"Subject: hello\n\nHello.\n")
        assert (consumer.returncode, left) == (0, [])
    else:
        assert consumer.returncode == 1
        assert b"inbox-to-maildir: " in said
        assert [document["key"] for document in left] == [
            str(stored.relative_to(tmp_path / "bodies"))
        ]
        assert not any(tmp_path.glob("box/new/*"))
