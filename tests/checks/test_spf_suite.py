"""The suites of RFC 7208 and of its predecessor, over a real DNS server on loopback.

Both come with pyspf: they are read beside the project, or out of its source archive, which
scripts/test fetches. A test of theirs may accept several results. The explanations that
they expect are left out, because we do not fetch any.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dns.name
import pytest
import spf as pyspf
import yaml

from mailgw.checks.spf import Limits, check
from mailgw.dns import AresResolver
from nameserver import NameServer, nameserver
from parts import WITHOUT, needs

PROJECT = Path(__file__).parents[2]
BESIDE_THE_PROJECT = PROJECT.parent / "shared" / "vectors"
FOLDER = Path(os.environ.get("MAILGW_TEST_VECTORS", BESIDE_THE_PROJECT)) / "spf" / "pyspf"
ARCHIVE = PROJECT / ".cache" / "pyspf-2.0.14.tar.gz"


@dataclass
class World:
    """What the server is to know and how it is to behave in the tests of one scenario."""

    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    behaviour: dict[str | tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One test of a suite: who sends, and the results that are right."""

    world: World
    ip: str
    helo: str
    sender: str
    results: tuple[str, ...]


def suite(file: str) -> dict[str, Case]:
    """The tests of a suite by name; none where it is not here."""
    if (FOLDER / file).exists():
        text = (FOLDER / file).read_bytes()
    elif ARCHIVE.exists() and "pyspf-tests" not in WITHOUT:
        with tarfile.open(ARCHIVE) as archive:
            member = archive.extractfile(f"pyspf-2.0.14/test/{file}")
            assert member is not None
            text = member.read()
    else:
        return {}
    return {name: case for scenario in yaml.safe_load_all(text) for name, case in cases(scenario)}


def cases(scenario: dict[str, Any]) -> Iterator[tuple[str, Case]]:
    world = World()
    for name, stated in scenario["zonedata"].items():
        add(world, wire_name(name), stated)
    for name, test in scenario["tests"].items():
        results = test["result"]
        right = (results,) if isinstance(results, str) else tuple(results)
        yield name, Case(world, test["host"], test["helo"], test["mailfrom"], right)


def add(world: World, name: str, stated: list[Any]) -> None:
    """What a suite says of one name. SPF stands for TXT, where TXT itself is not said."""
    pairs = [pair for each in stated if each != "TIMEOUT" for pair in each.items()]
    kinds = {kind for kind, _ in pairs}
    for kind, value in pairs:
        if kind == "SPF":
            if "TXT" in kinds:
                continue
            kind = "TXT"
        if value != "NONE":
            world.records.setdefault((name, kind), []).append(in_a_zone_file(kind, value))
            world.behaviour[name, kind] = "usual"
    if "TIMEOUT" in stated:
        world.behaviour[name] = "silent"


def in_a_zone_file(kind: str, value: Any) -> str:
    match kind:
        case "TXT":
            # A record has at least one string, be it empty (RFC 1035 3.3.14).
            parts = [value] if isinstance(value, str) else value or [""]
            return " ".join(f'"{escaped(part.encode())}"' for part in parts)
        case "MX":
            return f"{value[0]} {wire_name(value[1]).removesuffix('.')}."
        case "CNAME" | "PTR":
            return f"{wire_name(value)}."
        case _:
            return str(value)


def escaped(octets: bytes) -> str:
    return "".join(f"\\{octet:03}" for octet in octets)


def wire_name(name: str) -> str:
    """A name as it stands in a zone file and in what the server counts."""
    labels = [label.encode() for label in name.removesuffix(".").split(".") if label]
    return dns.name.Name([*labels, b""]).to_text(omit_final_dot=True).lower()


RFC_7208 = suite("rfc7208-tests.yml")
RFC_4408 = suite("rfc4408-tests.yml")


@pytest.fixture(scope="module")
def server() -> Iterator[NameServer]:
    with nameserver({}) as started:
        yield started


async def outcome(server: NameServer, case: Case) -> str:
    server.records, server.behaviour = case.world.records, case.world.behaviour
    # Where silence is not what is tested, a slow machine must not look like it.
    timeout = 0.4 if "temperror" in case.results else 5
    resolver = AresResolver([("127.0.0.1", server.port)], timeout=timeout, min_ttl=60, capacity=20)
    try:
        found = await check(
            resolver,
            ip=case.ip,
            helo=case.helo,
            reverse_path=case.sender or None,
            hostname="mx.ours.test",
            limits=Limits(),
        )
    finally:
        await resolver.close()
    return found[0].verdict


@needs("pyspf-tests")
def test_both_suites_are_here_and_whole() -> None:
    assert RFC_7208, f"scripts/test fetches {ARCHIVE.name} into .cache"
    assert (len(RFC_7208), len(RFC_4408)) == (203, 191)


@pytest.mark.parametrize("name", RFC_7208)
async def test_rfc_7208(name: str, server: NameServer, nobody_asks: None) -> None:
    case = RFC_7208[name]

    found = await outcome(server, case)

    assert found in case.results


@pytest.mark.parametrize("name", RFC_4408)
async def test_rfc_4408(name: str, server: NameServer, nobody_asks: None) -> None:
    case = RFC_4408[name]

    found = await outcome(server, case)

    # Of the results that it leaves open, RFC 7208 chose one: there are no others.
    assert found in case.results


@pytest.fixture
def nobody_asks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trap S2: pyspf's own look-up, with its search domains, is never reached."""
    asked: list[Any] = []
    monkeypatch.setattr(pyspf, "DNSLookup", lambda *question: asked.append(question) or [])
    yield
    assert not asked
