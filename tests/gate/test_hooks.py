"""Hooks, asked by a real conversation, and what they cost whom."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mailgw.config.networks import networks
from mailgw.gate.gate import Gate
from mailgw.gate.guesses import Guesses
from mailgw.gate.hooks import EVENTS, Hooks
from mailgw.gate.policy import Strangers
from mailgw.gate.recipients import LocalAddresses
from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Recipient, Transaction
from mailgw.plugins import BadExtension
from mailgw.smtp import reply
from mailgw.smtp.reply import Refusal, Reply
from rabbitmq import eventually
from wire.house import Door, Taken, Talker, contexts, serving, talking

NO = Reply(550, "7.1", "Not here")
LATER = Reply(451, "3.0", "Broker away")
MAIL = b"MAIL FROM:<joe@there.test> SIZE=27"
RCPT = b"RCPT TO:<bob@ours.test>"
LOGIN = b"AUTH PLAIN AGFubmEAb3BlbnNlc2FtZQ=="  # anna, opensesame
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
LOOPBACK = networks("127.0.0.0/8")


def open_gate(**options: Any) -> Gate:
    return Gate("mx.ours.test", LocalAddresses.empty(), 1000, lambda: None, **options)


@contextlib.asynccontextmanager
async def hooked(
    *hooks: object,
    taken: Taken | None = None,
    gate: Gate | None = None,
    seconds: float = 5.0,
    guesses: int = 0,
    **options: Any,
) -> AsyncIterator[tuple[Door, Talker]]:
    """A listener with hooks, and a client that has not yet read the banner."""
    named = [(f"test:{type(hook).__name__}", hook) for hook in hooks]
    asking = Hooks(gate or open_gate(), named, Guesses(guesses), seconds)
    intake = asking.intake(taken or Taken())
    options = {"auth_in_clear": LOOPBACK} | options
    async with serving(intake, asking, **options) as door, talking(door) as client:
        yield door, client


async def whole_mail(client: Talker) -> list[str]:
    """Everything from the banner to QUIT, and the code of each reply."""
    said = [await client.reply()]
    for line in (b"EHLO client.test", LOGIN, MAIL, RCPT, b"DATA"):
        said.append(await client.ask(line))
    if said[-1].startswith("354"):
        said.append(await client.ask(MESSAGE + b"."))
    said.append(await client.ask(b"QUIT"))
    return [each[:3] for each in said]


class Everything:
    """Has every method, no opinion, and a memory."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[object, ...]]] = []

    def __getattr__(self, event: str) -> Any:
        if event not in EVENTS:
            raise AttributeError(event)
        return lambda *arguments: self.seen.append((event, arguments))


class Waiting(Everything):
    """The same, as coroutines that really wait."""

    def __getattr__(self, event: str) -> Any:
        told = super().__getattr__(event)

        async def later(*arguments: object) -> None:
            await asyncio.sleep(0)
            told(*arguments)

        return later


@pytest.mark.parametrize("kind", [Everything, Waiting])
async def test_a_hook_sees_each_step_and_what_was_agreed_so_far(kind: type[Everything]) -> None:
    hook, taken = kind(), Taken()
    known = open_gate(message_rate=None)

    async with hooked(hook, taken=taken, gate=known) as (_, client):
        codes = await whole_mail(client)
        await eventually(lambda: hook.seen[-1][0] == "disconnect", "the hook hears of the end")

    assert codes == ["220", "250", "535", "250", "250", "354", "250", "221"]
    seen = dict(hook.seen)
    events = ["connect", "hello", "auth", "mail", "rcpt", "data", "message", "disconnect"]
    assert [event for event, _ in hook.seen] == events
    assert seen["hello"][0].helo == "client.test"
    assert seen["auth"][1:] == ("anna", "opensesame")
    begun, wanted = seen["rcpt"][1:]
    assert isinstance(begun, Transaction)
    assert (str(begun.reverse_path), begun.size, begun.recipients) == ("joe@there.test", 27, ())
    assert isinstance(wanted, Recipient)
    assert str(wanted.address) == "bob@ours.test"
    assert seen["data"][1].recipients == (wanted,)
    assert seen["message"][1].recipients == (wanted,)
    assert seen["message"][2] == MESSAGE == taken.contents[0]


