"""G12: names that nobody else has, whatever the clock says and however many processes."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise

import pytest

from mailgw.mail.identifiers import Identifiers

PROCESSES = 4
EACH = 250_000
MAKE = f"""
import sys
from mailgw.mail.identifiers import Identifiers
identifiers = Identifiers("1")
sys.stdout.write("\\n".join(identifiers.next() for _ in range({EACH})))
"""


def test_a_million_names_of_four_processes_are_a_million_names() -> None:
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE],
            env={"PYTHONPATH": ":".join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    names: set[str] = set()
    for maker in makers:
        output, _ = maker.communicate(timeout=60)
        names.update(output.split("\n"))
    assert len(names) == PROCESSES * EACH


@pytest.mark.parametrize("server_id", ["", "1", "mx7"])
def test_a_name_begins_with_the_server_and_is_short_letters_and_digits(server_id: str) -> None:
    identifiers = Identifiers(server_id)
    names = [identifiers.next() for _ in range(40_000)]
    pattern = re.compile(f"{server_id}[0-9a-z]{{13,16}}")
    assert [name for name in names if not pattern.fullmatch(name)] == []


def test_two_makers_never_share_a_beginning() -> None:
    beginnings = sorted(Identifiers("1").next()[:-1] for _ in range(2000))
    assert [a for a, b in pairwise(beginnings) if a == b] == []
