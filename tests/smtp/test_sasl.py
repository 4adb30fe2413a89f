"""PLAIN and LOGIN: what credentials an exchange brings, and what it refuses."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailgw.smtp import reply
from mailgw.smtp.reply import Refusal, Reply
from mailgw.smtp.sasl import MECHANISMS, challenge, decode

RESPONSES = st.lists(st.binary(max_size=300), max_size=4)


def run(mechanism: str, initial: bytes | None, *responses: bytes) -> tuple[str, str] | Reply | None:
    """Go through an exchange; the credentials, or the refusal, or None while it goes on."""
    exchange = MECHANISMS[mechanism](initial)
    try:
        next(exchange)
        for response in responses:
            exchange.send(response)
    except StopIteration as end:
        found: tuple[str, str] = end.value
        return found
    except Refusal as refusal:
        return refusal.reply
    return None


@pytest.mark.parametrize(
    ("mechanism", "initial", "responses", "found"),
    [
        ("PLAIN", b"\0user\0pass", [], ("user", "pass")),
        ("PLAIN", b"user\0user\0pass", [], ("user", "pass")),
        ("PLAIN", None, [b"\0user\0pass"], ("user", "pass")),
        ("PLAIN", "\0jürgen\0paß wort".encode(), [], ("jürgen", "paß wort")),
        ("PLAIN", b"\0" + b"u" * 255 + b"\0" + b"p" * 255, [], ("u" * 255, "p" * 255)),
        ("LOGIN", None, [b"user", b"pass"], ("user", "pass")),
        ("LOGIN", b"user", [b"pass"], ("user", "pass")),
        ("LOGIN", b"us er@x.test", [b"p=:\\"], ("us er@x.test", "p=:\\")),
    ],
)
def test_an_exchange_brings_credentials(
    mechanism: str, initial: bytes | None, responses: list[bytes], found: tuple[str, str]
) -> None:
    assert run(mechanism, initial, *responses) == found


@pytest.mark.parametrize(
    ("mechanism", "initial", "responses", "said"),
    [
        ("PLAIN", b"", [], reply.AUTH_BAD_BASE64),
        ("PLAIN", b"user", [], reply.AUTH_BAD_BASE64),
        ("PLAIN", b"user\0pass", [], reply.AUTH_BAD_BASE64),
        ("PLAIN", b"a\0b\0c\0d", [], reply.AUTH_BAD_BASE64),
        ("PLAIN", b"other\0user\0pass", [], reply.AUTH_FAILED),
        ("PLAIN", b"\0\0", [], reply.AUTH_FAILED),
        ("PLAIN", b"\0user\0", [], reply.AUTH_FAILED),
        ("PLAIN", b"\0\0pass", [], reply.AUTH_FAILED),
        ("PLAIN", b"\0\xff\xfe\0pass", [], reply.AUTH_FAILED),
        ("PLAIN", b"\0user\r\nx\0pass", [], reply.AUTH_FAILED),
        ("PLAIN", "\0us\u202eer\0pass".encode(), [], reply.AUTH_FAILED),
        ("PLAIN", b"\0" + b"u" * 256 + b"\0pass", [], reply.AUTH_FAILED),
        ("PLAIN", b"\0user\0" + b"p" * 256, [], reply.AUTH_FAILED),
        ("LOGIN", b"", [b"pass"], reply.AUTH_FAILED),
        ("LOGIN", None, [b"user", b""], reply.AUTH_FAILED),
        ("LOGIN", None, [b"us\0er", b"pass"], reply.AUTH_FAILED),
    ],
)
def test_an_exchange_is_refused(
    mechanism: str, initial: bytes | None, responses: list[bytes], said: Reply
) -> None:
    assert run(mechanism, initial, *responses) == said


@pytest.mark.parametrize("mechanism", MECHANISMS)
@settings(deadline=None)
@given(initial=st.none() | st.binary(max_size=300), responses=RESPONSES)
def test_no_octets_make_an_exchange_raise_anything_but_a_refusal(
    mechanism: str, initial: bytes | None, responses: list[bytes]
) -> None:
    match run(mechanism, initial, *responses):
        case Reply() as said:
            assert said.code in (501, 535)
        case (username, password):
            assert 0 < len(username) <= 255 >= len(password) > 0
            assert (username + password).isprintable()
        case None:
            # It waits for more than there was.
            assert len(responses) < 2


@settings(deadline=None)
@given(st.binary())
def test_base64_comes_back_as_it_was(octets: bytes) -> None:
    assert decode(base64.b64encode(octets).decode()) == octets


@pytest.mark.parametrize(
    ("line", "initial", "said"),
    [
        ("*", False, reply.AUTH_CANCELLED),
        ("*", True, reply.AUTH_CANCELLED),
        ("=", False, reply.AUTH_BAD_BASE64),
        ("AAA", False, reply.AUTH_BAD_BASE64),
        ("AA=A", False, reply.AUTH_BAD_BASE64),
        ("AA AA", False, reply.AUTH_BAD_BASE64),
        ("A-_A", False, reply.AUTH_BAD_BASE64),
        ("ÄÄÄÄ", False, reply.AUTH_BAD_BASE64),
    ],
)
def test_what_is_not_base64_is_refused(line: str, initial: bool, said: Reply) -> None:
    with pytest.raises(Refusal) as refused:
        decode(line, initial=initial)

    assert refused.value.reply == said


def test_an_equals_sign_stands_for_an_empty_initial_response() -> None:
    assert decode("=", initial=True) == b""


@settings(deadline=None)
@given(st.text())
def test_no_line_makes_decoding_raise_anything_but_a_refusal(line: str) -> None:
    found: bytes | Reply
    try:
        found = decode(line)
    except Refusal as refusal:
        found = refusal.reply
    known = (reply.AUTH_BAD_BASE64, reply.AUTH_CANCELLED)
    assert found in known or isinstance(found, bytes)


def test_a_challenge_is_a_334_in_base64() -> None:
    assert challenge(b"Password:").wire == b"334 UGFzc3dvcmQ6\r\n"
