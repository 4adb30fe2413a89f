from __future__ import annotations

import errno
import resource
import signal
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailgw.mail.spool import Spool


@pytest.fixture
def no_large_files() -> Iterator[None]:
    """Files of this process end at 100 kB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, heard)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def fill(spool: Spool, octets: int, chunk: int) -> None:
    """Write so many, in chunks, and read them back."""
    for _ in range(octets // chunk):
        spool.write(b"x" * chunk)
    spool.read()


@pytest.mark.parametrize("memory", [0, 1, 10, 11, 12, 1000])
def test_what_was_written_is_read_as_often_as_wanted(memory: int, tmp_path: Path) -> None:
    spool = Spool(memory, tmp_path)
    for chunk in (b"", b"one", b"two", b"", b"three"):
        spool.write(chunk)
    assert spool.size == 11
    assert spool.read() == spool.read() == b"onetwothree"
    spool.close()


def test_an_empty_one_is_empty() -> None:
    spool = Spool(10)
    assert (spool.read(), spool.size) == (b"", 0)


def test_reading_does_not_hinder_writing(tmp_path: Path) -> None:
    spool = Spool(4, tmp_path)
    for chunk in (b"abc", b"def", b"ghi"):
        spool.write(chunk)
        spool.read()
    assert spool.read() == b"abcdefghi"
    spool.close()


def test_what_is_large_goes_to_a_file_without_a_name(tmp_path: Path) -> None:
    before = descriptors()
    spool = Spool(10, tmp_path)
    spool.write(b"x" * 10)
    assert descriptors() == before
    spool.write(b"y")
    assert descriptors() == before + 1
    assert list(tmp_path.iterdir()) == []
    spool.close()
    assert descriptors() == before
    assert spool.size == 11


def test_memory_does_not_grow_with_a_large_message(tmp_path: Path) -> None:
    spool = Spool(1000, tmp_path)
    tracemalloc.start()
    for _ in range(1000):
        spool.write(b"z" * 1000)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 10_000
    assert len(spool.read()) == 1_000_000
    spool.close()


def test_tiny_chunks_cost_no_more_than_their_octets() -> None:
    # A client that sends two octets at a time must not cost its message twenty times.
    spool = Spool(1_000_000)
    tracemalloc.start()
    for _ in range(100_000):
        spool.write(b"yz")
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 300_000
    assert spool.read() == b"yz" * 100_000


@pytest.mark.parametrize("memory", [0, 1000])
def test_it_is_looked_into_like_octets(memory: int, tmp_path: Path) -> None:
    text = bytes(range(100))
    spool = Spool(memory, tmp_path)
    spool.write(text)
    octets = spool.octets()
    assert len(octets) == 100
    for part in (slice(None), slice(3, 9), slice(90, 200), slice(9, 3), slice(-5, None)):
        assert octets[part] == text[part]
    spool.close()


def test_who_looks_into_it_may_do_so_after_it_was_closed(tmp_path: Path) -> None:
    before = descriptors()
    spool = Spool(0, tmp_path)
    spool.write(b"octets")
    octets = spool.octets()
    spool.close()
    assert octets[:] == b"octets"
    assert spool.read() == b""
    del octets
    assert descriptors() == before


def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    spool = Spool(1, tmp_path)
    spool.write(b"abc")
    spool.close()
    spool.close()
    assert spool.read() == b""


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    spool = Spool(2, tmp_path / "missing")
    spool.write(b"ab")
    with pytest.raises(FileNotFoundError):
        spool.write(b"c")
    spool.close()


@pytest.mark.usefixtures("no_large_files")
def test_a_full_disk_is_an_os_error_and_closing_is_none(tmp_path: Path) -> None:
    spool = Spool(10, tmp_path)
    before = descriptors()
    with pytest.raises(OSError, match="File too large") as trouble:
        fill(spool, 250_000, chunk=5000)
    assert trouble.value.errno == errno.EFBIG
    del trouble
    spool.close()
    assert descriptors() == before


@pytest.mark.usefixtures("no_large_files")
def test_a_full_disk_that_shows_late_is_an_os_error_too(tmp_path: Path) -> None:
    # The last octets may wait in a buffer of Python's until somebody reads.
    spool = Spool(10, tmp_path)
    with pytest.raises(OSError, match="File too large"):
        fill(spool, 100_500, chunk=500)
    spool.close()
