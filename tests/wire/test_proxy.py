from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from headers import CLIENT, CLIENT_IPV6, GENUINE, LOCAL, SIGNATURE, UNKNOWN, V1, V2, V2_IPV6
from house import PATIENCE
from hypothesis import given
from hypothesis import strategies as st

from mailgw.mail.peer import Peer
from mailgw.wire.proxy import (
    BadHeader,
    Client,
    Header,
    end_of_header,
    introduced,
    meet,
    parse,
)
from rabbitmq import eventually


def version_2(command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block)) + block


def addresses(*tlvs: bytes) -> bytes:
    return bytes.fromhex("c0000207c63364019c400019") + b"".join(tlvs)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


# --- what a header says -------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "header"),
    [
        (V1, Header(CLIENT)),
        (b"PROXY TCP6 2001:db8::7 2001:DB8:1::25 40000 25\r\n", Header(CLIENT_IPV6)),
        (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", None),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 40000 25\r\n", Header(CLIENT)),
        (UNKNOWN, Header()),
        (b"PROXY UNKNOWN whatever \xff it says\r\n", Header()),
        (V2, Header(CLIENT)),
        (V2_IPV6, Header(CLIENT_IPV6)),
        (LOCAL, Header(own=True)),
        (version_2(0x20, 0x11, addresses()), Header(own=True)),
        (version_2(0x20, 0xFF, b"\3\0"), Header(own=True)),
        (version_2(0x21, 0x00, b""), Header()),
        (version_2(0x21, 0x00, b"\3"), Header()),
        (version_2(0x21, 0x31, bytes(216)), Header()),
        (version_2(0x21, 0x11, addresses(tlv(4, b""), tlv(0xEE, b"x" * 300))), Header(CLIENT)),
        (GENUINE, Header(Client("127.0.0.1", 36940, "127.0.0.1", 38211))),
    ],
)
def test_a_header_is_read(octets: bytes, header: Header | None) -> None:
    wanted = header or Header(Client("0.0.0.0", 0, "255.255.255.255", 65535))
    assert parse(octets) == wanted


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"EHLO client.test\r\n", "not there"),
        (b"\x16\x03\x01\x02\x00\x01", "not there"),
        (b"proxy TCP4 192.0.2.7 198.51.100.1 40000 25\r\n", "not there"),
        (b"PROXY\tTCP4 192.0.2.7 198.51.100.1 40000 25\r\n", "not there"),
        (b"PROXY \r\n", "other fields"),
        (b"PROXY TCP4\r\n", "other fields"),
        (b"PROXY TCP64 192.0.2.7 198.51.100.1 40000 25\r\n", "other fields"),
        (b"PROXY UNKNOWNS\r\n", "other fields"),
        (b"PROXY TCP4  192.0.2.7 198.51.100.1 40000 25\r\n", "other fields"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25 \r\n", "other fields"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n", "other fields"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 +5_5 25\r\n", "a port is none"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 025\r\n", "a port is none"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 65536\r\n", "a port is none"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\nEHLO x\r\n", "other fields"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\r\n", "a port is none"),
        (b"PROXY TCP4 192.0.2.07 198.51.100.1 40000 25\r\n", "an address is none"),
        (b"PROXY TCP4 192.0.2 198.51.100.1 40000 25\r\n", "an address is none"),
        (b"PROXY TCP4 2001:db8::7 2001:db8:1::25 40000 25\r\n", "an address is none"),
        (b"PROXY TCP6 192.0.2.7 198.51.100.1 40000 25\r\n", "an address is none"),
        (b"PROXY TCP6 2001:db8::7::1 ::1 40000 25\r\n", "an address is none"),
        (b"PROXY TCP6 [::1] ::1 40000 25\r\n", "an address is none"),
        (b"PROXY TCP4 \xef\xbc\x9192.0.2.7 198.51.100.1 40000 25\r\n", "an address is none"),
        (b"PROXY TCP6 fe80::1%eth0 ::1 40000 25\r\n", "has a zone"),
        (b"PROXY UNKNOWN" + b" " * 93 + b"\r\n", "version 1 is too long"),
        (b"PROXY " + b"1" * 101, "version 1 is too long"),
        (version_2(0x11, 0x11, addresses()), "not version 2"),
        (version_2(0x22, 0x11, addresses()), "another command"),
        (version_2(0x21, 0x12, addresses()), "another family"),
        (version_2(0x21, 0x41, addresses()), "another family"),
        (version_2(0x21, 0x11, addresses()[:-1]), "too short"),
        (version_2(0x21, 0x21, addresses()), "too short"),
        (version_2(0x21, 0x31, bytes(215)), "too short"),
        (version_2(0x21, 0x11, addresses(b"\4")), "a TLV reaches"),
        (version_2(0x21, 0x11, addresses(b"\4\0")), "a TLV reaches"),
        (version_2(0x21, 0x11, addresses(b"\4\0\1")), "a TLV reaches"),
        (version_2(0x21, 0x11, addresses(tlv(4, b""), b"\4\xff\xffx")), "a TLV reaches"),
        (version_2(0x21, 0x11, addresses(tlv(3, b""))), "checksum"),
        (version_2(0x21, 0x11, addresses(tlv(3, b"\0\0\0\0"))), "checksum"),
        (GENUINE[:-1] + b"y", "checksum"),
        (version_2(0x21, 0x11, addresses(tlv(4, bytes(4078)))), "version 2 is too long"),
        (V1 + b"\n", "more or less"),
        (V1[:-1], "more or less"),
        (V2 + b"\0", "more or less"),
        (V2[:-1], "more or less"),
        (b"", "more or less"),
    ],
)
def test_what_is_not_exactly_a_header_is_refused(octets: bytes, why: str) -> None:
    with pytest.raises(BadHeader, match=why):
        parse(octets)


