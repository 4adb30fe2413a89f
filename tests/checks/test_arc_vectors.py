"""The ARC validation suite of ValiMail, over a real DNS server on loopback."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from mailgw.checks import arc
from mailgw.dns import AresResolver
from nameserver import nameserver

BESIDE_THE_PROJECT = Path(__file__).parents[3] / "shared" / "vectors"
FOLDER = Path(os.environ.get("MAILGW_TEST_VECTORS", BESIDE_THE_PROJECT)) / "arc" / "valimail"
SUITE = FOLDER / "arc-draft-validation-tests.yml"
# The suite says nothing of chains that ended with a seal of cv=fail, since nobody adds to
# them; RFC 8617 5.2, step 2: their status is fail.
VERDICTS = {"None": "none", "Pass": "pass", "Fail": "fail", "": "fail"}

pytestmark = pytest.mark.skipif(
    not SUITE.exists(),
    reason="LEFT OUT: no ARC suite; MAILGW_TEST_VECTORS names the folder that holds arc/",
)


@dataclass(frozen=True)
class Case:
    message: bytes
    verdict: str


def scenarios() -> list[dict[str, dict[str, dict[str, str]]]]:
    return (
        [each for each in yaml.safe_load_all(SUITE.read_text()) if each] if SUITE.exists() else []
    )


SCENARIOS = scenarios()
CASES = {
    name: Case(test["message"].replace("\n", "\r\n").encode(), VERDICTS[str(test["cv"] or "")])
    for scenario in SCENARIOS
    for name, test in scenario["tests"].items()
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    records = {
        (name.lower(), "TXT"): [
            " ".join(f'"{text[at : at + 200]}"' for at in range(0, len(text), 200))
        ]
        for scenario in SCENARIOS
        for name, text in scenario["txt-records"].items()
    }
    with nameserver(records) as started:
        yield started.port


@pytest_asyncio.fixture
async def resolver(port: int) -> AsyncIterator[AresResolver]:
    made = AresResolver([("127.0.0.1", port)], timeout=10.0, min_ttl=0.0, capacity=100)
    yield made
    await made.close()


def test_the_suite_is_complete_and_its_keys_do_not_contradict() -> None:
    assert len(CASES) == 171
    merged: dict[str, str] = {}
    for scenario in SCENARIOS:
        for name, text in scenario["txt-records"].items():
            assert merged.setdefault(name, str(text)) == str(text)


@pytest.mark.parametrize("name", CASES)
async def test_a_chain_of_the_suite(resolver: AresResolver, name: str) -> None:
    found = await arc.check(resolver, CASES[name].message)

    assert found.finding.verdict == CASES[name].verdict, found.finding.reason
