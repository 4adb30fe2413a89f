"""The ground the house stands on: scripts start, and locks hold what the project asks for.

The scripts are run for real, in a copy of the project or with a PATH that holds little;
nothing is installed here.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from subprocess import PIPE

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROGRAMS = [
    ".ci/run",
    "benchmarks/report",
    "benchmarks/setup",
    *(f"scripts/{name}" for name in ["check", "fmt", "install-test-parts", "lock", "run", "test"]),
]
LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-build.lock"]


# --- scripts ------------------------------------------------------------------------


@pytest.mark.parametrize("path", PROGRAMS)
def test_a_script_can_be_started(path: str) -> None:
    script = ROOT / path
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env bash\n")


@pytest.mark.parametrize("path", [*PROGRAMS, "scripts/environment"])
def test_a_script_is_a_bash_program_that_stops_at_the_first_error(path: str) -> None:
    checked = subprocess.run(["bash", "-n", ROOT / path], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    if path in PROGRAMS:
        assert "\nset -euo pipefail\n" in (ROOT / path).read_text()


def test_every_script_is_known_here() -> None:
    found = {f"scripts/{each.name}" for each in (ROOT / "scripts").iterdir() if each.is_file()}
    assert found >= {path for path in PROGRAMS if path.startswith("scripts/")}
    executable = {path for path in found if os.access(ROOT / path, os.X_OK)}
    # The others that can be started are Python, and have tests of their own.
    assert {path for path in executable if not path.endswith(".py")} <= set(PROGRAMS)


def test_what_every_change_must_pass_is_check_and_test_and_nothing_else() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    called = [line for line in lines if line.startswith("scripts/")]
    assert called[:2] == ["scripts/check", "scripts/test"]
    assert [line.partition(" tests/")[0] for line in called[2:]] == ["scripts/test --compiled"]


def test_the_lock_of_the_node_peers_pins_every_package_and_names_no_registry() -> None:
    folder = ROOT / "benchmarks/peers"
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]

    locked = json.loads((folder / "package-lock.json").read_text())["packages"]

    assert locked.pop("")["dependencies"] == wanted
    assert {f"node_modules/{name}" for name in wanted} <= locked.keys()
    assert all(each["version"] and each["integrity"] for each in locked.values())
    assert not any("resolved" in each for each in locked.values())


# --- a machine that lacks something -------------------------------------------------


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder of programs to be the whole PATH: the shell and its basic tools, no more."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ["bash", "cat", "cmp", "dirname", "env", "mkdir", "rm", "sed", "tr"]:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return folder


def start(
    script: Path, *arguments: str, path: Path, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [path / "bash", script, *arguments],
        env={"PATH": str(path), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_part_that_cannot_be_had_is_named_and_fails(bare_path: Path) -> None:
    ended = start(ROOT / "scripts/install-test-parts", "swaks", "curl", path=bare_path)
    assert ended.returncode == 3
    assert "could not be installed: swaks curl\n" in ended.stderr
    assert "apt-get install swaks libnet-ssleay-perl" in ended.stderr
    assert "MAILGW_TEST_WITHOUT=swaks,curl\n" in ended.stderr


def test_a_part_left_out_on_purpose_is_said_and_passes(bare_path: Path) -> None:
    ended = start(
        ROOT / "scripts/install-test-parts",
        "swaks",
        "curl",
        path=bare_path,
        MAILGW_TEST_WITHOUT="curl, swaks",
    )
    assert ended.returncode == 0
    assert "left out on purpose (MAILGW_TEST_WITHOUT): swaks" in ended.stderr
    assert "left out on purpose (MAILGW_TEST_WITHOUT): curl" in ended.stderr


def test_leaving_out_a_part_that_nobody_knows_is_said(bare_path: Path) -> None:
    ended = start(
        ROOT / "scripts/install-test-parts",
        "curl",
        path=bare_path,
        MAILGW_TEST_WITHOUT="curl,swacks",
    )
    assert '"swacks" is not a part' in ended.stderr


TOO_OLD = '#!/bin/sh\ncase "$2" in *version_info*) exit 1 ;; *python_version*) echo 3.9.2 ;; esac\n'
WITHOUT_VENV = '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\n'
SWITCHED_OFF = "#!/bin/sh\necho 'not installed' >&2\nexit 127\n"


@pytest.mark.parametrize(
    ("python", "sentence"),
    [
        ("", "mailgw needs Python 3.11 or newer, and there is no python3 here"),
        (SWITCHED_OFF, "mailgw needs Python 3.11 or newer, and there is no python3 here"),
        (TOO_OLD, "mailgw needs Python 3.11 or newer; python3 here is 3.9.2"),
        (WITHOUT_VENV, "python3 has no venv module with pip"),
    ],
    ids=["none", "only a switcher's name", "too old", "no venv module"],
)
def test_without_a_python_that_fits_the_first_start_says_what_is_missing(
    bare_path: Path, tmp_path: Path, python: str, sentence: str
) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    if python:
        (bare_path / "python3").write_text(python)
        (bare_path / "python3").chmod(0o755)
    ended = start(tmp_path / "scripts/run", path=bare_path)
    assert ended.returncode == 1
    assert sentence in ended.stderr
    assert not (tmp_path / ".venv").exists()


# --- the first start ----------------------------------------------------------------

# What scripts/run starts, seen from outside: answers show-config, repeats what it was given.
PROGRAM = """#!/bin/sh
if [ "$1" = show-config ]; then
    echo 'key             value      default  from'
    echo 'smtp-ip         (empty)    (empty)  default'
    echo 'smtp-port       2600-2609  25       command line'
    echo 'rabbitmq-inbox  inbox      inbox    default'
    exit
