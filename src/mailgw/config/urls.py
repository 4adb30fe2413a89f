"""Addresses of other services: brokers, databases, sources of credentials.

They hold passwords. So nothing raised here quotes what was read, and each kind has a
function beside it that gives the text without them, for everybody who shows it.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from mailgw.config.values import BadValue, parts

_AMQP_HINT = "try amqp://user:password@host:5672/vhost; special characters as %XX"
_AUTH_HINT = "try file:///etc/mailgw/users, https://host/path or hardcoded://user:password"
_AUTH_ELSEWHERE = frozenset({"ldap", "ldaps", "radius", "users", "exec"})
_DATABASE_HINT = "try sqlite:///file, postgresql://user:password@host/name or mysql://"


def brokers(text: str) -> tuple[str, ...]:
    """AMQP addresses, separated by commas; empty is none.

    In one of them, several hosts joined by semicolons are as many addresses alike.
    """
    found = tuple(address for each in parts(text, ",") for address in _per_host(each))
    for each in found:
        if _split(each, "is not an AMQP address", _AMQP_HINT).scheme not in ("amqp", "amqps"):
            raise BadValue("is not an AMQP address", _AMQP_HINT)
    return found


def _per_host(address: str) -> list[str]:
    scheme, separator, rest = address.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    # A password may hold a semicolon; the hosts stand behind the last @.
    user, at, hosts = authority.rpartition("@")
    tail = rest[len(authority) :]
    return [f"{scheme}{separator}{user}{at}{host}{tail}" for host in hosts.split(";")]


def mask_brokers(text: str) -> str:
    """Addresses of brokers without the passwords in them."""
    return ", ".join(mask_url(each) for each in parts(text, ","))


def credentials(text: str) -> str:
    """Where logins are looked up: hardcoded://user:password,..., file:///path, http(s)://."""
    if not text:
        return text
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if separator and scheme in _AUTH_ELSEWHERE:
        raise BadValue("is not available here", "use file:// or https://")
    if separator and scheme == "hardcoded":
        logins = [login.partition(":") for login in rest.split(",")]
        if not all(user and colon and password for user, colon, password in logins):
            raise BadValue("is not a list of logins", "try hardcoded://user:password,user2:other")
    elif separator and scheme == "file":
        if not rest.startswith("/") or not rest.strip("/") or "\0" in unquote(rest):
            raise BadValue("is not the address of a file", "try file:///etc/mailgw/users")
    elif separator and scheme in ("http", "https"):
        url = _split(text, "is not the address of a server", "try https://host/path")
        if "@" in url.netloc:
            raise BadValue("holds a login", "leave it out, the client's is sent")
    else:
        raise BadValue("is not a source of credentials", _AUTH_HINT)
    return text


def mask_credentials(text: str) -> str:
    """The source of credentials without those that it holds itself."""
    scheme, separator, _ = text.partition("://")
    if scheme.lower() == "hardcoded":
        return f"{scheme}{separator}***"
    return mask_url(text)


def file_of(url: str) -> Path | None:
    """The file that a file:// address names; None for all other addresses."""
    scheme, _, rest = url.partition("://")
    return Path(unquote(rest)) if scheme.lower() == "file" else None


def database(text: str) -> str:
    """sqlite:///file, postgresql://user:password@host/name, mysql:// alike; empty stays empty."""
    if not text:
        return text
    scheme, _, rest = text.partition("://")
    match scheme.lower():
        case "sqlite" if rest.startswith("/") and rest.strip("/"):
            return text
        case "postgresql" | "mysql":
            _split(text, "is not the address of a database", _DATABASE_HINT)
            return text
    raise BadValue("is not the address of a database", _DATABASE_HINT)


def mask_url(text: str) -> str:
    """An address without the password in it."""
    # By hand: urlsplit may raise, and its geturl does not give back what it was given.
    scheme, separator, rest = text.partition("://")
    end = next((at for at, c in enumerate(rest) if c in "/?#"), len(rest))
    user, at, host = rest[:end].rpartition("@")
    if ":" in user:
        user = user.partition(":")[0] + ":***"
    # The key of a client certificate may have a password of its own.
    tail = re.sub(r"(password=)[^&]*", r"\1***", rest[end:])
    return f"{scheme}{separator}{user}{at}{host}{tail}"


def _split(address: str, wrong: str, hint: str) -> SplitResult:
    try:
        url = urlsplit(address)
        port = url.port
    except ValueError:  # its text may quote the password
        raise BadValue(wrong, hint) from None
    # An @ behind the host is the rest of a password that held a bare slash.
    if not url.hostname or port == 0 or "@" in url.path:
        raise BadValue(wrong, hint)
    if url.fragment:
        raise BadValue("holds a bare #", hint)
    return url
