"""PROXY headers at a listener: whose are believed, and what comes of the others."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from headers import CASES, CLIENT, LOCAL, UNKNOWN, V1, V2, V2_IPV6
from house import PATIENCE, Taken, Talker, Welcome, contexts, serving, talking

from mailgw.config.networks import NOWHERE, Networks, networks
from mailgw.mail.peer import Peer
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply
from mailgw.wire.house import Now
from mailgw.wire.proxy import Client, parse

LOOPBACK = networks("127.0.0.0/8")
ELSEWHERE = networks("192.0.2.0/24")

# What each vector comes to from a peer that is trusted; those not named are closed.
NAMED, NAMELESS, OWN = "the client", "a client without a name", "the balancer itself"
ALLOWED = {
    "P01": NAMED,
    "P03": NAMELESS,
    "P05": NAMELESS,
    "P21": NAMED,
    "P23": OWN,
    "P25": OWN,
    "P27": NAMELESS,
    "P35": NAMED,
}
REFUSED = CASES.keys() - ALLOWED.keys()


def octets_of(case: str) -> bytes:
    if case == "P19":  # generated, as the vector says
        return b"PROXY TCP4 " + b"1" * 5000
    return bytes.fromhex(CASES[case]["hex"])


MAIL = (
    b"EHLO client.test\r\nMAIL FROM:<joe@there.test>\r\nRCPT TO:<bob@ours.test>\r\n"
    b"DATA\r\nSubject: x\r\n\r\nHello.\r\n.\r\nQUIT\r\n"
)


async def ended(client: Talker) -> bytes:
    """What the other side still says before it closes."""
    try:
        return await asyncio.wait_for(client.reader.read(), PATIENCE)
    except ConnectionResetError:  # closed with our octets unread, which is as good
        return b""


@pytest.mark.parametrize("case", sorted(ALLOWED))
async def test_vectors_that_a_trusted_peer_may_send(case: str) -> None:
    assert CASES[case]["expect"].startswith("accept")
    taken = Taken()
    async with serving(taken, proxies=LOOPBACK) as door, talking(door) as client:
        own = client.writer.get_extra_info("sockname")
        client.writer.write(octets_of(case) + MAIL)
        said = [await client.reply() for _ in range(7)]
    assert [each[:3] for each in said] == ["220", "250", "250", "250", "354", "250", "221"]
    [(message, _)] = taken.messages
    peer = message.peer
    seen = Client(peer.remote_ip, peer.remote_port, peer.local_ip, peer.local_port)
    real = Client(*own, "127.0.0.1", door.port)
    assert seen == (CLIENT if ALLOWED[case] == NAMED else real)
    assert peer.proxy_ip == (None if ALLOWED[case] == OWN else "127.0.0.1")
    assert peer.health_check == (ALLOWED[case] == OWN)


@pytest.mark.parametrize("case", sorted(REFUSED))
async def test_vectors_that_are_closed_without_a_word(case: str) -> None:
    assert "close" in CASES[case]["expect"]
    taken = Taken()
    async with serving(taken, proxies=LOOPBACK, patience=0.3) as door, talking(door) as client:
        # Behind silence there is nothing either.
        client.writer.write(octets_of(case) + MAIL if octets_of(case) else b"")
        assert await ended(client) == b""
        await door.deserted()
    assert taken.messages == []


@pytest.mark.parametrize("proxies", [ELSEWHERE, NOWHERE], ids=["not trusted", "no proxies"])
@pytest.mark.parametrize("case", sorted(CASES))
async def test_vectors_from_everybody_else_are_bad_commands(case: str, proxies: Networks) -> None:
    taken = Taken()
    async with serving(taken, proxies=proxies) as door, talking(door) as client:
        client.writer.write(octets_of(case) + b"\r\n")
        client.writer.write(MAIL)
        said = [await client.reply()]
        while said[-1] and not said[-1].startswith("221"):
            said.append(await client.reply())
    assert said[0].startswith("220 ")
    bad = said[1:-6]
    assert bad, "the header was answered as a command"
    assert [each for each in bad if each[0] != "5"] == []
    [(message, _)] = taken.messages
    assert (message.peer.remote_ip, message.peer.proxy_ip) == ("127.0.0.1", None)


@pytest.mark.parametrize("second", [V1, V2], ids=["then v1", "then v2"])
@pytest.mark.parametrize("first", [V1, V2], ids=["v1", "v2"])
async def test_of_two_headers_the_second_is_a_bad_command(first: bytes, second: bytes) -> None:
    taken = Taken()
    second = second.replace(b"192.0.2.7", b"192.0.2.8").replace(b"\xc0\0\2\7", b"\xc0\0\2\x08")
    async with serving(taken, proxies=LOOPBACK) as door, talking(door) as client:
        client.writer.write(first + second + b"\r\n" + MAIL)
        said = [await client.reply()]
        while not said[-1].startswith("221"):
            said.append(await client.reply())
    assert said[0].startswith("220 ")
    assert {each[0] for each in said[1:-6]} == {"5"}
    [(message, _)] = taken.messages
    assert message.peer.remote_ip == "192.0.2.7"


async def test_smtp_from_a_trusted_peer_without_a_header_gets_no_word() -> None:
    async with serving(Taken(), proxies=LOOPBACK) as door, talking(door) as client:
        client.writer.write(MAIL)
        assert await ended(client) == b""


async def test_a_header_that_is_awaited_holds_up_nobody() -> None:
    async with (
        serving(Taken(), proxies=LOOPBACK) as door,
        talking(door) as silent,
        talking(door) as halfway,
        talking(door) as client,
    ):
        halfway.writer.write(V1[:20])
        client.writer.write(V1)
        assert (await client.reply()).startswith("220 ")
        halfway.writer.write(V1[20:])
        assert (await halfway.reply()).startswith("220 ")
        silent.writer.write(V2)
        assert (await silent.reply()).startswith("220 ")


async def test_stopping_waits_for_no_header() -> None:
    async with (
        serving(Taken(), proxies=LOOPBACK) as door,
        talking(door) as client,
        talking(door) as served,
    ):
        # Who came later is served, so the one before is known to be waited for.
        served.writer.write(V1)
        await served.reply()
        assert not door.listener.idle
        client.writer.write(V1[:9])
        door.listener.stop()
        assert await ended(client) == b""
        assert (await served.ask(b"EHLO client.test")).startswith("250-")


@pytest.mark.parametrize("header", [V1, V2, V2_IPV6], ids=["v1", "v2", "v2 IPv6"])
async def test_a_handshake_in_the_segment_of_the_header(tmp_path: Path, header: bytes) -> None:
    ours, theirs = contexts(tmp_path)
    taken = Taken()
    async with (
        serving(taken, proxies=LOOPBACK, tls=ours, secure=True) as door,
        talking(door) as client,
    ):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = theirs.wrap_bio(incoming, outgoing, server_hostname="localhost")

        async def exchange(before: bytes = b"") -> None:
            client.writer.write(before + outgoing.read())
            incoming.write(await asyncio.wait_for(client.reader.read(65536), PATIENCE))

        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        await exchange(header)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await exchange()
        tls.write(MAIL)
        said = b""
        while b"\r\n221 " not in said:
            try:
                said += tls.read(65536)
            except ssl.SSLWantReadError:
                await exchange()
    [(message, _)] = taken.messages
    wanted = parse(header).client
    assert wanted is not None
    assert message.peer.remote_ip == wanted.remote_ip
    assert message.peer.proxy_ip == "127.0.0.1"
    assert message.peer.secure


async def test_the_client_stays_the_client_over_starttls(tmp_path: Path) -> None:
    ours, theirs = contexts(tmp_path)
    taken = Taken()
    async with serving(taken, proxies=LOOPBACK, tls=ours) as door, talking(door) as client:
        client.writer.write(V2)
        await client.reply()
        await client.ask(b"EHLO client.test")
        await client.ask(b"STARTTLS")
        await client.writer.start_tls(theirs, server_hostname="localhost")
        client.writer.write(MAIL)
        said = [await client.reply() for _ in range(6)]
    assert said[-1].startswith("221 ")
    [(message, _)] = taken.messages
    assert message.peer.remote_ip == "192.0.2.7"
    assert message.peer.local_ip == "198.51.100.1"
    assert message.peer.proxy_ip == "127.0.0.1"
    assert message.peer.secure


class Ledger:
    """A door that writes down who came and went, and has something against one network."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.left: list[str] = []
        self.places = 0

    def reserve(self, _again: Callable[[], None]) -> bool:
        self.places += 1
        return True

    def release(self) -> None:
        self.places -= 1

    def enter(self, peer: Peer) -> Reply | None:
        self.entered.append(peer.remote_ip)
        if peer.remote_ip not in ELSEWHERE:
            return None
        self.release()
        return reply.NOT_IN_RANGE

    def leave(self, peer: Peer) -> None:
        self.left.append(peer.remote_ip)
        self.release()


