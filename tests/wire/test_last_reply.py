"""Whether a client saw its 250: what its connection tells, with real sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from house import PATIENCE, Door, Talker, contexts, serving, talking

from mailgw.mail.transaction import Message
from mailgw.process.unseen import Table, UnseenReplies
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply
from rabbitmq import eventually

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"


class Watched:
    """An intake whose answer the test gives, and a memory in which it looks."""

    def __init__(self) -> None:
        self.unseen = UnseenReplies(Table(1, 600.0))
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self.answer: Reply = reply.queued("1 for bob@ours.test")
        self._last: Message | None = None

    async def __call__(self, message: Message) -> Reply:
        message.content.digest()
        message.content.close()
        self._last = message
        self.begun.set()
        await self.go.wait()
        return self.answer

    def remembered(self) -> bool | None:
        """Whether the last message is noted as safe, False for under way, None for not at all."""
        assert self._last is not None
        found = self.unseen.find(replace(self._last, transaction_id="another"))
        return None if found is None else found.safe


async def begun(watched: Watched, client: Talker, behind: bytes = b"") -> None:
    assert (await client.begin()).startswith("354 ")
    client.writer.write(MESSAGE + b".\r\n" + behind)
    await asyncio.wait_for(watched.begun.wait(), PATIENCE)


def reset(client: Talker) -> None:
    sock: socket.socket = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


def leave(client: Talker, how: str) -> None:
    if how == "reset":
        reset(client)
    else:
        client.writer.close()


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("behind", [b"", b"QUIT\r\n"])
async def test_who_went_before_the_reply_is_remembered(how: str, behind: bytes) -> None:
    watched = Watched()
    async with serving(watched, unseen=watched.unseen) as door, talking(door) as client:
        await begun(watched, client, behind)
        assert watched.remembered() is None
        leave(client, how)
        # Octets that wait behind keep the connection from being read, so its end is not seen.
        if not behind:
            await eventually(lambda: watched.remembered() is False, "it is noted as under way")
        watched.go.set()
        await door.deserted()
        assert watched.remembered() is True


async def test_what_was_no_250_is_not_remembered() -> None:
    watched = Watched()
    watched.answer = reply.TRY_AGAIN
    async with serving(watched, unseen=watched.unseen) as door, talking(door) as client:
        await begun(watched, client)
        leave(client, "close")
        await eventually(lambda: watched.remembered() is False, "it is noted as under way")
        watched.go.set()
        await door.deserted()
        assert watched.remembered() is None


@pytest.mark.parametrize("then", ["QUIT", "RSET", "close", "half-close"])
async def test_who_saw_the_reply_is_not_remembered(then: str) -> None:
    watched = Watched()
    watched.go.set()
    async with serving(watched, unseen=watched.unseen) as door:
        async with talking(door) as client:
            await begun(watched, client)
            assert (await client.reply()).startswith("250-")
            match then:
                case "QUIT" | "RSET":
                    await client.ask(then.encode())
                case "half-close":
                    client.writer.write_eof()
        await door.deserted()
        assert watched.remembered() is None


@pytest.mark.parametrize("behind", [b"", b"QUIT\r\n"])
async def test_who_only_stopped_talking_and_reads_the_reply_is_not_remembered(
    behind: bytes,
) -> None:
    watched = Watched()
    async with serving(watched, unseen=watched.unseen) as door, talking(door) as client:
        await begun(watched, client, behind)
        client.writer.write_eof()
        watched.go.set()
        assert (await client.reply()).startswith("250-")
        await door.deserted()
        assert watched.remembered() is None


async def test_a_quit_right_behind_the_message_does_not_say_that_the_reply_was_seen() -> None:
    watched = Watched()
    watched.go.set()
    async with serving(watched, unseen=watched.unseen) as door, talking(door) as client:
        await begun(watched, client, b"QUIT\r\n")
        assert (await client.reply()).startswith("250-")
        assert (await client.reply()).startswith("221 ")
        await door.deserted()
        assert watched.remembered() is None


async def test_who_breaks_off_without_reading_the_reply_is_remembered() -> None:
    watched = Watched()
    watched.go.set()
    async with serving(watched, unseen=watched.unseen) as door:
        sock = await silent(door, watched)
        # What was not read is lost, and the client's system says so.
        sock.close()
        await door.deserted()
        assert watched.remembered() is True


async def test_a_silent_client_that_has_the_reply_is_not_remembered() -> None:
    watched = Watched()
    watched.go.set()
    async with serving(watched, unseen=watched.unseen, patience=0.2) as door:
        async with talking(door) as client:
            await begun(watched, client)
            assert (await client.reply()).startswith("250-")
            assert (await client.reply()).startswith("421 4.4.2 ")
            assert await client.reply() == ""
            await door.deserted()
        assert watched.remembered() is None


async def test_who_cannot_be_reached_is_remembered_before_the_connection_ends() -> None:
    watched = Watched()
    watched.answer = reply.queued("\n".join("x" * 400 for _ in range(20_000)))
    watched.go.set()
    async with serving(watched, unseen=watched.unseen) as door:
        # Its window is full long before all of it could have arrived.
        sock = await silent(door, watched)
        await eventually(lambda: watched.remembered() is True, "it is noted meanwhile")
        assert len(door.listener.conversations) == 1
        # It was only slow, and has it all after all.
        await asyncio.to_thread(drink, sock)
        await asyncio.get_running_loop().sock_sendall(sock, b"NOOP\r\n")
        await eventually(lambda: watched.remembered() is None, "it is forgotten")
        sock.close()


async def silent(door: Door, watched: Watched) -> socket.socket:
    """A client that sent its message and reads nothing; when the message is there."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", door.port))
    await loop.sock_sendall(
        sock,
        b"EHLO c.test\r\nMAIL FROM:<>\r\nRCPT TO:<bob@ours.test>\r\nDATA\r\n" + MESSAGE + b".\r\n",
    )
    await asyncio.wait_for(watched.begun.wait(), PATIENCE)
    return sock


