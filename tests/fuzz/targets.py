"""What is fuzzed: one function each, from any octets to nothing, or to an AssertionError.

Whoever makes the octets (hypothesis in the suite, a coverage-guided fuzzer by hand) calls
these. Each holds the law of what it feeds: no exception but the module's own refusal, no
hang, and the same outcome however the octets are cut.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache

import authres
import msgspec

from doubles import FakeResolver
from gateway import content, schema
from mailgw.checks import arc, dkim
from mailgw.checks.author import read_authors, to_ascii
from mailgw.config.networks import NOWHERE
from mailgw.document.build import Builder
from mailgw.document.extract import LONGEST_NAME, MOST_VALUES, Policy, extract
from mailgw.document.schema import property_names
from mailgw.mail.authentication import results_field, without_ours
from mailgw.mail.finding import Finding
from mailgw.mail.headers import header_end, read_fields, remove
from mailgw.mail.identifiers import Identifiers
from mailgw.mail.peer import Peer
from mailgw.mail.spool import Spool
from mailgw.mail.trace import hops
from mailgw.mail.transaction import Message, Recipient
from mailgw.reports.read import read as read_report
from mailgw.smtp.address import Address
from mailgw.smtp.data import NewlinePolicy
from mailgw.smtp.extensions import Rules
from mailgw.wire.proxy import BadHeader, end_of_header, parse
from reports.mails import aggregate, attached, bounce, delivery_status, report
from signers import KEY_NAME, MAIL, chain, chain_world, ed25519_signer, signed
from smtp.house import HOST, House

PEER = Peer("c1", "192.0.2.1", 50000, "192.0.2.2", 25)
BOB = Recipient(Address("bob", "ours.test"))
_NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
_identifiers = Identifiers()
POLICIES: tuple[NewlinePolicy, ...] = ("refuse", "carry", "repair")


class Everybody:
    """A policy that honours each x-mq-* field."""

    who = "everybody"
    networks = NOWHERE


class Nobody(Everybody):
    """One that takes them all out, unread."""

    who = "authenticated"


def session(octets: bytes) -> None:
    """The first octet chooses the rules and the cut; the rest is what the client says."""
    choice, said = octets[:1] or b"\0", octets[1:]
    newlines = POLICIES[choice[0] % 3]
    rules = Rules(
        HOST, max_size=500, newlines=newlines, starttls=True, auth=True, dsn=choice[0] & 4 > 0
    )
    outcomes = []
    for step in (len(said) + 1, 1 + choice[0] // 8):
        house = House(rules, auth_in_clear=True)
        for start in range(0, len(said), step):
            house.hear(said[start : start + step])
            _bounded(house)
        outcomes.append((house.said, house.taken, house.events))
    assert outcomes[0] == outcomes[1], "a cut made a difference"
    for taken in outcomes[0][1]:
        assert len(taken.content) <= 500
        left = taken.content.replace(b"\r\n", b"")
        assert newlines == "carry" or (b"\r" not in left and b"\n" not in left)


def _bounded(house: House) -> None:
    inbound = house.session._inbound
    assert len(inbound.buffer) - inbound.position <= 12_288, "what nobody reads is kept"


def proxy(octets: bytes) -> None:
    """A PROXY header is refused or whole, and never longer than what came."""
    try:
        end = end_of_header(octets)
        if end is None:
            assert len(octets) < 4096
            return
        client = parse(octets[:end]).client
    except BadHeader:
        return
    assert 0 < end <= len(octets)
    if client is not None:
        assert 0 <= client.remote_port <= 65535
        assert 0 <= client.local_port <= 65535
    # Nothing behind the header has a say in it, and nothing of it is needless.
    assert end_of_header(octets[:end] + b"EHLO x\r\n") == end
    assert end_of_header(octets[: end - 1]) is None


def headers(octets: bytes) -> None:
    """The fields tile the header block, and taking some out leaves the others alone."""
    end = header_end(octets)
    fields = list(read_fields(octets))
    assert b"".join(each.raw for each in fields) == octets[:end]
    assert [each.start for each in fields[1:]] == [each.end for each in fields[:-1]]
    for each in fields:
        assert each.name == each.name.lower()
        assert each.value == each.value.strip(b" \t\r\n")
        assert isinstance(each.text, str)
    some = fields[::2]
    left = remove(octets, some)
    assert len(left) == len(octets) - sum(len(each.raw) for each in some)
    assert 0 <= hops(octets) <= octets.lower().count(b"received")


def extraction(octets: bytes) -> None:
    """x-mq-* fields bring what the document allows, and nothing else goes out with them."""
    policies: tuple[Policy, ...] = (Everybody(), Nobody())
    heard, unheard = (extract(octets, PEER, policy) for policy in policies)
    assert heard.content == unheard.content
    kept = [each for each in read_fields(octets) if not each.name.startswith("x-mq-")]
    body = octets[header_end(octets) :]
    assert heard.content == b"".join(each.raw for each in kept) + body
    assert unheard.custom == {}
    assert unheard.envelope is None
    assert len(heard.custom) <= MOST_VALUES
    assert not property_names() & heard.custom.keys()
    assert all(len(name) <= LONGEST_NAME for name in heard.custom)


def document(octets: bytes) -> None:
    """Whatever a message holds, its document is JSON that gives it back."""
    spool = Spool(1 << 20)
    spool.write(octets)
    message = Message(_identifiers.next(), PEER, Address("joe", "there.test"), (BOB,), spool, _NOW)
    try:
        [built] = Builder("mx.ours.test", Everybody()).build(message)
    finally:
        spool.close()
    read = json.loads(built.body.decode("utf-8"))
    schema().validate(read)
    assert content(read) == extract(octets, PEER, Everybody()).content
    assert b"\n" not in built.body


def reports(octets: bytes) -> None:
    """A report is read, in a bounded form that can be written down, or it is none."""
    found = asyncio.run(read_report(octets, ""))
    if found is None:
        return
    written = msgspec.json.encode(found)
    assert msgspec.json.decode(written, type=type(found)) == found
    told = json.loads(written)
    assert re.fullmatch("[ -~]*", told.get("error", ""))
    # Nothing is made up: what is told is in the message, or a word of ours beside it.
    assert len(written) < 8 * len(octets) + 4096


def results(octets: bytes) -> None:
    """What strangers wrote stays in its place in our field; a field like ours is no other's."""
    values = [each.decode("latin-1") for each in octets.split(b";")]
    names = ("header.d", "header.s", "header.i", "smtp.mailfrom", "policy.x")
    for utf8 in (False, True):
        findings = [
            Finding("dkim", "fail", ((names[number % 5], value),), reason=value)
            for number, value in enumerate(values[:20])
        ]
        field = results_field(HOST, findings, smtputf8=utf8)
        assert all(line[:1] in b"\tA" for line in field.splitlines())
        assert max(map(len, field.split(b"\r\n"))) <= 998
        text = field.decode("utf-8" if utf8 else "ascii")
        assert re.sub(r"\r\n|\t", "", text).isprintable()
        _nothing_but(field, len(findings))
        # And whoever reads it again knows it for ours, whatever stands behind it.
        behind = b"Subject: x\r\n\r\n" + octets
        assert without_ours(field + behind, HOST) == behind
    left = without_ours(octets, HOST)
    assert without_ours(left, HOST) == left
    removed = [each.raw for each in read_fields(octets) if each.name == "authentication-results"]
    kept = [each.raw for each in read_fields(left) if each.name == "authentication-results"]
    assert len(left) == len(octets) - sum(map(len, removed)) + sum(map(len, kept))


