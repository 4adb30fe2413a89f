"""SQLite alone: documents into a store like the gateway's, in groups, and nothing around it.

    store_writer.py FILE

FILE is a store that holds a document; a new one beside it, FILE.bare, gets it again and again.
For each line with two numbers on standard input, how many and how many a group, so many are
inserted by one thread, a transaction and a sync a group, and "done" is said. Laws: the table,
the pragmas and the document are the gateway's own; what is bound is made once.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from mailgw.outlets.store_file import connect

_COLUMNS = "queue, message_id, transaction_id, dedupe, received, priority, body"
_INSERT = f"INSERT INTO document ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"


def beside(store: Path) -> Path:
    """Where the documents go."""
    return store.with_name(f"{store.name}.bare")


def write(connection: sqlite3.Connection, row: tuple[object, ...], count: int, group: int) -> None:
    """Insert `count` rows; each group is on the disk before the next one begins."""
    whole = [row] * group
    while count:
        rows = whole[: min(group, count)]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_INSERT, rows)
        connection.execute("COMMIT")
        count -= len(rows)


def main(store: Path) -> None:
    """Obey the lines of standard input until it ends."""
    with closing(connect(store, create=False)) as theirs:
        row = theirs.execute(f"SELECT {_COLUMNS} FROM document LIMIT 1").fetchone()
    with closing(connect(beside(store), create=True)) as connection:
        for line in sys.stdin:
            count, group = (int(word) for word in line.split())
            write(connection, row, count, group)
            print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
