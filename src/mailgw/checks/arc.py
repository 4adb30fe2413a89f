"""ARC: what those who passed a message on saw of it, and whether the chain holds (RFC 8617).

Laws. A chain is judged as a whole, by section 5.2: its form first, then the newest
signature over the message, then every seal. It is bounded to 50 sets before any key is
asked for. Nothing that a stranger wrote leaves `check` as an exception, and nothing
holds the event loop for longer than a slice of a body takes (see signed.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mailgw.checks import keys, signature, signed
from mailgw.checks.keys import Found, Key
from mailgw.checks.signature import Signature, Tags, Trouble
from mailgw.dns import Resolver
from mailgw.mail.finding import Finding, Member
from mailgw.mail.headers import Field
from mailgw.mail.octets import Octets

# RFC 8617 4.2.1.
MOST_SETS = 50
_RESULTS, _SIGNATURE, _SEAL = (
    "arc-authentication-results",
    "arc-message-signature",
    "arc-seal",
)
# RFC 8617 4.1.1: the results begin with their instance; position = 1*2DIGIT (4.2.1).
_INSTANCE = re.compile(rb"[ \t\r\n]*i[ \t\r\n]*=[ \t\r\n]*(\d{1,2})[ \t\r\n]*;")
_LONGEST_RESULTS = 8_192
_MOST_RESULTS = 32
# RFC 8601 2.2: comments, strings and the ends of results are all that has to be seen.
_MARKS = re.compile(rb'[();"]|\\.', re.DOTALL)
_RESULT = re.compile(r"\s*([A-Za-z][\w-]{0,30})\s*(?:/\s*\d{1,3}\s*)?=\s*([A-Za-z]{1,30})(?![\w-])")


@dataclass(frozen=True, slots=True)
class Seal:
    """One set of a chain: who sealed it, and which results that one saw, as (method, result).

    `results` are read leniently and bounded; they are worth as much as the sealer is
    trusted, and only in a chain that passes.
    """

    instance: int
    domain: str
    results: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """What became of a chain; `seals` from the oldest, empty where the form is broken."""

    finding: Finding
    seals: tuple[Seal, ...] = ()


@dataclass(frozen=True, slots=True)
class _Set:
    """The three fields of an instance (RFC 8617 4.2)."""

    results: Field
    message_signature: Signature
    signature_field: Field
    seal: Signature
    seal_field: Field
    status: bytes


async def check(resolver: Resolver, content: Octets) -> Chain:
    """Judge the chain of a message. Cancelling stops the work."""
    began = time.perf_counter()
    chain = await _check(resolver, content)
    milliseconds = (time.perf_counter() - began) * 1000
    return replace(chain, finding=replace(chain.finding, milliseconds=milliseconds))


async def _check(resolver: Resolver, content: Octets) -> Chain:
    message = signed.read(content)
    if isinstance(message, Trouble):
        return Chain(_told(message))
    arc_fields = {name: message.named(name) for name in (_RESULTS, _SIGNATURE, _SEAL)}
    if not any(arc_fields.values()):
        return Chain(Finding("arc", "none", reason="the message has no ARC sets"))
    sets = await _sets(arc_fields)
    if isinstance(sets, Trouble):
        return Chain(_told(sets))
    seals = tuple(
        Seal(number, each.seal.domain, results(each.results.value))
        for number, each in enumerate(sets, 1)
    )
    outcome = _broken_status(sets) or await _judge(resolver, message, sets)
    if isinstance(outcome, Trouble):
        return Chain(replace(_told(outcome), domain=seals[-1].domain), seals)
    members: tuple[tuple[str, Member], ...] = (
        ("sealer", seals[-1].domain),
        ("instances", len(seals)),
    )
    oldest = (("header.oldest-pass", str(outcome)),)
    return Chain(Finding("arc", "pass", oldest, members, seals[-1].domain), seals)


def results(value: bytes) -> tuple[tuple[str, str], ...]:
    """The (method, result) pairs of an ARC-Authentication-Results, in lower case.

    What is not understood is passed over, comments and quoted strings are never taken
    for results. Both are words of letters, digits, hyphens and underscores.
    """
    found = []
    for part in _plain_parts(value[:_LONGEST_RESULTS]):
        match = _RESULT.match(part)
        if match:
            found.append((match[1].lower(), match[2].lower()))
    return tuple(found[:_MOST_RESULTS])


async def _sets(arc_fields: dict[str, list[Field]]) -> tuple[_Set, ...] | Trouble:
    """Collect the sets (RFC 8617 5.2, steps 1 and 3), with the oldest first."""
    most = max(len(fields) for fields in arc_fields.values())
    if most > MOST_SETS:
        return Trouble("fail", f"there are more than {MOST_SETS} ARC sets")
    placed: dict[tuple[str, int], tuple[Field, Tags]] = {}
    for name, fields in arc_fields.items():
        for field in fields:
            read = _instance(name, field)
            await asyncio.sleep(0)
            if isinstance(read, Trouble):
                return read
            instance, tags = read
            if (name, instance) in placed:
                return Trouble("fail", f"instance {instance} is there twice")
            placed[name, instance] = (field, tags)
    found = []
    for number in range(1, most + 1):
        one = _one_set(placed, number)
        if isinstance(one, Trouble):
            return one
        found.append(one)
    return tuple(found)


def _instance(name: str, field: Field) -> tuple[int, Tags] | Trouble:
    tags: Tags = {}
    if name == _RESULTS:
        start = _INSTANCE.match(field.value[:_LONGEST_RESULTS])
        digits = start[1] if start else b""
    else:
        read = signature.read_tags(field.raw)
        if isinstance(read, Trouble):
            return Trouble("fail", read.reason)
        tags, digits = read, read.get(b"i", b"")
    if not (digits.isdigit() and len(digits) <= 2 and 1 <= int(digits) <= MOST_SETS):
        return Trouble("fail", "an ARC field has no instance")
    return int(digits), tags


def _one_set(placed: dict[tuple[str, int], tuple[Field, Tags]], number: int) -> _Set | Trouble:
    try:
        results_field, _ = placed[_RESULTS, number]
        signature_field, signature_tags = placed[_SIGNATURE, number]
        seal_field, seal_tags = placed[_SEAL, number]
    except KeyError:
        return Trouble("fail", f"the ARC set {number} is not complete")
    over_message = signature.arc_message_signature(signature_field.raw, signature_tags)
    if isinstance(over_message, Trouble):
        return Trouble("fail", f"ARC-Message-Signature {number}: {over_message.reason}")
    seal = signature.arc_seal(seal_field.raw, seal_tags)
    if isinstance(seal, Trouble):
        return Trouble("fail", f"seal {number}: {seal.reason}")
    status = seal_tags[b"cv"]
    return _Set(results_field, over_message, signature_field, seal, seal_field, status)


def _broken_status(sets: Sequence[_Set]) -> Trouble | None:
    """RFC 8617 5.2, steps 2 and 3: what each sealer said of the chain it had got."""
    if sets[-1].status == b"fail":
        return Trouble("fail", "the newest sealer got a chain that did not pass")
    for number, each in enumerate(sets, 1):
        if each.status != (b"none" if number == 1 else b"pass"):
            return Trouble("fail", f"the status in seal {number} cannot be (cv=)")
    return None


async def _judge(
    resolver: Resolver, message: signed.Message, sets: Sequence[_Set]
) -> int | Trouble:
    """The oldest instance whose message signature holds, 0 for all, or why the chain fails."""
    names = {each.key_name for one in sets for each in (one.seal, one.message_signature)}
    found = await keys.find(resolver, names)
    newest = sets[-1].message_signature
    broken = [_header_trouble(message, newest, found)]
    for number in range(len(sets), 0, -1):
        await asyncio.sleep(0)
        broken.append(_seal_trouble(message, sets[:number], found))
    troubles = [each for each in broken if each is not None]
    # Whatever a key that is not known now may say later, a broken chain stays broken.
    if troubles:
        return min(troubles, key=lambda trouble: trouble.verdict == "temperror")
    return await _oldest(message, [each.message_signature for each in sets], found)


async def _oldest(
    message: signed.Message, signatures: Sequence[Signature], found: dict[str, Found]
) -> int | Trouble:
    """RFC 8617 5.2, steps 4 and 5, for signatures of which the newest fits the header."""
    hashes = await message.body_hashes({signed.wanted(each) for each in signatures})
    newest = _body_trouble(signatures[-1], hashes)
    if newest:
        return newest
    for number in range(len(signatures) - 1, 0, -1):
        await asyncio.sleep(0)
        older = signatures[number - 1]
        if _body_trouble(older, hashes) or _header_trouble(message, older, found):
            return number + 1
    return 0


def _header_trouble(
    message: signed.Message, given: Signature, found: dict[str, Found]
) -> Trouble | None:
    outcome = signed.judge_header(message, given, found[given.key_name])
    return None if isinstance(outcome, Key) else _in_chain(outcome, "ARC-Message-Signature")


def _body_trouble(given: Signature, hashes: dict[signed.Wanted, signed.BodyHash]) -> Trouble | None:
    outcome = signed.judge_body(given, hashes)
    return _in_chain(outcome, "ARC-Message-Signature") if outcome else None


def _seal_trouble(
    message: signed.Message, sets: Sequence[_Set], found: dict[str, Found]
) -> Trouble | None:
    """RFC 8617 5.1.1: a seal is over all sets up to its own, relaxed, from the oldest."""
    seal = sets[-1].seal
    fitting = keys.fitting(found[seal.key_name], seal)
    if isinstance(fitting, Trouble):
        return _in_chain(fitting, f"seal {len(sets)}")
    running = hashlib.sha256()
    for each in sets:
        for field in (each.results, each.signature_field, each.seal_field):
            if field is not sets[-1].seal_field:
                running.update(message.relaxed(field))
    running.update(signed.own_field(seal))
    digest = running.digest()
    if any(key.verifies(seal.signed, digest) for key in fitting):
        return None
    return Trouble("fail", f"seal {len(sets)} does not fit")


def _in_chain(trouble: Trouble, where: str) -> Trouble:
    """RFC 8617 5.2 knows pass and fail; only what was not answered is left open."""
    verdict = trouble.verdict if trouble.verdict == "temperror" else "fail"
    return Trouble(verdict, f"{where}: {trouble.reason}")


def _told(trouble: Trouble) -> Finding:
    return Finding("arc", trouble.verdict, reason=trouble.reason)


def _plain_parts(value: bytes) -> list[str]:
    """What stands between semicolons, without comments, strings and escapes."""
    parts, kept, depth, quoted, start = [], bytearray(), 0, False, 0
    for mark in _MARKS.finditer(value):
        if not depth and not quoted:
            kept += value[start : mark.start()]
        start = mark.end()
        match mark[0]:
            case b'"' if not depth:
                quoted = not quoted
            case b"(" if not quoted:
                depth += 1
                kept += b" "
            case b")" if not quoted and depth:
                depth -= 1
            case b";" if not quoted and not depth:
                parts.append(kept.decode("utf-8", "replace"))
                kept = bytearray()
    if not depth and not quoted:
        kept += value[start:]
    parts.append(kept.decode("utf-8", "replace"))
    return parts
