"""Handlers written for aiosmtpd, run by a real conversation."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import MISSING, AuthResult, Envelope, LoginPassword, Session

from mailgw.config.networks import networks
from mailgw.gate.gate import Gate
from mailgw.gate.guesses import Guesses
from mailgw.gate.handler import Handled
from mailgw.gate.recipients import LocalAddresses
from mailgw.mail.peer import Peer
from mailgw.plugins import BadExtension
from mailgw.smtp import reply
from mailgw.smtp.extensions import Rules, hello_reply
from mailgw.smtp.reply import Reply
from wire.house import Door, Taken, Talker, contexts, serving, talking

MAIL = b"MAIL FROM:<joe@there.test>"
RCPT = b"RCPT TO:<bob@ours.test>"
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
LOGIN = b"AUTH PLAIN " + base64.b64encode(b"\0anna\0opensesame")
LOOPBACK = networks("127.0.0.0/8")


def made(handler: object, gate: Any = None, **options: Any) -> tuple[Handled, Rules]:
    auth = hasattr(handler, "authenticator") or hasattr(handler, "handle_AUTH")
    starttls = options.pop("starttls", False)
    rules = Rules("mx.ours.test", starttls=starttls, auth=auth, courtesies=True)
    options = {"own_reply": False, "seconds": 5.0, "guesses": Guesses(0)} | options
    handled = Handled(
        gate or Gate("mx.ours.test", LocalAddresses.empty(), 1000, lambda: None),
        handler,
        "test:Handler",
        hostname=rules.hostname,
        offer=lambda peer: hello_reply(rules, esmtp=peer.esmtp, tls=peer.secure, auth=auth),
        **options,
    )
    return handled, rules


@contextlib.asynccontextmanager
async def handled(
    handler: object, taken: Taken | None = None, tls: Any = None, **options: Any
) -> AsyncIterator[tuple[Door, Talker]]:
    """A listener with the handler, and a client that has read the banner."""
    policy, rules = made(handler, starttls=tls is not None, **options)
    intake = policy.intake(taken or Taken())
    async with (
        serving(intake, policy, rules=rules, tls=tls, auth_in_clear=LOOPBACK) as door,
        talking(door) as client,
    ):
        assert (await client.reply()).startswith("220 ")
        yield door, client


async def mail(client: Talker, *recipients: bytes, sender: bytes = MAIL) -> str:
    """A whole transaction; its last reply."""
    said = await client.ask(b"EHLO client.test")
    for line in (sender, *(recipients or (RCPT,)), b"DATA"):
        said = await client.ask(line)
    return await client.ask(MESSAGE + b".") if said.startswith("354") else said


class Keeps:
    """The usual handler: sets the envelope itself and keeps what it gets."""

    def __init__(self) -> None:
        self.kept: list[tuple[Session, Envelope]] = []

    async def handle_MAIL(
        self, _server: Any, _session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 fine"

    async def handle_RCPT(
        self, _server: Any, _session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 fine"

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:
        self.kept.append((session, envelope))
        return "250 OK, kept"


async def test_a_handler_gets_the_session_and_the_envelope_of_aiosmtpd() -> None:
    handler, taken = Keeps(), Taken()

    async with handled(handler, taken) as (_, client):
        said = await mail(
            client, RCPT, b"RCPT TO:<ann@ours.test>", sender=MAIL + b" BODY=8BITMIME SIZE=26"
        )

    [(session, envelope)] = handler.kept
    assert type(session) is Session
    assert type(envelope) is Envelope
    assert session.peer is not None
    assert session.peer[0] == "127.0.0.1"
    assert (session.host_name, session.extended_smtp) == ("client.test", True)
    assert envelope.mail_from == "joe@there.test"
    assert envelope.mail_options == ["SIZE=26", "BODY=8BITMIME"]
    assert envelope.rcpt_tos == ["bob@ours.test", "ann@ours.test"]
    assert envelope.content == envelope.original_content == MESSAGE
    # The queue has it too, and the client hears under which identifiers.
    assert "id1 for bob@ours.test" in said
    assert taken.contents == [MESSAGE]


async def test_each_mail_has_an_envelope_of_its_own() -> None:
    handler = Keeps()

    async with handled(handler) as (_, client):
        await mail(client)
        await client.ask(MAIL)
        await client.ask(b"RCPT TO:<gone@ours.test>")
        await client.ask(b"RSET")
        await mail(client, b"RCPT TO:<ann@ours.test>")

    assert [each.rcpt_tos for _, each in handler.kept] == [["bob@ours.test"], ["ann@ours.test"]]


async def test_where_the_handler_has_no_method_the_envelope_is_filled_for_it() -> None:
    class OnlyData:
        def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
            self.envelope = envelope
            return "250 OK"

    handler = OnlyData()

    async with handled(handler) as (_, client):
        await mail(client)

    assert handler.envelope.mail_from == "joe@there.test"
    assert handler.envelope.rcpt_tos == ["bob@ours.test"]


async def test_without_a_queue_the_reply_is_the_handlers_own() -> None:
    handler, taken = Keeps(), Taken()

    async with handled(handler, taken, own_reply=True) as (_, client):
        assert await mail(client) == "250 OK, kept"


@pytest.mark.parametrize("status", ["550 5.7.1 no", "451 later", "552-too\r\n552 big"])
async def test_what_the_handler_refuses_is_said_as_it_is_and_not_queued(status: str) -> None:
    class No:
        async def handle_DATA(self, *_: object) -> str:
            return status

    taken = Taken()

    async with handled(No(), taken) as (_, client):
        assert await mail(client) == status.replace("\r\n", "\n")

    assert taken.messages == []


@pytest.mark.parametrize(
    ("verb", "line", "codes"),
    [
        ("HELO", b"HELO client.test", "550"),
        ("EHLO", b"EHLO client.test", "550"),
        ("MAIL", MAIL, "550"),
        ("RCPT", RCPT, "550"),
        ("RSET", b"RSET", "550"),
        ("NOOP", b"NOOP", "550"),
        ("VRFY", b"VRFY bob", "550"),
        ("QUIT", b"QUIT", "550"),
    ],
)
async def test_every_verb_is_handled(verb: str, line: bytes, codes: str) -> None:
    class No:
        pass

    seen: list[tuple[object, ...]] = []

    async def no(*arguments: object) -> str:
        seen.append(arguments[3:])
        return "550 not today"

    handler = No()
    # aiosmtpd asks the signature of this one how many arguments it takes.
    setattr(handler, f"handle_{verb}", no if verb != "EHLO" else _five(no))

    async with handled(handler) as (_, client):
        if verb not in ("HELO", "EHLO"):
            await client.ask(b"EHLO client.test")
        if verb == "RCPT":
            await client.ask(MAIL)
        assert await client.ask(line) == f"{codes} not today"
        # QUIT ends it, whatever was said.
        assert (await client.ask(b"HELP") == "") == (verb == "QUIT")

    assert len(seen) == 1


def _five(function: Any) -> Any:
    async def handle_EHLO(a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
        return await function(a, b, c, d, e)

    return handle_EHLO


async def test_ehlo_of_five_arguments_gets_the_lines_and_gives_others() -> None:
    class Ehlo:
        async def handle_EHLO(
            self, _server: Any, _session: Any, _envelope: Any, hostname: str, lines: list[str]
        ) -> list[str]:
            assert hostname == "client.test"
            return [lines[0], "250-XYZZY", *(each for each in lines[1:] if "CHUNK" not in each)]

    async with handled(Ehlo()) as (_, client):
        said = await client.ask(b"EHLO client.test")

    lines = said.splitlines()
    assert lines[:2] == ["250-mx.ours.test", "250-XYZZY"]
    assert "250-PIPELINING" in lines
    assert "CHUNKING" not in said


async def test_ehlo_of_four_arguments_adds_the_last_line() -> None:
    class Ehlo:
        async def handle_EHLO(self, server: Any, _s: Any, _e: Any, hostname: str) -> str:
            await server.push("250-XYZZY")
            return f"250 hello {hostname}"

    async with handled(Ehlo()) as (_, client):
        lines = (await client.ask(b"EHLO client.test")).splitlines()

    assert lines[0] == "250-mx.ours.test"
    assert "250-CHUNKING" in lines
    assert lines[-2:] == ["250-XYZZY", "250 hello client.test"]


@pytest.mark.parametrize("arguments", [3, 6])
def test_ehlo_of_another_kind_is_refused_at_the_start(arguments: int) -> None:
    names = ", ".join(f"a{number}" for number in range(arguments))
    handler = type("Ehlo", (), {"handle_EHLO": staticmethod(eval(f"lambda {names}: None"))})()

    with pytest.raises(BadExtension, match=f"takes 4 or 5 arguments, not {arguments}"):
        made(handler)


async def test_our_own_rules_cannot_be_overruled() -> None:
    strict = Gate("mx.ours.test", LocalAddresses.empty(), 10, lambda: None, recipients="local")
    handler = Keeps()

    async with handled(handler, gate=strict) as (_, client):
        await client.ask(b"EHLO client.test")
        await client.ask(MAIL)
        assert (await client.ask(RCPT))[:3] == "550"
        assert await client.ask(b"DATA") == "503 5.5.1 No valid recipients"


class Raises:
    def handle_DATA(self, *_: object) -> str:
        raise ValueError("the path is /var/secret")


class RaisesLater:
    async def handle_DATA(self, *_: object) -> str:
        raise ConnectionResetError("the path is /var/secret")


class Hangs:
    async def handle_DATA(self, *_: object) -> str:
        await asyncio.Event().wait()
        return "250 OK"


class Says(Keeps):
    def __init__(self, status: object) -> None:
        self.status = status

    async def handle_DATA(self, *_: object) -> Any:
        return self.status


class Leaves:
    async def handle_DATA(self, *_: object) -> str:
        raise SystemExit(0)


@pytest.mark.parametrize(
    "handler",
    [
        Raises(),
        RaisesLater(),
        Hangs(),
        Leaves(),
        Says(None),
        Says(250),
        Says("OK"),
        Says("999 what"),
        Says("354 go on"),
        Says(["250 OK"]),
    ],
)
async def test_a_broken_handler_costs_its_client_a_451_and_nobody_else_anything(
    handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    taken = Taken()

    async with handled(handler, taken, seconds=0.05) as (door, client):
        said = await mail(client)
        assert (await client.ask(b"NOOP"))[:3] == "250"
        async with talking(door) as other:
            assert (await other.ask(b"NOOP"))[:3] == "220"

    assert said.startswith("451 4.3.0 Local error, reference ")
    assert "secret" not in said
    assert taken.messages == []
    assert [each.name for each in caplog.records if each.exc_info] == ["mailgw"]


async def test_the_handlers_own_word_about_its_exception_is_said() -> None:
    class Excuse(Raises):
        async def handle_exception(self, error: Exception) -> str:
            return f"554 {type(error).__name__}"

    async with handled(Excuse()) as (_, client):
        assert await mail(client) == "554 ValueError"


@pytest.mark.parametrize("status", ["250 never mind", None, ValueError("again")])
async def test_an_exception_is_never_a_yes(status: Any) -> None:
    class Excuse(Raises):
        def handle_exception(self, _error: Exception) -> Any:
            if isinstance(status, Exception):
                raise status
            return status

    taken = Taken()

    async with handled(Excuse(), taken) as (_, client):
        assert (await mail(client)).startswith("451 4.3.0 Local error")

    assert taken.messages == []


class Logins:
    """An authenticator as it is given to aiosmtpd's Controller."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def authenticator(
        self, _server: Any, session: Session, _envelope: Any, mechanism: str, data: Any
    ) -> Any:
        self.asked = (session, mechanism, data)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (AuthResult(success=True), "235 2.7.0 Authentication successful"),
        (AuthResult(success=True, message="235 hello anna"), "235 hello anna"),
        (AuthResult(success=False, handled=False), "535 5.7.8 Authentication credentials invalid"),
        # It says that it has replied, which it cannot have: the client must not wait for ever.
        (AuthResult(success=False, handled=True), "535 5.7.8 Authentication credentials invalid"),
        (AuthResult(success=False, handled=False, message="454 4.7.0 later"), "454 4.7.0 later"),
        (AuthResult(success=False, message="235 yes"), "535 5.7.8 Authentication credentials"),
        (None, "451 4.3.0 Local error"),
        (True, "451 4.3.0 Local error"),
        (OSError("ldap://secret"), "451 4.3.0 Local error"),
    ],
)
async def test_an_authenticator_decides_about_logins(result: Any, said: str) -> None:
    handler = Logins(result)

    async with handled(handler) as (_, client):
        assert "AUTH PLAIN LOGIN" in await client.ask(b"EHLO client.test")
        assert (await client.ask(LOGIN)).startswith(said)

    session, mechanism, data = handler.asked
    assert (mechanism, data) == ("PLAIN", LoginPassword(b"anna", b"opensesame"))
    assert session.authenticated is said.startswith("235")


