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
from urllib.parse import SplitResult, urlsplit

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
_SERVER_ID = re.compile(r"[A-Za-z0-9]{1,16}")

_AMQP_HINT = "try amqp://user:password@host:5672/vhost; special characters as %XX"


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


def only_one(text: str) -> int:
    """The number 1: more will come, and must not be taken silently for one until then."""
    number = whole(1, 1_000_000)(text)
    if number != 1:
        raise BadValue("is not available yet", "only 1")
    return 1


def word(*choices: W, later: tuple[str, ...] = ()) -> Callable[[str], W]:
    """One of `choices`; those in `later` are known, and refused as not available yet."""

    def parse(text: str) -> W:
        for choice in choices:
            if text.lower() == choice:
                return choice
        named = " or ".join(choice or "an empty value" for choice in choices)
        if text.lower() in later:
            raise BadValue("is not available yet", f"try {named}")
        raise BadValue("is not one of its words", f"try {named}")

    return parse


def path(text: str) -> Path | None:
    """A file; empty is None. A relative one starts at the working directory."""
    return Path(text) if text else None


def addresses(text: str) -> tuple[str, ...]:
    """IP addresses, separated by `;` or `,`; empty is none. Repeated ones count once."""
    found = []
    for part in _parts(text, "[;,]"):
        try:
            found.append(str(ipaddress.ip_address(part)))
        except ValueError:
            raise BadValue("is not a list of IP addresses", "try 127.0.0.1; ::1") from None
    return tuple(dict.fromkeys(found))


def ports(text: str) -> tuple[int, ...]:
    """Ports and ranges of ports, separated by commas: 25,2525,1024-1026; empty is none."""
    found: list[int] = []
    for part in _parts(text, ","):
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


def brokers(text: str) -> tuple[str, ...]:
    """AMQP addresses, separated by commas; empty is none."""
    found = tuple(_parts(text, ","))
    for each in found:
        _split_amqp(each)
    return found


def mask_brokers(text: str) -> str:
    """Addresses of brokers without the passwords in them."""
    return ", ".join(_mask_url(urlsplit(each)) for each in _parts(text, ","))


def mask_all(text: str) -> str:
    return "***" if text else ""


def has_password(address: str) -> bool:
    """Whether an address of a broker carries a password."""
    return urlsplit(address).password is not None


def _split_amqp(address: str) -> None:
    if ";" in address:
        raise BadValue("holds a semicolon", "write several full addresses, separated by commas")
    try:
        url = urlsplit(address)
        port = url.port
    except ValueError:  # its text may quote the password
        raise BadValue("is not an AMQP address", _AMQP_HINT) from None
    # An @ behind the host is the rest of a password that held a bare slash.
    if url.scheme not in ("amqp", "amqps") or not url.hostname or port == 0 or "@" in url.path:
        raise BadValue("is not an AMQP address", _AMQP_HINT)
    if url.fragment:
        raise BadValue("holds a bare #", _AMQP_HINT)


def _mask_url(url: SplitResult) -> str:
    user, at, host = url.netloc.rpartition("@")
    if ":" in user:
        user = user.partition(":")[0] + ":***"
    # The key of a client certificate may have a password of its own.
    query = re.sub(r"(password=)[^&]*", r"\1***", url.query)
    return url._replace(netloc=user + at + host, query=query).geturl()


def _parts(text: str, separators: str) -> list[str]:
    return [part.strip() for part in re.split(separators, text) if part.strip()]
