"""Processes of a benchmark: started, watched, measured and ended by their pid.

Laws: a process that ends by itself ends the benchmark; whatever started here is gone
when its `with` block is left, also after Ctrl-C; CPU time is what the kernel counted for
all threads and children, so that a rate which a busy machine spoilt can be told apart.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_START_LIMIT = 30.0
_STOP_LIMIT = 10.0
_LISTENING = "0A"


class Failed(Exception):
    """The benchmark cannot say anything: a process ended, or messages were lost."""


class Process:
    """One program that runs for as long as the benchmark needs it."""

    def __init__(self, name: str, popen: subprocess.Popen[str]) -> None:
        self.name = name
        self.popen = popen

    @property
    def pid(self) -> int:
        return self.popen.pid

    def check(self) -> None:
        """Raise Failed unless it still runs."""
        code = self.popen.poll()
        if code is not None:
            raise Failed(f"{self.name} ended by itself, exit code {code}")

    def ask(self, line: str) -> str:
        """Write one line to its standard input and return the line it answers."""
        if self.popen.stdin is None or self.popen.stdout is None:
            raise RuntimeError(f"{self.name} was started without pipes")
        self.check()
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()
        answer = self.popen.stdout.readline()
        if not answer:
            self.popen.wait(_STOP_LIMIT)
            self.check()
        return answer.strip()


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    pipes: bool = False,
    quiet: bool = False,
) -> Iterator[Process]:
    """Run a program for the length of the block; `quiet` drops its standard error."""
    popen = subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
        stdout=subprocess.PIPE if pipes else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
        # Ctrl-C is for the benchmark, which then ends the others in order.
        process_group=0,
    )
    try:
        yield Process(name, popen)
    finally:
        _end(popen)


def _end(popen: subprocess.Popen[str]) -> None:
    if popen.poll() is None:
        popen.terminate()
        try:
            popen.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
    for pipe in (popen.stdin, popen.stdout):
        if pipe is not None:
            pipe.close()


def run_to_end(name: str, command: Sequence[str], limit: float) -> tuple[float, float]:
    """Run a program that ends by itself; its seconds by the clock and on the CPU.

    Raises Failed when it fails, or does not end within `limit` seconds.
    """
    started = time.perf_counter()
    popen = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0
    )
    ended = False
    descriptor = os.pidfd_open(popen.pid)
    try:
        # Not Popen.wait: with a limit it looks only every 50 ms.
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(limit * 1000):
            raise Failed(f"{name} did not end within {limit:.0f} s")
        seconds = time.perf_counter() - started
        _, status, usage = os.wait4(popen.pid, 0)
        ended = True
    finally:
        os.close(descriptor)
        if not ended:
            popen.kill()
            popen.wait()
    popen.returncode = os.waitstatus_to_exitcode(status)
    if popen.returncode:
        raise Failed(f"{name} failed, exit code {popen.returncode}: {' '.join(command)}")
    return seconds, usage.ru_utime + usage.ru_stime


def wait_for(holds: Callable[[], bool], what: str, process: Process) -> None:
    """Return as soon as `holds()`; Failed when the process ends first or time is up."""
    deadline = time.monotonic() + _START_LIMIT
    while not holds():
        process.check()
        if time.monotonic() > deadline:
            raise Failed(f"{process.name}: not within {_START_LIMIT:.0f} s: {what}")
        time.sleep(0.02)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, its threads and its children, those that have ended included."""
    # What follows the name, which may hold blanks: field 3 of proc(5) is the first.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    # utime, stime, and cutime and cstime of the children that were waited for.
    seconds = sum(int(field) for field in fields[11:15]) / _TICKS
    for task in Path(f"/proc/{pid}/task").iterdir():
        children = (task / "children").read_text().split()
        seconds += sum(cpu_seconds(int(child)) for child in children)
    return seconds


def machine_cpu_seconds() -> float:
    """CPU time that all processes of the machine have had, the kernel's share included."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _idle, _iowait, irq, softirq = (int(word) for word in words[1:8])
    return (user + nice + system + irq + softirq) / _TICKS


def resident(pid: int) -> int:
    """Octets that the children of a process have in memory; the gateway's are its workers."""
    return sum(_status(child, "VmRSS") for child in _children(pid))


def peak(pid: int) -> int:
    """The most that each of them ever had, together."""
    return sum(_status(child, "VmHWM") for child in _children(pid))


def proportional(pid: int) -> int:
    """Octets of a process and its children, where they share a page each its part of it."""
    octets = 0
    for each in (pid, *_children(pid)):
        lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        octets += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return octets


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def listening_port(pid: int) -> int | None:
    """The TCP port on which a process listens, None as long as there is none."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(str(descriptor.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    try:
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:  # it has ended, which its owner looks after
        return None
    for line in lines:
        words = line.split()
        if words[3] == _LISTENING and f"socket:[{words[9]}]" in sockets:
            return int(words[1].rpartition(":")[2], 16)
    return None
