"""Who says to have written the message: the addresses of its From fields (RFC 5322 3.6.2).

Laws: nothing here raises, whatever the bytes; the time is linear in the header, and what
is more than anybody writes is left unread, and said to be. It is read the way a program
that shows mail might read it, for DMARC must not overlook an author that a human sees:

- Every field that some reader takes for a From field counts: `From :`, one with control
  characters in its name, a first line ` From:`, one behind a bare CR.
- Every address outside of quotes and comments counts, also one that stands unquoted before
  the angle brackets, a source route, and both domains of `a@b@c`. A display name that is
  quoted or an encoded-word is no author (RFC 9989 11.4), a quote that nobody closes
  quotes nothing.
- Where nothing is found so, whatever looks like an address counts: in quotes, in comments,
  in encoded-words. Such an author is a guess (`certain` is false).
"""

from __future__ import annotations

import binascii
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from mailgw.mail.headers import header_end, read_fields
from mailgw.mail.octets import Octets

# Nobody writes more than this; a message that has more is not read to its end.
_MOST_FIELDS = 10
_MOST_ADDRESSES = 50
_MOST_AT_SIGNS = 100
_LONGEST = 16_384
_LONGEST_HEADER = 131_072
# Quotes and comments behind these hide nothing any more.
_MOST_HIDDEN = 200
# Either side of an "@" that is looked at, in characters (RFC 5321 4.5.3.1).
_LONGEST_SIDE = 255

# A field name that is From for somebody, at the beginning of a line. Neither class holds
# CR or LF, so that no octet is looked at twice.
_ODD = rb"[\x00-\x09\x0b\x0c\x0e-\x20\x7f]*"
_FIELD = re.compile(rb"[\r\n](?![ \t])(" + _ODD + rb"(?i:from)" + _ODD + rb":)")
_FIRST_FIELD = re.compile(_ODD + rb"(?i:from)" + _ODD + rb":")

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_PARENTHESIS = re.compile(r"\\.|[()]")
# What may hide something, by what of it is still believed to be closed.
_OPENING = {
    (True, True): re.compile(r'["(]'),
    (True, False): re.compile(r'"'),
    (False, True): re.compile(r"\("),
}
# Stands where a quoted string stood. Control characters from outside do not get that far.
_MARK = "\x01"
_CONTROLS = dict.fromkeys((*range(32), 127), " ")
_NOTHING_HIDES = {**_CONTROLS, **dict.fromkeys(map(ord, '"()'), " ")}

_SEPARATORS = "<>,;:"
_SPECIAL = r" ()<>@,;:\\\"\[\]"
_REVERSED_LOCAL = re.compile(rf"[^{_SPECIAL}]+")
_ATOM = rf"[^\x01{_SPECIAL}.]+"
_DOMAIN = re.compile(rf"\[[^\]]*\]|[ .]*{_ATOM}(?: *\.[ .]*{_ATOM})*")
_TIGHT_DOMAIN = re.compile(rf"{_ATOM}(?:\.{_ATOM})+")
_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,40})\?([bqBQ])\?([^?\s]*)\?=")

