"""Who is connected: addresses, TLS, the name given in EHLO, the identity.

Tuples with names, because every connection makes some.
"""

from __future__ import annotations

from typing import NamedTuple


class Tls(NamedTuple):
    """What the handshake negotiated: "TLSv1.3", "TLS_AES_256_GCM_SHA384"."""

    version: str
    cipher: str


class Peer(NamedTuple):
    """One client. IPv4-mapped IPv6 addresses are given as IPv4.

    `connection_id` is unique and names the connection in the log. `proxy_ip` is the
    balancer that spoke for the client, if any; the addresses are the client's then.
    `health_check` is a balancer that speaks for itself, to see whether we are there: it is
    not counted as a client. `user` is set once authenticated.
    """

    connection_id: str
    remote_ip: str
    remote_port: int
    local_ip: str
    local_port: int
    proxy_ip: str | None = None
    health_check: bool = False
    tls: Tls | None = None
    helo: str | None = None
    esmtp: bool = False
    user: str | None = None

    @property
    def secure(self) -> bool:
        return self.tls is not None
