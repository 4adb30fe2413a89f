"""Addresses to send from: what the settings say about where a mail arrived."""

from __future__ import annotations

import pytest

from mailgw.config.networks import networks
from mailgw.document.addresses import ANY, Outgoing

DEFAULT = ("192.0.2.1", "2001:db8::1")


@pytest.mark.parametrize(
    ("arrival", "ips"),
    [
        ("198.51.100.10", ("198.51.100.10",)),
        ("198.51.100.5", DEFAULT),
        ("198.51.100.20", DEFAULT),
        ("198.51.101.1", DEFAULT),
        ("2001:db8:5::7", ("2001:db8:5::7",)),
        ("2001:db8:6::7", DEFAULT),
        ("::ffff:198.51.100.10", ("::ffff:198.51.100.10",)),
        ("fe80::1%eth0", DEFAULT),
        ("", DEFAULT),
    ],
)
def test_mappable_and_not_unmappable_or_the_default(arrival: str, ips: tuple[str, ...]) -> None:
    mappable = networks("198.51.100.0/24; 2001:db8:5::/48")
    unmappable = networks("198.51.100.16/28; 198.51.100.5")
    assert Outgoing(DEFAULT, mappable, unmappable).ips(arrival) == ips
    assert Outgoing((), mappable, unmappable).ips(arrival) == (() if ips == DEFAULT else ips)


@pytest.mark.parametrize("arrival", ["198.51.100.10", "2001:db8::1"])
def test_without_settings_there_are_none(arrival: str) -> None:
    assert ANY.ips(arrival) == ()
    assert Outgoing(DEFAULT).ips(arrival) == DEFAULT
    assert Outgoing(unmappable=networks("198.51.100.10")).ips(arrival) == ()
