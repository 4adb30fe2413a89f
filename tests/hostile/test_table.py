"""The table of hostile input names each test of a row, and no test that is not there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent
ROWS = {f"B{n:02}" for n in range(1, 65)} | {f"G{n:02}" for n in range(1, 14)}
_ROW = re.compile(r"test_([BG]\d\d)_\w+")


def written() -> dict[str, set[str]]:
    """Row -> the tests that the table names, as file.test."""
    lines = (FOLDER / "table.md").read_text(encoding="utf-8").splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if re.match(r"\| [BG]\d\d ", line)]
    return {row: set(re.findall(r"`(test_\w+\.test_\w+)`", tests)) for row, *_, tests in cells}


def there() -> dict[str, set[str]]:
    """The same of the tests in this folder."""
    found: dict[str, set[str]] = {}
    for file in FOLDER.glob("test_*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and (row := _ROW.fullmatch(node.name)):
                found.setdefault(row[1], set()).add(f"{file.stem}.{node.name}")
    return found


def test_every_row_has_its_tests() -> None:
    assert there().keys() >= ROWS


def test_the_table_says_what_is_there() -> None:
    assert written() == there()