def _nothing_but(field: bytes, fails: int) -> None:
    """One field, in which somebody else's parser finds so many failures and nothing else."""
    [only] = read_fields(field)
    assert only.raw == field
    # It knows nothing of UTF-8, which stands in quotes.
    text = only.text.encode("ascii", "replace").decode().replace("\t", " ")
    read = authres.AuthenticationResultsHeader.parse(f"Authentication-Results: {text}")
    assert read.authserv_id == HOST
    assert [(each.method, each.result) for each in read.results] == [("dkim", "fail")] * fails


def signatures(octets: bytes) -> None:
    """Every signature has a verdict; the one that passes is one that was made."""
    _keys().asked.clear()
    verdicts = asyncio.run(dkim.check(_keys(), octets))
    assert 1 <= len(verdicts) <= dkim.MOST_TRIED + 1
    for each in verdicts:
        assert re.fullmatch("[ -~]*", each.reason)
        if each.verdict == "pass":
            assert each.domain == "sender.test"
            _is_signed(octets)
    chained = asyncio.run(arc.check(_keys(), octets))
    assert chained.finding.verdict in ("none", "pass", "fail", "permerror")
    assert len(chained.seals) <= arc.MOST_SETS
    assert re.fullmatch("[ -~]*", chained.finding.reason)
    for seal in chained.seals:
        assert all(re.fullmatch(r"[\w-]+", word) for pair in seal.results for word in pair)
    if chained.finding.verdict == "pass":
        _is_signed(octets)


