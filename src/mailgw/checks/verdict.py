"""What follows from the evidence, by the settings: accept, quarantine, defer or refuse.

Pure. Laws: without a setting that says so, nothing follows. A client that is
authenticated is one of our own: its mail comes from where no SPF record knows it and is
not signed yet, so it is neither refused nor deferred, and quarantined for spam alone.
What is known to be bad is refused for good, even where something else is not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mailgw.checks.evidence import Evidence
from mailgw.config.sections.checks import CheckSettings
from mailgw.mail.decision import Step
from mailgw.mail.finding import Finding
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply

Action: TypeAlias = Literal["accept", "quarantine", "defer", "refuse"]


_LONGEST_SUBJECT = 320


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is to be done, the reply where that is a refusal, and the steps that led there."""

    action: Action
    steps: tuple[Step, ...]
    reply: Reply | None = None

    @property
    def rule(self) -> str:
        """The key that decided."""
        return self.steps[-1].key if self.steps else ""

    @property
    def value(self) -> str:
        """What of its value decided."""
        return self.steps[-1].value if self.steps else ""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One thing that follows, because `key` holds `word`."""

    action: Action
    key: str
    word: str
    reason: str = ""
    reply: Reply | None = None


def judge(evidence: Evidence, settings: CheckSettings, *, authenticated: bool) -> Judgement:
    """Weigh the evidence. The steps are one for each finding and one for the verdict."""
    rescuer = _rescuer(evidence, settings)
    outcome = next(
        _outcomes(evidence.findings, settings, own=authenticated, rescued=bool(rescuer)), None
    )
    if outcome is None:
        outcome = _accepted(settings, rescuer, own=authenticated)
    steps = [_step(finding, settings, rescuer) for finding in evidence.findings]
    steps.append(
        Step(
            "verdict",
            outcome.action,
            outcome.key,
            outcome.word,
            evidence.milliseconds,
            outcome.reason,
        )
    )
    return Judgement(outcome.action, tuple(steps), outcome.reply)


def _outcomes(
    findings: Sequence[Finding], settings: CheckSettings, *, own: bool, rescued: bool
) -> Iterator[_Outcome]:
    """What follows, the gravest first."""
    asked = "" if rescued else _dmarc_asks(findings)
    score = _score(findings)
    if not own:
        yield from _refusals(findings, settings, asked, score)
        yield from _deferrals(findings, settings)
    if "dmarc" in settings.quarantine and asked in ("quarantine", "reject") and not own:
        yield _Outcome("quarantine", "smtp-quarantine", "dmarc", f"the domain asks for {asked}")
    if "spam" in settings.quarantine and any(_is(each, "spam", "fail") for each in findings):
        yield _Outcome("quarantine", "smtp-quarantine", "spam", f"the score is {score:g}")


def _refusals(
    findings: Sequence[Finding], settings: CheckSettings, asked: str, score: float
) -> Iterator[_Outcome]:
    if "dmarc" in settings.reject and asked == "reject":
        yield _Outcome(
            "refuse", "smtp-reject", "dmarc", "the domain asks for reject", reply.DMARC_FAILED
        )
    # The first identity is MAIL FROM, or HELO for the null sender (RFC 7208 2.4).
    spf = next((each for each in findings if each.check == "spf"), None)
    if "spf" in settings.reject and spf is not None and spf.verdict == "fail":
        yield _Outcome("refuse", "smtp-reject", "spf", "", reply.SPF_FAILED)
    least = settings.spam_reject_score
    if "spam" in settings.reject and least is not None and score >= least:
        yield _Outcome(
            "refuse",
            "smtp-reject",
            "spam",
            f"the score is {score:g}, and spam-reject-score {least:g}",
            reply.IS_SPAM,
        )


def _deferrals(findings: Sequence[Finding], settings: CheckSettings) -> Iterator[_Outcome]:
    if "temperror" not in settings.defer:
        return
    for each in _in_want(findings):
        if each.verdict == "temperror":
            answer = _DEFERRED.get(each.check, reply.UNCHECKED)
            reason = f"{each.check}: {each.reason}" if each.reason else each.check
            yield _Outcome("defer", "smtp-defer", "temperror", reason, answer)


def _in_want(findings: Sequence[Finding]) -> Iterator[Finding]:
    """The findings whose temperror leaves something open that matters.

    A name server that is broken for good would keep mail out for good otherwise: where
    DMARC passes, SPF, DKIM and ARC have told enough; where a signature passes, another one
    adds nothing; and the HELO name counts only where there is no sender.
    """
    authentic = any(_is(each, "dmarc", "pass") for each in findings)
    signed = any(_is(each, "dkim", "pass") for each in findings)
    spf_seen = False
    for each in findings:
        enough = authentic if each.check != "spam" else False
        if each.check == "dkim":
            enough = enough or signed
        elif each.check == "spf":
            enough, spf_seen = enough or spf_seen, True
        if not enough:
            yield each


_DEFERRED = {
    "spf": reply.SPF_UNKNOWN,
    "dkim": reply.DNS_UNKNOWN,
    "dmarc": reply.DNS_UNKNOWN,
    "arc": reply.DNS_UNKNOWN,
}


def _accepted(settings: CheckSettings, rescuer: str, *, own: bool) -> _Outcome:
    if rescuer:
        return _Outcome("accept", "arc-trusted", rescuer, "a DMARC failure was rescued")
    reason = "the client is authenticated" if own else ""
    return _Outcome("accept", "smtp-reject", ",".join(settings.reject), reason)


def _step(finding: Finding, settings: CheckSettings, rescuer: str) -> Step:
    words = [_subject(finding), finding.reason]
    if finding.check == "dmarc" and rescuer:
        words.append(f"rescued by arc-trusted: {rescuer}")
    return Step(
        finding.check,
        finding.verdict,
        "smtp-check",
        ",".join(settings.check),
        finding.milliseconds,
        "; ".join(filter(None, words)),
    )


def _subject(finding: Finding) -> str:
    """What the finding is about, as one printable text: the first of its properties."""
    if not finding.properties:
        return ""
    text = "=".join(finding.properties[0])[:_LONGEST_SUBJECT]
    return "".join(c if c.isprintable() else "?" for c in text)


def _dmarc_asks(findings: Sequence[Finding]) -> str:
    """What the domain wants done with this message: none, quarantine, reject, "" for nothing."""
    return next((each.policy for each in findings if _is(each, "dmarc", "fail")), "")


def _score(findings: Sequence[Finding]) -> float:
    return next((each.score for each in findings if each.score is not None), float("-inf"))


def _is(finding: Finding, check: str, verdict: str) -> bool:
    return finding.check == check and finding.verdict == verdict


def _rescuer(evidence: Evidence, settings: CheckSettings) -> str:
    """The sealer that is believed when it says that DMARC passed before it, "" for none.

    RFC 8617 7.2.1: a seal is worth what its sealer is. From the newest inwards as long as
    they are trusted: behind one that is not, what older seals say may be its own invention.
    """
    failed = any(_is(each, "dmarc", "fail") for each in evidence.findings)
    if not failed or evidence.chain_verdict != "pass":
        return ""
    for seal in sorted(evidence.seals, key=lambda each: each.instance, reverse=True):
        if seal.domain not in settings.arc_trusted:
            return ""
        results = [result for method, result in seal.results if method == "dmarc"]
        if results and all(result == "pass" for result in results):
            return seal.domain
    return ""