fi
echo "in: $PWD"
for each in "$@"; do echo "argument: $each"; done
"""


@pytest.fixture
def made_project(tmp_path: Path) -> Path:
    """A project whose environment is ready, so that nothing is installed."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "scripts", project / "scripts")
    for name in [*LOCKS, "pyproject.toml"]:
        shutil.copy(ROOT / name, project)
    programs = project / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    (programs / "mailgw").write_text(PROGRAM)
    (programs / "mailgw").chmod(0o755)
    subprocess.run(
        ["bash", "-c", ". scripts/environment; _decides requirements.lock >.venv/made-from"],
        cwd=project,
        check=True,
    )
    return project


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        ([], []),
        (["--smtp-port", "2600"], ["--smtp-port", "2600"]),
        (["--config-file", "mine.conf"], ["--config-file", "{caller}/mine.conf"]),
        (["--config-file=mine.conf"], ["--config-file={caller}/mine.conf"]),
        (["--config-file", "/etc/mine.conf"], ["--config-file", "/etc/mine.conf"]),
        (["--config-file=/etc/mine.conf"], ["--config-file=/etc/mine.conf"]),
        (
            ["--config-file", "a.conf", "--config-file", "b c.conf", "--smtp-ip=::1"],
            [
                "--config-file",
                "{caller}/a.conf",
                "--config-file",
                "{caller}/b c.conf",
                "--smtp-ip=::1",
            ],
        ),
    ],
)
def test_the_server_starts_in_the_project_and_a_file_is_the_callers(
    made_project: Path, tmp_path: Path, given: list[str], passed_on: list[str]
) -> None:
    caller = tmp_path / "else where"
    caller.mkdir()
    ended = subprocess.run(
        [made_project / "scripts/run", *given],
        cwd=caller,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stderr == ""
    expected = ["serve", "--config-file", "mailgw.conf.example"]
    expected += [each.format(caller=caller) for each in passed_on]
    said = ended.stdout.splitlines()
    assert f"in: {made_project}" in said
    assert [line[10:] for line in said if line.startswith("argument: ")] == expected


def test_the_first_start_tells_how_to_send_and_how_to_read(made_project: Path) -> None:
    said = subprocess.run(
        [made_project / "scripts/run", "--smtp-password=hush"],
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    hints = said.partition("in: ")[0]
    assert "SMTP on 127.0.0.1, port 2600." in hints
    assert "swaks --server '127.0.0.1' --port 2600 " in hints
    assert ".venv/bin/mailgw consume inbox --config-file mailgw.conf.example\n" in hints
    assert "hush" not in hints


class Recorder:
    """An aiosmtpd handler that keeps what it is given."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.taken.append(envelope)
        return "250 Ok"


async def test_the_plain_python_line_of_the_first_start_sends_a_mail(made_project: Path) -> None:
    recorder = Recorder()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(recorder, hostname="mx"), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        program = made_project / ".venv/bin/mailgw"
        program.write_text(PROGRAM.replace("2600-2609", str(port)))
        started = await asyncio.create_subprocess_exec(made_project / "scripts/run", stdout=PIPE)
        hints, _ = await asyncio.wait_for(started.communicate(), 60)
        (line,) = [each for each in hints.decode().splitlines() if "smtplib" in each]
        sent = await asyncio.create_subprocess_exec(*shlex.split(line), cwd=made_project)
        assert await asyncio.wait_for(sent.wait(), 60) == 0
    (mail,) = recorder.taken
    assert mail.rcpt_tos == ["you@example.org"]
    assert b"Subject: first" in bytes(mail.original_content or b"")


# --- locks --------------------------------------------------------------------------


def declared() -> Mapping[str, list[Requirement]]:
    """What pyproject.toml asks for: to run, to build, to compile, to develop."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    hook = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]
    return {
        "run": [Requirement(each) for each in project["project"]["dependencies"]],
        "build": [Requirement(each) for each in project["build-system"]["requires"]],
        "compile": [Requirement(each) for each in hook["dependencies"]],
        "dev": [Requirement(each) for each in project["project"]["optional-dependencies"]["dev"]],
    }


def locked(name: str) -> dict[str, Requirement]:
    """The packages of a lock file by name, without their hashes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [Requirement(line.partition(" --hash")[0]) for line in lines]
    return {canonicalize_name(each.name): each for each in found}


def needed(asked: list[Requirement]) -> set[str]:
    """The names of all that `asked` pulls in here, as the installed packages declare it."""
    todo = [(each, "") for each in asked]
    seen: set[tuple[str, str]] = set()
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                todo += [(Requirement(each), wanted) for each in metadata.requires(name) or []]
    return {name for name, _ in seen}


@pytest.mark.parametrize(
    ("lock", "groups"),
    [
        ("requirements.lock", "run build"),
        ("requirements-dev.lock", "run build dev"),
        ("requirements-build.lock", "build compile"),
    ],
)
def test_a_lock_holds_what_the_project_asks_for_and_nothing_else(lock: str, groups: str) -> None:
    asked = [each for group in groups.split() for each in declared()[group]]
    here = {
        name: each
        for name, each in locked(lock).items()
        if not each.marker or each.marker.evaluate()
    }
    assert set(here) == needed(asked)
    for each in asked:
        assert here[canonicalize_name(each.name)].specifier == each.specifier


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-build.lock"])
def test_the_lock_for_developing_agrees_with_the_others(lock: str) -> None:
    wider = locked("requirements-dev.lock")
    for name, each in locked(lock).items():
        assert str(wider[name]) == str(each)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_versions_and_hashes_and_names_no_place(lock: str) -> None:
    entries = re.split(r"(?<!\\)\n", (ROOT / lock).read_text().strip())
    assert entries.pop(0) == "# Written by scripts/lock from pyproject.toml. Do not edit."
    one = r"[a-z0-9.-]+==[^ ]+( ; [^\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+"
    assert [entry for entry in entries if not re.fullmatch(one, entry)] == []
    assert not re.search(r"://|@|(^|\s)(/|-)(?!-hash)", "\n".join(entries))


def test_what_only_builds_the_package_leaves_the_image() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    gone = re.findall(r"pip uninstall --yes ([a-z -]+)", dockerfile)
    builds_only = needed(declared()["build"]) - needed(declared()["run"])
    assert set(" ".join(gone).split()) == builds_only | {"pip"}
