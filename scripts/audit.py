#!/usr/bin/env python3
"""What the project is built on, audited: chosen, unaltered, allowed, and sound as far as is known.

    audit.py [--service URL]

Law: what can be known without a network is judged without one, and always. A service is
asked what is known against the locked versions; where it does not answer, that is said and
decides nothing. Exit 1 where there is a finding.
"""

from __future__ import annotations

import argparse
import ast
import functools
import http.client
import json
import re
import subprocess
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
RUNS, DEVELOPS, COMPILES = "requirements.lock", "requirements-dev.lock", "requirements-build.lock"
# Everything that pip installs for us, with hashes.
PINNED = ("*.lock", "tests/*/*.lock", "tests/*/source*.txt")
SERVICE = "https://api.osv.dev/v1/query"
# In seconds: for the service to answer at all, for one answer, for all of them.
_FIRST, _EACH, _ALL = 2.0, 3, 60

Installed = Mapping[str, metadata.Distribution]


@dataclass(frozen=True)
class Entry:
    """A package in a lock file."""

    asked: Requirement
    hashes: int

    @property
    def pinned(self) -> bool:
        [*specifiers] = self.asked.specifier
        return len(specifiers) == 1 and specifiers[0].operator == "==" and "*" not in str(self)

    def __str__(self) -> str:
        return f"{self.asked.name}{self.asked.specifier}"


@dataclass(frozen=True)
class Answer:
    """What became of asking a service: one clause for the report, and what it knows."""

    clause: str
    findings: tuple[str, ...] = ()


def entries(text: str) -> dict[str, Entry]:
    """The packages of a lock file, by name."""
    found: dict[str, Entry] = {}
    for line in text.replace("\\\n", " ").splitlines():
        asked, *hashes = line.partition("#")[0].split(" --hash=sha256:")
        if asked.strip():
            requirement = Requirement(asked)
            found[canonicalize_name(requirement.name)] = Entry(requirement, len(hashes))
    return found


# --- what was chosen ----------------------------------------------------------------


def loose(file: str, text: str) -> Iterator[str]:
    """What a lock file leaves open."""
    for entry in entries(text).values():
        if not entry.pinned:
            yield f"{file}: {entry} is no exact version"
        if not entry.hashes:
            yield f"{file}: {entry} has no hash"


def disagreements(file: str, locked: Mapping[str, Entry], asked: Iterable[str]) -> Iterator[str]:
    """Where a lock file is not what is asked for."""
    for requirement in map(Requirement, asked):
        entry = locked.get(canonicalize_name(requirement.name))
        if entry is None or entry.asked.specifier != requirement.specifier:
            yield f"{file}: holds {entry or 'nothing'} for {requirement} (scripts/lock)"


def unexplained(pyproject: str, asked: Iterable[str]) -> Iterator[str]:
    """Dependencies without a sentence beside them: where it is at home, and what for."""
    lines = pyproject.splitlines()
    for each in asked:
        sentence = re.compile(rf'\s*"{re.escape(each)}",\s+# \S.*: \S.*\.')
        if not any(map(sentence.fullmatch, lines)):
            yield f"pyproject.toml: {each} has no sentence that says where and what for"


def undeclared(source: Path, declared: Collection[str]) -> Iterator[str]:
    """What the package in a folder imports of others and does not declare."""
    provided = _provided()
    for file in sorted(source.rglob("*.py")):
        for name in sorted(set(_imported(ast.parse(file.read_text("utf-8"))))):
            if name == source.name or name in sys.stdlib_module_names:
                continue
            if not {canonicalize_name(each) for each in provided.get(name, ())} & set(declared):
                where = file.relative_to(source.parent).as_posix()
                yield f"{where}: imports {name}, which pyproject.toml does not declare"


# Which packages bring a name to import; to find out means to read all their lists of files.
_provided = functools.cache(metadata.packages_distributions)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


# --- what is here -------------------------------------------------------------------


def here(path: Sequence[str] | None = None) -> dict[str, metadata.Distribution]:
    """What is installed, by name, on `path` or where we are."""
    found = metadata.distributions() if path is None else metadata.distributions(path=list(path))
    return {str(canonicalize_name(each.name)): each for each in found}


def strangers(installed: Installed, locked: Mapping[str, Entry], own: str) -> Iterator[str]:
    """What is installed and not as locked, or locked and not installed."""
    for name, package in installed.items():
        entry = locked.get(name)
        if entry is None and name != own:
            yield f"{name} {package.version} is installed and not locked (remove .venv)"
        elif entry is not None and package.version not in entry.asked.specifier:
            yield f"{name} {package.version} is installed, {entry} is locked (remove .venv)"
    for name, entry in locked.items():
        if name not in installed and (not entry.asked.marker or entry.asked.marker.evaluate()):
            yield f"{entry} is locked and not installed (remove .venv)"


def forbidden(installed: Installed, licences: Mapping[str, Any]) -> Iterator[str]:
    """Packages whose licence is unknown, or not one that may be used."""
    for name, package in installed.items():
        stated = list(_licences(package, licences["spelled"]))
        stated = [licences["read"][name]] if name in licences["read"] else stated
        if not stated:
            yield f"{name} {package.version}: nobody knows its licence"
        for licence in stated:
            if not _allowed(licence, licences["allowed"]):
                yield f"{name} {package.version}: its licence is {licence}, which is not allowed"


