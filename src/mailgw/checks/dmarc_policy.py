"""DMARC decided: from what is published and who has authenticated to the result (RFC 9989 5.3).

Laws: pure; nothing here asks or waits. What could not be found out is None among the facts,
and only ever makes `temperror`, where it could have made a `pass`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from mailgw.checks.dmarc_record import POLICIES, Policy, Record
from mailgw.checks.organization import Found
from mailgw.mail.finding import Finding

Result: TypeAlias = Literal["none", "pass", "fail", "temperror", "permerror"]


class Identifier(NamedTuple):
    """A domain that was authenticated, or might have been: `certain` is false for a temperror."""

    check: Literal["spf", "dkim"]
    domain: str
    certain: bool


class Outcome(NamedTuple):
    """What DMARC says of one author domain.

    `policy` is what the record asks in this case, "" where that is not known or nothing is
    published. `record_domain` and `organization` are "" where they did not come up.
    """

    result: Result
    reason: str
    policy: Policy | Literal[""] = ""
    record_domain: str = ""
    organization: str = ""


def identifiers(findings: Iterable[Finding]) -> tuple[Identifier, ...]:
    """What has authenticated, each once: every signature, and the first identity of SPF.

    RFC 9989 4.4.2: SPF counts by MAIL FROM, which is the HELO name where the sender is null
    (RFC 7208 2.4); a second finding of SPF is of a HELO name that counts for nothing here.
    """
    found: dict[Identifier, None] = {}
    spf_seen = False
    for finding in findings:
        check = finding.check
        if check not in ("spf", "dkim") or (check == "spf" and spf_seen):
            continue
        spf_seen = spf_seen or check == "spf"
        domain = finding.domain.lower().rstrip(".")
        if domain and finding.verdict in ("pass", "temperror"):
            found[Identifier(check, domain, finding.verdict == "pass")] = None
    return tuple(found)


def undecided(author: str, record: Record, known: Sequence[Identifier]) -> list[Identifier]:
    """Those whose alignment takes more than comparing names: an organizational domain.

    None where one that passes has the author's own domain, which decides (RFC 9989 4.10.2).
    """
    if any(each.certain and each.domain == author for each in known):
        return []
    return [
        each
        for each in known
        if each.domain != author and not _strict(record, each) and _kin(author, each.domain)
    ]


def within(domain: str, organization: str) -> bool:
    """Whether a domain is the organization's, or below it."""
    return domain == organization or domain.endswith(f".{organization}")


def decide(
    author: str,
    published: Found,
    policy: Policy | Literal[""],
    known: Sequence[Identifier],
    organizations: Mapping[str, str | None],
) -> Outcome:
    """The result for one author domain that has a record (RFC 9989 5.3.4, 5.3.5).

    `policy` is "" where it could not be found out. `organizations` has the organizational
    domain of the author and of whom `undecided` named, as far as they were asked for;
    None where there was no answer.
    """
    own = organizations.get(author)
    outcome = Outcome("fail", "no aligned identifier passes", policy, published.domain, own or "")
    doubts: list[str] = []
    for each in known:
        aligned = _aligned(author, published.record, each, organizations)
        if aligned and each.certain:
            return outcome._replace(result="pass", reason=f"{each.check} passes and is aligned")
        if aligned is None:
            doubts.append("the organizational domain could not be found out")
        elif aligned:
            doubts.append(f"{each.check} could not be checked, and might have passed")
    if doubts:
        return outcome._replace(result="temperror", reason=doubts[0])
    if not policy:
        return outcome._replace(
            result="temperror", reason="whether the author domain exists could not be found out"
        )
    return outcome


def worst(outcomes: Sequence[Outcome]) -> int:
    """Which of several author domains decides: RFC 9989 11.5, the strictest of those that fail.

    A domain that could not be asked about comes before one that asks for nothing.
    """
    return max(range(len(outcomes)), key=lambda place: severity(outcomes[place]))


def severity(outcome: Outcome) -> int:
    """How much is to be feared of an author domain, for comparison."""
    match outcome.result, outcome.policy:
        case "fail", "reject":
            return MOST_SEVERE
        case "fail", "quarantine":
            return 5
        case "temperror", _:
            return 4
        case "fail", _:
            return 3
        case "permerror", _:
            return 2
        case "none", _:
            return 1
        case _:
            return 0


MOST_SEVERE = 6


def strictest(outcomes: Iterable[Outcome]) -> Policy | Literal[""]:
    """The strictest policy that any of them asks for, whatever the result."""
    asked = [outcome.policy for outcome in outcomes if outcome.policy]
    return max(asked, key=POLICIES.index, default="")


def _aligned(
    author: str, record: Record, each: Identifier, organizations: Mapping[str, str | None]
) -> bool | None:
    """RFC 9989 4.4: the same name, or, unless that is asked for, the same organization."""
    if each.domain == author:
        return True
    if _strict(record, each) or not _kin(author, each.domain):
        return False
    if author not in organizations:
        return False
    own = organizations[author]
    if own is None:
        return None
    if not within(each.domain, own):
        return False
    other = organizations.get(each.domain)
    return None if other is None else other == own


def _strict(record: Record, each: Identifier) -> bool:
    return record.strict_spf if each.check == "spf" else record.strict_dkim


def _kin(one: str, other: str) -> bool:
    """Whether two domains have so much as their last label in common."""
    return one.rpartition(".")[2] == other.rpartition(".")[2]
