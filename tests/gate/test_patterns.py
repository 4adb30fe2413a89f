"""One pattern: its type, its form, and how it stands in the table."""

from __future__ import annotations

import pytest

from mailgw.gate.patterns import BadPattern, Pattern, of_line, of_type


@pytest.mark.parametrize(
    ("kind", "text", "pattern"),
    [
        ("", "Joe@Example.test", Pattern("exact", "joe@example.test")),
        ("exact", "a*b@example.test", Pattern("exact", "a*b@example.test")),
        ("EXACT", "joe@xn--bcher-kva.example", Pattern("exact", "joe@bücher.example")),
        ("", "@example.test", Pattern("domain", "example.test")),
        ("fnmatch", "*@example.test", Pattern("domain", "example.test")),
        ("", "@*.example.test", Pattern("below", "example.test")),
        ("fnmatch", "*.example.test", Pattern("below", "example.test")),
        ("", "sales-*@example.test", Pattern("fnmatch", "sales-*@example.test")),
        ("substr", "Billing", Pattern("substr", "billing")),
        ("regex", r"\D+@Example\.test", Pattern("regex", r"\D+@Example\.test")),
    ],
)
def test_a_type_and_a_text_make_a_pattern(kind: str, text: str, pattern: Pattern) -> None:
    made = of_type(kind, text)

    assert made == pattern
    # What is written into the table is read back as the same.
    assert of_type(*made.row()) == made
    assert made.row()[0] in ("exact", "fnmatch", "substr", "regex")


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("glob", "joe@example.test", '"glob" is not a type'),
        ("exact", "", "is empty"),
        ("substr", "", "is empty"),
        ("regex", "", "is empty"),
        ("exact", "@example.test", "is not an address"),
        ("fnmatch", "*@", "has no domain"),
        ("regex", "(a+)+", "could take for ever"),
    ],
)
def test_what_is_no_pattern_says_why(kind: str, text: str, why: str) -> None:
    with pytest.raises(BadPattern, match=why):
        of_type(kind, text)


def test_a_word_in_front_of_a_line_must_be_a_type() -> None:
    assert of_line("Substr  billing") == Pattern("substr", "billing")
    with pytest.raises(BadPattern, match='"glob" is not a type'):
        of_line("glob *@example.test")
