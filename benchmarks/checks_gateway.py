"""The whole gateway with checks, without them, and beside neighbours who are slow.

Laws: mail comes over SMTP and is safe in the embedded queue before it counts; every turn's
documents are counted there, and one is looked into. The slow ones are really slow: it is
counted how many of them were waiting.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import checks_world
from checks_cost import SIZE
from checks_world import FOUR, HOSTNAME
from processes import Failed
from reception import Letter, Shape, send
from samples import Case, Contender, Sample, compare
from servers import Server, mailgw

from nameserver import NameServer

T = TypeVar("T")

# smtp-source sends the letter, whatever the size says.
_SHAPE = Shape(SIZE, reused=True)
_SLOW_ZONE = b"\x04slow\x04test"
_SPAMD_ANSWER = b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; 0.0 / 5.0\r\nContent-length: 0\r\n\r\n"
_DELAY = 2.0
# A slow session sends at most one mail in so many seconds, also where nobody makes it wait.
_PACE = 2.0
# As many as smtp-source has sessions.
_SLOW_SESSIONS = 50
# Smaller than the fast mail, which therefore does not go to spamd, and larger than the slow.
_SPAMD_LARGEST = 5_000


@dataclass(frozen=True, slots=True)
class Beside:
    """Rates of the fast senders, alone and beside slow ones.

    `slow` mails were taken meanwhile, and one of them waited `longest` seconds.
    """

    title: str
    case: Case
    slow: int
    longest: float


@contextmanager
def letter() -> Iterator[Letter]:
    """The mail that passes all checks, as a file."""
    with tempfile.TemporaryDirectory(prefix="mailgw-bench-") as folder:
        yield checks_world.letter(Path(folder) / "letter", SIZE)


def measure(rounds: int, seconds: float) -> Case:
    """The gateway with all four checks, and with none, in turns."""
    with ExitStack() as stack:
        mail = stack.enter_context(letter())
        server = stack.enter_context(checks_world.name_server())
        contenders = []
        for name, checks in (("all four", FOUR), ("none", ())):
            gateway = stack.enter_context(_gateway(server.port, {"SMTP_CHECK": ",".join(checks)}))
            contenders.append(Contender(name, lambda n, g=gateway: g.turn(mail, n)))
            gateway.warm(mail, checks)
        return compare("10 KB, connections reused", contenders, rounds, seconds)


def beside(rounds: int, seconds: float) -> Iterator[Beside]:
    """The fast senders alone and beside slow ones, in turns, for each kind of slowness."""
    four = {"SMTP_CHECK": ",".join(FOUR)}
    five = {
        "SMTP_CHECK": ",".join((*FOUR, "spam")),
        "SPAMASSASSIN_MAXSIZE": str(_SPAMD_LARGEST),
        "SPAMASSASSIN_HOST": "127.0.0.1",
    }
    for title, delay in (("2 s late", _DELAY), ("silent", None)):
        with checks_world.name_server() as server, _background() as loop:
            port = loop.run(_relay(server, delay))
            with _gateway(port, four) as gateway:
                yield _measure_beside(f"DNS {title}", gateway, loop, "slow.test", rounds, seconds)
    for title, delay in (("2 s late", _DELAY), ("silent", None)):
        with checks_world.name_server() as server, _background() as loop:
            port = loop.run(_spamd(delay))
            with _gateway(server.port, five | {"SPAMASSASSIN_PORT": str(port)}) as gateway:
                yield _measure_beside(f"spamd {title}", gateway, loop, "mail.test", rounds, seconds)


def _measure_beside(
    title: str, gateway: Gateway, loop: Background, zone: str, rounds: int, seconds: float
) -> Beside:
    senders = _SlowSenders(gateway.server.port, zone)
    with letter() as mail:

        def beside_them(count: int) -> Sample:
            loop.run(senders.begin())
            try:
                return gateway.turn(mail, count, others=True)
            finally:
                loop.run(senders.end())

        gateway.warm(mail, FOUR)
        contenders = [
            Contender("alone", lambda n: gateway.turn(mail, n, others=True)),
            Contender("beside", beside_them),
        ]
        case = compare(title, contenders, rounds, seconds)
    if senders.longest < _DELAY:
        raise Failed(f"{title}: the slow mail was not slow, {senders.longest:.1f} s")
    return Beside(title, case, senders.taken, senders.longest)


# --- the gateway ----------------------------------------------------------------------


class Gateway:
    """One gateway with its embedded queue, whose documents are counted."""

    def __init__(self, server: Server, store: Path) -> None:
        self.server = server
        self._store = store
        self._sent = 0

    def warm(self, mail: Letter, checks: tuple[str, ...]) -> None:
        """Send one mail: its names are cached then, and every check passes it."""
        self.turn(mail, 1)
        with closing(self._read()) as reader:
            [body] = reader.execute("SELECT body FROM document").fetchone()
        found = [each for each in json.loads(body).get("checks", ()) if "spam" not in each]
        verdicts = {name: each.get(name) for each in found for name in FOUR if name in each}
        if verdicts != dict.fromkeys(checks, "pass"):
            raise Failed(f"not every check passes the mail: {found}")

    def turn(self, mail: Letter, count: int, *, others: bool = False) -> Sample:
        """Send so many; unless there are `others` who send, count what is in the queue."""
        sample = send(self.server, _SHAPE, count, letter=mail)
        self._sent += count
        with closing(self._read()) as reader:
            [there] = reader.execute("SELECT count(*) FROM document").fetchone()
        if there < self._sent or (there > self._sent and not others):
            raise Failed(f"{self._sent} mails were confirmed and {there} are in the queue")
        return sample

    def _read(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self._store}?mode=ro", uri=True)


@contextmanager
def _gateway(dns_port: int, keys: dict[str, str]) -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory(prefix="mailgw-bench-") as folder:
        store = Path(folder) / "queue.sqlite"
        environ = {
            "RABBITMQ_ADDRESS": "",
            "QUEUE_STORE": str(store),
            "HOSTNAME": HOSTNAME,
            "DNS_SERVER": f"127.0.0.1:{dns_port}",
            **keys,
        }
        with mailgw({f"MAILGW_{name}": text for name, text in environ.items()}) as server:
            yield Gateway(server, store)


# --- who is slow ----------------------------------------------------------------------


class Background:
    """An event loop in a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def run(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@contextmanager
def _background() -> Iterator[Background]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Background(loop)
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _relay(server: NameServer, delay: float | None) -> int:
    """A name server that answers as `server`, about slow.test so much later, or never."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Relay(("127.0.0.1", server.port), delay), ("127.0.0.1", 0)
    )
    return transport.get_extra_info("sockname")[1]


class _Relay(asyncio.DatagramProtocol):
    """Questions go on to the server, and its answers back to who has asked."""

    def __init__(self, server: tuple[str, int], delay: float | None) -> None:
        self._server = server
        self._delay = delay
        # By the number of the question, which c-ares chooses at random.
        self._asked: dict[bytes, tuple[str, int]] = {}

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if address == self._server:
            self._answer(data)
        elif _SLOW_ZONE not in data.lower() or self._delay is not None:
            self._asked[data[:2]] = address
            self._transport.sendto(data, self._server)

    def _answer(self, data: bytes) -> None:
        client = self._asked.pop(data[:2], None)
        if client is None:
            return
        loop, late = asyncio.get_running_loop(), self._delay or 0.0
        loop.call_later(
            late if _SLOW_ZONE in data.lower() else 0.0, self._transport.sendto, data, client
        )


async def _spamd(delay: float | None) -> int:
    """Something that takes questions as spamd does, and answers so much later, or never."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled at the end of the block; its stream would complain of that.
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.sleep(3600 if delay is None else delay)
            writer.write(_SPAMD_ANSWER)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server.sockets[0].getsockname()[1]


class _SlowSenders:
    """Sessions that send one small mail after the other, each from a new name of a zone."""

    def __init__(self, port: int, zone: str) -> None:
        self._port = port
        self._zone = zone
        self._number = 0
        self._ending = asyncio.Event()
        self._waiting = 0
        self._all_wait = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.taken = 0
        self.longest = 0.0

    async def begin(self) -> None:
        """Return when all of them have sent a mail and wait for its reply."""
        self._ending.clear()
        self._all_wait.clear()
        self._tasks = [asyncio.create_task(self._send_on()) for _ in range(_SLOW_SESSIONS)]
        await asyncio.wait_for(self._all_wait.wait(), 30)

    async def end(self) -> None:
        """Return when what was sent is answered."""
        self._ending.set()
        await asyncio.gather(*self._tasks)

    async def _send_on(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        await _reply(reader)
        await _ask(reader, writer, b"EHLO mx.sender.test\r\n")
        while not self._ending.is_set():
            self._number += 1
            name = f"n{self._number}.{self._zone}".encode()
            await _ask(reader, writer, b"MAIL FROM:<joe@%s>\r\n" % name)
            await _ask(reader, writer, b"RCPT TO:<bob@ours.test>\r\n")
            await _ask(reader, writer, b"DATA\r\n")
            self._waiting += 1
            if self._waiting == _SLOW_SESSIONS:
                self._all_wait.set()
            began = time.monotonic()
            await _ask(reader, writer, b"From: joe@%s\r\n\r\nhello\r\n.\r\n" % name)
            self._waiting -= 1
            self.taken += 1
            self.longest = max(self.longest, time.monotonic() - began)
            pause = began + _PACE - time.monotonic()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), max(0.0, pause))
        writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line)
    await _reply(reader)


async def _reply(reader: asyncio.StreamReader) -> None:
    """The whole reply; Failed unless it is positive."""
    while (line := await reader.readline())[3:4] == b"-":
        pass
    if line[:1] not in (b"2", b"3"):
        raise Failed(f"a slow sender was told {line!r}")
