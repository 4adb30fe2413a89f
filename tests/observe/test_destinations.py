"""Destinations take what they can without waiting, and lines go out whole."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailgw.observe.destinations import CannotLog, File, Line, Stream, Syslog, open_all
from rabbitmq import wait_until

STAMP = "2026-01-02T03:04:05Z "


def lines(*texts: str, level: int = logging.INFO) -> list[Line]:
    return [(level, STAMP + text) for text in texts]


def written(path: Path) -> list[str]:
    return path.read_text().splitlines()


# --- files ----------------------------------------------------------------------------


def test_a_file_is_made_and_appended_to_and_only_we_and_our_group_read_it(tmp_path: Path) -> None:
    path = tmp_path / "mailgw.log"
    before = os.umask(0)
    try:
        File(path).write(lines("first"))
        File(path).write(lines("second"))
    finally:
        os.umask(before)
    assert written(path) == [STAMP + "first", STAMP + "second"]
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/mailgw.log", "No such file or directory"),
        (".", "Is a directory"),
        ("pipe", "No such device or address"),
    ],
)
def test_a_file_that_cannot_be_had_is_said_at_once(tmp_path: Path, name: str, reason: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CannotLog, match=rf"cannot log to {re.escape(str(tmp_path))}.*: {reason}"):
        open_all([str(tmp_path / name)])


def test_of_two_files_that_are_one_each_line_stands_whole(tmp_path: Path) -> None:
    path = tmp_path / "both.log"
    one, other = open_all([str(path), str(path)])
    for number in range(100):
        one.write(lines(f"one {number}"))
        other.write(lines(f"other {number}"))
    assert len(written(path)) == 200


@pytest.mark.parametrize("gone", [False, True])
def test_a_file_that_was_rotated_away_is_opened_again_when_asked(
    tmp_path: Path, gone: bool
) -> None:
    path, old = tmp_path / "mailgw.log", tmp_path / "mailgw.log.1"
    file = File(path)
    file.write(lines("before"))
    path.rename(old)
    if not gone:
        path.touch()
    file.reopen()
    file.write(lines("after"))
    assert written(old) == [STAMP + "before"]
    assert written(path) == [STAMP + "after"]


def test_a_file_that_is_where_it_was_is_not_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "mailgw.log"
    file = File(path)
    # As after root opened it for us: what is open may be written, and not opened again.
    before = {fd.name: fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()}
    file.reopen()
    after = {fd.name: fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()}
    assert [fd for fd, to in after.items() if to == path] == [
        fd for fd, to in before.items() if to == path
    ]


def test_a_file_that_cannot_be_opened_again_keeps_its_lines(tmp_path: Path) -> None:
    folder, moved = tmp_path / "log", tmp_path / "old"
    folder.mkdir()
    file = File(folder / "mailgw.log")
    folder.rename(moved)
    with pytest.raises(FileNotFoundError):
        file.reopen()
    file.write(lines("still here"))
    assert written(moved / "mailgw.log") == [STAMP + "still here"]


def test_a_log_that_nobody_holds_any_more_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "mailgw.log"
    file = File(path)
    opened = [fd for fd in Path("/proc/self/fd").iterdir() if _leads_to(fd, path)]
    del file
    assert len(opened) == 1
    assert not _leads_to(opened[0], path)


def _leads_to(descriptor: Path, path: Path) -> bool:
    try:
        return descriptor.readlink() == path
    except FileNotFoundError:
        return False


WRITER = """
import sys
from pathlib import Path
from mailgw.observe.destinations import File
name, path, stop = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
file, number = File(path), 0
while not stop.exists():
    batch = [(20, f"{name} {number + i} end") for i in range(10)]
    assert file.write(batch) == 10
    number += 10
print(number)
"""


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that write to the same file until there is a file named stop."""
    arguments = [str(tmp_path / "mailgw.log"), str(tmp_path / "stop")]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, name, *arguments],
            env={"PYTHONPATH": ":".join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "other")
    ]
    yield started
    for each in started:
        each.kill()
        each.communicate()


def test_nothing_is_lost_when_files_are_rotated_under_load(
    tmp_path: Path, writers: list[subprocess.Popen[str]]
) -> None:
    path = tmp_path / "mailgw.log"
    for turn in range(3):
        for name in ("one ", "other "):
            wait_until(
                lambda name=name: path.exists() and name in path.read_text(), "both write to it"
            )
        path.rename(tmp_path / f"mailgw.log.{turn}")
    (tmp_path / "stop").touch()
    counts = {
        name: int(each.communicate(timeout=20)[0])
        for name, each in zip(("one", "other"), writers, strict=True)
    }
    found = [line for log in tmp_path.glob("mailgw.log*") for line in written(log)]
    assert len(found) == sum(counts.values())
    assert set(found) == {
        f"{name} {number} end" for name, count in counts.items() for number in range(count)
    }


