"""Where the usual library for DMARC goes wrong as a receiver (C1 to C7), and we do not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from doubles import Clock, FakeResolver
from mailgw.checks import dmarc
from mailgw.dns import AresResolver, Resolver
from mailgw.mail.finding import Finding, Verdict
from nameserver import NameServer, nameserver

REPORTS = "rua=mailto:a@reports.test,mailto:b@elsewhere.test; ruf=mailto:c@reports.test"
PATIENCE = 30


@asynccontextmanager
async def asking(server: NameServer, clock: Clock | None = None) -> AsyncIterator[AresResolver]:
    made = AresResolver(
        [("127.0.0.1", server.port)],
        timeout=10,
        min_ttl=30,
        capacity=10,
        clock=clock or Clock(0.0),
    )
    try:
        yield made
    finally:
        await made.close()


async def verdict(resolver: Resolver, domain: str, *passed: str) -> tuple[Verdict, str]:
    findings = [Finding("dkim", "pass", domain=each) for each in passed]
    found = await dmarc.check(resolver, f"From: a@{domain}\r\n\r\n".encode(), findings)
    return found.verdict, found.policy


async def test_c1_a_name_that_does_not_exist_is_judged_by_the_record_above_it() -> None:
    zone = {("_dmarc.bank.test", "TXT"): ['"v=DMARC1; p=none; sp=reject"']}
    with nameserver(zone) as server:
        async with asking(server) as resolver:
            assert await verdict(resolver, "mail.sub.bank.test") == ("fail", "reject")


async def test_c1_the_policy_for_names_that_do_not_exist_is_theirs() -> None:
    zone = {
        ("_dmarc.bank.test", "TXT"): ['"v=DMARC1; p=none; sp=quarantine; np=reject"'],
        ("there.bank.test", "MX"): ["10 mx.bank.test."],
    }
    with nameserver(zone) as server:
        async with asking(server) as resolver:
            assert await verdict(resolver, "gone.bank.test") == ("fail", "reject")
            assert await verdict(resolver, "there.bank.test") == ("fail", "quarantine")


async def test_c2_a_hit_takes_one_question_and_nobody_is_asked_about_reports() -> None:
    resolver = FakeResolver({"TXT": {"_dmarc.bank.test": [f"v=DMARC1; p=reject; {REPORTS}"]}})

    for passed in ((), ("bank.test",), ("elsewhere.example",)):
        resolver.asked.clear()
        await verdict(resolver, "bank.test", *passed)
        assert resolver.asked == [("TXT", "_dmarc.bank.test")]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (["v=spf1 -all", "v=DMARC1; p=reject", "google-site-verification=x"], ("fail", "reject")),
        (["v=spf1 -all"], ("none", "")),
        (["v=DMARC1; p=rejct; rua=mailto:a@bank.test"], ("fail", "none")),
        (["v=DMARC1; p=rejct"], ("none", "")),
    ],
)
async def test_c3_other_text_beside_the_record_and_a_wrong_p_are_what_the_rfc_makes_of_them(
    records: list[str], expected: tuple[Verdict, str]
) -> None:
    resolver = FakeResolver({"TXT": {"_dmarc.bank.test": records}})

    assert await verdict(resolver, "bank.test") == expected


@pytest.mark.parametrize("trouble", ["servfail", "refused", "garbage"])
async def test_c4_a_server_that_fails_is_a_temperror_and_never_no_record(trouble: str) -> None:
    with nameserver({("bank.test", "A"): ["192.0.2.1"]}) as server:
        server.behaviour["_dmarc.bank.test"] = trouble
        async with asking(server) as resolver:
            assert await verdict(resolver, "bank.test") == ("temperror", "")
            assert await verdict(resolver, "mail.bank.test") == ("temperror", "")
            assert await verdict(resolver, "other.test") == ("none", "")


async def test_c4_a_server_that_fails_to_say_whether_a_name_exists_is_a_temperror() -> None:
    zone = {("_dmarc.bank.test", "TXT"): ['"v=DMARC1; p=none; np=reject"']}
    with nameserver(zone) as server:
        server.behaviour["gone.bank.test"] = "servfail"
        async with asking(server) as resolver:
            assert await verdict(resolver, "gone.bank.test") == ("temperror", "")
            assert await verdict(resolver, "gone.bank.test", "bank.test") == ("pass", "")


async def test_c5_what_is_kept_has_its_time_also_that_there_is_none() -> None:
    name, clock = ("_dmarc.bank.test", "TXT"), Clock(0.0)
    # A time to live of nothing, so that the library under the resolver keeps nothing; the
    # resolver keeps it for its shortest time, by our clock.
    with nameserver({name: ['"v=DMARC1; p=reject"']}, ttl=0) as server:
        async with asking(server, clock) as resolver:
            assert await verdict(resolver, "bank.test") == ("fail", "reject")
            server.records[name] = ['"v=DMARC1; p=quarantine"']
            clock.now = 29
            assert await verdict(resolver, "bank.test") == ("fail", "reject")
            clock.now = 31
            assert await verdict(resolver, "bank.test") == ("fail", "quarantine")
            assert await verdict(resolver, "none.test") == ("none", "")
            asked = server.count("_dmarc.none.test")
            assert await verdict(resolver, "none.test") == ("none", "")
            assert server.count("_dmarc.none.test") == asked


async def test_c5_what_one_resolver_was_told_another_does_not_believe() -> None:
    name = ("_dmarc.bank.test", "TXT")
    with nameserver({name: ['"v=DMARC1; p=reject"']}) as one, nameserver({}) as other:
        async with asking(one) as first, asking(other) as second:
            assert await verdict(first, "bank.test") == ("fail", "reject")
            assert await verdict(second, "bank.test") == ("none", "")


async def test_c6_while_one_message_waits_for_the_dns_others_are_judged() -> None:
    zone = {
        ("_dmarc.slow.test", "TXT"): ['"v=DMARC1; p=quarantine"'],
        ("_dmarc.bank.test", "TXT"): ['"v=DMARC1; p=reject"'],
    }
    with nameserver(zone) as server:
        server.behaviour["_dmarc.slow.test"] = "held"
        async with asking(server) as resolver, asyncio.timeout(PATIENCE):
            slow = asyncio.ensure_future(verdict(resolver, "slow.test"))
            assert await verdict(resolver, "bank.test") == ("fail", "reject")
            assert not slow.done()
            while "_dmarc.slow.test" not in server.held:
                await verdict(resolver, "bank.test")
                await asyncio.sleep(0)  # until the packet has arrived; bounded by the time-out
            server.release("_dmarc.slow.test")
            assert await slow == ("fail", "quarantine")


def test_c7_the_import_brings_no_auditor_and_does_not_read_the_list() -> None:
    program = (
        "import sys, mailgw.checks.dmarc, mailgw.checks.organization as organization\n"
        "print(sorted({'checkdmarc', 'dns', 'requests', 'httpx'} & set(sys.modules)))\n"
        "print(organization.public_suffixes.cache_info().currsize)\n"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (said.stdout, said.stderr) == ("[]\n0\n", "")
