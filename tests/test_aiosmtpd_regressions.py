"""What aiosmtpd 1.4.6 gets wrong, one test a finding: none of it may be true of us."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from client import Client
from gateway import Certificate, running
from mailgw.config import load
from mailgw.mail.transaction import Message
from mailgw.process import house
from mailgw.smtp.extensions import Rules
from mailgw.smtp.reply import Reply
from smtp.house import HOST, House
from wire.house import Taken, Welcome, serving, talking

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
BEGIN = (b"EHLO c.test\r\n", b"MAIL FROM:<a@b.test>\r\n", b"RCPT TO:<bob@ours.test>\r\n")


def said_to(*lines: bytes) -> str:
    """The code of the last reply to these lines."""
    return str(House(Rules(HOST)).codes(*lines)[-1])


def test_a01_data_without_a_newline_takes_no_room(tmp_path: Path) -> None:
    with running(tmp_path, {"smtp-maxsize": "1MB"}) as server, Client(server.port) as client:
        client.hello()
        client.transaction()
        before = server.memory()
        for _ in range(30):
            client.send(b"x" * 1_000_000)
        grown = server.memory() - before
        client.send(b"\r\n.\r\n")
        assert client.reply().startswith("552 5.3.4 ")
    assert grown < 10_000_000


@pytest.mark.parametrize("path", [b"a@=?utf-8?q?trusted.example?=", b"x@=?utf-8?q?y=2Eexample?="])
def test_a02_no_encoded_word_is_decoded_in_an_address(path: bytes) -> None:
    assert said_to(BEGIN[0], b"MAIL FROM:<" + path + b">\r\n") == "501"


@pytest.mark.parametrize("path", [b"<a@b.test", b"<a(c)@b.test>", b"<a@b.test\0>", b"<a @b.test>"])
def test_a03_a_bad_address_is_the_clients_mistake(path: bytes) -> None:
    assert said_to(BEGIN[0], b"MAIL FROM:" + path + b"\r\n") == "501"


def test_a04_the_proxied_address_outlives_starttls(
    tmp_path: Path, certificate: Certificate
) -> None:
    keys = certificate.keys | {"smtp-proxy": "127.0.0.1"}
    with running(tmp_path, keys) as server:
        with Client(server.port) as client:
            client.send(b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n")
            client.hello()
            client.starttls(certificate.authority)
            client.ask("EHLO client.test")
            assert client.mail(MESSAGE).startswith("250-2.0.0 ")
        [document] = server.consume()
    assert document["connection"]["remote-ip"] == "192.0.2.7"
    assert document["connection"]["secure"] is True


def test_a05_the_null_sender_is_empty(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        with Client(server.port) as client:
            client.hello()
            client.mail(MESSAGE, sender="<>")
        [document] = server.consume()
    assert document["envelope"] == ""


def test_a06_a_tls_port_knows_that_it_is_one(tmp_path: Path, certificate: Certificate) -> None:
    keys = certificate.keys | {"smtp-username": "anna", "smtp-password": "secret"}
    with running(tmp_path, keys) as server:
        context = ssl.create_default_context(cafile=str(certificate.authority))
        with (
            socket.create_connection(("127.0.0.1", server.secure_port)) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as secured,
        ):
            secured.settimeout(15)
            secured.recv(4096)
            secured.sendall(b"EHLO c.test\r\n")
            assert b"AUTH PLAIN" in secured.recv(4096)
            secured.sendall(b"AUTH PLAIN AGFubmEAc2VjcmV0\r\n")
            assert secured.recv(4096).startswith(b"235 ")


def test_a07_tls_starts_once() -> None:
    assert House(Rules(HOST, starttls=True), tls=True).codes(BEGIN[0], b"STARTTLS\r\n")[-1] == 503


async def test_a08_a_half_close_cancels_nobodys_work() -> None:
    go_on, taken = asyncio.Event(), Taken()

    async def slow(message: Message) -> Reply:
        await go_on.wait()
        return taken(message)

    async with serving(slow) as door, talking(door) as client:
        await client.reply()
        for line in (b"EHLO c.test", b"MAIL FROM:<>", b"RCPT TO:<bob@ours.test>", b"DATA"):
            await client.ask(line)
        client.writer.write(MESSAGE + b".\r\n")
        client.writer.write_eof()
        go_on.set()
        assert (await client.reply()).startswith("250-")
    assert taken.contents == [MESSAGE]


async def test_a09_patience_with_the_client_does_not_bound_our_own_work() -> None:
    taken = Taken()

    async def slow(message: Message) -> Reply:
        await asyncio.sleep(2.2)  # the work itself: longer than the patience below
        return taken(message)

    async with serving(slow, patience=0.5) as door, talking(door) as client:
        await client.reply()
        for line in (b"EHLO c.test", b"MAIL FROM:<>", b"RCPT TO:<bob@ours.test>", b"DATA"):
            await client.ask(line)
        assert (await client.ask(MESSAGE + b".")).startswith("250-")
    assert len(taken.messages) == 1


def test_a10_a_long_line_of_text_is_taken() -> None:
    assert said_to(*BEGIN, b"DATA\r\n", b"x" * 5000 + b"\r\n.\r\n") == "250"


def test_a11_one_session_sets_no_limit_for_another() -> None:
    first, second = House(Rules(HOST)), House(Rules(HOST))
    first.codes(*[b"EHLO c.test\r\n"] * 20)
    long, too_long = b"NOOP " + b"x" * 2000 + b"\r\n", b"NOOP " + b"x" * 2100 + b"\r\n"

    assert first.codes(long, too_long)[-2:] == second.codes(long, too_long)[-2:] == [250, 500]


async def test_a12_our_own_bug_is_temporary_and_says_nothing_of_itself() -> None:
    class Broken(Welcome):
        def data(self, _peer: object) -> Reply:
            raise IndexError("string index out of range")

    async with serving(Taken(), Broken()) as door, talking(door) as client:
        await client.reply()
        for line in (b"EHLO c.test", b"MAIL FROM:<>", b"RCPT TO:<bob@ours.test>"):
            await client.ask(line)
        said = await client.ask(b"DATA")
    assert said.startswith("451 4.3.0 Local error, reference ")
    assert "index" not in said


def test_a13_recipients_and_guesses_have_limits(tmp_path: Path) -> None:
    keys = {"smtp-max-recipients": 100, "smtp-auth-insecure-range": "127.0.0.1"}
    keys |= {"smtp-username": "anna", "smtp-password": "secret", "local-addresses": "locals"}
    (tmp_path / "locals").write_text("@ours.test\n")
    with running(tmp_path, keys) as server, Client(server.port) as client:
        client.hello()
        client.ask("MAIL FROM:<>")
        said = [client.ask(f"RCPT TO:<u{n}@ours.test>") for n in range(101)]
        assert [each[:3] for each in said] == ["250"] * 100 + ["452"]
        client.ask("RSET")
        tries = [client.ask("AUTH PLAIN AGFubmEAd3Jvbmc=")[:3] for _ in range(10)]
        assert tries[0] == "535"
        assert "421" in (*tries, client.reply()[:3])


def test_a14_a_costly_password_holds_up_nobody_else(tmp_path: Path) -> None:
    users = tmp_path / "users"
    # 900,000 rounds: the longest that is taken.
    users.write_text(f"anna:$6$rounds=900000$abcdefgh${'a' * 86}\n")
    keys = {"smtp-auth": f"file://{users}", "smtp-auth-insecure-range": "127.0.0.1"}
    with (
        running(tmp_path, keys) as server,
        Client(server.port) as client,
        Client(server.port) as other,
    ):
        client.hello()
        other.hello()
        client.send(b"AUTH PLAIN AGFubmEAc2VjcmV0\r\n")
        assert other.ask("NOOP").startswith("250 ")
        client.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.socket.recv(1)
        client.socket.settimeout(15)
        assert client.reply().startswith("535 ")


def test_a15_the_systems_name_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(socket, "getfqdn", lambda: asked.append(1) or "mx.ours.test")
    house._system_name.cache_clear()
    settings = load(arguments=[("rabbitmq-address", ""), ("output", "null")])
    output = house.output_of(settings)

    for _ in range(3):
        house.house_of(settings, output, house.Identifiers("1"))

    assert len(asked) == 1
    house._system_name.cache_clear()


def test_a16_neither_commands_nor_text_are_logged(tmp_path: Path) -> None:
    with running(tmp_path, {"application-log-level": "debug"}) as server:
        with Client(server.port) as client:
            client.hello()
            client.ask("NOOP unmistakable-command")
            client.mail(b"Subject: unmistakable-text\r\n\r\nunmistakable-text\r\n")
        server.saw("client.gone")
        assert "message.taken" in server.log
        assert "unmistakable" not in server.log


def test_every_finding_has_its_test() -> None:
    numbered = {
        name[6:8] for name in globals() if name.startswith("test_a") and name[6:8].isdigit()
    }

    assert numbered == {f"{number:02}" for number in range(1, 17)}
