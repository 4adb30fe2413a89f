"""What a key is: declared once, as a field of a section.

A section is a frozen dataclass whose fields are made by `key`. The declaration holds
the name in the file, how text becomes a value, the default, the documentation and
whether the value is secret; everything that lists, explains or checks keys reads it
from there. The field's default is the parsed default, so `SmtpSettings()` is what runs
when nobody wrote anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, cast, dataclass_transform

from mailgw.config.values import as_is

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Key:
    """One key as it was declared.

    `default` is text, as it would stand in a file. `mask` turns a value's text into what
    may be shown, None where nothing is secret. `reload` says that SIGHUP takes a new value over.
    `sending` marks a key that is read but concerns only sending mail. `differs` says how
    and why the default is not MailerQ's, "" where it is, or where MailerQ has no such key.
    `several` lets a key stand on several lines of one source, which count as one value,
    joined by commas in their order.
    """

    name: str
    parse: Callable[[str], object]
    default: str
    doc: str
    mask: Callable[[str], str] | None = None
    reload: bool = False
    sending: bool = False
    differs: str = ""
    several: bool = False

    def show(self, text: str) -> str:
        """`text` without what is secret in it; it must be a value that this key takes."""
        return self.mask(text) if self.mask and text else text


def key(
    name: str,
    parse: Callable[[str], T],
    *,
    default: str,
    doc: str,
    mask: Callable[[str], str] | None = None,
    reload: bool = False,
    sending: bool = False,
    differs: str = "",
    several: bool = False,
) -> T:
    """Declare a key as the field of a section; see `Key` for the arguments."""
    declared = Key(name, parse, default, doc, mask, reload, sending, differs, several)
    made: Any = field(
        default=parse(default),
        repr=mask is None,  # a section may end up in a log or a traceback
        metadata={"key": declared},
    )
    return cast(T, made)


def text_key(name: str, *, default: str, doc: str, reload: bool = False) -> str:
    """Declare a key whose text is its value."""
    return key(name, as_is, default=default, doc=doc, reload=reload)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(key, text_key))
def section(name: str) -> Callable[[type[T]], type[T]]:
    """Make a class a section, frozen and keyword-only; `name` is its attribute in Settings."""

    def make(cls: type[T]) -> type[T]:
        made = dataclass(frozen=True, slots=True, kw_only=True)(cls)
        # A mark that no type has: Settings reads it by its name.
        made.__section__ = name  # type: ignore[attr-defined]  # see above
        return made

    return make


def declared(section: type) -> Iterator[tuple[str, Key]]:
    """Yield attribute and declaration of each key, in the order they are written."""
    for each in fields(section):
        yield each.name, each.metadata["key"]
