"""AUTH exchanges (RFC 4954): PLAIN (RFC 4616) and LOGIN.

An exchange is a generator: it yields challenges, is sent the client's decoded
responses, and returns (username, password). It raises Refusal for a broken one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Generator
from typing import Final

from mailgw.smtp import reply
from mailgw.smtp.reply import Refusal, Reply

Exchange = Generator[bytes, bytes, tuple[str, str]]

# Generous for people, small for us; RFC 4616 2 allows 255 octets each.
_LONGEST_CREDENTIAL: Final = 255


def _plain(initial: bytes | None) -> Exchange:
    response = (yield b"") if initial is None else initial
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise Refusal(reply.AUTH_BAD_BASE64)
    authorization, username, password = parts
    # RFC 4616 2: acting for somebody else is not offered.
    if authorization and authorization != username:
        raise Refusal(reply.AUTH_FAILED)
    return _text(username), _text(password)


def _login(initial: bytes | None) -> Exchange:
    username = (yield b"Username:") if initial is None else initial
    password = yield b"Password:"
    return _text(username), _text(password)


MECHANISMS: Final[dict[str, Callable[[bytes | None], Exchange]]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
}


def _text(octets: bytes) -> str:
    if not octets or len(octets) > _LONGEST_CREDENTIAL:
        raise Refusal(reply.AUTH_FAILED)
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(reply.AUTH_FAILED) from None
    if not text.isprintable():
        raise Refusal(reply.AUTH_FAILED)
    return text


def decode(line: str, *, initial: bool = False) -> bytes:
    """The octets of a base64 response; raises Refusal where it is not base64."""
    # RFC 4954 4: "=" stands for an empty initial response, "*" takes the exchange back.
    if initial and line == "=":
        return b""
    if line == "*":
        raise Refusal(reply.AUTH_CANCELLED)
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(reply.AUTH_BAD_BASE64) from None


def challenge(octets: bytes) -> Reply:
    """The 334 that asks for the next response."""
    return Reply(334, "", base64.b64encode(octets).decode("ascii"))
