"""Generated files are what their declarations say: run `python -m mailgw.config.render`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mailgw.config import load, read, render
from mailgw.config.settings import KEYS

ROOT = Path(__file__).parents[1]


def test_the_example_is_up_to_date() -> None:
    assert (ROOT / render.EXAMPLE).read_text(encoding="utf-8") == render.example()


def test_the_readmes_table_is_up_to_date() -> None:
    readme = ROOT / render.README
    text = readme.read_text(encoding="utf-8") if readme.exists() else _readme("old")

    made = render.with_key_table(text)

    assert render.key_table() in made
    assert made == text or not readme.exists()


def test_the_example_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mailgw.conf").write_text(render.example())

    configuration = read([Path("mailgw.conf")])

    settings = configuration.settings
    assert configuration.findings == ()
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


@pytest.mark.parametrize("inside", ["", "\nold\n", "\n| `old` |\n"])
def test_only_what_is_between_the_markers_is_replaced(inside: str) -> None:
    made = render.with_key_table(_readme(inside))

    assert made == _readme("\n" + render.key_table())
    assert render.with_key_table(made) == made


@pytest.mark.parametrize("text", ["", "no markers", "<!-- keys -->", "<!-- /keys -->"])
def test_a_readme_without_both_markers_is_left_alone(text: str) -> None:
    assert render.with_key_table(text) == text


def test_the_module_rewrites_both_files(tmp_path: Path) -> None:
    (tmp_path / render.README).write_text(_readme("old"))

    subprocess.run(
        [sys.executable, "-m", "mailgw.config.render", str(tmp_path)],
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )

    assert (tmp_path / render.EXAMPLE).read_text() == render.example()
    assert (tmp_path / render.README).read_text() == _readme("\n" + render.key_table())


def _readme(inside: str) -> str:
    return f"# mailgw\n\n{render.BEGIN}{inside}{render.END}\n\nMore.\n"
