"""What a gateway makes on the disk, while nothing but itself keeps others out."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from client import Client, stuffed
from gateway import Gateway, running
from rabbitmq import wait_until

MESSAGE = b"Subject: hello\r\n\r\n" + b"Hello.\r\n" * 2000


def made(folder: Path) -> dict[str, int]:
    """The modes of all files and folders below, those that the test itself makes left out."""
    found = {}
    for each in folder.rglob("*"):
        if each.name not in ("serve.out", "serve.err"):
            with suppress(FileNotFoundError):  # the marks of a body come and go
                found[each.relative_to(folder).as_posix()] = each.lstat().st_mode
    return found


def unlinked(server: Gateway) -> list[int]:
    """The modes of the files without a name that its workers have open."""
    files = (file for each in server.workers() for file in Path(f"/proc/{each}/fd").iterdir())
    found = [file.stat() for file in files if str(file.readlink()).endswith(" (deleted)")]
    return [stat.S_IMODE(each.st_mode) for each in found if stat.S_ISREG(each.st_mode)]


def open_umask() -> None:
    os.umask(0)


def test_nobody_else_can_read_what_it_makes_whatever_the_umask_is(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    keys = {
        "rabbitmq-address": f"amqp://127.0.0.1:{unused_tcp_port}/",
        "rabbitmq-outage": "store",
        "storage-address": f"dir://{tmp_path}/bodies",
        "storage-policy": "in",
        "spool-memory": "1KB",
        "lock": tmp_path / "mailgw.pid",
        "application-log": f"stderr,{tmp_path}/mailgw.log",
        "received-log-file": tmp_path / "received.log",
    }
    with running(tmp_path, keys, before=open_umask) as server:
        with Client(server.port) as client:
            client.hello()
            assert client.transaction()[-1].startswith("354 ")
            client.send(stuffed(MESSAGE)[:-5])
            wait_until(lambda: unlinked(server) == [0o600], "the message is in the spool")
            client.send(stuffed(MESSAGE)[-5:])
            assert client.reply().startswith("250")
        found = made(tmp_path)

    # Logs are for their group too, as those of other mail servers.
    logs = {"mailgw.log", "received.log"}
    files = {"mailgw.pid", "queue.sqlite", "queue.sqlite-wal", "queue.sqlite-shm"}
    assert {stat.S_IMODE(found.pop(name)) for name in logs} == {0o640}
    assert {stat.S_IMODE(found.pop(name)) for name in files} == {0o600}
    assert {name.partition("/")[0] for name in found} == {"bodies"}
    assert any(name.startswith("bodies/mail/") and stat.S_ISREG(found[name]) for name in found)
    for name, mode in found.items():
        assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), name
