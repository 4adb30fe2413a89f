"""A listener with decisions that a test chooses, and a client to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from mailgw.config.networks import NOWHERE, Networks
from mailgw.gate.door import Door as EverybodyMayEnter
from mailgw.mail.identifiers import Identifiers
from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Message, Recipient
from mailgw.mail.unseen import Unseen
from mailgw.smtp import events, reply
from mailgw.smtp.extensions import Rules
from mailgw.smtp.reply import Reply
from mailgw.wire.endpoint import bind
from mailgw.wire.house import Answer, House, Intake, Now
from mailgw.wire.house import Door as WhoMayEnter
from mailgw.wire.listener import Listener
from mailgw.wire.tls import server_context

PATIENCE = 15.0


class Welcome:
    """A gate that takes everybody; tests override what they are about."""

    def connected(self, _peer: Peer) -> Now[Reply]:
        return reply.banner("mx.ours.test")

    def hello(self, _peer: Peer) -> Now[Reply]:
        return reply.OK

    def credentials(self, _peer: Peer, _username: str, _password: str) -> Now[Reply]:
        return reply.AUTHENTICATED

    def sender(self, _peer: Peer, _event: events.MailFrom) -> Now[Reply]:
        return reply.SENDER_OK

    def recipient(self, _peer: Peer, event: events.RcptTo, _accepted: int) -> Now[Answer]:
        return Recipient(event.recipient)

    def data(self, _peer: Peer) -> Now[Reply]:
        return reply.START_DATA

    def courtesy(self, _peer: Peer, event: events.Courtesy) -> Now[Reply]:
        return event.usual

    def secured(self, _peer: Peer) -> None:
        pass

    def gone(self, _peer: Peer) -> None:
        pass


@dataclass
class Taken:
    """An intake that keeps what it is given, and says 250."""

    messages: list[tuple[Message, bytes]] = field(default_factory=list)

    def __call__(self, message: Message) -> Reply:
        self.messages.append((message, message.content.read()))
        message.content.close()
        return reply.queued("id1 for bob@ours.test")

    @property
    def contents(self) -> list[bytes]:
        return [content for _, content in self.messages]


@dataclass
class Door:
    """Where the test's clients knock, and what stands behind it."""

    port: int
    listener: Listener
    idle: asyncio.Event

    async def deserted(self) -> None:
        """Return when no client is left."""
        while not self.listener.idle:
            self.idle.clear()
            await asyncio.wait_for(self.idle.wait(), PATIENCE)


class Held(str):
    """A text that can be referred to weakly; an empty one says no more than any."""


@contextlib.asynccontextmanager
async def serving(
    intake: Intake,
    gate: Welcome | None = None,
    *,
    patience: float = 60,
    deadline: float = 60,
    spool_memory: int = 1_000_000,
    spool_directory: Path | None = None,
    tls: ssl.SSLContext | None = None,
    secure: bool = False,
    rules: Rules | None = None,
    auth_in_clear: Networks = NOWHERE,
    proxies: Networks = NOWHERE,
    entrance: WhoMayEnter | None = None,
    greeting_delay: float = 0,
    minimum_rate: int = 1000,
    unseen: Unseen | None = None,
    pause: float = 0.05,
) -> AsyncIterator[Door]:
    house = House(
        rules=rules or Rules("mx.ours.test", starttls=tls is not None, auth=True),
        door=entrance or EverybodyMayEnter(),
        gate=gate or Welcome(),
        intake=intake,
        identifiers=Identifiers("1"),
        patience=patience,
        deadline=deadline,
        spool_memory=spool_memory,
        spool_directory=spool_directory,
        tls=tls,
        proxies=proxies,
        greeting_delay=greeting_delay,
        minimum_rate=minimum_rate,
        auth_in_clear=auth_in_clear,
        unseen=unseen,
    )
    [endpoint] = bind(["127.0.0.1"], [] if secure else [0], [0] if secure else [])
    idle = asyncio.Event()
    listener = Listener(endpoint, house, on_idle=idle.set, pause=pause)
    listener.start()
    door = Door(endpoint.sock.getsockname()[1], listener, idle)
    try:
        yield door
    finally:
        if endpoint.sock.fileno() >= 0:  # the test may have stopped it
            listener.stop()
        for conversation in tuple(listener.conversations):
            conversation.cut()
        await door.deserted()
        listener.close()


class Talker:
    """A client. Replies come as text, lines joined by "\\n"; "" is the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> str:
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            line = await asyncio.wait_for(self.reader.readline(), PATIENCE)
            if not line:
                return ""
            lines.append(line.decode().removesuffix("\r\n"))
        return "\n".join(lines)

    async def ask(self, line: bytes) -> str:
        self.writer.write(line + b"\r\n")
        return await self.reply()

    async def begin(self) -> str:
        """All up to the 354, whose text is returned."""
        await self.reply()
        said = ""
        for line in (
            b"EHLO client.test",
            b"MAIL FROM:<joe@there.test>",
            b"RCPT TO:<bob@ours.test>",
            b"DATA",
        ):
            said = await self.ask(line)
        return said


@contextlib.asynccontextmanager
async def talking(door: Door, context: ssl.SSLContext | None = None) -> AsyncIterator[Talker]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1",
        door.port,
        ssl=context,
        server_hostname="localhost" if context is not None else None,
    )
    try:
        yield Talker(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server presents and what a client trusts."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    (folder / "chain.pem").write_bytes(chain)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server_context(folder / "chain.pem", folder / "key.pem", ""), client
