"""What a place for objects can do, whatever it is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class StorageError(Exception):
    """The place did not do it; the text is one line, and holds no secret."""


class Unclear(StorageError):
    """It did not say that it was done; perhaps it was, or is a while later."""


class NoSuchObject(StorageError):
    """There is nothing of that name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object: its name, its octets, and when it was written."""

    name: str
    size: int
    written: datetime


class Place(Protocol):
    """Keeps objects by name. A name is made of words, joined by slashes.

    Each method raises StorageError. None of them has a deadline shorter than the place's
    own; who cancels one does not know what became of it. `holds_whole` says that all of an
    object is in memory while it is put.
    """

    holds_whole: bool

    async def put(self, name: str, pieces: Iterable[bytes]) -> None:
        """Return once it is safe there, whole; nobody ever sees half of it.

        The pieces are asked for in a thread. An OSError of theirs is a StorageError too.
        """

    def get(self, name: str) -> AsyncIterator[bytes]:
        """Give an object piece by piece. Raises NoSuchObject."""

    async def size(self, name: str) -> int | None:
        """How many octets it has there; None where there is no such object."""

    async def remove(self, names: Collection[str]) -> None:
        """Return once none of them will be seen again; those that are not there do not count."""

    def entries(self, folder: str) -> AsyncIterator[Entry]:
        """Go through the objects whose names begin with the folder and a slash."""

    async def tidy(self, before: datetime, *, dry: bool) -> int:
        """Remove what writes that broke off before then left behind, and say how much it was."""

    async def close(self) -> None:
        """Let go; nothing is asked afterwards."""
