"""What follows from the evidence: nothing by itself, and what the settings say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailgw.checks.arc import Seal
from mailgw.checks.evidence import Evidence
from mailgw.checks.verdict import judge
from mailgw.config.sections.checks import CheckSettings
from mailgw.mail.decision import Step
from mailgw.mail.finding import Finding
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply

SPF_FAIL = Finding("spf", "fail", (("smtp.mailfrom", "a@b.test"),))
HELO_FAIL = Finding("spf", "fail", (("smtp.helo", "b.test"),))
SPF_PASS = Finding("spf", "pass", (("smtp.mailfrom", "a@b.test"),), milliseconds=1.5)
REJECTING = Finding("dmarc", "fail", policy="reject")
QUARANTINING = Finding("dmarc", "fail", policy="quarantine")
WATCHING = Finding("dmarc", "fail", policy="none")
SPAM = Finding("spam", "fail", score=9.5)
HAM = Finding("spam", "pass", score=1.0)
ARC_PASS = Finding("arc", "pass")
UNKNOWN = {
    check: Finding(check, "temperror", reason="no answer in time")
    for check in ("spf", "dkim", "dmarc", "arc", "spam")
}

REJECT = CheckSettings(
    check=("spf", "dkim", "dmarc", "arc", "spam"),
    reject=("dmarc", "spf", "spam"),
    spam_reject_score=9.5,
)
QUARANTINE = replace(REJECT, reject=(), quarantine=("dmarc", "spam"))
DEFER = replace(REJECT, reject=(), defer=("temperror",))
ALL = replace(REJECT, quarantine=("dmarc", "spam"), defer=("temperror",))
TRUSTING = replace(ALL, arc_trusted=("list.test", "relay.test"))


def verdict(
    settings: CheckSettings, *findings: Finding, own: bool = False, seals: tuple[Seal, ...] = ()
) -> tuple[str, Reply | None]:
    judgement = judge(Evidence(findings, seals), settings, authenticated=own)
    return judgement.action, judgement.reply


@pytest.mark.parametrize("finding", [SPF_FAIL, REJECTING, SPAM, *UNKNOWN.values()])
def test_without_a_setting_nothing_follows(finding: Finding) -> None:
    settings = CheckSettings(check=("spf", "dkim", "dmarc", "arc", "spam"))

    assert verdict(settings, finding) == ("accept", None)


@pytest.mark.parametrize(
    ("findings", "answer"),
    [
        ([SPF_FAIL], reply.SPF_FAILED),
        ([HELO_FAIL], reply.SPF_FAILED),
        ([REJECTING], reply.DMARC_FAILED),
        ([SPAM], reply.IS_SPAM),
        ([UNKNOWN["dkim"], SPF_FAIL], reply.SPF_FAILED),
        ([SPF_FAIL, REJECTING, SPAM], reply.DMARC_FAILED),
    ],
)
def test_what_is_to_be_refused_is(findings: list[Finding], answer: Reply) -> None:
    assert verdict(ALL, *findings) == ("refuse", answer)


@pytest.mark.parametrize(
    "findings",
    [
        [SPF_PASS, HELO_FAIL],
        [replace(SPF_FAIL, verdict="softfail")],
        [replace(SPF_FAIL, verdict="permerror")],
        [QUARANTINING],
        [WATCHING],
        [replace(REJECTING, verdict="temperror")],
        [replace(SPAM, score=9.4)],
        [HAM],
        list(UNKNOWN.values()),
    ],
)
def test_what_is_less_is_not_refused(findings: list[Finding]) -> None:
    assert verdict(REJECT, *findings) == ("accept", None)


def test_each_check_refuses_only_where_it_is_named() -> None:
    findings = (SPF_FAIL, REJECTING, SPAM)

    for word, answer in (
        ("spf", reply.SPF_FAILED),
        ("dmarc", reply.DMARC_FAILED),
        ("spam", reply.IS_SPAM),
    ):
        settings = replace(REJECT, reject=(word,))
        assert verdict(settings, *findings) == ("refuse", answer)


@pytest.mark.parametrize(
    ("finding", "action"),
    [
        (QUARANTINING, "quarantine"),
        (REJECTING, "quarantine"),
        (WATCHING, "accept"),
        (SPAM, "quarantine"),
        (HAM, "accept"),
        (SPF_FAIL, "accept"),
    ],
)
def test_what_goes_to_quarantine(finding: Finding, action: str) -> None:
    assert verdict(QUARANTINE, finding) == (action, None)


@pytest.mark.parametrize(
    ("check", "wire"),
    [
        ("spf", b"451 4.7.24 "),
        ("dkim", b"451 4.4.3 "),
        ("dmarc", b"451 4.4.3 "),
        ("arc", b"451 4.4.3 "),
        ("spam", b"451 4.3.0 "),
    ],
)
def test_what_is_not_known_is_put_off(check: str, wire: bytes) -> None:
    action, answer = verdict(DEFER, UNKNOWN[check])

    assert action == "defer"
    assert answer is not None
    assert answer.wire.startswith(wire)


@pytest.mark.parametrize(
    ("findings", "action"),
    [
        ([SPF_PASS, UNKNOWN["spf"]], "accept"),
        ([UNKNOWN["spf"], HELO_FAIL], "defer"),
        ([Finding("dkim", "pass"), UNKNOWN["dkim"]], "accept"),
        ([Finding("dkim", "fail"), UNKNOWN["dkim"]], "defer"),
        ([SPF_PASS, UNKNOWN["dkim"], Finding("dmarc", "pass"), UNKNOWN["arc"]], "accept"),
        ([Finding("dmarc", "pass"), UNKNOWN["spam"]], "defer"),
    ],
)
def test_mail_is_put_off_only_for_what_is_still_wanted(
    findings: list[Finding], action: str
) -> None:
    assert verdict(DEFER, *findings)[0] == action


def test_what_may_get_better_does_not_go_to_quarantine_yet() -> None:
    assert verdict(ALL, UNKNOWN["spf"], QUARANTINING)[0] == "defer"


@pytest.mark.parametrize(
    ("findings", "action"),
    [
        ([SPF_FAIL, REJECTING, UNKNOWN["spam"]], "accept"),
        ([QUARANTINING], "accept"),
        ([SPAM], "quarantine"),
    ],
)
def test_who_is_authenticated_is_our_own(findings: list[Finding], action: str) -> None:
    assert verdict(ALL, *findings, own=True) == (action, None)


@pytest.mark.parametrize(
    ("seals", "rescuer"),
    [
        ([Seal(1, "list.test", (("dmarc", "pass"),))], "list.test"),
        (
            [
                Seal(1, "list.test", (("dmarc", "pass"),)),
                Seal(2, "relay.test", (("dmarc", "fail"),)),
            ],
            "list.test",
        ),
        (
            [
                Seal(1, "list.test", (("dmarc", "pass"),)),
                Seal(2, "stranger.test", (("dmarc", "pass"),)),
            ],
            "",
        ),
        ([Seal(1, "stranger.test", (("dmarc", "pass"),))], ""),
        ([Seal(1, "sub.list.test", (("dmarc", "pass"),))], ""),
        ([Seal(1, "list.test", (("dmarc", "fail"),))], ""),
        ([Seal(1, "list.test", (("dmarc", "pass"), ("dmarc", "fail")))], ""),
        ([Seal(1, "list.test", (("spf", "pass"),))], ""),
        ([], ""),
    ],
)
def test_a_trusted_sealer_rescues_what_failed_dmarc(seals: list[Seal], rescuer: str) -> None:
    evidence = Evidence((REJECTING, ARC_PASS), tuple(seals))

    judgement = judge(evidence, TRUSTING, authenticated=False)

    assert judgement.action == ("accept" if rescuer else "refuse")
    dmarc, _, last = judgement.steps
    assert dmarc.verdict == "fail"
    if rescuer:
        assert dmarc.reason == f"rescued by arc-trusted: {rescuer}"
        assert (last.key, last.value) == ("arc-trusted", rescuer)


@pytest.mark.parametrize("chain", ["fail", "none", "temperror", "permerror"])
def test_a_chain_that_does_not_pass_rescues_nobody(chain: str) -> None:
    seals = (Seal(1, "list.test", (("dmarc", "pass"),)),)
    arc = replace(ARC_PASS, verdict=chain)

    judgement = judge(
        Evidence((REJECTING, arc), seals), replace(TRUSTING, defer=()), authenticated=False
    )

    assert judgement.action == "refuse"


def test_a_rescue_is_from_dmarc_alone() -> None:
    seals = (Seal(1, "list.test", (("dmarc", "pass"),)),)

    assert verdict(TRUSTING, SPF_FAIL, REJECTING, ARC_PASS, seals=seals)[0] == "refuse"
    assert verdict(TRUSTING, QUARANTINING, ARC_PASS, seals=seals)[0] == "accept"


def test_every_step_names_its_key_and_its_value() -> None:
    evidence = Evidence((SPF_PASS, REJECTING), milliseconds=7.0)
    settings = CheckSettings(check=("spf", "dmarc"), reject=("dmarc",))

    judgement = judge(evidence, settings, authenticated=False)

    assert judgement.steps == (
        Step("spf", "pass", "smtp-check", "spf,dmarc", 1.5, "smtp.mailfrom=a@b.test"),
        Step("dmarc", "fail", "smtp-check", "spf,dmarc"),
        Step("verdict", "refuse", "smtp-reject", "dmarc", 7.0, "the domain asks for reject"),
    )
    assert (judgement.rule, judgement.value) == ("smtp-reject", "dmarc")
