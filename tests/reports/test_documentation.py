"""docs/reports.md shows what the tests read, not what somebody thought it would be."""

from __future__ import annotations

import json
import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "reports.md").read_text(encoding="utf-8")
EXAMPLES = Path(__file__).parent / "examples"


def test_the_page_has_the_example_of_each_type_and_no_other() -> None:
    shown = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]

    held = {file.stem: json.loads(file.read_text("utf-8")) for file in EXAMPLES.glob("*.json")}
    assert {each["type"]: each for each in shown} == held
    assert len(shown) == len(held)