async def test_what_an_authenticator_found_is_in_the_session() -> None:
    class Both(Logins, Keeps):
        def __init__(self) -> None:
            Keeps.__init__(self)
            Logins.__init__(
                self, AuthResult(success=True, auth_data=LoginPassword(b"anna", b"opensesame"))
            )

    handler, taken = Both(), Taken()

    async with handled(handler, taken) as (_, client):
        await client.ask(b"EHLO client.test")
        await client.ask(LOGIN)
        await client.ask(MAIL)
        await client.ask(RCPT)
        await client.ask(b"DATA")
        await client.ask(MESSAGE + b".")

    [(session, _)] = handler.kept
    assert session.auth_data == LoginPassword(b"anna", b"opensesame")
    assert session.login_data == b"anna"
    [(message, _)] = taken.messages
    assert message.peer.user == "anna"


@pytest.mark.parametrize(
    ("status", "code"), [("235 hello", "235"), ("535 no", "535"), (MISSING, "454")]
)
async def test_handle_auth_goes_before_the_authenticator(status: Any, code: str) -> None:
    class Auth(Logins):
        async def handle_AUTH(
            self, _server: Any, _session: Any, _envelope: Any, arguments: list[str]
        ) -> Any:
            assert arguments == LOGIN.decode().split()[1:]
            return status

    handler = Auth(AuthResult(success=False, handled=False, message="454 later"))

    async with handled(handler) as (_, client):
        await client.ask(b"EHLO client.test")
        assert (await client.ask(LOGIN))[:3] == code


