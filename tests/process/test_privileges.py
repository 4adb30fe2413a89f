"""From root to somebody else. Who is not root sees that it is refused instead."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from client import Client
from gateway import ENVIRONMENT, Certificate, Gateway, running
from mailgw.process.privileges import CannotBecome, become
from ports import KeptPort
from rabbitmq import wait_until

ROOT = os.geteuid() == 0
NOBODY = "nobody"
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"

BECOME = """
import json, os, sys
from mailgw.process.privileges import CannotBecome, become
try:
    become(sys.argv[1])
except CannotBecome as trouble:
    print(trouble)
    sys.exit()
print(json.dumps([os.getresuid(), os.getresgid(), sorted(os.getgroups())]))
"""


def became(name: str) -> str:
    """What a process says that was asked to become somebody."""
    done = subprocess.run(
        [sys.executable, "-c", BECOME, name],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_root_becomes_another_one_whole_and_others_may_not() -> None:
    user = pwd.getpwnam(NOBODY)
    uid, gid = user.pw_uid, user.pw_gid
    groups = sorted(os.getgrouplist(NOBODY, gid))
    whole = f"[{[uid] * 3}, {[gid] * 3}, {groups}]"
    assert became(NOBODY) == (whole if ROOT else f"user: only root can become {NOBODY}")


def test_who_it_is_already_it_stays() -> None:
    become(pwd.getpwuid(os.geteuid()).pw_name)


def test_a_user_that_does_not_exist() -> None:
    with pytest.raises(CannotBecome, match="user: there is no user nobody-of-this-name"):
        become("nobody-of-this-name")


# --- the gateway --------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that belongs to nobody; pytest's own are only for who runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="mailgw-test-"))
    if ROOT:
        shutil.chown(folder, NOBODY)
    yield folder
    shutil.rmtree(folder)


def ids(pid: int) -> set[str]:
    """The user ids of a process: real, effective, saved and for files."""
    [line] = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("Uid:")
    ]
    return set(line.split()[1:])


def port_of_root() -> KeptPort:
    """A port below 1024 that is free; nobody who asks as we do gets it meanwhile."""
    for number in range(1023, 600, -1):
        with suppress(OSError):
            return KeptPort(number)
    raise AssertionError("all ports below 1024 are taken")


def test_ports_of_root_are_opened_and_everything_else_is_done_by_the_user(
    open_folder: Path, certificate: Certificate
) -> None:
    keys: dict[str, object] = {"user": NOBODY, "lock": open_folder / "mailgw.pid"}
    if not ROOT:
        with pytest.raises(RuntimeError, match=f"user: only root can become {NOBODY}"):
            Gateway(open_folder, keys).start()
        return
    # Only root reads the key: at the start that is enough, for a worker that comes later too.
    for file in (certificate.chain, certificate.key):
        shutil.copy(file, open_folder)
    key = open_folder / certificate.key.name
    os.chown(key, 0, 0)
    key.chmod(0o600)
    keys |= {
        "smtp-certificate": open_folder / certificate.chain.name,
        "smtp-key": key,
        "received-log-file": open_folder / "received.log",
        "storage-address": f"dir://{open_folder}/bodies",
        "storage-policy": "in",
    }
    with (
        closing(port_of_root()) as port,
        running(open_folder, keys | {"smtp-port": port.number}) as server,
    ):
        assert server.process is not None
        assert server.port == port.number
        nobody = str(pwd.getpwnam(NOBODY).pw_uid)
        [worker] = server.workers()
        assert ids(server.process.pid) == ids(worker) == {nobody}
        os.kill(worker, signal.SIGKILL)
        server.saw("worker.ready", 2)
        with Client(port.number) as client:
            client.hello()
            client.starttls(certificate.authority)
            assert isinstance(client.socket, ssl.SSLSocket)
            client.ask("EHLO client.test")
            assert client.mail(MESSAGE).startswith("250-2.0.0 ")
            # A reload reads as the user, and cannot: the old certificate stays.
            server.signal(signal.SIGHUP)
            server.saw("reload.refused")
            assert "Permission denied" in server.log
            assert client.mail(MESSAGE).startswith("250-2.0.0 ")
        made = ["queue.sqlite", "queue.sqlite-wal", "queue.sqlite-shm", "received.log", "bodies"]
        assert {str((open_folder / each).stat().st_uid) for each in made} == {nobody}
        # Root's, who starts the next one; and to nobody else it says whom to stop.
        lock = (open_folder / "mailgw.pid").stat()
        assert (lock.st_uid, stat.S_IMODE(lock.st_mode)) == (0, 0o600)
        assert server.stop() == 0
    wait_until(lambda: (open_folder / "mailgw.pid").read_text() == "", "the lock is given back")
