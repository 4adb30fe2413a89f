"""The message itself as the value of `mime`: a JSON string, or where it is kept instead.

Laws: the string gives back the message octet by octet, whatever was in it. It is made once
for all who get it, and a message on disk is never held as a whole besides it.
"""

from __future__ import annotations

from binascii import b2a_base64
from codecs import getincrementaldecoder
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from mailgw.document.built import Notes, TooLarge
from mailgw.mail.octets import SLICE, Octets, pieces, sha256

_encoder: Final = msgspec.json.Encoder()
_NO_MIME: Final = (b'""',)
_Utf8: Final = getincrementaldecoder("utf-8")


@dataclass(init=False, slots=True)
class Published:
    """The message as it is published; `key` names it where it is kept elsewhere."""

    content: Final[Octets]
    key: Final[str | None]
    sha256: Final[str | None]

    def __init__(self, content: Octets, key: str | None, sha256: str | None) -> None:
        self.content = content
        self.key = key
        self.sha256 = sha256


@dataclass(init=False, slots=True)
class Mime:
    """The parts of its JSON value or where it is, and what describes it."""

    value: Final[tuple[bytes, ...]]
    encoding: Final[str | UnsetType]
    size: Final[int]
    sha256: Final[str]
    key: Final[str | UnsetType]
    stored: Final[Octets | None]

    def __init__(
        self,
        value: tuple[bytes, ...],
        encoding: str | UnsetType,
        size: int,
        sha256: str,
        key: str | UnsetType = UNSET,
        stored: Octets | None = None,
    ) -> None:
        self.value = value
        self.encoding = encoding
        self.size = size
        self.sha256 = sha256
        self.key = key
        self.stored = stored


def encoded(published: Published, notes: Notes) -> Mime:
    """Encode the message once. Raises TooLarge."""
    content, size = published.content, len(published.content)
    digest = sha256(content) if published.sha256 is None else published.sha256
    if not notes.body:
        return Mime(_NO_MIME, UNSET, size, digest)
    if published.key is not None:
        return Mime((), UNSET, size, digest, published.key, content)
    try:
        return Mime(_text(content, notes.most), UNSET, size, digest)
    except UnicodeDecodeError:
        return Mime(_base64(content), "base64", size, digest)


def _text(content: Octets, most: int | None) -> tuple[bytes, ...]:
    """Octets that are UTF-8 as a JSON string. Raises UnicodeDecodeError for others."""
    if len(content) <= SLICE:
        return (_encoder.encode(content[:].decode()),)
    # In slices, because a call that takes long keeps the interpreter from everybody else.
    decoder = _Utf8()
    texts, size = [b'"'], 0
    for piece in pieces(content):
        texts.append(_encoder.encode(decoder.decode(piece))[1:-1])
        size += len(texts[-1])
        # A control character is one octet here, and six in JSON.
        if most is not None and size > most:
            raise TooLarge("as JSON")
    decoder.decode(b"", final=True)
    return (*texts, b'"')


def _base64(content: Octets) -> tuple[bytes, ...]:
    """Octets as a JSON string in base64."""
    # The length of a slice is a multiple of three, so that the parts are one text.
    return (b'"', *(b2a_base64(piece, newline=False) for piece in pieces(content)), b'"')
