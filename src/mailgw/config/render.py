"""Texts made from the declarations: the example file, the README's table, show-config.

`scripts/generate.py` writes them into the files that hold them.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from mailgw.config.declare import Key, declared
from mailgw.config.sections.known import ABSENT, IGNORED, LATER, SENDING
from mailgw.config.settings import SECTIONS, Line

# What the example sets, so that it runs as it is: on this machine alone, without a broker.
_EXAMPLE_VALUES: Mapping[str, str] = MappingProxyType(
    {
        "smtp-ip": "127.0.0.1",
        "smtp-port": "2525",
        "rabbitmq-address": "",
        "queue-store": "mailgw-queue.sqlite",
    }
)

_PREFACE = """\
mailgw, configuration. This file runs as it is: SMTP on 127.0.0.1:2525, accepted mail in the \
embedded queue, no broker.

Lines are "key: value". Values stand bare, without quotation marks, and go to the end of the \
line, so a comment needs a line of its own. An empty value means off. Relative paths start at \
the working directory. A key that is commented out shows its default.

The same keys work in a second file, in the environment (MAILGW_SMTP_PORT) and on the command \
line (--smtp-port=2525), each on top of the one before.
"""


def example() -> str:
    """The text of mailgw.conf.example: every key that is available, explained."""
    lines = [*_comment(_PREFACE), ""]
    for section in SECTIONS:
        title = section.__doc__ or ""
        lines += [f"# --- {title} {'-' * (72 - len(title))}", ""]
        for _, key in declared(section):
            lines += [*_comment(key.doc), _setting(key), ""]
    return "\n".join(lines[:-1]) + "\n"


def key_table() -> str:
    """The README's table of keys, in Markdown, without the markers around it."""
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for section in SECTIONS:
        for _, key in declared(section):
            default = f"`{key.default}`" if key.default else "empty"
            rows.append(f"| `{key.name}` | {default} | {_literal(key.doc)} |")
    return "\n".join(
        [
            *rows,
            "",
            f"Known, and refused until they are available unless empty or off: {_names(LATER)}.",
            "",
            "Known, and settled another way here, so that check-config only says how: "
            f"{_names(IGNORED)}; refused unless off: {_names(ABSENT)}.",
            "",
            f"Known, and ignored because they only concern sending: {_names(sorted(SENDING))}.",
            "",
        ]
    )


def table(lines: Sequence[Line]) -> str:
    """The lines of show-config in aligned columns."""
    head = ("key", "value", "default", "from")
    rows = [head] + [
        (
            line.key,
            line.value or "(empty)",
            line.default or "(empty)",
            f"{line.origin} ({line.remark})" if line.remark else line.origin,
        )
        for line in lines
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        + "\n"
        for row in rows
    )


def _setting(key: Key) -> str:
    if key.name in _EXAMPLE_VALUES:
        return f"{key.name}: {_EXAMPLE_VALUES[key.name]}".rstrip()
    return f"#{key.name}: {key.default}".rstrip()


def _comment(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.strip().split("\n\n")):
        if number:
            yield "#"
        yield from textwrap.wrap(
            paragraph,
            width=78,
            initial_indent="# ",
            subsequent_indent="# ",
            break_on_hyphens=False,
            break_long_words=False,
        )


def _literal(text: str) -> str:
    # Of Markdown's characters, the ones that documentation of keys is likely to hold.
    return re.sub(r"([|*<])", r"\\\1", text)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
