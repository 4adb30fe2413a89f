"""docs/scaling.md says what its formulas give, and names what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from mailgw.config.settings import KNOWN

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")


def computed(*arguments: str) -> list[str]:
    """What the arithmetic prints, line by line."""
    command = [sys.executable, ROOT / "benchmarks/scaling.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


def columns(lines: list[str]) -> dict[str, list[str]]:
    """The last table of these lines, by the titles of its columns."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line]
    start = max(number for number, row in enumerate(rows) if row[0] == "mails a day")
    return {title: [row[n] for row in rows[start + 2 :]] for n, title in enumerate(rows[start])}


def test_the_tables_are_what_the_arithmetic_gives() -> None:
    found = re.search(r"<!-- volumes -->\n(.*?)<!-- /volumes -->", PAGE, re.DOTALL)
    assert found is not None
    assert found[1].splitlines() == computed()


def test_nodes_want_what_the_formulas_say() -> None:
    # So the first volume, a million a day, has 1000 mails a second in its peak.
    basis = ["--peak=86.4", "--broker-cpu=300", "--document=900", "--written=2", "--busy=0.5"]
    found = columns(computed(*basis, "--queue-rate=201", "--backlog=86400"))
    assert found["a node: busy cores"][0] == "0.1"
    assert found["network, MB/s each way"][0] == "1.3"
    assert found["disk, MB/s"][0] == "1.8"
    assert found["queues"][0] == "10"
    assert found["an hour's backlog, GB"][0] == "0.9"


def test_a_billion_is_one_cluster_where_bodies_lie_elsewhere() -> None:
    [arguments] = re.findall(r"`(--document=[^`]*)`", PAGE)
    assert columns(computed(*arguments.split()))["clusters of three nodes"][-1] == "1"


def test_what_the_page_names_exists() -> None:
    keys = set(re.findall(r"`((?:smtp|rabbitmq|storage|spool|dns)-[a-z-]+)(?:`|:)", PAGE))
    assert "smtp-proxy" in keys
    assert keys <= set(KNOWN)
    files = set(
        re.findall(r"(?:\.\./|python |`|scripts/test (?:--soak )?)((?:[a-z]+/)+[a-z_]+\.\w+)", PAGE)
    )
    assert "deploy/haproxy.cfg" in files
    assert {name for name in files if not (ROOT / name).exists()} == set()
