"""Octets of a stranger as text, and header fields out of it: bounded, never raising."""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping

from msgspec import UNSET, UnsetType

LONGEST_TEXT = 2000

# Charsets that mail is written in. Others, codecs that are none among them (zip, punycode,
# unicode_escape), are slow, warn, or mean something else.
_CHARSET = re.compile(
    r"utf-?8|us-ascii|iso-8859-\d{1,2}|windows-125\d|cp125\d|koi8-[ru]|iso-2022-(jp|kr)"
    r"|euc-(jp|kr)|shift_jis|big5|gb2312|gbk|gb18030"
)
_NAME = re.compile(r"[!-9;-~]{1,100}")
_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,40})(?:\*[^?\s]*)?\?([bq])\?([^?]*)\?=", re.IGNORECASE)


def normalised(octets: bytes) -> bytes:
    """Line ends as LF, whether they were CRLF, CR or LF."""
    if b"\r" not in octets:
        return octets
    return octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def decoded(octets: bytes, charset: str = "utf-8") -> str:
    """The octets as text, with U+FFFD for what is none."""
    charset = charset.lower()
    if not _CHARSET.fullmatch(charset):
        charset = "utf-8"
    try:
        return octets.decode(charset, "replace")
    except (LookupError, ValueError):
        return octets.decode("utf-8", "replace")


class Fields:
    """Header fields by name in lower case, unfolded, in their order.

    Lines that are no field are passed by; only those named in `only` are kept, where it is
    given, and no more than `most`.
    """

    def __init__(self, block: str, only: frozenset[str] = frozenset(), most: int = 500) -> None:
        self._values: dict[str, list[str]] = {}
        last: list[str] | None = None
        kept = 0
        for line in block.split("\n"):
            # RFC 5322 2.2.3: a line that begins with a blank continues the field above it.
            if line[:1] in (" ", "\t"):
                if last is not None and len(last[-1]) < LONGEST_TEXT:
                    last[-1] = f"{last[-1]} {line[:LONGEST_TEXT].strip()}"
                continue
            name, colon, value = line.partition(":")
            name = name.rstrip().lower()
            if not colon or (name not in only if only else not _NAME.fullmatch(name)):
                last = None
                continue
            if kept == most:
                break
            kept += 1
            last = self._values.setdefault(name, [])
            last.append(value[:LONGEST_TEXT].strip())

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __bool__(self) -> bool:
        return bool(self._values)

    def names(self) -> list[str]:
        return list(self._values)

    def get(self, name: str) -> str:
        """The first field's value, "" where there is none."""
        values = self._values.get(name)
        return values[0] if values else ""

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def text(self, name: str) -> str | UnsetType:
        """As `get`, bounded, for a member that is left out where it is absent."""
        return told(self.get(name))

    def texts(self, name: str, most: int = 100) -> list[str] | UnsetType:
        return [value[:LONGEST_TEXT] for value in self.all(name)[:most] if value] or UNSET


def told(value: str) -> str | UnsetType:
    """The value, bounded; UNSET where it is empty."""
    return value[:LONGEST_TEXT] or UNSET


def without_type(value: str) -> str:
    """What follows the type of an RFC 3464 field: "rfc822; joe@x" is "joe@x"."""
    kind, semicolon, rest = value.partition(";")
    return (rest if semicolon and "@" not in kind else value).strip()


def whole_number(value: str) -> int | UnsetType:
    """A number as reports have them; UNSET for what is none or absurd."""
    value = value.strip()
    # isascii: other scripts have digits, too.
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 15 else UNSET


def readable(value: str) -> str:
    """A header value with its encoded-words (RFC 2047) decoded, for matching only."""
    value = value[:LONGEST_TEXT]
    return _ENCODED_WORD.sub(_word, value) if "=?" in value else value


def _word(found: re.Match[str]) -> str:
    octets = found[3].encode("utf-8", "replace")
    try:
        if found[2] in "bB":
            octets = binascii.a2b_base64(octets + b"==")
        else:
            octets = binascii.a2b_qp(octets, header=True)
    except binascii.Error:
        return found[0]
    return decoded(octets, found[1])


def parameters(value: str) -> tuple[str, Mapping[str, str]]:
    """A Content-Type or Content-Disposition as its value in lower case and its parameters.

    Parameters in pieces (RFC 2231 3) are put together; the language and charset of an
    extended one are left in place, as nothing here depends on them.
    """
    kind, _, rest = value[:LONGEST_TEXT].partition(";")
    found: dict[str, str] = {}
    for each in _PARAMETER.finditer(rest):
        name = each[1].lower().split("*")[0]
        content = _ESCAPE.sub(r"\1", each[2]) if each[2] is not None else each[3]
        # The first counts, unless it is one of several pieces.
        if name not in found:
            found[name] = content
        elif "*" in each[1]:
            found[name] += content
    return kind.split("(")[0].strip().lower(), found


_PARAMETER = re.compile(r'([A-Za-z0-9*_-]{1,40})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))')
_ESCAPE = re.compile(r"\\(.)")
