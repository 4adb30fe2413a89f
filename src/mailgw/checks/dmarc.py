"""DMARC: does the message come from whom its From field names (RFC 9989)?

Laws: evidence only, never a refusal. A question that nobody answered makes `temperror`,
never a `none` or a `fail`. Nobody is asked about report addresses.

The RFC leaves to the receiver what to do with a message that has not exactly one author
domain (5.3.1, 11.5). Here nobody slips through by having more, or a broken one:

- `pass` is for a message with one From field and one author domain, however often. Others
  never pass, even where every domain would.
- With several author domains each is evaluated by itself, and the strictest policy of
  those that fail is the message's: a `reject` is found wherever it stands, and a slow or
  broken server of one domain does not hide another's.
- With more than is evaluated (author domains, addresses, octets) it is a `fail` with
  `reject`, for what is not read could hide anything, and no honest message is like that.
- `permerror` is what remains: several authors none of whose domains fails, or no author
  with a domain that could publish anything. So it never stands where a policy would apply.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Literal

from mailgw.checks.author import Author, Authors, read_authors
from mailgw.checks.dmarc_policy import (
    MOST_SEVERE,
    Identifier,
    Outcome,
    decide,
    identifiers,
    severity,
    strictest,
    undecided,
    within,
    worst,
)
from mailgw.checks.dmarc_record import Policy
from mailgw.checks.organization import Found, Tree
from mailgw.dns import Resolver, Unanswered
from mailgw.mail.finding import Finding, Member
from mailgw.mail.octets import Octets

# RFC 9989 11.5: a small number of author domains, each of which costs questions.
_MOST_DOMAINS = 5
_NOTHING_PUBLISHED = Outcome("none", "no policy is published")


async def check(resolver: Resolver, content: Octets, findings: Sequence[Finding]) -> Finding:
    """Evaluate a message by what SPF and DKIM found in it.

    The first finding of SPF is that of MAIL FROM, or of HELO where the sender is null.
    """
    began = time.perf_counter()
    authors = read_authors(content)
    domains = [domain for domain in authors.domains if domain]
    known = identifiers(findings)
    outcomes = await _outcomes(resolver, domains[:_MOST_DOMAINS], known)
    outcome, domain = _together(authors, domains, outcomes)
    return _finding(authors, outcome, domain, (time.perf_counter() - began) * 1000)


def _together(
    authors: Authors, domains: Sequence[str], outcomes: Sequence[Outcome]
) -> tuple[Outcome, str]:
    """The outcome of the message, and the author domain that it is of."""
    if not outcomes:
        if not authors.complete:
            return Outcome("fail", "the From field is too large to be read", "reject"), ""
        reason = "no author domain" if authors.fields else "no From field"
        return Outcome("permerror", reason), ""
    place = worst(outcomes)
    outcome, domain = outcomes[place], domains[place]
    if severity(outcome) == MOST_SEVERE:
        return outcome, domain
    if not authors.complete or len(domains) > _MOST_DOMAINS:
        return outcome._replace(
            result="fail", policy="reject", reason="more authors than are evaluated"
        ), domain
    alone = authors.fields == 1 and len(authors.domains) == 1 and authors.certain
    if not alone and outcome.result in ("pass", "none"):
        several = "several From fields" if authors.fields > 1 else "several author domains"
        reason = several if authors.certain else "the From field is malformed"
        policy = strictest(outcomes)
        return outcome._replace(result="permerror", policy=policy, reason=reason), domain
    return outcome, domain


async def _outcomes(
    resolver: Resolver, domains: Sequence[str], known: Sequence[Identifier]
) -> list[Outcome]:
    """The outcomes in the order of the domains.

    Returns at the first that nothing can be worse than; those that are still under way
    then count as none.
    """
    if len(domains) == 1:
        return [await _evaluate(Tree(resolver), domains[0], known)]
    running = [
        asyncio.ensure_future(_evaluate(Tree(resolver), domain, known)) for domain in domains
    ]
    try:
        for first in asyncio.as_completed(running):
            if severity(await first) == MOST_SEVERE:
                break
        return [
            each.result() if each.done() else Outcome("none", "not waited for") for each in running
        ]
    finally:
        for each in running:
            each.cancel()


async def _evaluate(tree: Tree, author: str, known: Sequence[Identifier]) -> Outcome:
    """DMARC for one author domain."""
    try:
        published = await _discover(tree, author)
    except Unanswered:
        return Outcome("temperror", "the policy could not be asked for")
    if published is None or not published.record.usable:
        # RFC 9989 4.10.1: a record that cannot be read is as good as none.
        return _NOTHING_PUBLISHED
    policy = await _policy(tree, author, published)
    organizations = await _organizations(tree, author, published, known)
    return decide(author, published, policy, known, organizations)


async def _discover(tree: Tree, author: str) -> Found | None:
    """The record that applies to an author domain (RFC 9989 4.10.1). Raises Unanswered."""
    own = await tree.look(author)
    if own.record is not None:
        return Found(author, own.record)
    if own.several:
        # Whoever publishes two has not said that those above speak for it.
        return None
    return (await tree.walk(author)).published


async def _policy(tree: Tree, author: str, published: Found) -> Policy | Literal[""]:
    """What the record asks for, "" where it takes an answer that did not come."""
    subdomain = published.domain != author
    there = published.record.asks(subdomain=subdomain, exists=True)
    absent = published.record.asks(subdomain=subdomain, exists=False)
    if there == absent:
        return there
    try:
        return there if await tree.exists(author) else absent
    except Unanswered:
        return ""


async def _organizations(
    tree: Tree, author: str, published: Found, known: Sequence[Identifier]
) -> dict[str, str | None]:
    """The organizational domains that alignment depends on, None where nobody answered."""
    found: dict[str, str | None] = {}
    candidates = undecided(author, published.record, known)
    if not candidates:
        return found
    own = found[author] = await _organization(tree, author)
    for each in candidates:
        # A domain that is not below the author's organization is not of it: nothing to ask.
        if own is not None and each.domain not in found and within(each.domain, own):
            found[each.domain] = await _organization(tree, each.domain)
    return found


async def _organization(tree: Tree, domain: str) -> str | None:
    try:
        return (await tree.walk(domain)).organization
    except Unanswered:
        return None


def _finding(authors: Authors, outcome: Outcome, domain: str, milliseconds: float) -> Finding:
    author = _author(authors, domain)
    members: list[tuple[str, Member]] = [("header.from", author.address)] if author else []
    if len(authors.found) > 1:
        members.append(("authors", tuple(each.address for each in authors.found)))
    for name, value in (
        ("policy", outcome.policy),
        ("record-domain", outcome.record_domain),
        ("organizational-domain", outcome.organization),
    ):
        if value:
            members.append((name, value))
    return Finding(
        "dmarc",
        outcome.result,
        properties=(("header.from", domain),) if domain else (),
        members=tuple(members),
        domain=domain,
        policy=outcome.policy,
        reason=outcome.reason,
        milliseconds=milliseconds,
    )


def _author(authors: Authors, domain: str) -> Author | None:
    """The address that the result is about; the first where it is about none."""
    of_domain = (each for each in authors.found if each.domain == domain)
    return next(of_domain, authors.found[0] if authors.found else None)
