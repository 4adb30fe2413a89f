"""The embedded queue: may its file be written, is there room, does somebody hold it?

Law: the file is read as bytes and not opened as a database, which would make files beside
it. Locks are asked for, not taken.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from mailgw.doctor import rights
from mailgw.doctor.observation import Observation, error, note, ok, size, warning
from mailgw.outlets.store_file import APPLICATION_ID, VERSION

# File systems of other machines: processes here cannot share the memory that a WAL needs.
_DISTANT = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "sshfs"})
_MAGIC = b"SQLite format 3\0"
# sqlite.org/fileformat.html 1.3: where in the header these stand.
_READ_FORMAT, _USER_VERSION, _APPLICATION_ID = 19, 60, 68
_WAL = 2
# A lock on the file itself that somebody has alone, and the lock that all have who use the
# WAL, on its -shm (sqlite.org/walformat.html 2.3).
_SHARED, _SHARED_LENGTH = 0x40000002, 510
_USERS = 128
_FLOCK = "hhqqi4x"
# So many of the largest mails should have room.
_MAILS = 100


def look_at_store(
    path: Path, maxsize: int, user: str, kind_of: Callable[[Path], str] | None = None
) -> list[Observation]:
    """What there is to see of the file at `path`, with a gateway that runs as `user`.

    `kind_of` names the file system that a folder is on.
    """
    return list(_seen(path, maxsize, user, kind_of or file_system))


def _seen(
    path: Path, maxsize: int, user: str, kind_of: Callable[[Path], str]
) -> Iterator[Observation]:
    subject = "queue-store"
    folder = path.absolute().parent
    who = user or "we"
    if not folder.is_dir():
        yield error(subject, f"there is no folder {folder}", "make it")
        return
    # SQLite makes -wal and -shm there, so that a file that may be written is not enough.
    if not rights.may(folder, rights.WRITE | rights.SEARCH, user):
        yield error(subject, f"{who} may not write in {folder}", "chown or chmod it")
    if (kind := kind_of(folder)) in _DISTANT:
        yield error(
            subject, f"{folder} is on {kind}, where SQLite has no WAL", "a disk of this machine"
        )
    if path.exists():
        if not rights.may(path, rights.READ | rights.WRITE, user):
            yield error(subject, f"{who} may not read and write {path}", "chown or chmod it")
        else:
            yield from _file(subject, path)
    else:
        yield ok(subject, f"{path} is made at the start")
    yield _room(subject, folder, maxsize)


def _file(subject: str, path: Path) -> Iterator[Observation]:
    try:
        with path.open("rb") as file:
            header = file.read(100)
            alone = _holder(file.fileno(), fcntl.F_RDLCK, _SHARED, _SHARED_LENGTH)
    except OSError as trouble:
        yield error(subject, f"{path}: {trouble.strerror}")
        return
    if header and not header.startswith(_MAGIC):
        yield error(subject, f"{path} is no database", "another path")
        return
    version, application = (
        int.from_bytes(header[at : at + 4], "big") for at in (_USER_VERSION, _APPLICATION_ID)
    )
    if header and application != APPLICATION_ID:
        yield error(subject, f"{path} is a database of another program", "another path")
    elif header and version != VERSION:
        yield error(subject, f"{path} has version {version}, this is for {VERSION}")
    elif alone:
        yield error(subject, f"{path} is locked by process {alone}", "end it")
    elif user := _wal_user(path):
        yield note(subject, f"{path} is in use by process {user}")
    elif header and header[_READ_FORMAT] != _WAL:
        yield note(subject, f"{path} has no WAL yet, which the start switches on")
    else:
        yield ok(subject, f"{path} is ours, and nobody uses it now")


def _wal_user(path: Path) -> int:
    with suppress(OSError), Path(f"{path}-shm").open("rb") as file:
        return _holder(file.fileno(), fcntl.F_WRLCK, _USERS, 1)
    return 0


def _holder(file: int, kind: int, start: int, length: int) -> int:
    """The process that would keep us from such a lock; 0 for none."""
    asked = struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0)
    told = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    return 0 if told[0] == fcntl.F_UNLCK else int(told[4])


def _room(subject: str, folder: Path, maxsize: int) -> Observation:
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    seen = f"{size(free)} are free in {folder}"
    if free < maxsize * 2 or not disk.f_favail:
        return error(subject, f"{seen}: not enough for one mail of smtp-maxsize", "make room")
    if free < maxsize * _MAILS:
        return warning(
            subject, f"{seen}, room for {free // maxsize} mails of smtp-maxsize", "make room"
        )
    return ok(subject, seen)


def file_system(folder: Path) -> str:
    """The kind of the file system that a folder is on; "" where nobody tells."""
    best, kind = "", ""
    real = f"{folder.resolve()}/"
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines():
            words = line.split()
            # proc(5): a space in a name is written as \040.
            place = words[1].replace("\\040", " ").rstrip("/") + "/"
            if real.startswith(place) and len(place) >= len(best):
                best, kind = place, words[2]
    return kind.removeprefix("fuse.")
