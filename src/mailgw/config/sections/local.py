"""Which recipients are ours."""

from __future__ import annotations

from pathlib import Path

from mailgw.config.declare import key, section
from mailgw.config.urls import database, mask_url
from mailgw.config.values import path, seconds


@section("local")
class LocalSettings:
    """Local addresses"""

    addresses: Path | None = key(
        "local-addresses",
        path,
        default="",
        reload=True,
        doc="File of local addresses, one pattern a line: user@example.com, @example.com for a "
        "whole domain, *@*.example.com with wildcards, or a pattern after one of the words "
        "exact, fnmatch, substr, regex. Empty: no file.",
    )
    database: str = key(
        "database-address",
        database,
        default="",
        mask=mask_url,
        reload=True,
        doc="Database whose table locals(type, address) holds local addresses too: sqlite:///file "
        "with an absolute path, postgresql://user:password@host/name or mysql://, which is not "
        "tested against a server; the last two take ?sslmode=verify-full. With neither this nor "
        "local-addresses no address is local. Empty: none.",
    )
    ttl: int = key(
        "database-ttl",
        seconds,
        default="600",
        reload=True,
        doc="Seconds after which the table is read again, and the file of local-addresses if it "
        "was changed.",
    )
