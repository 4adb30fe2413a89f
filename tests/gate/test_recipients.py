"""The local address list: what each pattern matches, what is refused, how long it takes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mailgw.gate.recipients import BadLocalAddresses, LocalAddresses


def local(tmp_path: Path, text: str) -> LocalAddresses:
    path = tmp_path / "locals"
    path.write_text(text, encoding="utf-8")
    return LocalAddresses.load(path)


def bad(tmp_path: Path, content: bytes) -> list[str]:
    path = tmp_path / "locals"
    path.write_bytes(content)
    with pytest.raises(BadLocalAddresses) as refusal:
        LocalAddresses.load(path)
    return [line.removeprefix(f"{path}:") for line in refusal.value.lines]


@pytest.mark.parametrize(
    ("pattern", "address"),
    [
        ("joe@example.test", "joe@example.test"),
        ("joe@example.test", "JOE@Example.TEST"),
        ("JOE@Example.TEST", "joe@example.test"),
        ("exact joe@example.test", "joe@example.test"),
        ("EXACT   joe@example.test", "joe@example.test"),
        ("exact\tjoe@example.test", "joe@example.test"),
        ("exact a*b?@example.test", "a*b?@example.test"),
        ('"joe doe"@example.test', '"Joe Doe"@example.test'),
        ("joe+news@example.test", "joe+news@example.test"),
        ("joe@[192.0.2.1]", "joe@[192.0.2.1]"),
        ("jörg@example.test", "JÖRG@example.test"),
        # One name in two spellings of Unicode: composed and decomposed.
        ("j\u00f6rg@example.test", "jo\u0308rg@example.test"),
        ("joe@bücher.example", "joe@BÜCHER.example"),
        ("joe@xn--bcher-kva.example", "joe@bücher.example"),
        ("joe@bücher.example", "joe@XN--BCHER-KVA.example"),
        ("@example.test", "anybody@example.test"),
        ("@example.test", '"x@other.test"@example.test'),
        ("@xn--bcher-kva.example", "joe@bücher.example"),
        ("@[192.0.2.1]", "joe@[192.0.2.1]"),
        ("*@example.test", "joe@example.test"),
        ("fnmatch *@EXAMPLE.test", "joe@example.test"),
        ("*.example.test", "joe@deep.down.example.test"),
        ("*@*.example.test", "joe@mail.example.test"),
        ("@*.example.test", "joe@mail.example.test"),
        ("*@xn--bcher-kva.example", "joe@bücher.example"),
        ("sales-*@example.test", "Sales-EU@example.test"),
        ("sales-*@*.xn--bcher-kva.example", "sales-eu@a.bücher.example"),
        ("j?e@example.test", "joe@example.test"),
        ("fnmatch j[ao]e@example.test", "joe@example.test"),
        ("*", "joe@example.test"),
        ("substr Billing", "x-billing-y@example.test"),
        ("regex (jo|ann)\\d*@Example\\.test", "ANN42@example.test"),
        ("regex ^joe@.*$", "joe@example.test"),
        ("regex .*@.*\\.example", "joe@a.example"),
    ],
)
def test_a_pattern_matches(tmp_path: Path, pattern: str, address: str) -> None:
    assert address in local(tmp_path, pattern)


@pytest.mark.parametrize(
    ("pattern", "address"),
    [
        ("joe@example.test", "jo@example.test"),
        ("joe@example.test", "joe@example.test.evil"),
        ("joe@example.test", "x%joe@example.test"),
        ("joe@example.test", "joe"),
        ("joe@example.test", "joe@"),
        ("joe@example.test", "@example.test"),
        ("joe@example.test", ""),
        ("joe+news@example.test", "joe@example.test"),
        ("joe.doe@example.test", "joexdoe@example.test"),
        ("exact j*@example.test", "joe@example.test"),
        ("@example.test", "joe@sub.example.test"),
        ("@example.test", "joe@example.test@evil.test"),
        ("@example.test", '"joe@example.test"@evil.test'),
        ("@example.test", "joe%example.test@evil.test"),
        ("@example.test", "@example.test:joe@evil.test"),
        ("@example.test", "joe@notexample.test"),
        ("@*.example.test", "joe@example.test"),
        ("*.example.test", "joe@example.test"),
        ("*.example.test", "joe@badexample.test"),
        ("sales-*@example.test", "sales@example.test"),
        # RFC 5321 2.3.5: a domain in SMTP has no dot at its end.
        ("joe@example.test", "joe@example.test."),
        ("@example.test", "joe@example.test."),
        ("*", "joe@example.test."),
        ("regex .*", "joe@example.test."),
        ("substr joe", "joe@example.test."),
        # A regular expression is for the whole address, as every pattern but substr.
        ("regex joe@example\\.test", "joe@example.test.evil"),
        ("regex joe@example\\.test", "bad-joe@example.test"),
        ("regex joe|ann@example\\.test", "joe@example.test"),
        # A Cyrillic letter is another address, however alike it looks.
        ("joe@example.test", "j\u043ee@example.test"),
        ("substr billing", "bill@example.test"),
        ("*", "a" * 250 + "@b.test"),
    ],
)
def test_a_pattern_does_not_match(tmp_path: Path, pattern: str, address: str) -> None:
    assert address not in local(tmp_path, pattern)


def test_an_empty_list_knows_nobody() -> None:
    addresses = LocalAddresses.empty()
    assert not addresses.is_local("joe@example.test")
    assert not addresses.knows_domain("example.test")


def test_comments_blank_lines_crlf_and_a_byte_order_mark_are_no_patterns(tmp_path: Path) -> None:
    path = tmp_path / "locals"
    path.write_bytes(
        "\ufeff# staff\r\n\r\n   \r\n  joe@example.test  \r\n  # ann@example.test\r\n".encode()
    )
    addresses = LocalAddresses.load(path)
    assert addresses.is_local("joe@example.test")
    assert not addresses.is_local("ann@example.test")
    assert not addresses.is_local("# ann@example.test")


@pytest.mark.parametrize(
    ("pattern", "domain", "known"),
    [
        ("joe@example.test", "EXAMPLE.test", True),
        ("joe@bücher.example", "xn--bcher-kva.example", True),
        ("@example.test", "example.test", True),
        ("*@*.example.test", "mail.example.test", True),
        ("*@*.example.test", "example.test", False),
        ("joe@example.test", "sub.example.test", False),
        ("regex .*@example\\.test", "example.test", False),
        ("substr example.test", "example.test", False),
    ],
)
def test_a_domain_is_known_where_an_exact_or_domain_pattern_names_it(
    tmp_path: Path, pattern: str, domain: str, known: bool
) -> None:
    assert local(tmp_path, pattern).knows_domain(domain) is known


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("joe", '"joe" is not an address'),
        ("exact", '"exact" is not an address'),
        ("exact @example.test", '"@example.test" is not an address'),
        ("joe@", "has no domain"),
        ("@", "has no domain"),
        ("joe@example.test.", "ends with a dot (addresses do not)"),
        ("@example.test.", "ends with a dot (addresses do not)"),
        ("glob *@example.test", '"glob" is not a type (one of: exact, fnmatch, substr, regex)'),
        ("a" * 250 + "@b.test", "is longer than 254 characters, no address is"),
        ("regex (joe", "bad regular expression: missing ), unterminated subpattern at position 0"),
    ],
)
def test_a_bad_line_is_named_with_its_reason(tmp_path: Path, line: str, why: str) -> None:
    assert bad(tmp_path, f"# staff\n{line}\n".encode()) == [f"2: {why}"]


def test_all_bad_lines_are_named_at_once(tmp_path: Path) -> None:
    found = bad(tmp_path, b"joe\nann@example.test\n\xff@example.test\nregex [\n")
    assert [line.partition(":")[0] for line in found] == ["1", "3", "4"]


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadLocalAddresses, match=r"locals: No such file or directory"):
        LocalAddresses.load(tmp_path / "locals")


BOMBS = [
    r"(a+)+$",
    r"(a|a)*b",
    r"(a|aa)+@x",
    r"(.*a){20}",
    r"((a*)*)*",
    r"a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?aaaaaaaaaaaaaaaaaaaaa",
    r".*.*.*=",
    r"(\w+\s?)*@",
    r"(?=(a+)+$).*",
    r"(?>(a+)+)b",
    r"(a*)\1\1b",
    r"(?:a{1,200}){1,200}b",
]


@pytest.mark.parametrize("expression", BOMBS)
def test_a_regular_expression_that_could_take_for_ever_is_refused(
    tmp_path: Path, expression: str
) -> None:
    (why,) = bad(tmp_path, f"regex {expression}\n".encode())
    assert why.startswith("1: a regular expression that could take for ever")


def test_expressions_that_are_slow_together_are_refused(tmp_path: Path) -> None:
    found = bad(tmp_path, "".join(f"regex .*{n}.*@b\n" for n in range(300)).encode())
    assert found
    assert all("together with those above" in why for why in found)


@pytest.mark.parametrize(
    "pattern",
    [
        r"regex [a-z]*[a-z]*!",
        r"regex .*a.*b",
        r"regex (a|b|c)?(a|b|c)?(a|b|c)?(a|b|c)?a*!",
        "*a*a*a*a*a*a*a*a*a*a*a*a*a*a*!",
        "?*?*?*?*?*?*?*?*?*?*?*?*!",
        "fnmatch [a*[a*[a*[!a*@",
    ],
)
def test_the_worst_address_is_answered_at_once(tmp_path: Path, pattern: str) -> None:
    addresses = local(tmp_path, pattern)
    start = time.thread_time()
    assert not addresses.is_local("a" * 249 + "@a.aa")
    assert time.thread_time() - start < 1.0


def test_many_addresses_are_found_as_fast_as_few(tmp_path: Path) -> None:
    few = local(tmp_path, "user1@example.test\n@d1.test\n")
    many = local(
        tmp_path,
        "".join(f"user{n}@example.test\n@d{n}.test\n*@*.e{n}.test\n" for n in range(30_000)),
    )

    def seconds(addresses: LocalAddresses) -> float:
        start = time.perf_counter()
        for _ in range(2_000):
            addresses.is_local("user1@example.test")
            addresses.is_local("nobody@nowhere.test")
        return time.perf_counter() - start

    assert many.is_local("user29999@example.test")
    assert many.is_local("x@a.e29999.test")
    # Going through 90,000 patterns would be thousands of times slower.
    assert min(seconds(many) for _ in range(3)) < 50 * min(seconds(few) for _ in range(3))
