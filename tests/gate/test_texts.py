from __future__ import annotations

import time

from mailgw.gate.texts import Texts, let_go


def texts(*held: str) -> Texts:
    made = Texts()
    made.update(held)
    return made


def nothing() -> None:
    """No turn for anybody."""


def test_what_was_put_in_is_found_and_nothing_else() -> None:
    held = texts(*(f"user{n}@example.test" for n in range(10_000)))

    held.add("ann@example.test")

    assert len(held) == 10_001
    assert "user9999@example.test" in held
    assert "ann@example.test" in held
    assert "user10000@example.test" not in held


def test_two_are_the_same_whatever_came_first() -> None:
    assert texts("a", "b").same(texts("b", "a", "a"), nothing)
    assert not texts("a", "b").same(texts("a"), nothing)
    assert not texts("a").same(texts("b"), nothing)


def test_the_others_get_many_turns_while_much_is_let_go() -> None:
    held = texts(*(f"user{n}@example.test" for n in range(300_000)))
    turns: list[float] = []
    parts = held.parts()
    del held

    let_go(parts, lambda: turns.append(time.perf_counter()))

    assert parts == []
    assert len(turns) > 100


def test_what_somebody_else_holds_stays() -> None:
    held = texts("ann@example.test")

    let_go(held.parts(), nothing)

    assert "ann@example.test" in held
