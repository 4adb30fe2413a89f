"""The audit of a domain's records: a real DNS server, and checkdmarc's opinion of it.

Every test has a domain of its own: the library remembers answers for the whole process.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from doctor.looking import lines, only
from mailgw.dns import AresResolver
from mailgw.doctor.domain import Auditor, NotInstalled, audit
from mailgw.doctor.observation import Observation
from nameserver import NameServer, nameserver

Zone = dict[tuple[str, str], Sequence[str]]


def world(domain: str, **changed: Sequence[str]) -> Zone:
    """A domain with all that it should have; `changed` by what it is, empty for without."""
    reverse = "4.4.8.8.in-addr.arpa"
    records: dict[str, tuple[tuple[str, str], Sequence[str]]] = {
        "apex": ((domain, "TXT"), ['"v=spf1 mx -all"']),
        "mx": ((domain, "MX"), [f"10 mx.{domain}."]),
        "host": ((f"mx.{domain}", "A"), ["8.8.4.4"]),
        "pointer": ((reverse, "PTR"), [f"mx.{domain}."]),
        "dmarc": ((f"_dmarc.{domain}", "TXT"), [f'"v=DMARC1; p=reject; rua=mailto:d@{domain}"']),
        "sts": ((f"_mta-sts.{domain}", "TXT"), ['"v=STSv1; id=1"']),
        "tls": ((f"_smtp._tls.{domain}", "TXT"), [f'"v=TLSRPTv1; rua=mailto:t@{domain}"']),
    }
    kept = {name: (at, changed.get(name, value)) for name, (at, value) in records.items()}
    return {at: value for at, value in kept.values() if value}


@asynccontextmanager
async def asking(server: NameServer) -> AsyncIterator[tuple[Auditor, AresResolver]]:
    servers = [("127.0.0.1", server.port)]
    resolver = AresResolver(servers, timeout=1.0, min_ttl=0, capacity=10)
    try:
        yield Auditor.asking(servers), resolver
    finally:
        await resolver.close()


async def audited(domain: str, zone: Zone) -> list[Observation]:
    with nameserver(zone) as server:
        async with asking(server) as (auditor, resolver):
            return list(await audit(domain, auditor, resolver))


async def test_a_domain_with_all_records_is_all_right() -> None:
    seen = await audited("good.test", world("good.test"))

    assert [each.subject for each in seen if each.grade.value == "ok"] == [
        "mx", "spf", "dmarc", "mta-sts", "tls-rpt",
    ]  # fmt: skip
    assert only(seen, "ok mx") == "ok mx: 10 mx.good.test"
    assert only(seen, "ok spf").startswith("ok spf: v=spf1 mx -all (1 look-ups of 10)")
    assert "p=reject" in only(seen, "ok dmarc")
    assert "(the policy itself is not fetched)" in only(seen, "ok mta-sts")
    assert not [line for line in lines(seen) if line.startswith("error")]


async def test_records_that_are_missing_are_told() -> None:
    zone = world("bare.test", apex=['"hello"'], dmarc=[], sts=[], tls=[])

    seen = await audited("bare.test", zone)

    assert only(seen, "warning spf").startswith("warning spf: there is no record")
    assert only(seen, "warning dmarc").startswith("warning dmarc: there is no record")
    assert only(seen, "note mta-sts")
    assert only(seen, "note tls-rpt")


async def test_a_domain_that_is_not_there_is_told_once() -> None:
    seen = await audited("away.test", {})

    assert lines(seen) == ["error away.test: there is no such domain"]


async def test_a_server_that_fails_is_not_a_record_that_is_missing() -> None:
    with nameserver(world("fails.test")) as server:
        server.behaviour["_dmarc.fails.test"] = "servfail"
        async with asking(server) as (auditor, resolver):
            seen = await audit("fails.test", auditor, resolver)

    assert only(seen, "error dmarc").startswith("error dmarc: nobody could be asked for it")
    assert only(seen, "ok spf")


async def test_a_domain_that_nobody_answers_for_is_told() -> None:
    with nameserver(world("silent.test")) as server:
        server.behaviour["silent.test"] = "silent"
        async with asking(server) as (auditor, resolver):
            [seen] = lines(await audit("silent.test", auditor, resolver))

    assert seen.startswith("error silent.test: nobody could be asked about it")


async def test_an_spf_record_that_cannot_be_read_is_an_error() -> None:
    seen = await audited("broken.test", world("broken.test", apex=['"v=spf1 ipv4:1.2.3.4 -all"']))

    assert "ipv4" in only(seen, "error spf")


async def test_an_spf_record_with_too_many_lookups_is_an_error() -> None:
    hosts = " ".join(f"a:h{number}.many.test" for number in range(11))
    zone = world("many.test", apex=[f'"v=spf1 {hosts} -all"'])
    zone |= {(f"h{number}.many.test", "A"): ["8.8.4.4"] for number in range(11)}

    seen = await audited("many.test", zone)

    assert "11/10" in only(seen, "error spf")


async def test_a_dmarc_record_with_a_policy_that_is_none_is_told() -> None:
    seen = await audited("odd.test", world("odd.test", dmarc=['"v=DMARC1; p=refuse"']))

    assert "refuse" in " ".join(line for line in lines(seen) if " dmarc" in line)
    assert any(line.startswith(("error dmarc", "warning dmarc")) for line in lines(seen))


async def test_a_foreign_record_at_dmarc_is_no_error() -> None:
    foreign = ['"v=spf1 -all"', '"v=DMARC1; p=reject; rua=mailto:d@foreign.test"']

    seen = await audited("foreign.test", world("foreign.test", dmarc=foreign))

    assert "p=reject" in only(seen, "ok dmarc")


async def test_a_mail_host_without_an_address_is_a_warning() -> None:
    seen = await audited("hollow.test", world("hollow.test", host=[]))

    assert any(line.startswith("warning mx: ") for line in lines(seen))


async def test_only_the_servers_of_the_configuration_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: set[object] = set()
    connect, sendto = socket.socket.connect, socket.socket.sendto

    def noted_connect(self: socket.socket, address: object) -> None:
        asked.add(address)
        connect(self, address)  # type: ignore[arg-type]  # handed on as it came

    def noted_sendto(self: socket.socket, *arguments: object) -> int:
        asked.add(arguments[-1])
        return sendto(self, *arguments)  # type: ignore[call-overload, no-any-return]  # handed on as they came

    with nameserver(world("asks.test")) as server:
        async with asking(server) as (auditor, resolver):
            with monkeypatch.context() as patched:
                patched.setattr(socket.socket, "connect", noted_connect)
                patched.setattr(socket.socket, "sendto", noted_sendto)
                await audit("asks.test", auditor, resolver)

    # DNSSEC and TLSA too, which the library asks in another way. The server answers in this
    # process, to ports of this machine.
    assert ("127.0.0.1", server.port) in asked
    assert {each[0] for each in asked if isinstance(each, tuple)} == {"127.0.0.1"}
    assert ("127.0.0.1", 53) not in asked
    assert {kind for (_, kind, _) in server.asked} >= {"TXT", "MX", "DS", "TLSA"}


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # As Python sees a package that is not installed.
    monkeypatch.setitem(sys.modules, "checkdmarc", None)

    with pytest.raises(NotInstalled, match=r"pip install 'mailgw\[doctor\]'"):
        Auditor.asking([("127.0.0.1", 53)])
