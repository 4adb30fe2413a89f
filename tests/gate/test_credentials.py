"""Logins that stand in the configuration."""

from __future__ import annotations

import pytest

from mailgw.gate.credentials import BadLogins, Hardcoded

ANNA = Hardcoded([("anna", "opensesame")])


@pytest.mark.parametrize(
    ("username", "password", "right"),
    [
        ("anna", "opensesame", True),
        ("anna", "opensesame ", False),
        ("anna ", "opensesame", False),
        ("anna", "Opensesame", False),
        ("opensesame", "anna", False),
        ("annaopen", "sesame", False),
        ("ann", "aopensesame", False),
        ("", "", False),
        ("anna", "x" * 100_000, False),
    ],
)
async def test_only_the_exact_login_is_right(username: str, password: str, right: bool) -> None:
    assert await ANNA.verify(username, password) is right


@pytest.mark.parametrize(
    ("username", "password"),
    [("anna", "a,b:c@d/e"), ("böb", "süß"), ("eve@ours.test", "100%"), ("sam", "p:q")],
)
async def test_a_list_in_the_address_may_hold_anything_percent_encoded(
    username: str, password: str
) -> None:
    logins = Hardcoded.from_url(
        "hardcoded://anna:a%2Cb%3Ac%40d%2Fe,b%C3%B6b:süß,eve@ours.test:100%25,sam:p:q"
    )
    assert await logins.verify(username, password)
    assert not await logins.verify(username, password + "x")
    assert not await logins.verify("anna", "100%")


@pytest.mark.parametrize(
    ("url", "number", "why"),
    [
        ("hardcoded://anna:pass%FFword", 1, "is not UTF-8"),
        ("hardcoded://anna:password,bob", 2, "is not user:password"),
        ("hardcoded://anna:password,:password", 2, "is not user:password"),
        ("hardcoded://", 1, "is not user:password"),
    ],
)
def test_a_bad_list_is_told_by_number_and_not_quoted(url: str, number: int, why: str) -> None:
    with pytest.raises(BadLogins) as bad:
        Hardcoded.from_url(url)
    assert bad.value.lines == (f"login {number} of hardcoded:// {why}",)


def test_no_login_is_in_a_repr() -> None:
    assert "opensesame" not in repr(ANNA)
    assert not hasattr(ANNA, "__dict__")
