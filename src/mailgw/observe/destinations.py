"""Where lines go: standard output and error, files, syslog.

Two laws. Nothing here waits: a destination takes what it can take now and says how much
that was. And a line goes out whole: several processes may write to the same file, and
each writes its lines in one piece at the end of it.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import stat
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeAlias

# Level, as the standard library counts it, and text: one line, its end left out.
Line: TypeAlias = tuple[int, str]
# User and group who own what we create.
Owner: TypeAlias = tuple[int, int]

SYSLOG_SOCKET = Path("/dev/log")

# POSIX: a pipe takes so much in one piece, and has room for it when poll says so.
_PIECE = 4096
# How often a file is looked for under its name, in seconds, while lines come.
_LOOK = 1.0
# rsyslog cuts what is longer.
_LONGEST_DATAGRAM = 8192
# RFC 3164 4.1.1: the mail system, and how grave it is.
_FACILITY = 2 << 3
_SEVERITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.NOTSET, 7),
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# "2026-01-02T03:04:05Z " in front of every line; syslog has its own.
_STAMP_LENGTH = 21


class CannotLog(Exception):
    """A destination that cannot be had; the text names it and says why."""


class Destination(Protocol):
    """Somewhere that takes lines."""

    @property
    def name(self) -> str:
        """What the configuration calls it."""

    def write(self, lines: Sequence[Line]) -> int:
        """Take lines from the front, without waiting, and say how many.

        Raises OSError where something is wrong that is more than being busy; nothing is
        taken then.
        """

    def reopen(self) -> None:
        """Go where the name leads now. Raises OSError; what was open stays so then."""


class Stream:
    """A descriptor that somebody else opened; `name` is what to call it.

    Raises OSError where there is none. A reader who does not read costs lines, later.
    """

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self._descriptor = descriptor
        # What a full disk left of a line that it took the beginning of.
        self._rest = b""
        # Only a file is always ready; to write elsewhere may mean to wait for a reader.
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._poll = None if regular else select.poll()
        if self._poll is not None:
            self._poll.register(descriptor, select.POLLOUT)

    def write(self, lines: Sequence[Line]) -> int:
        taken = 0
        try:
            if self._rest:
                self._rest = self._rest[self._put(self._rest) :]
            for piece in self._pieces(lines):
                if self._rest:
                    break
                written = self._put(piece)
                taken += piece.count(b"\n", 0, written)
                if 0 < written < len(piece) and not piece.endswith(b"\n", 0, written):
                    taken += 1
                    self._rest = piece[written : piece.index(b"\n", written) + 1]
                if written < len(piece):
                    break
        except OSError:
            if not taken:
                raise
        return taken

    def reopen(self) -> None:
        """Whoever opened it can open it again; nobody else."""

    def _pieces(self, lines: Sequence[Line]) -> Iterator[bytes]:
        """All at once, or as much at once as can be had without waiting."""
        encoded = [text.encode("utf-8", "backslashreplace") for _, text in lines]
        if self._poll is None:
            yield b"\n".join([*encoded, b""])
            return
        piece = b""
        for line in encoded:
            if piece and len(piece) + len(line) >= _PIECE:
                yield piece
                piece = b""
            piece += line + b"\n"
        yield piece

    def _put(self, piece: bytes) -> int:
        """Write and say how much; 0 where it would mean to wait."""
        if self._poll is None:
            return os.write(self._descriptor, piece)
        written = 0
        # Longer pieces are single lines: in several, then, rather than not at all.
        while written < len(piece) and self._poll.poll(0):
            try:
                written += os.write(self._descriptor, piece[written : written + _PIECE])
            except BlockingIOError:
                break
        return written


class File:
    """A file that is appended to; made, 0640, where it is not there.

    Once a second while lines come, and on `reopen`, its name is looked at: where it leads
    to another file, or to none, what was open was rotated away. `owner` is given what is
    made. Raises CannotLog.
    """

    def __init__(self, path: Path, owner: Owner | None = None) -> None:
        self.name = str(path)
        self._path = path
        self._owner = owner
        try:
            self._descriptor = _open(path, owner)
        except OSError as trouble:
            raise CannotLog(f"cannot log to {path}: {trouble.strerror}") from None
        # A log that nobody has any more is closed; others may hold this one still.
        weakref.finalize(self, os.close, self._descriptor)
        self._found = os.fstat(self._descriptor)
        self._look_at = time.monotonic() + _LOOK
        self._stream = Stream(self.name, self._descriptor)

    def write(self, lines: Sequence[Line]) -> int:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK
            # Until there is a new one, the lines are safe in the old.
            with suppress(OSError):
                self.reopen()
        return self._stream.write(lines)

    def reopen(self) -> None:
        with suppress(FileNotFoundError):
            if os.path.samestat(self._path.stat(), self._found):
                return
        descriptor = _open(self._path, self._owner)
        try:
            self._found = os.fstat(descriptor)
            os.dup2(descriptor, self._descriptor, inheritable=False)
        finally:
            os.close(descriptor)
        self._stream = Stream(self.name, self._descriptor)


def _open(path: Path, owner: Owner | None) -> int:
    # Not waiting: a named pipe without a reader is an error, not a hang.
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o640)
    except FileExistsError:
        # Not O_EXCL again: it may be gone, and made, at any time.
        return os.open(path, flags | os.O_CREAT, 0o640)
    if owner is not None:
        with suppress(PermissionError):
            os.fchown(descriptor, *owner)
    return descriptor


class Syslog:
    """The system's log, by datagrams as syslog(3) sends them, to journald or rsyslog.

    Raises CannotLog where nobody listens.
    """

    name = "syslog"

    def __init__(self, path: Path = SYSLOG_SOCKET) -> None:
        self._path = path
        try:
            self._socket = self._connected()
        except OSError as trouble:
            raise CannotLog(f"cannot log to syslog: {path}: {trouble.strerror}") from None
        # As with files: closed when nobody holds this any more.
        self._close = weakref.finalize(self, self._socket.close)

    def write(self, lines: Sequence[Line]) -> int:
        front = _front()
        taken = 0
        for level, text in lines:
            datagram = f"<{_priority(level)}>{front}{text[_STAMP_LENGTH:]}"
            try:
                self._send(datagram.encode("utf-8", "backslashreplace")[:_LONGEST_DATAGRAM])
            except BlockingIOError:
                break
            except OSError:
                if not taken:
                    raise
                break
            taken += 1
        return taken

    def reopen(self) -> None:
        self._socket, close = self._connected(), self._close
        self._close = weakref.finalize(self, self._socket.close)
        close()

    def _send(self, datagram: bytes) -> None:
        try:
            self._socket.send(datagram)
        except BlockingIOError:
            raise
        except OSError:  # the daemon was started anew, with a socket of its own
            self.reopen()
            self._socket.send(datagram)

    def _connected(self) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            connected.setblocking(False)
            connected.connect(str(self._path))
        except OSError:
            connected.close()
            raise
        return connected


def _priority(level: int) -> int:
    return _FACILITY | next(severity for least, severity in _SEVERITIES if level >= least)


def _front() -> str:
    """RFC 3164 4.1.2, as libc writes it: local time, no host name."""
    now = time.localtime()
    clock = f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}"
    return f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2} {clock} mailgw[{os.getpid()}]: "


def open_all(names: Sequence[str], owner: Owner | None = None) -> list[Destination]:
    """Open what `application-log` names; all or nothing. Raises CannotLog."""
    return [_destination(name, owner) for name in names]


def _destination(name: str, owner: Owner | None) -> Destination:
    try:
        match name:
            case "stdout":
                return Stream(name, 1)
            case "stderr":
                return Stream(name, 2)
            case "syslog":
                return Syslog()
            case path:
                return File(Path(path), owner)
    except OSError as trouble:
        raise CannotLog(f"cannot log to {name}: {trouble.strerror}") from None
