"""A document's properties by name, without reading its JSON again: for the received log.

Law: the message itself and passwords cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args, get_type_hints

from msgspec import UNSET, Struct

from mailgw.document.built import Built
from mailgw.document.schema import Document, Requested
from mailgw.observe.template import UnknownName

_NEVER = frozenset({("mime",), ("smarthost", "password")})


def reader(path: tuple[str, ...]) -> Callable[[Built], object]:
    """How a property is read; its name is written with _ for -. Raises UnknownName.

    What reads it gives None where the document has no such property. A name that no
    document is sure to have is one that an x-mq-* field may bring.
    """
    if path in _NEVER:
        raise UnknownName("is never logged")
    if path in _OWN_WORDS:
        return _OWN_WORDS[path]
    name = path[0]
    if (name,) in _OWN_WORDS:
        raise UnknownName(f"is not known: {name} is told in a word (try $json.{name})")
    if name not in Document.__struct_fields__:
        if len(path) > 1:
            raise UnknownName(f"is not known: a document has no {name} with properties")
        return _custom(name)
    _check(path)
    if name in Requested.__struct_fields__:
        return lambda built: _walk(built.requested, path)
    return lambda built: _walk(built.document, path)


def _report_type(built: Built) -> object:
    report = built.document.report
    return None if report is UNSET else report.__struct_config__.tag


def _checks(built: Built) -> object:
    checks = built.document.checks
    if checks is UNSET:
        return None
    # The first member of each is the check with its verdict.
    return [f"{name}={verdict}" for name, verdict in (next(iter(each.items())) for each in checks)]


def _decision(built: Built) -> object:
    return [f"{each.step}={each.verdict}" for each in built.document.decision]


# What has no one value: said in a word each.
_OWN_WORDS: dict[tuple[str, ...], Callable[[Built], object]] = {
    ("report",): _report_type,
    ("report", "type"): _report_type,
    ("checks",): _checks,
    ("decision",): _decision,
}


def _check(path: tuple[str, ...]) -> None:
    """Follow the declared types; raise UnknownName where they do not lead to a value."""
    inside: type[Struct] | None = Document
    for name in path:
        if inside is None or name not in inside.__struct_fields__:
            raise UnknownName(f"is not known: there is no {name} in it")
        inside = _struct_of(get_type_hints(inside)[name])
    if inside is not None:
        known = ", ".join(inside.__struct_fields__)
        raise UnknownName(f"has properties: name one of them ({known})")


def _struct_of(declared: object) -> type[Struct] | None:
    for each in (declared, *get_args(declared)):
        if isinstance(each, type) and issubclass(each, Struct):
            return each
    return None


def _walk(value: object, path: tuple[str, ...]) -> object:
    for name in path:
        value = getattr(value, name)
        if value is UNSET:
            return None
    return value


def _custom(name: str) -> Callable[[Built], object]:
    dashed = name.replace("_", "-")
    return lambda built: built.custom.get(dashed, built.custom.get(name))
