"""One line an event: `time level event key=value ...`.

Whatever a stranger sent is escaped here, in one place: a value with anything but
printable ASCII and no blanks is quoted, so an event stays one line and its fields stay
its own. Credentials and message text are never given to it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress

# Printable ASCII without the blank and the quotation mark: needs no quoting.
_plain = re.compile(r"[!#-~]+").fullmatch


def _nowhere(_lines: str) -> None:
    """Where lines go until somebody says where."""


def _to_stderr(lines: str) -> None:
    # Past Python's buffers, which would keep what cannot be written. A full disk, or a
    # reader who has gone, costs lines of the log and no mail.
    with suppress(OSError):
        os.write(2, lines.encode("utf-8", "backslashreplace"))


_write: Callable[[str], object] = _nowhere
_second = 0
_stamp = ""


def to_stderr() -> None:
    """Send all lines to standard error, those of libraries from WARNING on."""
    global _write
    _write = _to_stderr
    logging.basicConfig(level=logging.WARNING, handlers=[_Handler()], force=True)
    logging.getLogger("mailgw").setLevel(logging.INFO)


def gather(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Write once per turn of the loop, not once per line; call the result to end that."""
    global _write
    write, waiting = _write, list[str]()

    def add(line: str) -> None:
        if not waiting:
            loop.call_soon(flush)
        waiting.append(line)

    def flush() -> None:
        if waiting:
            write("".join(waiting))
            waiting.clear()

    def end() -> None:
        global _write
        flush()
        _write = write

    _write = add
    return end


def info(event: str, **fields: object) -> None:
    _emit("info", event, fields)


def warning(event: str, **fields: object) -> None:
    _emit("warning", event, fields)


def error(event: str, **fields: object) -> None:
    _emit("error", event, fields)


def failure(event: str, **fields: object) -> None:
    """An exception that is our own fault: the event, and the traceback below it."""
    _emit("error", event, fields)
    logging.getLogger("mailgw").error("traceback", exc_info=True)


def _emit(level: str, event: str, fields: dict[str, object]) -> None:
    line = f"{_now()} {level} {event}"
    for name, value in fields.items():
        if value is not None:
            text = str(value)
            # json.dumps leaves nothing but printable ASCII.
            line += f" {name}={text if _plain(text) else json.dumps(text)}"
    _write(line + "\n")


def _now() -> str:
    global _second, _stamp
    second = int(time.time())
    if second != _second:
        _second = second
        _stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
    return _stamp


class _Handler(logging.Handler):
    """What libraries and rooms say through the standard logging."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        line = text if text.isprintable() else json.dumps(text)
        _write(f"{_now()} {record.levelname.lower()} {record.name}: {line}\n")
        if record.exc_info:
            formatter = self.formatter or logging.Formatter()
            _write(formatter.formatException(record.exc_info) + "\n")
