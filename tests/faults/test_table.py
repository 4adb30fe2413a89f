"""The table names every fault that is injected, and no other."""

from __future__ import annotations

from table import FOLDER, Row, declared, render


def test_the_table_has_a_row_for_each_fault_and_no_other() -> None:
    lines = (FOLDER / "table.md").read_text().splitlines()[2:]
    named = [line.split("|")[1].strip() for line in lines]
    assert set(declared(soak=False)) <= set(named)
    assert named == [each for each in declared() if each in named]


def test_no_row_tells_of_a_loss() -> None:
    lines = (FOLDER / "table.md").read_text().splitlines()[2:]
    assert {line.split("|")[5].strip() for line in lines} == {"0"}


def test_a_newer_row_takes_the_place_of_an_older_one() -> None:
    name, other = declared()[:2]
    number = name.rpartition("(")[2].rstrip(")")
    row = Row(number, name.rpartition(" (")[0], "so", "451 4.3.0", 7, 0, 1)
    earlier = (
        render([]) + f"| {name} | so | 250 | 1 | 0 | 0 |\n| {other} | so | 250 | 2 | 0 | 0 |\n"
    )
    found = render([row], earlier).splitlines()[2:]
    assert found == [
        f"| {name} | so | 451 4.3.0 | 7 | 0 | 1 |",
        f"| {other} | so | 250 | 2 | 0 | 0 |",
    ]
