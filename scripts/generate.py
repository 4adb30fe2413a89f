#!/usr/bin/env python3
"""Write what is made from declarations into the files that hold it.

mailgw.conf.example as a whole; in README.md the tables between <!-- keys --> and
<!-- /keys -->, <!-- document --> and <!-- /document -->, and the one of <!-- faults -->,
from what the fault suite wrote down. The argument is the folder, this project's where there
is none. Run it with the Python of .venv.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mailgw.config.render import example, key_table
from mailgw.document.schema import markdown_table

# What the fault suite calls a fault that was injected with a waiting room.
_STORE = ", rabbitmq-outage: store"


def fault_table(written: str) -> str:
    """The fault suite's table, its rows with and without a waiting room put together."""
    rows: dict[str, dict[bool, list[str]]] = {}
    for line in written.splitlines()[2:]:
        name, _, *figures = (cell.strip() for cell in line.strip("|").split("|"))
        rows.setdefault(name.replace(_STORE, ""), {})[_STORE in name] = figures
    table = "| fault | clients heard | with `store` | accepted | lost | duplicated |\n"
    table += "| --- | --- | --- | ---: | ---: | ---: |\n"
    for name, row in rows.items():
        accepted, lost, twice = (sum(int(each[n]) for each in row.values()) for n in (1, 2, 3))
        heard = " | ".join(row[store][0] if store in row else "" for store in (False, True))
        table += f"| {name} | {heard} | {accepted} | {lost} | {twice} |\n"
    return table


def with_table(text: str, name: str, table: str) -> str:
    """`text` with what stands between the markers of `name` made anew."""
    before, begin, rest = text.partition(f"<!-- {name} -->")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not begin or not end:
        raise SystemExit(f"README.md: no <!-- {name} --> ... <!-- /{name} -->")
    return f"{before}{begin}\n{table}{end}{after}"


def main(folder: Path) -> None:
    (folder / "mailgw.conf.example").write_text(example(), encoding="utf-8")
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8")
    text = with_table(text, "keys", key_table())
    faults = (Path(__file__).parents[1] / "tests/faults/table.md").read_text(encoding="utf-8")
    text = with_table(text, "faults", fault_table(faults))
    readme.write_text(with_table(text, "document", markdown_table()), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[1])