FULL = """
import resource, signal, sys
from pathlib import Path
from mailgw.observe.destinations import File
path = Path(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1_005, hard))
file = File(path)
taken = file.write([(20, f"{number:09}") for number in range(200)])
try:
    file.write([(20, "one more")])
except OSError as trouble:
    print(taken, trouble.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
file.write([(20, "there is room again")])
"""


def test_of_a_full_disk_no_half_line_stays(tmp_path: Path) -> None:
    path = tmp_path / "mailgw.log"
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(path)],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    # 1005 octets are a hundred lines of ten and half of the next, which came later.
    assert ended.stdout == "101 File too large\n"
    assert written(path) == [f"{number:09}" for number in range(101)] + ["there is room again"]


# --- standard output and error --------------------------------------------------------


def test_a_pipe_that_nobody_reads_holds_up_nobody() -> None:
    reader, writer = os.pipe()
    stream = Stream("stderr", writer)
    sent = lines(*(f"{number:06}" for number in range(20_000)))
    first = stream.write(sent)
    second = stream.write(sent[first:])
    got = b""
    while len(got.splitlines()) < first:
        got += os.read(reader, 65536)
    third = stream.write(sent[first:])
    got += os.read(reader, 65536)
    os.close(reader)
    os.close(writer)
    assert 0 < first < len(sent)
    assert (second, third > 0) == (0, True)
    assert got.decode().splitlines() == [text for _, text in sent[: first + third]]


def test_a_line_longer_than_a_pipe_takes_at_once_stays_whole() -> None:
    reader, writer = os.pipe()
    stream = Stream("stderr", writer)
    sent = lines("x" * 100_000, "y")
    first = stream.write(sent)
    got = b""
    while not got.endswith(b"y\n"):
        got += os.read(reader, 65536)
        first += stream.write(sent[first:])
    os.close(reader)
    os.close(writer)
    assert got.decode().splitlines() == [text for _, text in sent]


def test_a_reader_who_has_gone_is_an_error_and_no_signal() -> None:
    reader, writer = os.pipe()
    stream = Stream("stdout", writer)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        stream.write(lines("nobody reads this"))
    os.close(writer)


# --- syslog ---------------------------------------------------------------------------


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[socket.socket]:
    """A system's log that listens on a socket of its own."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "log"))
        listening.settimeout(10)
        yield listening


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.DEBUG, 23),
        (logging.INFO, 22),
        (logging.WARNING, 20),
        (logging.ERROR, 19),
        (logging.CRITICAL, 18),
        (logging.INFO + 5, 22),
    ],
)
def test_a_datagram_is_what_libc_would_send(
    daemon: socket.socket, tmp_path: Path, level: int, priority: int
) -> None:
    Syslog(tmp_path / "log").write(lines("info message.taken id=c1", level=level))
    said = daemon.recv(65536).decode()
    front = rf"<{priority}>[A-Z][a-z]{{2}} [ 123]\d \d\d:\d\d:\d\d mailgw\[{os.getpid()}\]: "
    assert re.fullmatch(front + "info message.taken id=c1", said)


def test_a_datagram_is_not_longer_than_rsyslog_reads(daemon: socket.socket, tmp_path: Path) -> None:
    Syslog(tmp_path / "log").write(lines("x" * 100_000))
    assert len(daemon.recv(200_000)) == 8192


def test_a_daemon_that_is_busy_holds_up_nobody(daemon: socket.socket, tmp_path: Path) -> None:
    syslog = Syslog(tmp_path / "log")
    sent = lines(*(str(number) for number in range(100_000)))
    taken = syslog.write(sent)
    assert 0 < taken < len(sent)
    assert syslog.write(sent[taken:]) == 0
    daemon.recv(100)
    assert syslog.write(sent[taken:]) == 1


def test_a_daemon_that_was_started_anew_is_found(daemon: socket.socket, tmp_path: Path) -> None:
    syslog = Syslog(tmp_path / "log")
    daemon.close()
    (tmp_path / "log").unlink()
    with pytest.raises(FileNotFoundError):
        syslog.write(lines("nobody hears this"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as anew:
        anew.bind(str(tmp_path / "log"))
        anew.settimeout(10)
        assert syslog.write(lines("here again")) == 1
        assert anew.recv(1000).endswith(b"here again")


def test_a_system_without_a_log_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(CannotLog, match=r"cannot log to syslog: .*: No such file"):
        Syslog(tmp_path / "log")