# UTS 46: other characters for the dot, and those that leave no trace.
_DOTS = re.compile(r"[.\u3002\uff0e\uff61]+")
_UNSEEN = re.compile("[\u00ad\u034f\u180b-\u180f\u200b\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_JOINERS = re.compile("[\u200c\u200d]")

# What a text becomes before it is searched: itself with the quoted strings, by place.
_Prepare: TypeAlias = Callable[[str], tuple[str, dict[int, str]]]


class Author(NamedTuple):
    """One address. `domain` is in lower case and of A-labels, "" where the DNS has no such."""

    address: str
    domain: str


@dataclass(frozen=True, slots=True)
class Authors:
    """What the From fields of a message say.

    `fields` is how many there are. `complete` is false where there was more than is read,
    `certain` where the authors were guessed. An address stands there once.
    """

    fields: int
    found: tuple[Author, ...]
    complete: bool = True
    certain: bool = True

    @property
    def domains(self) -> tuple[str, ...]:
        """The different domains, in their order; "" among them for one that is unusable."""
        return tuple(dict.fromkeys(author.domain for author in self.found))


def read_authors(content: Octets) -> Authors:
    """Read the From fields of a message."""
    header = content[:_LONGEST_HEADER]
    end = header_end(header)
    values: list[str] = []
    left, complete, count = _LONGEST, end < _LONGEST_HEADER, 0
    for start in _starts(header, end):
        count += 1
        if count > _MOST_FIELDS or left <= 0:
            return _found(values, _MOST_FIELDS, complete=False)
        stop = min(end, start + left)
        # The name may be none to the reader of headers; the extent of the field is its.
        field = next(read_fields(header[start:stop]))
        if start + len(field.raw) == stop < end:
            complete = False
        left -= len(field.raw)
        values.append(_text(field.raw.partition(b":")[2]))
    return _found(values, count, complete=complete)


def to_ascii(domain: str) -> str:
    """The domain in lower case and of A-labels (RFC 5890 2.3), "" where it can be none.

    Forgiving as readers are: what compatibility folding makes of a character is what is
    meant (UTS 46, non-transitional), unseen characters and superfluous dots are not there.
    """
    if len(domain) > _LONGEST_SIDE:
        return ""
    return _to_ascii(domain)


@lru_cache(maxsize=1024)
def _to_ascii(domain: str) -> str:
    if not domain.isascii():
        folded = unicodedata.normalize("NFKC", _UNSEEN.sub("", domain)).lower()
        domain = _UNSEEN.sub("", unicodedata.normalize("NFKC", folded))
    labels = [_a_label(label) for label in _DOTS.split(domain.lower()) if label]
    name = ".".join(labels)
    fits = all(0 < len(label) <= 63 for label in labels) and len(name) <= 253
    return name if fits and not name.startswith("[") else ""


def _a_label(label: str) -> str:
    # Folding makes a blank and an accent of an accent that stands alone: no name has one.
    if len(label) > 63 or " " in label:
        return ""
    plain = _JOINERS.sub("", label)
    # RFC 5892 A.1, A.2: joiners belong to some scripts; between Latin letters they hide.
    if plain.isascii():
        return plain
    try:
        return "xn--" + label.encode("punycode").decode("ascii")
    except UnicodeError:
        return ""


def _starts(content: bytes, end: int) -> Iterator[int]:
    """Where a line begins that is a From field for somebody."""
    if _FIRST_FIELD.match(content, 0, end):
        yield 0
    for match in _FIELD.finditer(content, 0, end):
        yield match.start(1)


def _text(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        # What is not UTF-8 is shown as Latin-1 by most.
        text = value.decode("latin-1")
    return text.translate(_CONTROLS)


def _found(values: list[str], fields: int, *, complete: bool) -> Authors:
    found, every = _unique(values, _masked)
    if found:
        return Authors(fields, found, complete and every)
    found, every = _unique(values, _guessed)
    return Authors(fields, found, complete and every, certain=False)


def _unique(values: list[str], prepare: _Prepare) -> tuple[tuple[Author, ...], bool]:
    """The addresses of all values, each once, and whether these are all."""
    found: dict[Author, None] = {}
    complete = True
    for value in values:
        text, quoted = prepare(value)
        if text.count("@") > _MOST_AT_SIGNS:
            text = "@".join(text.split("@", _MOST_AT_SIGNS)[:-1])
            complete = False
        found.update(dict.fromkeys(_addresses(text, quoted)))
    return tuple(found)[:_MOST_ADDRESSES], complete and len(found) <= _MOST_ADDRESSES


def _masked(text: str) -> tuple[str, dict[int, str]]:
    """The text without its comments, with a mark for each quoted string; and those, by place.

    A quote or parenthesis that is not closed is a character like any other, and so are
    those of its kind behind it.
    """
    kept: list[str] = []
    quoted: dict[int, str] = {}
    done = length = 0
    quotes = comments = True
    while (quotes or comments) and len(kept) < 2 * _MOST_HIDDEN:
        opening = _OPENING[quotes, comments].search(text, done)
        if opening is None:
            break
        start = opening.start()
        if text[start] == '"':
            stop, instead = _quote_end(text, start), _MARK
            quotes = stop >= 0
        else:
            stop, instead = _comment_end(text, start), " "
            comments = stop >= 0
        if stop < 0:
            continue
        kept += (text[done:start], instead)
        length += start - done
        if instead == _MARK:
            quoted[length] = text[start:stop]
        length += 1
        done = stop
    kept.append(text[done:])
    return "".join(kept), quoted


def _quote_end(text: str, start: int) -> int:
    """Where the quoted string ends that begins at `start`, -1 where it does not."""
    match = _QUOTED.match(text, start)
    return match.end() if match is not None else -1


def _comment_end(text: str, start: int) -> int:
    """Where the comment ends that begins at `start`; comments nest. -1 where it does not."""
    depth = 0
    for each in _PARENTHESIS.finditer(text, start):
        if each[0] == "(":
            depth += 1
        elif each[0] == ")":
            depth -= 1
            if depth == 0:
                return each.end()
    return -1


def _guessed(text: str) -> tuple[str, dict[int, str]]:
    """The text with nothing hidden: encoded-words decoded, quotes and comments opened."""
    return _ENCODED_WORD.sub(_decoded_word, text).translate(_NOTHING_HIDES), {}


def _decoded_word(word: re.Match[str]) -> str:
    payload = word[3].encode()
    try:
        if word[2] in "bB":
            return _text(binascii.a2b_base64(payload + b"=" * (-len(payload) % 4)))
        return _text(binascii.a2b_qp(payload, header=True))
    except binascii.Error:
        return word[0]


def _addresses(text: str, quoted: dict[int, str]) -> list[Author]:
    """The addresses of a text without comments."""
    found: list[Author] = []
    bare: list[Author] = []
    at = text.find("@")
    while at >= 0:
        begin = max(text.rfind(each, 0, at) for each in _SEPARATORS) + 1
        stops = [stop for each in _SEPARATORS if (stop := text.find(each, at)) >= 0]
        end = min(stops, default=len(text))
        angle = text[begin - 1 : begin] == "<"
        # What stands before an angle bracket is meant to be a name.
        name = not angle and text[end : end + 1] == "<"
        author = _address(text, begin, at, end, quoted, tight=name)
        if author is not None:
            usual = angle or "." in author.domain or not author.domain
            (found if usual else bare).append(author)
        at = text.find("@", at + 1)
    # "Joe @ home" is a name, unless it is all that there is.
    return found or bare


def _address(
    text: str, begin: int, at: int, end: int, quoted: dict[int, str], *, tight: bool
) -> Author | None:
    """The address around an "@"; `tight` wants a whole one, without blanks."""
    limit = min(end, at + 1 + 2 * _LONGEST_SIDE)
    domain = (_TIGHT_DOMAIN if tight else _DOMAIN).match(text, at + 1, limit)
    before = text[max(begin, at - _LONGEST_SIDE) : at]
    stripped = before if tight else before.rstrip(" ")
    reversed_local = _REVERSED_LOCAL.match(stripped[::-1])
    if domain is None or (tight and reversed_local is None):
        return None
    local = reversed_local[0][::-1] if reversed_local is not None else ""
    if _MARK in local:
        place = at - len(before) + len(stripped) - len(local) + local.index(_MARK)
        local = local.replace(_MARK, quoted.get(place, '""')[:_LONGEST_SIDE])
    written = domain[0].replace(" ", "")
    return Author(f"{local}@{written[:_LONGEST_SIDE]}", to_ascii(written))
