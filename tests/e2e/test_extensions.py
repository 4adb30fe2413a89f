"""Hooks and aiosmtpd handlers in the running gateway: the examples, and what bad ones cost."""

from __future__ import annotations

import mailbox
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from client import Client
from gateway import COMMAND, ENVIRONMENT, Gateway, content

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
SCRIPTS = Path(__file__).parents[2] / "scripts"

Start = Callable[..., Gateway]


@pytest.fixture
def extended(tmp_path: Path) -> Iterator[Start]:
    """Starts gateways that find the examples and `code`, a module called `ours`."""
    with ExitStack() as started:

        def start(keys: dict[str, object], code: str = "", **environ: str) -> Gateway:
            folder = tmp_path / f"gateway{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            (folder / "ours.py").write_text(code)
            found = [folder, SCRIPTS / "hooks", SCRIPTS / "handlers", ENVIRONMENT["PYTHONPATH"]]
            environ["PYTHONPATH"] = os.pathsep.join(map(str, found))
            gateway = Gateway(folder, keys, environ=environ)
            started.callback(gateway.close)
            return gateway.start()

        yield start


def test_the_example_hook_greylists(extended: Start) -> None:
    server = extended({"hook": "greylist:Greylist"})
    with Client(server.port) as client:
        client.hello()
        assert client.mail(MESSAGE).startswith("451 4.7.1 Greylisted")
        assert client.ask("RSET").startswith("250 ")
    assert server.consume() == []


def test_who_comes_again_after_a_minute_is_not_greylisted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS / "hooks")
    from greylist import Greylist

    from mailgw.mail.peer import Peer
    from mailgw.mail.transaction import Recipient, Transaction
    from mailgw.smtp.address import Address

    now = [0.0]
    hook = Greylist(clock=lambda: now[0])
    bob = Recipient(Address("bob", "ours.test"))
    asked = (Peer("c1", "192.0.2.1", 1, "192.0.2.2", 25), Transaction(None), bob)

    first = hook.rcpt(*asked)
    now[0] = 61.0

    assert first is not None
    assert first.code == 451
    assert hook.rcpt(*asked) is None


def test_the_maildir_handler_keeps_what_came(extended: Start, tmp_path: Path) -> None:
    keys = {"handler": "maildir:ToMaildir", "output": "null"}
    server = extended(keys, MAILDIR=str(tmp_path / "Maildir"))
    with Client(server.port) as client:
        client.hello()
        assert client.mail(MESSAGE).startswith("250 ")
    [kept] = mailbox.Maildir(tmp_path / "Maildir")
    assert kept["subject"] == "hello"
    assert kept.get_payload().strip() == "Hello."


def test_the_forwarding_handler_says_what_the_next_server_says(extended: Start) -> None:
    behind = extended({})
    keys = {"handler": "forward:Forward", "output": "null"}
    server = extended(keys, FORWARD_TO=f"127.0.0.1:{behind.port}")
    with Client(server.port) as client:
        client.hello()
        assert client.mail(MESSAGE, "bob@ours.test", "eve@ours.test").startswith("250")
        behind.stop()
        assert client.mail(MESSAGE).startswith("451 ")
    there = behind.consume()
    assert [each["recipient"] for each in there] == ["bob@ours.test", "eve@ours.test"]
    assert content(there[0]).endswith(MESSAGE)


def test_a_positive_handler_lets_the_message_go_on_to_the_queue(
    extended: Start, tmp_path: Path
) -> None:
    server = extended({"handler": "maildir:ToMaildir"}, MAILDIR=str(tmp_path / "Maildir"))
    with Client(server.port) as client:
        client.hello()
        assert client.mail(MESSAGE).startswith("250-2.0.0 Ok, your message has been queued")
    assert [content(each) for each in server.consume()] == [MESSAGE]


TROUBLE = """
import asyncio
from aiosmtpd.smtp import AuthResult

class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("raise"):
            raise ValueError("of the handler's own")
        if address.startswith("hang"):
            await asyncio.sleep(3600)
        if address.startswith("no"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        return "554 never" if b"spam" in envelope.content else "250 OK"

    def authenticator(self, server, session, envelope, mechanism, data):
        return AuthResult(success=data.login == b"anna", handled=True)
"""


def test_a_handler_that_raises_or_hangs_costs_its_client_a_451(extended: Start) -> None:
    server = extended({"handler": "ours:Handler", "hook-timeout": "0.5"}, TROUBLE)
    with Client(server.port) as client, Client(server.port) as other:
        client.hello()
        other.hello()
        client.ask("MAIL FROM:<>")
        client.send(b"RCPT TO:<hang@ours.test>\r\n")
        assert other.mail(MESSAGE).startswith("250-2.0.0 ")
        assert client.reply().startswith("451 ")
        assert client.ask("RCPT TO:<raise@ours.test>").startswith("451 ")
        assert client.ask("RCPT TO:<nobody@ours.test>") == "550 no such user"
        assert client.ask("RCPT TO:<bob@ours.test>").startswith("250 ")
    with Client(server.port) as client:
        client.hello()
        assert client.mail(b"Subject: spam\r\n\r\n") == "554 never"
    assert "of the handler's own" in server.log
    assert len(server.consume()) == 1


def test_a_handled_login_that_failed_is_answered(extended: Start) -> None:
    # aiosmtpd makes such a client wait for ever.
    keys = {"handler": "ours:Handler", "smtp-auth-insecure-range": "127.0.0.0/8"}
    server = extended(keys, TROUBLE)
    with Client(server.port) as client:
        assert "AUTH" in client.hello()
        assert client.ask("AUTH PLAIN AGV2ZQBwYXNz").startswith("535 ")
        assert client.ask("AUTH PLAIN AGFubmEAcGFzcw==").startswith("235 ")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("hook", "nowhere_to_be_found:Hook"),
        ("hook", "json:Nothing"),
        ("hook", "json:loads"),
        ("handler", "nowhere_to_be_found:Handler"),
    ],
)
def test_what_cannot_be_loaded_is_one_line_at_the_start(
    tmp_path: Path, key: str, name: str
) -> None:
    keys = ["--rabbitmq-address=", "--output=null", "--smtp-port=0", "--smtp-ip=127.0.0.1"]
    done = subprocess.run(
        [*COMMAND, "serve", *keys, f"--{key}={name}"],
        env=ENVIRONMENT,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert f"{key}: {name}" in done.stderr
    assert "Traceback" not in done.stderr
