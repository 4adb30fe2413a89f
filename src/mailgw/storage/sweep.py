"""Bodies that no document names, found by their marks and removed.

Laws: only what is older than any mail can be under way is looked at. What has the mark of
writing alone is surely in no document, and what has that of publishing alone surely is in
one, because it is taken off first where the document is safe. What has both was on its way
to the queue when a gateway died and may be in one: it stays, is told, and goes when
somebody says so.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from mailgw.storage.names import PUBLISHING, WRITING, is_compressed, is_key, key_of, mark
from mailgw.storage.place import NoSuchObject, Place, StorageError

# zlib's: a header and trailer of gzip around it.
_GZIP = 31
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found: `orphans` and `uncertain` are keys, the latter where bodies are there.

    `octets` are those of the bodies that were removed, or would be. `leftovers` are
    beginnings of objects that were never finished.
    """

    orphans: tuple[str, ...]
    uncertain: tuple[str, ...]
    octets: int
    leftovers: int


async def sweep(place: Place, before: datetime, *, dry: bool, uncertain: bool = False) -> Swept:
    """Remove the bodies of before then that are in no document, or with `dry` only tell them.

    With `uncertain` those too that may be in one. Raises StorageError.
    """
    # Looked at first, because this mark is taken off second: whoever takes both off between
    # the two looks, late, of what is published, has left no WRITING for the second.
    publishing = await _marked(place, PUBLISHING)
    writing = await _marked(place, WRITING)
    orphans = [key for key, set_ in writing.items() if set_ < before and key not in publishing]
    octets = 0
    for key in orphans:
        octets += await place.size(key) or 0
        if not dry:
            await place.remove([key])
            await place.remove([mark(WRITING, key)])
    unknown = []
    for key, written in publishing.items():
        if written >= before:
            continue
        if key not in writing:
            # The other mark went first, and a gateway ended before it took off this one.
            if not dry:
                await place.remove([mark(PUBLISHING, key)])
            continue
        size = await place.size(key)
        if size is not None:
            unknown.append(key)
        octets += size or 0 if uncertain else 0
        # A body that is gone was fetched and removed by whoever had its document.
        if (uncertain or size is None) and not dry:
            await place.remove([key])
            await place.remove([mark(WRITING, key)])
            await place.remove([mark(PUBLISHING, key)])
    leftovers = await place.tidy(before, dry=dry)
    return Swept(tuple(orphans), tuple(unknown), octets, leftovers)


async def fetch(place: Place, key: str) -> AsyncIterator[bytes]:
    """Give a body piece by piece, as it was received. Raises StorageError, NoSuchObject."""
    if not is_key(key):
        raise NoSuchObject(f"{key!r} is not the key of a body")
    if not is_compressed(key):
        async for piece in place.get(key):
            yield piece
        return
    unpacked = zlib.decompressobj(_GZIP)
    try:
        async for piece in place.get(key):
            yield unpacked.decompress(piece, _PIECE)
            while unpacked.unconsumed_tail:
                yield unpacked.decompress(unpacked.unconsumed_tail, _PIECE)
    except zlib.error:
        raise StorageError(f"{key} is damaged") from None
    if not unpacked.eof:
        raise StorageError(f"{key} is cut short")


async def _marked(place: Place, state: str) -> dict[str, datetime]:
    """The bodies with a mark, and when it was set."""
    found = {}
    async for entry in place.entries(state):
        key = key_of(entry.name)
        if key is not None:
            found[key] = entry.written
    return found
