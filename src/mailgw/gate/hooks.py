"""Hooks around the gate and around the intake: each event asks them first, in their order.

Where no hook has a method for an event, the event costs one look into a table; where
there is no hook at all, none of this is built.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from mailgw.gate.guesses import Guesses
from mailgw.gate.policy import Answer, Intake, Now, Policy, Strangers
from mailgw.mail.budget import SMALL, Budget
from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Message, Recipient, Transaction
from mailgw.observe import log
from mailgw.plugins import BadExtension
from mailgw.smtp import reply
from mailgw.smtp.events import Courtesy, MailFrom, RcptTo
from mailgw.smtp.reply import Refusal, Reply

# One kind of answer, whatever the question: a Reply, or what `recipient` gives.
A = TypeVar("A", Reply, Answer)

EVENTS = (
    "connect",
    "hello",
    "secure",
    "auth",
    "mail",
    "rcpt",
    "data",
    "message",
    "disconnect",
)


@dataclass(frozen=True, slots=True)
class _Method:
    """One method of one hook. `name` is for the log: greylist:Greylist.rcpt."""

    name: str
    event: str
    function: Callable[..., object]


class Hooks:
    """A gate that asks `hooks`, pairs of a name and an object, before it asks `gate`.

    `seconds` is what each answer may take; `guesses` counts logins that a hook refused;
    `budget` is for messages that a hook looks at.
    Raises BadExtension for a hook that has no method we would call.
    """

    def __init__(
        self,
        gate: Policy,
        hooks: Iterable[tuple[str, object]],
        guesses: Guesses,
        seconds: float,
        budget: Budget | None = None,
    ) -> None:
        self._gate = gate
        self._budget = budget or Budget()
        self._guesses = guesses
        self._strangers = Strangers(seconds)
        self._methods: dict[str, tuple[_Method, ...]] = dict.fromkeys(EVENTS, ())
        for name, hook in hooks:
            found = tuple(_methods(name, hook))
            if not found:
                raise BadExtension(f"{name}: has none of the methods {', '.join(EVENTS)}")
            for method in found:
                self._methods[method.event] += (method,)
        # What each client is in the middle of, by connection.
        self._open: dict[str, Transaction] = {}

    def intake(self, take: Intake) -> Intake:
        """Ask about a complete message before `take` does anything with it."""
        return partial(self._message, take) if self._methods["message"] else take

    # --- the gate -------------------------------------------------------------------

    def connected(self, peer: Peer) -> Now[Reply]:
        return self._decide("connect", peer, (), partial(self._gate.connected, peer))

    def hello(self, peer: Peer) -> Now[Reply]:
        return self._decide("hello", peer, (), partial(self._gate.hello, peer))

    def credentials(self, peer: Peer, username: str, password: str) -> Now[Reply]:
        if not self._methods["auth"]:
            return self._gate.credentials(peer, username, password)
        return self._login(peer, username, password)

    def sender(self, peer: Peer, event: MailFrom) -> Now[Reply]:
        begun = Transaction(
            event.reverse_path,
            (),
            event.size,
            event.smtputf8,
            event.eight_bit,
            event.ret,
            event.envid,
        )
        self._open[peer.connection_id] = begun
        return self._decide("mail", peer, (begun,), partial(self._gate.sender, peer, event))

    def recipient(self, peer: Peer, event: RcptTo, accepted: int) -> Now[Answer]:
        wanted = Recipient(event.recipient, False, event.notify, event.orcpt)
        ours = partial(self._gate.recipient, peer, event, accepted)
        arguments = (self._open[peer.connection_id], wanted)
        answer = self._decide("rcpt", peer, arguments, ours, instead=wanted)
        if isinstance(answer, Reply | Recipient):
            return self._noted(peer, answer)
        return self._note_later(peer, answer)

    def data(self, peer: Peer) -> Now[Reply]:
        arguments = (self._open[peer.connection_id],)
        return self._decide("data", peer, arguments, partial(self._gate.data, peer))

    def courtesy(self, peer: Peer, event: Courtesy) -> Now[Reply]:
        return self._gate.courtesy(peer, event)

    def secured(self, peer: Peer) -> None:
        self._gate.secured(peer)
        self._tell("secure", peer)

    def gone(self, peer: Peer) -> None:
        self._open.pop(peer.connection_id, None)
        self._tell("disconnect", peer)
        self._gate.gone(peer)

    async def close(self) -> None:
        await self._gate.close()

    # --- what is remembered ---------------------------------------------------------

    def _noted(self, peer: Peer, answer: Answer) -> Answer:
        if isinstance(answer, Recipient):
            begun = self._open[peer.connection_id]
            recipients = (*begun.recipients, answer)
            self._open[peer.connection_id] = replace(begun, recipients=recipients)
        return answer

    async def _note_later(self, peer: Peer, answer: Awaitable[Answer]) -> Answer:
        return self._noted(peer, await answer)

    # --- asking ---------------------------------------------------------------------

    def _decide(
        self,
        event: str,
        peer: Peer,
        arguments: tuple[object, ...],
        ours: Callable[[], Now[A]],
        instead: A | None = None,
    ) -> Now[A]:
        """The hooks' word, and ours. `instead` is what a positive reply stands for."""
        said = self._ask(event, peer, arguments)
        if said is None:
            return ours()
        if isinstance(said, Reply) and not said.positive:
            return said
        return self._weigh(event, said, ours, instead)

    async def _weigh(
        self,
        event: str,
        asked: Reply | Awaitable[Reply | None],
        ours: Callable[[], Now[A]],
        instead: A | None,
    ) -> A:
        said = asked if isinstance(asked, Reply) else await asked
        if said is not None and not said.positive:
            return said
        own = ours()
        answer = own if isinstance(own, Reply | Recipient) else await own
        return answer if said is None else _agreed(event, said, answer, instead)

    def _ask(
        self, event: str, peer: Peer, arguments: tuple[object, ...]
    ) -> Now[Reply | None] | None:
        """The first reply of the hooks, None where none has an opinion."""
        methods = self._methods[event]
        for position, method in enumerate(methods):
            try:
                answer = self._strangers.call(method.function, peer, *arguments)
                if inspect.isawaitable(answer):
                    rest = methods[position + 1 :]
                    return self._ask_on(method, answer, rest, peer, arguments)
                said = _checked(method, peer, answer)
            except Exception as trouble:  # noqa: BLE001 - whatever it is, it is not ours
                said = _failed(method, peer, trouble)
            if said is not None:
                return said
        return None

    async def _ask_on(
        self,
        method: _Method,
        answer: Awaitable[object],
        rest: tuple[_Method, ...],
        peer: Peer,
        arguments: tuple[object, ...],
    ) -> Reply | None:
        """What `_ask` does, from the first answer that has to be waited for."""
        try:
            said = _checked(method, peer, await self._strangers.wait(answer))
            for other in rest if said is None else ():
                method, result = other, self._strangers.call(other.function, peer, *arguments)
                if inspect.isawaitable(result):
                    result = await self._strangers.wait(result)
                said = _checked(method, peer, result)
                if said is not None:
                    return said
        except Exception as trouble:  # noqa: BLE001 - whatever it is, it is not ours
            said = _failed(method, peer, trouble)
        return said

    async def _login(self, peer: Peer, username: str, password: str) -> Reply:
        said: Reply | None = None

        async def right() -> bool:
            nonlocal said
            asked = self._ask("auth", peer, (username, password))
            said = asked if asked is None or isinstance(asked, Reply) else await asked
            return said is None or said.code != reply.AUTH_FAILED.code

        await self._guesses.ask(peer.remote_ip, right)
        if said is not None:
            return said
        own = self._gate.credentials(peer, username, password)
        return own if isinstance(own, Reply) else await own

    def _tell(self, event: str, peer: Peer) -> None:
        for method in self._methods[event]:
            failed = partial(log.failure, "hook.error", id=peer.connection_id, hook=method.name)
            self._strangers.watch(method.function, peer, failed=failed)

    # --- the message ----------------------------------------------------------------

    def _message(self, take: Intake, message: Message) -> Now[Reply]:
        begun = self._open.pop(message.peer.connection_id, None) or _of(message)
        if message.content.size > SMALL:
            return self._settle_later(take, message, self._ask_in_turn(message, begun))
        try:
            content = message.content.read()
        except OSError:
            return take(message)  # which meets the same trouble, and says so
        said = self._ask("message", message.peer, (begun, content))
        if said is None or isinstance(said, Reply):
            return _settle(take, message, said)
        return self._settle_later(take, message, said)

    async def _ask_in_turn(self, message: Message, begun: Transaction) -> Reply | None:
        """Ask about a large one: hooks get it whole, and there may be many."""
        async with self._budget.share(message.content.size) as share:
            try:
                content = await share.aside(message.content.read)
            except OSError:
                return None  # who takes it meets the same trouble, and says so
            said = self._ask("message", message.peer, (begun, content))
            return said if said is None or isinstance(said, Reply) else await said

    async def _settle_later(
        self, take: Intake, message: Message, asked: Awaitable[Reply | None]
    ) -> Reply:
        try:
            said = await asked
        except asyncio.CancelledError:
            message.content.close()
            raise
        settled = _settle(take, message, said)
        return settled if isinstance(settled, Reply) else await settled


