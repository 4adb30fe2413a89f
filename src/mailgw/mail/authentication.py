"""The Authentication-Results field (RFC 8601): ours written, those that pass for ours taken out.

Laws. What a stranger said stays inside its place in the field: a value that is more than
a token or an address is quoted, what no quoted string can hold becomes "?", and a value
longer than any real one is left out whole, since the half of a domain is another domain.
Taking out removes the octets of such fields and no other; in doubt whether a field claims
to be ours, it goes, because a consumer may read it either way.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from mailgw.mail.finding import Finding
from mailgw.mail.headers import header_end
from mailgw.smtp.address import to_unicode

# RFC 5322 2.1.1: lines of 78 characters for the reader.
_LINE: Final = 78
# RFC 5321 4.5.3.1: a local part of 64 octets, "@", a domain of 255.
_LONGEST_VALUE: Final = 320
_LONGEST_REASON: Final = 200
# RFC 2045 5.1 (token), and RFC 8601 2.2 (pvalue) with a local part of the same characters.
_WORD: Final = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_BARE: Final = re.compile(rf"{_WORD}|(?:{_WORD})?@{_LABEL}(?:\.{_LABEL})*")

_NAME: Final = b"authentication-results"
# The same fields that mail.headers.read_fields finds by this name: where they begin and end.
_FIELD: Final = re.compile(rb"^authentication-results[ \t]*:", re.IGNORECASE | re.MULTILINE)
_FIELD_END: Final = re.compile(rb"\n(?![ \t])")
# No real message has as many; RFC 8601 5 lets us take out any of them.
_MOST_READ: Final = 200
# Characters of a field in which the name of its server is looked for.
_FAR_ENOUGH: Final = 400
# Where a token ends (RFC 2045 5.1, tspecials), and blanks.
_ID: Final = re.compile(r"[^\s()<>@,;:\\/\[\]?=\"]+")


def results_field(hostname: str, findings: Sequence[Finding], *, smtputf8: bool = False) -> bytes:
    """Write the field, folded, with its line end; `hostname` is the authserv-id.

    Only a message of SMTPUTF8 has UTF-8 in it (RFC 8616 5); in others a domain is written
    as A-labels.
    """
    lines = [f"Authentication-Results: {_value(hostname, utf8=smtputf8) or 'unknown'};"]
    for finding in findings:
        lines.append("\t")
        for word in _words(finding, utf8=smtputf8):
            if lines[-1] == "\t":
                lines[-1] += word
            elif len(lines[-1]) + 1 + len(word) > _LINE:
                lines.append("\t\t" + word)
            else:
                lines[-1] += " " + word
        lines[-1] += ";"
    if findings:
        lines[-1] = lines[-1].removesuffix(";")
    else:  # RFC 8601 2.2: nothing was checked
        lines[-1] += " none"
    return ("\r\n".join(lines) + "\r\n").encode("utf-8", "replace")


def without_ours(content: bytes, hostname: str) -> bytes:
    """The message without the Authentication-Results fields that claim to be `hostname`'s."""
    end = header_end(content)
    header = content[:end]
    # Most mail that comes from outside has none.
    if _NAME not in header.lower():
        return content
    names = _spellings(hostname)
    kept: list[bytes] = []
    start = 0
    for number, begin in enumerate(_FIELD.finditer(header)):
        boundary = _FIELD_END.search(header, begin.end())
        stop = boundary.end() if boundary else end
        if number >= _MOST_READ or _claims(header[begin.end() : stop], names):
            kept.append(header[start : begin.start()])
            start = stop
    if not kept:
        return content
    return b"".join((*kept, content[start:]))


# --- writing ----------------------------------------------------------------------


def _words(finding: Finding, *, utf8: bool) -> Iterator[str]:
    """One result, as what may stand on lines of its own."""
    # RFC 8601 2.7.7: a method that is not registered begins with "x-".
    method = "x-spam" if finding.check == "spam" else finding.check
    yield f"{method}={finding.verdict}"
    if finding.reason:
        yield f"reason={_quoted(_printable(finding.reason[:_LONGEST_REASON], utf8=False))}"
    for name, text in finding.properties:
        value = _value(text, utf8=utf8)
        if value is not None:
            yield f"{name}={value}"


def _value(text: str, *, utf8: bool) -> str | None:
    """A value as it may stand in the field; None for one that is longer than any can be."""
    if len(text) > _LONGEST_VALUE:
        return None
    if not (utf8 or text.isascii()):
        text = _with_a_labels(text)
    text = _printable(text, utf8=utf8)
    if len(text.encode()) > _LONGEST_VALUE:
        return None
    return text if _BARE.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _printable(text: str, *, utf8: bool) -> str:
    # Neither line ends and controls, nor what separates lines or turns them around in Unicode.
    if text.isprintable() and (utf8 or text.isascii()):
        return text
    return "".join(c if c.isprintable() and (utf8 or c.isascii()) else "?" for c in text)


def _with_a_labels(text: str) -> str:
    local, at, domain = text.rpartition("@")
    return local + at + (_a_labels(domain) or domain)


# --- reading ----------------------------------------------------------------------


def _claims(value: bytes, names: frozenset[str]) -> bool:
    """Whether a field says that one of `names` wrote it, in any way to read it."""
    text = value[:_FAR_ENOUGH].decode("utf-8", "replace")
    whole = len(value) <= _FAR_ENOUGH
    for between in (" ", ""):
        reading = _without_comments(text, between, whole=whole)
        server = None if reading is None else _server(reading, joined=not between)
        if server is None:
            # Unclosed or empty: whatever has our name in it. No real name begins so late.
            return not whole or any(name in text.lower() for name in names)
        if not names.isdisjoint(_spellings(server)):
            return True
    return False


def _without_comments(text: str, between: str, *, whole: bool) -> str | None:
    """What stands before the results, with `between` for each comment.

    None where a comment or a string is not closed, or the end is not in the text.
    """
    kept: list[str] = []
    depth, quoted, escaped = 0, False, False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif quoted or (character == '"' and not depth):
            quoted = quoted != (character == '"')
        elif character == "(":
            depth += 1
        elif character == ")" and depth:
            depth -= 1
            if not depth:
                kept.append(between)
            continue
        elif character == ";" and not depth:
            break  # RFC 8601 2.2: the results begin, whatever is in them
        if not depth:
            kept.append(character)
    else:
        if not whole:
            return None
    return None if depth or quoted else "".join(kept)


def _server(text: str, *, joined: bool) -> str | None:
    """The authserv-id that a text without comments begins with; None where there is none."""
    if joined:
        text = re.sub(r"[\x00-\x08\x0e-\x1f\x7f]|\s*(?=\.)|(?<=\.)\s*", "", text)
    text = text.lstrip()
    if text.startswith('"'):
        end = re.match(r'"((?:[^"\\]|\\.)*)"', text, re.DOTALL)
        return re.sub(r"\\(.)", r"\1", end[1]).strip() if end else None
    found = _ID.match(text)
    return found[0] if found else None


def _spellings(name: str) -> frozenset[str]:
    """A name in the ways that mean the same: any case, final dot, A-labels and U-labels."""
    plain = unicodedata.normalize("NFC", name.lower()).rstrip(".")
    found: Iterable[str] = (plain, _a_labels(plain), to_unicode(plain).lower())
    return frozenset(each for each in found if each)


def _a_labels(name: str) -> str:
    """The domain as A-labels, "" where it has none."""
    try:
        return name.encode("idna").decode("ascii").lower().rstrip(".")
    except UnicodeError:
        return ""
