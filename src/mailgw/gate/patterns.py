"""One pattern of the local addresses: read, brought into one form, and found harmless.

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
refused when it is read, because strangers choose the addresses.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from typing import Any, Literal, NamedTuple

from mailgw.smtp.address import to_unicode

# RFC 5321 4.5.3.1.3 less the brackets. Nothing longer is ours, and no pattern sees it.
LONGEST_ADDRESS = 254
# In how many ways one expression may try to match the longest address. `.*@.*` has
# 254 * 254; `(a+)+` has more than there are atoms.
_MOST_WAYS = 1_000_000

# What nearly all lines of a long list are, lower-cased; A-labels take the long way.
_USUAL = r"[a-z0-9._+-]{1,64}@[a-z0-9.-]{0,180}[a-z0-9]"
_usual = re.compile(_USUAL).fullmatch
_usual_lines = re.compile(rf"(?m)^({_USUAL})\r?$").findall
_domains_of = re.compile("@(.+)").findall

TYPES = ("exact", "fnmatch", "substr", "regex")

Kind = Literal["exact", "domain", "below", "substr", "fnmatch", "regex"]


class BadPattern(ValueError):
    """The text says what is wrong with it."""


class Pattern(NamedTuple):
    """What is compared: two spellings of one pattern are equal.

    "domain" and "below" (all domains below one) are the fnmatch patterns that need no
    search; their text is the domain alone.
    """

    kind: Kind
    text: str

    def row(self) -> tuple[str, str]:
        """Type and address for the table, in the words that MailerQ knows too."""
        match self.kind:
            case "domain":
                return "fnmatch", f"*@{self.text}"
            case "below":
                return "fnmatch", f"*@*.{self.text}"
            case kind:
                return kind, self.text


def usual(line: str) -> str | None:
    """The address, where the line is a plain one and nothing else; None tells nothing."""
    line = line.lower()
    return line if _usual(line) and "xn--" not in line else None


def usual_lines(text: str, count: int) -> tuple[list[str], list[str]] | None:
    """The addresses and their domains, where all `count` lines are plain addresses."""
    text = text.lower()
    if "xn--" in text:
        return None
    found = _usual_lines(text)
    return (found, _domains_of("\n".join(found))) if len(found) == count else None


def fold(text: str) -> str:
    """Lower case, and one spelling of what Unicode spells in two ways."""
    text = text.lower()
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def fold_address(text: str) -> str:
    """The form that is compared, for addresses and for patterns without "@" alike."""
    local, at, domain = text.rpartition("@")
    return fold(local + at + to_unicode(domain))


def of_line(line: str) -> Pattern:
    """The pattern that a line holds, its type written or implied. Raises BadPattern."""
    word, _, rest = line.partition(" ")
    if word.lower() in TYPES and rest.strip():
        return of_type(word, rest.strip())
    if " " in line and '"' not in line:
        raise BadPattern(f'"{word}" is not a type (one of: {", ".join(TYPES)})')
    return of_type("", line)


def of_type(kind: str, text: str) -> Pattern:
    """The pattern of one of the TYPES, or of the type its text implies where that is "".

    Raises BadPattern, for a regular expression too.
    """
    kind = kind.lower()
    if kind and kind not in TYPES:
        raise BadPattern(f'"{kind}" is not a type (one of: {", ".join(TYPES)})')
    if not text:
        raise BadPattern("is empty")
    if kind == "regex":
        compile_regex(text)
        return Pattern("regex", text)
    text = fold_address(text)
    if not kind and text.startswith("@"):
        text = "*" + text
        kind = "fnmatch"
    elif not kind:
        kind = "fnmatch" if set("*?") & set(text) else "exact"
    if kind == "substr":
        return Pattern("substr", text)
    found = Pattern("exact", text) if kind == "exact" else _quick_kind(text)
    if found.kind == "exact":
        _check_address(text)
    elif found.kind != "fnmatch":
        _check_domain(found.text)
    return found


def _quick_kind(pattern: str) -> Pattern:
    """A whole domain, or all below one, where that is what the fnmatch pattern says."""
    starts: tuple[tuple[Kind, str], ...] = (("below", "*@*."), ("domain", "*@"), ("below", "*."))
    for kind, start in starts:
        rest = pattern.removeprefix(start)
        # "*@[192.0.2.1]" means the address literal; fnmatch would see a set of letters.
        if rest != pattern and not set("*?@") & set(rest):
            return Pattern(kind, rest) if "[" not in rest[1:] else Pattern("fnmatch", pattern)
    return Pattern("fnmatch", pattern)


def _check_domain(domain: str) -> None:
    if not domain or " " in domain:
        raise BadPattern("has no domain")
    if domain.endswith("."):
        raise BadPattern("ends with a dot (addresses do not)")


def _check_address(address: str) -> None:
    local, _, domain = address.rpartition("@")
    if not local:
        raise BadPattern(f'"{address}" is not an address')
    _check_domain(domain)
    if len(address) > LONGEST_ADDRESS:
        raise BadPattern(f"is longer than {LONGEST_ADDRESS} characters, no address is")


def compile_regex(pattern: str) -> tuple[re.Pattern[str], int]:
    """A regular expression of the operator's, and in how many ways it may try to match."""
    try:
        compiled = re.compile(pattern, re.IGNORECASE)
        parsed = importlib.import_module("re._parser").parse(pattern, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadPattern(f"bad regular expression: {error}") from error
    ways = _ways(parsed)
    if ways > _MOST_WAYS:
        raise BadPattern(
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
    for times in range(min(least, LONGEST_ADDRESS), min(most, LONGEST_ADDRESS) + 1):
        total += inner**times
        if total > _MOST_WAYS:
            break
    return total
