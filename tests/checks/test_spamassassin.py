"""Spam: a real spamd, and servers that are none."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles import Clock
from mailgw.checks.spamassassin import SpamAssassin
from mailgw.mail.finding import Finding
from parts import needs
from rabbitmq import eventually
from spamd import Spamd

T = TypeVar("T")

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


def mail(text: str) -> bytes:
    lines = [
        "Received: from client.example.net (client.example.net [192.0.2.7])",
        "\tby mx.example.org with ESMTP; Sat, 21 Nov 2026 03:00:00 +0000",
        "Date: Sat, 21 Nov 2026 03:00:00 +0000",
        "From: Anna <anna@example.net>",
        "To: Bob <bob@example.org>",
        "Message-ID: <1@example.net>",
        "Subject: Minutes of the meeting",
        "",
        "Dear Bob, here is what we agreed on yesterday.",
        text,
        "",
    ]
    return "\r\n".join(lines).encode()


PLAIN = mail("Until soon, Anna")
SPAM = mail(GTUBE)

Behaviour = Callable[["Stranger", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Stranger:
    """A server in the place of spamd. `behave` is what it does with a connection."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.port = 0
        self.connections = 0
        self.most_at_once = 0
        self.requests: list[bytes] = []
        self.may_go_on = asyncio.Event()
        self.left = asyncio.Event()
        self.sent = 0
        self.received = 0
        self._at_once = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self.behave(self, reader, writer)
        except OSError:
            self.left.set()
        finally:
            self._at_once -= 1
            writer.transport.abort()


@asynccontextmanager
async def serving(behave: Behaviour) -> AsyncIterator[Stranger]:
    stranger = Stranger(behave)
    server = await asyncio.start_server(stranger.serve, "127.0.0.1", 0)
    stranger.port = server.sockets[0].getsockname()[1]
    try:
        yield stranger
    finally:
        stranger.may_go_on.set()
        server.close()


