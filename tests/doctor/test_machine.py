"""The machine as the doctor sees it, against what the configuration lets in."""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from doctor.looking import lines, only
from mailgw.doctor.machine import Load, Machine, judge, look_at_machine

GB, MB = 10**9, 10**6
NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
LOAD = Load(clients=100, maxsize=10 * MB, spool_memory=MB)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(files=1024, memory=8 * GB, folder=tmp_path, free=50 * GB, backlog=4096, now=NOW)


def test_a_machine_with_enough_of_everything_is_all_right(machine: Machine) -> None:
    seen = list(judge(LOAD, machine))

    assert {each.grade.value for each in seen} == {"ok"}
    assert [each.subject for each in seen] == [
        "user", "open files", "memory", "temporary files", "backlog", "clock",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("of_load", "of_machine", "line"),
    [
        ({"clients": 1000}, {}, "warning open files: a process here may have 1024 of them"),
        ({"clients": None}, {}, "note open files: "),
        ({"clients": None}, {"files": 2**62}, "ok open files: a process here may have any"),
        ({"maxsize": 2 * GB}, {}, "warning memory: 8GB here; mail of smtp-maxsize takes"),
        ({"spool_memory": 100 * MB}, {}, "warning memory: 8GB here; 100 clients with spool-"),
        ({}, {"free": 5 * MB}, "error temporary files: 5MB are free"),
        ({}, {"free": 50 * MB}, "warning temporary files: 50MB are free"),
        ({}, {"folder": Path("/nowhere")}, "error temporary files: we may not write in /nowhere"),
        ({}, {"backlog": 128}, "warning backlog: 128 connections may wait"),
        ({}, {"backlog": 0}, "note backlog: nobody tells"),
        ({}, {"now": datetime(1970, 1, 2, tzinfo=UTC)}, "error clock: says 1970-01-02"),
        ({"user": "no-such-user"}, {}, "error user: there is no user no-such-user"),
    ],
)
def test_what_will_bite_is_told(
    machine: Machine, of_load: dict[str, object], of_machine: dict[str, object], line: str
) -> None:
    seen = judge(replace(LOAD, **of_load), replace(machine, **of_machine))

    assert only(seen, line)


def test_what_is_right_is_a_number_that_fits(machine: Machine) -> None:
    seen = only(judge(replace(LOAD, clients=1000), machine), "warning open files")

    assert seen.endswith("(LimitNOFILE=2064, or smtp-connections: 480)")
    fits = judge(replace(LOAD, clients=480), machine)
    assert only(fits, "ok open files")


def test_this_machine_is_what_it_is() -> None:
    machine = Machine.this()

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard in (machine.files, resource.RLIM_INFINITY)
    assert 10 * MB < machine.memory < 10**15
    assert abs((machine.now - datetime.now(UTC)).total_seconds()) < 60


def test_a_low_limit_of_the_shell_is_seen() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90))\n"
        "from mailgw.doctor.machine import *\n"
        "load = Load(clients=100, maxsize=1, spool_memory=1)\n"
        "print(*[f'{each.grade.value} {each.subject}: {each}' for each in look_at_machine(load)],"
        " sep='\\n')"
    )

    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert "warning open files: a process here may have 90 of them" in told.stdout, told.stderr


def test_a_look_needs_no_arrangements() -> None:
    assert len(lines(look_at_machine(LOAD))) == 6
