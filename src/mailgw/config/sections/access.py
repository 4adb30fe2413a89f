"""Who may send, and to whom."""

from __future__ import annotations

from typing import Literal

from mailgw.config.declare import key, section, text_key
from mailgw.config.networks import Networks, networks
from mailgw.config.values import as_is, mask_all, word


@section("access")
class AccessSettings:
    """Who may send"""

    username: str = text_key(
        "smtp-username",
        default="",
        doc="User name of the one login. With smtp-password it makes authentication mandatory "
        "for recipients that are not local. Empty: no authentication.",
    )
    password: str = key(
        "smtp-password",
        as_is,
        default="",
        mask=mask_all,
        doc="Password of the one login.",
    )
    auth_insecure_range: Networks = key(
        "smtp-auth-insecure-range",
        networks,
        default="",
        doc="Clients that may authenticate without TLS, their password in clear: networks, "
        "ranges (a-b) and globs, separated by semicolons. Empty: nobody.",
    )
    recipients: Literal["any", "local"] = key(
        "smtp-recipients",
        word("any", "local"),
        default="any",
        reload=True,
        doc="Where a client that is not authenticated may write to: any address, or local ones "
        "only. A server that the internet can reach wants local.",
    )