async def test_guesses_against_an_authenticator_have_an_end_too() -> None:
    handler = Logins(AuthResult(success=False))

    async with handled(handler, guesses=Guesses(2)) as (_, client):
        await client.ask(b"EHLO client.test")
        assert [(await client.ask(LOGIN))[:3] for _ in range(3)] == ["535", "535", "421"]


@pytest.mark.parametrize(("secure_enough", "code"), [(True, "250"), (False, "554")])
async def test_starttls_begins_another_session_if_the_handler_likes_it(
    secure_enough: bool, code: str, tmp_path: Path
) -> None:
    class Tls:
        def handle_STARTTLS(self, _server: Any, session: Session, _envelope: Any) -> bool:
            assert session.host_name is None
            assert session.ssl is not None
            self.cipher = session.ssl["cipher"]
            return secure_enough

    handler, (server, trusting) = Tls(), contexts(tmp_path)

    async with handled(handler, tls=server) as (_, client):
        await client.ask(b"EHLO client.test")
        assert (await client.ask(b"STARTTLS"))[:3] == "220"
        await client.writer.start_tls(trusting, server_hostname="localhost")
        assert (await client.ask(b"EHLO client.test"))[:3] == code

    assert handler.cipher[1].startswith("TLSv1")


def test_a_starttls_that_would_have_to_be_awaited_is_refused_at_the_start() -> None:
    class Tls:
        async def handle_STARTTLS(self, *_: object) -> bool:
            return True

    with pytest.raises(BadExtension, match="handle_STARTTLS cannot be a coroutine"):
        made(Tls())


