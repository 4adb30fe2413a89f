"""One mail through the real house, without a socket and without publishing.

The conversation with its session, the gate, the checks and the intake are those that
serve; what is missing is the network in front of them and the queue behind. So what a
rehearsal says of a mail is what the gateway would do with it. Nobody hears of it but the
DNS, spamd, and whoever else is asked to decide.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Message, Recipient
from mailgw.smtp.events import Courtesy, MailFrom, RcptTo
from mailgw.smtp.reply import Refusal, Reply
from mailgw.wire.conversation import Conversation
from mailgw.wire.house import Answer, Gate, House, Now
from mailgw.wire.transport import Link

A = TypeVar("A", bound=Answer)

_BARE_LF = re.compile(rb"(?<!\r)\n")
_DOT = re.compile(rb"^\.", re.MULTILINE)
# A reply ends with the line that has a blank behind its code (RFC 5321 4.2.1).
_LAST_LINE = re.compile(rb"(?m)^\d\d\d[ \r][^\n]*\n\Z")
# How often deadlines are looked at, as the listener does.
_SWEEP = 1.0


@dataclass(frozen=True, slots=True)
class Mail:
    """Who sends what; `reverse_path` is "" for the null sender.

    `content` is a message as it stands in a file: lines may end with LF alone.
    """

    peer: Peer
    helo: str
    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the client did, and what it heard, "" where the connection just ended.

    `rule` is the key that the reply follows from, "" where none is named. `recipient` is
    set where one was accepted.
    """

    step: str
    command: str
    reply: str
    rule: str
    milliseconds: float
    recipient: Recipient | None = None

    @property
    def positive(self) -> bool:
        return self.reply[:1] in ("2", "3")


async def rehearse(house: House, mail: Mail) -> list[Exchange]:
    """Send the mail, and give the dialogue in its order; the last is where it ended."""
    began = time.perf_counter()
    refusal = house.door.enter(mail.peer) if house.door.reserve(lambda: None) else None
    if refusal is not None:
        said = "" if mail.peer.secure else _text(refusal.wire)
        return [Exchange("connect", "", said, refusal.rule, _since(began))]
    noting = _Noting(house.gate)
    intake = house.intake

    def taken(message: Message) -> Now[Reply]:
        return noting.noted(intake(message))

    # The wait before the banner tells nothing about a mail.
    watched = replace(house, gate=noting, intake=taken, greeting_delay=0.0)
    async with _client(watched, mail.peer) as client:
        return [exchange async for exchange in _dialogue(client, noting, mail)]


async def _dialogue(client: _Client, noting: _Noting, mail: Mail) -> AsyncIterator[Exchange]:
    """Yield each exchange; none after one that leaves nothing to do."""

    async def ask(step: str, command: str = "", octets: bytes | None = None) -> Exchange:
        noting.rule, noting.accepted = "", None
        began = time.perf_counter()
        said = await client.ask(f"{command}\r\n".encode() if octets is None else octets)
        return Exchange(step, command, said, noting.rule, _since(began), noting.accepted)

    utf8 = not all(text.isascii() for text in (mail.reverse_path, *mail.recipients))
    content = _BARE_LF.sub(b"\r\n", mail.content)
    parameters = f" SIZE={len(content)}"
    parameters += " SMTPUTF8" if utf8 else "" if content.isascii() else " BODY=8BITMIME"
    for step, command, octets in (
        ("connect", "", b""),
        ("hello", f"EHLO {mail.helo}", None),
        ("mail", f"MAIL FROM:<{mail.reverse_path}>{parameters}", None),
    ):
        exchange = await ask(step, command, octets)
        yield exchange
        if not exchange.positive:
            return
    accepted = False
    for recipient in mail.recipients:
        exchange = await ask("rcpt", f"RCPT TO:<{recipient}>")
        yield exchange
        accepted = accepted or exchange.positive
    if not accepted:
        return
    exchange = await ask("data", "DATA")
    yield exchange
    if exchange.positive:
        end = b".\r\n" if content.endswith(b"\r\n") or not content else b"\r\n.\r\n"
        yield await ask("message", "", _DOT.sub(b"..", content) + end)


class _Paper(asyncio.Transport):
    """What is written to it is read here, and nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.changed = asyncio.Event()
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        self.changed.set()

    def close(self) -> None:
        self._closed = True
        self.changed.set()

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closed

    def is_reading(self) -> bool:
        return True

    def pause_reading(self) -> None:
        """Nothing comes by itself: the client waits for each reply."""

    def resume_reading(self) -> None:
        """See pause_reading."""

    def get_write_buffer_size(self) -> int:
        return 0


class _Client:
    def __init__(self, link: Link, paper: _Paper) -> None:
        self._link = link
        self._paper = paper

    async def ask(self, octets: bytes) -> str:
        """Send, and give the reply without its last line end; "" where none comes any more."""
        if octets:
            self._link.data_received(octets)
        paper = self._paper
        while not _LAST_LINE.search(paper.written) and not paper.is_closing():
            paper.changed.clear()
            await paper.changed.wait()
        said, paper.written = bytes(paper.written), bytearray()
        return _text(said)


@asynccontextmanager
async def _client(house: House, peer: Peer) -> AsyncIterator[_Client]:
    link, paper = Link(), _Paper()
    conversation = Conversation(link, peer, house, secure=peer.secure, done=lambda _: None)
    sweep = asyncio.create_task(_sweep(conversation))
    try:
        link.connection_made(paper)
        yield _Client(link, paper)
    finally:
        sweep.cancel()
        link.connection_lost(None)


async def _sweep(conversation: Conversation) -> None:
    while True:
        await asyncio.sleep(_SWEEP)
        conversation.check_deadline(asyncio.get_running_loop().time())


class _Noting:
    """Asks the gate, and keeps what its last answer followed from."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.rule = ""
        self.accepted: Recipient | None = None

    def connected(self, peer: Peer) -> Now[Reply]:
        return self.noted(self._gate.connected(peer))

    def hello(self, peer: Peer) -> Now[Reply]:
        return self.noted(self._gate.hello(peer))

    def credentials(self, peer: Peer, username: str, password: str) -> Now[Reply]:
        return self.noted(self._gate.credentials(peer, username, password))

    def sender(self, peer: Peer, event: MailFrom) -> Now[Reply]:
        return self.noted(self._gate.sender(peer, event))

    def recipient(self, peer: Peer, event: RcptTo, accepted: int) -> Now[Answer]:
        return self.noted(self._gate.recipient(peer, event, accepted))

    def data(self, peer: Peer) -> Now[Reply]:
        return self.noted(self._gate.data(peer))

    def courtesy(self, peer: Peer, event: Courtesy) -> Now[Reply]:
        return self._gate.courtesy(peer, event)

    def secured(self, peer: Peer) -> None:
        self._gate.secured(peer)

    def gone(self, peer: Peer) -> None:
        self._gate.gone(peer)

    async def close(self) -> None:
        await self._gate.close()

    def noted(self, answer: Now[A]) -> Now[A]:
        """The same answer, which is looked at as soon as it is there."""
        if isinstance(answer, Reply):
            self.rule = answer.rule
        elif isinstance(answer, Recipient):
            self.accepted = answer
        else:
            return self._later(answer)
        return answer

    async def _later(self, waiting: Awaitable[A]) -> A:
        try:
            answer = await waiting
        except Refusal as refusal:
            self.rule = refusal.reply.rule
            raise
        self.noted(answer)
        return answer


def _text(wire: bytes) -> str:
    return wire.decode("utf-8", "replace").rstrip("\r\n").replace("\r\n", "\n")


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
