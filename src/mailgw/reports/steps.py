"""Long work in short steps, so that a stranger's message never holds the event loop.

The readers of this room are generators: each runs for about a millisecond, yields, and at
its end returns what it read. Threads would not do instead: they take turns on one
interpreter lock, and cannot be stopped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]

# How long steps are taken in a row before the others of the loop have their turn.
_TURN = 0.003


async def in_turns(steps: Steps[T]) -> T:
    """Take all steps and return what they give, letting the event loop run in between."""
    try:
        while True:
            until = time.perf_counter() + _TURN
            while time.perf_counter() < until:
                next(steps)
            await asyncio.sleep(0)
    except StopIteration as done:
        result: T = done.value
        return result
