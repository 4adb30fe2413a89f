"""Generated files are what their declarations say: run scripts/generate.py with .venv's Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mailgw.config import Severity, load, read, render
from mailgw.config.settings import KEYS
from mailgw.document.schema import markdown_table

ROOT = Path(__file__).parents[1]


def test_the_generated_files_are_up_to_date(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")

    _generate(tmp_path)

    assert (tmp_path / "README.md").read_text(encoding="utf-8") == readme
    made = (tmp_path / "mailgw.conf.example").read_text(encoding="utf-8")
    assert (ROOT / "mailgw.conf.example").read_text(encoding="utf-8") == made


def test_the_example_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mailgw.conf").write_text(render.example())

    configuration = read([Path("mailgw.conf")])

    settings = configuration.settings
    assert [each for each in configuration.findings if each.severity is not Severity.NOTE] == []
    assert (settings.listen.ip, settings.listen.port) == (("127.0.0.1",), (2525,))
    assert settings.broker.address == ()
    assert settings.store.queue_store == Path("mailgw-queue.sqlite")


def test_every_key_of_the_example_is_at_its_default_unless_it_is_set(tmp_path: Path) -> None:
    # Uncommented, the other lines must read, and change nothing.
    text = re.sub(r"(?m)^#(?=[a-z])", "", render.example())
    file = tmp_path / "all.conf"
    file.write_text(text)
    original = tmp_path / "example.conf"
    original.write_text(render.example())

    configuration = read([file])

    assert set(configuration.entries) == set(KEYS)
    assert load([file]) == load([original])


def test_the_table_has_a_row_for_every_key() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", render.key_table(), re.MULTILINE)

    assert rows == list(KEYS)


def test_the_table_shows_wildcards_as_they_are_written() -> None:
    assert r"\*@\*.example.com" in render.key_table()
    assert "x-mq-*" not in render.key_table()


def test_only_what_is_between_the_markers_is_replaced(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(
        "a <!-- keys -->old<!-- /keys --> b <!-- document --><!-- /document -->"
        " <!-- faults --><!-- /faults --> c"
    )

    _generate(tmp_path)

    made = readme.read_text(encoding="utf-8")
    assert "-->old" not in made
    assert render.key_table() in made
    assert markdown_table() in made
    assert made.startswith("a <!-- keys -->\n|")
    assert made.endswith("<!-- /faults --> c")


def test_a_readme_without_markers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no tables here")

    with pytest.raises(subprocess.CalledProcessError):
        _generate(tmp_path)

    assert (tmp_path / "README.md").read_text() == "no tables here"


def _generate(folder: Path) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "generate.py"), str(folder)],
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
