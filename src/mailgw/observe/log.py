"""One line an event: `time level event key=value ...`.

Whatever a stranger sent is escaped here, in one place: a value with anything but
printable ASCII and no blanks is quoted, so an event stays one line and its fields stay
its own. Credentials and message text are never given to it. An event below the level
costs a comparison and no more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from mailgw.observe.channel import Channel, reopen_all
from mailgw.observe.destinations import Destination, Stream
from mailgw.observe.libraries import Libraries

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_NOTHING: Final = logging.CRITICAL + 1

_least = _NOTHING
_second = 0
_stamp = ""


def direct(destinations: Sequence[Destination], level: str = "info") -> None:
    """Send all lines of this level and above there, and nowhere else; without any, say nothing.

    Libraries are heard from WARNING on, whatever the level: what they say below it may
    hold credentials and message text.
    """
    global _least
    _channel.direct(destinations)
    _least = LEVELS[level] if destinations else _NOTHING
    logging.basicConfig(
        level=max(_least, logging.WARNING), handlers=[Libraries(_heard)], force=True
    )
    logging.getLogger("mailgw").setLevel(_least)


def to_stderr() -> None:
    """Send all lines to standard error, if there is one."""
    with suppress(OSError):
        direct([Stream("stderr", 2)])


def reopen() -> None:
    """Look now whether files were rotated away, those of other logs too.

    What cannot be opened anew stays as it was, and that is said.
    """
    reopen_all()


def gather(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Write once per turn of the loop, not once per line; call the result to end that."""
    _channel.gather(loop)
    return _channel.end


def wanted(level: str) -> bool:
    """Whether such an event would be written: for those that cost something to make."""
    return _least <= LEVELS[level]


def debug(event: str, **fields: object) -> None:
    if _least <= logging.DEBUG:
        _emit(logging.DEBUG, "debug", event, fields)


def info(event: str, **fields: object) -> None:
    if _least <= logging.INFO:
        _emit(logging.INFO, "info", event, fields)


def warning(event: str, **fields: object) -> None:
    if _least <= logging.WARNING:
        _emit(logging.WARNING, "warning", event, fields)


def error(event: str, **fields: object) -> None:
    if _least <= logging.ERROR:
        _emit(logging.ERROR, "error", event, fields)


def failure(event: str, **fields: object) -> None:
    """An exception that is our own fault: the event, and the traceback below it."""
    error(event, **fields)
    logging.getLogger("mailgw").error("traceback", exc_info=True)


def trouble(event: str, name: str, reason: str) -> None:
    """A log that is in trouble, or out of it again."""
    warning(event, log=name, reason=reason)


def _emit(number: int, level: str, event: str, fields: dict[str, object]) -> None:
    line = f"{_now()} {level} {event}"
    for name, value in fields.items():
        if type(value) is int:  # a bool is none
            line += f" {name}={value}"
        elif value is not None:
            text = str(value)
            # json.dumps leaves nothing but printable ASCII.
            line += f" {name}={text if _is_plain(text) else json.dumps(text)}"
    _channel.add(number, line)


def _is_plain(text: str) -> bool:
    """Whether it is printable ASCII without the blank and the quotation mark: needs no quoting."""
    return (
        text != "" and text.isascii() and text.isprintable() and " " not in text and '"' not in text
    )


def _now() -> str:
    global _second, _stamp
    second = int(time.time())
    if second != _second:
        _second = second
        _stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
    return _stamp


def _heard(number: int, text: str) -> None:
    _channel.add(number, f"{_now()} {text}")


_channel: Final = Channel((), trouble)
