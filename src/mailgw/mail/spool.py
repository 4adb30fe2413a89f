"""The bytes of one message, kept once however many recipients share them.

Memory up to a limit, then a file that has no name: nobody else can open it, and the
kernel removes it with the last descriptor, also when the process is killed.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

_SLICE = 1024 * 1024


class Spool:
    """Grows by `write`, is read whole by `read`, is let go by `close`.

    `memory` is the size in octets above which the bytes go to an unlinked file in
    `directory` (the system's temporary directory if None). Writing may raise OSError
    when the disk is full.
    """

    __slots__ = ("_chunks", "_digest", "_directory", "_file", "_memory", "size")

    def __init__(self, memory: int, directory: Path | None = None) -> None:
        self._memory = memory
        self._directory = directory
        self._chunks: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._digest: str | None = None
        self.size = 0

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self._file is not None:
            self._file.write(chunk)
            return
        self._chunks.append(chunk)
        if self.size > self._memory:
            self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - lives as long as we
            self._file.writelines(self._chunks)
            self._chunks = []

    def read(self) -> bytes:
        """All bytes, as one object; cheap to repeat while they are in memory."""
        if self._file is not None:
            self._file.seek(0)
            return self._file.read()
        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0] if self._chunks else b""

    def digest(self) -> str:
        """SHA-256 of all bytes, in hex; made when it is first asked for, and known ever after."""
        if self._digest is None:
            if self._file is None:
                made = hashlib.sha256(self.read())
            else:
                made = hashlib.sha256()
                self._file.seek(0)
                while piece := self._file.read(_SLICE):
                    made.update(piece)
            self._digest = made.hexdigest()
        return self._digest

    @property
    def digest_known(self) -> bool:
        """Whether it was asked for before: then it costs nothing, after `close` too."""
        return self._digest is not None

    def close(self) -> None:
        self._chunks = []
        if self._file is not None:
            # What a full disk did not take is tried again here; nobody wants it any more.
            with suppress(OSError):
                self._file.close()
            self._file = None
