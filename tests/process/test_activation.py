"""Sockets that somebody else opened: a parent hands them over, as systemd does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client import Client
from gateway import COMMAND, ENVIRONMENT

# Becomes the gateway, with the descriptors of its first argument from 3 on.
PARENT = """
import fcntl, json, os, sys
given = json.loads(sys.argv[1])
aside = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 100) for each in given]
for each in given:
    os.close(each)
for number, each in enumerate(aside):
    os.dup2(each, 3 + number, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)), LISTEN_FDNAMES="x")
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def handed(
    folder: Path, sockets: list[socket.socket], keys: dict[str, object]
) -> Iterator[subprocess.Popen[str]]:
    """A gateway that was given these, and its standard output and error as pipes."""
    usual: dict[str, object] = {
        "smtp-ip": "127.0.0.1",
        "rabbitmq-address": "",
        "queue-store": folder / "queue.sqlite",
    }
    descriptors = [each.fileno() for each in sockets]
    arguments = [f"--{key}={value}" for key, value in (usual | keys).items()]
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, json.dumps(descriptors), *COMMAND, "serve", *arguments],
        env=ENVIRONMENT,
        cwd=folder,
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.communicate(timeout=20)


def complaint(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert out == ""
    [line] = err.splitlines()
    return line


def test_it_serves_on_the_socket_and_who_came_before_it_is_served(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with Client(port) as early, handed(tmp_path, [sock], {"smtp-port": port}) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == f"Listening: 127.0.0.1:{port} (SMTP)\n"
            assert early.hello().startswith("250-")
            process.terminate()
            assert early.reply().startswith("421 4.3.2 ")
            assert process.wait(20) == 0
        # It is still whose it was: nothing is lost while it is started anew.
        with Client(port) as late, handed(tmp_path, [sock], {"smtp-port": port}):
            assert late.hello().startswith("250-")


def test_each_socket_is_what_its_port_is_configured_for(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = [each.getsockname()[1] for each in (one, two)]
        keys: dict[str, object] = {"smtp-port": f"0,{ports[1]},{ports[0]}"}
        with handed(tmp_path, [one, two], keys) as process:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(3)]
            # The port for which none was handed over is opened as ever.
            assert said[:2] == [f"Listening: 127.0.0.1:{port} (SMTP)\n" for port in ports]
            with Client(int(said[2].split()[1].rpartition(":")[2])) as client:
                assert client.hello().startswith("250-")


def test_on_a_socket_for_both_a_client_of_ipv4_keeps_its_address(tmp_path: Path) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as sock:
        port = sock.getsockname()[1]
        with handed(tmp_path, [sock], {"smtp-port": port, "smtp-ip": "::1"}) as process:
            with Client(port) as client:
                client.hello()
                assert client.ask("QUIT").startswith("221 ")
            process.terminate()
            _, log = process.communicate(timeout=20)
    assert " peer=127.0.0.1 " in log
    assert "::ffff:" not in log


def test_a_socket_that_fits_no_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with handed(tmp_path, [sock], {"smtp-port": 0}) as process:
            said = complaint(process)
    assert f"for port {port}, which is neither in smtp-port nor in smtp-secure-port" in said


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_what_does_not_listen_is_refused(kind: socket.SocketKind, tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_INET, kind) as sock,
        handed(tmp_path, [sock], {"smtp-port": 0}) as process,
    ):
        assert complaint(process) == "mailgw: descriptor 3 is no listening TCP socket"


def test_what_was_meant_for_another_process_is_left_alone() -> None:
    ended = subprocess.run(
        [*COMMAND, "serve", "--smtp-ip=192.0.2.77", "--smtp-port=2525", "--output=null"],
        env=ENVIRONMENT | {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    # It came as far as to open its own.
    assert "cannot listen on 192.0.2.77" in ended.stderr
    assert ended.returncode == 2