@pytest.mark.parametrize(
    ("event", "codes"),
    [
        ("connect", ["550", "503", "503", "503", "503", "503", "221"]),
        ("hello", ["220", "550", "503", "503", "503", "503", "221"]),
        ("auth", ["220", "250", "550", "250", "250", "354", "250", "221"]),
        ("mail", ["220", "250", "535", "550", "503", "503", "221"]),
        ("rcpt", ["220", "250", "535", "250", "550", "503", "221"]),
        ("data", ["220", "250", "535", "250", "250", "550", "221"]),
        ("message", ["220", "250", "535", "250", "250", "354", "550", "221"]),
    ],
)
@pytest.mark.parametrize("how", ["says", "promises", "raises"])
async def test_a_hook_refuses_at_each_step(event: str, codes: list[str], how: str) -> None:
    def says(*_: object) -> Reply:
        return NO

    async def promises(*_: object) -> Reply:
        return NO

    def raises(*_: object) -> Reply:
        raise Refusal(NO)

    hook = type("One", (), {event: staticmethod(locals()[how])})()
    taken = Taken()

    async with hooked(hook, taken=taken) as (_, client):
        assert await whole_mail(client) == codes

    assert bool(taken.messages) == (event == "auth")


async def test_the_first_reply_wins_and_the_later_hooks_are_not_asked() -> None:
    class First:
        def rcpt(self, *_: object) -> None:
            return None

    class Second:
        async def rcpt(self, *_: object) -> Reply:
            return NO

    third = Everything()

    async with hooked(First(), Second(), third) as (_, client):
        await whole_mail(client)

    assert "rcpt" not in dict(third.seen)
    assert "mail" in dict(third.seen)


def raising(*_: object) -> Reply:
    raise ValueError("the database said: password is hunter2")


def leaving(*_: object) -> Reply:
    raise SystemExit(3)


def nonsense(*_: object) -> object:
    return "550 go away"


def impossible(*_: object) -> Reply:
    return Reply(334, "", "and now?")


async def hanging(*_: object) -> Reply:
    await asyncio.Event().wait()
    return NO


async def stubborn(*_: object) -> Reply:
    release = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.5, release.set_result, None)
    while not release.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(release)
    return NO


async def leaving_later(*_: object) -> Reply:
    raise SystemExit(3)


