"""What libraries and rooms say through the standard logging; each line of it is one of ours."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable


class Libraries(logging.Handler):
    """Hands on what it hears to `say`, with the number of its level."""

    def __init__(self, say: Callable[[int, str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        front = f"{record.levelname.lower()} {record.name}:"
        self._say(record.levelno, f"{front} {_printable(record.getMessage())}")
        if record.exc_info and record.exc_info[0] is not None:
            for text in "".join(traceback.format_exception(*record.exc_info)).splitlines():
                self._say(record.levelno, f"{front}   {_printable(text)}")


def _printable(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)
