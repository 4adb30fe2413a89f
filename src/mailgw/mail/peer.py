"""Who is connected: addresses, TLS, the name given in EHLO, the identity.

A client sets its own fields, because every connection makes three; see smtp.events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple


class Tls(NamedTuple):
    """What the handshake negotiated: "TLSv1.3", "TLS_AES_256_GCM_SHA384"."""

    version: str
    cipher: str


@dataclass(init=False, slots=True, unsafe_hash=True)
class Peer:
    """One client. IPv4-mapped IPv6 addresses are given as IPv4.

    `connection_id` is unique and names the connection in the log. `proxy_ip` is the
    balancer that spoke for the client, if any; the addresses are the client's then.
    `health_check` is a balancer that speaks for itself, to see whether we are there: it is
    not counted as a client. `user` is set once authenticated.
    """

    connection_id: Final[str]
    remote_ip: Final[str]
    remote_port: Final[int]
    local_ip: Final[str]
    local_port: Final[int]
    proxy_ip: Final[str | None]
    health_check: Final[bool]
    tls: Final[Tls | None]
    helo: Final[str | None]
    esmtp: Final[bool]
    user: Final[str | None]

    def __init__(
        self,
        connection_id: str,
        remote_ip: str,
        remote_port: int,
        local_ip: str,
        local_port: int,
        proxy_ip: str | None = None,
        health_check: bool = False,
        tls: Tls | None = None,
        helo: str | None = None,
        esmtp: bool = False,
        user: str | None = None,
    ) -> None:
        self.connection_id = connection_id
        self.remote_ip = remote_ip
        self.remote_port = remote_port
        self.local_ip = local_ip
        self.local_port = local_port
        self.proxy_ip = proxy_ip
        self.health_check = health_check
        self.tls = tls
        self.helo = helo
        self.esmtp = esmtp
        self.user = user

    def introduced(self, helo: str, *, esmtp: bool) -> Peer:
        """The same client, with the name that it gives itself."""
        # One by one, because `dataclasses.replace` looks up each of them by its name.
        return Peer(
            self.connection_id,
            self.remote_ip,
            self.remote_port,
            self.local_ip,
            self.local_port,
            self.proxy_ip,
            self.health_check,
            self.tls,
            helo,
            esmtp,
            self.user,
        )

    @property
    def secure(self) -> bool:
        return self.tls is not None
