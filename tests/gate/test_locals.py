"""The list in force: read from both sources, replaced whole or not at all."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from mailgw.gate.locals import Locals, Sources
from mailgw.gate.recipients import BadLocalAddresses
from mailgw.observe import log
from rabbitmq import eventually
from tables import Table, sqlite_table

JOE, ANN, BOB = "joe@ours.test", "ann@ours.test", "bob@listed.test"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "local-addresses"
    path.write_text(f"{BOB}\n")
    return path


class Log:
    """The lines about the list, less their time and level."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self._seen = ""

    def lines(self) -> list[str]:
        self._seen += self._capfd.readouterr().err
        return [line.split(" ", 2)[2] for line in self._seen.splitlines() if " locals." in line]


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Iterator[Log]:
    root, ours = logging.getLogger(), logging.getLogger("mailgw")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    log.to_stderr()
    yield Log(capfd)
    log.direct([])
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def replace(file: Path, content: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(content)
    new.replace(file)


@asynccontextmanager
async def running(held: Locals) -> AsyncIterator[None]:
    task = asyncio.create_task(held.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_file_and_table_are_one_list(table: Table, file: Path) -> None:
    table.filled(f"'exact', '{JOE}'", "'regex', 'x[0-9]@ours\\.test'", "NULL, '@all.test'")

    held = Locals.load(Sources(file, table.url), ttl=600)

    assert held
    assert [held.is_local(each) for each in (BOB, JOE, "x7@ours.test", "y@all.test")] == [True] * 4
    assert not held.is_local(ANN)
    assert held.knows_domain("listed.test")
    assert not held.knows_domain("elsewhere.test")


def test_no_source_is_no_local_address() -> None:
    held = Locals.load(Sources(), ttl=600)

    assert not held
    assert not held.is_local(JOE)


def test_all_that_is_bad_in_either_is_named_at_once(table: Table, file: Path) -> None:
    table.filled(
        f"'exact', '{JOE}'", "'glob', '*@ours.test'", "'regex', '(a+)+'", "'exact', ''",
        f"'exact', '{ANN}' || chr(10) || '{JOE}'".replace("chr", _chr(table)),
    )  # fmt: skip
    file.write_text("joe\n")

    with pytest.raises(BadLocalAddresses) as refused:
        Locals.load(Sources(file, table.url), ttl=600)

    complaints = sorted(refused.value.lines)
    assert [line.partition(": ")[0] for line in complaints] == [f"{file}:1", *["locals"] * 4]
    assert "row 'exact', '': is empty" in complaints[1]
    assert "row 'exact', 'ann@ours.test\\njoe@ours.test'" in complaints[2]
    assert "row 'glob', '*@ours.test': \"glob\" is not a type" in complaints[3]
    assert "row 'regex', '(a+)+': a regular expression that could take" in complaints[4]


def _chr(table: Table) -> str:
    return "char" if table.url.startswith("sqlite") else "chr"


def test_a_row_that_is_no_text_is_named(tmp_path: Path) -> None:
    table = sqlite_table(tmp_path)
    table.execute("CREATE TABLE locals (type, address)")
    table.execute("INSERT INTO locals VALUES ('exact', x'00ff'), (7, 'joe@ours.test')")

    with pytest.raises(BadLocalAddresses) as refused:
        Locals.load(Sources(None, table.url), ttl=600)

    assert refused.value.lines == (
        "locals: row 'exact', bytes: is not text",
        "locals: row int, 'joe@ours.test': is not text",
    )


def test_of_a_great_many_bad_rows_the_first_are_named_and_the_others_counted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "locals"
    path.write_text("joe\n" * 5_000)

    with pytest.raises(BadLocalAddresses) as refused:
        Locals.load(Sources(path), ttl=600)

    assert len(refused.value.lines) == 1_001
    assert refused.value.lines[-1] == "and 4000 more"


async def test_what_changes_in_the_table_is_in_force_after_the_ttl(table: Table, said: Log) -> None:
    table.filled(f"'exact', '{JOE}'")
    held = Locals.load(Sources(None, table.url), ttl=0.02)

    async with running(held):
        table.execute(f"INSERT INTO locals VALUES ('exact', '{ANN}')")
        await eventually(lambda: held.is_local(ANN), "the new address is local")
        table.execute(f"DELETE FROM locals WHERE address = '{JOE}'")
        await eventually(lambda: not held.is_local(JOE), "the old one is not")

    assert said.lines() == [
        "locals.loaded exact=1 patterns=0",
        "locals.loaded exact=2 patterns=0",
        "locals.loaded exact=1 patterns=0",
    ]


async def test_a_bad_row_keeps_the_last_good_list_and_is_told_once(table: Table, said: Log) -> None:
    table.filled(f"'exact', '{JOE}'")
    held = Locals.load(Sources(None, table.url), ttl=600)
    table.execute(
        f"DELETE FROM locals WHERE address = '{JOE}'",
        "INSERT INTO locals VALUES ('regex', '(unclosed')",
        f"INSERT INTO locals VALUES ('exact', '{ANN}')",
    )

    for _ in range(3):
        await held.reload()

    assert held.is_local(JOE)
    assert not held.is_local(ANN)
    [line] = said.lines()
    assert line.startswith("locals.kept reason=\"locals: row 'regex', '(unclosed': bad regular")


async def test_a_table_that_went_away_and_came_back_is_told_each_time(
    table: Table, said: Log
) -> None:
    table.filled(f"'exact', '{JOE}'")
    held = Locals.load(Sources(None, table.url), ttl=600)
    table.execute("DROP TABLE locals")

    await held.reload()
    await held.reload()
    kept = held.is_local(JOE)
    table.filled(f"'exact', '{JOE}'")
    await held.reload()
    await held.reload()

    assert kept
    assert held.is_local(JOE)
    first, second = said.lines()
    assert first.startswith('locals.kept reason="database-address: there is no table locals')
    assert second == "locals.loaded exact=1 patterns=0"


async def test_a_file_alone_is_read_again_when_it_was_changed(file: Path, said: Log) -> None:
    held = Locals.load(Sources(file), ttl=0.02)

    async with running(held):
        await asyncio.to_thread(replace, file, f"{BOB}\n@ours.test\n")
        await eventually(lambda: held.is_local(JOE), "the domain is local")
        await asyncio.to_thread(file.unlink)
        await eventually(lambda: len(said.lines()) == 3, "that the file is gone is told")

    assert held.is_local(JOE)
    assert said.lines() == [
        "locals.loaded exact=1 patterns=0",
        "locals.loaded exact=1 patterns=1",
        f'locals.kept reason="{file}: No such file or directory"',
    ]


@pytest.fixture
def stuck(file: Path) -> Iterator[Locals]:
    """A list whose file has become a pipe: whoever opens it waits for a writer."""
    held = Locals.load(Sources(file), ttl=600)
    file.unlink()
    os.mkfifo(file)
    yield held
    os.close(os.open(file, os.O_RDWR))  # lets the thread go


async def test_a_reading_that_hangs_holds_up_nobody(stuck: Locals) -> None:
    held = stuck

    reading = asyncio.create_task(held.reload())
    await asyncio.sleep(0)
    start = time.perf_counter()
    for _ in range(100):
        await asyncio.sleep(0)
        assert held.is_local(BOB)
    took = time.perf_counter() - start
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading

    assert took < 1


async def test_clients_have_their_turn_while_a_long_list_is_read(tmp_path: Path) -> None:
    path = tmp_path / "locals"
    path.write_text("".join(f"user{n}@example.test\n" for n in range(200_000)))
    held = Locals.load(Sources(path), ttl=600)
    with path.open("a") as more:
        more.write(f"{JOE}\n")

    reading, turns = asyncio.create_task(held.reload()), 0
    while not reading.done():
        await asyncio.sleep(0.001)
        turns += 1
    await reading

    assert held.is_local(JOE)
    # Held up by the whole list there would be one or two.
    assert turns > 50


async def test_closing_lets_the_list_go_while_clients_have_their_turn(tmp_path: Path) -> None:
    path = tmp_path / "locals"
    path.write_text("".join(f"user{n}@example.test\n" for n in range(300_000)))
    held = Locals.load(Sources(path), ttl=600)
    assert held.is_local("user7@example.test")

    closing, turns = asyncio.create_task(held.close()), 0
    while not closing.done():
        await asyncio.sleep(0.001)
        turns += 1
    await closing

    assert not held
    assert turns > 5
