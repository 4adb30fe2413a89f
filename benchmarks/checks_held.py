"""How long one message holds the event loop: a ticker runs beside the checks.

Laws: the loop is the gateway's, set up as a worker sets itself up. A hold is what a
tick came late by, and no more than the CPU time that this process used meanwhile, threads
included: that others worked on the machine does not count, that a thread of ours kept
the interpreter does.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import checks_world
import uvloop
from checks_cost import message
from checks_world import FOUR, HEADER, HOSTNAME, SIGNED
from processes import Failed

import signers
from mailgw.checks.runner import runner_of
from mailgw.config.sections.checks import CheckSettings
from mailgw.config.sections.document import Extract
from mailgw.document.build import Builder
from mailgw.intake import Examination, Intake
from mailgw.outlets.null import Null
from mailgw.outlets.router import Queues
from mailgw.process.machine import ready_for_load
from nameserver import NameServer

SIZES = {"10 KB": 10_000, "1 MB": 1_000_000, "20 MB": 20_000_000}
_TICK = 0.001
# Of the gateway by default: larger messages are read from a file.
_SPOOL_MEMORY = 1_000_000
# A body hash that fits no body: the header is signed rightly, so all of the body is hashed.
_NO_BODY = {"bh": "AAAA"}
_LARGE_KEY, _LARGE_KEY_NAME = 4096, "large._domainkey.sender.test"

Work = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Held:
    """The longest hold in milliseconds, each round: of the checks, and of all of the intake."""

    shape: str
    size: str
    checks: tuple[float, ...]
    intake: tuple[float, ...]

    @property
    def usual(self) -> float:
        return max(median(self.checks), median(self.intake))

    @property
    def worst(self) -> float:
        return max(*self.checks, *self.intake)


def measure(sizes: Sequence[str], rounds: int) -> Iterator[Held]:
    """Every shape in each of these sizes; the first is a loop with nothing to do."""
    key = {_LARGE_KEY_NAME: signers.rsa_signer(_LARGE_KEY).record}
    with checks_world.name_server(key) as server:
        loop = uvloop.new_event_loop()
        try:
            house = loop.run_until_complete(_build(server))
            for size in sizes:
                idle = loop.run_until_complete(_hold(lambda: asyncio.sleep(0.2)))
                yield Held("nothing", size, (idle,), (idle,))
                for shape, make in SHAPES.items():
                    content = make(SIZES[size])
                    yield loop.run_until_complete(_measure(house, shape, size, content, rounds))
        finally:
            loop.close()


async def _build(server: NameServer) -> Intake:
    runner = runner_of(CheckSettings(check=FOUR), checks_world.resolver(server), HOSTNAME)
    intake = Intake(
        Builder(HOSTNAME, Extract(), results=("local", "nonlocal")),
        Queues("inbox"),
        Null(),
        examination=Examination(runner, CheckSettings(check=FOUR), 30.0),
    )
    known = checks_world.signed_mail(10_000)
    if not checks_world.passes((await runner.run(message(known), known)).findings):
        raise Failed("the mail does not pass")
    # What is asked for the first time loads a library or waits for the DNS.
    large = signers.signature(HEADER, _by_large_key(), signers.rsa_signer(_LARGE_KEY)) + HEADER
    await runner.run(message(large), large)
    ready_for_load()
    return intake


async def _measure(house: Intake, shape: str, size: str, content: bytes, rounds: int) -> Held:
    if house.examination is None:
        raise Failed("nothing is checked")
    runner, checks, intake = house.examination.runner, [], []
    for _ in range(rounds):
        whole = message(content, _SPOOL_MEMORY)
        checks.append(await _hold(lambda whole=whole: runner.run(whole, content)))
        intake.append(await _hold(lambda whole=whole: house.message(whole)))
    return Held(shape, size, tuple(checks), tuple(intake))


async def _hold(work: Work) -> float:
    """The longest hold while the work is done, in milliseconds."""
    ticker = _Ticker()
    ticking = asyncio.create_task(ticker.run())
    await asyncio.sleep(2 * _TICK)
    await work()
    # What was held at last is seen by the tick after it.
    await asyncio.sleep(5 * _TICK)
    ticking.cancel()
    return ticker.longest * 1e3


class _Ticker:
    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        while True:
            wall, cpu = time.perf_counter(), time.process_time()
            await asyncio.sleep(_TICK)
            late = time.perf_counter() - wall - _TICK
            self.longest = max(self.longest, min(late, time.process_time() - cpu))


# --- shapes ---------------------------------------------------------------------------


def _signed(body: bytes, more: bytes = b"") -> bytes:
    """One signature and one ARC set, and `more` fields on top that nobody signed."""
    content = signers.signature(HEADER, {"h": SIGNED, **_NO_BODY}) + HEADER
    return more + signers.chain(content, 1, extra=_NO_BODY) + body


def _ten(body: bytes) -> bytes:
    """Ten signatures in both forms, over as many lengths of the body as there can be."""
    fields = [
        signers.signature(HEADER, {"h": SIGNED, "c": form, "l": str(n * 997), **_NO_BODY})
        for n, form in enumerate(["relaxed/relaxed", "relaxed/simple"] * 5, 1)
    ]
    return b"".join(fields) + HEADER + body


def _ten_large_keys(body: bytes) -> bytes:
    signer = signers.rsa_signer(_LARGE_KEY)
    return signers.signature(HEADER, _by_large_key(), signer) * 10 + HEADER + body


def _by_large_key() -> dict[str, str]:
    return {"h": SIGNED, "s": _LARGE_KEY_NAME.partition(".")[0], **_NO_BODY}


def _filled(piece: bytes, size: int) -> bytes:
    return piece * (size // len(piece))


SHAPES: dict[str, Callable[[int], bytes]] = {
    "random": lambda size: _signed(random.Random(1).randbytes(size)),
    "text": lambda size: _signed(_filled(b"words and more words, as in any mail\r\n", size)),
    "blanks": lambda size: _signed(b" " * size),
    "lines of blanks": lambda size: _signed(_filled(b" \t" * 499 + b"\r\n", size)),
    "one line": lambda size: _signed(b"x" * size),
    "empty lines": lambda size: _signed(_filled(b"\r\n", size)),
    "short lines": lambda size: _signed(_filled(b"x\r\n", size)),
    "10 signatures": lambda size: _ten(_filled(b"words  and \t more \r\n", size)),
    "10 of RSA 4096": lambda size: _ten_large_keys(_filled(b"words \r\n", size)),
    "50 ARC sets": lambda size: signers.chain(HEADER, 50, extra=_NO_BODY) + b"x" * size,
    "header, one field": lambda size: _signed(b"x\r\n", b"X: " + b"y" * size + b"\r\n"),
    "header, folds": lambda size: _signed(b"x\r\n", b"X:" + b"\r\n y" * (size // 4) + b"\r\n"),
    "header, fields": lambda size: _signed(b"x\r\n", _filled(b"X-Y: z\r\n", size)),
    # Without an empty line and without a field; the intake looks for both.
    "no header": lambda size: b"x" * size,
    "no header, lines": lambda size: _filled(b"x\n", size),
    "From, many": lambda size: _signed(b"x\r\n", _filled(b"From: a@b.test\r\n", size)),
    "From, long": lambda size: _signed(b"x\r\n", b"From:" + b" a@b.test," * (size // 10) + b"\r\n"),
}
