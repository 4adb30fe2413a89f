"""Address ranges as people write them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgw.config.networks import (
    EVERYBODY,
    NOWHERE,
    Networks,
    networks,
    networks_or_everybody,
)
from mailgw.config.values import BadValue


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("192.0.2.0/24", ["192.0.2.0", "192.0.2.255"], ["192.0.1.255", "192.0.3.0"]),
        ("192.0.2.7", ["192.0.2.7"], ["192.0.2.6", "192.0.2.8"]),
        ("192.0.2.7/24", ["192.0.2.0", "192.0.2.255"], ["192.0.3.0"]),
        ("192.0.2.1-192.0.2.9", ["192.0.2.1", "192.0.2.9"], ["192.0.2.0", "192.0.2.10"]),
        ("192.0.2.1 - 192.0.2.9", ["192.0.2.5"], ["192.0.2.10"]),
        ("192.0.2.1-9", ["192.0.2.1", "192.0.2.9"], ["192.0.2.0", "192.0.2.10"]),
        ("192.0.2.*", ["192.0.2.0", "192.0.2.255"], ["192.0.3.0"]),
        ("192.168.0.0/16;127.0.0.1", ["127.0.0.1", "192.168.3.4"], ["127.0.0.2"]),
        ("1.2.3.4; 1.2.3.5;", ["1.2.3.4", "1.2.3.5"], ["1.2.3.6"]),
        ("2001:db8::/32", ["2001:db8::1"], ["2001:db9::", "32.1.13.184"]),
        ("::1", ["::1", "0:0:0:0:0:0:0:1"], ["::2", "0.0.0.1"]),
        ("10.0.0.0/8", ["::ffff:10.1.2.3", "::ffff:a01:203"], ["::ffff:11.0.0.0", "::a01:203"]),
        ("::ffff:10.0.0.0/104", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.0"]),
        ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], ["::1"]),
        ("::/0", ["::", "ffff::"], ["1.2.3.4", "::ffff:1.2.3.4"]),
        ("", [], ["127.0.0.1", "::1"]),
    ],
)
def test_a_range_holds_what_it_says(text: str, inside: list[str], outside: list[str]) -> None:
    found = networks(text)

    assert [ip for ip in inside if ip not in found] == []
    assert [ip for ip in outside if ip in found] == []


@pytest.mark.parametrize(
    "text",
    [
        "localhost",
        "192.168",
        "192.0.2.0/33",
        "192.0.2.0/24,10.0.0.0/8",
        "192.0.2.9-192.0.2.1",
        "192.0.2.1-::1",
        "1.2.3.4-1.2.3.5-1.2.3.6",
        "fe80::1%eth0",
        "*",
    ],
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="is not a list of address ranges"):
        networks(text)


@pytest.mark.parametrize("junk", ["", "junk", "192.0.2.1 ", "::1%eth0", "192.0.2", "é", "::ffff:"])
def test_junk_is_nowhere_and_raises_nothing(junk: str) -> None:
    assert junk not in networks("0.0.0.0/0;::/0")


def test_networks_are_values() -> None:
    assert networks("10.0.0.0/9;10.128.0.0/9") == networks("10.0.0.0/8")
    assert len({networks("10.0.0.0/8"), networks("10.*.*.*")}) == 1
    assert not NOWHERE
    assert Networks() == NOWHERE
    assert networks("::1")


@pytest.mark.parametrize(
    ("text", "everyone"),
    [
        ("0.0.0.0/0", True),
        ("::/0", True),
        ("0.0.0.0/1;128.0.0.0/1", True),
        ("10.0.0.0/8", False),
        ("", False),
    ],
)
def test_a_whole_family_is_everyone(text: str, everyone: bool) -> None:
    assert networks(text).everyone is everyone


def test_a_range_of_those_who_may_is_everybody_where_it_is_empty() -> None:
    assert networks_or_everybody("") == networks_or_everybody(" ; ") == EVERYBODY
    assert networks_or_everybody("10.0.0.0/8") == networks("10.0.0.0/8")


@pytest.mark.parametrize("who", ["192.0.2.1", "2001:db8::1", "fe80::1%eth0", "", "junk"])
def test_everybody_is_whoever_asks(who: str) -> None:
    assert who in EVERYBODY


def test_everybody_is_no_range_that_somebody_wrote() -> None:
    assert EVERYBODY
    assert EVERYBODY.everyone
    assert networks("0.0.0.0/0;::/0") != EVERYBODY
    assert "::1" not in networks_or_everybody("0.0.0.0/0")


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 32)), max_size=20),
    st.integers(0, 2**32 - 1),
)
def test_looking_up_agrees_with_asking_every_network(
    nets: list[tuple[int, int]], number: int
) -> None:
    written = [ipaddress.IPv4Network((start, bits), strict=False) for start, bits in nets]
    found = networks(";".join(str(net) for net in written))

    probes = [ipaddress.IPv4Address(number), *(net.broadcast_address for net in written)]
    for ip in probes:
        assert (str(ip) in found) == any(ip in net for net in written)
