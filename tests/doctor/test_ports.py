"""Ports as the doctor sees them: free, taken by others, taken by us; nothing is bound."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from doctor.looking import lines
from mailgw.doctor import ports
from mailgw.doctor.ports import look_at_ports

LISTEN = """
import socket, sys
sock = socket.create_server((sys.argv[1], 0), family=int(sys.argv[2]))
print(sock.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_a_port_that_somebody_has_is_told_with_who_it_is() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LISTEN, "127.0.0.1", str(int(socket.AF_INET))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        [seen] = lines(look_at_ports(["127.0.0.1"], [port]))

    assert seen.startswith(f"error port {port}: is taken by process {process.pid} (python")
    assert "on 127.0.0.1" in seen


@pytest.mark.parametrize(
    ("listening", "ours", "taken"),
    [
        ("127.0.0.1", ["127.0.0.1"], True),
        ("127.0.0.1", [], True),
        ("0.0.0.0", ["127.0.0.1"], True),
        ("127.0.0.2", ["127.0.0.1"], False),
        ("127.0.0.1", ["::1"], False),
        ("::1", ["::1"], True),
        ("::1", ["127.0.0.1"], False),
    ],
)
def test_what_listens_elsewhere_is_in_nobodys_way(
    listening: str, ours: list[str], taken: bool
) -> None:
    family = socket.AF_INET6 if ":" in listening else socket.AF_INET
    # Free everywhere: another server of the tests may have the same port at another address.
    with socket.create_server(("", 0)) as anywhere:
        port = anywhere.getsockname()[1]
    with socket.create_server((listening, port), family=family):
        [seen] = lines(look_at_ports(ours, [port]))

    assert seen.startswith("error" if taken else "ok") is True


def test_a_free_port_is_free_and_stays_it(unused_tcp_port: int) -> None:
    assert lines(look_at_ports([], [unused_tcp_port])) == [f"ok port {unused_tcp_port}: is free"]
    socket.create_server(("127.0.0.1", unused_tcp_port)).close()


def test_any_free_port_is_nothing_to_look_at() -> None:
    assert look_at_ports([], [0]) == []


def test_a_low_port_that_we_may_not_have_is_a_warning() -> None:
    taken = {each.port for each in ports.listening()}
    port = next(number for number in range(1023, 1, -1) if number not in taken)

    [seen] = lines(look_at_ports([], [port], lambda number: number >= 1024))

    assert seen.startswith(f"warning port {port}: is free, and only root may listen there")


def test_everybody_may_have_a_high_port() -> None:
    assert ports.may_bind(65535)


def test_we_ourselves_are_found_as_who_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        [found] = [each for each in ports.listening() if each.port == port]

        assert ports.holder(found.inode)[0] == os.getpid()
