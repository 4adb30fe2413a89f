from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from client import Client
from gateway import COMMAND, ENVIRONMENT, children
from rabbitmq import wait_until

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"


def start(folder: Path, keys: dict[str, object] | None = None) -> subprocess.CompletedProcess[str]:
    """Start it as from a terminal, and return when that has its prompt back."""
    usual: dict[str, object] = {
        "daemon": "true",
        "lock": "mailgw.pid",
        "smtp-ip": "127.0.0.1",
        "smtp-port": 0,
        "smtp-threads": 2,
        "rabbitmq-address": "",
        "queue-store": "queue.sqlite",
    }
    arguments = [f"--{key}={text}" for key, text in (usual | (keys or {})).items()]
    # The pipes are read to their end: who keeps one open is waited for.
    return subprocess.run(
        [*COMMAND, "serve", *arguments],
        env=ENVIRONMENT,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_terminal_is_free_when_it_serves_and_it_ends_by_its_process_id(tmp_path: Path) -> None:
    started = start(tmp_path)
    assert started.returncode == 0, started.stderr
    pid = int((tmp_path / "mailgw.pid").read_text())
    workers = children(pid)
    try:
        port = int(started.stdout.split()[1].rpartition(":")[2])
        with Client(port) as client:
            client.hello()
            assert client.mail(MESSAGE).startswith("250-2.0.0 ")
        assert len(workers) == 2
        for each in (pid, *workers):
            # Of no terminal, and in a session whose leader has gone.
            assert os.getsid(each) not in (os.getsid(0), each)
            for descriptor in range(3):
                assert Path(f"/proc/{each}/fd/{descriptor}").readlink() == Path("/dev/null")
        os.kill(pid, signal.SIGTERM)
    finally:
        # Nobody here is its parent; the kernel tells when it is gone.
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "it ends")
    assert (tmp_path / "mailgw.pid").read_text() == ""
    assert not any(Path(f"/proc/{each}").exists() for each in workers)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"smtp-ip": "192.0.2.77", "smtp-port": "2525"}, "cannot listen on 192.0.2.77"),
        ({"lock": "missing/mailgw.pid"}, "lock: missing/mailgw.pid: No such file or directory"),
        ({"queue-store": "letter"}, "letter"),
    ],
)
def test_what_keeps_it_from_starting_is_told_in_the_terminal(
    keys: dict[str, object], said: str, tmp_path: Path
) -> None:
    (tmp_path / "letter").write_bytes(b"Dear reader, this is not a database at all." * 100)
    started = start(tmp_path, keys)
    assert started.returncode == 2
    assert started.stdout == ""
    [line] = started.stderr.splitlines()
    assert line.startswith("mailgw: ")
    assert said in line


def test_a_second_one_learns_who_holds_the_lock(tmp_path: Path) -> None:
    assert start(tmp_path).returncode == 0
    pid = int((tmp_path / "mailgw.pid").read_text())
    try:
        second = start(tmp_path)
        assert second.returncode == 2
        assert f"mailgw.pid is held by process {pid}, which runs already" in second.stderr
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "it ends")
