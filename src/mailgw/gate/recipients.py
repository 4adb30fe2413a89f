"""The local addresses: which recipients are ours.

Patterns come from a file, one a line, and from a table, one a row (patterns.py has what
they look like); lines that start with "#" and empty lines say nothing.

Laws: a list is complete or it is none, so one bad pattern spoils it, and the bad ones are
named. Exact addresses and whole domains are found in constant time, however many there
are. Whoever chooses an address, a stranger, cannot make the search for it long.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mailgw.gate.patterns import (
    LONGEST_ADDRESS,
    BadPattern,
    Pattern,
    compile_regex,
    fold_address,
    of_line,
    of_type,
    usual,
    usual_lines,
)
from mailgw.gate.texts import Texts

# In how many ways all regular expressions of a list may try to match one address.
_MOST_WAYS_TOGETHER = 10_000_000
# Patterns joined into one compiled expression; compiling gets slow above.
_JOINED = 500
# Characters read at once: an event loop beside it wants its turn in between.
_BLOCK = 48 * 1024
# Bad patterns that are named; those above are counted.
_MOST_COMPLAINTS = 1_000

_control = re.compile(r"[\0-\x1f\x7f]").search


class BadLocalAddresses(ValueError):
    """The list cannot be used. `lines` says where and why, `file:line: ...` each."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


def go_on() -> None:
    """What is done between two blocks where nobody waits for his turn."""


class Gathering:
    """A list in the making: lines and rows go in by blocks, one LocalAddresses comes out."""

    def __init__(self) -> None:
        self.exact = Texts()
        self.exact_domains = Texts()
        self.domains = Texts()
        self.below = Texts()
        self.substrings: dict[str, None] = {}
        self.wildcards: dict[str, None] = {}
        self.expressions: dict[str, re.Pattern[str]] = {}
        self._ways = 0
        self._complaints: list[str] = []
        self._bad = 0

    def file(self, path: Path, between: Callable[[], None] = go_on) -> None:
        """Take a file in; `between` is called after each block of it."""
        try:
            for number, lines in blocks(path):
                self._lines(path, number, lines)
                between()
        except OSError as error:
            self.complain(f"{path}: {error.strerror}")

    def rows(self, rows: Sequence[tuple[object, object]]) -> None:
        """Take a block of rows (type, address) in."""
        if {kind for kind, _ in rows} <= {"exact", "", None} and self._plain_rows(rows):
            return
        for kind, address in rows:
            try:
                self.add(of_row(kind, address))
            except BadPattern as error:
                self.complain(f"locals: row {_shown(kind)}, {_shown(address)}: {error}")

    def add(self, pattern: Pattern) -> None:
        """Sort one pattern in. Raises BadPattern."""
        kind, text = pattern
        match kind:
            case "exact":
                self.exact.add(text)
                self.exact_domains.add(text.rpartition("@")[2])
            case "domain":
                self.domains.add(text)
            case "below":
                self.below.add(text)
            case "substr":
                self.substrings[text] = None
            case "fnmatch":
                self.wildcards[text] = None
            case "regex" if text not in self.expressions:
                compiled, ways = compile_regex(text)
                if self._ways + ways > _MOST_WAYS_TOGETHER:
                    raise BadPattern("together with those above, the regular expressions are slow")
                self._ways += ways
                self.expressions[text] = compiled

    def complain(self, line: str) -> None:
        """Note why there will be no list."""
        self._bad += 1
        if self._bad <= _MOST_COMPLAINTS:
            self._complaints.append(line)

    def complaints(self) -> tuple[str, ...]:
        """All that was bad; nothing where there is a list."""
        if self._bad > _MOST_COMPLAINTS:
            return (*self._complaints, f"and {self._bad - _MOST_COMPLAINTS} more")
        return tuple(self._complaints)

    def finish(self) -> LocalAddresses:
        """The list. Raises BadLocalAddresses with all that was bad, not only the first."""
        if complaints := self.complaints():
            raise BadLocalAddresses(complaints)
        return LocalAddresses(self)

    def parts(self) -> list[dict[str, None]]:
        """All that is large, for `texts.let_go` once this is not used any more."""
        large = (self.exact, self.exact_domains, self.domains, self.below)
        return [part for texts in large for part in texts.parts()]

    def _lines(self, path: Path, first: int, lines: list[str]) -> None:
        plain = usual_lines("".join(lines), len(lines))
        if plain is not None:
            self.exact.update(plain[0])
            self.exact_domains.update(plain[1])
            return
        for number, line in enumerate(lines, first):
            if address := usual(line.rstrip("\r\n")):
                self.exact.add(address)
                self.exact_domains.add(address.rpartition("@")[2])
                continue
            try:
                if pattern := of_file_line(line):
                    self.add(pattern)
            except BadPattern as error:
                self.complain(f"{path}:{number}: {error}")

    def _plain_rows(self, rows: Sequence[tuple[object, object]]) -> bool:
        try:
            # Whatever the database gave is tried, and what is no text says so itself.
            text = "\n".join([address for _, address in rows])  # type: ignore[misc]  # see above
        except TypeError:  # a row without an address, or with something else there
            return False
        # A row may hold a line break, and is one pattern all the same.
        if text.count("\n") != len(rows) - 1 or not (plain := usual_lines(text, len(rows))):
            return False
        self.exact.update(plain[0])
        self.exact_domains.update(plain[1])
        return True


