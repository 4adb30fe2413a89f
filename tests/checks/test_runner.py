"""The checks together: side by side, within their time, and never in the way of a mail."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from doubles import FakeResolver
from mailgw.checks.runner import Independent, Result, Runner, runner_of
from mailgw.config.sections.checks import Check, CheckSettings
from mailgw.mail.finding import Finding
from mailgw.mail.peer import Peer
from mailgw.mail.spool import Spool
from mailgw.mail.transaction import Message, Recipient
from mailgw.smtp.address import Address

PEER = Peer("c1", "192.0.2.7", 40000, "192.0.2.1", 25, helo="client.test", esmtp=True)
BOB = Recipient(Address("bob", "ours.test"), local=True)
CONTENT = b"From: joe@there.test\r\n\r\nhello\r\n"
MAIL = Message(
    "1abc",
    PEER,
    Address("joe", "there.test"),
    (BOB,),
    Spool(0),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)
WORLD = {
    "TXT": {
        "there.test": ["v=spf1 ip4:192.0.2.7 -all"],
        "_dmarc.there.test": ["v=DMARC1; p=reject"],
    }
}


def gives(*findings: Finding) -> Independent:
    async def run(_: Message, __: bytes) -> Result:
        return Result(findings)

    return run


async def hangs(_: Message, __: bytes) -> Result:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def breaks(_: Message, __: bytes) -> Result:
    raise ZeroDivisionError("a bug of ours")


async def tells_what_it_knows(_: bytes, findings: Sequence[Finding]) -> Finding:
    known = ",".join(f"{each.check}={each.verdict}" for each in findings)
    return Finding("dmarc", "pass", reason=known)


def words(findings: Sequence[Finding]) -> list[str]:
    return [f"{each.check}={each.verdict}" for each in findings]


SPF, DKIM = Finding("spf", "pass"), Finding("dkim", "fail")
ARC, SPAM = Finding("arc", "none"), Finding("spam", "pass")


async def test_findings_come_in_one_order_whoever_is_first() -> None:
    runner = Runner(
        {"spam": gives(SPAM), "arc": gives(ARC), "dkim": gives(DKIM, DKIM), "spf": gives(SPF)},
        tells_what_it_knows,
    )

    evidence = await runner.run(MAIL, CONTENT)

    assert words(evidence.findings) == [
        "spf=pass",
        "dkim=fail",
        "dkim=fail",
        "dmarc=pass",
        "arc=none",
        "spam=pass",
    ]
    assert evidence.milliseconds > 0


async def test_dmarc_knows_what_spf_and_dkim_found_and_nothing_else() -> None:
    runner = Runner(
        {"spf": gives(SPF), "dkim": gives(DKIM), "arc": gives(ARC)}, tells_what_it_knows
    )

    evidence = await runner.run(MAIL, CONTENT)

    assert evidence.findings[2].reason == "spf=pass,dkim=fail"


async def test_what_has_no_answer_in_time_is_temperror_and_the_rest_counts() -> None:
    runner = Runner({"spf": gives(SPF), "spam": hangs}, patience=0.05)
    began = time.monotonic()

    evidence = await runner.run(MAIL, CONTENT)

    assert words(evidence.findings) == ["spf=pass", "spam=temperror"]
    assert evidence.findings[1].reason == "no answer in time"
    assert 0.05 <= time.monotonic() - began < 5


async def test_dmarc_is_told_in_time_that_one_of_both_is_not_known() -> None:
    runner = Runner({"spf": gives(SPF), "dkim": hangs}, tells_what_it_knows, patience=0.1)

    evidence = await runner.run(MAIL, CONTENT)

    assert words(evidence.findings) == ["spf=pass", "dkim=temperror", "dmarc=pass"]
    assert evidence.findings[2].reason == "spf=pass,dkim=temperror"


async def test_a_bug_of_a_check_costs_that_check_and_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runner = Runner({"spf": breaks, "dkim": gives(DKIM)}, tells_what_it_knows)

    evidence = await runner.run(MAIL, CONTENT)

    assert words(evidence.findings) == ["spf=temperror", "dkim=fail", "dmarc=pass"]
    assert evidence.findings[0].reason == "local error, reference c1"
    assert "ZeroDivisionError: a bug of ours" in caplog.text


async def test_nothing_goes_on_when_the_caller_gives_up() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def notices(_: Message, __: bytes) -> Result:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError("nobody sets it")

    running = asyncio.create_task(Runner({"spf": notices}).run(MAIL, CONTENT))
    await asyncio.wait_for(begun.wait(), 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (("spf",), ["spf=pass", "spf=none"]),
        (("dkim",), ["dkim=none"]),
        (("arc",), ["arc=none"]),
        (("dmarc",), ["spf=pass", "spf=none", "dkim=none", "dmarc=pass"]),
    ],
)
async def test_what_is_asked_for_is_run_and_what_it_needs(
    wanted: tuple[Check, ...], found: list[str]
) -> None:
    runner = runner_of(CheckSettings(check=wanted), FakeResolver(WORLD), "mx.ours.test")

    evidence = await runner.run(MAIL, CONTENT)

    assert words(evidence.findings) == found
    await runner.close()


async def test_what_nobody_answers_is_temperror_for_each() -> None:
    names = ["there.test", "client.test", "_dmarc.there.test", "_dmarc.test"]
    settings = CheckSettings(check=("spf", "dmarc"))

    evidence = await runner_of(settings, FakeResolver({}, fail=names), "mx.ours.test").run(
        MAIL, CONTENT
    )

    assert words(evidence.findings)[0] == "spf=temperror"
    assert words(evidence.findings)[-1] == "dmarc=temperror"


def test_who_checks_nothing_loads_none_of_the_libraries() -> None:
    code = "import mailgw.process.house, sys; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    heavy = {"spf", "dkim", "aiospamc", "aiodns", "dns", "publicsuffixlist", "defusedxml"}
    assert heavy.isdisjoint(done.stdout.split())
