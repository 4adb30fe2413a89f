"""What is found out about a message after the final dot, and what follows from it."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal, TypeAlias

from mailgw.config.declare import key, section
from mailgw.config.values import (
    BadValue,
    domains,
    duration,
    hostname,
    size_of_at_least,
    whole,
    words,
)

Check: TypeAlias = Literal["spf", "dkim", "dmarc", "arc", "spam"]
RecipientClass: TypeAlias = Literal["local", "nonlocal"]

_SCORE = re.compile(r"-?[0-9]{1,4}(?:\.[0-9]{1,3})?")


def score(text: str) -> float | None:
    """A number of points; empty is None."""
    if not text:
        return None
    if not _SCORE.fullmatch(text):
        raise BadValue("is not a number of points", "try 15 or 7.5")
    return float(text)


def spamd_host(text: str) -> str:
    """A host name, an IP address, or the path of a socket."""
    if not text:
        raise BadValue("is no place to ask at", "try localhost")
    if text.startswith("/"):
        return text
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return hostname(text)
    except BadValue:
        raise BadValue(
            "is neither a host nor the path of a socket", "try localhost or /run/spamd.sock"
        ) from None


@section("checks")
class CheckSettings:
    """Checks, and what follows from them"""

    check: tuple[Check, ...] = key(
        "smtp-check",
        words("spf", "dkim", "dmarc", "arc", "spam"),
        default="",
        reload=True,
        doc="What is found out about each message: words out of spf, dkim, dmarc, arc, spam, "
        "separated by commas. dmarc needs spf and dkim, which are then run and written down too. "
        "By itself a check refuses nothing. Empty: nothing.",
    )
    timeout: float = key(
        "smtp-check-timeout",
        duration,
        default="10",
        reload=True,
        doc="Seconds that all checks of a message may take together. What has no answer by then "
        "is temperror, and the mail goes on.",
    )
    auth_results: tuple[RecipientClass, ...] = key(
        "smtp-auth-results",
        words("local", "nonlocal"),
        default="",
        reload=True,
        doc="For which recipients an Authentication-Results field goes on top of the message, and "
        "fields that claim to be ours are taken out: local, nonlocal, or both. Empty: for none, "
        "and nothing is taken out.",
    )
    arc_trusted: tuple[str, ...] = key(
        "arc-trusted",
        domains,
        default="",
        reload=True,
        doc="Domains whose ARC seals are believed, exactly as in d= of the seal, separated by "
        "commas. In a chain that passes, the newest of them that found dmarc=pass rescues a "
        "message that fails DMARC here. Empty: nobody.",
    )
    reject: tuple[Literal["dmarc", "spf", "spam"], ...] = key(
        "smtp-reject",
        words("dmarc", "spf", "spam"),
        default="",
        reload=True,
        doc="What a message is refused for after the final dot: dmarc, a failure where the domain "
        "asks for reject; spf, the verdict fail for the sender, or for the HELO name where there "
        "is none; spam, a score of at least spam-reject-score. Clients that are authenticated are "
        "not refused: their mail has not been where SPF and DKIM would put it. Empty: nothing.",
    )
    quarantine: tuple[Literal["dmarc", "spam"], ...] = key(
        "smtp-quarantine",
        words("dmarc", "spam"),
        default="",
        reload=True,
        doc="What sends a message to rabbitmq-quarantine: dmarc, a failure where the domain asks "
        "for quarantine or reject, unless the client is authenticated; spam, what SpamAssassin "
        "calls spam. Empty: nothing.",
    )
    defer: tuple[Literal["temperror"], ...] = key(
        "smtp-defer",
        words("temperror"),
        default="",
        reload=True,
        doc="temperror: where a check could not be completed, and its result is wanted (not where "
        "DMARC passes anyway), the client is told to try again, with 451, unless it is "
        "authenticated. Empty: the mail goes on.",
    )
    spam_reject_score: float | None = key(
        "spam-reject-score",
        score,
        default="",
        reload=True,
        doc="Points of SpamAssassin from which smtp-reject: spam refuses. Empty: none.",
    )
    spamassassin_host: str = key(
        "spamassassin-host",
        spamd_host,
        default="localhost",
        reload=True,
        doc="Where SpamAssassin's spamd is: a host, or the path of a unix socket.",
    )
    spamassassin_port: int = key(
        "spamassassin-port",
        whole(1, 65535),
        default="783",
        reload=True,
        doc="Port of spamd.",
    )
    spamassassin_maxsize: int = key(
        "spamassassin-maxsize",
        size_of_at_least(1),
        default="500KB",
        reload=True,
        doc="Larger messages are not sent to spamd; their verdict is none.",
    )
    spamassassin_timeout: float = key(
        "spamassassin-timeout",
        duration,
        default="10",
        reload=True,
        doc="Seconds to wait for spamd, within smtp-check-timeout.",
    )
    # RFC 7208 4.6.4: ten, and two without a result.
    spf_lookups: int = key(
        "spf-lookups",
        whole(1, 50),
        default="10",
        reload=True,
        doc="DNS look-ups that one SPF record may cause; more is permerror. RFC 7208 says 10.",
    )
    spf_void_lookups: int = key(
        "spf-void-lookups",
        whole(0, 50),
        default="2",
        reload=True,
        doc="Of these, look-ups that may find nothing; more is permerror. RFC 7208 says 2.",
    )
