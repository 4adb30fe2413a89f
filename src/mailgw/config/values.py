"""Text to value: one function per kind of value.

Each takes the text of one key, blanks around it removed, and returns the value or
raises BadValue, which says what is wrong and what would be right. The text itself is
quoted by the caller, who knows whether it is secret.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

W = TypeVar("W", bound=str)

_TRUE = frozenset({"true", "yes", "on", "1"})
# An empty value means off.
_FALSE = frozenset({"false", "no", "off", "0", ""})

# KB and its like as on disks and in SI: powers of 1000. KiB and its like: IEC 80000-13.
_UNITS = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
_SIZE = re.compile(r"([0-9]{1,15})(\.[0-9]{1,6})?[ \t]*([a-z]*)", re.IGNORECASE)
_SECONDS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)[ \t]*([a-z]*)", re.IGNORECASE)
_WHOLE = re.compile(r"[0-9]{1,18}")
_PORTS = re.compile(r"([0-9]{1,5})(?:[ \t]*-[ \t]*([0-9]{1,5}))?")
_MOST_PORTS = 1000

# RFC 1123 2.1 and RFC 1035 2.3.4: letters, digits and inner hyphens, 63 a label, 255 in all.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ENDPOINT = re.compile(r"(?:\[(?P<six>[^]%]+)\]|(?P<four>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?")
# What useradd(8) of Debian takes; a colon or a slash would not fit into passwd(5).
_USER = re.compile(r"[^\s:,/-][^\s:,/]{0,31}")
_STREAMS = frozenset({"stdout", "stderr", "syslog"})
_NAME = r"[^\W\d]\w*"
_DOTTED = re.compile(rf"{_NAME}(?:\.{_NAME})*:{_NAME}(?:\.{_NAME})*")
_SERVER_ID = re.compile(r"[A-Za-z0-9]{1,16}")


class BadValue(ValueError):
    """What is `wrong` with a value, and what would be `right`; neither holds the value itself."""

    def __init__(self, wrong: str, right: str = "") -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.right = right


def as_is(text: str) -> str:
    return text


def truth(text: str) -> bool:
    """true, yes, on, 1 or false, no, off, 0; empty is false."""
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise BadValue("is neither true nor false", "try true or false")


def size(text: str) -> int:
    """Octets: bare, or with B, KB MB GB (powers of 1000), KiB MiB GiB (powers of 1024)."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise BadValue("is not a size", "try 100MB")
    whole, fraction, unit = match.groups()
    factor = _UNITS.get(unit.lower())
    if factor is None:
        raise BadValue("is not a size", f"try {whole}MB")
    return int(whole) * factor + int(float(fraction or "0") * factor)


