"""A message as signatures see it: its header fields, and the hashes over it.

Laws. The header is bounded, in octets and in fields, or not read at all. A body is
hashed in slices, with a breath of the event loop after each, once for each canonical
form however many signatures ask; whoever cancels the task stops the work at a slice.
The octets are hashed as they were received: a line end is CRLF (see canonical.py), so a
verdict speaks of the bytes that are published and not of what they might be read as.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from mailgw.checks.canonical import Body, relaxed_field, unsigned_field
from mailgw.checks.keys import Found, Key, fitting
from mailgw.checks.signature import Signature, Trouble
from mailgw.mail.headers import Field, header_end, read_fields
from mailgw.mail.octets import Octets

_LARGEST_HEADER = 262_144
_MOST_FIELDS = 1_000
# What is hashed before others have their turn: half a millisecond for ordinary text.
_SLICE = 131_072

# How a body is asked for: relaxed or simple, and the first octets of it, or all (None).
Wanted = tuple[bool, int | None]


@dataclass(frozen=True, slots=True)
class BodyHash:
    """The SHA-256 of a body's canonical form, or of its first octets; `whole` if of all."""

    digest: bytes
    whole: bool


class Message:
    """Made by `read`. Relaxed fields are made when they are asked for, and once."""

    __slots__ = ("_by_name", "_content", "_relaxed", "_start", "fields")

    def __init__(self, content: Octets, fields: tuple[Field, ...], start: int) -> None:
        self.fields = fields
        self._content = content
        self._start = start
        self._relaxed: dict[int, bytes] = {}
        self._by_name: dict[bytes, list[Field]] = {}
        for field in fields:
            self._by_name.setdefault(field.name.encode(), []).append(field)

    def named(self, name: str) -> list[Field]:
        """The fields of this name (lower case), as they stand from above."""
        return self._by_name.get(name.encode(), [])

    def digest(self, signature: Signature) -> bytes:
        """The hash that a signature over header fields was made of (RFC 6376 3.7)."""
        parts = [
            self.relaxed(field) if signature.relaxed_header else field.raw
            for field in self._chosen(signature.names)
        ]
        return hashlib.sha256(b"".join([*parts, own_field(signature)])).digest()

    def relaxed(self, field: Field) -> bytes:
        form = self._relaxed.get(field.start)
        if form is None:
            form = self._relaxed[field.start] = relaxed_field(field.raw)
        return form

    async def body_hashes(self, wanted: Collection[Wanted]) -> dict[Wanted, BodyHash]:
        """Hash the body; what asks for more octets than there are is not in the answer."""
        found: dict[Wanted, BodyHash] = {}
        for relaxed in sorted({form for form, _ in wanted}):
            lengths = sorted({n for form, n in wanted if form is relaxed and n is not None})
            found |= await self._hash_body(relaxed, lengths)
        return found

    def _chosen(self, names: Iterable[bytes]) -> Iterator[Field]:
        """RFC 6376 5.4.2: a name takes the lowest of its fields that was not taken yet."""
        taken: Counter[bytes] = Counter()
        for name in names:
            there = self._by_name.get(name, ()) if name else ()
            taken[name] += 1
            if taken[name] <= len(there):
                yield there[-taken[name]]

    async def _hash_body(self, relaxed: bool, lengths: list[int]) -> dict[Wanted, BodyHash]:
        running, work = _Running(lengths), 0
        length = len(self._content) - self._start
        for pieces in self._slices(Body(relaxed=relaxed)):
            for piece in pieces:
                if work >= _SLICE:
                    await asyncio.sleep(0)
                    work = 0
                running.take(piece)
                work += len(piece)
            # Blanks and empty lines are work too, although nothing may come of them.
            work = max(work, min(_SLICE, length))
            if work >= _SLICE:
                await asyncio.sleep(0)
                work = 0
        return {(relaxed, cut): found for cut, found in running.hashes().items()}

    def _slices(self, body: Body) -> Iterator[Iterator[bytes]]:
        for start in range(self._start, len(self._content), _SLICE):
            yield body.feed(self._content[start : start + _SLICE])
        yield body.finish()


class _Running:
    """The hash of pieces that come, and what it was at some lengths on the way."""

    def __init__(self, lengths: Iterable[int]) -> None:
        self._cuts = deque(lengths)
        self._hash = hashlib.sha256()
        self._size = 0
        self._partial: dict[int, bytes] = {}

    def take(self, piece: bytes) -> None:
        while self._cuts and self._cuts[0] < self._size + len(piece):
            cut = self._cuts.popleft()
            self._hash.update(piece[: cut - self._size])
            piece = piece[cut - self._size :]
            self._size = cut
            self._partial[cut] = self._hash.copy().digest()
        self._hash.update(piece)
        self._size += len(piece)

    def hashes(self) -> dict[int | None, BodyHash]:
        """By length, None for all; a length that was not reached is not in it."""
        found: dict[int | None, BodyHash] = {
            cut: BodyHash(digest, False) for cut, digest in self._partial.items()
        }
        found[None] = found[self._size] = BodyHash(self._hash.digest(), True)
        return found


def read(content: Octets) -> Message | Trouble:
    """Read the header of a message, of whatever form, within the bounds."""
    top = content[: _LARGEST_HEADER + 4]
    end = header_end(top)
    if end > _LARGEST_HEADER:
        return Trouble("permerror", "the header is too large to be checked")
    fields = tuple(islice(read_fields(top, end), _MOST_FIELDS + 1))
    if len(fields) > _MOST_FIELDS:
        return Trouble("permerror", "the header has too many fields to be checked")
    start = end + (2 if content[end : end + 2] == b"\r\n" else 1)
    return Message(content, fields, start)


def own_field(signature: Signature) -> bytes:
    """The field of a signature itself, as the last that is hashed."""
    own = unsigned_field(signature.raw)
    return relaxed_field(own)[:-2] if signature.relaxed_header else own


def judge_header(message: Message, signature: Signature, found: Found) -> Key | Trouble:
    """The key with which a signature over header fields verifies, or why there is none."""
    keys = fitting(found, signature)
    if isinstance(keys, Trouble):
        return keys
    if b"from" in signature.names and len(message.named("from")) > signature.names.count(b"from"):
        # RFC 6376 8.15: a second From that nobody signed is what a reader would see.
        return Trouble("fail", "there is a From field that was not signed")
    digest = message.digest(signature)
    for key in keys:
        if key.verifies(signature.signed, digest):
            return key
    return Trouble("fail", "the signature does not fit the header")


def wanted(signature: Signature) -> Wanted:
    return signature.relaxed_body, signature.length


def judge_body(signature: Signature, hashes: dict[Wanted, BodyHash]) -> Trouble | None:
    """Why the body is not the one that was signed, in full; it is (None)."""
    body = hashes.get(wanted(signature))
    if body is None:
        # RFC 6376 3.5: l= is never more than there is, so something was cut off.
        return Trouble("fail", "the body is shorter than l= says")
    if body.digest != signature.body_hash:
        return Trouble("fail", "the body hash does not fit the body")
    if not body.whole:
        # RFC 6376 8.2: anybody may have written what follows.
        return Trouble("policy", "l= does not cover the whole body")
    return None
