"""aiosmtpd's own command tests, run against our engine.

A handler written for aiosmtpd expects of a server what those tests expect. Each of them
that does not pass has its reason in outcomes.txt, and a change of any outcome shows here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import defaultdict
from pathlib import Path

import pytest

from parts import needs

HERE = Path(__file__).parent
ARCHIVE = HERE.parents[1] / ".cache" / "aiosmtpd-1.4.6.tar.gz"
TESTS = "handlers smtp smtps smtpsmuggling starttls"

Outcomes = dict[str, set[str]]


@needs("aiosmtpd-tests")
def test_their_command_tests_come_out_as_the_table_says(tmp_path: Path) -> None:
    folder = unpacked(tmp_path)

    found = outcomes(folder)

    counts, listed = table(HERE / "outcomes.txt")
    for kind in listed.keys() | found.keys() - {"passed"}:
        assert found[kind] == listed[kind], f"{kind} is not what outcomes.txt lists"
    assert {kind: len(tests) for kind, tests in found.items()} == counts


def unpacked(folder: Path) -> Path:
    """Their tests in a package of their own, with our adapter in the place of their conftest."""
    assert ARCHIVE.exists(), f"scripts/test fetches {ARCHIVE.name} into .cache"
    with tarfile.open(ARCHIVE) as archive:
        # Where there are filters: from Python 3.11.4 on.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    package = folder / "theirs"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copytree(folder / "aiosmtpd-1.4.6" / "aiosmtpd" / "tests", package / "tests")
    (package / "tests" / "conftest.py").rename(package / "tests" / "given.py")
    shutil.copy(HERE / "adapter.py", package / "tests" / "conftest.py")
    (package / "pytest.ini").write_text(
        "[pytest]\nfaulthandler_timeout = 60\nfaulthandler_exit_on_timeout = true\n"
        "asyncio_default_fixture_loop_scope = function\n"
    )
    return package


def outcomes(package: Path) -> Outcomes:
    """Run them, and say which tests came out how: passed, failed, or beside our engine."""
    file = package / "outcomes.json"
    names = [f"tests/test_{name}.py" for name in TESTS.split()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", *names],
        cwd=package,
        env=os.environ | {"OUTCOMES": str(file), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    # 1: some failed, as they should; anything else is the run itself.
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    passed: dict[str, bool] = defaultdict(lambda: True)
    reached: dict[str, bool] = defaultdict(bool)
    for line in file.read_text().splitlines():
        phase = json.loads(line)
        test = phase["test"].removeprefix("tests/")
        passed[test] &= phase["outcome"] == "passed"
        reached[test] |= phase["reached"]
    found: Outcomes = {"passed": set(), "failed": set(), "beside": set()}
    for test, right in passed.items():
        found["failed" if not right else "passed" if reached[test] else "beside"].add(test)
    return found


def table(file: Path) -> tuple[dict[str, int], Outcomes]:
    """The counts at the top of outcomes.txt, and the tests it lists: failed, or beside."""
    counts: dict[str, int] = {}
    listed: Outcomes = {"failed": set(), "beside": set()}
    kind = ""
    for line in file.read_text("utf-8").splitlines():
        if line.startswith("#     "):
            name, number = line[1:].split()[:2]
            counts[name] = int(number)
        elif line.startswith("    "):
            assert line.strip() not in listed[kind], line
            listed[kind].add(line.strip())
        elif not line.startswith((" ", "#")) and line:
            kind = "beside" if line.startswith("beside: ") else "failed"
    assert counts.pop("run") == sum(counts.values())
    counts["failed"] = counts.pop("differs") + counts.pop("inside")
    return counts, listed


@pytest.mark.parametrize("word", ["differs", "inside", "beside"])
def test_the_table_counts_what_it_lists(word: str) -> None:
    text = (HERE / "outcomes.txt").read_text("utf-8")

    head, *groups = text.split("\n\n")
    number = next(int(line.split()[2]) for line in head.splitlines() if f" {word} " in line)

    listed = [group.count("\n    ") for group in groups if group.startswith(f"{word}: ")]
    assert sum(listed) == number
