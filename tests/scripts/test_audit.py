"""The audit of what we build on: what it finds in a small project, and whom it asks.

The packages are folders of metadata as pip leaves them; pip-audit is the real one, and asks
a service on the loopback.
"""

from __future__ import annotations

import importlib
import json
import socket
import threading
import tomllib
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
HASH = f"    --hash=sha256:{'0' * 64}\n"
LOCK = f"# Written by a script.\nclick==8.0 \\\n{HASH}hatchling==1.0 \\\n{HASH}"
PROJECT = {
    "pyproject.toml": """
[build-system]
requires = ["hatchling==1.0"]

[tool.hatch.build.targets.wheel.hooks.custom]
dependencies = ["msgspec==0.2"]

[project]
name = "thing"
dependencies = [
    "click==8.0",  # cli.py: commands.
]

[project.optional-dependencies]
extra = [
    "msgspec==0.2",  # main.py: what is encoded.
]
dev = [
    "ruff==0.1",  # scripts/check: lint.
]
""",
    "requirements.lock": LOCK,
    "requirements-dev.lock": f"{LOCK}msgspec==0.2 \\\n{HASH}ruff==0.1 \\\n{HASH}"
    f'winpath==3 ; sys_platform == "win32" \\\n{HASH}',
    "requirements-build.lock": f"hatchling==1.0 \\\n{HASH}msgspec==0.2 \\\n{HASH}",
    "tests/checks/sources.txt": f"# An archive with tests.\npyspf==2.0 \\\n{HASH}",
    "src/thing/main.py": "import json\nimport click, msgspec.json\nfrom thing import more\n",
}
PACKAGES = {
    "thing": "Version: 1.0\nLicense-Expression: Apache-2.0",
    "click": "Version: 8.0\nLicense: a text\nClassifier: License :: OSI Approved :: MIT License",
    "hatchling": "Version: 1.0\nLicense: MIT",
    "msgspec": "Version: 0.2\nLicense: BSD-like",
    "ruff": "Version: 0.1\nLicense-Expression: GPL-3.0-only OR MIT AND ISC",
}
RULES = """
[licences]
allowed = ["Apache-2.0", "ISC", "MIT", "Zlib"]
[licences.spelled]
"MIT License" = "MIT"
[licences.read]
msgspec = "Zlib"
[[advisory]]
package = "click"
sound = "7.2"
id = "CVE-1"
about = "bad things"
"""


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("audit")


