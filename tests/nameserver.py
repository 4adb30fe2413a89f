"""A small authoritative DNS server on loopback, over UDP and TCP, that can also misbehave.

The messages are dnspython's, so what our resolver reads was not written by it. A name
that stands in `records` exists; others get NXDOMAIN with the SOA of the zone above them.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

# (name, type) -> records as they stand in a zone file.
Zone = Mapping[tuple[str, str], Sequence[str]]
_SOA = "ns.test. hostmaster.test. 1 3600 600 86400 30"


@dataclass
class NameServer:
    """What it answers may be changed while it runs; `asked` counts (name, type, transport).

    `behaviour` by name, or by (name, type): servfail, refused, silent, wrong-id, garbage,
    deaf (to the first three packets), held (until `release`; by name only), usual (as if
    nothing were said of the name).
    """

    records: dict[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    ttl: int = 300
    behaviour: dict[str | tuple[str, str], str] = field(default_factory=dict)
    asked: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    most_held: int = 0

    def __post_init__(self) -> None:
        self._udp, self._tcp = _same_port()
        self.port: int = self._udp.getsockname()[1]
        self._held: dict[str, list[tuple[bytes, tuple[str, int]]]] = {}
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._packets, self._streams)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._ending.set()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", ("127.0.0.1", self.port))
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    def count(self, name: str) -> int:
        """How many packets and streams asked for a name."""
        return sum(number for (asked, _, _), number in self.asked.items() if asked == name)

    @property
    def held(self) -> list[str]:
        """Who is asked about and waits to be released."""
        return list(self._held)

    def release(self, *names: str) -> None:
        """Answer who asked for held names, and whoever asks from now on."""
        for name in names:
            del self.behaviour[name]
            for data, client in self._held.pop(name, []):
                self._udp.sendto(self._answer(data, "udp"), client)

    def _packets(self) -> None:
        while True:
            data, client = self._udp.recvfrom(65535)
            if self._ending.is_set():
                return
            name, kind = self._note(data, "udp")
            match self._how(name, kind):
                case "silent":
                    pass
                case "deaf" if self.count(name) <= 3:
                    pass
                case "held":
                    self._held.setdefault(name, []).append((data, client))
                    self.most_held = max(self.most_held, len(self._held))
                case _:
                    self._udp.sendto(self._answer(data, "udp"), client)

    def _streams(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            with connection, connection.makefile("rb") as reader, contextlib.suppress(OSError):
                if self._ending.is_set():
                    return
                connection.settimeout(5)
                while len(head := reader.read(2)) == 2:
                    data = reader.read(struct.unpack("!H", head)[0])
                    self._note(data, "tcp")
                    answer = self._answer(data, "tcp")
                    connection.sendall(struct.pack("!H", len(answer)) + answer)

    def _note(self, data: bytes, transport: str) -> tuple[str, str]:
        name, kind = _question(dns.message.from_wire(data))
        self.asked[(name, kind, transport)] += 1
        return name, kind

    def _how(self, name: str, kind: str) -> str:
        return self.behaviour.get((name, kind)) or self.behaviour.get(name, "usual")

    def _answer(self, data: bytes, transport: str) -> bytes:
        query = dns.message.from_wire(data)
        name, kind = _question(query)
        response = dns.message.make_response(query, recursion_available=True)
        match self._how(name, kind):
            case "servfail":
                response.set_rcode(dns.rcode.SERVFAIL)
            case "refused":
                response.set_rcode(dns.rcode.REFUSED)
            case "garbage":
                return data[:2] + b"\xff" * 40
            case "wrong-id":
                self._fill(response, name, kind)
                response.id ^= 1
            case _:
                self._fill(response, name, kind)
        return _fitting(query, response, transport)

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        """Follow CNAMEs, as a resolver does, and say what is at their end."""
        passed = set()
        while (target := self.records.get((name, "CNAME"))) and name not in passed:
            passed.add(name)
            response.answer.append(
                dns.rrset.from_text(name + ".", self.ttl, "IN", "CNAME", *target)
            )
            name = target[0].removesuffix(".").lower()
        found = self.records.get((name, kind))
        if found:
            response.answer.append(dns.rrset.from_text(name + ".", self.ttl, "IN", kind, *found))
            return
        if all(known != name for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        response.authority.append(dns.rrset.from_text("test.", self.ttl, "IN", "SOA", _SOA))


def _question(query: dns.message.Message) -> tuple[str, str]:
    [asked] = query.question
    return asked.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(asked.rdtype)


def _fitting(query: dns.message.Message, response: dns.message.Message, transport: str) -> bytes:
    """RFC 2181 9: what does not fit into a packet is cut, and marked as cut."""
    if transport == "tcp":
        return response.to_wire(max_size=65535)
    try:
        return response.to_wire(max_size=query.payload if query.edns >= 0 else 512)
    except dns.exception.TooBig:
        cut = dns.message.make_response(query, recursion_available=True)
        cut.flags |= dns.flags.TC
        return cut.to_wire()


def _same_port() -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on one port that is free for both."""
    for _ in range(50):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        try:
            return udp, socket.create_server(udp.getsockname())
        except OSError:
            udp.close()
    raise RuntimeError("no port is free for both UDP and TCP")


@contextlib.contextmanager
def nameserver(records: Zone, ttl: int = 300, **behaviour: str) -> Iterator[NameServer]:
    """A server for the length of a block; `behaviour` is by first label, below .test."""
    odd = {f"{label.replace('_', '-')}.test": how for label, how in behaviour.items()}
    server = NameServer(dict(records), ttl, odd)
    try:
        yield server
    finally:
        server.close()
