"""Finding an extension by its name, and saying in one line why it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailgw.plugins import BadExtension, load

MODULE = """
class Fine:
    made = 0
    def __init__(self):
        type(self).made += 1
    class Inside:
        pass

class Asks:
    def __init__(self, path):
        pass

class Raises:
    def __init__(self):
        raise OSError("no\\nsuch    file")

class Leaves:
    def __init__(self):
        raise SystemExit(3)

number = 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    package = tmp_path / "loaded_by_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "fine.py").write_text(MODULE)
    (package / "broken.py").write_text("import sys\nsys.exit('usage: broken')\n")
    (package / "wants.py").write_text("import there_is_no_such_library\n")
    (package / "wrong.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "loaded_by_a_test"


def test_the_class_is_made_once_without_arguments(module: str) -> None:
    made = load(f"{module}.fine:Fine")

    assert type(made).__name__ == "Fine"
    assert made.made == 1
    assert type(load(f"{module}.fine:Fine.Inside")).__name__ == "Inside"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("nowhere_at_all:X", "there is no module nowhere_at_all (is its folder in PYTHONPATH?)"),
        ("{}.none:X", "there is no module {}.none (is its folder in PYTHONPATH?)"),
        ("{}.wants:X", "there is no module there_is_no_such_library"),
        ("{}.wrong:X", "importing {}.wrong failed: SyntaxError: "),
        ("{}.broken:X", "importing {}.broken failed: SystemExit: usage: broken"),
        ("{}.fine:X", "{}.fine has no X"),
        ("{}.fine:Fine.Deeper", "{}.fine has no Fine.Deeper"),
        ("{}.fine:number", "is not a class, nor anything else that can be called"),
        ("{}.fine:Asks", "cannot be made: TypeError: "),
        ("{}.fine:Raises", "cannot be made: OSError: no such file"),
        ("{}.fine:Leaves", "cannot be made: SystemExit: 3"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(module: str, name: str, wrong: str) -> None:
    name = name.format(module)

    with pytest.raises(BadExtension) as caught:
        load(name)

    text = str(caught.value)
    assert text.startswith(f"{name}: {wrong.format(module)}")
    assert "\n" not in text
    assert len(text) < 500