def judged(
    audit: ModuleType,
    folder: Path,
    files: Mapping[str, str] = PROJECT,
    packages: Mapping[str, str] = PACKAGES,
    rules: str = RULES,
) -> list[str]:
    """What is found in a project of these files beside which these packages are installed."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name, about in packages.items():
        place = folder / "site" / f"{name}-{about.split()[1]}.dist-info"
        place.mkdir(parents=True)
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\n{about}\n")
    found: list[str] = audit.judge(folder, audit.here([str(folder / "site")]), tomllib.loads(rules))
    return found


def test_a_project_in_order_has_no_findings(audit: ModuleType, tmp_path: Path) -> None:
    assert judged(audit, tmp_path) == []


@pytest.mark.parametrize(
    ("file", "before", "after", "finding"),
    [
        (
            "tests/checks/sources.txt",
            "==2.0",
            ">=2.0",
            "tests/checks/sources.txt: pyspf>=2.0 is no exact version",
        ),
        (
            "tests/checks/sources.txt",
            "==2.0",
            "==2.*",
            "tests/checks/sources.txt: pyspf==2.* is no exact version",
        ),
        (
            "requirements-dev.lock",
            f"ruff==0.1 \\\n{HASH}",
            "ruff==0.1\n",
            "requirements-dev.lock: ruff==0.1 has no hash",
        ),
        (
            "pyproject.toml",
            '"ruff==0.1"',
            '"ruff==0.2"',
            "requirements-dev.lock: holds ruff==0.1 for ruff==0.2 (scripts/lock)",
        ),
        (
            "requirements.lock",
            f"hatchling==1.0 \\\n{HASH}",
            "",
            "requirements.lock: holds nothing for hatchling==1.0 (scripts/lock)",
        ),
        (
            "requirements.lock",
            "# Written by a script.\n",
            f"idna==3 \\\n{HASH}",
            "requirements-dev.lock: holds nothing for idna==3 (scripts/lock)",
        ),
        (
            "requirements-build.lock",
            f"msgspec==0.2 \\\n{HASH}",
            "",
            "requirements-build.lock: holds nothing for msgspec==0.2 (scripts/lock)",
        ),
        (
            "pyproject.toml",
            "  # scripts/check: lint.",
            "  # lint",
            "pyproject.toml: ruff==0.1 has no sentence that says where and what for",
        ),
        (
            "src/thing/main.py",
            "import json",
            "from yarl import URL",
            "thing/main.py: imports yarl, which pyproject.toml does not declare",
        ),
        (
            "src/thing/main.py",
            "import json",
            "import ruff",
            "thing/main.py: imports ruff, which pyproject.toml does not declare",
        ),
    ],
    ids=[
        "a range",
        "any of a series",
        "no hash",
        "another version",
        "not in the lock",
        "not in the wider lock",
        "not in the lock of what compiles",
        "no sentence",
        "comes with another",
        "only for developing",
    ],
)
def test_what_was_not_chosen_on_purpose_is_found(
    audit: ModuleType, tmp_path: Path, file: str, before: str, after: str, finding: str
) -> None:
    assert before in PROJECT[file]
    changed = PROJECT | {file: PROJECT[file].replace(before, after)}

    assert judged(audit, tmp_path, changed) == [finding]


@pytest.mark.parametrize(
    ("package", "about", "finding"),
    [
        ("idna", "Version: 3\nLicense: MIT", "idna 3 is installed and not locked (remove .venv)"),
        (
            "hatchling",
            "Version: 1.1\nLicense: MIT",
            "hatchling 1.1 is installed, hatchling==1.0 is locked (remove .venv)",
        ),
        ("ruff", "Version: 0.1", "ruff 0.1: nobody knows its licence"),
        (
            "ruff",
            "Version: 0.1\nLicense-Expression: MIT AND GPL-3.0-only",
            "ruff 0.1: its licence is MIT AND GPL-3.0-only, which is not allowed",
        ),
        (
            "ruff",
            "Version: 0.1\nLicense: ask us",
            "ruff 0.1: its licence is ask us, which is not allowed",
        ),
    ],
    ids=["not locked", "another version", "no licence", "half a licence", "a licence in words"],
)
def test_what_should_not_be_installed_is_found(
    audit: ModuleType, tmp_path: Path, package: str, about: str, finding: str
) -> None:
    assert judged(audit, tmp_path, packages=PACKAGES | {package: about}) == [finding]


def test_what_is_locked_and_not_there_is_found(audit: ModuleType, tmp_path: Path) -> None:
    fewer = {name: about for name, about in PACKAGES.items() if name != "ruff"}

    found = judged(audit, tmp_path, packages=fewer)

    # winpath is locked for another system.
    assert found == ["ruff==0.1 is locked and not installed (remove .venv)"]


def test_a_version_with_a_known_flaw_is_found(audit: ModuleType, tmp_path: Path) -> None:
    found = judged(audit, tmp_path, rules=RULES.replace('"7.2"', '"8.0.1"'))

    assert found == ["click 8.0: CVE-1, bad things (sound from 8.0.1 on)"]


# --- who is asked -------------------------------------------------------------------


class Service(BaseHTTPRequestHandler):
    """Speaks OSV, and knows something against click."""

    asked: list[dict[str, Any]]
    works = True

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(question)
        self.send_response(200 if self.works else 500)
        answer = json.dumps(KNOWN if question["package"]["name"] == "click" else {}).encode()
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_args: object) -> None:
        """Nothing into the output of the tests."""


def flaw(name: str, fixed: str) -> dict[str, Any]:
    package = {"name": "click", "ecosystem": "PyPI"}
    events = [{"introduced": "0"}, {"fixed": fixed}]
    affected = [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]
    return {"id": name, "summary": "opens doors", "affected": affected}


KNOWN = {"vulns": [flaw("CVE-2", "8.1"), flaw("CVE-3", "8.2")]}


@pytest.fixture
def service() -> Iterator[tuple[str, type[Service]]]:
    class Ours(Service):
        asked: list[dict[str, Any]] = []  # noqa: RUF012 - one for each test

    with ThreadingHTTPServer(("127.0.0.1", 0), Ours) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query", Ours
        server.shutdown()
        thread.join()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    (tmp_path / "requirements-dev.lock").write_text(PROJECT["requirements-dev.lock"])
    return tmp_path / "requirements-dev.lock"


def test_what_a_service_knows_is_a_finding_unless_it_is_borne(
    audit: ModuleType, service: tuple[str, type[Service]], lock: Path
) -> None:
    url, ours = service

    answer = audit.ask(lock, url, ["CVE-3"])

    assert answer.clause == "asked about 4, 1 known against them"
    assert answer.findings == ("click 8.0: CVE-2, opens doors (sound from 8.1 on)",)
    assert sorted((each["package"]["name"], each["version"]) for each in ours.asked) == [
        ("click", "8.0"),
        ("hatchling", "1.0"),
        ("msgspec", "0.2"),
        ("ruff", "0.1"),
    ]


def test_a_service_that_breaks_off_decides_nothing(
    audit: ModuleType, service: tuple[str, type[Service]], lock: Path
) -> None:
    url, ours = service
    ours.works = False

    answer = audit.ask(lock, url, [])

    assert answer.clause.startswith("not asked: pip-audit broke off (")
    assert answer.findings == ()


@pytest.mark.parametrize("how", ["nobody", "silence", "another language"])
def test_a_service_that_does_not_answer_decides_nothing(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, lock: Path, how: str
) -> None:
    monkeypatch.setattr(audit, "_FIRST", 0.2 if how == "silence" else 20)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/query"
        if how == "nobody":
            listener.close()
        if how == "another language":
            threading.Thread(target=greet, args=(listener,)).start()

        answer = audit.ask(lock, url, [])

    assert answer == audit.Answer("not asked: no answer from the service")


def greet(listener: socket.socket) -> None:
    client, _ = listener.accept()
    with client:
        client.sendall(b"220 mx.example ESMTP\r\n")
