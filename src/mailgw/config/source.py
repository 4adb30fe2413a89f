"""Where values come from: files, environment, command line.

Each source gives entries (key, text, origin) and findings; nothing here knows what a
value means. A file is lines of `key: value`; values stand bare and go to the end of the
line, so a `#` is a comment only at the start of a line. No value is ever quoted in a
finding here: which one is secret is not known yet.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mailgw.config.finding import Finding, Severity

ENVIRONMENT = "environment"
COMMAND_LINE = "command line"
DEFAULT = "default"

_PREFIX = "MAILGW_"
# Not ours to judge: what the test-suite reads, and what Kubernetes puts into every pod
# beside a service whose name begins with mailgw.
_NOT_KEYS = re.compile(
    r"MAILGW_TEST_.*"
    r"|MAILGW(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)"
    r"|MAILGW_PORT"
)
# No configuration is this long; a device or a log given by mistake may be.
_LONGEST_FILE = 1_000_000
_BLANKS = " \t"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One key as somebody wrote it. `file` is the file it stands in, if it stands in one.

    `lines` are the entries it was put together from, where it stands on several lines.
    """

    key: str
    text: str
    origin: str
    file: Path | None = None
    lines: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """Every name there is or was: `today` holds the one to write now.

    `aliases` are other spellings, taken for the key they stand for. The keys in `several`
    may stand on several lines.
    """

    today: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)
    several: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Source:
    """What one source said: its entries by key, and what was wrong with it."""

    entries: Mapping[str, Entry]
    findings: tuple[Finding, ...]


def from_file(file: Path, known: Known) -> Source:
    """Read one file. Whatever is wrong with it becomes a finding, never an exception."""
    name = printable(str(file))
    try:
        with file.open("rb") as opened:
            data = opened.read(_LONGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name holds a NUL"
        return Source({}, (_error(name, "", f"cannot be read: {reason}"),))
    if len(data) > _LONGEST_FILE:
        text = f"is longer than {_LONGEST_FILE} octets, which no configuration is"
        return Source({}, (_error(name, "", text),))
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Source({}, (_error(name, "", "is UTF-16 (save it as UTF-8)"),))
    # Editors on Windows put a mark in front of UTF-8, which means nothing there.
    data = data.removeprefix(b"\xef\xbb\xbf")
    written: list[Entry] = []
    findings: list[Finding] = []
    for number, raw in enumerate(data.split(b"\n"), start=1):
        result = _line(raw, f"{name}:{number}", file)
        if isinstance(result, Finding):
            findings.append(result)
        elif result is not None:
            written.append(result)
    return _gather(written, known, findings)


def from_environment(environ: Mapping[str, str], known: Known) -> Source:
    """Read the variables MAILGW_*: MAILGW_SMTP_PORT is the key smtp-port."""
    written: list[Entry] = []
    findings: list[Finding] = []
    names = {variable(key): key for key in known.today}
    for name, text in sorted(environ.items()):
        if not name.startswith(_PREFIX) or _NOT_KEYS.fullmatch(name):
            continue
        if name in names:
            written.append(Entry(names[name], text.strip(_BLANKS), ENVIRONMENT))
        else:
            # Without the prefix, which would make all of them alike.
            spelled = name.removeprefix(_PREFIX).lower().replace("_", "-")
            hint = _nearest(spelled, {key: variable(today) for key, today in known.today.items()})
            findings.append(_error(ENVIRONMENT, printable(name), f"is no key{hint}"))
    return _gather(written, known, findings)


def from_arguments(arguments: Sequence[tuple[str, str]], known: Known) -> Source:
    """Read (key, text) pairs from the command line."""
    written = [Entry(key, text.strip(_BLANKS), COMMAND_LINE) for key, text in arguments]
    return _gather(written, known, [])


def variable(key: str) -> str:
    """The environment variable that sets `key`."""
    return _PREFIX + key.upper().replace("-", "_")


def printable(text: str) -> str:
    """`text` without anything that could disturb a terminal or a log line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _line(raw: bytes, origin: str, file: Path) -> Entry | Finding | None:
    try:
        line = raw.removesuffix(b"\r").decode("utf-8").strip(_BLANKS)
    except UnicodeDecodeError as error:
        octet = raw[error.start]
        return _error(origin, "", f"is not UTF-8 text (octet 0x{octet:02x})")
    if not line or line.startswith("#"):
        return None
    key, colon, text = line.partition(":")
    key = key.rstrip(_BLANKS)
    # A bare word or key=value, not a key that merely is unknown.
    if not colon or not key or re.search(r"[\s=]", key):
        return _error(origin, "", 'is not of the form "key: value" (try smtp-port: 25)')
    return Entry(key, text.strip(_BLANKS), origin, file)


def _gather(written: Sequence[Entry], known: Known, findings: Sequence[Finding]) -> Source:
    entries: dict[str, Entry] = {}
    found = list(findings)
    for each in written:
        entry = replace(each, key=known.aliases.get(each.key, each.key))
        before = entries.get(entry.key)
        found.extend(_objections(entry, before, known))
        if before is not None and entry.key in known.several:
            entries[entry.key] = _joined(before, entry)
        elif entry.key in known.today:
            entries.setdefault(entry.key, entry)
    return Source(entries, tuple(found))


def _joined(before: Entry, entry: Entry) -> Entry:
    text = ",".join(filter(None, (before.text, entry.text)))
    return replace(before, text=text, lines=(*(before.lines or (before,)), entry))


def _objections(entry: Entry, before: Entry | None, known: Known) -> Iterator[Finding]:
    if entry.key not in known.today:
        hint = _nearest(entry.key.lower(), known.today)
        yield _error(entry.origin, printable(entry.key), f"is no key{hint}")
    elif before is not None and entry.key not in known.several:
        where = "" if before.file is None else f", first at {before.origin}"
        yield _error(entry.origin, entry.key, f"is given twice{where} (keep one)")
    elif _CONTROL.search(entry.text) or not _encodable(entry.text):
        yield _error(entry.origin, entry.key, "holds a control character or broken UTF-8")


def _encodable(text: str) -> bool:
    # The environment and the command line carry undecodable octets as lone surrogates.
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _nearest(name: str, today: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(name, sorted(today), n=1, cutoff=0.6)
    return f" (did you mean {today[close[0]]}?)" if close else " (show-config lists them all)"


def _error(origin: str, key: str, text: str) -> Finding:
    return Finding(Severity.ERROR, origin, key, text)
