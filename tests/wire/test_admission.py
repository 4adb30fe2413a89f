"""A house with limits: who waits outside gets in, and who talks before the banner goes."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from headers import V1
from house import PATIENCE, Taken, Talker, Welcome, contexts, serving, talking

from mailgw.config.networks import networks
from mailgw.gate.door import Door
from mailgw.gate.rates import Alone
from mailgw.mail.peer import Peer
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply
from mailgw.wire.house import Now

DELAY = 0.4


class Recorded(Alone):
    """Counts, and keeps the most that were there at once."""

    most = 0

    def take_place(self, most: int | None) -> bool:
        taken = super().take_place(most)
        self.most = max(self.most, self.places)
        return taken


async def test_the_excess_waits_and_is_served_in_its_turn() -> None:
    # hostile-input G09: as many as fit are idle, the next ones wait.
    counters = Recorded()
    async with AsyncExitStack() as crowd:
        door = await crowd.enter_async_context(serving(Taken(), entrance=Door(counters, most=2)))
        clients = [await crowd.enter_async_context(talking(door)) for _ in range(6)]
        greeted = [await each.reply() for each in clients[:2]]
        assert [said[:4] for said in greeted] == ["220 ", "220 "]
        for here, waiting in zip(clients, clients[2:], strict=False):
            # Whoever waits hears nothing until somebody goes.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(waiting.reader.read(1), 0.2)
            assert (await here.ask(b"QUIT")).startswith("221 ")
            assert (await waiting.reply()).startswith("220 ")
        assert counters.most == 2


async def test_one_place_is_enough_for_many_one_after_the_other() -> None:
    async with serving(Taken(), entrance=Door(most=1)) as door:

        async def visit() -> str:
            async with talking(door) as client:
                assert (await client.reply()).startswith("220 ")
                return await client.ask(b"QUIT")

        said = await asyncio.gather(*(visit() for _ in range(40)))
    assert [each[:4] for each in said] == ["221 "] * 40


async def test_who_leaves_lets_the_next_one_in_at_once() -> None:
    # Nobody looks by the clock whether there is a place.
    async with serving(Taken(), entrance=Door(most=1), pause=3600) as door:
        for _ in range(40):
            async with talking(door) as first, talking(door) as second:
                await first.reply()
                await first.ask(b"QUIT")
                assert (await second.reply()).startswith("220 ")


@pytest.mark.parametrize("header", [b"", V1], ids=["by itself", "introduced by a balancer"])
async def test_a_mistake_of_ours_at_the_door_costs_that_client_alone(header: bytes) -> None:
    class Stumbling(Alone):
        """Makes a mistake with the first."""

        stumbles = True

        def connect(self, client: bytes, most: int | None) -> bool:
            if self.stumbles:
                self.stumbles = False
                raise RuntimeError("a mistake")
            return super().connect(client, most)

    counters = Stumbling()
    proxies = networks("127.0.0.0/8" if header else "192.0.2.0/24")
    async with serving(Taken(), entrance=Door(counters, most=1), proxies=proxies) as door:
        async with talking(door) as unlucky:
            unlucky.writer.write(header)
            assert await unlucky.reader.read() == b""
        async with talking(door) as client:
            client.writer.write(header)
            assert (await client.reply()).startswith("220 ")
            assert (await client.ask(b"QUIT")).startswith("221 ")
        await door.deserted()
    assert counters.places == 0


async def test_places_that_another_process_frees_are_seen_soon() -> None:
    counters = Alone()
    assert counters.take_place(1)
    async with serving(Taken(), entrance=Door(counters, most=1)) as door, talking(door) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 0.2)
        # Not by this door, so nobody is told.
        counters.free_place()
        assert (await client.reply()).startswith("220 ")


async def test_every_place_comes_back_whatever_its_client_did(tmp_path: Path) -> None:
    server, _ = contexts(tmp_path)
    counters = Alone()
    entrance = Door(counters, clients=networks("127.0.0.1"), rate=20)
    async with serving(Taken(), tls=server, secure=True, entrance=entrance, patience=1) as door:
        for number in range(30):
            async with talking(door) as client:
                if number % 3 == 0:
                    client.writer.write(b"this is no handshake\r\n")
                    await client.reader.read()
                elif number % 3 == 1:
                    client.writer.transport.abort()
        await door.deserted()
        assert counters.places == 0


@pytest.mark.parametrize(
    ("entrance", "said"),
    [
        (Door(clients=networks("192.0.2.0/24")), "554 5.7.1 "),
        (Door(per_client=1), "421 4.7.0 "),
        (Door(rate=1), "421 4.7.0 "),
    ],
    ids=["range", "per-ip", "rate"],
)
async def test_who_is_not_let_in_hears_why_and_nothing_more(entrance: Door, said: str) -> None:
    async with serving(Taken(), entrance=entrance) as door, talking(door), talking(door) as client:
        assert (await client.reply()).startswith(said)
        assert await client.reply() == ""


async def test_on_a_tls_port_nothing_is_said_in_clear(tmp_path: Path) -> None:
    server, _ = contexts(tmp_path)
    entrance = Door(clients=networks("192.0.2.0/24"))
    async with (
        serving(Taken(), tls=server, secure=True, entrance=entrance) as door,
        talking(door) as client,
    ):
        assert await asyncio.wait_for(client.reader.read(), PATIENCE) == b""


async def test_the_banner_waits() -> None:
    async with serving(Taken(), greeting_delay=DELAY) as door:
        begin = time.monotonic()
        async with talking(door) as client:
            assert (await client.reply()).startswith("220 ")
            assert time.monotonic() - begin >= DELAY
            assert (await client.ask(b"EHLO client.test")).startswith("250-")


@pytest.mark.parametrize(
    "early",
    [
        b"EHLO client.test\r\n",
        b"E",
        b"EHLO client.test\r\nMAIL FROM:<>\r\nRCPT TO:<bob@ours.test>\r\nDATA\r\nx\r\n.\r\n",
        b"\x16\x03\x01",
        b"x" * 100_000,
    ],
    ids=["ehlo", "octet", "session", "tls", "flood"],
)
async def test_who_talks_before_the_banner_is_refused_and_closed(early: bytes) -> None:
    # hostile-input B26.
    taken = Taken()
    async with serving(taken, greeting_delay=60) as door, talking(door) as client:
        client.writer.write(early)
        assert (await client.reply()).startswith("554 5.5.1 ")
        assert await client.reply() == ""
        await door.deserted()
    assert taken.messages == []


async def test_without_a_delay_talking_early_is_no_crime() -> None:
    async with serving(Taken()) as door, talking(door) as client:
        client.writer.write(b"EHLO client.test\r\n")
        assert (await client.reply()).startswith("220 ")
        assert (await client.reply()).startswith("250-")


async def test_a_handshake_is_not_talking_early(tmp_path: Path) -> None:
    server, trusting = contexts(tmp_path)
    async with serving(Taken(), tls=server, secure=True, greeting_delay=DELAY) as door:
        async with talking(door, trusting) as client:
            assert (await client.reply()).startswith("220 ")
        async with talking(door, trusting) as client:
            client.writer.write(b"EHLO client.test\r\n")
            assert (await client.reply()).startswith("554 5.5.1 ")


async def test_a_delay_holds_for_the_banner_only(tmp_path: Path) -> None:
    server, trusting = contexts(tmp_path)
    async with (
        serving(Taken(), tls=server, greeting_delay=DELAY) as door,
        talking(door) as client,
    ):
        await client.reply()
        await client.ask(b"EHLO client.test")
        assert (await client.ask(b"STARTTLS")).startswith("220 ")
        await client.writer.start_tls(trusting, server_hostname="localhost")
        assert (await client.ask(b"EHLO client.test")).startswith("250-")


async def test_who_goes_before_the_banner_is_not_waited_for() -> None:
    async with serving(Taken(), greeting_delay=60) as door:
        async with talking(door) as client:
            client.writer.transport.abort()
        await door.deserted()


class Slow(Welcome):
    """Makes up its mind about a client when it is told."""

    def __init__(self, answer: Reply) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self._answer = answer

    def connected(self, _peer: Peer) -> Now[Reply]:
        return self._decide()

    async def _decide(self) -> Reply:
        self.asked.set()
        await self.go.wait()
        return self._answer


@pytest.mark.parametrize("how", ["drain", "cut"])
async def test_who_ends_does_not_wait_for_the_banner(how: str) -> None:
    gate = Slow(reply.banner("mx.ours.test"))
    async with serving(Taken(), gate, greeting_delay=60) as door, talking(door) as client:
        await asyncio.wait_for(gate.asked.wait(), PATIENCE)
        [conversation] = door.listener.conversations
        conversation.drain() if how == "drain" else conversation.cut()
        assert (await client.reply()).startswith("421 4.3.2 ")


@pytest.mark.parametrize("answer", [reply.banner("mx.ours.test"), reply.listed("bad.test")])
async def test_look_ups_go_on_while_the_banner_waits(answer: Reply) -> None:
    gate = Slow(answer)
    async with serving(Taken(), gate, greeting_delay=DELAY) as door, talking(door) as client:
        await asyncio.wait_for(gate.asked.wait(), PATIENCE)
        gate.go.set()
        assert await client.reply() == answer.wire.decode().strip()
        if answer.positive:
            assert (await client.ask(b"EHLO client.test")).startswith("250-")
        else:
            assert (await client.ask(b"EHLO client.test")).startswith("503 ")


async def test_a_look_up_may_take_longer_than_the_delay() -> None:
    gate = Slow(reply.banner("mx.ours.test"))
    async with serving(Taken(), gate, greeting_delay=0.05) as door, talking(door) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 0.3)
        gate.go.set()
        assert (await client.reply()).startswith("220 ")


async def trickle(client: Talker, seconds: float) -> str:
    """Send a line every 50 ms; the reply that ends that, "" where none came in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client.writer.write(b"x" * 98 + b"\r\n")
        try:
            line = await asyncio.wait_for(client.reader.readline(), 0.05)
        except TimeoutError:
            continue
        return line.decode()
    return ""


@pytest.mark.parametrize(
    ("minimum_rate", "ended"),
    [(0, False), (500, False), (1_000_000, True)],
)
async def test_how_slow_a_sender_may_be(minimum_rate: int, ended: bool) -> None:
    # 2000 octets a second, for several times the patience.
    async with (
        serving(Taken(), patience=1, minimum_rate=minimum_rate) as door,
        talking(door) as client,
    ):
        await client.begin()
        said = await trickle(client, 4.0)
    assert said.startswith("421 4.4.2 ") if ended else said == ""
