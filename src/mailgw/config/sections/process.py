"""Under which name, and how, the program runs."""

from __future__ import annotations

from pathlib import Path

from mailgw.config.declare import key, section
from mailgw.config.values import path, truth, user


@section("process")
class ProcessSettings:
    """The process"""

    user: str = key(
        "user",
        user,
        default="",
        doc="User to become once the ports are open, for a start as root. Empty: stay who we are.",
    )
    lock: Path | None = key(
        "lock",
        path,
        default="",
        doc="File that is locked while we run and holds our process id, so that a second one does "
        "not start. Empty: none.",
        differs="safer here, no lock: MailerQ's file is in /tmp, where everybody can be first to "
        "make it",
    )
    daemon: bool = key(
        "daemon",
        truth,
        default="false",
        doc="Leave the terminal and run in the background.",
        differs="false, in the foreground, where systemd and containers watch over it",
    )
