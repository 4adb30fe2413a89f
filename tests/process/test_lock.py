from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import COMMAND, ENVIRONMENT, running
from mailgw.process.lock import Lock, Locked
from rabbitmq import wait_until


def test_it_holds_the_process_id_as_long_as_it_is_held(tmp_path: Path) -> None:
    file = tmp_path / "mailgw.pid"
    lock = Lock(file)
    assert file.read_text() == f"{os.getpid()}\n"
    lock.release()
    assert file.read_text() == ""
    Lock(file).release()


def test_nobody_else_can_lock_it_to_keep_us_from_starting(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Lock(tmp_path / "mailgw.pid").release()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "mailgw.pid").stat().st_mode) == 0o600


def test_a_second_one_is_told_who_holds_it_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mailgw.pid"
    lock = Lock(file)
    with pytest.raises(Locked, match=f"mailgw.pid is held by process {os.getpid()}, which"):
        Lock(file)
    assert file.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_what_was_left_behind_by_a_crash_stops_nobody(tmp_path: Path) -> None:
    file = tmp_path / "mailgw.pid"
    file.write_text("1\n and more than a number\n")
    lock = Lock(file)
    assert file.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "mailgw.pid").symlink_to(tmp_path / "precious")
    with pytest.raises(Locked, match="lock: "):
        Lock(tmp_path / "mailgw.pid")
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_pipe_a_folder_and_no_folder_are_no_lock(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "missing" / "mailgw.pid"):
        with pytest.raises(Locked, match=path.name):
            Lock(path)


def test_it_ends_with_the_process_however_that_ends(tmp_path: Path) -> None:
    file = tmp_path / "mailgw.pid"
    program = "import sys; from pathlib import Path; from mailgw.process.lock import Lock\n"
    program += "lock = Lock(Path(sys.argv[1])); print(flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", program, file],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(Locked, match=f"process {holder.pid},"):
            Lock(file)
        holder.kill()
    Lock(file).release()


def test_a_gateway_holds_it_alone_and_a_second_one_does_not_start(tmp_path: Path) -> None:
    lock = tmp_path / "mailgw.pid"
    with running(tmp_path, {"lock": lock}) as server:
        assert server.process is not None
        pid = server.process.pid
        assert lock.read_text() == f"{pid}\n"
        second = subprocess.run(
            [*COMMAND, "serve", f"--lock={lock}", "--smtp-ip=127.0.0.1", "--smtp-port=0"],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert second.returncode == 2
        held = f"{lock} is held by process {pid}, which runs already"
        assert second.stderr == f"mailgw: command line: lock: {held}\n"
        # The workers live on for a while, and do not hold it.
        server.signal(signal.SIGSTOP)
        workers = server.workers()
        server.signal(signal.SIGKILL)
        server.wait()
        Lock(lock).release()
        wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in workers), "they end")
