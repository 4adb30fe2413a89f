"""Templates of a log line, as in MailerQ's `received-log-format`.

Literal text, `{$name.name}` for a value, and `{if $name} ... {else} ... {/if}`, where
nothing, "", 0 and false are no. Laws: a template is read once, and what is in it and
not understood is an error then; what a value holds, the line stays one line, and a
blank ends the value, be it a stranger's or not. There are no loops and nothing is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

# Characters of one value; no address is longer, and a header's value may be.
LONGEST_VALUE = 1000

_TAG = re.compile(r"\{([^{}]*)\}|[{\x00-\x1f\x7f-\x9f\u2028\u2029]")
_VALUE = re.compile(r"\$([a-z0-9_]+(?:\.[a-z0-9_]+)*)")
_IF = re.compile(r"if\s+\$([a-z0-9_]+(?:\.[a-z0-9_]+)*)")
# What is written as it is: neither a blank nor the backslash that escapes, and a time,
# whose blank cannot mislead.
_plain = re.compile(r"[!-\[\]-~]*|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d").fullmatch

T = TypeVar("T")
Read: TypeAlias = Callable[[T], object]
# Finds out how a name of the template is read; raises UnknownName.
Names: TypeAlias = Callable[[tuple[str, ...]], Read[T]]


class BadTemplate(Exception):
    """A template that cannot be understood; the text says where and why."""


class UnknownName(Exception):
    """A name that stands for nothing; the text says why."""


@dataclass(frozen=True, slots=True)
class _Value(Generic[T]):
    read: Read[T]


@dataclass(frozen=True, slots=True)
class _Choice(Generic[T]):
    read: Read[T]
    then: tuple[_Part[T], ...]
    otherwise: tuple[_Part[T], ...]


_Part: TypeAlias = "str | _Value[T] | _Choice[T]"


class Template(Generic[T]):
    """A template that was read; `names` says what its names stand for. Raises BadTemplate."""

    def __init__(self, text: str, names: Names[T]) -> None:
        self._parts = _read(text, names)

    def line(self, subject: T) -> str:
        """The line for one subject. Of the subject nothing is asked that has no name in it."""
        return _render(self._parts, subject)


def written(value: object) -> str:
    """A value as it stands in a line: without line ends and blanks, and not without end."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            text = ",".join(map(str, value))
        case _:
            text = str(value)
    if len(text) > LONGEST_VALUE:
        text = text[:LONGEST_VALUE] + "..."
    return text if _plain(text) else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable() and character != " ":
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _render(parts: Iterable[_Part[T]], subject: T) -> str:
    line = ""
    for part in parts:
        match part:
            case str():
                line += part
            case _Value():
                line += written(part.read(subject))
            case _Choice():
                line += _render(part.then if part.read(subject) else part.otherwise, subject)
    return line


@dataclass(slots=True)
class _Open(Generic[T]):
    """An {if} that was not closed yet; `then` is None up to its {else}."""

    place: int
    read: Read[T]
    outer: list[_Part[T]]
    then: list[_Part[T]] | None = None


def _read(text: str, names: Names[T]) -> tuple[_Part[T], ...]:
    parts: list[_Part[T]] = []
    opened: list[_Open[T]] = []
    end = 0
    for tag in _TAG.finditer(text):
        if tag.start() > end:
            parts.append(text[end : tag.start()])
        end = tag.end()
        place, inside = tag.start() + 1, tag[1]
        if inside is None:
            raise BadTemplate(f"at {place}: {tag[0]!r} has no place in a line of a log")
        if value := _VALUE.fullmatch(inside):
            parts.append(_Value(_named(value[1], names, place)))
        elif condition := _IF.fullmatch(inside):
            opened.append(_Open(place, _named(condition[1], names, place), parts))
            parts = []
        elif inside == "else" and opened and opened[-1].then is None:
            opened[-1].then, parts = parts, []
        elif inside == "/if" and opened:
            ended = opened.pop()
            then, otherwise = (parts, []) if ended.then is None else (ended.then, parts)
            parts = ended.outer
            parts.append(_Choice(ended.read, tuple(then), tuple(otherwise)))
        else:
            shown = inside if inside.isprintable() else repr(inside)[1:-1]
            raise BadTemplate(f"at {place}: {{{shown}}} {_complaint(inside)}")
    if opened:
        raise BadTemplate(f"at {opened[-1].place}: {{if}} has no {{/if}}")
    return (*parts, text[end:])


def _named(name: str, names: Names[T], place: int) -> Read[T]:
    try:
        return names(tuple(name.split(".")))
    except UnknownName as unknown:
        raise BadTemplate(f"at {place}: ${name} {unknown}") from None


def _complaint(inside: str) -> str:
    match inside:
        case "else" | "/if":
            return "belongs to no {if}"
        case _ if "-" in inside and _VALUE.fullmatch(inside.replace("-", "_")):
            return f"is not understood (try {{{inside.replace('-', '_')}}})"
        case _:
            return "is not understood (try {$name}, {if $name}, {else}, {/if})"
