"""DKIM: who signed a message, and whether it still is what was signed (RFC 6376, RFC 8463).

Laws. Every signature gets its own verdict, in the order of the header. The cheap comes
first: the text of a signature, its key, the header, and only for what is still standing
the body, once. Nothing that a stranger wrote leaves `check` as an exception, and nothing
holds the event loop for longer than a slice of a body takes (see signed.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailgw.checks import keys, signature, signed
from mailgw.checks.keys import Key
from mailgw.checks.signature import Signature, Tags, Trouble
from mailgw.dns import Resolver
from mailgw.mail.finding import Finding
from mailgw.mail.octets import Octets

# Mailing lists and forwarders add one each; three is much.
MOST_TRIED = 10
# RFC 6008 4: enough to tell the signatures of one message apart.
_SHORTEST_PREFIX = 8
_LONGEST_SHOWN = 253


@dataclass(frozen=True, slots=True)
class _Read:
    """A signature as it stands in the header; `outcome` until its key is known."""

    tags: Tags
    outcome: Signature | Trouble


async def check(
    resolver: Resolver, content: Octets, *, clock: Callable[[], float] = time.time
) -> tuple[Finding, ...]:
    """Verify every signature of a message: one Finding each, in the order of the header.

    Without a signature there is one that says `none`. At most MOST_TRIED are tried; what
    comes after them shares one Finding. `clock` tells seconds since 1970. Cancelling stops
    the work.
    """
    began = time.perf_counter()
    message = signed.read(content)
    if isinstance(message, Trouble):
        return (Finding("dkim", message.verdict, reason=message.reason),)
    fields = message.named("dkim-signature")
    if not fields:
        return (Finding("dkim", "none", reason="the message is not signed"),)
    read = []
    for field in fields[:MOST_TRIED]:
        read.append(_read(field.raw, clock()))
        await asyncio.sleep(0)
    outcomes = await _judge(resolver, message, [each.outcome for each in read])
    milliseconds = (time.perf_counter() - began) * 1000
    prefixes = _prefixes([each.tags.get(b"b", b"") for each in read])
    findings = [
        _finding(each, outcome, prefix, milliseconds)
        for each, outcome, prefix in zip(read, outcomes, prefixes, strict=True)
    ]
    if len(fields) > MOST_TRIED:
        reason = f"{len(fields) - MOST_TRIED} more signatures were not tried"
        findings.append(Finding("dkim", "policy", reason=reason, milliseconds=milliseconds))
    return tuple(findings)


def _read(raw: bytes, now: float) -> _Read:
    tags = signature.read_tags(raw)
    if isinstance(tags, Trouble):
        return _Read({}, tags)
    given = signature.dkim_signature(raw, tags)
    return _Read(tags, given if isinstance(given, Trouble) else given.expired(now) or given)


async def _judge(
    resolver: Resolver, message: signed.Message, outcomes: Sequence[Signature | Trouble]
) -> list[Key | Trouble]:
    """For each: the key with which it verifies, or why it does not."""
    names = {each.key_name for each in outcomes if isinstance(each, Signature)}
    found = await keys.find(resolver, names)
    judged: list[Key | Trouble] = []
    standing: list[Signature] = []
    for each in outcomes:
        if isinstance(each, Trouble):
            judged.append(each)
            continue
        outcome = signed.judge_header(message, each, found[each.key_name])
        judged.append(outcome)
        if isinstance(outcome, Key):
            standing.append(each)
        await asyncio.sleep(0)
    hashes = await message.body_hashes({signed.wanted(each) for each in standing})
    return [
        signed.judge_body(each, hashes) or outcome
        if isinstance(each, Signature) and isinstance(outcome, Key)
        else outcome
        for each, outcome in zip(outcomes, judged, strict=True)
    ]


def _finding(read: _Read, outcome: Key | Trouble, prefix: str, milliseconds: float) -> Finding:
    domain = _shown(read.tags.get(b"d", b""))
    selector = _shown(read.tags.get(b"s", b""))
    algorithm = _shown(read.tags.get(b"a", b""))
    # RFC 6376 3.5: without i= it is the domain, without a local part.
    identity = _shown(read.tags.get(b"i", b"")) or (f"@{domain}" if domain else "")
    properties = {
        "header.d": domain,
        "header.s": selector,
        "header.i": identity,
        "header.b": prefix,
        "header.a": algorithm,
    }
    members = {
        "domain": domain,
        "selector": selector,
        "header.i": identity,
        "header.b": prefix,
        "algorithm": algorithm,
    }
    if isinstance(outcome, Key):
        # RFC 6376 3.6.1: a signature of a domain that tests is worth no less.
        outcome = Trouble("pass", "the domain is testing DKIM (t=y)" if outcome.testing else "")
    return Finding(
        "dkim",
        outcome.verdict,
        properties=tuple((name, value) for name, value in properties.items() if value),
        members=tuple((name, value) for name, value in members.items() if value),
        domain=signature.a_labels(read.tags.get(b"d", b"")),
        reason=outcome.reason,
        milliseconds=milliseconds,
    )


def _prefixes(texts: Sequence[bytes]) -> list[str]:
    """As much of each b= as tells it from the others (RFC 6008 4)."""
    prefixes = []
    for text in texts:
        others = [other for other in texts if other != text]
        length = _SHORTEST_PREFIX
        while length < len(text) and any(each.startswith(text[:length]) for each in others):
            length += 1
        prefixes.append(_shown(text[:length]))
    return prefixes


def _shown(value: bytes) -> str:
    return value[:_LONGEST_SHOWN].decode("utf-8", "replace")
