"""Runs a handler written for aiosmtpd, unmodified, around the gate and around the intake.

This is the one home of aiosmtpd, and nothing of its engine is used: the handler gets its
Session, Envelope, AuthResult and LoginPassword, and what it says is a reply of ours. The
laws: our own rules come first and a handler cannot overrule them; it decides about mail
and does not rewrite it, so what it changes in its Envelope stays there; and one that
raises or hangs costs its client a 451, unless its own handle_exception says otherwise.

Different from aiosmtpd, on purpose: the null sender is "", the content is always bytes,
mail_options hold what was understood of the command, and for AUTH the client's part has
been read already, so that an authenticator sees "PLAIN" whatever the mechanism was.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar, cast

from aiosmtpd.smtp import MISSING, AuthResult, Envelope, LoginPassword, Session

from mailgw.gate.guesses import Guesses
from mailgw.gate.policy import Answer, Intake, Now, Policy, Strangers
from mailgw.mail.budget import SMALL, Budget
from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Message, Recipient
from mailgw.observe import log
from mailgw.plugins import BadExtension
from mailgw.smtp import reply
from mailgw.smtp.events import Courtesy, MailFrom, RcptTo
from mailgw.smtp.reply import Reply

A = TypeVar("A", Reply, Answer)

_VERBS = ("HELO", "EHLO", "MAIL", "RCPT", "DATA", "AUTH", "RSET", "NOOP", "VRFY", "QUIT")
# The one that is no handle_ method.
_AUTHENTICATOR = "authenticator"
_LINE = re.compile(r"([245][0-9]{2})(?:[ -](.*))?", re.DOTALL)
_LACK_OF_SECURITY = Reply(554, "7.0", "Command refused due to lack of security")


class Server:
    """What a handler gets where aiosmtpd gives its SMTP object: the part of it that is used.

    `push` adds lines in front of the reply that the handler is about to return.
    """

    def __init__(self, hostname: str, handler: object) -> None:
        self.hostname = hostname
        self.event_handler = handler
        self.loop = asyncio.get_running_loop()
        self.session = Session(self.loop)
        self.envelope = Envelope()
        self.secure_enough = True
        self.pushed: list[str] = []

    async def push(self, status: str | bytes) -> None:
        self.pushed.append(status if isinstance(status, str) else status.decode())


class Handled:
    """A gate that asks `handler`, an object of the class `name`, after `gate` has agreed.

    `offer` gives the reply to EHLO as it would be without a handler. `own_reply` says
    that the handler's word about a message is the client's 250 too, because there are no
    identifiers to tell; `budget` is for messages that it looks at. Raises BadExtension for a
    handler that cannot be run.
    """

    def __init__(
        self,
        gate: Policy,
        handler: object,
        name: str,
        *,
        hostname: str,
        offer: Callable[[Peer], Reply],
        guesses: Guesses,
        seconds: float,
        own_reply: bool,
        budget: Budget | None = None,
    ) -> None:
        self._gate = gate
        self._budget = budget or Budget()
        self._handler = handler
        self._name = name
        self._hostname = hostname
        self._offer = offer
        self._guesses = guesses
        self._strangers = Strangers(seconds)
        self._own_reply = own_reply
        found = {verb: getattr(handler, f"handle_{verb}", None) for verb in _VERBS}
        found[_AUTHENTICATOR] = getattr(handler, _AUTHENTICATOR, None)
        self._hooks = {verb: hook for verb, hook in found.items() if callable(hook)}
        self._starttls = getattr(handler, "handle_STARTTLS", None)
        self._exception = getattr(handler, "handle_exception", None)
        self._old_ehlo = self._takes_four()
        self._servers: dict[str, Server] = {}
        if inspect.iscoroutinefunction(self._starttls):
            raise BadExtension(f"{name}: handle_STARTTLS cannot be a coroutine, as in aiosmtpd")

    def _takes_four(self) -> bool:
        """Whether handle_EHLO is of the old kind, without the list of responses."""
        if "EHLO" not in self._hooks:
            return False
        taken = len(inspect.signature(self._hooks["EHLO"]).parameters)
        if taken not in (4, 5):
            raise BadExtension(f"{self._name}: handle_EHLO takes 4 or 5 arguments, not {taken}")
        return taken == 4

    @property
    def authenticates(self) -> bool:
        """Whether the handler knows logins."""
        return _AUTHENTICATOR in self._hooks or "AUTH" in self._hooks

    def intake(self, take: Intake) -> Intake:
        """Ask handle_DATA about a complete message before `take` does anything with it."""
        return partial(self._message, take)

    # --- the gate -------------------------------------------------------------------

    def connected(self, peer: Peer) -> Now[Reply]:
        self._servers[peer.connection_id] = Server(self._hostname, self._handler)
        self._servers[peer.connection_id].session = self._session(peer)
        return self._gate.connected(peer)

    def hello(self, peer: Peer) -> Now[Reply]:
        return self._then(self._gate.hello(peer), partial(self._hello, peer))

    def credentials(self, peer: Peer, username: str, password: str) -> Now[Reply]:
        if not self.authenticates:
            return self._gate.credentials(peer, username, password)
        return self._login(peer, username, password)

    def sender(self, peer: Peer, event: MailFrom) -> Now[Reply]:
        return self._then(self._gate.sender(peer, event), partial(self._sender, peer, event))

    def recipient(self, peer: Peer, event: RcptTo, accepted: int) -> Now[Answer]:
        ours = self._gate.recipient(peer, event, accepted)
        return self._then(ours, partial(self._recipient, peer, event))

    def data(self, peer: Peer) -> Now[Reply]:
        return self._gate.data(peer)

    def courtesy(self, peer: Peer, event: Courtesy) -> Now[Reply]:
        server = self._servers[peer.connection_id]
        arguments: tuple[object, ...] = ()
        match event.verb:
            case "RSET":
                server.envelope = Envelope()
            case "NOOP":
                arguments = (event.argument or None,)
            case "VRFY":
                arguments = (event.argument.strip("<>"),)
        return self._ask(peer, event.verb, arguments, lambda: event.usual)

    def secured(self, peer: Peer) -> None:
        self._gate.secured(peer)
        server = self._servers.get(peer.connection_id)
        if server is None:
            return  # TLS from the start: there is no STARTTLS to handle
        # RFC 3207 4.2: what was learnt in clear is forgotten.
        server.session, server.envelope = self._session(peer), Envelope()
        if self._starttls is not None:
            try:
                arguments = (server, server.session, server.envelope)
                server.secure_enough = bool(self._strangers.call(self._starttls, *arguments))
            except Exception:  # noqa: BLE001 - whatever it is, it is not ours
                self._log(peer, "STARTTLS")
                server.secure_enough = False

    def gone(self, peer: Peer) -> None:
        self._servers.pop(peer.connection_id, None)
        self._gate.gone(peer)

    async def close(self) -> None:
        await self._gate.close()

    # --- the events, once our own rules have agreed ---------------------------------

    def _hello(self, peer: Peer, _ours: Reply) -> Now[Reply]:
        server = self._servers[peer.connection_id]
        if not server.secure_enough:
            return _LACK_OF_SECURITY
        server.envelope = Envelope()
        server.session.host_name = peer.helo
        server.session.extended_smtp = peer.esmtp
        offer = self._offer(peer)
        verb = "EHLO" if peer.esmtp else "HELO"
        lines = offer.wire.decode().splitlines()
        arguments: tuple[object, ...] = (peer.helo,)
        if verb == "EHLO" and not self._old_ehlo:
            arguments = (peer.helo, lines)
        before = lines if verb == "EHLO" and self._old_ehlo else []
        return self._ask(peer, verb, arguments, lambda: offer, before)

    def _sender(self, peer: Peer, event: MailFrom, ours: Reply) -> Now[Reply]:
        server = self._servers[peer.connection_id]
        envelope = server.envelope = Envelope()
        envelope.smtp_utf8 = event.smtputf8
        # The null sender is no address (RFC 5321 4.5.5), so it is not spelled as one.
        address = "" if event.reverse_path is None else event.reverse_path.written
        options = _mail_options(event)

        def usual() -> Reply:
            envelope.mail_from = address
            envelope.mail_options.extend(options)
            return ours

        return self._ask(peer, "MAIL", (address, options), usual)

    def _recipient(self, peer: Peer, event: RcptTo, ours: Answer) -> Now[Answer]:
        envelope = self._servers[peer.connection_id].envelope
        address = event.recipient.written
        options = _rcpt_options(event)

        def usual() -> Reply:
            envelope.rcpt_tos.append(address)
            envelope.rcpt_options.extend(options)
            return reply.RECIPIENT_OK

        said = self._ask(peer, "RCPT", (address, options), usual)
        return self._accepted(ours, said) if isinstance(said, Reply) else self._accept(ours, said)

    @staticmethod
    def _accepted(ours: Answer, said: Reply) -> Answer:
        return ours if said.positive else said

    async def _accept(self, ours: Answer, asked: Awaitable[Reply]) -> Answer:
        return self._accepted(ours, await asked)

    # --- AUTH -----------------------------------------------------------------------

    async def _login(self, peer: Peer, username: str, password: str) -> Reply:
        said = reply.AUTH_FAILED

        async def right() -> bool:
            nonlocal said
            said = await self._judge_login(peer, username.encode(), password.encode())
            return said.code != reply.AUTH_FAILED.code

        await self._guesses.ask(peer.remote_ip, right)
        return said

    async def _judge_login(self, peer: Peer, username: bytes, password: bytes) -> Reply:
        initial = base64.b64encode(b"\0%b\0%b" % (username, password)).decode("ascii")
        login = LoginPassword(username, password)
        asked = self._ask(
            peer,
            "AUTH",
            (["PLAIN", initial],),
            lambda: self._ask(peer, _AUTHENTICATOR, ("PLAIN", login), lambda: reply.AUTH_FAILED),
        )
        said = asked if isinstance(asked, Reply) else await asked
        self._servers[peer.connection_id].session.authenticated = said.positive
        return said

    # --- the message ----------------------------------------------------------------

    def _message(self, take: Intake, message: Message) -> Now[Reply]:
        server = self._servers[message.peer.connection_id]
        if "DATA" not in self._hooks:
            server.envelope = Envelope()
            return take(message)
        if message.content.size > SMALL:
            return self._settle(take, message, self._ask_in_turn(server, message))
        try:
            content = message.content.read()
        except OSError:
            return take(message)  # which meets the same trouble, and says so
        return self._settle(take, message, self._ask_about(server, message, content))

    def _ask_about(self, server: Server, message: Message, content: bytes) -> Now[Reply]:
        server.envelope.content = server.envelope.original_content = content
        said = self._ask(message.peer, "DATA", (), lambda: reply.OK)
        # Whoever keeps the envelope, as handlers do, keeps this one.
        server.envelope = Envelope()
        return said

    async def _ask_in_turn(self, server: Server, message: Message) -> Reply:
        """Ask about a large one: a handler gets it whole, and there may be many."""
        async with self._budget.share(message.content.size) as share:
            try:
                content = await share.aside(message.content.read)
            except OSError:
                return reply.OK  # who takes it meets the same trouble, and says so
            said = self._ask_about(server, message, content)
            return said if isinstance(said, Reply) else await said

    async def _settle(self, take: Intake, message: Message, asked: Now[Reply]) -> Reply:
        try:
            said = asked if isinstance(asked, Reply) else await asked
        except asyncio.CancelledError:
            message.content.close()
            raise
        if said.positive:
            taken = take(message)
            answer = taken if isinstance(taken, Reply) else await taken
            return said if self._own_reply and answer.positive else answer
        message.content.close()
        log.info(
            "message.refused",
            id=message.peer.connection_id,
            transaction=message.transaction_id,
            sender=message.reverse_path or "<>",
            rule=said.rule or None,
            reply=said.code,
            text=said.text,
        )
        return said

    # --- asking ---------------------------------------------------------------------

    def _then(self, ours: Now[A], go_on: Callable[[A], Now[A]]) -> Now[A]:
        if isinstance(ours, Reply | Recipient):
            refused = isinstance(ours, Reply) and not ours.positive
            return ours if refused else go_on(ours)
        return self._then_later(ours, go_on)

    async def _then_later(self, asked: Awaitable[A], go_on: Callable[[A], Now[A]]) -> A:
        ours = await asked
        if isinstance(ours, Reply) and not ours.positive:
            return ours
        answer = go_on(ours)
        return answer if isinstance(answer, Reply | Recipient) else await answer

    def _ask(
        self,
        peer: Peer,
        verb: str,
        arguments: tuple[object, ...],
        usual: Callable[[], Now[Reply]],
        before: Sequence[str] = (),
    ) -> Now[Reply]:
        """What the handler says to `verb`, `usual()` where it has no word.

        `before` are lines of the reply that come before those of the handler.
        """
        hook = self._hooks.get(verb)
        if hook is None:
            return usual()
        server = self._servers[peer.connection_id]
        server.pushed = list(before)
        try:
            result = self._strangers.call(hook, server, server.session, server.envelope, *arguments)
            if inspect.isawaitable(result):
                return self._ask_on(peer, verb, server, result, usual)
            return usual() if result is MISSING else self._read(verb, server, result)
        except Exception as trouble:  # noqa: BLE001 - whatever it is, it is not ours
            return self._failed(peer, verb, trouble)

    async def _ask_on(
        self,
        peer: Peer,
        verb: str,
        server: Server,
        promised: Awaitable[object],
        usual: Callable[[], Now[Reply]],
    ) -> Reply:
        try:
            result = await self._strangers.wait(promised)
            answer = usual() if result is MISSING else self._read(verb, server, result)
        except Exception as trouble:  # noqa: BLE001 - whatever it is, it is not ours
            answer = self._failed(peer, verb, trouble)
        return answer if isinstance(answer, Reply) else await answer

    def _read(self, verb: str, server: Server, result: object) -> Reply:
        """The reply that the handler's result is. Raises TypeError or ValueError."""
        if verb == _AUTHENTICATOR:
            return self._login_reply(server, result)
        lines = list(result) if verb == "EHLO" and isinstance(result, list) else [result]
        return self._reply([*server.pushed, *lines])

    def _login_reply(self, server: Server, result: object) -> Reply:
        if not isinstance(result, AuthResult):
            raise TypeError(f"authenticator gave {type(result).__name__}, not an AuthResult")
        lines = [result.message] if result.message else server.pushed
        said = self._reply(lines) if lines else None
        if result.success:
            session = server.session
            session.auth_data = result.auth_data
            # Its property warns that the name is an old one; handlers may still read it.
            session._login_data = getattr(result.auth_data, "login", None)
            return said if said is not None and said.positive else reply.AUTHENTICATED
        # "handled" says that the handler has replied: one that did not would leave the
        # client waiting for ever.
        return said if said is not None and not said.positive else reply.AUTH_FAILED

    def _reply(self, status: Sequence[object]) -> Reply:
        """Lines such as "250-OK" as one reply, whose code is that of the last."""
        texts, code = [], 0
        for each in status:
            line = each.decode() if isinstance(each, bytes) else each
            if not isinstance(line, str):
                raise TypeError(f"{self._name} gave {type(each).__name__}, not a reply")
            for part in line.removesuffix("\r\n").split("\n"):
                found = _LINE.fullmatch(part.removesuffix("\r"))
                if found is None:
                    raise ValueError(f"{self._name} gave {part[:80]!r}, which is no reply")
                code = int(found[1])
                texts.append(found[2] or "")
        if not texts:
            raise ValueError(f"{self._name} gave no line of a reply")
        rule = f"handler {self._name}" if code >= 400 else ""
        return Reply(code, "", "\n".join(texts), rule=rule)

    def _failed(self, peer: Peer, verb: str, trouble: Exception) -> Now[Reply]:
        """Called where the exception was caught."""
        self._log(peer, verb)
        if self._exception is None:
            return reply.local_error(peer.connection_id)
        return self._excuse(peer, self._exception, trouble)

    async def _excuse(self, peer: Peer, handle: Callable[..., object], trouble: Exception) -> Reply:
        """What the handler itself says about its exception."""
        try:
            result = self._strangers.call(handle, trouble)
            if inspect.isawaitable(result):
                result = await self._strangers.wait(result)
            said = self._reply([result])
        except Exception:  # noqa: BLE001 - whatever it is, it is not ours
            self._log(peer, "exception")
            return reply.local_error(peer.connection_id)
        return reply.local_error(peer.connection_id) if said.positive else said

    def _log(self, peer: Peer, verb: str) -> None:
        log.failure("handler.error", id=peer.connection_id, handler=self._name, about=verb)

    def _session(self, peer: Peer) -> Session:
        session = Session(asyncio.get_running_loop())
        # aiosmtpd gives it what the transport says, a tuple; its annotation is narrower.
        session.peer = cast(str, (peer.remote_ip, peer.remote_port))
        if peer.tls is not None:
            session.ssl = {"cipher": (peer.tls.cipher, peer.tls.version, None)}
        return session


def _mail_options(event: MailFrom) -> list[str]:
    """The parameters of MAIL, as aiosmtpd lists them."""
    options = [f"SIZE={event.size}"] if event.size else []
    options += ["BODY=8BITMIME"] if event.eight_bit else []
    options += ["SMTPUTF8"] if event.smtputf8 else []
    options += [f"RET={event.ret}"] if event.ret else []
    return options + ([f"ENVID={event.envid}"] if event.envid else [])


def _rcpt_options(event: RcptTo) -> list[str]:
    options = [f"NOTIFY={event.notify}"] if event.notify else []
    return options + ([f"ORCPT={event.orcpt}"] if event.orcpt else [])
