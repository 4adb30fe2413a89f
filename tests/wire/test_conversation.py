"""One client and the house's promises to it."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
import sys
import weakref
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest
from house import PATIENCE, Held, Taken, Talker, Welcome, contexts, serving, talking

from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Message
from mailgw.observe import log
from mailgw.smtp import events, reply
from mailgw.smtp.reply import Refusal, Reply
from mailgw.wire.house import Answer, Now
from rabbitmq import eventually

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"


class Slow:
    """An intake that takes its message when it is told to, and not before."""

    def __init__(self) -> None:
        self.begun, self.go, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.safe: list[bytes] = []

    async def __call__(self, message: Message) -> Reply:
        content = message.content.read()
        message.content.close()
        self.begun.set()
        try:
            await self.go.wait()
            self.safe.append(content)
            return reply.OK
        finally:
            self.ended.set()


async def soon(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), PATIENCE)


async def send_message(client: Talker) -> None:
    assert (await client.begin()).startswith("354 ")
    client.writer.write(MESSAGE + b".\r\n")


async def test_a_pipelined_transaction_is_answered_in_order() -> None:
    taken = Taken()
    async with serving(taken) as door, talking(door) as client:
        client.writer.write(
            b"EHLO client.test\r\nMAIL FROM:<joe@there.test>\r\nRCPT TO:<bob@ours.test>\r\n"
            b"DATA\r\n" + MESSAGE + b".\r\nQUIT\r\n"
        )
        codes = [(await client.reply())[:3] for _ in range(8)]
    assert codes == ["220", "250", "250", "250", "354", "250", "221", ""]
    [(message, content)] = taken.messages
    assert content == MESSAGE
    assert message.peer.helo == "client.test"
    assert str(message.reverse_path) == "joe@there.test"
    assert [str(recipient.address) for recipient in message.recipients] == ["bob@ours.test"]


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_who_vanishes_after_the_final_dot_does_not_cancel_the_publish(how: str) -> None:
    slow = Slow()
    async with serving(slow) as door:
        async with talking(door) as client:
            await send_message(client)
            await soon(slow.begun)
            match how:
                case "reset":
                    client.writer.transport.abort()
                case "half-close":
                    client.writer.write_eof()
                    slow.go.set()
                    # A client that only stopped talking still gets its reply.
                    assert (await client.reply()).startswith("250 ")
        slow.go.set()
        await soon(slow.ended)
        await door.deserted()
    assert slow.safe == [MESSAGE]


async def test_a_decision_that_is_late_is_451_and_the_session_goes_on() -> None:
    slow = Slow()
    async with serving(slow, deadline=0.2) as door, talking(door) as client:
        await send_message(client)
        assert (await client.reply()).startswith("451 4.3.0 ")
        assert (await client.ask(b"NOOP")).startswith("250 ")
        assert (await client.ask(b"MAIL FROM:<joe@there.test>")).startswith("250 ")
    assert slow.safe == []


async def test_waiting_for_a_decision_is_not_the_clients_silence() -> None:
    slow = Slow()
    async with serving(slow, patience=0.2) as door, talking(door) as client:
        await send_message(client)
        await soon(slow.begun)
        # Longer than the patience and the clock that looks at it.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 1.5)
        slow.go.set()
        assert (await client.reply()).startswith("250 ")


class Broken(Welcome):
    """Raises at one question."""

    def __init__(self, question: str) -> None:
        self._question = question

    def _ask(self, question: str) -> None:
        if question == self._question:
            raise ZeroDivisionError("a bug of ours, with opensesame in it")

    def hello(self, peer: Peer) -> Now[Reply]:
        self._ask("hello")
        return super().hello(peer)

    def sender(self, peer: Peer, event: events.MailFrom) -> Now[Reply]:
        self._ask("sender")
        return super().sender(peer, event)

    def recipient(self, peer: Peer, event: events.RcptTo, accepted: int) -> Now[Answer]:
        self._ask("recipient")
        return super().recipient(peer, event, accepted)

    def data(self, peer: Peer) -> Now[Reply]:
        self._ask("data")
        return super().data(peer)


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    log.to_stderr()
    return capfd


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    yield
    log.direct([])
    root.handlers[:] = before


@pytest.mark.parametrize("question", ["hello", "sender", "recipient", "data"])
async def test_a_bug_in_the_gate_is_451_with_a_reference(
    said: pytest.CaptureFixture[str], question: str
) -> None:
    async with serving(Taken(), Broken(question)) as door, talking(door) as client:
        await client.reply()
        replies = [
            await client.ask(line)
            for line in (b"EHLO c.test", b"MAIL FROM:<>", b"RCPT TO:<bob@ours.test>", b"DATA")
        ]
        [refusal] = [each for each in replies if each.startswith("451 ")]
        if question != "data":
            assert (await client.ask(b"NOOP")).startswith("250 ")
    reference = refusal.removeprefix("451 4.3.0 Local error, reference ")
    written = said.readouterr().err
    assert f"decision.error id={reference}\n" in written
    assert "ZeroDivisionError: a bug of ours" in written
    assert "ZeroDivisionError" not in "".join(replies)


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_a_bug_in_the_intake_is_451_with_a_reference(
    said: pytest.CaptureFixture[str], when: str
) -> None:
    def at_once(_message: Message) -> Reply:
        raise ZeroDivisionError

    async def later(_message: Message) -> Reply:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    intake = at_once if when == "at once" else later
    async with serving(intake) as door, talking(door) as client:
        await send_message(client)
        refusal = await client.reply()
        assert (await client.ask(b"MAIL FROM:<>")).startswith("250 ")
    reference = refusal.removeprefix("451 4.3.0 Local error, reference ")
    assert f"decision.error id={reference}\n" in said.readouterr().err


class Refusing(Welcome):
    def sender(self, _peer: Peer, _event: events.MailFrom) -> Now[Reply]:
        raise Refusal(reply.REFUSED)

    def hello(self, _peer: Peer) -> Now[Reply]:
        async def later() -> Reply:
            await asyncio.sleep(0)
            raise Refusal(reply.TRY_AGAIN)

        return later()


async def test_a_raised_refusal_is_its_reply() -> None:
    async with serving(Taken(), Refusing()) as door, talking(door) as client:
        await client.reply()
        assert (await client.ask(b"EHLO c.test")).startswith("451 4.3.0 Temporary")


class Unwelcome(Welcome):
    def connected(self, _peer: Peer) -> Now[Reply]:
        return Reply(421, "7.0", "Not now")


async def test_a_client_may_be_sent_away_at_the_door() -> None:
    async with serving(Taken(), Unwelcome()) as door, talking(door) as client:
        assert await client.reply() == "421 4.7.0 Not now"
        assert await client.reply() == ""


class Thoughtful(Welcome):
    """Takes a turn of the loop for every recipient."""

    def recipient(self, peer: Peer, event: events.RcptTo, accepted: int) -> Now[Answer]:
        async def think() -> Answer:
            await asyncio.sleep(0)
            if event.recipient.local == "nobody":
                return reply.NO_SUCH_RECIPIENT
            answer = Welcome.recipient(self, peer, event, accepted)
            assert not isinstance(answer, Awaitable)
            return answer

        return think()


async def test_what_is_pipelined_behind_a_decision_waits_its_turn() -> None:
    taken = Taken()
    async with serving(taken, Thoughtful()) as door, talking(door) as client:
        lines = [b"RCPT TO:<u%d@ours.test>" % n for n in range(50)]
        lines.insert(25, b"RCPT TO:<nobody@ours.test>")
        session = [b"EHLO c.test", b"MAIL FROM:<>", *lines, b"DATA", b"hello", b".", b"QUIT", b""]
        client.writer.write(b"\r\n".join(session))
        codes = [(await client.reply())[:3] for _ in range(57)]
    wanted = ["220", "250", "250", *["250"] * 25, "550", *["250"] * 25, "354", "250", "221"]
    assert codes == wanted
    [(message, _)] = taken.messages
    assert [each.address.local for each in message.recipients] == [f"u{n}" for n in range(50)]


async def test_a_spool_that_cannot_be_made_is_452_and_the_session_goes_on(tmp_path: Path) -> None:
    taken = Taken()
    missing = tmp_path / "missing"
    async with (
        serving(taken, spool_memory=100, spool_directory=missing) as door,
        talking(door) as client,
    ):
        await client.begin()
        assert (await client.ask(b"x" * 1000 + b"\r\n.")).startswith("452 4.3.1 ")
        for line in (b"MAIL FROM:<>", b"RCPT TO:<bob@ours.test>", b"DATA"):
            await client.ask(line)
        assert (await client.ask(b"small\r\n.")).startswith("250-2.0.0 ")
        missing.mkdir()
        for line in (b"MAIL FROM:<>", b"RCPT TO:<bob@ours.test>", b"DATA"):
            await client.ask(line)
        assert (await client.ask(b"y" * 1000 + b"\r\n.")).startswith("250-2.0.0 ")
    assert taken.contents == [b"small\r\n", b"y" * 1000 + b"\r\n"]


async def test_tls_is_in_what_is_known_of_the_peer(tmp_path: Path) -> None:
    server, trusting = contexts(tmp_path)
    taken = Taken()
    async with serving(taken, tls=server, secure=True) as door, talking(door, trusting) as client:
        await send_message(client)
        assert (await client.reply()).startswith("250-")
    [(message, _)] = taken.messages
    assert message.peer.tls is not None
    assert message.peer.tls.version == "TLSv1.3"


async def upgraded(client: Talker, context: ssl.SSLContext) -> Talker:
    await client.reply()
    await client.ask(b"EHLO clear.test")
    assert (await client.ask(b"STARTTLS")).startswith("220 ")
    await client.writer.start_tls(context, server_hostname="localhost")
    return client


async def test_what_was_said_in_clear_is_forgotten(tmp_path: Path) -> None:
    server, trusting = contexts(tmp_path)
    taken = Taken()
    async with serving(taken, tls=server) as door, talking(door) as client:
        await upgraded(client, trusting)
        assert (await client.ask(b"MAIL FROM:<>")).startswith("503 ")
        await client.ask(b"EHLO inside.test")
        for line in (b"MAIL FROM:<>", b"RCPT TO:<bob@ours.test>", b"DATA"):
            await client.ask(line)
        assert (await client.ask(b"hi\r\n.")).startswith("250-")
    [(message, _)] = taken.messages
    assert message.peer.helo == "inside.test"
    assert message.peer.secure


@pytest.mark.parametrize("end", ["silence", "garbage", "reset", "half-close"])
async def test_a_handshake_that_fails_leaves_nobody_behind(tmp_path: Path, end: str) -> None:
    server, _ = contexts(tmp_path)
    async with (
        serving(Taken(), tls=server, patience=0.3, deadline=30) as door,
        talking(door) as client,
    ):
        await client.reply()
        await client.ask(b"EHLO clear.test")
        await client.ask(b"STARTTLS")
        match end:
            case "garbage":
                client.writer.write(b"EHLO still.clear.test\r\n")
            case "reset":
                client.writer.transport.abort()
            case "half-close":
                client.writer.write_eof()
        await door.deserted()
        assert door.listener.idle


@pytest.mark.parametrize("start", ["STARTTLS", "the TLS port"])
async def test_cutting_ends_a_handshake_under_way(tmp_path: Path, start: str) -> None:
    server, _ = contexts(tmp_path)
    async with (
        serving(Taken(), tls=server, secure=start != "STARTTLS") as door,
        talking(door) as client,
    ):
        if start == "STARTTLS":
            await client.reply()
            await client.ask(b"EHLO clear.test")
            await client.ask(b"STARTTLS")
        client.writer.write(b"\x16\x03\x01\x02\x00\x01")
        await eventually(lambda: bool(door.listener.conversations), "the client is there")
        door.listener.stop()
        for conversation in tuple(door.listener.conversations):
            conversation.drain()
            conversation.cut()
        await asyncio.wait_for(door.deserted(), 5)
        assert door.listener.idle


async def test_draining_waits_for_no_handshake_on_the_tls_port(tmp_path: Path) -> None:
    server, _ = contexts(tmp_path)
    async with serving(Taken(), tls=server, secure=True) as door, talking(door):
        await eventually(lambda: bool(door.listener.conversations), "the client is there")
        door.listener.stop()
        for conversation in tuple(door.listener.conversations):
            conversation.drain()
        await asyncio.wait_for(door.deserted(), PATIENCE)


async def test_draining_amid_starttls_is_told_inside_tls(tmp_path: Path) -> None:
    server, trusting = contexts(tmp_path)
    async with serving(Taken(), tls=server) as door, talking(door) as client:
        await client.reply()
        await client.ask(b"EHLO clear.test")
        await client.ask(b"STARTTLS")
        [conversation] = door.listener.conversations
        conversation.drain()
        await client.writer.start_tls(trusting, server_hostname="localhost")
        assert (await client.reply()).startswith("421 4.3.2 ")
        assert await client.reply() == ""


@pytest.mark.skipif(sys.platform != "linux", reason="others do not say whether they delay it")
async def test_the_end_of_a_handshake_is_acknowledged_at_once(tmp_path: Path) -> None:
    server, trusting = contexts(tmp_path)
    async with serving(Taken(), tls=server) as door, talking(door) as client:
        await client.reply()
        await client.ask(b"EHLO clear.test")
        [conversation] = door.listener.conversations
        assert conversation._link.transport is not None
        ours: socket.socket = conversation._link.transport.get_extra_info("socket")

        await client.ask(b"STARTTLS")
        await client.writer.start_tls(trusting, server_hostname="localhost")
        await eventually(lambda: conversation._link.tls is not None, "hands are shaken")

        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1


@pytest.mark.parametrize("how", ["STARTTLS", "the TLS port", "no handshake"])
async def test_a_client_in_tls_leaves_nothing_for_the_collector(tmp_path: Path, how: str) -> None:
    server, trusting = contexts(tmp_path)
    secure = how != "STARTTLS"
    context = trusting if how == "the TLS port" else None
    gc.collect()
    gc.disable()
    try:
        async with serving(Taken(), tls=server, secure=secure) as door:
            async with talking(door, context) as client:
                await eventually(lambda: bool(door.listener.conversations), "it is there")
                [conversation] = door.listener.conversations
                # Compiled, a link has no weak references; what only it holds may have them.
                conversation._link.trouble = Held()
                held = weakref.ref(conversation._link.trouble)
                del conversation
                if how == "no handshake":
                    client.writer.write(b"EHLO client.test\r\n")
                elif how == "STARTTLS":
                    await upgraded(client, trusting)
                    await client.ask(b"EHLO client.test")
                else:
                    await send_message(client)
                    assert (await client.reply()).startswith("250-")
                client.writer.write(b"QUIT\r\n")
            await door.deserted()
            await eventually(lambda: held() is None, "nothing keeps it")
    finally:
        gc.enable()


async def test_draining_ends_who_is_idle_and_waits_for_who_is_not() -> None:
    slow = Slow()
    async with serving(slow) as door, talking(door) as busy, talking(door) as idle:
        await send_message(busy)
        await soon(slow.begun)
        await idle.reply()
        for conversation in tuple(door.listener.conversations):
            conversation.drain()
            conversation.cut()
        assert (await idle.reply()).startswith("421 4.3.2 ")
        slow.go.set()
        assert (await busy.reply()).startswith("250 ")
        assert (await busy.reply()).startswith("421 4.3.2 ")
    assert slow.safe == [MESSAGE]
