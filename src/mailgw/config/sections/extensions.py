"""Code of the operator's own, by the names it is imported under."""

from __future__ import annotations

from mailgw.config.declare import key, section
from mailgw.config.values import dotted, duration, several_dotted


@section("extensions")
class ExtensionSettings:
    """Extensions"""

    hook: tuple[str, ...] = key(
        "hook",
        several_dotted,
        default="",
        several=True,
        doc="Hooks, each package.module:Name, asked in this order. The one key that may stand on "
        "several lines; elsewhere separated by commas. Empty: none.",
    )
    handler: str = key(
        "handler",
        dotted,
        default="",
        doc="A handler written for aiosmtpd, package.module:Class. Empty: none.",
    )
    hook_timeout: float = key(
        "hook-timeout",
        duration,
        default="5",
        doc="Seconds that a hook or the handler has for one answer. After that the client is told "
        "to try again with 451.",
    )