class Greeter(Welcome):
    def __init__(self) -> None:
        self.greeted: list[Peer] = []

    def connected(self, peer: Peer) -> Now[Reply]:
        self.greeted.append(peer)
        return super().connected(peer)


async def test_the_door_judges_the_client_and_not_its_balancer() -> None:
    ledger = Ledger()
    async with serving(Taken(), proxies=LOOPBACK, entrance=ledger) as door:
        async with talking(door) as unwanted:
            unwanted.writer.write(V1)
            assert (await unwanted.reply()).startswith("554 ")
            assert await ended(unwanted) == b""
        async with talking(door) as welcome:
            welcome.writer.write(V2_IPV6)
            assert (await welcome.reply()).startswith("220 ")
        await door.deserted()
    assert ledger.entered == ["192.0.2.7", "2001:db8::7"]
    assert ledger.left == ["2001:db8::7"]
    assert ledger.places == 0


@pytest.mark.parametrize("begin", [b"EHLO client.test\r\n", b"PROXY ", V2[:-1]])
async def test_who_has_no_header_never_comes_to_the_door_and_keeps_no_place(begin: bytes) -> None:
    ledger = Ledger()
    async with serving(Taken(), proxies=LOOPBACK, entrance=ledger) as door:
        async with talking(door) as client:
            client.writer.write(begin)
            client.writer.write_eof()
            assert await ended(client) == b""
        await door.deserted()
    assert (ledger.entered, ledger.left, ledger.places) == ([], [], 0)


