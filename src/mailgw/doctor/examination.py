"""Many looks side by side, each with a deadline, whatever the thing looked at does.

Laws. A look that hangs, fails or is wrong is an observation like any other, and takes
nothing from the others. What may block, such as a disk that is away, is looked at in a
thread that nobody waits for at the end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from mailgw.doctor.observation import Observation, error

T = TypeVar("T")

DEADLINE = 10.0


@dataclass(frozen=True, slots=True)
class Look:
    """`subject` is what is said to have hung, where `see` does not come back."""

    subject: str
    see: Callable[[], Awaitable[Sequence[Observation]]]


async def examine(looks: Sequence[Look], deadline: float = DEADLINE) -> tuple[Observation, ...]:
    """What all looks have seen, in their order. Raises nothing."""
    found = await asyncio.gather(*(_seen(look, deadline) for look in looks))
    return tuple(observation for each in found for observation in each)


async def aside(function: Callable[[], T]) -> T:
    """What `function` returns or raises, from a thread of its own.

    Not from a pool: that would be waited for at the end of the program, and a file
    system that hangs does not return.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(set_end: Callable[[], None]) -> None:
        if not future.done():
            set_end()

    def run() -> None:
        end: Callable[[], None]
        try:
            end = partial(future.set_result, function())
        except Exception as trouble:  # noqa: BLE001 - it is raised where somebody awaits it
            end = partial(future.set_exception, trouble)
        # Nobody waits any more where the loop is closed.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, end)

    threading.Thread(target=run, name="doctor", daemon=True).start()
    return await future


async def _seen(look: Look, deadline: float) -> Sequence[Observation]:
    try:
        async with asyncio.timeout(deadline):
            return await look.see()
    except TimeoutError:
        return [error(look.subject, f"nothing was to be seen within {deadline:g} s")]
    except Exception as trouble:  # noqa: BLE001 - one look must not end the others
        # The kind alone: its text is not known to be without secrets.
        kind = type(trouble).__name__
        return [error(look.subject, f"could not be looked at: {kind}")]
