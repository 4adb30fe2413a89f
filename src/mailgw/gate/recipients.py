"""The local addresses: which recipients are ours.

One pattern a line, a type word in front where the pattern alone does not tell; lines
that start with "#" and empty lines say nothing.

    joe@example.test            exact: this address
    @example.test               the whole domain
    @*.example.test             everything below the domain (also *@*.example.test)
    sales-*@example.test        fnmatch, because of its * or ?
    exact a*b@example.test      exact, although it holds a *
    substr billing              every address that holds this text
    regex (jo|ann)\\d*@example\\.test    a Python regular expression for the whole address

Laws: an address is compared as a whole and literally, lower-cased, its domain in
U-labels, so nothing like "x%other@example.test" is taken apart. The case of the local
part is ignored, on purpose. A pattern that could take for ever on some address is
refused when the list is read, because strangers choose the addresses.
"""

from __future__ import annotations

import fnmatch
import importlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mailgw.smtp.address import to_unicode

# RFC 5321 4.5.3.1.3 less the brackets. Nothing longer is ours, and no pattern sees it.
_LONGEST_ADDRESS = 254
# In how many ways the expressions may try to match the longest address: one, and all of
# a list together. `.*@.*` has 254 * 254; `(a+)+` has more than there are atoms.
_MOST_WAYS = 1_000_000
_MOST_WAYS_TOGETHER = 10_000_000
# Patterns joined into one compiled expression; compiling gets slow above.
_JOINED = 500

# What nearly all lines of a long list are; A-labels take the long way.
_USUAL = re.compile(r"(?!.*xn--)[a-z0-9._+-]{1,64}@[a-z0-9.-]{0,180}[a-z0-9]")

_TYPES = ("exact", "fnmatch", "substr", "regex")


