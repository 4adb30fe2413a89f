"""The bytes of one message, kept once however many recipients share them.

Memory up to a limit, then a file that has no name: nobody else can open it, and the
kernel removes it with the last descriptor, also when the process is killed.
"""

from __future__ import annotations

import errno
import os
import tempfile
from io import BytesIO
from pathlib import Path

from mailgw.mail.octets import Octets, sha256


class Spool:
    """Grows by `write`, is read by `octets` or `read`, is let go by `close`.

    `memory` is the size in octets above which the bytes go to an unlinked file in
    `directory` (the system's temporary directory if None). Writing may raise OSError
    when the disk is full.
    """

    __slots__ = ("_digest", "_directory", "_file", "_held", "_memory", "size")

    def __init__(self, memory: int, directory: Path | None = None) -> None:
        self._memory = memory
        self._directory = directory
        # In one place: chunks may be as small as a client likes, and each has its cost.
        self._held = BytesIO()
        self._file: _File | None = None
        self._digest: str | None = None
        self.size = 0

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self._file is not None:
            self._file.write(chunk)
            return
        self._held.write(chunk)
        if self.size > self._memory:
            self._file = _File(self._directory)
            self._file.write(self._held.getbuffer())
            self._held = BytesIO()

    def octets(self) -> Octets:
        """What was written so far, where it is. It stays there for who has this, after `close`."""
        return self._held.getvalue() if self._file is None else _View(self._file)

    def read(self) -> bytes:
        """All bytes, as one object; cheap to repeat while they are in memory."""
        return self.octets()[:]

    def digest(self) -> str:
        """SHA-256 of all bytes, in hex; made when it is first asked for, and known ever after."""
        if self._digest is None:
            self._digest = sha256(self.octets())
        return self._digest

    @property
    def digest_known(self) -> bool:
        """Whether it was asked for before: then it costs nothing, after `close` too."""
        return self._digest is not None

    def close(self) -> None:
        self._held = BytesIO()
        self._file = None


class _File:
    """A file without a name. It ends when nobody has it any more."""

    __slots__ = ("_file", "size")

    def __init__(self, directory: Path | None) -> None:
        # Unbuffered: whoever reads it does so beside these writes, and finds all of them.
        self._file = tempfile.TemporaryFile(buffering=0, dir=directory)  # noqa: SIM115 - as long as we
        self.size = 0

    def __del__(self) -> None:
        # What fails to open has nothing to close.
        if hasattr(self, "_file"):
            self._file.close()

    def write(self, octets: bytes | memoryview) -> None:
        rest = memoryview(octets)
        while rest:
            written = self._file.write(rest)
            self.size += written
            rest = rest[written:]

    def fileno(self) -> int:
        return self._file.fileno()

    def read(self, start: int, size: int) -> bytes:
        found = os.pread(self.fileno(), size, start)
        while len(found) < size:  # more than one call may read
            piece = os.pread(self.fileno(), size - len(found), start + len(found))
            if not piece:
                raise OSError(errno.EIO, "the spool was cut short")
            found += piece
        return found


class _View:
    """The octets that a file has when this is made."""

    __slots__ = ("_file", "_size")

    def __init__(self, file: _File) -> None:
        self._file = file
        self._size = file.size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop, _ = part.indices(self._size)
        return self._file.read(start, max(0, stop - start))