def test_the_longest_headers_are_read() -> None:
    assert parse(b"PROXY UNKNOWN" + b" " * 92 + b"\r\n") == Header()
    assert parse(version_2(0x21, 0x11, addresses(tlv(4, bytes(4065))))) == Header(CLIENT)


ports = st.integers(0, 65535)
families = st.sampled_from([("TCP4", st.ip_addresses(v=4)), ("TCP6", st.ip_addresses(v=6))])
tlvs = st.lists(
    st.builds(tlv, st.integers(0, 255).filter(lambda kind: kind != 3), st.binary(max_size=40)),
    max_size=5,
)


@st.composite
def told(draw: st.DrawFn) -> tuple[bytes, Client]:
    """A header of either version, and the client in it."""
    word, family = draw(families)
    remote, local = draw(family), draw(family)
    remote_port, local_port = draw(ports), draw(ports)
    if draw(st.booleans()):
        octets = f"PROXY {word} {remote} {local} {remote_port} {local_port}\r\n".encode()
    else:
        block = remote.packed + local.packed + struct.pack("!HH", remote_port, local_port)
        octets = version_2(
            0x21, 0x11 if remote.version == 4 else 0x21, block + b"".join(draw(tlvs))
        )
    return octets, Client(plain(remote), remote_port, plain(local), local_port)


def plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    return str(getattr(address, "ipv4_mapped", None) or address)


@given(told(), st.binary(max_size=100))
def test_a_header_ends_where_it_ends_whatever_is_behind_it(
    case: tuple[bytes, Client], behind: bytes
) -> None:
    octets, client = case
    assert [end_of_header(octets[:cut]) for cut in range(len(octets))] == [None] * len(octets)
    assert end_of_header(octets + behind) == len(octets)
    assert parse(octets) == Header(client)


beginnings = st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 1.2.3.4 ", SIGNATURE, V1, V2, GENUINE])


@given(beginnings, st.binary(max_size=200), st.data())
def test_any_octets_are_a_header_or_refused_and_no_later_for_being_cut(
    beginning: bytes, rest: bytes, data: st.DataObject
) -> None:
    octets = beginning + rest
    try:
        end = end_of_header(octets)
    except BadHeader:
        end = -1
    if end is not None and end >= 0:
        with suppress(BadHeader):
            parse(octets[:end])
    # Looking earlier finds the same, or nothing yet.
    cut = data.draw(st.integers(0, len(octets)))
    try:
        earlier = end_of_header(octets[:cut])
    except BadHeader:
        assert end == -1
    else:
        assert earlier is None or earlier == end


def test_no_octet_of_a_header_with_a_checksum_can_be_changed_unseen() -> None:
    kind_of_the_checksum = 28  # with another kind there is none
    for at in set(range(len(GENUINE))) - {kind_of_the_checksum}:
        for octet in set(range(256)) - {GENUINE[at]}:
            changed = GENUINE[:at] + bytes([octet]) + GENUINE[at + 1 :]
            with suppress(BadHeader):
                # LOCAL and UNSPEC carry no address that could be wrong.
                assert parse(changed).client is None, changed


# --- for whom -----------------------------------------------------------------------

