"""x-mq-* header fields: who may use them, what each turns into, and taking them out.

Laws:

- A stranger's field is never read. From whom it is not honoured, it is taken out unread;
  with `smtp-extract: false` nothing is read and nothing taken out.
- Taking out removes the octets of the field and no other. Only the header block of the
  message itself is looked at, never the headers of its parts.
- Values are taken as written, unfolded: encoded-words (RFC 2047) are not decoded, because
  decoding can bring in characters that the field could not have held.
- A value that its property cannot have (no number, no date, no address, control
  characters, not UTF-8, too long) is as if it were not there, and its name is reported.
- Of a field that is not a list the first good one counts; a further one is reported.
- A name that the document uses for something else is never written, nor is one that
  does not begin with a letter or a digit ("__proto__").
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeVar

from msgspec import UNSET

from mailgw.document.schema import (
    Dsn,
    NextAttempt,
    Queues,
    Requested,
    Smarthost,
    property_names,
)
from mailgw.mail.headers import Field, header_end, read_fields, remove
from mailgw.mail.peer import Peer
from mailgw.smtp.address import BadAddress, parse_mailbox

PREFIX: Final = "x-mq-"
# More than anybody needs, and little enough that a document stays small.
MOST_VALUES: Final = 500
LONGEST_VALUE: Final = 10_000
LONGEST_NAME: Final = 100
MOST_REPORTED: Final = 50
_MOST_RETRIES: Final = 100

# Typed by the schema, or by MailerQ's own documents and what is to come of ours.
RESERVED: Final = property_names() | {
    "checks",
    "cli",
    "decision",
    "delayed",
    "domain",
    "extracted",
    "forcedip",
    "headers",
    "http",
    "key",
    "mta",
    "report",
    "results",
    "seen",
    "spool",
}

_CUSTOM_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


_NOTHING_REQUESTED: Final = Requested()
_NO_DSN: Final = Dsn()

T = TypeVar("T")


class Members(Protocol):
    """Addresses, asked one by one."""

    def __contains__(self, address: str, /) -> bool: ...


class Policy(Protocol):
    """Whose fields are honoured: the value of `smtp-extract`.

    `who` is "everybody", "nobody", "authenticated" or "networks"; `networks` counts
    with the last one only. The address asked for is the client's, not a proxy's.
    """

    @property
    def who(self) -> str: ...

    @property
    def networks(self) -> Members: ...


@dataclass(init=False, slots=True)
class Extraction:
    """What the fields of one message asked for, and the message without them.

    `custom` holds the strings of names that have no meaning of their own. `rejected`
    names the fields that were honoured but brought nothing.
    """

    content: Final[bytes]
    requested: Final[Requested]
    envelope: Final[str | None]
    dsn: Final[Dsn]
    custom: Final[dict[str, str]]
    rejected: Final[tuple[str, ...]]

    def __init__(
        self,
        content: bytes,
        requested: Requested,
        envelope: str | None,
        dsn: Dsn,
        custom: dict[str, str],
        rejected: tuple[str, ...],
    ) -> None:
        self.content = content
        self.requested = requested
        self.envelope = envelope
        self.dsn = dsn
        self.custom = custom
        self.rejected = rejected


_STRIDE: Final = 1024 * 1024


class _BadValueError(ValueError):
    """The property cannot have this value."""


def extract(content: bytes, peer: Peer, policy: Policy, end: int | None = None) -> Extraction:
    """Take the x-mq-* fields out of a message, and read them if the client may use them.

    `end` is `header_end` of the content, where it is known.
    """
    if policy.who == "nobody":
        return _nothing(content)
    if end is None:
        end = header_end(content)
    # Nearly all mail ends here, and the header block was searched, not read.
    if not _mentioned(content, end):
        return _nothing(content)
    fields = [f for f in read_fields(content, end) if f.name.startswith(PREFIX)]
    stripped = remove(content, fields)
    if not honours(policy, peer):
        return _nothing(stripped)
    return _read(fields, stripped)


def _nothing(content: bytes) -> Extraction:
    """What it is where nothing was asked for."""
    return Extraction(content, _NOTHING_REQUESTED, None, _NO_DSN, {}, ())


def _mentioned(content: bytes, end: int) -> bool:
    """Whether the prefix stands anywhere before `end`, looked for in strides."""
    if end <= _STRIDE:
        return b"x-mq-" in content[:end].lower()
    return any(
        b"x-mq-" in content[start : min(start + _STRIDE + 4, end)].lower()
        for start in range(0, end, _STRIDE)
    )


def honours(policy: Policy, peer: Peer) -> bool:
    """Whether this client's x-mq-* fields are read."""
    match policy.who:
        case "everybody":
            return True
        case "authenticated":
            return peer.user is not None
        case "networks":
            return peer.remote_ip in policy.networks
        case _:
            return False


def _read(fields: list[Field], stripped: bytes) -> Extraction:
    seen = _Seen()
    # A dict keeps the order and drops repeats.
    rejected: dict[str, None] = {}
    for number, header in enumerate(fields):
        name = header.name[len(PREFIX) :]
        try:
            if number >= MOST_VALUES or len(name) > LONGEST_NAME:
                raise _BadValueError(name)
            seen.take(name, _text(header.value))
        except _BadValueError:
            if len(rejected) < MOST_REPORTED:
                rejected[header.name[:LONGEST_NAME]] = None
    return Extraction(
        content=stripped,
        requested=seen.requested(),
        envelope=seen.texts.get("envelope"),
        dsn=Dsn(**{name: seen.texts.get(f"dsn-{name}", UNSET) for name in _DSN}),
        custom=seen.custom,
        rejected=tuple(rejected),
    )