def _licences(package: metadata.Distribution, spelled: Mapping[str, str]) -> Iterator[str]:
    """What its metadata says, in its best words: an expression, classifiers, or free text."""
    about = package.metadata
    if "License-Expression" in about:
        yield about["License-Expression"]
        return
    classifiers = [each.split(" :: ") for each in about.get_all("Classifier") or ()]
    named = [each[-1] for each in classifiers if each[0] == "License"]
    known = [spelled[each] for each in named if each in spelled]
    if known:
        yield from known
    elif "License" in about:
        text = about["License"].partition("\n")[0]
        yield spelled.get(text, text)


def _allowed(licence: str, allowed: Collection[str]) -> bool:
    """Whether one side of an OR, and all of an AND, may be used; brackets are not read."""
    if licence in allowed:
        return True
    try:
        expression = str(canonicalize_license_expression(licence))
    except InvalidLicenseExpression:
        return False
    choices = (choice.split(" AND ") for choice in expression.split(" OR "))
    return any(all(part in allowed for part in parts) for parts in choices)


def unsound(installed: Installed, advisories: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """What is older than an advisory allows."""
    for advisory in advisories:
        package = installed.get(advisory["package"])
        if package is not None and Version(package.version) < Version(advisory["sound"]):
            yield (
                f"{advisory['package']} {package.version}: {advisory['id']}, {advisory['about']} "
                f"(sound from {advisory['sound']} on)"
            )


# --- what others know ---------------------------------------------------------------


def ask(lock: Path, service: str, borne: Iterable[str]) -> Answer:
    """Have pip-audit ask a service that speaks OSV about everything in a lock file."""
    if not _answers(service):
        return Answer("not asked: no answer from the service")
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--require-hashes"]
    command += ["--disable-pip", "--strict", "--format", "json", "--progress-spinner", "off"]
    command += ["--vulnerability-service", "osv", "--osv-url", service, "--timeout", str(_EACH)]
    command += [word for each in borne for word in ("--ignore-vuln", each)]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_ALL, check=False)
        packages = json.loads(asked.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return Answer("not asked: the service is too slow")
    except (ValueError, KeyError):  # nothing is printed before all was answered
        why = asked.stderr.strip().rpartition("\n")[2]
        return Answer(f"not asked: pip-audit broke off ({why[:100]})")
    findings = tuple(
        f"{package['name']} {package['version']}: {known['id']}, {known['description'][:100]} "
        f"(sound from {' or '.join(known['fix_versions']) or 'no version'} on)"
        for package in packages
        for known in package["vulns"]
    )
    return Answer(f"asked about {len(packages)}, {len(findings)} known against them", findings)


def _answers(service: str) -> bool:
    """Whether anything answers there, soon; also where the look-up of its name would hang."""
    said: list[bool] = []

    def look() -> None:
        try:
            with urllib.request.urlopen(service, timeout=_FIRST):  # noqa: S310 - a URL of ours
                said.append(True)
        except urllib.error.HTTPError:
            said.append(True)  # it wants a POST
        except (OSError, http.client.HTTPException):
            said.append(False)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(_FIRST)
    return said == [True]


# --- all of it ----------------------------------------------------------------------


def judge(root: Path, installed: Installed, rules: Mapping[str, Any]) -> list[str]:
    """Every finding that needs nobody's answer."""
    text = (root / "pyproject.toml").read_text("utf-8")
    whole = tomllib.loads(text)
    project, build = whole["project"], whole["build-system"]["requires"]
    hook = whole["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]
    compiles = [*build, *hook["dependencies"]]
    extras: dict[str, list[str]] = dict(project["optional-dependencies"])
    dev = extras.pop("dev")
    runs = [*project["dependencies"], *(each for group in extras.values() for each in group)]
    locks = {name: entries((root / name).read_text("utf-8")) for name in (RUNS, DEVELOPS, COMPILES)}
    found: list[str] = []
    for file in sorted(file for pattern in PINNED for file in root.glob(pattern)):
        found += loose(file.relative_to(root).as_posix(), file.read_text("utf-8"))
    found += disagreements(RUNS, locks[RUNS], [*project["dependencies"], *build])
    found += disagreements(DEVELOPS, locks[DEVELOPS], [*runs, *build, *dev])
    found += disagreements(DEVELOPS, locks[DEVELOPS], map(str, locks[RUNS].values()))
    found += disagreements(COMPILES, locks[COMPILES], compiles)
    found += disagreements(DEVELOPS, locks[DEVELOPS], map(str, locks[COMPILES].values()))
    found += unexplained(text, [*runs, *dev])
    declared = {canonicalize_name(Requirement(each).name) for each in runs}
    found += undeclared(root / "src" / project["name"], declared)
    found += strangers(installed, locks[DEVELOPS], project["name"])
    found += forbidden(installed, rules["licences"])
    found += unsound(installed, rules["advisory"])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--service", default=SERVICE, help=f"who is asked; default: {SERVICE}")
    service: str = parser.parse_args().service
    rules = tomllib.loads((ROOT / "scripts/audit.toml").read_text("utf-8"))
    installed = here()
    found = judge(ROOT, installed, rules)
    answer = ask(ROOT / DEVELOPS, service, [each["id"] for each in rules.get("borne", ())])
    for finding in (*found, *answer.findings):
        print(f"audit: {finding}")
    count = len(found) + len(answer.findings)
    print(
        f"audit: {len(installed)} packages, {count or 'no'} finding{'' if count == 1 else 's'}; "
        f"{len(rules['advisory'])} advisories looked through on {rules['looked-through']}; "
        f"{answer.clause}"
    )
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
