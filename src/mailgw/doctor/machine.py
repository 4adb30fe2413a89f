"""This machine: descriptors, memory, disk and clock against what the configuration allows."""

from __future__ import annotations

import os
import pwd
import resource
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mailgw.doctor import rights
from mailgw.doctor.observation import Observation, error, note, ok, size, warning

# Descriptors of a worker besides its clients: sockets, logs, pipes, broker, resolver.
_OWN_FILES = 64
# Of a client: its socket, and the file that a large message waits in.
_FILES_A_CLIENT = 2
# What large mail takes in each worker, in mails of the largest size (see mail/budget.py).
_COPIES = 3
# Of the largest mails, that should have room where they wait.
_MAILS = 10
# What a listener asks the kernel for.
_BACKLOG = 1024
# Earlier than this program, or later than anybody will run it.
_YEARS = range(2025, 2100)
_NO_LIMIT = 2**60


@dataclass(frozen=True, slots=True)
class Load:
    """What the configuration lets in. `clients` at once, None where there is no limit."""

    clients: int | None
    maxsize: int
    spool_memory: int
    user: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is: descriptors of one process, octets of memory and of the temporary
    folder, the longest backlog of a socket, 0 where it is not known, and the time."""

    files: int
    memory: int
    folder: Path
    free: int
    backlog: int
    now: datetime

    @classmethod
    def this(cls) -> Machine:
        """The one we run on."""
        folder = Path(tempfile.gettempdir())
        disk = os.statvfs(folder)
        # The workers take as many as they may have.
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        return cls(
            files=_NO_LIMIT if files == resource.RLIM_INFINITY else files,
            memory=_memory(),
            folder=folder,
            free=disk.f_bavail * disk.f_frsize,
            backlog=_number(Path("/proc/sys/net/core/somaxconn")) or 0,
            now=datetime.now(UTC),
        )


def look_at_machine(load: Load) -> list[Observation]:
    """What this machine has for that load."""
    return list(judge(load, Machine.this()))


def judge(load: Load, machine: Machine) -> Iterator[Observation]:
    """What is to be said of a machine."""
    yield _user(load.user)
    yield _files(load, machine)
    yield from _memories(load, machine)
    yield _temporary(load, machine)
    yield _backlog(machine)
    if machine.now.year not in _YEARS:
        yield error("clock", f"says {machine.now:%Y-%m-%d %H:%M} UTC", "set it, and run NTP")
    else:
        yield ok("clock", f"says {machine.now:%Y-%m-%d %H:%M} UTC; compare it with yours")


def _user(name: str) -> Observation:
    if not name:
        root = "root, with user: NAME better" if os.geteuid() == 0 else _name_of(os.geteuid())
        return ok("user", f"not set: the gateway stays who starts it, here {root}")
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        return error("user", f"there is no user {name}", "useradd, or another name")
    if os.geteuid() not in (0, user.pw_uid):
        return warning("user", f"only root can become {name}, and we are not root here")
    return ok("user", f"{name} exists")


def _name_of(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _files(load: Load, machine: Machine) -> Observation:
    had = "any number" if machine.files >= _NO_LIMIT else str(machine.files)
    seen = f"a process here may have {had} of them (a service manager may say otherwise)"
    fits = max(0, machine.files - _OWN_FILES) // _FILES_A_CLIENT
    if load.clients is None:
        if machine.files >= _NO_LIMIT:
            return ok("open files", seen)
        return note(
            "open files",
            f"{seen}: enough for {fits} clients a worker, and there is no limit to them",
            "smtp-connections",
        )
    # Any one worker may have all clients.
    needed = load.clients * _FILES_A_CLIENT + _OWN_FILES
    if machine.files < needed:
        return warning(
            "open files",
            f"{seen}; {load.clients} clients may want {needed}",
            f"LimitNOFILE={needed}, or smtp-connections: {fits}",
        )
    return ok("open files", f"{seen}; {load.clients} clients want {needed} at most")


def _memories(load: Load, machine: Machine) -> Iterator[Observation]:
    if not machine.memory:
        return
    seen = f"{size(machine.memory)} here"
    if load.maxsize * _COPIES > machine.memory // 2:
        yield warning(
            "memory",
            f"{seen}; mail of smtp-maxsize takes up to {size(load.maxsize * _COPIES)}",
            f"smtp-maxsize: {size(machine.memory // 2 // _COPIES)}",
        )
    elif load.clients is not None and load.clients * load.spool_memory > machine.memory // 2:
        most = size(load.clients * load.spool_memory)
        yield warning(
            "memory",
            f"{seen}; {load.clients} clients with spool-memory {size(load.spool_memory)} take up "
            f"to {most} while they send",
            "less spool-memory, or fewer smtp-connections",
        )
    else:
        yield ok("memory", f"{seen}; mail of smtp-maxsize takes {size(load.maxsize * _COPIES)}")


def _temporary(load: Load, machine: Machine) -> Observation:
    subject, folder = "temporary files", machine.folder
    if not rights.may(folder, rights.WRITE | rights.SEARCH, load.user):
        return error(subject, f"{load.user or 'we'} may not write in {folder}", "TMPDIR")
    seen = f"{size(machine.free)} are free in {folder}, where mail over spool-memory waits"
    if machine.free < load.maxsize:
        return error(subject, f"{seen}: not one of smtp-maxsize", "make room, or TMPDIR")
    if machine.free < load.maxsize * _MAILS:
        return warning(
            subject,
            f"{seen}: {machine.free // load.maxsize} of smtp-maxsize",
            "make room, or TMPDIR",
        )
    return ok(subject, seen)


def _backlog(machine: Machine) -> Observation:
    subject = "backlog"
    if not machine.backlog:
        return note(subject, "nobody tells how many connections may wait here")
    if machine.backlog < _BACKLOG:
        return warning(
            subject,
            f"{machine.backlog} connections may wait on a socket, we ask for {_BACKLOG}",
            f"sysctl net.core.somaxconn={_BACKLOG}",
        )
    return ok(subject, f"{machine.backlog} connections may wait on a socket")


def _memory() -> int:
    octets = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # In a container there may be less.
    limit = _number(Path("/sys/fs/cgroup/memory.max"))
    return min(octets, limit) if limit else octets


def _number(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(file.read_text())
    return None