def _settle(take: Intake, message: Message, said: Reply | None) -> Now[Reply]:
    if said is None or said.positive:
        return take(message)
    message.content.close()
    log.info(
        "message.refused",
        id=message.peer.connection_id,
        transaction=message.transaction_id,
        sender=message.reverse_path or "<>",
        rule=said.rule,
        reply=said.code,
        text=said.text,
    )
    return said


def _of(message: Message) -> Transaction:
    return Transaction(
        message.reverse_path,
        message.recipients,
        0,
        message.smtputf8,
        message.eight_bit,
        message.ret,
        message.envid,
    )


def _methods(name: str, hook: object) -> Iterable[_Method]:
    for event in EVENTS:
        function = getattr(hook, event, None)
        if callable(function):
            yield _Method(f"{name}.{event}", event, function)


def _checked(method: _Method, peer: Peer, answer: object) -> Reply | None:
    """The answer, if a hook may give it. Raises TypeError or ValueError."""
    if answer is None:
        return None
    if not isinstance(answer, Reply):
        raise TypeError(f"{method.name} gave {type(answer).__name__}, not a Reply or None")
    if answer.positive and not _may_say(method.event, answer.code):
        raise ValueError(f"{method.name} gave {answer.code}, which means nothing there")
    if not answer.positive:
        # In the log, a refusal has the name of who refused.
        return answer if answer.rule else answer.by(f"hook {method.name}")
    return answer


def _may_say(event: str, code: int) -> bool:
    if event == "connect":
        return code == 220
    return 200 <= code < 300 or (event == "data" and code == 354)


def _failed(method: _Method, peer: Peer, trouble: Exception) -> Reply:
    if isinstance(trouble, Refusal):
        return trouble.reply
    log.failure("hook.error", id=peer.connection_id, hook=method.name)
    return reply.local_error(peer.connection_id)


def _agreed(event: str, said: Reply, own: A, instead: A | None) -> A:
    """What is said where a hook lets pass what `own` may not."""
    if isinstance(own, Recipient):
        return own
    # No hook makes room, or a broker come back. To EHLO we give the names of extensions.
    if 400 <= own.code < 500 or (own.positive and event == "hello"):
        return own
    return said if instead is None else instead