async def test_the_arguments_of_noop_and_vrfy_reach_the_handler() -> None:
    class Curious:
        seen: list[object] = []  # noqa: RUF012 - one for the test

        async def handle_NOOP(self, _s: Any, _n: Any, _e: Any, argument: str | None) -> str:
            self.seen.append(argument)
            return "250 noop"

        async def handle_VRFY(self, _s: Any, _n: Any, _e: Any, address: str) -> str:
            self.seen.append(address)
            return "252 maybe"

    handler = Curious()

    async with handled(handler) as (_, client):
        await client.ask(b"NOOP")
        await client.ask(b"NOOP of it")
        assert await client.ask(b"VRFY <bob@ours.test>") == "252 maybe"

    assert handler.seen == [None, "of it", "bob@ours.test"]


async def test_a_rule_that_has_to_wait_goes_first_all_the_same() -> None:
    class Later:
        def __getattr__(self, question: str) -> Any:
            return getattr(usual, question)

        async def sender(self, _peer: Peer, _event: Any) -> Reply:
            await asyncio.sleep(0)
            return reply.TRY_AGAIN

    handler = Keeps()
    usual = Gate("mx.ours.test", LocalAddresses.empty(), 10, lambda: None)

    async with handled(handler, gate=Later()) as (_, client):
        await client.ask(b"EHLO client.test")
        assert (await client.ask(MAIL))[:3] == "451"
