"""Nobody's message holds the event loop, whatever is in it, and a deadline ends the work."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import random
import time

import pytest

from doubles import FakeResolver
from loops import longest_hold
from mailgw.checks import arc, dkim
from signers import KEY_NAME, MAIL, chain, chain_world, rsa_signer, signature

MOST = 20.0
SIZE = 20_000_000
HEADER = MAIL.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
BODIES = {
    "spaces": b" " * SIZE,
    "lines of blanks": (b" \t" * 499 + b"\r\n") * (SIZE // 1000),
    "line ends": b"\r\n" * (SIZE // 2),
    "line ends and a CR": b"\r\n" * (SIZE // 2) + b"\r",
    "CRs": b"\r" * SIZE,
    "LFs": b"\n" * SIZE,
    "one line": b"x" * SIZE,
    "lines of 998 octets": (b"y" * 998 + b"\r\n") * (SIZE // 1000),
    "pairs of blanks": b"a  " * (SIZE // 3),
    "random": random.Random(1).randbytes(SIZE),
}


def world() -> FakeResolver:
    return FakeResolver({"TXT": {KEY_NAME: [rsa_signer().record]}})


@pytest.fixture(autouse=True)
async def key_known() -> None:
    """The first key that is read loads a library; that is the start of a process."""
    await dkim.check(world(), signature(MAIL) + MAIL)


@pytest.mark.parametrize("body", BODIES)
async def test_a_body_of_20_mb_under_ten_signatures_holds_the_loop_for_moments(body: str) -> None:
    # They sign the header rightly, so the body is looked at; what they say of it is wrong.
    forms = ["relaxed/relaxed", "relaxed/simple"] * 5
    fields = [
        signature(HEADER, {"c": form, "bh": "AAAA", "l": str(n * 1_000_003)})
        for n, form in enumerate(forms)
    ]

    findings, held = await longest_hold(
        dkim.check(world(), b"".join(fields) + HEADER + BODIES[body])
    )

    assert len(findings) == 10
    assert {found.reason for found in findings} <= {
        "the body hash does not fit the body",
        "the body is shorter than l= says",
    }
    assert held < MOST


HEADERS = {
    "one field": b"X: " + b"y" * SIZE + b"\r\n",
    "one field of blanks": b"X: " + b" " * SIZE + b"\r\n",
    "one field of folds": b"X: " + b"\r\n " * (SIZE // 3) + b"\r\n",
    "fields": b"X: y\r\n" * (SIZE // 6),
    "no end": b"X" * SIZE,
    "a signature of blanks": b"DKIM-Signature: v=1; b" + b" " * SIZE + b"\r\n",
    "a signature of folds, that fits": b"DKIM-Signature: v=1; b" + b"\r\n " * 5000 + b"!\r\n",
    "a signature of tags": b"DKIM-Signature: "
    + b"".join(b"a%x=;" % n for n in range(2400))
    + b"\r\n",
    "a signature of semicolons": b"DKIM-Signature: " + b";" * 16_000 + b"\r\n",
    "names": b"DKIM-Signature: v=1; h=" + b"from:" * 3000 + b"; b=AAAA\r\n",
}


@pytest.mark.parametrize("header", HEADERS)
async def test_a_header_of_20_mb_holds_the_loop_for_moments(header: str) -> None:
    content = HEADERS[header] * (1 if len(HEADERS[header]) > 1_000_000 else 10) + MAIL

    findings, held = await longest_hold(dkim.check(world(), content))
    chain, held_by_arc = await longest_hold(arc.check(world(), content))

    assert {found.verdict for found in findings} <= {"permerror", "none"}
    assert chain.finding.verdict in ("permerror", "none")
    assert max(held, held_by_arc) < MOST


async def test_a_thousand_fields_under_ten_signatures_hold_the_loop_for_moments() -> None:
    extra = b"".join(b"X-%d: %s\r\n" % (n, b"z \t" * 50) for n in range(950))
    names = ":".join(["from", *(f"x-{n}" for n in range(950))])
    content = extra + HEADER
    field = signature(content, {"h": names})

    findings, held = await longest_hold(dkim.check(world(), field * 10 + content))

    assert [found.verdict for found in findings] == ["pass"] * 10
    assert held < MOST


async def test_fifty_arc_sets_hold_the_loop_for_moments() -> None:
    resolver = FakeResolver({"TXT": chain_world(50)})
    digest = hashlib.sha256(BODIES["one line"] + b"\r\n").digest()
    sets = chain(HEADER, 50, extra={"bh": base64.b64encode(digest).decode()})

    found, held = await longest_hold(arc.check(resolver, sets + BODIES["one line"]))

    assert found.finding.verdict == "pass"
    assert held < MOST


async def test_d3_two_hundred_arc_sets_ask_nobody_and_hold_the_loop_for_moments() -> None:
    resolver = FakeResolver({"TXT": chain_world(200)})

    found, held = await longest_hold(arc.check(resolver, chain(MAIL, 200)))

    assert found.finding.verdict == "fail"
    assert found.finding.reason == "there are more than 50 ARC sets"
    assert resolver.asked == []
    assert held < MOST


async def test_a_deadline_stops_the_work() -> None:
    content = signature(HEADER, {"bh": "AAAA"}) + HEADER + BODIES["one line"]
    task = asyncio.ensure_future(dkim.check(world(), content))
    # A few turns in, it is in the body: 150 slices are before it.
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()

    task.cancel()
    await asyncio.wait([task], timeout=5)

    assert task.cancelled()


async def test_a_message_of_10_kb_takes_less_than_a_millisecond_of_work() -> None:
    body = b"".join(b"%s\r\n" % os.urandom(36).hex().encode() for _ in range(140))
    content = signature(HEADER + body) + HEADER + body
    resolver = world()

    costs = []
    for _ in range(50):
        before = time.thread_time()
        [finding] = await dkim.check(resolver, content)
        costs.append(time.thread_time() - before)

    assert finding.verdict == "pass"
    assert min(costs) < 0.001
