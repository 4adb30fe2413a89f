"""How long one piece of work holds the event loop."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


async def longest_hold(work: Coroutine[object, object, T]) -> tuple[T, float]:
    """The result, and the longest time between two turns of the loop, in milliseconds.

    It is the time that this thread computed, so a busy machine does not count.
    """
    # What other tests left to be collected is not the work's to pay for.
    gc.collect()
    gc.disable()
    try:
        return await _watched(asyncio.ensure_future(work))
    finally:
        gc.enable()


async def _watched(task: asyncio.Future[T]) -> tuple[T, float]:
    longest, before = 0.0, time.thread_time()
    while not task.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, before = max(longest, now - before), now
    return task.result(), longest * 1000
