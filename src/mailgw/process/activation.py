"""Listening sockets that were open before us: systemd's socket activation, sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, MutableMapping
from contextlib import suppress

from mailgw.wire.endpoint import CannotListen, Endpoint

_FIRST = 3  # SD_LISTEN_FDS_START
_MOST = 1024


def handed_over(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that the environment says are ours; what it said is removed.

    Raises CannotListen for what is not a listening TCP socket.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    return [_socket(_FIRST + number) for number in range(min(int(count), _MOST))]


def matched(
    sockets: Collection[socket.socket], ports: Collection[int], secure_ports: Collection[int]
) -> list[Endpoint]:
    """Each socket as the endpoint of the port that is configured. Raises CannotListen."""
    endpoints = []
    for sock in sockets:
        port = sock.getsockname()[1]
        if port not in ports and port not in secure_ports:
            raise CannotListen(
                f"a socket was handed over for port {port}, which is neither in smtp-port nor "
                "in smtp-secure-port"
            )
        endpoints.append(Endpoint(sock, port in secure_ports))
    return endpoints


def _socket(descriptor: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as trouble:
        raise CannotListen(f"descriptor {descriptor} is no socket: {trouble.strerror}") from None
    listens = False
    if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
        with suppress(OSError):
            listens = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    if not listens:
        sock.detach()  # not ours to close
        raise CannotListen(f"descriptor {descriptor} is no listening TCP socket")
    sock.setblocking(False)
    sock.set_inheritable(False)
    return sock