class BadLocalAddresses(ValueError):
    """The list cannot be used. `lines` says where and why, `file:line: ...` each."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class _BadPattern(ValueError):
    pass


def _fold(text: str) -> str:
    """Lower case, and one spelling of what Unicode spells in two ways."""
    text = text.lower()
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _fold_address(text: str) -> str:
    """The form that is compared, for addresses and for patterns without "@" alike."""
    local, at, domain = text.rpartition("@")
    return _fold(local + at + to_unicode(domain))


def _type_and_pattern(line: str) -> tuple[str, str]:
    """The type as written or implied; "domain" and "below" are the quick kinds."""
    word, _, rest = line.partition(" ")
    if word.lower() in _TYPES and rest:
        kind, pattern = word.lower(), rest.strip()
    else:
        kind, pattern = "", line
        if " " in line and '"' not in line:
            raise _BadPattern(f'"{word}" is not a type (one of: {", ".join(_TYPES)})')
    if kind == "regex":
        return kind, pattern
    pattern = _fold_address(pattern)
    if not kind:
        if pattern.startswith("@"):
            pattern = "*" + pattern
            kind = "fnmatch"
        else:
            kind = "fnmatch" if set("*?") & set(pattern) else "exact"
    if kind == "fnmatch":
        return _quick_kind(pattern)
    return kind, pattern


def _quick_kind(pattern: str) -> tuple[str, str]:
    """A whole domain, or all below one, where that is what the fnmatch pattern says."""
    for kind, start in (("below", "*@*."), ("domain", "*@"), ("below", "*.")):
        rest = pattern.removeprefix(start)
        # "*@[192.0.2.1]" means the address literal; fnmatch would see a set of letters.
        if rest != pattern and not set("*?@") & set(rest):
            return (kind, rest) if "[" not in rest[1:] else ("fnmatch", pattern)
    return "fnmatch", pattern


def _check_domain(domain: str) -> None:
    if not domain or " " in domain:
        raise _BadPattern("has no domain")
    if domain.endswith("."):
        raise _BadPattern("ends with a dot (addresses do not)")


def _check_address(address: str) -> None:
    local, _, domain = address.rpartition("@")
    if not local:
        raise _BadPattern(f'"{address}" is not an address')
    _check_domain(domain)
    if len(address) > _LONGEST_ADDRESS:
        raise _BadPattern(f"is longer than {_LONGEST_ADDRESS} characters, no address is")


def _compile(pattern: str) -> tuple[re.Pattern[str], int]:
    """A regular expression of the operator's, and in how many ways it may try to match."""
    try:
        compiled = re.compile(pattern, re.IGNORECASE)
        parsed = importlib.import_module("re._parser").parse(pattern, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise _BadPattern(f"bad regular expression: {error}") from error
    ways = _ways(parsed)
    if ways > _MOST_WAYS:
        raise _BadPattern(
            "a regular expression that could take for ever (repeat nothing that repeats or"
            " has alternatives, and at most two things without limit)"
        )
    return compiled, ways


def _ways(parsed: Any) -> int:
    """An upper bound of the paths that backtracking can take, for the longest address.

    One after the other multiplies, alternatives add, a repeat of something that has
    several ways is a power. Cut off above the limit. `parsed` comes from Python's own
    parser, which has no types.
    """
    ways = 1
    for operation, argument in parsed:
        match str(operation), argument:
            case "BRANCH", (_, branches):
                here = sum(_ways(branch) for branch in branches)
            case "SUBPATTERN", (_, _, _, inner):
                here = _ways(inner)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT", (least, most, inner):
                here = _ways_repeated(_ways(inner), int(least), int(most))
            case "ASSERT" | "ASSERT_NOT", (_, inner):
                here = _ways(inner)
            case "ATOMIC_GROUP", inner:
                here = _ways(inner)
            case "GROUPREF" | "GROUPREF_EXISTS", _:
                here = _MOST_WAYS + 1
            case _:
                here = 1  # one character, a set of them, a position
        ways = min(ways * here, _MOST_WAYS + 1)
    return ways


def _ways_repeated(inner: int, least: int, most: int) -> int:
    total = 0
    for times in range(min(least, _LONGEST_ADDRESS), min(most, _LONGEST_ADDRESS) + 1):
        total += inner**times
        if total > _MOST_WAYS:
            break
    return total


def _join(patterns: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    # fnmatch.translate matches every "*" once and for all, so these never go back.
    return tuple(
        re.compile("|".join(map(fnmatch.translate, patterns[start : start + _JOINED])))
        for start in range(0, len(patterns), _JOINED)
    )


@dataclass(slots=True)
class _List:
    """What was read so far."""

    exact: set[str] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)
    below: set[str] = field(default_factory=set)
    substrings: list[str] = field(default_factory=list)
    wildcards: list[str] = field(default_factory=list)
    expressions: list[re.Pattern[str]] = field(default_factory=list)
    ways: int = 0

    def add(self, line: str) -> None:
        """Sort one line in. Raises _BadPattern."""
        if _USUAL.fullmatch(usual := line.lower()):
            self.exact.add(usual)
            return
        kind, pattern = _type_and_pattern(line)
        match kind:
            case "exact":
                _check_address(pattern)
                self.exact.add(pattern)
            case "domain":
                _check_domain(pattern)
                self.domains.add(pattern)
            case "below":
                _check_domain(pattern)
                self.below.add(pattern)
            case "substr":
                self.substrings.append(pattern)
            case "fnmatch":
                self.wildcards.append(pattern)
            case _:
                compiled, ways = _compile(pattern)
                if self.ways + ways > _MOST_WAYS_TOGETHER:
                    raise _BadPattern("together with those above, the regular expressions are slow")
                self.ways += ways
                self.expressions.append(compiled)


class LocalAddresses:
    """The list, ready to be asked: `"joe@example.test" in addresses`.

    Exact addresses and whole domains are found in constant time, however many there
    are; the other patterns are tried one after the other. It never changes: a new list
    is loaded beside it and takes its place.
    """

    __slots__ = ("_any", "_below", "_domains", "_exact", "_expressions", "_known", "_substrings")

    def __init__(self, patterns: _List) -> None:
        self._exact = frozenset(patterns.exact)
        self._domains = frozenset(patterns.domains)
        self._below = frozenset(patterns.below)
        self._known = self._domains | {address.rpartition("@")[2] for address in self._exact}
        self._substrings = tuple(patterns.substrings)
        self._expressions = _join(patterns.wildcards) + tuple(patterns.expressions)
        self._any = any(
            (self._exact, self._domains, self._below, self._substrings, self._expressions)
        )

    @classmethod
    def empty(cls) -> LocalAddresses:
        """No address is local."""
        return cls(_List())

    @classmethod
    def load(cls, path: Path) -> LocalAddresses:
        """Read the list. Raises BadLocalAddresses with every bad line at once."""
        patterns = _List()
        bad = []
        try:
            with path.open("rb") as file:
                for number, raw in enumerate(file, 1):
                    try:
                        # A byte order mark is no part of the first address.
                        line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                        line = line.replace("\t", " ").strip()
                        if line and not line.startswith("#"):
                            patterns.add(line)
                    except UnicodeDecodeError:
                        bad.append(f"{path}:{number}: is not UTF-8")
                    except _BadPattern as error:
                        bad.append(f"{path}:{number}: {error}")
        except OSError as error:
            raise BadLocalAddresses([f"{path}: {error.strerror}"]) from error
        if bad:
            raise BadLocalAddresses(bad)
        return cls(patterns)

    def __bool__(self) -> bool:
        """Whether any address is local at all."""
        return self._any

    def __contains__(self, address: str) -> bool:
        return self.is_local(address)

    def is_local(self, address: str) -> bool:
        """Whether a pattern matches the address, given in its UTF-8 form."""
        if len(address) > _LONGEST_ADDRESS:
            return False
        address = _fold_address(address)
        local, _, domain = address.rpartition("@")
        # A trailing dot is another spelling of the domain in DNS, but none in SMTP: what
        # follows us could take it for a stranger's.
        if not local or not domain or domain.endswith("."):
            return False
        return (
            address in self._exact
            or domain in self._domains
            or (bool(self._below) and self._is_below(domain))
            or any(text in address for text in self._substrings)
            or any(expression.fullmatch(address) for expression in self._expressions)
        )

    def knows_domain(self, domain: str) -> bool:
        """Whether the list names this domain: then an unknown address in it does not exist."""
        domain = _fold(to_unicode(domain))
        return domain in self._known or self._is_below(domain)

    def _is_below(self, domain: str) -> bool:
        _, dot, parent = domain.partition(".")
        while dot:
            if parent in self._below:
                return True
            _, dot, parent = parent.partition(".")
        return False
