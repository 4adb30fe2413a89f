"""The file of local addresses, changed: patterns added at its end, or taken out.

Laws: the file is replaced whole or stays as it was, and keeps its mode, its owner where
we may set that, its comments and its order. Two who change it at once do it one after
the other.
"""

from __future__ import annotations

import fcntl
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mailgw.gate.recipients import written


def add(path: Path, lines: Sequence[str]) -> None:
    """Append lines. Raises OSError."""

    def changed(content: bytes) -> bytes:
        end = b"\r\n" if b"\r\n" in content else b"\n"
        if content and not content.endswith(b"\n"):
            content += end
        return content + b"".join(line.encode("utf-8") + end for line in lines)

    _change(path, changed)


def remove(path: Path, unwanted: Callable[[str], bool]) -> None:
    """Take out the lines of which `unwanted` says so; it is given what a line holds.

    Raises OSError.
    """

    def changed(content: bytes) -> bytes:
        # Only "\n" ends a line, as for whoever reads the list.
        lines = io.BytesIO(content).readlines()
        return b"".join(line for line in lines if not unwanted(_text(line)))

    _change(path, changed)


def _text(line: bytes) -> str:
    return written(line.decode("utf-8-sig", "surrogateescape"))


def _change(path: Path, changed: Callable[[bytes], bytes]) -> None:
    path = path.resolve()  # a link stays one
    with _alone(path.parent):
        content = path.read_bytes()
        status = path.stat()
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                with suppress(PermissionError):
                    os.fchown(descriptor, status.st_uid, status.st_gid)
                os.fchmod(descriptor, status.st_mode & 0o7777)
                file.write(changed(content))
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, and see to it that what was renamed in it stays renamed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