async def cancelling(*_: object) -> Reply:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "bad",
    [raising, leaving, nonsense, impossible, hanging, stubborn, leaving_later, cancelling],
)
@pytest.mark.parametrize("event", ["connect", "hello", "auth", "mail", "rcpt", "data", "message"])
async def test_a_broken_hook_costs_its_client_a_451_and_nobody_else_anything(
    bad: Any, event: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Sometimes:
        """Is broken for the first client, and has no opinion about the second."""

    clients: set[str] = set()

    def method(peer: Peer, *arguments: object) -> object:
        clients.add(peer.connection_id)
        return bad(peer, *arguments) if len(clients) == 1 else None

    hook = Sometimes()
    setattr(hook, event, method)
    taken = Taken()

    async with hooked(hook, taken=taken, seconds=0.05) as (door, unlucky):
        broken = await whole_mail(unlucky)
        async with talking(door) as lucky:
            fine = await whole_mail(lucky)

    assert "451" in broken
    assert fine == ["220", "250", "535", "250", "250", "354", "250", "221"]
    assert len(taken.messages) == (2 if event == "auth" else 1)
    [record] = [each for each in caplog.records if each.exc_info]
    assert record.name == "mailgw"
    assert record.levelno == logging.ERROR


async def test_what_a_hook_raised_is_not_told_to_the_client() -> None:
    hook = Everything()
    hook.mail = raising

    async with hooked(hook) as (_, client):
        await client.reply()
        await client.ask(b"EHLO client.test")
        said = await client.ask(MAIL)

    assert said.startswith("451 4.3.0 Local error, reference ")
    assert "hunter2" not in said


@pytest.mark.parametrize("broken", [raising, hanging, leaving, leaving_later])
async def test_who_only_watches_holds_nobody_up(broken: Any, tmp_path: Path) -> None:
    server, trusting = contexts(tmp_path)
    watching = Everything()

    class Bad:
        secure = staticmethod(broken)
        disconnect = staticmethod(broken)

    options = {"secure": True, "tls": server}
    asking = Hooks(open_gate(), [("bad", Bad()), ("good", watching)], Guesses(0), 0.05)
    async with (
        serving(Taken(), asking, **options) as door,
        talking(door, trusting) as client,
    ):
        await client.reply()
        assert (await client.ask(b"QUIT")).startswith("221 ")
        await eventually(lambda: watching.seen[-1][0] == "disconnect", "the end is told")

    assert [event for event, _ in watching.seen] == ["secure", "connect", "disconnect"]
    assert watching.seen[0][1][0].tls.version.startswith("TLS")


@pytest.mark.parametrize(
    ("event", "yes"),
    [
        ("connect", reply.banner("mx.ours.test")),
        ("hello", reply.OK),
        ("auth", reply.AUTHENTICATED),
        ("mail", reply.OK),
        ("rcpt", reply.OK),
        ("data", reply.START_DATA),
        ("message", reply.OK),
    ],
)
async def test_a_hook_that_says_yes_takes_no_step_away(event: str, yes: Reply) -> None:
    hook = type("Yes", (), {event: staticmethod(lambda *_: yes)})()
    taken = Taken()

    async with hooked(hook, taken=taken) as (_, client):
        codes = await whole_mail(client)

    login = "235" if event == "auth" else "535"
    assert codes == ["220", "250", login, "250", "250", "354", "250", "221"]
    assert len(taken.messages) == 1


async def test_yes_lets_pass_what_our_rules_refuse_for_good() -> None:
    class Partner:
        async def rcpt(self, _peer: Peer, _: Transaction, recipient: Recipient) -> Reply | None:
            return reply.RECIPIENT_OK if recipient.address.domain == "partner.test" else None

    strict = open_gate(recipients="local")

    async with hooked(Partner(), gate=strict) as (_, client):
        await client.reply()
        await client.ask(b"EHLO client.test")
        await client.ask(MAIL)
        assert (await client.ask(b"RCPT TO:<x@partner.test>"))[:3] == "250"
        assert (await client.ask(b"RCPT TO:<x@other.test>"))[:3] == "550"


async def test_yes_makes_no_queue_safe_and_no_room() -> None:
    class Yes:
        def mail(self, *_: object) -> Reply:
            return reply.OK

        def rcpt(self, *_: object) -> Reply:
            return reply.OK

    away = Gate("mx.ours.test", LocalAddresses.empty(), 1, lambda: LATER)
    full = Gate("mx.ours.test", LocalAddresses.empty(), 1, lambda: None)

    async with hooked(Yes(), gate=away) as (_, client):
        await client.reply()
        await client.ask(b"EHLO client.test")
        assert (await client.ask(MAIL))[:3] == "451"
    async with hooked(Yes(), gate=full) as (_, client):
        await client.reply()
        await client.ask(b"EHLO client.test")
        await client.ask(MAIL)
        assert (await client.ask(RCPT))[:3] == "250"
        assert (await client.ask(RCPT))[:3] == "452"


async def test_a_login_that_a_hook_knows_makes_the_client_that_user() -> None:
    class Knows:
        def auth(self, _peer: Peer, username: str, password: str) -> Reply:
            right = (username, password) == ("anna", "opensesame")
            return reply.AUTHENTICATED if right else reply.AUTH_FAILED

    watching = Everything()

    async with hooked(Knows(), watching) as (_, client):
        await whole_mail(client)

    assert dict(watching.seen)["mail"][0].user == "anna"


async def test_guesses_against_a_hook_have_an_end_too() -> None:
    class Knows:
        async def auth(self, *_: object) -> Reply:
            return reply.AUTH_FAILED

    async with hooked(Knows(), guesses=2) as (_, client):
        await client.reply()
        await client.ask(b"EHLO client.test")
        said = [(await client.ask(LOGIN))[:3] for _ in range(3)]

    assert said == ["535", "535", "421"]


def test_a_coroutine_that_the_end_of_the_loop_overtakes_is_closed() -> None:
    begun = []

    async def late() -> None:
        begun.append(1)

    async def watch() -> None:
        Strangers(1.0).watch(late, failed=lambda: None)

    with asyncio.Runner() as runner:
        runner.run(watch())
    gc.collect()

    assert begun == []


async def test_a_new_transaction_has_none_of_the_recipients_before() -> None:
    hook = Everything()

    async with hooked(hook) as (_, client):
        await client.reply()
        for line in (b"EHLO client.test", MAIL, RCPT, b"RSET", MAIL, RCPT):
            await client.ask(line)

    asked = [arguments[1] for event, arguments in hook.seen if event == "rcpt"]
    assert [each.recipients for each in asked] == [(), ()]


async def test_a_client_that_leaves_does_not_end_the_hook_that_is_asked() -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    class Slow:
        async def message(self, *_: object) -> None:
            asked.set()
            await go.wait()

    taken = Taken()
    async with hooked(Slow(), taken=taken) as (door, client):
        await client.begin()
        client.writer.write(MESSAGE + b".\r\n")
        await asyncio.wait_for(asked.wait(), 10)
        client.writer.transport.abort()
        go.set()
        await door.deserted()

    assert taken.contents == [MESSAGE]


def test_a_hook_without_a_method_of_ours_is_refused() -> None:
    with pytest.raises(BadExtension, match="test:Thing: has none of the methods connect, hello"):
        Hooks(open_gate(), [("test:Thing", object())], Guesses(0), 5)


def test_where_no_hook_looks_at_messages_the_intake_is_the_same() -> None:
    class Rcpt:
        def rcpt(self, *_: object) -> None:
            return None

    taken = Taken()

    assert Hooks(open_gate(), [("r", Rcpt())], Guesses(0), 5).intake(taken) is taken
