"""Who may connect and send, and to whom."""

from __future__ import annotations

from typing import Literal

from mailgw.config.declare import key, section, text_key
from mailgw.config.networks import Networks, networks, networks_or_everybody
from mailgw.config.urls import credentials, mask_credentials
from mailgw.config.values import addresses, as_is, mask_all, whole, word


@section("access")
class AccessSettings:
    """Who may send"""

    range: Networks = key(
        "smtp-range",
        networks_or_everybody,
        default="",
        reload=True,
        doc="Clients that may connect: networks, ranges (a-b) and globs, separated by semicolons. "
        "All others are refused before the banner. Empty: everybody.",
    )
    proxy: Networks = key(
        "smtp-proxy",
        networks,
        default="",
        reload=True,
        doc="Peers whose connections begin with a PROXY header, version 1 or 2, written as "
        "smtp-range; the client it names counts from then on. From all others such a header is "
        "refused as any unknown command. Empty: nobody.",
    )
    username: str = text_key(
        "smtp-username",
        default="",
        reload=True,
        doc="User name of the one login. With smtp-password it makes authentication mandatory "
        "for recipients that are not local. Empty: no authentication, unless smtp-auth is set.",
    )
    password: str = key(
        "smtp-password",
        as_is,
        default="",
        mask=mask_all,
        reload=True,
        doc="Password of the one login.",
    )
    auth: str = key(
        "smtp-auth",
        credentials,
        default="",
        mask=mask_credentials,
        reload=True,
        doc="Where logins are looked up, instead of smtp-username: "
        "hardcoded://user:password,user2:password2; file:///path with lines of user:hash (crypt "
        "or argon2); http:// or https://, asked with Basic authentication, where any 2xx is a yes. "
        "Empty: nowhere.",
    )
    auth_insecure_range: Networks = key(
        "smtp-auth-insecure-range",
        networks,
        default="",
        reload=True,
        doc="Clients that may authenticate without TLS, their password in clear, written as "
        "smtp-range. Empty: nobody.",
    )
    auth_attempts: int = key(
        "smtp-auth-attempts",
        whole(0, 1_000_000),
        default="10",
        reload=True,
        doc="Logins that may fail per client address and minute. 0: no limit.",
    )
    recipients: Literal["any", "local"] = key(
        "smtp-recipients",
        word("any", "local"),
        default="any",
        reload=True,
        doc="Where a client that is not authenticated may write to: any address, or local ones "
        "only. A server that the internet can reach wants local.",
    )
    default_ips: tuple[str, ...] = key(
        "smtp-default-ips",
        addresses,
        default="",
        reload=True,
        doc="Addresses to send from, put into documents that name none and whose arrival address "
        "is not mappable; separated by semicolons. Empty: none.",
    )
    mappable_ips: Networks = key(
        "smtp-mappable-ips",
        networks,
        default="",
        reload=True,
        doc="Arrival addresses that are copied into the document as the address to send from, "
        "written as smtp-range. Empty: none.",
    )
    unmappable_ips: Networks = key(
        "smtp-unmappable-ips",
        networks,
        default="",
        reload=True,
        doc="Exceptions from smtp-mappable-ips.",
    )