def says(answer: bytes) -> Behaviour:
    """One that reads the request and gives this answer."""

    async def behave(
        stranger: Stranger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        stranger.requests.append(await reader.read(-1))
        writer.write(answer)
        await writer.drain()
        writer.write_eof()
        await reader.read(-1)

    return behave


def answer(
    spam: str = "False ; 1.2 / 5.0", symbols: bytes = b"A_RULE,ANOTHER", status: str = "0 EX_OK"
) -> bytes:
    head = f"SPAMD/1.1 {status}\r\nContent-length: {len(symbols)}\r\nSpam: {spam}\r\n\r\n"
    return head.encode() + symbols


async def hang(
    stranger: Stranger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await stranger.may_go_on.wait()


async def hang_after_half(
    stranger: Stranger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    writer.write(answer()[:40])
    await stranger.may_go_on.wait()


async def read_and_hang(
    stranger: Stranger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await reader.read(-1)
    await stranger.may_go_on.wait()


async def close_at_once(
    stranger: Stranger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    return


async def reset(
    stranger: Stranger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await reader.readline()
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def flood(
    stranger: Stranger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await reader.read(-1)
    writer.write(answer()[:-20] + b"Spam: ")
    while stranger.sent < 100_000_000:
        writer.write(b"x" * 50_000)
        await writer.drain()
        stranger.sent += 50_000


async def trickle(
    stranger: Stranger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await reader.read(-1)
    while True:
        writer.write(b"S")
        await writer.drain()
        await asyncio.sleep(0.005)


def without_time(found: Finding) -> Finding:
    return replace(found, milliseconds=0.0)


@pytest.fixture(params=["tcp", "unix"])
def real(request: pytest.FixtureRequest, spamd: Spamd) -> SpamAssassin:
    """One that asks the real spamd, over TCP and over its unix socket."""
    if request.param == "tcp":
        return SpamAssassin("127.0.0.1", spamd.port)
    return SpamAssassin(str(spamd.path))


@needs("spamd")
async def test_gtube_is_spam(real: SpamAssassin) -> None:
    found = await real.check(SPAM)

    members = dict(found.members)
    assert (found.check, found.verdict, found.reason) == ("spam", "fail", "")
    assert found.score is not None
    assert found.score >= 1000
    assert list(members) == ["score", "required-score", "symbols"]
    assert (members["score"], members["required-score"]) == (found.score, 5.0)
    assert "GTUBE" in members["symbols"]  # type: ignore[operator]  # a list of names
    assert found.properties == (
        ("policy.score", f"{found.score:.1f}"),
        ("policy.required-score", "5.0"),
    )
    assert found.milliseconds > 0


@needs("spamd")
async def test_a_plain_mail_is_none(real: SpamAssassin) -> None:
    found = await real.check(PLAIN)

    assert found.verdict == "pass"
    assert found.score is not None
    assert found.score < 5
    assert "GTUBE" not in dict(found.members)["symbols"]  # type: ignore[operator]  # a list of names


@needs("spamd")
@pytest.mark.parametrize(
    "content",
    [b"", b"\0\xff\r\n\r\n\x80", b"no header\n", b"Subject: " + b"x" * 100_000, b"\r\n" * 1000],
    ids=["nothing", "octets", "no header", "a long line", "empty lines"],
)
async def test_any_octets_have_a_verdict(real: SpamAssassin, content: bytes) -> None:
    found = await real.check(content)

    assert found.verdict in ("pass", "fail")


@needs("spamd")
async def test_the_largest_message_that_is_sent(real: SpamAssassin) -> None:
    content = PLAIN + b"x" * 70 + b"\r\n"
    largest = content.ljust(500_000, b"\n")

    found = await real.check(largest)
    beyond = await real.check(largest + b"\n")

    assert found.verdict == "pass"
    assert without_time(beyond) == Finding("spam", "none", reason="too large for spamd")


@needs("spamd")
async def test_many_messages_at_once_have_their_own_verdicts(real: SpamAssassin) -> None:
    found = await asyncio.gather(*(real.check(SPAM if n % 3 else PLAIN) for n in range(40)))

    assert [each.verdict for each in found] == ["fail" if n % 3 else "pass" for n in range(40)]


@needs("spamd")
async def test_a_spamd_that_was_killed_is_missed_until_it_is_back(
    real: SpamAssassin, spamd: Spamd
) -> None:
    before = await real.check(PLAIN)

    spamd.kill()
    try:
        away = [await real.check(PLAIN) for _ in range(10)]
    finally:
        spamd.start()
    after = await real.check(SPAM)

    assert before.verdict == "pass"
    assert {without_time(each) for each in away} == {
        Finding("spam", "temperror", reason="spamd cannot be asked: Connection refused")
    }
    assert after.verdict == "fail"


@needs("spamd")
async def test_a_frozen_spamd_costs_no_more_than_the_time_limit(spamd: Spamd) -> None:
    check = SpamAssassin("127.0.0.1", spamd.port, patience=0.5)
    began = time.monotonic()

    spamd.freeze()
    try:
        frozen = await check.check(PLAIN)
        took = time.monotonic() - began
    finally:
        spamd.thaw()
    # What it took in while it was frozen is answered first.
    thawed = await SpamAssassin("127.0.0.1", spamd.port).check(PLAIN)

    assert (frozen.verdict, frozen.reason) == ("temperror", "spamd took too long")
    assert 0.5 <= took < 5
    assert thawed.verdict == "pass"


async def test_p1_no_tls_context_is_made_for_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_expensive(*_: object, **__: object) -> ssl.SSLContext:
        raise AssertionError("a TLS context for a plain connection")

    monkeypatch.setattr(ssl, "create_default_context", too_expensive)
    monkeypatch.setattr(ssl, "SSLContext", too_expensive)
    async with serving(says(answer())) as stranger:
        check = SpamAssassin("127.0.0.1", stranger.port)
        await check.check(PLAIN)
        began = time.process_time()
        found = [await check.check(PLAIN) for _ in range(50)]
        each = (time.process_time() - began) / 50

    assert {one.verdict for one in found} == {"pass"}
    # Two contexts are 50 ms; this is the server's work too.
    assert each < 0.015


UNREADABLE = "the answer of spamd cannot be read"
# What a server in the place of spamd does, what it is sent, and the reason for the temperror.
STRANGERS: dict[str, tuple[Behaviour, bytes, set[str]]] = {
    "hangs": (hang, PLAIN, {"spamd took too long"}),
    "hangs and reads nothing": (hang, PLAIN.ljust(450_000), {"spamd took too long"}),
    "hangs after reading": (read_and_hang, PLAIN, {"spamd took too long"}),
    "hangs in its answer": (hang_after_half, PLAIN, {"spamd took too long"}),
    "trickles": (trickle, PLAIN, {"spamd took too long"}),
    "resets": (
        reset,
        PLAIN.ljust(450_000),
        {"spamd cannot be asked: Connection reset by peer", "spamd cannot be asked: Broken pipe"}
        | {"spamd cannot be asked: no connection"},
    ),
    "closes after reading": (says(b""), PLAIN, {"spamd answered nothing"}),
    "floods": (flood, PLAIN, {"spamd answered more than it ever does"}),
    "an endless line": (says(b"x" * 16_385), PLAIN, {"spamd answered more than it ever does"}),
    "endless lines": (
        says(b"SPAMD/1.1 0 EX_OK\r\n" + b"a: b\r\n" * 1000),
        PLAIN,
        {"spamd answered more lines than it ever does"},
    ),
    "rubbish": (says(b"\xff\0rubbish"), PLAIN, {UNREADABLE}),
    "http": (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), PLAIN, {UNREADABLE}),
    "smtp": (says(b"220 mx.example.org ESMTP\r\n"), PLAIN, {UNREADABLE}),
    "a name that is no ascii": (says(b"SPAMD/1.1 0 EX_OK\r\n\xe4: 1\r\n\r\n"), PLAIN, {UNREADABLE}),
    "cut short": (says(answer()[:-3]), PLAIN, {UNREADABLE}),
    "more than it said": (says(answer() + b"x"), PLAIN, {UNREADABLE}),
    "no score": (
        says(b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\n\r\n"),
        PLAIN,
        {"spamd answered without a score"},
    ),
    "a score like none": (says(answer("True ; much / 5.0")), PLAIN, {UNREADABLE}),
    **{
        f"score {score}": (
            says(answer(f"True ; {score}")),
            PLAIN,
            {"spamd answered with a score that is none"},
        )
        for score in ("nan / 5.0", "1e400 / 5.0", "-inf / 5.0", "9.0 / nan", "1e300 / 5.0")
    },
    **{
        f"status {code}": (says(answer(status=f"{code} EX_X")), PLAIN, {f"spamd answered {code}"})
        for code in (64, 70, 75, 79, 99)
    },
    "a status out of all bounds": (
        says(answer(status="9" * 4000 + " EX_X")),
        PLAIN,
        {"spamd answered an unknown code"},
    ),
}

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("stranger", STRANGERS)
def test_p2_whatever_a_server_does_is_a_temperror_in_time(stranger: str, loop: str) -> None:
    behave, content, reasons = STRANGERS[stranger]

    async def ask() -> tuple[Finding, Stranger]:
        async with serving(behave) as server:
            return await SpamAssassin("127.0.0.1", server.port, patience=0.5).check(content), server

    found, server = run_on(loop, ask())

    assert found.reason in reasons
    assert without_time(found) == Finding("spam", "temperror", reason=found.reason)
    assert found.milliseconds < 5000
    # The rest of a flood found nobody who read it; that much the kernel may hold.
    assert server.sent < 20_000_000


@pytest.mark.parametrize("loop", LOOPS)
def test_p2_a_connection_closed_at_once_is_a_temperror(loop: str) -> None:
    """At which point it is noticed is the kernel's to say, again and again another."""

    async def ask() -> list[Finding]:
        async with serving(close_at_once) as server:
            check = SpamAssassin("127.0.0.1", server.port, patience=5)
            return [await check.check(PLAIN * n) for n in (1, 10, 100, 1000) for _ in range(10)]

    found = run_on(loop, ask())

    assert {each.verdict for each in found} == {"temperror"}
    assert all(each.reason.startswith("spamd ") for each in found)


@pytest.mark.parametrize("loop", LOOPS)
def test_p2_a_connection_reset_before_we_write_is_a_temperror(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_connection = asyncio.open_connection

    async def opened_and_reset(
        *place: object, **options: object
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await open_connection(*place, **options)  # type: ignore[arg-type]  # handed on as they came
        await eventually(writer.is_closing, "the reset is noticed")
        return reader, writer

    async def reset_at_once(
        stranger: Stranger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def ask() -> Finding:
        async with serving(reset_at_once) as server:
            monkeypatch.setattr(asyncio, "open_connection", opened_and_reset)
            return await SpamAssassin("127.0.0.1", server.port).check(PLAIN)

    found = run_on(loop, ask())

    assert found.reason == "spamd cannot be asked: Connection reset by peer"


@pytest.mark.parametrize("loop", LOOPS)
def test_p2_a_spamd_that_is_not_there_is_a_temperror(loop: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "file").touch()
    places = {
        ("127.0.0.1", port): "spamd cannot be asked: Connection refused",
        (str(tmp_path / "nothing"), 0): "spamd cannot be asked: No such file or directory",
        (str(tmp_path / "file"), 0): "spamd cannot be asked: Connection refused",
        ("127.0.0.1.invalid.", port): "the name of spamd's host has no address",
    }

    async def ask() -> dict[tuple[str, int], str]:
        return {place: (await SpamAssassin(*place).check(PLAIN)).reason for place in places}

    assert run_on(loop, ask()) == places


async def test_p3_the_socket_is_closed_when_time_is_up() -> None:
    async with serving(trickle) as stranger:
        check = SpamAssassin("127.0.0.1", stranger.port, patience=0.1)
        # What only the garbage collector would close stays open.
        gc.disable()
        try:
            found = await check.check(PLAIN)
            await eventually(stranger.left.is_set, "the server sees that we are gone")
        finally:
            gc.enable()

    assert found.reason == "spamd took too long"


async def test_p3_a_message_is_not_sent_on_when_time_is_up() -> None:
    async def read_late(
        stranger: Stranger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await stranger.may_go_on.wait()
        try:
            while data := await reader.read(65_536):
                stranger.received += len(data)
        finally:
            stranger.left.set()

    content = bytes(30_000_000)
    async with serving(read_late) as stranger:
        check = SpamAssassin("127.0.0.1", stranger.port, patience=0.2, largest=len(content))
        found = await check.check(content)
        stranger.may_go_on.set()
        await eventually(stranger.left.is_set, "the server has read all there was")

    assert found.reason == "spamd took too long"
    # What the kernel had of it, and not what we held.
    assert stranger.received < len(content)


async def test_p3_the_socket_is_closed_when_the_caller_gives_up() -> None:
    async with serving(trickle) as stranger:
        asking = asyncio.create_task(SpamAssassin("127.0.0.1", stranger.port).check(PLAIN))
        await eventually(lambda: stranger.connections == 1, "it is asked")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await eventually(stranger.left.is_set, "the server sees that we are gone")


async def test_p4_one_question_brings_score_threshold_and_symbols() -> None:
    async with serving(says(answer("True ; 7.4 / 6.5", b"GTUBE,NO_RELAYS"))) as stranger:
        found = await SpamAssassin("127.0.0.1", stranger.port).check(PLAIN)

    head, _, body = stranger.requests[0].partition(b"\r\n\r\n")
    assert stranger.connections == 1
    assert head.split(b"\r\n") == [b"SYMBOLS SPAMC/1.5", b"Content-length: %d" % len(PLAIN)]
    assert body == PLAIN
    assert without_time(found) == Finding(
        "spam",
        "fail",
        properties=(("policy.score", "7.4"), ("policy.required-score", "6.5")),
        members=(
            ("score", 7.4),
            ("required-score", 6.5),
            ("symbols", ("GTUBE", "NO_RELAYS")),
        ),
        score=7.4,
    )


QUIET = """
import asyncio, sys
import loguru
before = repr(loguru.logger)
import mailgw.checks.spamassassin as room
from mailgw.observe import log
assert repr(loguru.logger) == before, loguru.logger
log.to_stderr()
async def main():
    for port in sys.argv[1:]:
        found = await room.SpamAssassin("127.0.0.1", int(port), patience=0.3).check(
            b"Subject: the secret\\r\\n\\r\\nof the message\\r\\n")
        print(found.verdict)
asyncio.run(main())
"""


async def test_p5_neither_library_nor_we_write_anything_of_a_message() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        refused = free.getsockname()[1]
    kinds = [says(answer()), hang, says(b"the secret of spamd"), says(answer(status="75 secret"))]
    async with AsyncExitStack() as stack:
        strangers = [await stack.enter_async_context(serving(kind)) for kind in kinds]
        ports = [*(str(stranger.port) for stranger in strangers), str(refused)]
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", QUIET, *ports,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        printed, written = await asyncio.wait_for(program.communicate(), 60)

    lines = [line.split(" ", 2)[1:] for line in written.decode().splitlines()]
    assert printed.decode().split() == ["pass", *["temperror"] * 4]
    assert lines == [
        ["warning", 'spamd.away reason="spamd took too long"'],
        ["warning", f'spamd.away reason="{UNREADABLE}"'],
        ["warning", 'spamd.away reason="spamd answered 75"'],
        ["warning", 'spamd.away reason="spamd cannot be asked: Connection refused"'],
    ]


NAMELESS = """
import os, pwd
def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
import mailgw.checks.spamassassin
assert "LOGNAME" not in os.environ
"""


def test_a_user_without_a_name_can_ask() -> None:
    names = ("LOGNAME", "USER", "LNAME", "USERNAME")
    environment = {name: value for name, value in os.environ.items() if name not in names}

    done = subprocess.run(
        [sys.executable, "-c", NAMELESS], env=environment, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("written", "symbols"),
    [
        (b"", ()),
        (b"ONE", ("ONE",)),
        (b"ONE,TWO\r\n", ("ONE", "TWO")),
        (b"ONE,\r\n\tTWO,\r\n THREE\r\n", ("ONE", "TWO", "THREE")),
        (b"ONE,\x1b[2J,T\0WO,\xe4,\xe2\x80\xa8,THREE", ("ONE", "THREE")),
        (b"," * 50 + b"ONE", ("ONE",)),
        (b"x" * 101 + b",ONE", ("ONE",)),
        (b",".join([b"X"] * 5000), ("X",) * 500),
    ],
)
async def test_symbols_are_printable_bounded_and_may_be_folded(
    written: bytes, symbols: tuple[str, ...]
) -> None:
    async with serving(says(answer(symbols=written))) as stranger:
        found = await SpamAssassin("127.0.0.1", stranger.port).check(PLAIN)

    assert dict(found.members)["symbols"] == symbols


@pytest.mark.parametrize(
    ("spam", "verdict", "score"),
    [
        ("True ; 5.0 / 5.0", "fail", 5.0),
        # 4.96 is written 5.0, and is none.
        ("False ; 5.0 / 5.0", "pass", 5.0),
        ("Yes;15/6.3", "fail", 15.0),
        ("False ; -102.3 / 5.0", "pass", -102.3),
    ],
)
async def test_spamd_says_what_is_spam(spam: str, verdict: str, score: float) -> None:
    async with serving(says(answer(spam))) as stranger:
        found = await SpamAssassin("127.0.0.1", stranger.port).check(PLAIN)

    assert (found.verdict, found.score) == (verdict, score)


ANSWER = answer("True ; 7.4 / 6.5", b"GTUBE,NO_RELAYS")


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=300)
    | st.builds(
        lambda start, end, inside: ANSWER[:start] + inside + ANSWER[end:],
        st.integers(0, len(ANSWER)),
        st.integers(0, len(ANSWER)),
        st.binary(max_size=20) | st.sampled_from([b"\r\n", b":", b";", b"Set: ", b"User: \xff"]),
    )
)
def test_no_octets_make_it_raise(octets: bytes) -> None:
    async def ask() -> Finding:
        async with serving(says(octets)) as server:
            return await SpamAssassin("127.0.0.1", server.port).check(PLAIN)

    found = asyncio.run(ask())

    assert found.verdict in ("pass", "fail", "temperror")
    assert (found.score is None) == (found.verdict == "temperror")
    assert found.reason.isprintable()
    assert found.reason.isascii()


async def test_so_many_are_at_spamd_at_once_and_others_wait() -> None:
    async def wait_and_answer(
        stranger: Stranger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await stranger.may_go_on.wait()
        await says(answer())(stranger, reader, writer)

    async with serving(wait_and_answer) as stranger:
        check = SpamAssassin("127.0.0.1", stranger.port, at_once=3)
        asking = [asyncio.create_task(check.check(PLAIN)) for _ in range(10)]
        await eventually(lambda: stranger.connections == 3, "three are asked")
        stranger.may_go_on.set()
        found = await asyncio.gather(*asking)

    assert [each.verdict for each in found] == ["pass"] * 10
    assert (stranger.connections, stranger.most_at_once) == (10, 3)


async def test_who_waits_for_a_place_waits_within_the_time_limit() -> None:
    clock = Clock(0.0)
    async with serving(hang) as stranger:
        check = SpamAssassin("127.0.0.1", stranger.port, at_once=1, patience=0.3, clock=clock)
        first, *others = await asyncio.gather(*(check.check(PLAIN) for _ in range(5)))
        stranger.behave = says(answer())
        # That they did not get a place is not held against spamd.
        after = await check.check(PLAIN)

    assert first.reason == "spamd took too long"
    assert {each.verdict for each in others} == {"temperror"}
    assert stranger.connections <= 6
    assert after.verdict == "pass"


async def test_a_spamd_that_hangs_is_asked_by_one_message_in_a_while() -> None:
    clock = Clock(1000.0)
    resting = "spamd does not answer, and is asked again in a few seconds"
    async with serving(hang) as stranger:
        check = SpamAssassin("127.0.0.1", stranger.port, patience=0.1, clock=clock)
        first = [(await check.check(PLAIN)).reason for _ in range(3)]
        at_once = [(await check.check(PLAIN)).reason for _ in range(20)]
        clock.now += 5
        later = await asyncio.gather(*(check.check(PLAIN) for _ in range(4)))
        asked = stranger.connections
        stranger.behave = says(answer())
        clock.now += 4.9
        too_early = await check.check(PLAIN)
        clock.now += 0.1
        back = [(await check.check(PLAIN)).verdict for _ in range(3)]

    assert first == ["spamd took too long"] * 3
    assert at_once == [resting] * 20
    assert sorted(each.reason for each in later) == [resting] * 3 + ["spamd took too long"]
    assert asked == 4
    assert too_early.reason == resting
    assert back == ["pass"] * 3


async def test_a_deadline_of_the_caller_counts_like_our_own() -> None:
    async with serving(hang) as stranger:
        check = SpamAssassin("127.0.0.1", stranger.port)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await check.check(PLAIN)
        found = await check.check(PLAIN)

    assert found.reason.startswith("spamd does not answer")


async def test_failing_slowly_counts_and_failing_at_once_does_not() -> None:
    clock = Clock(0.0)

    async def take_a_while(
        stranger: Stranger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        clock.now += 3
        await says(b"")(stranger, reader, writer)

    async with serving(says(b"")) as stranger:
        check = SpamAssassin("127.0.0.1", stranger.port, clock=clock)
        at_once = [(await check.check(PLAIN)).reason for _ in range(10)]
        stranger.behave = take_a_while
        slowly = [(await check.check(PLAIN)).reason for _ in range(4)]

    assert at_once == ["spamd answered nothing"] * 10
    assert slowly[:3] == ["spamd answered nothing"] * 3
    assert slowly[3].startswith("spamd does not answer")


async def test_closing_ends_what_is_under_way() -> None:
    async with serving(hang) as stranger:
        check = SpamAssassin("127.0.0.1", stranger.port, at_once=2, patience=60)
        asking = [asyncio.create_task(check.check(PLAIN)) for _ in range(4)]
        await eventually(lambda: stranger.connections == 2, "two are asked")
        await check.close()
        found = await asyncio.wait_for(asyncio.gather(*asking), 10)
        after = await check.check(PLAIN)

    assert {each.verdict for each in found} == {"temperror"}
    assert after.reason == "spamd is asked no more"
    assert stranger.connections == 2


def run_on(loop: str, scenario: Coroutine[object, object, T]) -> T:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(scenario)
