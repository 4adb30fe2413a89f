"""What a rule may look at, what it may say, and the questions that several rules ask."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mailgw.config.declare import Key
from mailgw.config.finding import Severity
from mailgw.config.source import Entry, printable

if TYPE_CHECKING:
    from mailgw.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Written:
    """What a rule may look at."""

    settings: Settings
    entries: Mapping[str, Entry]
    keys: Mapping[str, Key]

    @property
    def logins(self) -> bool:
        """Whether anybody can be asked to log in."""
        return bool(self.settings.access.username or self.settings.access.auth)


@dataclass(frozen=True, slots=True)
class Remark:
    severity: Severity
    keys: tuple[str, ...]
    text: str


def error(text: str, *keys: str) -> Remark:
    return Remark(Severity.ERROR, keys, text)


def warning(text: str, *keys: str) -> Remark:
    return Remark(Severity.WARNING, keys, text)


def note(text: str, *keys: str) -> Remark:
    return Remark(Severity.NOTE, keys, text)


def reachable(settings: Settings) -> bool:
    """Whether mail from another machine could come in."""
    # A proxy brings clients from elsewhere to a port that only this machine can reach.
    if settings.access.proxy:
        return True
    return not settings.listen.ip or not all(is_loopback(ip) for ip in settings.listen.ip)


def strangers_connect(settings: Settings) -> bool:
    """Whether a client on another machine could connect, whoever it is."""
    return reachable(settings) and settings.access.range.everyone


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761 6.3


def unreadable(file: Path) -> str:
    """Why a file cannot be read, "" where it can."""
    try:
        with file.open("rb"):
            return ""
    except OSError as trouble:
        return f"{quoted(file)} cannot be read: {trouble.strerror}"


def quoted(file: Path) -> str:
    return f'"{printable(str(file))}"'
