"""Which recipients are ours."""

from __future__ import annotations

from pathlib import Path

from mailgw.config.declare import key, section
from mailgw.config.values import path


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
        "exact, fnmatch, substr, regex. Empty: no address is local.",
    )