async def test_a_health_check_is_greeted_and_counts_as_nobody() -> None:
    ledger, greeter = Ledger(), Greeter()
    async with serving(Taken(), greeter, proxies=LOOPBACK, entrance=ledger) as door:
        for header in (LOCAL, None):
            async with talking(door) as check:
                own = check.writer.get_extra_info("sockname")
                # As HAProxy does it in version 1, which has no LOCAL.
                announced = f"PROXY TCP4 127.0.0.1 127.0.0.1 {own[1]} {door.port}\r\n"
                check.writer.write(header or announced.encode())
                assert (await check.reply()).startswith("220 ")
                assert (await check.ask(b"QUIT")).startswith("221 ")
        await door.deserted()
    assert (ledger.entered, ledger.left, ledger.places) == ([], [], 0)
    assert [peer.health_check for peer in greeter.greeted] == [True, True]


@pytest.mark.parametrize(
    ("header", "clients"), [(LOCAL, 0), (V2_IPV6, 20), (V1[:9], 0)], ids=["check", "client", "cut"]
)
async def test_who_is_gone_before_the_header_is_looked_at_keeps_no_place(
    header: bytes, clients: int
) -> None:
    ledger = Ledger()
    async with serving(Taken(), proxies=LOOPBACK, entrance=ledger) as door:
        for _ in range(20):
            # All of it before the listener has its turn; HAProxy ends its checks by a reset.
            sock = socket.create_connection(("127.0.0.1", door.port))
            sock.sendall(header)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        async with talking(door) as client:
            client.writer.write(V2_IPV6)
            assert (await client.reply()).startswith("220 ")
        await door.deserted()
    assert ledger.entered == ledger.left == ["2001:db8::7"] * (clients + 1)
    assert ledger.places == 0


async def test_a_client_without_a_name_is_counted_by_the_address_of_its_balancer() -> None:
    ledger = Ledger()
    async with serving(Taken(), proxies=LOOPBACK, entrance=ledger) as door:
        async with talking(door) as client:
            client.writer.write(UNKNOWN)
            assert (await client.reply()).startswith("220 ")
        await door.deserted()
    assert ledger.entered == ledger.left == ["127.0.0.1"]
