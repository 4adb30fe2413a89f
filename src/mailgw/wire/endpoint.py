"""Listening sockets: binding them, and taking clients off them."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

_BACKLOG = 1024
_family = socket.SocketType.family.__get__
# What the socket module calls an address: host and port come first.
Address = tuple[str, int] | tuple[str, int, int, int]


class CannotListen(Exception):
    """An address that cannot be had; the text names it and says why."""


class _Client(socket.socket):
    """A socket that knows its family and type as plain numbers.

    An event loop asks for them three times a client, and looking up what member of an enumeration
    they are takes a microsecond each time.
    """

    family = socket.SocketType.family  # type: ignore[assignment]  # numbers, on purpose
    type = socket.SocketType.type  # type: ignore[assignment]  # likewise


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A bound, listening socket. `secure`: TLS from the first byte."""

    sock: socket.socket
    secure: bool

    @property
    def open(self) -> bool:
        """Whether its socket is not closed yet."""
        return self.sock.fileno() >= 0

    def accept(self) -> tuple[socket.socket, Address]:
        """The next client's socket, and where it is. Raises as `socket.accept` does."""
        # All that `socket.accept` adds to this is looking up two members of enumerations.
        descriptor, address = self.sock._accept()  # type: ignore[attr-defined]  # not in the stubs
        return _Client(_family(self.sock), socket.SOCK_STREAM, 0, descriptor), address

    def __str__(self) -> str:
        host, port = self.sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(
    addresses: Iterable[str], ports: Iterable[int], secure_ports: Iterable[int]
) -> list[Endpoint]:
    """Listen on every address and port; all or nothing. Raises CannotListen.

    Without addresses: on all of this machine, IPv4 and, where there is IPv6, IPv6.
    """
    wanted = [(port, False) for port in ports] + [(port, True) for port in secure_ports]
    endpoints: list[Endpoint] = []
    try:
        for address in addresses or _everywhere():
            for port, secure in wanted:
                endpoints.append(Endpoint(_listening(address, port), secure))
    except OSError as trouble:
        for endpoint in endpoints:
            endpoint.sock.close()
        raise CannotListen(f"cannot listen on {address} port {port}: {trouble.strerror}") from None
    return endpoints


def _everywhere() -> tuple[str, ...]:
    return ("0.0.0.0", "::") if socket.has_dualstack_ipv6() else ("0.0.0.0",)


def _listening(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 has a socket of its own, so its clients keep their own addresses.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
