"""What stands in for the world: a clock that a test turns, and a DNS without servers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mailgw.dns import Answer, Mx, Unanswered, reversed_name

# What a name has: text for A, AAAA, TXT and PTR, (preference, host) for MX.
Records = Mapping[str, Sequence[str | tuple[int, str]]]


@dataclass
class Clock:
    """Says what `now` is set to."""

    now: float

    def __call__(self) -> float:
        return self.now


class FakeResolver:
    """A world of names: {"TXT": {"example.org": ["v=spf1 -all"]}}, by type and name.

    A name that stands nowhere does not exist; those in `fail` get no answer. PTR is asked
    by address. `asked` holds what was asked, as (type, name).
    """

    def __init__(self, world: Mapping[str, Records], fail: Collection[str] = ()) -> None:
        self._world = {
            kind: {name.lower(): tuple(values) for name, values in names.items()}
            for kind, names in world.items()
        }
        self._fail = frozenset(fail)
        self.asked: list[tuple[str, str]] = []
        self.closed = False

    async def a(self, name: str) -> Answer[str]:
        return self._texts("A", name)

    async def aaaa(self, name: str) -> Answer[str]:
        return self._texts("AAAA", name)

    async def txt(self, name: str) -> Answer[bytes]:
        found = self._texts("TXT", name)
        return Answer(tuple(text.encode() for text in found.records), found.exists)

    async def mx(self, name: str) -> Answer[Mx]:
        records, exists = self._look_up("MX", name)
        found = [Mx(*each) for each in records if isinstance(each, tuple)]
        return Answer(tuple(sorted(found, key=lambda mx: mx.preference)), exists)

    async def ptr(self, address: str) -> Answer[str]:
        try:
            reversed_name(address)
        except ValueError:
            return Answer(exists=False)
        return self._texts("PTR", address)

    async def close(self) -> None:
        self.closed = True

    def _texts(self, kind: str, name: str) -> Answer[str]:
        records, exists = self._look_up(kind, name)
        return Answer(tuple(each for each in records if isinstance(each, str)), exists)

    def _look_up(self, kind: str, name: str) -> tuple[Sequence[str | tuple[int, str]], bool]:
        self.asked.append((kind, name))
        if self._closed_or_failing(name):
            raise Unanswered(f"{kind} {name}: no answer in time")
        name = name.lower().removesuffix(".")
        exists = any(name in names for names in self._world.values())
        return self._world.get(kind, {}).get(name, ()), exists

    def _closed_or_failing(self, name: str) -> bool:
        return self.closed or name in self._fail
