"""The keys `hook` and `handler`, as an operator uses them."""

from __future__ import annotations

import os
import smtplib
import subprocess
from pathlib import Path

import pytest

import gateway
from gateway import COMMAND, ENVIRONMENT, Gateway, content, running
from mailgw.config import load
from mailgw.gate.gate import Gate
from mailgw.mail.identifiers import Identifiers
from mailgw.outlets.null import Null
from mailgw.process.house import house_of

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
HOOKS = """
from mailgw.smtp.reply import Reply

class Refuses:
    async def rcpt(self, peer, transaction, recipient):
        if recipient.address.local == "nobody":
            return Reply(550, "1.1", "Nobody is not here")

class Tags:
    def message(self, peer, transaction, content):
        if b"Subject: spam" in content:
            return Reply(554, "7.1", "Spam")

class Breaks:
    def mail(self, peer, transaction):
        return transaction.nonsense

class Empty:
    pass
"""


@pytest.fixture
def extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "extensions"
    folder.mkdir()
    (folder / "ours.py").write_text(HOOKS)
    path = os.pathsep.join([str(folder), ENVIRONMENT["PYTHONPATH"]])
    monkeypatch.setitem(gateway.ENVIRONMENT, "PYTHONPATH", path)


def send(gateway: Gateway, recipient: str, message: bytes = MESSAGE) -> tuple[int, str]:
    """The last reply to a mail."""
    with smtplib.SMTP("127.0.0.1", gateway.port, timeout=15) as client:
        client.ehlo("client.test")
        code, text = client.mail("joe@there.test")
        if code == 250:
            code, text = client.rcpt(recipient)
        if code == 250:
            code, text = client.data(message)
        return code, text.decode()


@pytest.mark.usefixtures("extensions")
def test_hooks_are_asked_in_their_order_and_mail_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, {"hook": "ours:Refuses, ours:Tags"}) as served:
        nobody = send(served, "nobody@ours.test")
        spam = send(served, "bob@ours.test", b"Subject: spam\r\n\r\nBuy.\r\n")
        taken = send(served, "bob@ours.test")
        [document] = served.consume()

    assert nobody == (550, "5.1.1 Nobody is not here")
    assert spam == (554, "5.7.1 Spam")
    assert taken[0] == 250
    assert document["message-id"] in taken[1]
    assert content(document) == MESSAGE


@pytest.mark.usefixtures("extensions")
def test_a_hook_that_raises_has_its_traceback_in_the_log_under_the_reference(
    tmp_path: Path,
) -> None:
    with running(tmp_path, {"hook": "ours:Breaks"}) as served:
        code, text = send(served, "bob@ours.test")
        served.saw("hook.error")
        log = served.log

    reference = text.rpartition(" ")[2]
    assert (code, text) == (451, f"4.3.0 Local error, reference {reference}")
    assert f"hook.error id={reference} hook=ours:Breaks.mail" in log
    assert "no attribute 'nonsense'" in log


@pytest.mark.usefixtures("extensions")
@pytest.mark.parametrize(
    ("key", "name", "wrong"),
    [
        ("hook", "ours:Empty", "has none of the methods connect, hello, secure"),
        ("handler", "ours:Nothing", "ours has no Nothing"),
        ("handler", "aiosmtpd.handlers:Mailbox", "cannot be made: TypeError"),
    ],
)
def test_an_extension_that_cannot_be_had_keeps_the_gateway_from_starting(
    tmp_path: Path, key: str, name: str, wrong: str
) -> None:
    done = subprocess.run(
        [*COMMAND, "serve", f"--{key}={name}", "--output=null", "--smtp-port=0"],
        env=gateway.ENVIRONMENT,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"mailgw: command line: {key}: {name}: {wrong}")


def test_without_extensions_nothing_stands_around_the_gate() -> None:
    house = house_of(load((), {}, [("output", "null")]), Null(), Identifiers("1"))

    assert type(house.gate) is Gate
    assert not house.rules.courtesies
