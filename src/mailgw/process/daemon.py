"""Into the background: the terminal gets its prompt back when the gateway serves.

Not before: who starts it waits until it is ready, or for what kept it from starting, and
ends with its exit code.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from mailgw.process.trouble import CannotStart

_WENT_WRONG = 1


class Verdict:
    """The end of the pipe in which the one who waits reads what became of the start."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def ready(self) -> None:
        """Leave the terminal alone and let the one who waits go."""
        quiet()
        self.say(0, "")

    def say(self, code: int, text: str) -> None:
        if self._pipe >= 0:
            os.write(self._pipe, json.dumps([code, text]).encode())
            self.leave()

    def leave(self) -> None:
        """Also for children, which have nothing to say in it."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def in_background(run: Callable[[Verdict], int]) -> int:
    """Start a process without a terminal that does `run`, and wait until it is ready.

    `run` calls `Verdict.ready`. Returns 0 then; raises CannotStart as `run` does before.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        # A session of its own, and not its leader: no terminal can become ours again.
        os.setsid()
        if os.fork():
            os._exit(0)
        _live(run, Verdict(writer))
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    if not said:
        raise CannotStart("it ended while it started", _WENT_WRONG)
    code, text = json.loads(said)
    if text:
        raise CannotStart(text, code)
    return 0


def quiet() -> None:
    """Nothing is read from and nothing written to where we were started."""
    sys.stdout.flush()
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _live(run: Callable[[Verdict], int], verdict: Verdict) -> NoReturn:
    code = _WENT_WRONG
    try:
        code = run(verdict)
    except CannotStart as trouble:
        verdict.say(trouble.code, str(trouble))
    except BaseException:  # noqa: BLE001 - here the process ends
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
