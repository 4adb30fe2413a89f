"""Lists of bad clients: what counts as a yes, and that none can hold up mail."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from doubles import Clock, FakeResolver
from mailgw.config.networks import networks
from mailgw.dns import AresResolver
from mailgw.gate.dnsbl import Blocklists
from mailgw.gate.gate import Gate
from mailgw.gate.recipients import LocalAddresses
from mailgw.mail.peer import Peer
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply
from nameserver import nameserver
from rabbitmq import eventually

# Addresses of the public internet, because no others are asked about.
FOUR, SIX = "8.7.6.5", "2a00:1234::abcd"
SIX_REVERSED = "d.c.b.a." + "0." * 20 + "4.3.2.1.0.0.a.2"


def peer(address: str) -> Peer:
    return Peer("c1", address, 40000, "192.0.2.1", 25)


def listing(*codes: str, client: str = "5.6.7.8", zone: str = "bad.test") -> FakeResolver:
    return FakeResolver({"A": {f"{client}.{zone}": codes}})


async def ask(resolver: FakeResolver, address: str = FOUR, *zones: str) -> Reply | None:
    return await Blocklists(zones or ("bad.test",), resolver).refuse(peer(address))


@pytest.mark.parametrize(
    ("codes", "refused"),
    [
        (("127.0.0.2",), True),
        (("127.0.1.255",), True),
        (("127.0.0.4", "127.0.0.11"), True),
        ((), False),
        # Not what a list says: somebody else's web server.
        (("192.0.2.80",), False),
        (("192.0.2.80", "127.0.0.2"), True),
        (("128.0.0.1",), False),
        # "You are not served": this is about us, not about the client.
        (("127.255.255.254",), False),
        (("127.255.255.252", "127.0.0.2"), False),
    ],
)
async def test_what_counts_as_listed(codes: tuple[str, ...], refused: bool) -> None:
    said = await ask(listing(*codes))
    assert said == (reply.listed("bad.test") if refused else None)


async def test_the_reply_names_the_list() -> None:
    said = await ask(listing("127.0.0.2"))
    assert said is not None
    assert said.wire == b"554 5.7.1 Your address is listed in bad.test\r\n"


async def test_an_ipv6_client_is_asked_about_nibble_by_nibble() -> None:
    resolver = listing("127.0.0.2", client=SIX_REVERSED)
    assert await ask(resolver, SIX) == reply.listed("bad.test")
    assert resolver.asked == [("A", f"{SIX_REVERSED}.bad.test")]


async def test_a_client_that_no_list_knows_is_let_in() -> None:
    resolver = listing("127.0.0.2")
    assert await ask(resolver, "8.7.6.4", "bad.test", "worse.test") is None
    assert len(resolver.asked) == 2


async def test_a_list_that_is_down_says_nothing_and_another_one_counts() -> None:
    world = {"A": {"5.6.7.8.bad.test": ["127.0.0.2"]}}
    resolver = FakeResolver(world, fail=["5.6.7.8.down.test"])
    assert await ask(resolver, FOUR, "down.test") is None
    assert await ask(resolver, FOUR, "down.test", "bad.test") == reply.listed("bad.test")


async def test_a_list_that_fails_again_and_again_is_left_alone_for_a_minute() -> None:
    clock = Clock(0.0)
    resolver = FakeResolver({}, fail=["5.6.7.8.down.test"])
    blocklists = Blocklists(["down.test", "up.test"], resolver, clock=clock)
    for _ in range(10):
        assert await blocklists.refuse(peer(FOUR)) is None
    assert resolver.asked.count(("A", "5.6.7.8.down.test")) == 3
    assert resolver.asked.count(("A", "5.6.7.8.up.test")) == 10
    # Then one client finds out whether it is back; if not, that is enough.
    clock.now = 61.0
    for _ in range(2):
        await blocklists.refuse(peer(FOUR))
    assert resolver.asked.count(("A", "5.6.7.8.down.test")) == 4
    clock.now = 122.0
    for _ in range(4):
        await blocklists.refuse(peer("8.7.6.4"))
    assert resolver.asked.count(("A", "4.6.7.8.down.test")) == 4


async def test_a_listed_client_may_be_only_logged() -> None:
    resolver = listing("127.0.0.2")
    blocklists = Blocklists(["bad.test"], resolver, refuse=False)
    assert await blocklists.refuse(peer(FOUR)) is None
    assert len(resolver.asked) == 1


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        (FOUR, True),
        (SIX, True),
        ("127.0.0.1", False),
        ("::1", False),
        ("10.1.2.3", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.1.1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("9.9.9.9", False),
        ("", False),
    ],
)
def test_who_is_asked_about(address: str, asked: bool) -> None:
    blocklists = Blocklists(["bad.test"], listing(), exempt=networks("9.9.9.0/24"))
    assert blocklists.concern(address) is asked


async def test_the_gate_answers_at_once_where_nothing_is_to_be_asked() -> None:
    resolver = listing("127.0.0.2")
    gate = Gate(
        "mx.ours.test",
        LocalAddresses.empty(),
        max_recipients=100,
        trouble=lambda: None,
        blocklists=Blocklists(["bad.test"], resolver),
    )
    assert gate.connected(peer("127.0.0.1")) == reply.banner("mx.ours.test")
    balancer = replace(peer(FOUR), health_check=True)
    assert gate.connected(balancer) == reply.banner("mx.ours.test")
    assert not resolver.asked
    for address, answer in ((FOUR, reply.listed("bad.test")), (SIX, reply.banner("mx.ours.test"))):
        waiting = gate.connected(peer(address))
        assert not isinstance(waiting, Reply)
        assert await waiting == answer
    await gate.close()


async def test_the_first_yes_decides_while_other_lists_are_silent() -> None:
    zone = {("5.6.7.8.bad.test", "A"): ["127.0.0.2"]}
    with nameserver(zone) as server:
        server.behaviour["5.6.7.8.slow.test"] = "silent"
        resolver = AresResolver([("127.0.0.1", server.port)], timeout=60, min_ttl=60, capacity=10)
        blocklists = Blocklists(["slow.test", "bad.test"], resolver)
        said = await asyncio.wait_for(blocklists.refuse(peer(FOUR)), 15)
        assert said == reply.listed("bad.test")
        await resolver.close()


async def test_lists_are_asked_side_by_side() -> None:
    zones = ["one.test", "two.test", "three.test"]
    with nameserver({}) as server:
        names = [f"5.6.7.8.{zone}" for zone in zones]
        server.behaviour |= dict.fromkeys(names, "held")
        resolver = AresResolver([("127.0.0.1", server.port)], timeout=20, min_ttl=60, capacity=10)
        blocklists = Blocklists(zones, resolver)
        asking = asyncio.create_task(blocklists.refuse(peer(FOUR)))
        await eventually(lambda: len(server.held) == 3, "all three are asked")
        server.release(*names)
        assert await asking is None
        await resolver.close()