_DSN: Final = ("notify", "ret", "orcpt", "envid")
_QUEUES: Final = ("results", "failure", "success", "retry", "dsn")


class _Seen:
    """The values so far, sorted by type."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self.flags: dict[str, bool] = {}
        self.ips: list[str] = []
        self.tags: list[str] = []
        self.retries: list[int] = []
        self.custom: dict[str, str] = {}

    def take(self, name: str, value: str) -> None:
        """Keep one value under its name; raises _BadValueError where it cannot count."""
        name = _ALIASES.get(name, name)
        if name == "ip":
            self.ips.append(_ip(value))
        elif name == "tag":
            self.tags.append(_filled(value))
        elif name == "retries":
            if self.retries:
                raise _BadValueError(name)
            self.retries = _numbers(value)
        elif name in _TEXTS:
            _first(self.texts, name, _TEXTS[name](value))
        elif name in _NUMBERS:
            _first(self.numbers, name, _number(value, *_NUMBERS[name]))
        elif name in _FLAGS:
            _first(self.flags, name, _flag(value))
        elif _custom(name):
            _first(self.custom, name, value)
        else:
            raise _BadValueError(name)

    def requested(self) -> Requested:
        texts, numbers, flags = self.texts, self.numbers, self.flags
        queues = {name: texts[f"{name}-queue"] for name in _QUEUES if f"{name}-queue" in texts}
        smarthost = Smarthost(
            hostname=texts.get("smarthost-hostname", UNSET),
            port=numbers.get("smarthost-port", UNSET),
            username=texts.get("smarthost-username", UNSET),
            password=texts.get("smarthost-password", UNSET),
        )
        return Requested(
            ips=self.ips or UNSET,
            pool=texts.get("pool", UNSET),
            tags=self.tags or UNSET,
            nextattempt=NextAttempt(time=texts["delayed"]) if "delayed" in texts else UNSET,
            maxdelivertime=texts.get("maxdelivertime", UNSET),
            maxattempts=numbers.get("maxattempts", UNSET),
            retries=self.retries or UNSET,
            inlinecss=flags.get("inlinecss", UNSET),
            keepmime=flags.get("keepmime", UNSET),
            force=flags.get("force", UNSET),
            priority=numbers.get("priority", UNSET),
            queues=Queues(**queues) if queues else UNSET,
            smarthost=smarthost if smarthost != Smarthost() else UNSET,
        )


def _first(values: dict[str, T], name: str, value: T) -> None:
    if name in values:
        raise _BadValueError(name)
    values[name] = value


def _text(value: bytes) -> str:
    if len(value) > LONGEST_VALUE:
        raise _BadValueError
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise _BadValueError from None
    if _CONTROL.search(text):
        raise _BadValueError
    return text


def _filled(value: str) -> str:
    if not value:
        raise _BadValueError
    return value


def _ip(value: str) -> str:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise _BadValueError from None
    # A scope (fe80::1%eth0) means something on one machine only.
    if "%" in value:
        raise _BadValueError
    return str(address)


def _time(value: str) -> str:
    if not _TIME.fullmatch(value):
        raise _BadValueError
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise _BadValueError from None
    return value


def _address(value: str) -> str:
    if value.startswith("<") and value.endswith(">"):
        value = value[1:-1]
    try:
        address = parse_mailbox(value)
    except BadAddress:
        raise _BadValueError from None
    if not address.domain:
        raise _BadValueError
    return str(address)


def _number(value: str, least: int, most: int) -> int:
    if not _NUMBER.fullmatch(value) or not least <= int(value) <= most:
        raise _BadValueError
    return int(value)


def _numbers(value: str) -> list[int]:
    words = value.split(",")
    if len(words) > _MOST_RETRIES:
        raise _BadValueError
    return [_number(word.strip(" \t"), 0, 999_999_999) for word in words]


def _flag(value: str) -> bool:
    match value.lower():
        case "1" | "true":
            return True
        case "0" | "false":
            return False
        case _:
            raise _BadValueError


def _custom(name: str) -> bool:
    return (
        _CUSTOM_NAME.fullmatch(name) is not None
        and name not in RESERVED
        and not name.startswith("mime-")
    )


# The name before MailerQ 4.2.
_ALIASES: Final = {"smarthost-name": "smarthost-hostname"}
_TEXTS: Final[dict[str, Callable[[str], str]]] = {
    "envelope": _address,
    "pool": _filled,
    "delayed": _time,
    "maxdelivertime": _time,
    "smarthost-hostname": _filled,
    "smarthost-username": _filled,
    "smarthost-password": _filled,
    **{f"{name}-queue": _filled for name in _QUEUES},
    **{f"dsn-{name}": _filled for name in _DSN},
}
_NUMBERS: Final = {
    "maxattempts": (0, 999_999_999),
    "priority": (0, 255),
    "smarthost-port": (1, 65535),
}
_FLAGS: Final = frozenset({"inlinecss", "keepmime", "force"})
