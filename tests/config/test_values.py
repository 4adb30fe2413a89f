"""Text to value: what each kind of key takes, and what it says about the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgw.config import values
from mailgw.config.networks import networks
from mailgw.config.sections.document import extract
from mailgw.config.values import BadValue


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("0", 0),
        ("1024", 1024),
        ("12B", 12),
        ("100MB", 100_000_000),
        ("100MiB", 104_857_600),
        ("4GB", 4_000_000_000),
        ("1GiB", 1_073_741_824),
        ("3KB", 3000),
        ("3KiB", 3072),
        ("1.5 MB", 1_500_000),
        ("32mb", 32_000_000),
    ],
)
def test_a_size_is_octets_with_decimal_and_binary_units(text: str, octets: int) -> None:
    assert values.size(text) == octets


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("300", 300), ("60.0", 60), ("5m", 300), ("2h", 7200), ("1d", 86400), ("250ms", 0.25)],
)
def test_a_duration_is_seconds_unless_it_has_a_unit(text: str, seconds: float) -> None:
    assert values.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("", ()),
        ("25", (25,)),
        ("25,2525,1024-1026", (25, 2525, 1024, 1025, 1026)),
        ("25, 26 - 27", (25, 26, 27)),
        ("25,25,24-26", (25, 24, 26)),
        ("0", (0,)),
        ("65535", (65535,)),
    ],
)
def test_ports_are_lists_and_ranges(text: str, ports: tuple[int, ...]) -> None:
    assert values.ports(text) == ports


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("", ()),
        ("127.0.0.1", ("127.0.0.1",)),
        ("127.0.0.1; ::1", ("127.0.0.1", "::1")),
        ("::1,192.0.2.1", ("::1", "192.0.2.1")),
        ("fe80::1%eth0", ("fe80::1%eth0",)),
        ("::1;0:0::1", ("::1",)),
    ],
)
def test_addresses_are_of_both_families(text: str, addresses: tuple[str, ...]) -> None:
    assert values.addresses(text) == addresses


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("YES", True), ("1", True), ("no", False), ("0", False), ("", False)],
)
def test_an_empty_truth_is_false(text: str, value: bool) -> None:
    assert values.truth(text) is value


@pytest.mark.parametrize(
    ("text", "brokers"),
    [
        ("", ()),
        ("amqp://guest:guest@localhost/", ("amqp://guest:guest@localhost/",)),
        ("amqp://a/v, amqps://u:p@[::1]:5671", ("amqp://a/v", "amqps://u:p@[::1]:5671")),
    ],
)
def test_brokers_are_full_addresses(text: str, brokers: tuple[str, ...]) -> None:
    assert values.brokers(text) == brokers


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ("true", "everybody"),
        ("1", "everybody"),
        ("false", "nobody"),
        ("", "nobody"),
        ("Authenticated", "authenticated"),
        ("192.0.2.0/24;::1", "networks"),
    ],
)
def test_extraction_is_for_a_group_of_clients(text: str, who: str) -> None:
    assert extract(text).who == who


def test_extraction_by_network_knows_its_networks() -> None:
    assert "192.0.2.7" in extract("192.0.2.0/24").networks
    assert "192.0.3.7" not in extract("192.0.2.0/24").networks


def test_an_empty_path_is_none() -> None:
    assert values.path("") is None
    assert values.path("a/b.pem") == Path("a/b.pem")


@pytest.mark.parametrize(
    ("parse", "text", "wrong", "right"),
    [
        (values.size, "32Q", "is not a size", "try 32MB"),
        (values.size, "", "is not a size", "try 100MB"),
        (values.size, "-1", "is not a size", "try 100MB"),
        (values.size, "٣", "is not a size", "try 100MB"),
        (values.size_of_at_least(1), "0", "is too small", "at least 1"),
        (values.duration, "5 minutes", "is not a number of seconds", "try 300"),
        (values.duration, "nan", "is not a number of seconds", "try 300"),
        (values.duration, "0", "is no time at all", "try 300"),
        (values.whole(100, 200), "99", "is too small", "at least 100"),
        (values.whole(100, 200), "201", "is too large", "at most 200"),
        (values.whole(100, 200), "ten", "is not a whole number", "100 to 200"),
        (values.only_one, "4", "is not available yet", "only 1"),
        (values.word("a", "b"), "c", "is not one of its words", "try a or b"),
        (values.word("a", later=("b",)), "b", "is not available yet", "try a"),
        (values.ports, "smtp", "is not a list of ports", "try 25,2525 or 1024-1026"),
        (values.ports, "70000", "holds a port above 65535", "try 25,2525 or 1024-1026"),
        (values.ports, "30-20", "holds a range that runs backwards", "try 20-30"),
        (values.ports, "1-65535", "is more than 1000 ports", "try a shorter range"),
        (values.addresses, "localhost", "is not a list of IP addresses", "try 127.0.0.1; ::1"),
        (values.truth, "maybe", "is neither true nor false", "try true or false"),
        (values.hostname, "a b", "is not a host name", "try mx.example.com"),
        (values.hostname, "-a.example", "is not a host name", "try mx.example.com"),
        (values.server_id, "a-b", "is not a server id", "1 to 16 letters and digits, try 1"),
        (values.named_queue, "", "is not a queue, and received mail needs one", "try inbox"),
        (values.queue, "é" * 128, "is too long for a name in AMQP", "at most 255 octets"),
    ],
)
def test_a_bad_value_is_told_what_would_be_right(
    parse: Callable[[str], object], text: str, wrong: str, right: str
) -> None:
    with pytest.raises(BadValue) as caught:
        parse(text)

    assert (caught.value.wrong, caught.value.right) == (wrong, right)


@pytest.mark.parametrize(
    "text",
    [
        "http://user:sesame@host/",
        "amqp://user:sesame@host:port/",
        "amqp://user:sesame@host:99999/",
        "amqp://user:ses#ame@host/",
        "amqp://user:1/sesame@host/",
        "amqp://user:ses,ame@host/",
        "amqp://user:sesame@/",
        "amqp://user:sesame@[::1/",
        "amqp://user:sesame@a;b",
        "user:sesame@host",
    ],
)
def test_a_bad_broker_address_does_not_tell_its_password(text: str) -> None:
    with pytest.raises(BadValue) as caught:
        values.brokers(text)

    assert "ame" not in caught.value.wrong + caught.value.right
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://guest:guest@localhost/", "amqp://guest:***@localhost/"),
        (
            "amqp://u:p@ss@host/v,amqps://u:q@[::1]:5/",
            "amqp://u:***@host/v, amqps://u:***@[::1]:5/",
        ),
        ("amqps://u@h/?keyfile=k&password=x&a=b", "amqps://u@h/?keyfile=k&password=***&a=b"),
        ("amqp://host/v", "amqp://host/v"),
    ],
)
def test_a_shown_broker_address_has_no_password(text: str, shown: str) -> None:
    assert values.mask_brokers(text) == shown


@given(st.text())
def test_no_text_makes_a_parser_raise_anything_but_a_bad_value(text: str) -> None:
    for parse in (
        values.truth,
        values.size,
        values.duration,
        values.whole(1, 10),
        values.addresses,
        values.ports,
        values.hostname,
        values.server_id,
        values.queue,
        values.brokers,
        networks,
        extract,
    ):
        with contextlib.suppress(BadValue):
            parse(text)
