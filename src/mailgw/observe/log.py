"""One line an event: `time level event key=value ...`.

Whatever a stranger sent is escaped here, in one place: a value with anything but
printable ASCII and no blanks is quoted, so an event stays one line and its fields stay
its own. Credentials and message text are never given to it.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable


def _nowhere(_line: str) -> None:
    """Where lines go until somebody says where."""


_write: Callable[[str], object] = _nowhere
_second = 0
_stamp = ""


def to_stderr() -> None:
    """Send all lines to standard error, those of libraries from WARNING on."""
    global _write
    _write = sys.stderr.write
    handler = _Handler()
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("mailgw").setLevel(logging.INFO)


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
    parts = [_now(), level, event]
    parts += [f"{name}={_value(value)}" for name, value in fields.items() if value is not None]
    _write(" ".join(parts) + "\n")


def _now() -> str:
    global _second, _stamp
    second = int(time.time())
    if second != _second:
        _second = second
        _stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
    return _stamp


def _value(value: object) -> str:
    text = value if type(value) is str else str(value)
    if text.isascii() and text.isprintable() and text and not (" " in text or '"' in text):
        return text
    # json.dumps leaves nothing but printable ASCII.
    return json.dumps(text)


class _Handler(logging.Handler):
    """What libraries and rooms say through the standard logging."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        line = text if text.isprintable() else json.dumps(text)
        _write(f"{_now()} {record.levelname.lower()} {record.name}: {line}\n")
        if record.exc_info:
            formatter = self.formatter or logging.Formatter()
            _write(formatter.formatException(record.exc_info) + "\n")
