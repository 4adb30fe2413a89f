"""Where clients find us."""

from __future__ import annotations

from mailgw.config.declare import key, section
from mailgw.config.values import addresses, hostname, ports, whole


@section("listen")
class ListenSettings:
    """Listening"""

    ip: tuple[str, ...] = key(
        "smtp-ip",
        addresses,
        default="",
        doc="Local addresses to listen on, IPv4 or IPv6, separated by semicolons or commas. "
        "Empty: all local addresses.",
    )
    port: tuple[int, ...] = key(
        "smtp-port",
        ports,
        default="25",
        doc="Ports for plain SMTP, on which STARTTLS is offered where a certificate is set: a "
        "list with ranges, such as 25,2525,1024-1026. Port 0 is any free port. Empty: none.",
    )
    secure_port: tuple[int, ...] = key(
        "smtp-secure-port",
        ports,
        default="",
        doc="Ports on which TLS starts at once, written as for smtp-port. Empty: none.",
    )
    hostname: str = key(
        "hostname",
        hostname,
        default="",
        doc="The name this server gives itself in the banner, in its EHLO reply and in the "
        "documents. Empty: the system's name, asked once at the start.",
    )
    threads: int = key(
        "smtp-threads",
        whole(1, 256),
        default="1",
        doc="Worker processes that serve SMTP; about as many as there are processors.",
    )
