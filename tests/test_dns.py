"""The resolver, against a server of our own on loopback."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from doubles import Clock, FakeResolver
from mailgw.dns import Answer, AresResolver, Mx, Resolver, Unanswered, reversed_name
from nameserver import NameServer, nameserver
from rabbitmq import eventually

LONG = "x" * 200
ZONE = {
    ("host.test", "A"): ["192.0.2.1", "192.0.2.2"],
    ("host.test", "AAAA"): ["2001:db8::1"],
    ("host.test", "TXT"): ['"v=spf1 " "-all"', '"second"'],
    ("host.test", "MX"): ["20 second.test.", "10 First.TEST."],
    ("nomail.test", "MX"): ["0 ."],
    ("alias.test", "CNAME"): ["host.test."],
    ("dangling.test", "CNAME"): ["nowhere.test."],
    ("bytes.test", "TXT"): [r'"\195\182\255\000"'],
    ("_dmarc.host.test", "TXT"): ['"v=DMARC1"'],
    ("huge.test", "TXT"): [f'"{LONG}{number}"' for number in range(40)],
    (r"joe+list=a\032b.test", "A"): ["192.0.2.3"],
    (r"joe+list=a\032b.test", "AAAA"): ["2001:db8::3"],
    (r"joe+list=a\032b.test", "TXT"): ['"v=spf1 " "-all"'],
    (r"joe+list=a\032b.test", "MX"): ["20 second.test.", "10 First.TEST."],
    ("to+alias.test", "CNAME"): ["host.test."],
    ("to+nowhere.test", "CNAME"): ["nowhere.test."],
    ("only+text.test", "TXT"): ['"v=spf1 -all"'],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["Host.TEST.", "other.test."],
    (f"{reversed_name('2001:db8::1')}.ip6.arpa", "PTR"): ["host.test."],
}
Ask = Callable[[Resolver], Any]


@asynccontextmanager
async def resolver(
    server: NameServer | int,
    *,
    timeout: float = 10.0,
    min_ttl: float = 60,
    capacity: int = 100,
    clock: Clock | None = None,
) -> AsyncIterator[AresResolver]:
    port = server if isinstance(server, int) else server.port
    made = AresResolver(
        [("127.0.0.1", port)],
        timeout=timeout,
        min_ttl=min_ttl,
        capacity=capacity,
        clock=clock or Clock(0.0),
    )
    try:
        yield made
    finally:
        await made.close()


ANSWERS: list[tuple[Ask, Answer[Any]]] = [
    (lambda dns: dns.a("host.test"), Answer(("192.0.2.1", "192.0.2.2"))),
    (lambda dns: dns.a("HOST.test."), Answer(("192.0.2.1", "192.0.2.2"))),
    (lambda dns: dns.a("alias.test"), Answer(("192.0.2.1", "192.0.2.2"))),
    (lambda dns: dns.aaaa("host.test"), Answer(("2001:db8::1",))),
    (lambda dns: dns.txt("host.test"), Answer((b"v=spf1 -all", b"second"))),
    (lambda dns: dns.txt("_dmarc.host.test"), Answer((b"v=DMARC1",))),
    (lambda dns: dns.txt("bytes.test"), Answer((b"\xc3\xb6\xff\x00",))),
    (lambda dns: dns.mx("host.test"), Answer((Mx(10, "first.test"), Mx(20, "second.test")))),
    (lambda dns: dns.mx("nomail.test"), Answer((Mx(0, ""),))),
    (lambda dns: dns.ptr("192.0.2.1"), Answer(("host.test", "other.test"))),
    (lambda dns: dns.ptr("2001:db8::1"), Answer(("host.test",))),
    # Names that no host has, as SPF makes them out of local parts.
    (lambda dns: dns.a("Joe+list=a b.test"), Answer(("192.0.2.3",))),
    (lambda dns: dns.aaaa("joe+list=a b.test."), Answer(("2001:db8::3",))),
    (lambda dns: dns.txt("joe+list=a b.test"), Answer((b"v=spf1 -all",))),
    (
        lambda dns: dns.mx("joe+list=a b.test"),
        Answer((Mx(10, "first.test"), Mx(20, "second.test"))),
    ),
    (lambda dns: dns.a("to+alias.test"), Answer(("192.0.2.1", "192.0.2.2"))),
    (lambda dns: dns.mx("to+alias.test"), Answer((Mx(10, "first.test"), Mx(20, "second.test")))),
    (lambda dns: dns.txt("to+nowhere.test"), Answer(exists=False)),
    (lambda dns: dns.a("no+such.test"), Answer(exists=False)),
    (lambda dns: dns.mx("only+text.test"), Answer()),
    # Nothing of that type, and nothing at all.
    (lambda dns: dns.mx("alias.test"), Answer((Mx(10, "first.test"), Mx(20, "second.test")))),
    (lambda dns: dns.aaaa("nomail.test"), Answer()),
    (lambda dns: dns.a("nowhere.test"), Answer(exists=False)),
    (lambda dns: dns.txt("dangling.test"), Answer(exists=False)),
    (lambda dns: dns.ptr("192.0.2.99"), Answer(exists=False)),
]


@pytest.mark.parametrize(("ask", "answer"), ANSWERS)
async def test_every_type_is_read(ask: Ask, answer: Answer[Any]) -> None:
    with nameserver(ZONE) as server:
        async with resolver(server) as dns:
            found = await ask(dns)
    assert found.exists == answer.exists
    assert sorted(map(str, found.records)) == sorted(map(str, answer.records))


async def test_exchangers_come_in_the_order_of_preference() -> None:
    with nameserver({("m.test", "MX"): ["30 c.test.", "10 a.test.", "20 b.test."]}) as server:
        async with resolver(server) as dns:
            found = await dns.mx("m.test")
    assert [mx.host for mx in found.records] == ["a.test", "b.test", "c.test"]


async def test_what_does_not_fit_into_a_packet_comes_over_tcp() -> None:
    with nameserver(ZONE) as server:
        async with resolver(server) as dns:
            found = await dns.txt("huge.test")
    assert len(found.records) == 40
    assert server.asked[("huge.test", "TXT", "udp")] >= 1
    assert server.asked[("huge.test", "TXT", "tcp")] >= 1


@pytest.mark.parametrize("how", ["servfail", "refused", "silent", "wrong-id", "garbage"])
@pytest.mark.parametrize("name", ["odd.test", "odd+name.test"])
async def test_what_nobody_could_tell_is_no_answer(how: str, name: str) -> None:
    with nameserver({(name, "A"): ["192.0.2.1"]}) as server:
        server.behaviour[name] = how
        async with resolver(server, timeout=0.5) as dns:
            with pytest.raises(Unanswered):
                await dns.a(name)
    assert server.count(name) >= 1


async def test_where_nobody_listens_there_is_no_answer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as released:
        released.bind(("127.0.0.1", 0))
        port = released.getsockname()[1]
    async with resolver(port, timeout=2) as dns:
        with pytest.raises(Unanswered):
            await dns.a("host.test")


async def test_a_server_that_was_fast_may_be_slow_once() -> None:
    # c-ares expects the speed it has seen; packets that are lost are then asked for again.
    zone = {(f"n{number}.test", "A"): ["192.0.2.1"] for number in range(200)}
    zone |= {("late.test", "A"): ["192.0.2.7"]}
    with nameserver(zone, late="deaf") as server:
        async with resolver(server) as dns:
            for number in range(200):
                await dns.a(f"n{number}.test")
            assert (await dns.a("late.test")).records == ("192.0.2.7",)
    assert server.count("late.test") == 4


async def test_the_second_server_is_asked_where_the_first_does_not_know() -> None:
    with (
        nameserver({("host.test", "A"): ["192.0.2.1"]}, host="servfail") as broken,
        nameserver({("host.test", "A"): ["192.0.2.2"]}) as sound,
    ):
        servers = [("127.0.0.1", broken.port), ("127.0.0.1", sound.port)]
        dns = AresResolver(servers, timeout=10, min_ttl=60, capacity=10)
        assert (await dns.a("host.test")).records == ("192.0.2.2",)
        await dns.close()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a..test",
        ".test",
        "x" * 64 + ".test",
        ".".join(["x" * 49] * 6),
        "nul\0.test",
        "line\n.test",
        "back\\slash.test",
        "münchen.test",
    ],
)
async def test_a_name_that_cannot_be_is_not_asked_for(name: str) -> None:
    with nameserver(ZONE) as server:
        async with resolver(server) as dns:
            assert await dns.a(name) == Answer(exists=False)
            assert await dns.txt(name) == Answer(exists=False)
    assert not server.asked


async def test_what_is_no_address_has_no_name() -> None:
    with nameserver(ZONE) as server:
        async with resolver(server) as dns:
            for address in ("", "host.test", "192.0.2", "::g"):
                assert await dns.ptr(address) == Answer(exists=False)
    assert not server.asked


@pytest.mark.parametrize(("name", "records"), [("host.test", 2), ("nowhere.test", 0)])
async def test_an_answer_is_kept_for_the_shortest_time_that_we_honour(
    name: str, records: int
) -> None:
    clock = Clock(0.0)
    with nameserver(ZONE, ttl=0) as server:
        async with resolver(server, clock=clock, min_ttl=60) as dns:
            for now in (0.0, 59.0):
                clock.now = now
                assert len((await dns.a(name)).records) == records
            assert server.count(name) == 1
            clock.now = 61.0
            await dns.a(name)
            assert server.count(name) == 2
            # By type: that there is no TXT was never asked.
            await dns.txt(name)
            assert server.count(name) == 3


async def test_an_answer_is_kept_as_long_as_it_says() -> None:
    clock = Clock(0.0)
    with nameserver({("host.test", "A"): ["192.0.2.1"]}, ttl=1) as server:
        async with resolver(server, clock=clock, min_ttl=0.001) as dns:
            await dns.a("host.test")
            server.records[("host.test", "A")] = ["192.0.2.2"]
            clock.now = 0.9
            assert (await dns.a("host.test")).records == ("192.0.2.1",)

            # The library keeps it for its own second, by a clock that nobody turns.
            deadline = time.monotonic() + 20
            while (await dns.a("host.test")).records != ("192.0.2.2",):
                assert time.monotonic() < deadline
                clock.now += 1.0


async def test_that_nobody_answered_is_kept_only_shortly() -> None:
    clock = Clock(0.0)
    with nameserver({("odd.test", "A"): ["192.0.2.1"]}, odd="refused") as server:
        async with resolver(server, clock=clock) as dns:
            for _ in range(2):
                with pytest.raises(Unanswered):
                    await dns.a("odd.test")
            asked = server.count("odd.test")
            del server.behaviour["odd.test"]
            with pytest.raises(Unanswered):
                await dns.a("odd.test")
            assert server.count("odd.test") == asked
            clock.now = 6.0
            assert (await dns.a("odd.test")).records == ("192.0.2.1",)


async def test_memory_is_bounded_whoever_asks() -> None:
    names = [f"n{number}.test" for number in range(5001)]
    with nameserver({}, ttl=0) as server:
        async with resolver(server, capacity=50) as dns:
            for begin in range(0, len(names), 200):
                await asyncio.gather(*map(dns.a, names[begin : begin + 200]))
            await dns.a(names[-1])
            assert server.count(names[-1]) == 1
            # The first had to go.
            await dns.a(names[0])
            assert server.count(names[0]) == 2


async def test_what_is_large_is_told_but_not_kept() -> None:
    with nameserver(ZONE, ttl=0) as server:
        async with resolver(server) as dns:
            for _ in range(2):
                assert len((await dns.txt("huge.test")).records) == 40
    assert server.asked[("huge.test", "TXT", "tcp")] == 2


async def test_many_who_ask_the_same_are_one_question() -> None:
    with nameserver({("held.test", "A"): ["192.0.2.1"]}, held="held") as server:
        async with resolver(server) as dns:
            asking = [asyncio.create_task(dns.a("held.test")) for _ in range(50)]
            await eventually(lambda: server.held == ["held.test"], "it is asked")
            # One of them loses interest; that is no matter of the others.
            asking[0].cancel()
            server.release("held.test")
            found = await asyncio.gather(*asking, return_exceptions=True)
            assert isinstance(found[0], asyncio.CancelledError)
            assert found[1:] == [Answer(("192.0.2.1",))] * 49
            before = server.count("held.test")
            await dns.a("held.test")
            assert server.count("held.test") == before


async def test_only_so_many_questions_are_in_flight() -> None:
    names = [f"n{number}.test" for number in range(6)]
    zone = {(name, "A"): ["192.0.2.1"] for name in names}
    with nameserver(zone) as server:
        server.behaviour |= dict.fromkeys(names, "held")
        async with resolver(server, capacity=2) as dns:
            asking = [asyncio.create_task(dns.a(name)) for name in names]
            for _ in range(3):
                await eventually(lambda: len(server.held) == 2, "two are asked")
                server.release(*server.held)
            found = await asyncio.gather(*asking)
    assert found == [Answer(("192.0.2.1",))] * 6
    assert server.most_held == 2


async def test_closing_lets_nobody_wait() -> None:
    with nameserver({}, silent="silent") as server:
        async with resolver(server, timeout=60) as dns:
            asking = asyncio.create_task(dns.a("silent.test"))
            await eventually(lambda: server.count("silent.test") >= 1, "it is asked")
            await dns.close()
            with pytest.raises(Unanswered):
                await asking
            with pytest.raises(Unanswered):
                await dns.a("other.test")
            await dns.close()


async def test_a_resolver_that_was_never_asked_opens_nothing() -> None:
    dns = AresResolver(timeout=5, min_ttl=60, capacity=10)
    await dns.close()
    with pytest.raises(Unanswered):
        await dns.a("host.test")


async def test_the_double_answers_as_the_real_one_does() -> None:
    double = FakeResolver(
        {
            "A": {"host.test": ["192.0.2.1"]},
            "TXT": {"host.test": ["v=spf1 -all"]},
            "MX": {"host.test": [(20, "b.test"), (10, "a.test")]},
            "PTR": {"192.0.2.1": ["host.test"]},
        },
        fail=["odd.test"],
    )
    zone = {
        ("host.test", "A"): ["192.0.2.1"],
        ("host.test", "TXT"): ['"v=spf1 -all"'],
        ("host.test", "MX"): ["20 b.test.", "10 a.test."],
        ("1.2.0.192.in-addr.arpa", "PTR"): ["host.test."],
    }
    asked: list[Ask] = [
        lambda dns: dns.a("host.test"),
        lambda dns: dns.aaaa("HOST.test."),
        lambda dns: dns.txt("host.test"),
        lambda dns: dns.mx("host.test"),
        lambda dns: dns.a("nowhere.test"),
        lambda dns: dns.ptr("192.0.2.1"),
        lambda dns: dns.ptr("192.0.2.2"),
        lambda dns: dns.ptr("no address"),
        lambda dns: dns.a("odd.test"),
    ]
    with nameserver(zone, odd="servfail") as server:
        async with resolver(server) as real:
            for ask in asked:
                assert await said(ask, double) == await said(ask, real)


async def said(ask: Ask, dns: Resolver) -> Answer[Any] | None:
    try:
        found: Answer[Any] = await ask(dns)
    except Unanswered:
        return None
    return found