def _is_signed(octets: bytes) -> None:
    """The author and the body are those that were signed, but for what folds and blanks are."""
    body = octets[header_end(octets) :]
    assert b"".join(body.split()) == b"".join(MAIL[header_end(MAIL) :].split())
    froms = [each.value for each in read_fields(octets) if each.name == "from"]
    assert [b" ".join(each.split()) for each in froms] == [b"Anna <anna@sender.test>"]


@cache
def _keys() -> FakeResolver:
    keys = chain_world(2) | {KEY_NAME: [ed25519_signer().record, *chain_world(1)[KEY_NAME]]}
    return FakeResolver({"TXT": keys})


def authors(octets: bytes) -> None:
    """Authors are found in the header alone, and the domain of each is one for the DNS."""
    found = read_authors(octets)
    assert len(found.found) <= 50
    assert found.fields <= 10
    assert len(set(found.found)) == len(found.found)
    for each in found.found:
        assert each.domain == to_ascii(each.domain)
        assert re.fullmatch(r"[\x21-\x7e]{0,253}", each.domain)
        assert len(each.address) <= 2 * 256
    header = octets[: header_end(octets)]
    if not header.endswith(b"\r\n"):
        return
    assert read_authors(header + b"\r\nFrom: eve@other.test\r\n").found == found.found
    # A further field is one author more, whatever stands above it.
    if found.complete and found.certain and found.fields < 9:
        more = read_authors(header + b"From: eve@other.test\r\n\r\n")
        assert {*found.found, *more.found} == {*more.found}
        assert "other.test" in more.domains


TARGETS: dict[str, Callable[[bytes], None]] = {
    "session": session,
    "proxy": proxy,
    "headers": headers,
    "extraction": extraction,
    "document": document,
    "reports": reports,
    "results": results,
    "signatures": signatures,
    "authors": authors,
}


def seeds(name: str) -> Iterator[bytes]:
    """Octets to begin with: sentences of the language that the target reads."""
    match name:
        case "session":
            for choice in (0, 1, 2, 7, 255):
                yield bytes([choice]) + _SESSION
        case "proxy":
            yield b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n"
            yield bytes.fromhex("0d0a0d0a000d0a515549540a2111000cc0000207c63364019c400019")
        case "reports":
            yield report("delivery-status", ("message/delivery-status", delivery_status(2)))
            yield report("feedback-report", ("message/feedback-report", b"Feedback-Type: abuse"))
            yield attached(aggregate())
            yield attached(gzip.compress(aggregate()))
            yield report("tlsrpt", ("application/tlsrpt+json", b'{"policies": [{}]}'))
            yield bounce("<ann@example.org>: 550 5.1.1 user unknown\n")
        case "results":
            yield b'a.test; x y; (;);"; \\;\r\n dkim=pass;joe@a.test'
            yield b"Authentication-Results: " + HOST.encode() + b"; dkim=pass\r\n\r\nx"
            yield b"Authentication-Results: (x) other.test 1; dkim=pass\r\nX: y\r\n\r\nx"
        case "signatures":
            yield signed(signer=ed25519_signer())
            yield chain(MAIL, 2)
        case "authors":
            yield b'From: "x" <a@b.test>, c@d.test (e)\r\nFrom : f@g.test\r\n\r\nx\r\n'
            yield b"From: =?utf-8?q?a=40b.test?=\r\n\r\n"
        case _:
            yield b"Received: x\r\nX-MQ-Tag: one\r\n two\r\nSubject: x\r\n\r\nbody\r\n"
            yield b"x-mq-ip: 192.0.2.1\r\nx-mq-envelope: <a@b.test>\r\nno field\r\n\r\nx"


_SESSION = (
    b"EHLO a.test\r\nAUTH PLAIN AHVzZXIAcGFzcw==\r\nMAIL FROM:<joe@there.test> SIZE=5\r\n"
    b"RCPT TO:<bob@ours.test>\r\nDATA\r\n.dot\r\n\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<b@c.d>\r\n"
    b"BDAT 5\r\nhelloBDAT 0 LAST\r\nSTARTTLS\r\n"
)