def drink(sock: socket.socket) -> None:
    sock.settimeout(PATIENCE)
    got = b""
    while not got.endswith(b"\r\n250 2.0.0 " + b"x" * 400 + b"\r\n"):
        got = got[-1000:] + sock.recv(1 << 20)


@pytest.mark.parametrize("then", ["close", "close without a word", "QUIT"])
async def test_who_saw_the_reply_inside_tls_is_not_remembered(tmp_path: Path, then: str) -> None:
    server, trust = contexts(tmp_path)
    watched = Watched()
    watched.go.set()
    async with serving(watched, unseen=watched.unseen, tls=server, secure=True) as door:
        async with talking(door, trust) as client:
            await begun(watched, client)
            assert (await client.reply()).startswith("250-")
            match then:
                case "QUIT":
                    await client.ask(b"QUIT")
                case "close without a word":
                    # Many programs end TLS like this, without its close_notify.
                    client.writer.transport.abort()
        await door.deserted()
        assert watched.remembered() is None


@pytest.mark.parametrize("how", ["reset", "close without a word"])
async def test_who_went_before_the_reply_inside_tls_is_remembered(tmp_path: Path, how: str) -> None:
    server, trust = contexts(tmp_path)
    watched = Watched()
    async with serving(watched, unseen=watched.unseen, tls=server, secure=True) as door:
        async with talking(door, trust) as client:
            await begun(watched, client)
            if how == "reset":
                reset(client)
            else:
                client.writer.transport.abort()
            await eventually(lambda: watched.remembered() is False, "it is noted as under way")
            watched.go.set()
        await door.deserted()
        assert watched.remembered() is True


async def test_without_a_memory_connections_end_as_they_do() -> None:
    watched = Watched()
    async with serving(watched) as door, talking(door) as client:
        await begun(watched, client, b"QUIT\r\n")
        leave(client, "reset")
        watched.go.set()
        await door.deserted()
        assert watched.unseen.empty
