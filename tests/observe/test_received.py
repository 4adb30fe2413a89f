"""The received log: gathered, in order, and only what the template names."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mailgw.observe import log
from mailgw.observe.destinations import File
from mailgw.observe.received import ReceivedLog, names
from mailgw.observe.template import BadTemplate, Read, Template

Values = dict[str, object]


def json(path: tuple[str, ...]) -> Read[Values]:
    return lambda values: values.get(".".join(path))


def template(text: str, now: float = 1767323045.9) -> Template[Values]:
    return Template(text, names(json, lambda: now))


@pytest.mark.parametrize(
    ("text", "values", "line"),
    [
        ("{$date}", {}, "2026-01-02 03:04:05"),
        ("{$time}", {}, "1767323045"),
        ("{$json.recipient}", {"recipient": "bob@ours.test"}, "bob@ours.test"),
        ("{$json.connection.remote_ip}", {"connection.remote_ip": "192.0.2.7"}, "192.0.2.7"),
        ("{$report}", {}, "false"),
        ("{$report}", {"report": {"type": "dsn"}}, "true"),
        ("{if $report}report{else}mail{/if}", {}, "mail"),
    ],
)
def test_what_the_names_stand_for(text: str, values: Values, line: str) -> None:
    assert template(text).line(values) == line


@pytest.mark.parametrize("text", ["{$json}", "{$date.year}", "{$recipient}", "{$report.type}"])
def test_other_names_are_told(text: str) -> None:
    with pytest.raises(BadTemplate, match="is not known"):
        template(text)


async def test_the_documents_of_a_turn_are_written_together(tmp_path: Path) -> None:
    path = tmp_path / "received.log"
    received = ReceivedLog(template("{$json.recipient}"), File(path))
    received.note([{"recipient": "bob"}, {"recipient": "eve"}])
    received.note([{"recipient": "joe"}])
    assert path.read_text() == ""
    await asyncio.sleep(0)
    assert path.read_text() == "bob\neve\njoe\n"


async def test_a_full_disk_is_told_in_the_other_log_and_costs_nobody_anything(
    tmp_path: Path,
) -> None:
    log.direct([File(tmp_path / "mailgw.log")])
    received = ReceivedLog(template("{$json.recipient}"), File(Path("/dev/full")))
    for _ in range(3):
        received.note([{"recipient": "bob"}])
        await asyncio.sleep(0)
    [said] = (tmp_path / "mailgw.log").read_text().splitlines()
    assert said.endswith(' warning log.stuck log=/dev/full reason="No space left on device"')
