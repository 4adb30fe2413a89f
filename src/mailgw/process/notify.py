"""What systemd is told about us, where it asked: sd_notify(3), one datagram a time."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

# The kernel's word for a name without a file, as systemd writes it and as it is.
_ABSTRACT = {"@": "\0", "/": "/"}


class Notifier:
    """Speaks to `address`, or to nobody. `interval`: how often to say that we live, in seconds."""

    def __init__(self, address: str = "", interval: float | None = None) -> None:
        self._address = _ABSTRACT.get(address[:1], "") + address[1:]
        self.interval = interval

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Who asked in the environment; what it said is removed, so no child answers too."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        meant = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if not (meant and microseconds.isdigit() and int(microseconds)):
            return cls(address)
        # sd_watchdog_enabled(3): twice as often as it is waited for.
        return cls(address, int(microseconds) / 2_000_000)

    def ready(self) -> None:
        """For the start, and for the end of a reload."""
        self._say("READY=1", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._say("STOPPING=1")

    def alive(self) -> None:
        self._say("WATCHDOG=1")

    def _say(self, *lines: str) -> None:
        if not self._address.strip("\0"):
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            # Whoever does not read is not waited for.
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), self._address)
