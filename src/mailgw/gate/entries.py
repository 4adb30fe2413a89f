"""Every pattern with the place where it stands: what people ask about the list.

The gateway asks LocalAddresses, which forgets places, and is a thousand times faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mailgw.gate.database import blocks as rows_of
from mailgw.gate.patterns import BadPattern, Pattern, fold_address
from mailgw.gate.recipients import (
    BadLocalAddresses,
    Gathering,
    LocalAddresses,
    blocks,
    of_file_line,
    of_row,
    written,
)


class Entry(NamedTuple):
    """One line or row; `trouble` says why it is none of the patterns, `pattern` is None then.

    `row` is as it stands in the table, None for a line of the file.
    """

    origin: str
    written: str
    pattern: Pattern | None
    trouble: str = ""
    row: tuple[object, object] | None = None


def of_file(path: Path) -> Iterator[Entry]:
    """Yield what a file holds. Raises BadLocalAddresses where it cannot be read."""
    try:
        for first, lines in blocks(path):
            for number, raw in enumerate(lines, first):
                if text := written(raw):
                    yield line(f"{path}:{number}", text)
    except OSError as error:
        raise BadLocalAddresses([f"{path}: {error.strerror}"]) from error


def line(origin: str, text: str) -> Entry:
    """The entry that a line of the file is."""
    try:
        return Entry(origin, text, of_file_line(text))
    except BadPattern as bad:
        return Entry(origin, text, None, str(bad))


def of_table(database: str) -> Iterator[Entry]:
    """Yield what the table holds. Raises BadDatabase."""
    for rows in rows_of(database):
        for kind, address in rows:
            text = address if isinstance(address, str) else ascii(address)
            shown = f"{kind} {text}" if kind else text
            try:
                yield Entry("database", shown, of_row(kind, address), "", (kind, address))
            except BadPattern as bad:
                yield Entry("database", shown, None, str(bad), (kind, address))


def matches(pattern: Pattern, address: str) -> bool:
    """Whether this pattern alone would make the address local."""
    # Quick for what there are many of.
    if pattern.kind == "exact" and pattern.text != fold_address(address):
        return False
    alone = Gathering()
    alone.add(pattern)
    return LocalAddresses(alone).is_local(address)
