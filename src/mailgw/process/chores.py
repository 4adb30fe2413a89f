"""What a worker does beside serving clients: each chore has a task, and somebody who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from mailgw.observe import log


class Chores:
    """Begun at any time in one event loop, and all ended together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, chore: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Do it beside everything else. One that fails is logged, and hinders nobody."""
        task = asyncio.create_task(chore, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def end(self) -> None:
        """Cancel those that are left and wait until they are gone."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.error("chore.failed", name=task.get_name(), reason=repr(bug))