def size_of_at_least(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        octets = size(text)
        if octets < minimum:
            raise BadValue("is too small", f"at least {minimum}")
        return octets

    return parse


def duration(text: str) -> float:
    """Seconds, bare or with ms, s, m, h, d; more than nothing."""
    match = _DURATION.fullmatch(text)
    factor = _SECONDS.get(match.group(2).lower()) if match else None
    if match is None or factor is None:
        raise BadValue("is not a number of seconds", "try 300")
    seconds = float(match.group(1)) * factor
    if seconds == 0:
        raise BadValue("is no time at all", "try 300")
    return seconds


def pause(text: str) -> float:
    """A duration that may be none at all: 0 or empty."""
    match = _DURATION.fullmatch(text)
    if not text or (match and float(match.group(1)) == 0):
        return 0.0
    return duration(text)


def seconds(text: str) -> int:
    """A duration of whole seconds."""
    found = duration(text)
    if found != int(found):
        raise BadValue("is not a number of whole seconds", f"try {int(found) + 1}")
    return int(found)


def whole(minimum: int, maximum: int) -> Callable[[str], int]:
    """A whole number between the two, both included."""

    def parse(text: str) -> int:
        if not _WHOLE.fullmatch(text):
            raise BadValue("is not a whole number", f"{minimum} to {maximum}")
        number = int(text)
        if number < minimum:
            raise BadValue("is too small", f"at least {minimum}")
        if number > maximum:
            raise BadValue("is too large", f"at most {maximum}")
        return number

    return parse


def optional(parse: Callable[[str], int]) -> Callable[[str], int | None]:
    """The same, and None for the empty value."""
    return lambda text: parse(text) if text else None


def word(*choices: W, later: tuple[str, ...] = ()) -> Callable[[str], W]:
    """One of `choices`; those in `later` are known, and refused as not available yet."""

    def parse(text: str) -> W:
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        named = " or ".join(choice or "an empty value" for choice in choices)
        if text.lower() in later:
            raise BadValue("is not available yet", f"try {named}")
        raise BadValue("is not one of its words", f"try {named}")

    return parse


def dsn_notify(text: str) -> str:
    """NEVER, or FAILURE, DELAY and SUCCESS separated by commas (RFC 3461 4.1); empty is none."""
    words = [part.upper() for part in parts(text, ",")]
    if words != ["NEVER"] and not {"FAILURE", "DELAY", "SUCCESS"}.issuperset(words):
        raise BadValue("is not when to report", "try NEVER or FAILURE,DELAY,SUCCESS")
    return ",".join(dict.fromkeys(words))


def words(*choices: W) -> Callable[[str], tuple[W, ...]]:
    """Any of `choices`, separated by commas or `;`, in the order of the choices; empty is none."""

    def parse(text: str) -> tuple[W, ...]:
        written = {part.lower() for part in parts(text, "[;,]")}
        if not written <= set(choices):
            raise BadValue(
                "holds something that is not one of its words", f"try {', '.join(choices)}"
            )
        return tuple(choice for choice in choices if choice in written)

    return parse


def path(text: str) -> Path | None:
    """A file; empty is None. A relative one starts at the working directory."""
    return Path(text) if text else None


def addresses(text: str) -> tuple[str, ...]:
    """IP addresses, separated by `;` or `,`; empty is none. Repeated ones count once."""
    found = []
    for part in parts(text, "[;,]"):
        try:
            found.append(str(ipaddress.ip_address(part)))
        except ValueError:
            raise BadValue("is not a list of IP addresses", "try 127.0.0.1; ::1") from None
    return tuple(dict.fromkeys(found))


def ports(text: str) -> tuple[int, ...]:
    """Ports and ranges of ports, separated by commas: 25,2525,1024-1026; empty is none."""
    found: list[int] = []
    for part in parts(text, ","):
        match = _PORTS.fullmatch(part)
        if match is None:
            raise BadValue("is not a list of ports", "try 25,2525 or 1024-1026")
        first = int(match.group(1))
        last = int(match.group(2) or first)
        if last > 65535:
            raise BadValue("holds a port above 65535", "try 25,2525 or 1024-1026")
        if last < first:
            raise BadValue("holds a range that runs backwards", f"try {last}-{first}")
        found.extend(range(first, last + 1))
        if len(found) > _MOST_PORTS:
            raise BadValue(f"is more than {_MOST_PORTS} ports", "try a shorter range")
    return tuple(dict.fromkeys(found))


def hostname(text: str) -> str:
    """A domain name; empty stays empty."""
    if text and (len(text) > 255 or not _HOSTNAME.fullmatch(text)):
        raise BadValue("is not a host name", "try mx.example.com")
    return text


def zones(text: str) -> tuple[str, ...]:
    """Domain names, separated by commas or `;`; empty is none. Repeated ones count once."""
    found = [part.lower().removesuffix(".") for part in parts(text, "[;,]")]
    for each in found:
        # 32 labels and more go in front: the reversed address, at most 64 octets of it.
        if not each or len(each) > 190 or not _HOSTNAME.fullmatch(each):
            raise BadValue("is not a list of domain names", "try zen.example.org, bl.example.net")
    return tuple(dict.fromkeys(found))


def domains(text: str) -> tuple[str, ...]:
    """Domain names in lower case, separated by commas or `;`; empty is none."""
    found = [part.lower().removesuffix(".") for part in parts(text, "[;,]")]
    if any(len(each) > 253 or not _HOSTNAME.fullmatch(each) for each in found):
        raise BadValue("is not a list of domain names", "try example.org, example.net")
    return tuple(dict.fromkeys(found))


def endpoints(text: str) -> tuple[tuple[str, int], ...]:
    """Addresses with ports, 53 where there is none: 192.0.2.1:5353; [2001:db8::1]."""
    found = []
    for part in parts(text, "[;,]"):
        match = _ENDPOINT.fullmatch(part)
        try:
            if match is None:
                raise ValueError(part)
            if match["six"]:
                address = str(ipaddress.IPv6Address(match["six"]))
            else:
                address = str(ipaddress.IPv4Address(match["four"]))
        except ValueError:
            raise BadValue(
                "is not a list of addresses", "try 192.0.2.1; 192.0.2.2:5353; [2001:db8::1]:53"
            ) from None
        port = int(match["port"] or 53)
        if not 1 <= port <= 65535:
            raise BadValue("holds a port that does not exist", "1 to 65535")
        found.append((address, port))
    return tuple(dict.fromkeys(found))


def user(text: str) -> str:
    """The name of a user of this system; empty stays empty."""
    if text and not _USER.fullmatch(text):
        raise BadValue("is not the name of a user", "try mailgw")
    return text


def logs(text: str) -> tuple[str, ...]:
    """stdout, stderr, syslog and paths of files, separated by commas; empty is none."""
    found = []
    for part in parts(text, ","):
        if part.lower() in _STREAMS:
            found.append(part.lower())
        elif "/" in part:
            found.append(part)
        else:  # more likely a word misspelled than a file
            raise BadValue(
                "holds something that is neither a log nor the path of a file",
                "try stdout, stderr, syslog or /var/log/mailgw.log",
            )
    return tuple(dict.fromkeys(found))


def dotted(text: str) -> str:
    """What an extension is called by: package.module:Name; empty stays empty."""
    if text and not _DOTTED.fullmatch(text):
        raise BadValue("is not the name of a class", "try package.module:Class")
    return text


def several_dotted(text: str) -> tuple[str, ...]:
    """Such names, separated by commas, in their order."""
    return tuple(dotted(part) for part in parts(text, ","))


def server_id(text: str) -> str:
    """Letters and digits; it becomes part of every message-id."""
    if not _SERVER_ID.fullmatch(text):
        raise BadValue("is not a server id", "1 to 16 letters and digits, try 1")
    return text


def queue(text: str) -> str:
    """The name of a queue or an exchange; empty stays empty."""
    # AMQP 0-9-1 1.2: a short string; 1.4.1.6: names with amq. are the broker's own.
    if len(text.encode("utf-8")) > 255:
        raise BadValue("is too long for a name in AMQP", "at most 255 octets")
    if text.startswith("amq."):
        raise BadValue("is a name kept for the broker itself", "try one without amq. in front")
    return text


def named_queue(text: str) -> str:
    """The name of a queue, which must be given."""
    if not text:
        raise BadValue("is not a queue, and received mail needs one", "try inbox")
    return queue(text)


def mask_all(text: str) -> str:
    return "***" if text else ""


def parts(text: str, separators: str) -> list[str]:
    """What stands between the separators, blanks around it removed; nothing is no part."""
    return [part.strip() for part in re.split(separators, text) if part.strip()]
