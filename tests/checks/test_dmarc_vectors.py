"""The sixteen situations of vectors/dmarc, by RFC 9989: over a real DNS server, and without."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from doubles import Clock, FakeResolver
from mailgw.checks import dmarc
from mailgw.dns import AresResolver, Resolver
from mailgw.mail.finding import Finding
from nameserver import nameserver

Case: TypeAlias = Mapping[str, Any]

VECTORS = Path(__file__).parents[1] / "vectors" / "dmarc" / "vectors.json"
CASES: Sequence[Case] = json.loads(VECTORS.read_text("utf-8"))["cases"]
by_case = pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])


async def outcome(resolver: Resolver, case: Case) -> dict[str, str | None]:
    spf, dkim = case["spf_pass_domain"], case["dkim_pass_domain"]
    findings = [
        Finding("spf", "pass" if spf else "fail", domain=spf or "bounce.elsewhere.test"),
        Finding("dkim", "pass" if dkim else "none", domain=dkim or ""),
    ]
    content = f"From: {case['header_from']}\r\n\r\nbody\r\n".encode()

    found = await dmarc.check(resolver, content, findings)

    return {"result": found.verdict, "policy": found.policy or None}


def expected(case: Case) -> dict[str, str | None]:
    return {name: case["rfc9989"][name] for name in ("result", "policy")}


def test_there_are_all_sixteen() -> None:
    assert [case["id"] for case in CASES] == [f"D{number:02}" for number in range(1, 17)]


@by_case
async def test_the_vector_comes_out_as_rfc_9989_says(case: Case) -> None:
    texts = {name: records["TXT"] for name, records in case["zone"].items()}

    assert await outcome(FakeResolver({"TXT": texts}), case) == expected(case)


@by_case
async def test_the_vector_comes_out_the_same_over_the_wire(case: Case) -> None:
    # RFC 2181 5: a server has no two records that are the same, so each gets its own end.
    zone = {
        (name, "TXT"): [json.dumps(text + " " * place) for place, text in enumerate(records["TXT"])]
        for name, records in case["zone"].items()
    }
    with nameserver(zone) as server:
        resolver = AresResolver(
            [("127.0.0.1", server.port)], timeout=10, min_ttl=60, capacity=10, clock=Clock(0.0)
        )
        try:
            found = await outcome(resolver, case)
        finally:
            await resolver.close()

    assert found == expected(case)
