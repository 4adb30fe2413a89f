"""The embedded queue as the doctor sees it; nothing is made and nothing is changed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from doctor.looking import lines, only
from mailgw.doctor import rights
from mailgw.doctor.store import file_system, look_at_store
from mailgw.outlets.store_file import connect

MAXSIZE = 1_000_000
# A user of every system, whom nobody runs tests as.
OTHER = "daemon"

HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    database.execute(statement).fetchall()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path, *statements: str) -> Iterator[int]:
    """Another process that has the file open like this."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), *statements],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.pid


def made(path: Path) -> Path:
    connect(path, create=True).close()
    return path


def test_a_queue_that_is_not_there_yet_is_made_by_nobody(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"

    seen = look_at_store(path, MAXSIZE, "")

    assert lines(seen)[0] == f"ok queue-store: {path} is made at the start"
    assert [each.grade.value for each in seen] == ["ok", "ok"]
    assert list(tmp_path.iterdir()) == []


def test_a_queue_of_ours_is_left_as_it_is(tmp_path: Path) -> None:
    path = made(tmp_path / "queue.sqlite")
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}

    seen = lines(look_at_store(path, MAXSIZE, ""))

    assert f"ok queue-store: {path} is ours, and nobody uses it now" in seen
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_a_gateway_that_has_it_open_is_named(tmp_path: Path) -> None:
    path = made(tmp_path / "queue.sqlite")

    with held(path, "SELECT count(*) FROM document") as pid:
        seen = look_at_store(path, MAXSIZE, "")

    assert only(seen, "note") == f"note queue-store: {path} is in use by process {pid}"


def test_a_program_that_locks_it_for_itself_is_named(tmp_path: Path) -> None:
    path = made(tmp_path / "queue.sqlite")
    exclusive = (
        "PRAGMA locking_mode = EXCLUSIVE",
        "PRAGMA journal_mode = DELETE",
        "BEGIN EXCLUSIVE",
    )

    with held(path, *exclusive) as pid:
        seen = look_at_store(path, MAXSIZE, "")

    assert f"is locked by process {pid}" in only(seen, "error")


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (x)")

    assert "another program" in only(look_at_store(path, MAXSIZE, ""), "error")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    path.write_text("inbox\n")

    assert "is no database" in only(look_at_store(path, MAXSIZE, ""), "error")


def test_a_queue_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "queue.sqlite")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 7")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    assert "has version 7, this is for 1" in only(look_at_store(path, MAXSIZE, ""), "error")


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    [seen] = lines(look_at_store(tmp_path / "away" / "queue.sqlite", MAXSIZE, ""))

    assert seen == f"error queue-store: there is no folder {tmp_path}/away (make it)"


def test_a_disk_without_room_for_one_mail_is_an_error(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize

    none = look_at_store(tmp_path / "q", free, "")
    few = look_at_store(tmp_path / "q", free // 10, "")

    assert "not enough for one mail" in only(none, "error")
    assert "mails of smtp-maxsize" in only(few, "warning")


def test_the_user_that_the_gateway_will_be_is_who_must_be_able_to_write(tmp_path: Path) -> None:
    path = made(tmp_path / "queue.sqlite")

    seen = lines(look_at_store(path, MAXSIZE, OTHER))

    assert f"error queue-store: {OTHER} may not write in {tmp_path} (chown or chmod it)" in seen
    assert f"error queue-store: {OTHER} may not read and write {path} (chown or chmod it)" in seen


def test_rights_are_those_of_the_mode(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(0o600)

    assert rights.may(file, rights.READ | rights.WRITE)
    assert not rights.may(tmp_path / "away", rights.READ)
    assert not rights.may(file, rights.READ, OTHER)


def test_a_disk_of_another_machine_has_no_wal(tmp_path: Path) -> None:
    seen = look_at_store(tmp_path / "q", MAXSIZE, "", kind_of=lambda folder: "nfs4")

    assert only(seen, "error queue-store: ").endswith(
        "is on nfs4, where SQLite has no WAL (a disk of this machine)"
    )


def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount() -> None:
    assert file_system(Path("/proc/self")) == "proc"
    assert file_system(Path("/")) not in ("", "proc")
