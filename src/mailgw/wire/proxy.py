"""The PROXY protocol, versions 1 and 2: for whom a balancer speaks.

Two laws. Not an octet behind the header is read, so TLS or SMTP may follow in the same
segment. And nothing is guessed: what is not exactly a header is refused, whatever it
might have meant. The text is HAProxy's doc/proxy-protocol.txt; its sections are named.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mailgw.mail.peer import Peer

# 2.1: the longest line of version 1, with its CRLF.
_LONGEST_LINE = 107
_LINE = b"PROXY "
# 2.2
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
# 2.2 lets a header have 65551 octets. What balancers tell about a client takes hundreds.
_LONGEST_HEADER = 4096
# 2.2: family and protocol -> octets of one address, and of the whole address block. Of
# what carries SMTP there are no others: datagrams do not.
_FAMILIES = {0x11: (4, 12), 0x21: (16, 36), 0x31: (108, 216)}
_UNSPEC, _UNIX = 0x00, 0x31
# 2.2.3: CRC-32c, and its table (Castagnoli's polynomial, reflected).
_CRC32C, _CASTAGNOLI = 0x03, 0x82F63B78

_port = re.compile(rb"0|[1-9][0-9]{0,4}").fullmatch


class BadHeader(Exception):
    """What a connection began with is no PROXY header; the text says why, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Client:
    """The four addresses of a connection, as its balancer saw it."""

    remote_ip: str
    remote_port: int
    local_ip: str
    local_port: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says. Without `client` the addresses of the connection itself count.

    `own`: the balancer speaks for itself, not for a client (LOCAL).
    """

    client: Client | None = None
    own: bool = False


async def meet(sock: socket.socket, peer: Peer, patience: float) -> Peer:
    """Read the header that `peer` must begin with, off a fresh, non-blocking socket.

    Gives who it speaks for. Raises BadHeader, also when it is not whole in `patience`
    seconds. The socket stays the caller's.
    """
    try:
        async with asyncio.timeout(patience):
            octets = await _header(sock)
    except TimeoutError:
        raise BadHeader("not whole in time") from None
    except OSError as trouble:
        raise BadHeader(trouble.strerror or "the connection failed") from None
    return introduced(peer, parse(octets))


def introduced(peer: Peer, header: Header) -> Peer:
    """The client that `peer` speaks for with this header.

    One that the balancer cannot name (UNKNOWN) has the balancer's address twice.
    """
    client = header.client
    itself = Client(peer.remote_ip, peer.remote_port, peer.local_ip, peer.local_port)
    # Version 1 has no LOCAL: HAProxy's checks announce their own connection instead.
    if header.own or client == itself:
        return replace(peer, health_check=True)
    if client is None:
        return replace(peer, proxy_ip=peer.remote_ip)
    return replace(
        peer,
        remote_ip=client.remote_ip,
        remote_port=client.remote_port,
        local_ip=client.local_ip,
        local_port=client.local_port,
        proxy_ip=peer.remote_ip,
    )


async def _header(sock: socket.socket) -> bytes:
    """Look first, then take what is known to be of the header."""
    octets = b""
    while True:
        try:
            seen = sock.recv(_LONGEST_HEADER, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            await _readable(sock)
            continue
        if not seen:
            raise BadHeader("the connection ended before it")
        end = end_of_header(octets + seen)
        octets += sock.recv(len(seen) if end is None else end - len(octets))
        if end is not None:
            return octets


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    something = loop.create_future()
    loop.add_reader(sock, _wake, something)
    try:
        await something
    finally:
        loop.remove_reader(sock)


def _wake(something: asyncio.Future[None]) -> None:
    if not something.done():
        something.set_result(None)


def end_of_header(octets: bytes) -> int | None:
    """How many of the octets the header at their start takes; None while it is not whole.

    Until then all of them are of the header. Raises BadHeader as soon as they cannot
    become one.
    """
    if _LINE.startswith(octets[: len(_LINE)]):
        end = octets.find(b"\r\n", 0, _LONGEST_LINE) + 2
        if end >= 2:
            return end
        if len(octets) >= _LONGEST_LINE:
            raise BadHeader("the line of version 1 is too long")
        return None
    if not _SIGNATURE.startswith(octets[: len(_SIGNATURE)]):
        raise BadHeader("not there")
    if len(octets) < _FIXED:
        return None
    end = _FIXED + int.from_bytes(octets[14:_FIXED], "big")
    if end > _LONGEST_HEADER:
        raise BadHeader("version 2 is too long")
    return end if len(octets) >= end else None


def parse(octets: bytes) -> Header:
    """Read a whole header, and nothing but a header. Raises BadHeader."""
    if end_of_header(octets) != len(octets):
        raise BadHeader("more or less than one header")
    return _version_1(octets) if octets.startswith(_LINE) else _version_2(octets)


def _version_1(line: bytes) -> Header:
    match line.removesuffix(b"\r\n").split(b" "):
        case [_, b"UNKNOWN", *_]:
            # 2.1: whatever else the line holds is ignored.
            return Header()
        case [_, b"TCP4", *fields] if len(fields) == 4:
            addresses = [_written(field, ipaddress.IPv4Address) for field in fields[:2]]
        case [_, b"TCP6", *fields] if len(fields) == 4:
            addresses = [_written(field, ipaddress.IPv6Address) for field in fields[:2]]
        case _:
            raise BadHeader("the line of version 1 has other fields")
    if not all(_port(field) and int(field) <= 65535 for field in fields[2:]):
        raise BadHeader("a port is none")
    return Header(Client(addresses[0], int(fields[2]), addresses[1], int(fields[3])))


def _written(field: bytes, kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]) -> str:
    try:
        address = kind(field.decode("ascii"))
    except ValueError:
        raise BadHeader("an address is none of its family") from None
    # A zone means something to the machine that wrote it only.
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise BadHeader("an address has a zone")
    return _plain(address)


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    # RFC 4291 2.5.5.2: one client, one spelling, by which it is counted and let in.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _version_2(octets: bytes) -> Header:
    command, family, block = octets[12], octets[13], octets[_FIXED:]
    if command >> 4 != 2:
        raise BadHeader("not version 2 behind its signature")
    if command == 0x20:
        # 2.2: LOCAL; the block is discarded, the family is ignored.
        return Header(own=True)
    if command != 0x21:
        raise BadHeader("version 2 has another command")
    if family == _UNSPEC:
        return Header()
    if family not in _FAMILIES:
        raise BadHeader("version 2 has another family or protocol")
    each, whole = _FAMILIES[family]
    if len(block) < whole:
        raise BadHeader("version 2 is too short for its family")
    for kind, start, value in _extensions(octets, _FIXED + whole):
        if kind == _CRC32C:
            _check(octets, start, value)
    if family == _UNIX:
        # A client on the balancer's own machine: it has no address but the balancer's.
        return Header()
    remote, local = (_plain(ipaddress.ip_address(block[at : at + each])) for at in (0, each))
    ports = [int.from_bytes(block[at : at + 2], "big") for at in (2 * each, 2 * each + 2)]
    return Header(Client(remote, ports[0], local, ports[1]))


def _extensions(octets: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """The TLVs of 2.2: kind, where the value starts, value."""
    while at < len(octets):
        start = at + 3
        end = start + int.from_bytes(octets[at + 1 : start], "big")
        if start > len(octets) or end > len(octets):
            raise BadHeader("a TLV reaches beyond its header")
        yield octets[at], start, octets[start:end]
        at = end


def _check(octets: bytes, start: int, checksum: bytes) -> None:
    """2.2.3: the sum is over the header with zeros in its own place."""
    end = start + len(checksum)
    whole = octets[:start] + bytes(len(checksum)) + octets[end:]
    if len(checksum) != 4 or _crc32c(whole) != int.from_bytes(checksum, "big"):
        raise BadHeader("its checksum is wrong")


def _crc32c(octets: bytes) -> int:
    rest = 0xFFFFFFFF
    for octet in octets:
        rest = _SUMS[(rest ^ octet) & 0xFF] ^ (rest >> 8)
    return rest ^ 0xFFFFFFFF


def _sum(number: int) -> int:
    for _ in range(8):
        number = (number >> 1) ^ (_CASTAGNOLI if number & 1 else 0)
    return number


_SUMS = tuple(_sum(octet) for octet in range(256))
