"""ARC: chains that hold, chains that do not, and what their sealers saw."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import FakeResolver
from mailgw.checks import arc
from mailgw.checks.arc import Chain, Seal
from signers import KEY_NAME, MAIL, chain, chain_world, seal, signature


def world(number: int = 3, fail: tuple[str, ...] = ()) -> FakeResolver:
    return FakeResolver({"TXT": chain_world(number)}, fail=fail)


async def judged(content: bytes, resolver: FakeResolver | None = None) -> Chain:
    return await arc.check(resolver or world(), content)


async def test_without_sets_there_is_no_chain() -> None:
    found = await judged(MAIL)

    assert (found.finding.verdict, found.seals) == ("none", ())


async def test_a_chain_that_holds_tells_who_sealed_it_and_what_they_saw() -> None:
    found = await judged(chain(MAIL, 2))

    saw = (("spf", "pass"), ("dkim", "fail"))
    assert found.seals == (Seal(1, "r1.test", saw), Seal(2, "r2.test", saw))
    assert found.finding.verdict == "pass"
    assert found.finding.domain == "r2.test"
    assert found.finding.properties == (("header.oldest-pass", "0"),)
    assert found.finding.members == (("sealer", "r2.test"), ("instances", 2))


async def test_the_oldest_signature_that_holds_is_named() -> None:
    # RFC 8617 5.2, step 5: the second sealer changed the message and signed it anew.
    before = MAIL.replace(b"Are you", b"Were you")
    sets = chain(before, 1).removesuffix(before)
    newer = chain_on_top(sets, 2)

    found = await judged(newer + sets + MAIL)

    assert found.finding.verdict == "pass"
    assert found.finding.properties == (("header.oldest-pass", "2"),)


def chain_on_top(sets: bytes, instance: int) -> bytes:
    """One more set over those that are there (from the newest), for MAIL."""
    fields = list(reversed(sets.splitlines(keepends=True)))
    results = b"ARC-Authentication-Results: i=%d; x; arc=pass\r\n" % instance
    tags = {"i": str(instance), "h": "from:to:subject"}
    over_message = signature(MAIL, tags, name="ARC-Message-Signature", without="v")
    own = seal([*fields, results, over_message], instance, "pass")
    return own + over_message + results


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Are you", b"Were you"),
        (b"Subject: dinner", b"Subject: money"),
        (b"spf=pass", b"spf=none"),
        (b"ARC-Seal: i=1;", b"X-Seal: i=1;"),
        (b"ARC-Seal: i=1;", b"ARC-Seal: i=3;"),
        (b"ARC-Seal: i=1;", b"ARC-Seal: i=2;"),
        (b"ARC-Seal: i=1;", b"ARC-Seal: i=0;"),
        (b"ARC-Seal: i=1;", b"ARC-Seal: i=51;"),
        (b"ARC-Seal: i=1;", b"ARC-Seal: i=x;"),
        (b"ARC-Seal: i=1;", b"ARC-Seal: "),
        (b"ARC-Seal: i=1;", b"ARC-Seal: i=1; h=from;"),
        (b"a=rsa-sha256; cv", b"a=rsa-sha1; cv"),
        (b"s=s1; b=", b"s=s2; b="),
        (b"Results: i=2;", b"Results: i=2"),
    ],
)
async def test_a_chain_that_was_altered_fails(old: bytes, new: bytes) -> None:
    content = chain(MAIL, 2)
    assert old in content

    found = await judged(content.replace(old, new))

    assert found.finding.verdict == "fail"
    assert found.finding.properties == ()


@pytest.mark.parametrize("statuses", [{1: "pass"}, {2: "none"}, {2: "fail"}, {1: "fail"}])
async def test_what_the_sealers_say_of_the_chain_must_fit(statuses: dict[int, str]) -> None:
    found = await judged(chain(MAIL, 2, statuses))

    assert found.finding.verdict == "fail"


async def test_a_set_that_is_there_twice_fails() -> None:
    content = chain(MAIL, 1)
    sets = content.removesuffix(MAIL)

    found = await judged(sets + content)

    assert found.finding.verdict == "fail"


async def test_a_key_that_nobody_answers_for_leaves_the_chain_open() -> None:
    resolver = world(fail=("s1._domainkey.r1.test",))

    found = await judged(chain(MAIL, 2), resolver)

    assert found.finding.verdict == "temperror"
    assert [seal.domain for seal in found.seals] == ["r1.test", "r2.test"]


async def test_a_broken_chain_fails_although_nobody_answered() -> None:
    resolver = world(fail=("s1._domainkey.r1.test",))

    found = await judged(chain(MAIL, 2).replace(b"Subject: d", b"Subject: x"), resolver)

    assert found.finding.verdict == "fail"


async def test_every_key_is_asked_for_once() -> None:
    resolver = world(50)

    found = await judged(chain(MAIL, 50), resolver)

    assert found.finding.verdict == "pass"
    assert len(resolver.asked) == len(set(resolver.asked)) == 51
    assert ("TXT", KEY_NAME) in resolver.asked


@pytest.mark.parametrize(
    ("value", "results"),
    [
        (b"i=1; mx.test; spf=pass smtp.mailfrom=a; DKIM=Fail", (("spf", "pass"), ("dkim", "fail"))),
        (b"i=1; mx.test; dkim/1 = pass", (("dkim", "pass"),)),
        (b"i=1; mx.test; (dmarc=pass) spf=none", (("spf", "none"),)),
        (b'i=1; mx.test; spf=fail reason="; dmarc=pass"', (("spf", "fail"),)),
        (b"i=1; mx.test; spf=fail (a (b; dmarc=pass) ; dmarc=pass)", (("spf", "fail"),)),
        (rb'i=1; mx.test; spf=fail reason="\"; dmarc=pass"', (("spf", "fail"),)),
        (b"i=1; mx.test; none", ()),
        (b"i=1; mx.test; spf=(c)", ()),
        (b'i=1; mx.test; "spf=pass', ()),
        (b"", ()),
    ],
)
def test_what_a_sealer_saw_is_read_leniently(
    value: bytes, results: tuple[tuple[str, str], ...]
) -> None:
    assert arc.results(value) == results


@pytest.mark.parametrize("unit", [b"(", b'"', b";", b"\\", b" ", b"a=b;", b"a/"])
def test_results_take_bounded_time(unit: bytes) -> None:
    before = time.thread_time()
    found = arc.results(unit * 1_000_000)

    assert len(found) <= 32
    assert time.thread_time() - before < 0.1


_SOME = st.one_of(
    st.sampled_from([b"i=1", b"a=rsa-sha256", b"d=sender.test", b"s=s1", b"h=from", b"cv=none"]),
    st.sampled_from([b"b=AAAA", b"bh=AAAA", b"i=", b"cv=", b"l=1"]),
    st.binary(max_size=12),
)
_NAMES = ["ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results"]
_FIELDS = st.lists(st.tuples(st.sampled_from(_NAMES), st.lists(_SOME, max_size=9)), max_size=5)


@given(fields=_FIELDS, tail=st.binary(max_size=60))
async def test_no_bytes_raise(fields: list[tuple[str, list[bytes]]], tail: bytes) -> None:
    header = b"".join(name.encode() + b": " + b"; ".join(v) + b"\r\n" for name, v in fields)

    found = await judged(header + b"\r\n" + tail)

    assert found.finding.verdict in ("none", "fail")
