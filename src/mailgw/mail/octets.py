"""A message as something to look into, whether it is held in memory or not.

Who reads a message asks for slices of it, and is given octets. So a large one can stay
where it is, and only what is looked at is ever held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

# What is held at once of something large; a multiple of three, for base64.
SLICE: Final = 384 * 1024


class Octets(Protocol):
    """What of `bytes` the readers of messages use. Raises OSError where it lies on a disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Spliced:
    """Octets with another beginning: `head`, and then what is in `rest` from `start` on."""

    head: bytes = field(repr=False)
    rest: Octets = field(repr=False)
    start: int

    def __len__(self) -> int:
        return len(self.head) + len(self.rest) - self.start

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop, _ = part.indices(len(self))
        stop = max(start, stop)  # compiled, octets have no slice that ends before it begins
        moved = self.start - len(self.head)
        behind = self.rest[max(start + moved, self.start) : max(stop + moved, self.start)]
        return self.head[start:stop] + behind if start < len(self.head) else behind


def pieces(octets: Octets) -> Iterator[bytes]:
    """All of it in slices, none of which is empty."""
    for start in range(0, len(octets), SLICE):
        yield octets[start : start + SLICE]


def sha256(octets: Octets) -> str:
    """The digest of all of it, in hex."""
    if isinstance(octets, bytes):
        return hashlib.sha256(octets).hexdigest()
    made = hashlib.sha256()
    for piece in pieces(octets):
        made.update(piece)
    return made.hexdigest()
