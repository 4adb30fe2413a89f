"""Turns of sender.py, our own source of mail, against a server."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import Failed, Process, cpu_seconds, machine_cpu_seconds, running
from samples import Sample
from servers import Server


class Source:
    """A sender that has been started, and waits to be told how many."""

    def __init__(self, server: Server, process: Process, broker: int | None) -> None:
        self._server = server
        self._process = process
        self._pids = (server.process.pid, process.pid, *([broker] if broker else []))

    @classmethod
    @contextmanager
    def to(
        cls, server: Server, size: int, sessions: int, how: str, broker: int | None = None
    ) -> Iterator[Source]:
        """One that sends to this server; `how` is "starttls" or "clear", see sender.py.

        `broker` is the pid of the broker behind the server, if there is one.
        """
        program = str(Path(__file__).with_name("sender.py"))
        command = [sys.executable, program, str(server.port), str(size), str(sessions), how]
        with running("sender", command, pipes=True) as process:
            yield cls(server, process, broker)

    def turn(self, count: int, rate: float | None = None) -> Sample:
        """Send so many messages; it fails unless each is answered 250.

        With a rate each has its time, and waits from then on; without, all are sent as fast
        as they are answered.
        """
        self._server.process.check()
        before, all_before = [cpu_seconds(pid) for pid in self._pids], machine_cpu_seconds()
        started = time.perf_counter()
        answer = self._process.ask(f"{count} {rate}" if rate else str(count)).split()
        seconds = time.perf_counter() - started
        self._server.process.check()
        if answer[:1] != ["done"]:
            raise Failed(f"{self._server.process.name}: the sender said {answer!r}")
        spent = [cpu_seconds(pid) - was for pid, was in zip(self._pids, before, strict=True)]
        others = max(0.0, machine_cpu_seconds() - all_before - sum(spent))
        ours, theirs, broker = (*spent, 0.0)[:3]
        p50, p99 = (float(word) for word in answer[1:])
        return Sample(count, seconds, ours, theirs, broker, others, p50, p99)
