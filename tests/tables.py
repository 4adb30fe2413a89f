"""A database with a table of local addresses, as an operator sees it: an address and SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

TABLE = "CREATE TABLE locals (type VARCHAR(16), address VARCHAR(255))"


@dataclass(frozen=True)
class Table:
    """`url` is the value of database-address; `execute` runs statements as somebody else would."""

    url: str
    execute: Callable[..., None]

    def filled(self, *rows: str) -> Table:
        """Make the table; each row is SQL, such as "'exact', 'joe@ours.test'"."""
        self.execute(TABLE, *(f"INSERT INTO locals VALUES ({row})" for row in rows))
        return self


def sqlite_table(folder: Path) -> Table:
    """An SQLite file in `folder`, made by the first statement."""
    path = folder / "locals.sqlite"

    def execute(*statements: str) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return Table(f"sqlite://{path}", execute)
