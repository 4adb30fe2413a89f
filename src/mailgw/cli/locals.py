"""`mailgw locals`: what the local address list holds, and changes to it.

Changes go to the table where `database-address` names one, else to the file of
`local-addresses`. All that one command was given is done, or nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import wraps
from typing import NoReturn, ParamSpec

import click

from mailgw.cli.options import FAILED, configured
from mailgw.config import Settings
from mailgw.config.source import printable
from mailgw.gate import database, entries, local_file
from mailgw.gate.entries import Entry
from mailgw.gate.patterns import TYPES, BadPattern, Pattern, of_type
from mailgw.gate.recipients import BadLocalAddresses, Gathering, of_file_line

P = ParamSpec("P")

NOT_LOCAL = 1

_type = click.option(
    "--type",
    "kind",
    type=click.Choice(TYPES, case_sensitive=False),
    help="What PATTERN is; without it, as in the file: implied, or the word in front.",
)


@click.group()
def command() -> None:
    """List, change and try the local addresses."""


def _told(function: Callable[P, None]) -> Callable[P, None]:
    """What cannot be read or written ends in a line on stderr and exit code 2."""

    @wraps(function)
    def tell(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except BadLocalAddresses as error:
            _fail("\n".join(error.lines))
        except database.BadDatabase as error:
            _fail(f"database-address: {error}")
        except OSError as error:
            _fail(f"{error.filename or 'local-addresses'}: {error.strerror}")

    return tell


@command.command("list")
@configured
@_told
def show(settings: Settings) -> None:
    """Print every pattern behind the place where it stands.

    Exits with 2 where one of them cannot be used; the gateway would not take the list.
    """
    bad = False
    for entry in _entries(settings):
        click.echo(printable(f"{entry.origin}: {entry.written}"))
        if entry.trouble:
            bad = True
            click.echo(printable(f"{entry.origin}: {entry.written}: {entry.trouble}"), err=True)
    if bad:
        click.get_current_context().exit(FAILED)


@command.command()
@click.argument("patterns", metavar="PATTERN...", nargs=-1, required=True)
@_type
@configured
@_told
def add(settings: Settings, patterns: tuple[str, ...], kind: str | None) -> None:
    """Add patterns; the table is made where there is none.

    PATTERN is written as in the file: user@example.com, @example.com, *@*.example.com,
    or "regex (a|b)@example\\.com". What is there already is left alone.
    """
    wanted = {_pattern(text, kind): text for text in patterns}
    there = _already_there(settings, wanted)
    new = {pattern: text for pattern, text in wanted.items() if pattern not in there}
    local = settings.local
    if local.database:
        database.add(local.database, [pattern.row() for pattern in new])
    elif local.addresses is not None and new:
        local_file.add(local.addresses, [_line(each, text, kind) for each, text in new.items()])
    place = "the database" if local.database else str(local.addresses)
    for pattern, text in wanted.items():
        said = f"is there ({there[pattern]})" if pattern in there else f"added to {place}"
        click.echo(printable(f"{text}: {said}"))


@command.command()
@click.argument("patterns", metavar="PATTERN...", nargs=-1, required=True)
@_type
@configured
@_told
def remove(settings: Settings, patterns: tuple[str, ...], kind: str | None) -> None:
    """Take patterns out, in whatever spelling they stand there.

    One that cannot be used is named as `list` prints it.
    """
    texts = {f"{kind} {text}" if kind else text for text in patterns}
    wanted = {text: entries.line("", text).pattern for text in texts}
    known = {pattern for pattern in wanted.values() if pattern}

    def unwanted(entry: Entry) -> bool:
        return entry.written in wanted or entry.pattern in known

    found = [entry for entry in _entries(settings) if unwanted(entry)]
    for text, pattern in wanted.items():
        here = [each for each in found if text == each.written or pattern == each.pattern]
        if not here:
            _fail(f"{text}: is not in the list")
        if settings.local.database and not any(each.row for each in here):
            _fail(f"{text}: stands in {here[0].origin}, not in the database")
    if settings.local.database:
        found = [entry for entry in found if entry.row]
        database.remove(settings.local.database, [entry.row for entry in found if entry.row])
    elif settings.local.addresses is not None:
        local_file.remove(settings.local.addresses, lambda text: unwanted(entries.line("", text)))
    for entry in found:
        click.echo(printable(f"{entry.written}: removed from {entry.origin}"))


@command.command()
@click.argument("address")
@configured
@_told
def test(settings: Settings, address: str) -> None:
    """Say whether ADDRESS is local, and which patterns make it so.

    Exits with 0 where it is, with 1 where it is not, with 2 where nobody can tell.
    """
    if "@" not in address:
        _fail(f"{address}: is not an address")
    found = []
    for entry in _entries(settings):
        if entry.pattern is None:
            _fail(f"{entry.origin}: {entry.written}: {entry.trouble}")
        if entries.matches(entry.pattern, address):
            found.append(entry)
    for entry in found:
        click.echo(printable(f"{address} is local: {entry.written} ({entry.origin})"))
    if not found:
        click.echo(printable(f"{address} is not local"))
        click.get_current_context().exit(NOT_LOCAL)


def _entries(settings: Settings) -> Iterator[Entry]:
    """All that stands in the file, then all that stands in the table."""
    local = settings.local
    if local.addresses is None and not local.database:
        _fail("there is no list: local-addresses and database-address are both empty")
    if local.addresses is not None:
        yield from entries.of_file(local.addresses)
    if local.database:
        yield from entries.of_table(local.database)


def _already_there(settings: Settings, wanted: Mapping[Pattern, str]) -> dict[Pattern, str]:
    """Where those of the patterns stand that are in the list; ends where it cannot take one."""
    there: dict[Pattern, str] = {}
    gathering = Gathering()
    with suppress(database.NoTable):  # it will be made
        for entry in _entries(settings):
            if entry.pattern and entry.pattern in wanted:
                there[entry.pattern] = entry.origin
            # Regular expressions are judged together, see patterns.py.
            if entry.pattern and entry.pattern.kind == "regex":
                with suppress(BadPattern):
                    gathering.add(entry.pattern)
    for pattern, text in wanted.items():
        try:
            gathering.add(pattern)
        except BadPattern as bad:
            _fail(f"{text}: {bad}")
    return there


def _pattern(text: str, kind: str | None) -> Pattern:
    """What somebody typed; ends where it is no pattern."""
    try:
        if not text.isprintable():
            raise BadPattern("holds a control character")
        if kind:
            return of_type(kind, text.strip())
        pattern = of_file_line(text)
    except BadPattern as bad:
        _fail(f"{text}: {bad}")
    return pattern or _fail(f'"{text}" would say nothing in the file')


def _line(pattern: Pattern, text: str, kind: str | None) -> str:
    """The line for the file: as it was typed, where that means the same there."""
    line = f"{kind} {text.strip()}" if kind else text.strip()
    return line if entries.line("", line).pattern == pattern else " ".join(pattern.row())


def _fail(sentence: str) -> NoReturn:
    for line in sentence.splitlines():
        click.echo(printable(f"mailgw locals: {line}"), err=True)
    click.get_current_context().exit(FAILED)
