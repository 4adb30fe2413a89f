from __future__ import annotations

from datetime import UTC, datetime

from mailgw.mail.publication import Publication
from mailgw.outlets.memory import Memory
from mailgw.outlets.null import Null

FIRST = Publication("inbox", (b'{"n":1}',), "m1", "t1", "d1", datetime(2026, 1, 2, tzinfo=UTC))
SECOND = Publication("local", (b'{"n":2}',), "m2", "t1", "d1", datetime(2026, 1, 2, tzinfo=UTC))


async def test_memory_keeps_what_it_was_given_in_order() -> None:
    memory = Memory()
    await memory.open()
    await memory.publish([FIRST, SECOND])
    await memory.publish([FIRST])
    await memory.close()
    assert memory.publications == [FIRST, SECOND, FIRST]
    assert memory.trouble() is None


async def test_null_accepts_and_keeps_nothing() -> None:
    null = Null()
    await null.open()
    await null.publish([FIRST, SECOND])
    await null.close()
    assert null.trouble() is None
    assert vars(null) == {}
