#!/usr/bin/env python3
"""Write what is made from declarations into the files that hold it.

mailgw.conf.example as a whole; in README.md the tables between <!-- keys --> and
<!-- /keys -->, <!-- document --> and <!-- /document -->. The argument is the folder,
this project's where there is none. Run it with the Python of .venv.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mailgw.config.render import example, key_table
from mailgw.document.schema import markdown_table


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
    readme.write_text(with_table(text, "document", markdown_table()), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[1])
