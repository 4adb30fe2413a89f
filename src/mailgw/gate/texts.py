"""Many texts, found in constant time, and never in anybody's way.

The law: nothing here keeps the interpreter to itself for longer than a small part takes,
however many texts there are. One dict of a million would grow, be compared and be freed
in one go each, and the event loop beside it would stand still for a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

_PARTS = 256
# High bits choose the part: inside it, the low ones choose the place.
_SHIFT, _MASK = 40, _PARTS - 1


class Texts:
    """A set of texts, in parts; it grows until it is handed out, and not after that."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        # Dicts, not sets: the garbage collector does not go through those that hold text.
        self._parts: tuple[dict[str, None], ...] = tuple({} for _ in range(_PARTS))

    def add(self, text: str) -> None:
        self._parts[hash(text) >> _SHIFT & _MASK][text] = None

    def update(self, texts: Iterable[str]) -> None:
        parts = self._parts
        for text in texts:
            parts[hash(text) >> _SHIFT & _MASK][text] = None

    def __contains__(self, text: str) -> bool:
        return text in self._parts[hash(text) >> _SHIFT & _MASK]

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            yield from part

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def same(self, other: Texts, between: Callable[[], None]) -> bool:
        """Whether both hold the same; `between` is called after each part."""
        for mine, others in zip(self._parts, other._parts, strict=True):
            if mine != others:
                return False
            between()
        return True

    def parts(self) -> list[dict[str, None]]:
        """What `let_go` takes. Reading them is all that anybody else may do."""
        return list(self._parts)


def let_go(parts: list[dict[str, None]], between: Callable[[], None]) -> None:
    """Free parts one by one: those that nobody else holds any more."""
    while parts:
        parts.pop()
        between()
