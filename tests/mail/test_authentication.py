"""Authentication-Results (RFC 8601): what we write is read back, what claims to be ours goes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, get_args

import authres
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailgw.mail.authentication import results_field, without_ours
from mailgw.mail.finding import Check, Finding, Verdict
from mailgw.mail.headers import read_fields

OURS = "mx.ours.test"
BODY = b"\r\nhello\r\n"


class Result(NamedTuple):
    """One result as a consumer reads it."""

    method: str
    verdict: str
    reason: str
    properties: tuple[tuple[str, str], ...]


# --- a reader of the grammar in RFC 8601 2.2, which takes nothing that is not in it --------

_TOKEN = r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+"
_QUOTED = r'"(?:[^"\\\x00-\x1f\x7f]|\\[ -\x7e])*"'
_KEYWORD = r"[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*"
_PVALUE = rf"{_QUOTED}|(?:{_TOKEN})?@{_DOMAIN}|{_TOKEN}"
_RESULT = re.compile(
    rf"\s*({_KEYWORD})\s*=\s*({_KEYWORD})(?:\s+reason\s*=\s*({_TOKEN}|{_QUOTED}))?"
    rf"((?:\s+{_KEYWORD}\.{_KEYWORD}=(?:{_PVALUE}))*)\s*"
)
_PROPERTY = re.compile(rf"\s+({_KEYWORD}\.{_KEYWORD})=({_PVALUE})")


def read_back(field: bytes) -> tuple[str, list[Result]]:
    """The authserv-id and the results of exactly one field."""
    assert len(list(read_fields(field + BODY))) == 1
    lines = field.decode("utf-8").split("\r\n")
    assert lines[-1] == ""
    assert all(line and not re.search(r"[\x00-\x08\x0a-\x1f\x7f]", line) for line in lines[:-1])
    assert all(line[0] == "\t" for line in lines[1:-1])
    assert all(len(line.encode()) <= 998 for line in lines)
    name, _, value = "".join(lines).partition(":")
    assert name == "Authentication-Results"
    head = re.match(rf"\s*({_TOKEN})\s*", value)
    assert head is not None
    rest = value[head.end() :]
    if re.fullmatch(r";\s*none\s*", rest):
        return head[1], []
    return head[1], list(_results(rest))


def _results(rest: str) -> Iterator[Result]:
    while rest:
        assert rest[0] == ";", rest
        found = _RESULT.match(rest, 1)
        assert found is not None, rest
        properties = tuple((name, _unquoted(text)) for name, text in _PROPERTY.findall(found[4]))
        yield Result(found[1], found[2], _unquoted(found[3] or '""'), properties)
        rest = rest[found.end() :]


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    return re.sub(r"\\(.)", r"\1", text[1:-1])


# --- writing ----------------------------------------------------------------------


def test_the_field_says_what_was_found_in_the_usual_words() -> None:
    findings = [
        Finding("spf", "pass", (("smtp.mailfrom", "alice@sender.test"),)),
        Finding("spf", "none", (("smtp.helo", "[192.0.2.1]"),), reason="no domain"),
        Finding("dkim", "pass", (("header.d", "sender.test"), ("header.b", "dmVy/2Zp"))),
        Finding("dmarc", "pass", (("header.from", "sender.test"),)),
        Finding("spam", "fail", (("policy.score", "7.5"), ("policy.required-score", "5.0"))),
    ]

    assert results_field(OURS, findings).decode() == (
        "Authentication-Results: mx.ours.test;\r\n"
        "\tspf=pass smtp.mailfrom=alice@sender.test;\r\n"
        '\tspf=none reason="no domain" smtp.helo="[192.0.2.1]";\r\n'
        '\tdkim=pass header.d=sender.test header.b="dmVy/2Zp";\r\n'
        "\tdmarc=pass header.from=sender.test;\r\n"
        "\tx-spam=fail policy.score=7.5 policy.required-score=5.0\r\n"
    )


def test_where_nothing_was_checked_it_says_none() -> None:
    assert results_field(OURS, []) == b"Authentication-Results: mx.ours.test; none\r\n"


def test_somebody_elses_reader_understands_it() -> None:
    findings = [
        Finding("spf", "softfail", (("smtp.mailfrom", "alice@sender.test"),)),
        Finding("dkim", "fail", (("header.d", "sender.test"),), reason="body hash"),
        Finding("dmarc", "fail", (("header.from", "sender.test"),)),
    ]

    field = results_field(OURS, findings).decode().replace("\r\n", "").replace("\t", " ")
    read = authres.AuthenticationResultsHeader.parse(field)

    assert read.authserv_id == OURS
    assert [(each.method, each.result) for each in read.results] == [
        ("spf", "softfail"),
        ("dkim", "fail"),
        ("dmarc", "fail"),
    ]
    assert read.results[0].smtp_mailfrom == "alice@sender.test"


def test_a_long_result_is_folded_between_its_words() -> None:
    host = "a-rather-long-name-of-a-host.with.many.labels.example.org"
    findings = [Finding("spf", "pass", (("smtp.mailfrom", f"alice@{host}"), ("smtp.helo", host)))]

    lines = results_field(OURS, findings).decode().split("\r\n")

    assert lines[1:-1] == [
        "\tspf=pass",
        f"\t\tsmtp.mailfrom=alice@{host}",
        f"\t\tsmtp.helo={host}",
    ]


@pytest.mark.parametrize(
    ("address", "smtputf8", "written"),
    [
        ("jörg@köln.test", True, '"jörg@köln.test"'),
        ("joerg@köln.test", False, "joerg@xn--kln-sna.test"),
        ("jörg@köln.test", False, '"j?rg@xn--kln-sna.test"'),
    ],
)
def test_only_a_message_of_smtputf8_has_utf8_in_it(
    address: str, smtputf8: bool, written: str
) -> None:
    finding = Finding("spf", "pass", (("smtp.mailfrom", address),))

    field = results_field(OURS, [finding], smtputf8=smtputf8)

    assert f"smtp.mailfrom={written}" in field.decode("utf-8")


@pytest.mark.parametrize("smtputf8", [True, False])
@pytest.mark.parametrize(
    "said",
    [
        "a\r\nX-Forged: yes",
        "a\r\n\r\nbody",
        'a"; dkim=pass header.d=bank.test; x="',
        "a; dmarc=pass",
        "a (comment",
        "a\\",
        'a\\"',
        "a\u2028Forged: yes",
        "a\x85b\x9bc",
        "\u202eevil",
        "\udcff",
        "\0",
        "",
        " ",
        "=?utf-8?q?x?=",
    ],
)
def test_no_name_of_a_stranger_breaks_out_of_its_place(said: str, smtputf8: bool) -> None:
    findings = [Finding("spf", "fail", (("smtp.helo", said),), reason=said)]

    field = results_field(OURS, findings, smtputf8=smtputf8)

    [result] = read_back(field)[1]
    assert (result.method, result.verdict) == ("spf", "fail")
    assert [name for name, _ in result.properties] == ["smtp.helo"]
    assert len(result.properties[0][1]) == len(said)


def test_a_value_longer_than_any_real_one_is_left_out_and_not_cut() -> None:
    # Its first 320 characters would be the name of somebody else.
    said = f"{'a' * 300}@bank.test.{'b' * 60}.evil.test"
    findings = [Finding("dkim", "pass", (("header.i", said), ("header.d", "evil.test")))]

    [result] = read_back(results_field(OURS, findings))[1]

    assert result.properties == (("header.d", "evil.test"),)


VALUES = st.one_of(
    st.text(max_size=400),
    st.text(alphabet='a@.;"\\ \t\r\n()=-é\u2028', max_size=30),
    st.emails(),
    st.from_regex(rf"(?:{_TOKEN})?@{_DOMAIN}", fullmatch=True),
)
PROPERTIES = st.lists(
    st.tuples(
        st.sampled_from(["smtp.mailfrom", "smtp.helo", "header.d", "header.from", "header.b"]),
        VALUES,
    ),
    max_size=5,
)
FINDINGS = st.lists(
    st.builds(
        Finding,
        st.sampled_from(get_args(Check)),
        st.sampled_from(get_args(Verdict)),
        PROPERTIES.map(tuple),
        reason=st.text(max_size=300),
    ),
    max_size=12,
)


@given(FINDINGS, st.booleans())
@example(
    [Finding("spf", "pass", (("smtp.helo", "\N{LATIN SMALL LETTER E WITH ACUTE}" * 320),))], True
)
def test_whatever_was_found_it_is_one_field_that_says_exactly_that(
    findings: list[Finding], smtputf8: bool
) -> None:
    server, results = read_back(results_field(OURS, findings, smtputf8=smtputf8))

    assert server == OURS
    assert [(each.method, each.verdict) for each in results] == [
        ("x-spam" if each.check == "spam" else each.check, each.verdict) for each in findings
    ]
    for result, finding in zip(results, findings, strict=True):
        written = [(name, text) for name, text in finding.properties if _may_be_written(text)]
        read = dict.fromkeys(result.properties)
        for name, text in written:
            if text.isascii() and text.isprintable():
                assert (name, text) in read
            elif smtputf8 and text.isprintable():
                assert (name, text) in read or len(text.encode()) > 320
        assert {name for name, _ in result.properties} <= {name for name, _ in finding.properties}


def _may_be_written(text: str) -> bool:
    return len(text) <= 320


# --- reading ----------------------------------------------------------------------


def mail(value: str, name: str = "Authentication-Results") -> bytes:
    return f"From: a@b.test\r\n{name}:{value}\r\nTo: c@d.test\r\n".encode() + BODY


WITHOUT = b"From: a@b.test\r\nTo: c@d.test\r\n" + BODY


@pytest.mark.parametrize(
    "value",
    [
        " mx.ours.test; dkim=pass header.d=bank.test",
        " MX.Ours.TEST; dkim=pass",
        " mx.ours.test.; dkim=pass",
        " mx.ours.test 1; dkim=pass",
        " mx.ours.test/1; dkim=pass",
        " mx.ours.test(2); dkim=pass",
        " (by) mx.ours.test; dkim=pass",
        " (by (them)) (and) mx.ours.test (us) 1 ; dkim=pass",
        ' "mx.ours.test"; dkim=pass',
        ' "mx.o\\urs.test"; dkim=pass',
        ' "mx.ours.test" (x) 1; dkim=pass',
        "\r\n\tmx.ours.test;\r\n\tdkim=pass",
        "\r\n (folded\r\n comment)\r\n mx.ours.test\r\n ;\r\n dkim=pass",
        "mx.ours.test;dkim=pass",
        " mx.ours.test",
        " mx.ours.test none",
        " mx.(x)ours.test; dkim=pass",
        " mx . ours . test; dkim=pass",
        " mx.ou\0rs.test; dkim=pass",
        " ; mx.ours.test; dkim=pass",
        " (never closed mx.ours.test; dkim=pass",
        ' "never closed mx.ours.test; dkim=pass',
        " (" + "x" * 500 + ") mx.ours.test; dkim=pass",
        " " * 500 + "mx.ours.test; dkim=pass",
        " \uff4dx.our\uff53.test; dkim=pass",
        " mx。ours。test; dkim=pass",
    ],
)
@pytest.mark.parametrize("name", ["Authentication-Results", "authentication-RESULTS \t"])
def test_a_field_that_claims_to_be_ours_is_taken_out(value: str, name: str) -> None:
    assert without_ours(mail(value, name), OURS) == WITHOUT


@pytest.mark.parametrize(
    "value",
    [
        " mx.theirs.test; dkim=pass",
        " mx.ours.test.evil.test; dkim=pass",
        " amx.ours.test; dkim=pass",
        " ours.test; dkim=pass",
        " (mx.ours.test) mx.theirs.test; dkim=pass",
        ' mx.theirs.test; dkim=pass reason="mx.ours.test; (" header.d=mx.ours.test',
        ' "mx.theirs.test"; x=(mx.ours.test',
        "",
        " ;",
    ],
)
def test_a_field_of_somebody_else_stays(value: str) -> None:
    assert without_ours(mail(value), OURS) == mail(value)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("mx.xn--kln-sna.test", "mx.köln.test"),
        ("mx.xn--kln-sna.test", "MX.KÖLN.test."),
        ("mx.xn--kln-sna.test", "mx.ko\u0308ln.test"),
        ("mx.xn--kln-sna.test", "mx.XN--KLN-SNA.test"),
        ("mx.xn--strae-oqa.test", "mx.straße.test"),
        ("MX.Ours.Test", "mx.ours.test"),
    ],
)
def test_our_name_is_ours_in_every_spelling(ours: str, theirs: str) -> None:
    assert without_ours(mail(f" {theirs}; dkim=pass"), ours) == WITHOUT


def test_fields_of_parts_and_in_the_body_stay() -> None:
    content = (
        b"From: a@b.test\r\n\r\n--x\r\nContent-Type: message/rfc822\r\n\r\n"
        b"Authentication-Results: mx.ours.test; dkim=pass\r\n\r\nhello\r\n--x--\r\n"
    )

    assert without_ours(content, OURS) is content


def test_all_of_several_go_and_what_is_between_stays() -> None:
    forged = b"Authentication-Results: mx.ours.test; dkim=pass\r\n"
    other = b"Authentication-Results: mx.theirs.test; dkim=fail\r\n"
    line = b"a line that is no field\r\n"

    content = forged + other + forged + line + forged + BODY

    assert without_ours(content, OURS) == other + line + BODY


def test_more_of_them_than_any_mail_has_are_not_read_but_go() -> None:
    other = b"Authentication-Results: mx.theirs.test; dkim=fail\r\n"

    assert without_ours(other * 10_000 + BODY, OURS) == other * 200 + BODY


LINES = st.sampled_from(
    [
        b"From: a@b.test",
        b"Authentication-Results: mx.ours.test; dkim=pass",
        b"Authentication-Results : mx.theirs.test; dkim=pass",
        b"authentication-results:",
        b"\tmx.ours.test; x",
        b" (comment",
        b"no field",
        b"X-Authentication-Results: mx.ours.test; a",
        b"",
        b"\xff\xfe: \x00",
    ]
)
ENDS = st.sampled_from([b"\r\n", b"\n", b"\r", b""])
MESSAGES = st.one_of(
    st.binary(max_size=300),
    st.lists(st.tuples(LINES, ENDS), max_size=12).map(
        lambda parts: b"".join(line + end for line, end in parts)
    ),
)


@given(MESSAGES)
def test_taking_out_touches_no_other_octet(content: bytes) -> None:
    left = without_ours(content, OURS)

    fields = list(read_fields(content))
    kept = iter(fields)
    end = fields[-1].end if fields else 0
    assert left.endswith(content[end:])
    remaining = left[: len(left) - len(content[end:])]
    for field in kept:
        if remaining.startswith(field.raw):
            remaining = remaining[len(field.raw) :]
        else:
            assert field.name == "authentication-results"
    assert remaining == b""


@given(MESSAGES)
def test_what_is_left_has_nothing_more_to_take_out(content: bytes) -> None:
    left = without_ours(content, OURS)

    assert without_ours(left, OURS) == left
