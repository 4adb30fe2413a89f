"""SPF: whose word is asked for, what it costs at most, and what strangers cannot do with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import spf as pyspf
from hypothesis import given, settings
from hypothesis import strategies as some

from doubles import FakeResolver, Records
from mailgw.checks.spf import Limits, check
from mailgw.dns import Answer
from mailgw.mail.finding import Finding

IP, IP6 = "192.0.2.5", "2001:db8::5"


def saying(records: Mapping[str, str], **more: Records) -> FakeResolver:
    """A world with these SPF records, and what else there is by type."""
    return FakeResolver({"TXT": {name: [text] for name, text in records.items()}, **more})


async def ask(
    resolver: FakeResolver,
    sender: str | None = "joe@a.test",
    helo: str | None = None,
    ip: str = IP,
    limits: Limits | None = None,
) -> tuple[Finding, ...]:
    return await check(
        resolver,
        ip=ip,
        helo=helo,
        reverse_path=sender,
        hostname="mx.ours.test",
        limits=limits or Limits(),
    )


async def verdict(record: str, sender: str = "joe@a.test", ip: str = IP, **more: Records) -> str:
    [found] = await ask(saying({"a.test": record}, **more), sender, ip=ip)
    return found.verdict


# Whose word is asked for.


async def test_the_sender_comes_first_and_then_the_name_of_the_client() -> None:
    resolver = saying({"a.test": "v=spf1 -all", "mx.b.test": "v=spf1 ip4:192.0.2.0/24 -all"})
    mail_from, helo = await ask(resolver, "Joe@A.Test", "MX.b.test.")
    assert (mail_from.check, mail_from.verdict, mail_from.domain) == ("spf", "fail", "a.test")
    assert mail_from.properties == mail_from.members == (("smtp.mailfrom", "Joe@A.Test"),)
    assert (helo.check, helo.verdict, helo.domain) == ("spf", "pass", "mx.b.test")
    assert helo.properties == helo.members == (("smtp.helo", "MX.b.test."),)
    assert mail_from.milliseconds > 0


async def test_of_the_null_sender_there_is_the_name_only() -> None:
    exists = {"postmaster.at.mx.b.test": ["127.0.0.1"]}
    resolver = saying({"mx.b.test": "v=spf1 exists:%{l}.at.%{o} -all"}, A=exists)
    [helo] = await ask(resolver, None, "mx.b.test")
    assert (helo.verdict, helo.properties) == ("pass", (("smtp.helo", "mx.b.test"),))


async def test_who_says_nothing_of_himself_has_a_finding_without_a_name() -> None:
    [found] = await ask(saying({}), None, None)
    assert (found.verdict, found.properties, found.domain) == ("none", (), "")


NO_DOMAINS = ["[192.0.2.5]", "[IPv6:2001:db8::5]", "192.0.2.5", "2001:db8::5", "localhost", ""]
NO_DOMAINS += [
    "a..test",
    "a b.test",
    "x" * 64 + ".test",
    "x." * 130 + "test",
    "\udcff.test",
    "a\0.test",
]


@pytest.mark.parametrize("name", NO_DOMAINS)
async def test_trap_s3_what_is_no_domain_is_not_asked_about(name: str) -> None:
    resolver = saying({})
    found = await ask(resolver, f"joe@{name}", name)
    assert [each.verdict for each in found] == ["none", "none"]
    assert [each.domain for each in found] == ["", ""]
    assert not resolver.asked


async def test_a_domain_in_a_quoted_local_part_is_not_the_domain() -> None:
    resolver = saying({"good.test": "v=spf1 +all", "a.test": "v=spf1 -all"})
    [found] = await ask(resolver, '"x@good.test"@a.test')
    assert (found.verdict, found.domain) == ("fail", "a.test")


async def test_a_domain_in_unicode_is_asked_about_in_a_labels() -> None:
    resolver = saying({"xn--bcher-kva.test": "v=spf1 +all"})
    [found] = await ask(resolver, "jürgen@Bücher.test")
    assert (found.verdict, found.domain) == ("pass", "xn--bcher-kva.test")


@pytest.mark.parametrize("ip", [IP, "::ffff:192.0.2.5"])
async def test_a_mapped_address_is_the_ipv4_address(ip: str) -> None:
    assert await verdict("v=spf1 ip4:192.0.2.5 -all", ip=ip) == "pass"


# Three kinds of nothing.


async def test_no_record_no_name_and_no_answer_are_different() -> None:
    world = {"TXT": {"other.test": ["v=spf2 +all"]}}
    resolver = FakeResolver(world, fail=["down.test"])
    found = [(await ask(resolver, f"joe@{name}.test"))[0] for name in ("other", "absent", "down")]
    assert [each.verdict for each in found] == ["none", "none", "temperror"]
    assert found[2].reason == "nobody answers about TXT records"


async def test_an_include_that_nobody_answers_about_is_a_temperror() -> None:
    resolver = FakeResolver({"TXT": {"a.test": ["v=spf1 include:b.test -all"]}}, fail=["b.test"])
    [found] = await ask(resolver)
    assert found.verdict == "temperror"


async def test_names_of_the_client_that_nobody_answers_about_do_not_match() -> None:
    # RFC 7208 5.5: neither the PTR question nor one of the addresses is an error.
    record = {"a.test": ["v=spf1 ptr:b.test -all"]}
    world: dict[str, Records] = {"TXT": record, "PTR": {IP: ["down.test", "mx.b.test"]}}
    world["A"] = {"mx.b.test": [IP]}
    [one_is_down] = await ask(FakeResolver(world, fail=["down.test"]))
    [all_are_down] = await ask(FakeResolver(world, fail=[IP]))
    assert (one_is_down.verdict, all_are_down.verdict) == ("pass", "fail")


# What it costs at most.


async def test_terms_that_ask_are_counted_and_the_limit_is_a_setting() -> None:
    chain = {f"{number}.test": f"v=spf1 include:{number + 1}.test" for number in range(40)}
    for limit in (10, 3):
        resolver = saying(chain)
        [found] = await ask(resolver, "joe@0.test", limits=Limits(lookups=limit))
        assert (found.verdict, found.reason) == ("permerror", "too many terms that ask the DNS")
        assert len(resolver.asked) == limit + 1


async def test_more_levels_than_pyspf_walks_are_a_verdict_too() -> None:
    chain = {f"{number}.test": f"v=spf1 include:{number + 1}.test" for number in range(40)}
    [found] = await ask(saying(chain), "joe@0.test", limits=Limits(lookups=60))
    assert found.verdict == "permerror"


async def test_terms_that_find_nothing_are_counted_and_the_limit_is_a_setting() -> None:
    records = {"a.test": "v=spf1 a:x.test a:y.test a:z.test +all"}
    [found] = await ask(saying(records))
    [spared] = await ask(saying(records), limits=Limits(void_lookups=3))
    assert (found.verdict, found.reason) == ("permerror", "too many look-ups that find nothing")
    assert spared.verdict == "pass"


async def test_exchangers_without_ipv6_are_no_error_for_a_client_with_it() -> None:
    mx = {"a.test": [(10, f"mx{number}.test") for number in range(4)]}
    hosts = {f"mx{number}.test": ["192.0.2.9"] for number in range(4)}
    assert await verdict("v=spf1 mx +all", ip=IP6, MX=mx, A=hosts) == "pass"


async def test_exchangers_are_asked_about_once_each_and_of_eleven_none() -> None:
    for number, asked in ((10, 12), (11, 2)):
        mx = {"a.test": [(10, f"mx{each}.test") for each in range(number)]}
        resolver = saying({"a.test": "v=spf1 mx mx:A.test -all"}, MX=mx)
        [found] = await ask(resolver)
        assert found.verdict == ("fail" if number == 10 else "permerror")
        assert len(resolver.asked) == asked


async def test_of_the_names_of_a_client_ten_are_asked_about() -> None:
    names = {IP: [f"n{number}.test" for number in range(200)]}
    resolver = saying({"a.test": "v=spf1 ptr exists:%{p}.a.test -all"}, PTR=names)
    await ask(resolver)
    assert sum(kind == "A" and name.startswith("n") for kind, name in resolver.asked) == 10


async def test_exchangers_are_asked_about_side_by_side() -> None:
    class Waiting(FakeResolver):
        """Answers about addresses once all five are asked for."""

        def __init__(self, world: Mapping[str, Records]) -> None:
            super().__init__(world)
            self._together = asyncio.Barrier(5)

        async def a(self, name: str) -> Answer[str]:
            await self._together.wait()
            return Answer((IP,))

    hosts = [(10, f"mx{number}.test") for number in range(5)]
    resolver = Waiting({"TXT": {"a.test": ["v=spf1 mx -all"]}, "MX": {"a.test": hosts}})
    [found] = await asyncio.wait_for(ask(resolver), 10)
    assert found.verdict == "pass"


async def test_no_explanation_is_asked_for() -> None:
    resolver = saying({"a.test": "v=spf1 -all exp=why.test", "why.test": "because"})
    [found] = await ask(resolver)
    assert (found.verdict, found.reason) == ("fail", "")
    assert resolver.asked == [("TXT", "a.test")]


TOO_LONG = "the records are too long"
# Each pair: a record, and why we do not read it (or that we do).
BOUNDS = {
    "a record of 60 kB": ("v=spf1 " + "ip4:192.0.2.1 " * 4300, TOO_LONG),
    "2,000 terms": ("v=spf1" + " a" * 2000, TOO_LONG),
    "3,000 macros": ("v=spf1 exists:" + "%{s}" * 3000 + ".test", TOO_LONG),
    "a term that is all labels": ("v=spf1 exists:" + "a." * 4000 + "%{d}", TOO_LONG),
    "modifiers": ("v=spf1 " + " ".join(f"m{number}=x" for number in range(40)), TOO_LONG),
    "a line end": ("v=spf1 a/24\n -all", "control characters in the record"),
    "400 networks": ("v=spf1 " + "ip4:198.51.100.7 " * 400 + "+all", ""),
}


@pytest.mark.parametrize(("record", "reason"), BOUNDS.values(), ids=BOUNDS)
async def test_what_is_longer_than_anybody_needs_is_a_permerror(record: str, reason: str) -> None:
    [found] = await ask(saying({"a.test": record}))
    assert (found.verdict, found.reason) == ("permerror" if reason else "pass", reason)


async def test_a_host_with_thousands_of_addresses_is_a_permerror() -> None:
    many = [f"10.0.{number // 250}.{number % 250}" for number in range(2000)]
    [found] = await ask(saying({"a.test": "v=spf1 a -all"}, A={"a.test": many}))
    assert (found.verdict, found.reason) == ("permerror", "too many addresses to compare with")


# Records that are as expensive as our bounds let them be, one for each way to spend.
WORST = {
    "IPv4 networks": " ".join(f"ip4:10.0.{n // 256}.{n % 256}/31" for n in range(430)),
    "IPv6 networks": " ".join(f"ip6:2001:db8:1:{n:x}::/99" for n in range(320)),
    "macros": " ".join(["exists:" + "%{s9r-.+}" * 12] * 10),
    "percent signs": " ".join(["x=" + "%{" * 120]),
    "labels": " ".join(["exists:" + "a." * 245 + "%{d}"] * 10),
    "one label": " ".join(["exists:a." + "a" * 480 + "!"] * 16),
    "digits": "exists:%{d" + "9" * 480 + "}.test",
    "delimiters": " ".join(["exists:%{d" + "." * 490] * 16),
}


@pytest.mark.parametrize("terms", WORST.values(), ids=WORST)
async def test_no_record_holds_the_event_loop(terms: str) -> None:
    world = {f"{number}.a.test": f"v=spf1 include:{number + 1}.a.test" for number in range(9)}
    world |= {"9.a.test": f"v=spf1 {terms} -all"}
    longest, last = 0.0, time.thread_time()

    async def watch() -> None:
        nonlocal longest, last
        while True:
            longest, last = max(longest, time.thread_time() - last), time.thread_time()
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    [found] = await ask(saying(world), "a-b" * 20 + "@0.a.test", ip=IP6 if "ip6" in terms else IP)
    watching.cancel()
    assert found.verdict in ("permerror", "fail", "neutral")
    # A few milliseconds; what is slow here takes seconds.
    assert longest < 0.1


async def test_whoever_stops_waiting_stops_it() -> None:
    class Never(FakeResolver):
        async def txt(self, name: str) -> Answer[bytes]:
            await asyncio.Event().wait()
            raise AssertionError

    asking = asyncio.create_task(ask(Never({})))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


# Macros, and what pyspf would read otherwise.


@pytest.mark.parametrize(
    ("macro", "name"),
    [
        ("%{s}", "joe-x@b.a.test"),
        ("%{l-}.%{d1}", "joe.x.test"),
        ("%{lr-}", "x.joe"),
        ("%{d99999999999}", "b.a.test"),
        ("%{ir}.%{v}", "5.2.0.192.in-addr"),
        ("%{S}", "joe-x%40b.a.test"),
        ("%{p}", "unknown"),
        ("%{h}", ""),
    ],
)
async def test_macros(macro: str, name: str) -> None:
    resolver = saying({"b.a.test": f"v=spf1 exists:{macro}.list.test -all"})
    await ask(resolver, "joe-x@b.a.test")
    asked = [asked for kind, asked in resolver.asked if kind == "A"]
    assert asked == ([f"{name}.list.test"] if name else [])


@pytest.mark.parametrize("macro", ["%{d0}", "%{c}", "%{x}", "%{d", "%", "%(d)", "%{d2,x}", "%{}"])
async def test_what_is_no_macro_is_a_permerror(macro: str) -> None:
    assert await verdict(f"v=spf1 exists:{macro}.test -all") == "permerror"


async def test_a_name_that_is_too_long_loses_labels_on_the_left_until_it_fits() -> None:
    resolver = saying({"a.test": "v=spf1 exists:" + "%{l}." * 5 + "list.test -all"})
    await ask(resolver, "x" * 49 + "." + "y" * 10 + "@a.test")
    [(_, name)] = [each for each in resolver.asked if each[0] == "A"]
    assert len(name) <= 253
    assert name == ".".join([*["x" * 49, "y" * 10] * 4, "list.test"])


async def test_a_local_part_in_unicode_matches_nothing_and_is_no_error() -> None:
    # RFC 8616 4.
    record = "v=spf1 " + "exists:%{l}.test " * 4 + "-all"
    resolver = saying({"a.test": record})
    [found] = await ask(resolver, "jürgen@a.test")
    assert found.verdict == "fail"
    assert resolver.asked == [("TXT", "a.test")]


async def test_modifiers_have_no_case() -> None:
    resolver = saying({"a.test": "v=spf1 REDIRECT=b.test", "b.test": "V=SPF1 -all"})
    [found] = await ask(resolver)
    assert found.verdict == "fail"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("v=spf1 include:no.test -all", "an included domain has no SPF record"),
        ("v=spf1 redirect=no.test", "the redirect domain has no SPF record"),
        ("v=spf1 includ:\u202eb.test", "the record is not ASCII"),
        ("v=spf1 <script>:b.test -all", "unknown mechanism in the record"),
        ("v=spf1 ip4:300.1.1.1", "bad network in the record"),
        ("v=spf1 a:b", "bad domain in the record"),
        ("v=spf1 redirect=b.test redirect=c.test", "the record is not valid"),
    ],
)
async def test_a_reason_is_in_our_words(record: str, reason: str) -> None:
    [found] = await ask(saying({"a.test": record}))
    assert (found.verdict, found.reason) == ("permerror", reason)


# The traps of the library.


@pytest.mark.parametrize("ip", ["fe80::1%eth0", "", "unix", "192.0.2", "list", "1.2.3.4%"])
async def test_trap_s1_an_odd_address_of_the_client_is_a_verdict(ip: str) -> None:
    [found] = await ask(saying({"a.test": "v=spf1 ip6:fe80::/10 -all"}), ip=ip)
    assert found.verdict == {"fe80::1%eth0": "pass", "1.2.3.4%": "fail"}.get(ip, "none")


@pytest.mark.parametrize("name", ["\ud800.test", "ß\u0301.test", "x" * 300, "xn--\x80.test"])
async def test_trap_s1_an_odd_name_is_a_verdict(name: str) -> None:
    found = await ask(saying({"a.test": f"v=spf1 a:{'%{h}.' * 9}test -all"}), "joe@a.test", name)
    assert [each.verdict for each in found] == ["fail", "none"]


async def test_trap_s2_pyspf_itself_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(pyspf, "DNSLookup", lambda *question: asked.append(question) or [])
    record = "v=spf1 a mx ptr exists:%{p}.test include:b.test redirect=c.test exp=d.test"
    for ip in (IP, IP6):
        await ask(saying({"a.test": record}), "joe@a.test", "host", ip=ip)
    assert not asked


def test_trap_s4_the_version_is_the_one_that_the_suites_were_run_with() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    assert f'"pyspf=={version("pyspf")}"' in project
    assert version("pyspf") == "2.0.14"


TERMS = some.lists(
    some.one_of(
        some.text(max_size=30),
        some.from_regex(r"[?+~-]?(a|mx|ptr|exists|include|ip4|ip6|all)[:/=]?.{0,20}"),
        some.from_regex(
            r"(exists:|exp=|redirect=|x=)(%\{[slodiphvcrt]\d{0,3}r?[.+-]?\}\.){1,4}test"
        ),
    ),
    max_size=12,
)
NAMES = some.one_of(
    some.text(max_size=40), some.sampled_from(["a.test", "b.test", "[::1]", "a" * 300])
)


@settings(max_examples=300, deadline=None)
@given(
    ip=some.one_of(some.ip_addresses().map(str), some.text(max_size=20)),
    helo=some.none() | NAMES,
    sender=some.none() | some.tuples(some.text(max_size=70), NAMES).map("@".join) | NAMES,
    terms=TERMS,
    other=some.text(max_size=100),
)
def test_nothing_that_strangers_write_raises(
    ip: str, helo: str | None, sender: str | None, terms: list[str], other: str
) -> None:
    resolver = saying(
        {
            "a.test": " ".join(["v=spf1", *terms]).encode("utf-8", "replace").decode(),
            "b.test": other,
        },
        MX={"a.test": [(1, other), (2, "b.test")]},
        PTR={IP: [other, "a.test"]},
        A={"a.test": [IP]},
    )
    for reverse_path in (sender, "joe@a.test"):
        found = asyncio.run(ask(resolver, reverse_path, helo, ip))
        assert 1 <= len(found) <= 2
        assert all(each.reason.isascii() and each.reason.isprintable() for each in found)
        # The fence is for what nobody has thought of; nothing is known to need it.
        assert all(each.reason != "the record cannot be evaluated" for each in found)
