"""A folder as a place for objects.

Laws. An object is written under another name, flushed to the disk, and then renamed; its
folder is flushed too, so that the name survives a crash like the bytes. Files are 0600
and folders 0700. Nothing here holds up the event loop: all of it happens in threads.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from mailgw.storage.place import Entry, NoSuchObject, StorageError

T = TypeVar("T")

_UNFINISHED = "unfinished"
_PIECE = 1024 * 1024


class Folder:
    """Keeps objects in files below `root`, which is made where it is missing.

    No more than `threads` files are written or read at once.
    """

    holds_whole = False

    def __init__(self, root: Path, threads: int = 1) -> None:
        self._root = root
        # Its threads begin with the first work, so one may be made before a fork.
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="storage")

    async def put(self, name: str, pieces: Iterable[bytes]) -> None:
        await self._do(lambda: self._write(name, pieces))

    async def get(self, name: str) -> AsyncIterator[bytes]:
        try:
            file = await self._do(lambda: (self._root / name).open("rb"))
        except NoSuchObject:
            raise NoSuchObject(f"there is no {name}") from None
        with file:
            while piece := await self._do(lambda: file.read(_PIECE)):
                yield piece

    async def size(self, name: str) -> int | None:
        try:
            return (await self._do((self._root / name).stat)).st_size
        except NoSuchObject:
            return None

    async def remove(self, names: Collection[str]) -> None:
        await self._do(lambda: self._unlink(names))

    async def entries(self, folder: str) -> AsyncIterator[Entry]:
        for entry in await self._do(lambda: list(self._below(folder))):
            yield entry

    async def tidy(self, before: datetime, *, dry: bool) -> int:
        def left_behind() -> int:
            old = [each.name for each in self._below(_UNFINISHED) if each.written < before]
            if not dry:
                self._unlink(old)
            return len(old)

        return await self._do(left_behind)

    async def close(self) -> None:
        # Not waited for: a thread may hang in a file system that does not answer.
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except FileNotFoundError as error:
            raise NoSuchObject(f"{self._root}: {error.strerror}") from None
        except OSError as error:
            raise StorageError(f"{self._root}: {error.strerror or error}") from None
        except RuntimeError:  # the pool was shut down
            raise StorageError(f"{self._root}: closed") from None

    # --- in a thread --------------------------------------------------------------------

    def _write(self, name: str, pieces: Iterable[bytes]) -> None:
        final = self._root / name
        self._make(final.parent)
        unfinished = self._root / _UNFINISHED / name.replace("/", ".")
        self._make(unfinished.parent)
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                for piece in pieces:
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[os.write(file, rest) :]
                os.fsync(file)
            finally:
                os.close(file)
            unfinished.rename(final)
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            raise
        _flush(final.parent)

    def _make(self, folder: Path) -> None:
        """Make a folder, and its parents up to the root; each is flushed into its parent."""
        if folder.is_dir():
            return
        if folder != self._root:
            self._make(folder.parent)
        with suppress(FileExistsError):  # another thread or process was first
            folder.mkdir(mode=0o700)
        _flush(folder.parent)

    def _unlink(self, names: Collection[str]) -> None:
        folders = set()
        for name in names:
            file = self._root / name
            with suppress(FileNotFoundError):
                file.unlink()
                folders.add(file.parent)
        for folder in folders:
            _flush(folder)

    def _below(self, folder: str) -> Iterator[Entry]:
        for parent, _, files in os.walk(self._root / folder):
            for name in files:
                path = Path(parent, name)
                with suppress(FileNotFoundError):  # gone meanwhile
                    found = path.lstat()
                    if stat.S_ISREG(found.st_mode):
                        written = datetime.fromtimestamp(found.st_mtime, UTC)
                        yield Entry(str(path.relative_to(self._root)), found.st_size, written)


def _flush(folder: Path) -> None:
    """Put what a folder holds by now onto the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