class LocalAddresses:
    """The list, ready to be asked: `"joe@example.test" in addresses`.

    Exact addresses and whole domains are found in constant time, however many there
    are; the other patterns are tried one after the other. It never changes: a new list
    is loaded beside it and takes its place.
    """

    __slots__ = ("_any", "_compiled", "_gathered", "_has_below")

    def __init__(self, gathered: Gathering) -> None:
        self._gathered = gathered
        self._compiled = _join(tuple(gathered.wildcards)) + tuple(gathered.expressions.values())
        self._has_below = bool(gathered.below)
        self._any = any(
            (
                gathered.exact,
                gathered.domains,
                self._has_below,
                gathered.substrings,
                self._compiled,
            )
        )

    @classmethod
    def empty(cls) -> LocalAddresses:
        """No address is local."""
        return cls(Gathering())

    @classmethod
    def load(cls, path: Path) -> LocalAddresses:
        """Read a file. Raises BadLocalAddresses with every bad line at once."""
        gathering = Gathering()
        gathering.file(path)
        return gathering.finish()

    @property
    def exact(self) -> int:
        """How many addresses are named one by one."""
        return len(self._gathered.exact)

    @property
    def patterns(self) -> int:
        """How many patterns of the other kinds there are."""
        of = self._gathered
        searched = len(of.substrings) + len(of.wildcards) + len(of.expressions)
        return len(of.domains) + len(of.below) + searched

    def same(self, other: LocalAddresses, between: Callable[[], None] = go_on) -> bool:
        """Whether both are made of the same patterns, in whatever order."""
        mine, others = self._gathered, other._gathered
        return (
            mine.substrings == others.substrings
            and mine.wildcards == others.wildcards
            and mine.expressions.keys() == others.expressions.keys()
            and mine.domains.same(others.domains, between)
            and mine.below.same(others.below, between)
            and mine.exact.same(others.exact, between)
        )

    def parts(self) -> list[dict[str, None]]:
        """All that is large, for `texts.let_go` once the list is not used any more."""
        return self._gathered.parts()

    def __bool__(self) -> bool:
        """Whether any address is local at all."""
        return self._any

    def __contains__(self, address: str) -> bool:
        return self.is_local(address)

    def is_local(self, address: str) -> bool:
        """Whether a pattern matches the address, given in its UTF-8 form."""
        if len(address) > LONGEST_ADDRESS:
            return False
        address = fold_address(address)
        local, _, domain = address.rpartition("@")
        # A trailing dot is another spelling of the domain in DNS, but none in SMTP: what
        # follows us could take it for a stranger's.
        if not local or not domain or domain.endswith("."):
            return False
        gathered = self._gathered
        return (
            address in gathered.exact
            or domain in gathered.domains
            or (self._has_below and self._is_below(domain))
            or (bool(gathered.substrings) and any(text in address for text in gathered.substrings))
            or (bool(self._compiled) and any(each.fullmatch(address) for each in self._compiled))
        )

    def knows_domain(self, domain: str) -> bool:
        """Whether the list names this domain: then an unknown address in it does not exist."""
        domain = fold_address(domain)
        gathered = self._gathered
        return (
            domain in gathered.exact_domains or domain in gathered.domains or self._is_below(domain)
        )

    def _is_below(self, domain: str) -> bool:
        _, dot, parent = domain.partition(".")
        while dot:
            if parent in self._gathered.below:
                return True
            _, dot, parent = parent.partition(".")
        return False


def blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a file by blocks, each with the number of its first line.

    What is no UTF-8 comes as surrogates. Raises OSError.
    """
    # Only "\n" ends a line, and a byte order mark is no part of the first address.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        number = 1
        while lines := file.readlines(_BLOCK):
            yield number, lines
            number += len(lines)


def written(line: str) -> str:
    """What a line of the file holds; "" where it is empty or a comment."""
    line = line.replace("\t", " ").strip()
    return "" if line.startswith("#") else line


def of_file_line(line: str) -> Pattern | None:
    """The pattern that a line of the file holds, None where it says nothing. Raises BadPattern."""
    line = written(line)
    if not line:
        return None
    if not line.isascii() and any("\ud800" <= char <= "\udfff" for char in line):
        raise BadPattern("is not UTF-8")
    # Above all: UTF-16 without its mark, which would be a list that nothing matches.
    if _control(line):
        raise BadPattern("holds a control character")
    return of_line(line)


def of_row(kind: object, address: object) -> Pattern:
    """The pattern that a row holds. Raises BadPattern."""
    if not isinstance(kind, str | None) or not isinstance(address, str | None):
        raise BadPattern("is not text")
    if address and _control(address):
        raise BadPattern("holds a control character")
    # Columns of a fixed width come filled with blanks.
    return of_type((kind or "").strip(), (address or "").strip())


def _shown(value: object) -> str:
    return ascii(value)[:80] if isinstance(value, str | None) else type(value).__name__


def _join(patterns: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    # fnmatch.translate matches every "*" once and for all, so these never go back.
    return tuple(
        re.compile("|".join(map(fnmatch.translate, patterns[start : start + _JOINED])))
        for start in range(0, len(patterns), _JOINED)
    )