BALANCER = Peer("c1", "10.0.0.9", 50000, "10.0.0.1", 2525)


def test_the_client_takes_the_place_of_its_balancer() -> None:
    peer = introduced(BALANCER, Header(CLIENT))
    assert peer == Peer("c1", "192.0.2.7", 40000, "198.51.100.1", 25, proxy_ip="10.0.0.9")


def test_a_client_without_a_name_has_the_address_of_its_balancer() -> None:
    peer = introduced(BALANCER, Header())
    assert (peer.remote_ip, peer.remote_port, peer.local_ip, peer.local_port) == (
        ("10.0.0.9", 50000, "10.0.0.1", 2525)
    )
    assert peer.proxy_ip == "10.0.0.9"
    assert not peer.health_check


@pytest.mark.parametrize(
    "header", [Header(own=True), Header(Client("10.0.0.9", 50000, "10.0.0.1", 2525))]
)
def test_a_balancer_that_speaks_for_itself_is_nobody_else(header: Header) -> None:
    peer = introduced(BALANCER, header)
    assert peer.health_check
    assert (peer.remote_ip, peer.proxy_ip) == ("10.0.0.9", None)


# --- off the socket -----------------------------------------------------------------

Sockets = tuple[socket.socket, socket.socket]


@contextmanager
def connected() -> Iterator[Sockets]:
    """Two ends of a TCP connection: the client's, and ours as the listener makes it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        ours, _ = server.accept()
        with ours:
            ours.setblocking(False)
            yield client, ours


def unread(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize(
    "header",
    [V1, V2, V2_IPV6, UNKNOWN, LOCAL, GENUINE],
    ids=["v1", "v2", "v2 IPv6", "UNKNOWN", "LOCAL", "checksum"],
)
async def test_octet_by_octet_a_header_is_the_same_and_nothing_behind_it_is_touched(
    header: bytes,
) -> None:
    with connected() as (client, ours):
        meeting = asyncio.create_task(meet(ours, BALANCER, PATIENCE))
        for at in range(len(header) - 1):
            client.send(header[at : at + 1])
            # Taken off the socket before the next one comes.
            await eventually(lambda: unread(ours) == b"", f"octet {at} is taken")
            assert not meeting.done()
        client.send(header[-1:] + b"\x16\x03\x01 is not ours to read")
        assert await meeting == introduced(BALANCER, parse(header))
        assert unread(ours) == b"\x16\x03\x01 is not ours to read"


@pytest.mark.parametrize("cut", [1, 5, 6, 11, 12, 15, 16, 20, 27])
async def test_a_header_in_two_segments(cut: int) -> None:
    for header in (V1, V2):
        with connected() as (client, ours):
            client.send(header[:cut])
            meeting = asyncio.create_task(meet(ours, BALANCER, PATIENCE))
            await eventually(lambda: unread(ours) == b"", "the first segment is taken")
            client.send(header[cut:] + b"EHLO client.test\r\n")
            assert (await meeting).remote_ip == "192.0.2.7"
            assert unread(ours) == b"EHLO client.test\r\n"


@pytest.mark.parametrize("begin", [b"", b"P", V1[:-1], V2[:-1], SIGNATURE])
async def test_a_header_that_is_not_whole_in_time_is_refused(begin: bytes) -> None:
    with connected() as (client, ours):
        client.send(begin)
        with pytest.raises(BadHeader, match="not whole in time"):
            await meet(ours, BALANCER, 0.2)


@pytest.mark.parametrize("begin", [b"", b"P", V1[:-1], V2[:-1]])
async def test_a_connection_that_ends_before_its_header_does_is_refused(begin: bytes) -> None:
    with connected() as (client, ours):
        client.send(begin)
        client.shutdown(socket.SHUT_WR)
        with pytest.raises(BadHeader, match="ended before"):
            await meet(ours, BALANCER, PATIENCE)


async def test_a_connection_that_is_reset_instead_is_refused() -> None:
    with connected() as (client, ours):
        meeting = asyncio.create_task(meet(ours, BALANCER, PATIENCE))
        client.send(b"PROXY")
        await eventually(lambda: unread(ours) == b"", "the beginning is taken")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(BadHeader, match="reset"):
            await meeting


async def test_octets_without_end_are_read_no_further_than_a_header_goes() -> None:
    with connected() as (client, ours):
        client.send(b"PROXY " + b"1" * 5000)
        with pytest.raises(BadHeader, match="too long"):
            await meet(ours, BALANCER, PATIENCE)
        assert len(unread(ours)) == 5006
