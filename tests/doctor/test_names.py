"""The DNS as the doctor sees it: real servers on loopback that answer, lie, or do not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from doctor.looking import lines, only
from doubles import FakeResolver
from mailgw.dns import AresResolver
from mailgw.doctor.names import look_at_blocklist, look_at_hostname, look_at_resolver
from nameserver import NameServer, nameserver

ROOT = {("org", "SOA"): ["ns.test. hostmaster.test. 1 3600 600 86400 30"]}
LIST = "bl.test"


@asynccontextmanager
async def asking(server: NameServer, timeout: float = 2.0) -> AsyncIterator[AresResolver]:
    resolver = AresResolver([("127.0.0.1", server.port)], timeout=timeout, min_ttl=0, capacity=10)
    try:
        yield resolver
    finally:
        await resolver.close()


class Lying(NameServer):
    """Has an address for every name, as providers do that sell advertisements."""

    def _fill(self, response: object, name: str, kind: str) -> None:
        if (name, kind) not in self.records and kind == "A":
            self.records = {**self.records, (name, "A"): ["203.0.113.80"]}
        super()._fill(response, name, kind)  # type: ignore[arg-type]  # handed on as it came


@contextmanager
def lying() -> Iterator[Lying]:
    server = Lying(dict(ROOT))
    try:
        yield server
    finally:
        server.close()


async def test_a_server_that_answers_and_says_no_is_all_right() -> None:
    with nameserver(ROOT) as server:
        async with asking(server) as resolver:
            [seen] = lines(await look_at_resolver("dns x", resolver, needed=True))

    assert seen.startswith("ok dns x: answers, in ")


async def test_a_server_that_says_nothing_is_an_error_where_it_is_needed() -> None:
    with nameserver(ROOT) as server:
        server.behaviour["org"] = "silent"
        async with asking(server, 0.3) as resolver:
            needed = await look_at_resolver("dns x", resolver, needed=True)
            not_needed = await look_at_resolver("dns x", resolver, needed=False)

    assert "does not answer" in only(needed, "error dns x")
    assert "nothing configured asks it" in only(not_needed, "note dns x")


async def test_a_server_that_does_not_know_the_internet_is_told() -> None:
    with nameserver({("intern", "A"): ["10.0.0.1"]}) as server:
        async with asking(server) as resolver:
            seen = await look_at_resolver("dns x", resolver, needed=True)

    assert 'there is no "org"' in only(seen, "error dns x")


async def test_a_server_that_lies_about_names_is_told() -> None:
    with lying() as server:
        async with asking(server) as resolver:
            seen = await look_at_resolver("dns x", resolver, needed=True)

    assert "does not exist (203.0.113.80)" in only(seen, "error dns x")


async def test_a_slow_server_is_a_warning() -> None:
    # What the clock says before and after the question.
    ticks = iter([100.0, 103.5])
    with nameserver(ROOT) as server:
        async with asking(server) as resolver:
            seen = await look_at_resolver("dns x", resolver, needed=True, clock=lambda: next(ticks))

    assert only(seen, "warning dns x") == "warning dns x: answers, in 3500 ms (a server nearby)"


@pytest.mark.parametrize(
    ("records", "line"),
    [
        ({"2": "127.0.0.2"}, "ok smtp-dnsbl bl.test: lists 127.0.0.2 (127.0.0.2) and not"),
        ({}, "error smtp-dnsbl bl.test: does not list 127.0.0.2"),
        ({"2": "203.0.113.9"}, "error smtp-dnsbl bl.test: does not list 127.0.0.2"),
        ({"1": "127.0.0.2", "2": "127.0.0.2"}, "error smtp-dnsbl bl.test: lists 127.0.0.1"),
        ({"2": "127.255.255.254"}, "error smtp-dnsbl bl.test: does not serve this resolver"),
    ],
)
async def test_a_block_list_is_known_by_its_test_entries(
    records: dict[str, str], line: str
) -> None:
    zone = {(f"{last}.0.0.127.{LIST}", "A"): [code] for last, code in records.items()}
    with nameserver(zone) as server:
        async with asking(server) as resolver:
            [seen] = lines(await look_at_blocklist(LIST, resolver))

    assert seen.startswith(line)


async def test_a_block_list_that_does_not_answer_is_a_warning() -> None:
    with nameserver({}) as server:
        server.behaviour[f"2.0.0.127.{LIST}"] = "servfail"
        async with asking(server) as resolver:
            [seen] = lines(await look_at_blocklist(LIST, resolver))

    assert seen.startswith("warning smtp-dnsbl bl.test: does not answer")


MX = "mx.example.org"


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        (
            {"A": {MX: ["8.8.4.4"]}, "PTR": {"8.8.4.4": [MX]}},
            [f"ok hostname {MX}: is 8.8.4.4, and that is {MX}"],
        ),
        (
            {"A": {MX: ["8.8.4.4"]}, "PTR": {"8.8.4.4": ["host4.provider.example"]}},
            [
                f"warning hostname {MX}: is 8.8.4.4, and that is host4.provider.example "
                f"(a PTR record for {MX})"
            ],
        ),
        (
            {"A": {MX: ["8.8.4.4"]}},
            [f"warning hostname {MX}: is 8.8.4.4, and that has no name (a PTR record for {MX})"],
        ),
        (
            {"A": {MX: ["10.1.2.3"]}},
            [f"note hostname {MX}: is 10.1.2.3, which the internet does not reach"],
        ),
        ({}, [f"warning hostname {MX}: has no address in the DNS (an A or AAAA record)"]),
    ],
)
async def test_the_hostname_leads_there_and_back(
    world: dict[str, dict[str, list[str]]], expected: list[str]
) -> None:
    assert lines(await look_at_hostname(MX, FakeResolver(world))) == expected


async def test_a_hostname_that_nobody_could_be_asked_for_is_not_one_that_is_missing() -> None:
    [seen] = lines(await look_at_hostname(MX, FakeResolver({}, fail=[MX])))

    assert seen.startswith(f"warning hostname {MX}: nobody could be asked")


async def test_a_name_without_a_domain_is_no_hostname() -> None:
    [seen] = lines(await look_at_hostname("localhost", FakeResolver({})))

    assert "is no full name" in seen
