"""What every place for bodies does, and how each kind of it fails."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import stat
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from loops import longest_hold
from mailgw.storage.bucket import Bucket
from mailgw.storage.folder import Folder
from mailgw.storage.place import NoSuchObject, Place, StorageError, Unclear
from parts import needs
from s3server import S3
from storage.conftest import s3_url

EVERY_OCTET = bytes(range(256)) * 20_000


async def whole(place: Place, name: str) -> bytes:
    return b"".join([piece async for piece in place.get(name)])


async def names(place: Place, folder: str) -> list[str]:
    return sorted([entry.name async for entry in place.entries(folder)])


def below(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


async def test_what_was_put_is_there_octet_by_octet(place: Place) -> None:
    await place.put("mail/day/one", [EVERY_OCTET])
    await place.put("writing/day.one", [b""])

    assert await whole(place, "mail/day/one") == EVERY_OCTET
    assert await whole(place, "writing/day.one") == b""
    assert await place.size("mail/day/one") == len(EVERY_OCTET)


async def test_what_is_not_there_is_told_apart_from_what_cannot_be_had(place: Place) -> None:
    await place.put("mail/day/one", [b"x"])

    assert await place.size("mail/day/two") is None
    with pytest.raises(NoSuchObject, match="there is no mail/day/two"):
        await whole(place, "mail/day/two")


async def test_removing_is_for_many_and_takes_what_is_there(place: Place) -> None:
    for each in "abc":
        await place.put(f"mail/{each}", [b"x"])

    await place.remove(["mail/a", "mail/c", "mail/nobody"])

    assert await names(place, "mail") == ["mail/b"]


async def test_a_folder_is_gone_through_with_sizes_and_times(place: Place) -> None:
    began = datetime.now(UTC) - timedelta(seconds=2)
    await place.put("mail/day/one", [b"four"])
    await place.put("mailbox/other", [b""])

    [entry] = [entry async for entry in place.entries("mail")]

    assert (entry.name, entry.size) == ("mail/day/one", 4)
    assert began <= entry.written <= datetime.now(UTC) + timedelta(seconds=2)
    assert await names(place, "nothing") == []


async def test_a_large_body_does_not_hold_the_loop(place: Place) -> None:
    body = os.urandom(30_000_000)

    _, held = await longest_hold(place.put("mail/large", [body]))

    assert held < 50
    assert await place.size("mail/large") == len(body)


async def test_what_cannot_be_read_to_its_end_is_not_there_at_all(place: Place) -> None:
    # The spool is on a disk, too.
    def pieces() -> Iterator[bytes]:
        yield b"the beginning"
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(StorageError):
        await place.put("mail/day/one", pieces())

    assert await place.size("mail/day/one") is None


async def test_an_object_may_come_in_many_pieces_or_none(place: Place) -> None:
    await place.put("mail/day/many", (b"%d," % number for number in range(10_000)))
    await place.put("mail/day/none", ())

    assert (await whole(place, "mail/day/many")).endswith(b"9998,9999,")
    assert await whole(place, "mail/day/none") == b""


# --- a folder -----------------------------------------------------------------------


async def test_files_and_folders_are_for_nobody_else(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        await Folder(tmp_path / "bodies").put("mail/day/one", [b"x"])
    finally:
        os.umask(before)

    modes = {
        path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in below(tmp_path)
    }
    assert modes == {
        "bodies": 0o700,
        "bodies/mail": 0o700,
        "bodies/mail/day": 0o700,
        "bodies/mail/day/one": 0o600,
        "bodies/unfinished": 0o700,
    }


@contextmanager
def files_of_at_most(octets: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_file_that_is_not_taken_whole_leaves_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with (
        files_of_at_most(100_000),
        pytest.raises(StorageError, match="File too large") as raised,
    ):
        await folder.put("mail/day/one", [b"x" * 200_000])

    assert not isinstance(raised.value, Unclear)
    assert [path for path in below(tmp_path) if path.is_file()] == []


@pytest.mark.parametrize("root", ["/proc/bodies", "/dev/null/bodies"])
async def test_a_folder_that_cannot_be_written_is_an_error(root: str) -> None:
    with pytest.raises(StorageError, match=root):
        await Folder(Path(root)).put("mail/day/one", [b"x"])


async def test_beginnings_of_objects_are_tidied_up_when_they_are_old(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await folder.put("mail/day/one", [b"x"])
    for name in ("old", "new"):
        (tmp_path / "unfinished" / name).write_bytes(b"half")
    os.utime(tmp_path / "unfinished" / "old", (0, 0))
    before = datetime.now(UTC) - timedelta(hours=1)

    assert await folder.tidy(before, dry=True) == 1
    assert await folder.tidy(before, dry=False) == 1
    assert await names(folder, "unfinished") == ["unfinished/new"]
    assert await names(folder, "mail") == ["mail/day/one"]


async def test_a_closed_folder_takes_nothing_more(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await folder.close()

    with pytest.raises(StorageError, match="closed"):
        await folder.put("mail/day/one", [b"x"])


# --- a bucket -----------------------------------------------------------------------

TASKS: dict[str, Callable[[Place], Awaitable[object]]] = {
    "put": lambda place: place.put("mail/day/one", [b"x"]),
    "get": lambda place: whole(place, "mail/day/one"),
    "entries": lambda place: names(place, "mail"),
    "remove": lambda place: place.remove(["mail/day/one"]),
    "size": lambda place: place.size("mail/day/one"),
}


@needs("s3")
@pytest.mark.parametrize("task", TASKS)
async def test_wrong_credentials_are_told_and_never_shown(s3: S3, task: str) -> None:
    address = s3.address(s3.bucket(), secret="wrong/secret+of=ours")
    bucket = Bucket(s3_url(address), 10)

    with pytest.raises(StorageError, match="the credentials are refused") as raised:
        await TASKS[task](bucket)

    assert not isinstance(raised.value, Unclear)
    text = repr(raised.value) + str(raised.value.__cause__)
    assert s3.access_key not in text
    assert "wrong" not in text


@needs("s3")
@pytest.mark.parametrize("task", ["put", "get", "entries"])
async def test_a_bucket_that_is_missing_is_told(s3: S3, task: str) -> None:
    bucket = Bucket(s3_url(s3.address("no-such-bucket")), 10)

    with pytest.raises(StorageError, match=r"no such bucket|NoSuchBucket") as raised:
        await TASKS[task](bucket)

    assert not isinstance(raised.value, NoSuchObject)


@needs("s3")
@pytest.mark.parametrize("task", TASKS)
async def test_a_server_that_hangs_has_a_deadline(s3: S3, task: str) -> None:
    bucket = Bucket(s3_url(s3.address(s3.bucket())), 0.5)
    began = time.monotonic()
    s3.freeze()
    try:
        with pytest.raises(Unclear, match="no answer in time"):
            await TASKS[task](bucket)
    finally:
        s3.thaw()

    assert time.monotonic() - began < 5


async def test_a_server_that_is_not_there_is_told() -> None:
    url = s3_url("s3://key:sesame@us-east-1/bodies?endpoint=http://127.0.0.1:1")

    with pytest.raises(Unclear, match="cannot be reached") as raised:
        await Bucket(url, 5).put("mail/day/one", [b"x"])

    assert "sesame" not in repr(raised.value)


async def test_a_server_that_answers_rubbish_is_told() -> None:
    async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff<x>")
        writer.close()

    async with await asyncio.start_server(rubbish, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = s3_url(f"s3://key:sesame@us-east-1/bodies?endpoint=http://127.0.0.1:{port}")
        with pytest.raises(Unclear, match="the request failed"):
            await names(Bucket(url, 5), "mail")


@needs("s3")
async def test_a_prefix_stands_in_front_of_every_name(s3: S3) -> None:
    name = s3.bucket()
    inner = Bucket(s3_url(s3.address(f"{name}/some/where")), 10)
    outer = Bucket(s3_url(s3.address(name)), 10)

    await inner.put("mail/day/one", [b"x"])

    assert await names(outer, "some") == ["some/where/mail/day/one"]
    assert await names(inner, "mail") == ["mail/day/one"]
    assert await whole(inner, "mail/day/one") == b"x"
