"""What systemd hears: a datagram socket takes its place."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import running
from mailgw.process.notify import Notifier


class Listener:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(15)

    def heard(self) -> dict[str, str]:
        """The next notification, as its variables."""
        lines = self._socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(str(tmp_path / "notify"))
    yield listener
    listener.close()


def test_ready_reload_and_the_end_are_told(tmp_path: Path, systemd: Listener) -> None:
    conf = tmp_path / "mailgw.conf"
    conf.write_text("")
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    with running(tmp_path, {"config-file": conf}, environ=environ) as server:
        assert server.process is not None
        ready = {"READY": "1", "MAINPID": str(server.process.pid)}
        assert systemd.heard() == ready
        server.signal(signal.SIGHUP)
        reloading = systemd.heard()
        assert reloading["RELOADING"] == "1"
        assert int(reloading["MONOTONIC_USEC"]) > 0
        assert systemd.heard() == ready
        # A reload that is refused has an end too.
        conf.write_text("smtp-prot: 25\n")
        server.signal(signal.SIGHUP)
        assert systemd.heard()["RELOADING"] == "1"
        assert systemd.heard() == ready
        server.signal()
        assert systemd.heard() == {"STOPPING": "1"}
        assert server.wait() == 0


def test_the_watchdog_hears_that_we_live_twice_as_often_as_it_asks(
    tmp_path: Path, systemd: Listener
) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    with running(tmp_path, environ=environ):
        heard = [systemd.heard() for _ in range(8)]
    assert heard.count({"WATCHDOG": "1"}) == 7


def test_what_was_asked_of_us_is_not_handed_on() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "LEFT": "alone"}
    Notifier.taken_from(environ)
    assert environ == {"LEFT": "alone"}


def test_an_address_without_a_file_is_found() -> None:
    name = f"mailgw-test-{os.getpid()}"
    listener = Listener(f"\0{name}")
    try:
        Notifier.taken_from({"NOTIFY_SOCKET": f"@{name}"}).stopping()
        assert listener.heard() == {"STOPPING": "1"}
    finally:
        listener.close()


@pytest.mark.parametrize("address", ["", "relative", "/nobody/listens/here"])
def test_nobody_who_listens_is_no_trouble(address: str) -> None:
    Notifier.taken_from({"NOTIFY_SOCKET": address}).ready()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
    ],
)
def test_how_often_the_watchdog_wants_to_hear(
    environ: dict[str, str], interval: float | None
) -> None:
    assert Notifier.taken_from(environ).interval == interval
