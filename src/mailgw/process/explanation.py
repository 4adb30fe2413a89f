"""Why a mail would be answered as it would: every step, with the rule that decided it.

Law: a step names the key, its value and the file and line it stands in, as the operator
wrote them; secrets are masked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from mailgw.checks.verdict import Judgement
from mailgw.config.settings import KEYS, Configuration
from mailgw.config.source import DEFAULT, printable
from mailgw.dns import Answer, Mx, Resolver, Unanswered
from mailgw.gate import entries
from mailgw.mail.decision import Step
from mailgw.mail.identifiers import Identifiers
from mailgw.outlets.memory import Memory
from mailgw.process.house import house_of
from mailgw.process.rehearsal import Exchange, Mail, rehearse

T = TypeVar("T")

# So many records of one answer are shown.
_MOST_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """One question to the DNS, and its answer as one line."""

    kind: str
    name: str
    answer: str
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Part:
    """One step. `key`, `value` and `origin` are the rule, "" where none decided.

    `command` is what the client said and `reply` what it hears, "" for steps in between.
    """

    step: str
    verdict: str
    key: str = ""
    value: str = ""
    origin: str = ""
    reason: str = ""
    milliseconds: float = 0.0
    command: str = ""
    reply: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The steps in their order, and the questions that the DNS was asked meanwhile."""

    parts: tuple[Part, ...]
    asked: tuple[Asked, ...]

    @property
    def reply(self) -> str:
        """The last word of the server."""
        return next(part.reply for part in reversed(self.parts) if part.command or part.reply)


async def explain(configuration: Configuration, mail: Mail) -> Explanation:
    """Rehearse the mail. Raises what `house_of` raises."""
    witness, output = _Witness(), Memory()
    house = house_of(configuration.settings, output, Identifiers(), witness=witness)
    try:
        dialogue = await rehearse(house, mail)
    finally:
        await house.close()
    documents = [json.loads(b"".join(each.parts)) for each in output.publications]
    parts = [
        part
        for exchange in dialogue
        for part in _parts(configuration, mail, exchange, witness.steps, documents)
    ]
    return Explanation(tuple(parts), tuple(witness.asked))


def _parts(
    configuration: Configuration,
    mail: Mail,
    exchange: Exchange,
    steps: Sequence[Step],
    documents: Sequence[dict[str, object]],
) -> Iterator[Part]:
    verdict = {"2": "accept", "3": "accept", "4": "defer"}.get(exchange.reply[:1], "refuse")
    if exchange.step != "message":
        key, reason = _rule(configuration, mail, exchange)
        yield Part(
            exchange.step,
            verdict,
            *_placed(configuration, key),
            reason=reason,
            milliseconds=exchange.milliseconds,
            command=exchange.command,
            reply=exchange.reply,
        )
        return
    for step in steps:
        yield _of_step(configuration, step)
    for document in documents:
        yield _queue(configuration, document)
    yield Part(
        "message",
        verdict,
        *_placed(configuration, exchange.rule),
        milliseconds=exchange.milliseconds,
        command="(message)",
        reply=exchange.reply,
    )


def _of_step(configuration: Configuration, step: Step) -> Part:
    key, value, origin = _placed(configuration, step.key)
    return Part(
        step.step, step.verdict, key, step.value or value, origin, step.reason, step.milliseconds
    )


def _queue(configuration: Configuration, document: dict[str, object]) -> Part:
    decision = document["decision"]
    if not isinstance(decision, list):
        raise TypeError("a document without its decision")
    last = decision[-1]
    key, value, origin = _placed(configuration, last["key"])
    recipient = f"for {document['recipient']}"
    return Part(
        last["step"],
        last["verdict"],
        key,
        last["value"] or value,
        origin,
        printable(f"{last['reason']}; {recipient}" if "reason" in last else recipient),
    )


def _rule(configuration: Configuration, mail: Mail, exchange: Exchange) -> tuple[str, str]:
    """The key that decided, and what of it."""
    if exchange.rule or not exchange.positive:
        return exchange.rule, ""
    if exchange.recipient is None:
        return ("smtp-range" if exchange.step == "connect" else ""), ""
    if not exchange.recipient.local:
        own = mail.peer.user is not None
        return ("", "the client is authenticated") if own else ("smtp-recipients", "not local")
    local = configuration.settings.local
    address = str(exchange.recipient.address)
    for key, found in (
        ("local-addresses", entries.of_file(local.addresses) if local.addresses else ()),
        ("database-address", entries.of_table(local.database) if local.database else ()),
    ):
        for entry in found:
            if entry.pattern is not None and entries.matches(entry.pattern, address):
                return key, printable(f"local: {entry.written} ({entry.origin})")
    return "local-addresses", "local"


def _placed(configuration: Configuration, key: str) -> tuple[str, str, str]:
    """A key with its value and where that was written."""
    declared = KEYS.get(key)
    if declared is None:  # a hook, or the handler, named with its method
        return key, "", ""
    entry = configuration.entries.get(key)
    text = declared.default if entry is None else entry.text
    return key, declared.show(text), DEFAULT if entry is None else entry.origin


@dataclass(slots=True)
class _Witness:
    """See process.house.Witness."""

    steps: tuple[Step, ...] = ()
    asked: list[Asked] = field(default_factory=list)

    def judged(self, judgement: Judgement) -> None:
        self.steps = judgement.steps

    def beside(self, resolver: Resolver) -> Resolver:
        return _Overheard(resolver, self.asked.append)


class _Overheard:
    """A resolver whose questions are noted down."""

    def __init__(self, resolver: Resolver, note: Callable[[Asked], None]) -> None:
        self._resolver = resolver
        self._note = note

    async def a(self, name: str) -> Answer[str]:
        return await self._noted("A", name, self._resolver.a(name))

    async def aaaa(self, name: str) -> Answer[str]:
        return await self._noted("AAAA", name, self._resolver.aaaa(name))

    async def txt(self, name: str) -> Answer[bytes]:
        return await self._noted("TXT", name, self._resolver.txt(name))

    async def mx(self, name: str) -> Answer[Mx]:
        return await self._noted("MX", name, self._resolver.mx(name))

    async def ptr(self, address: str) -> Answer[str]:
        return await self._noted("PTR", address, self._resolver.ptr(address))

    async def close(self) -> None:
        await self._resolver.close()

    async def _noted(self, kind: str, name: str, asking: Awaitable[Answer[T]]) -> Answer[T]:
        began, said = time.perf_counter(), "no answer in time"
        try:
            answer = await asking
            said = _shown(answer)
        except Unanswered as trouble:
            said = "nobody told: " + str(trouble).removeprefix(f"{kind} {name}: ")
            raise
        finally:
            took = (time.perf_counter() - began) * 1000
            self._note(Asked(kind, printable(name), printable(said), took))
        return answer


def _shown(answer: Answer[T]) -> str:
    if not answer.records:
        return "nothing of this type" if answer.exists else "no such name"
    shown = ", ".join(_record(each) for each in answer.records[:_MOST_SHOWN])
    more = len(answer.records) - _MOST_SHOWN
    return f"{shown}, and {more} more" if more > 0 else shown


def _record(record: object) -> str:
    match record:
        case bytes():
            return json.dumps(record.decode("utf-8", "replace"), ensure_ascii=False)
        case Mx():
            return f"{record.preference} {record.host or '.'}"
        case _:
            return str(record)
