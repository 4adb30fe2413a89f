"""The table of faults: one row for each that was injected, as the README shows it.

`table.md` beside this file is what the last run that was asked for it wrote
(MAILGW_FAULTS_TABLE=tests/faults/table.md). Figures differ from run to run; which faults
there are does not, and that is what a test compares.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

FOLDER = Path(__file__).parent
# What is added to the name of a fault where mail waits for the broker.
WITH_STORE = ", rabbitmq-outage: store"
_HEAD = (
    "| fault | how it is made | what clients heard | accepted | lost | duplicated |\n"
    "| --- | --- | --- | --- | --- | --- |\n"
)


@dataclass(frozen=True, slots=True)
class Row:
    number: str
    name: str
    made: str
    saw: str
    accepted: int
    lost: int
    duplicated: int

    def __str__(self) -> str:
        name = f"{self.name} ({self.number})" if self.number else self.name
        figures = f"{self.accepted} | {self.lost} | {self.duplicated}"
        return f"| {name} | {self.made} | {self.saw} | {figures} |\n"


def render(rows: Iterable[Row], earlier: str = "") -> str:
    """The table with these rows, and those of an earlier one that have no newer row.

    In the order in which the tests stand, whichever of them ran.
    """
    lines = {line.split("|")[1].strip(): line for line in earlier.splitlines(True)[2:]}
    lines |= {str(row).split("|")[1].strip(): str(row) for row in rows}
    known = [name for name in declared() if name in lines]
    return _HEAD + "".join(lines[name] for name in known)


def declared(*, soak: bool = True) -> list[str]:
    """The faults that the tests here declare, as the table names them, in their order.

    Without `soak`: those that every run injects.
    """
    found: list[str] = []
    for file in sorted(FOLDER.glob("test_*.py")):
        tests = [each for each in ast.parse(file.read_text()).body if _is_function(each)]
        # A scene of the file's own has no waiting room.
        waits = all(each.name != "scene" for each in tests)
        for outage in ("", WITH_STORE) if waits else ("",):
            for test in tests:
                found += _declared_by(test, outage, soak=soak)
    return found


def _is_function(node: ast.stmt) -> TypeGuard[ast.FunctionDef]:
    return isinstance(node, ast.FunctionDef)


def _declared_by(test: ast.FunctionDef, outage: str, *, soak: bool) -> Iterator[str]:
    marks = [node for each in test.decorator_list for node in ast.walk(each)]
    if not soak and any(isinstance(node, ast.Attribute) and node.attr == "soak" for node in marks):
        return
    # Others have no broker to go away.
    if outage and not {each.arg for each in test.args.args} & {"scene", "own"}:
        return
    for node in marks:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id == "fault" and (soak or not outage or _always_stores(node)):
            number, name, _ = (ast.literal_eval(each) for each in node.args)
            yield f"{name}{outage} ({number})" if number else name + outage


def _always_stores(mark: ast.Call) -> bool:
    return any(each.arg == "store" and ast.literal_eval(each.value) for each in mark.keywords)
