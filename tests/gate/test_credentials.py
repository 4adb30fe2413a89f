from __future__ import annotations

import pytest

from mailgw.gate.credentials import Login


@pytest.mark.parametrize(
    ("username", "password", "right"),
    [
        ("anna", "opensesame", True),
        ("anna", "opensesame ", False),
        ("anna ", "opensesame", False),
        ("anna", "Opensesame", False),
        ("opensesame", "anna", False),
        ("", "", False),
        ("anna", "x" * 100_000, False),
    ],
)
def test_only_the_exact_login_is_right(username: str, password: str, right: bool) -> None:
    assert Login("anna", "opensesame").verify(username, password) is right


def test_the_password_is_in_no_repr() -> None:
    assert "opensesame" not in repr(Login("anna", "opensesame"))
