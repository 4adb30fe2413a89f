"""The hook and the handlers that people will copy."""

from __future__ import annotations

import mailbox
import os
import smtplib
from pathlib import Path

import pytest

import gateway
from gateway import ENVIRONMENT, Gateway, content, running
from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Recipient, Transaction
from mailgw.smtp.address import Address

SCRIPTS = Path(__file__).parents[2] / "scripts"
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
PEER = Peer("c1", "192.0.2.7", 40000, "192.0.2.1", 25)


def find_in(folder: str, monkeypatch: pytest.MonkeyPatch, **variables: object) -> None:
    path = os.pathsep.join([str(SCRIPTS / folder), ENVIRONMENT["PYTHONPATH"]])
    monkeypatch.setitem(gateway.ENVIRONMENT, "PYTHONPATH", path)
    for name, value in variables.items():
        monkeypatch.setitem(gateway.ENVIRONMENT, name, str(value))


def send(served: Gateway, *recipients: str, sender: str = "joe@there.test") -> tuple[int, str]:
    with smtplib.SMTP("127.0.0.1", served.port, timeout=15) as client:
        client.ehlo("client.test")
        code, text = client.mail(sender)
        for recipient in recipients:
            code, text = client.rcpt(recipient)
        if code == 250:
            code, text = client.data(MESSAGE)
        return code, text.decode()


# --- hooks/greylist.py --------------------------------------------------------------


def test_what_strangers_make_it_remember_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS / "hooks")
    import greylist

    monkeypatch.setattr(greylist, "_MOST", 10)
    hook = greylist.Greylist()

    for number in range(100):
        hook.rcpt(PEER, Transaction(None), Recipient(Address(f"u{number}", "ours.test")))

    assert len(hook.seen) == 10


# --- handlers/maildir.py ------------------------------------------------------------


def test_a_handler_puts_mail_into_a_maildir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "archive"
    find_in("handlers", monkeypatch, MAILDIR=folder)

    with running(tmp_path, {"handler": "maildir:ToMaildir", "output": "null"}) as served:
        said = send(served, "bob@ours.test", "ann@ours.test")

    assert said == (250, "OK, in the maildir")
    [kept] = mailbox.Maildir(folder)
    assert kept["Return-Path"] == "<joe@there.test>"
    assert kept.get_all("Delivered-To") == ["bob@ours.test", "ann@ours.test"]
    assert kept["Subject"] == "hello"
    assert kept.get_payload() == "Hello.\n"


def test_a_maildir_that_cannot_be_written_costs_a_451(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "archive"
    find_in("handlers", monkeypatch, MAILDIR=folder)

    with running(tmp_path, {"handler": "maildir:ToMaildir", "output": "null"}) as served:
        (folder / "tmp").rmdir()
        assert send(served, "bob@ours.test")[0] == 451


# --- handlers/forward.py ------------------------------------------------------------


def test_a_handler_hands_mail_on_and_says_what_it_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "locals").write_text("@ours.test\n")
    strict = {"smtp-recipients": "local", "local-addresses": tmp_path / "next" / "locals"}

    with running(tmp_path / "next", strict) as following:
        find_in("handlers", monkeypatch, FORWARD_TO=f"127.0.0.1:{following.port}")
        with running(tmp_path, {"handler": "forward:Forward", "output": "null"}) as served:
            taken = send(served, "bob@ours.test")
            refused = send(served, "bob@ours.test", "x@elsewhere.test")
            bounce = send(served, "ann@ours.test", sender="")
        documents = following.consume()

    assert taken[0] == bounce[0] == 250
    assert refused == (550, "5.7.1 Relaying denied")
    assert [(each["envelope"], each["recipient"]) for each in documents] == [
        ("joe@there.test", "bob@ours.test"),
        ("", "ann@ours.test"),
    ]
    assert content(documents[0]) == b"X-Peer: 127.0.0.1\r\n" + MESSAGE
