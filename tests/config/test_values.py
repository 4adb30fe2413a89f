"""Text to value: what each kind of key takes, and what it says about the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgw.config import urls, values
from mailgw.config.networks import networks
from mailgw.config.sections.checks import score, spamd_host
from mailgw.config.sections.document import extract
from mailgw.config.sections.limits import Rate, rate
from mailgw.config.values import BadValue

ZONES = "try zen.example.org, bl.example.net"
ENDPOINTS = "try 192.0.2.1; 192.0.2.2:5353; [2001:db8::1]:53"
CLASS = "try package.module:Class"
SOURCE = "try file:///etc/mailgw/users, https://host/path or hardcoded://user:password"
ELSEWHERE = ("is not available here", "use file:// or https://")
DATABASE = "try sqlite:///file, postgresql://user:password@host/name or mysql://"


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
        # MailerQ's other way to name the nodes of a cluster.
        (
            "amqp://u:p@a;b:5673;[::1]/v",
            ("amqp://u:p@a/v", "amqp://u:p@b:5673/v", "amqp://u:p@[::1]/v"),
        ),
        ("amqp://u:p;q@a/v", ("amqp://u:p;q@a/v",)),
    ],
)
def test_brokers_are_full_addresses(text: str, brokers: tuple[str, ...]) -> None:
    assert urls.brokers(text) == brokers


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("NEVER", "NEVER"),
        ("failure", "FAILURE"),
        ("FAILURE, DELAY,FAILURE", "FAILURE,DELAY"),
    ],
)
def test_when_to_report_is_a_list_of_words(text: str, words: str) -> None:
    assert values.dsn_notify(text) == words


@pytest.mark.parametrize("text", ["ALWAYS", "NEVER,FAILURE", "FAILURE;DELAY"])
def test_never_stands_alone_and_other_words_do_not_exist(text: str) -> None:
    with pytest.raises(BadValue):
        values.dsn_notify(text)


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


@pytest.mark.parametrize(
    ("text", "value"), [("", 0), ("0", 0), ("0s", 0), ("5", 5), ("250ms", 0.25)]
)
def test_a_pause_may_be_none_at_all(text: str, value: float) -> None:
    assert values.pause(text) == pytest.approx(value)


def test_whole_seconds_may_have_a_unit() -> None:
    assert [values.seconds(text) for text in ("600", "10m", "60.0")] == [600, 600, 60]


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", ()),
        ("192.0.2.1", (("192.0.2.1", 53),)),
        ("192.0.2.1:5353; 127.0.0.1", (("192.0.2.1", 5353), ("127.0.0.1", 53))),
        ("[2001:DB8::1],[::1]:5353", (("2001:db8::1", 53), ("::1", 5353))),
        ("192.0.2.1;192.0.2.1:53", (("192.0.2.1", 53),)),
    ],
)
def test_a_server_has_the_port_of_dns_unless_it_says(
    text: str, servers: tuple[tuple[str, int], ...]
) -> None:
    assert values.endpoints(text) == servers


def test_zones_are_lower_case_without_their_root() -> None:
    zones = values.zones("Zen.Example.ORG., bl.example.net; zen.example.org")

    assert zones == ("zen.example.org", "bl.example.net")


@pytest.mark.parametrize(
    ("text", "logs"),
    [
        ("", ()),
        ("stderr", ("stderr",)),
        (
            "Syslog, /var/log/mailerq/mailerq.log,./x",
            ("syslog", "/var/log/mailerq/mailerq.log", "./x"),
        ),
    ],
)
def test_logs_are_streams_and_files(text: str, logs: tuple[str, ...]) -> None:
    assert values.logs(text) == logs


def test_extensions_keep_their_order() -> None:
    assert values.several_dotted("b.c:D, a:A") == ("b.c:D", "a:A")
    assert values.several_dotted("") == ()
    assert values.dotted("") == ""


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("", Rate()),
        ("connections=60,messages=600", Rate(60, 600)),
        ("Messages = 5", Rate(None, 5)),
        ("connections=1", Rate(1)),
    ],
)
def test_a_rate_limits_connections_and_messages(text: str, made: Rate) -> None:
    assert rate(text) == made
    assert bool(made) is bool(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("hardcoded://anna:sesame,bert:open", "hardcoded://***"),
        ("file:///etc/mailgw/users", "file:///etc/mailgw/users"),
        ("HTTP://[::1]:8080/auth", "HTTP://[::1]:8080/auth"),
    ],
)
def test_a_source_of_credentials_is_shown_without_them(text: str, shown: str) -> None:
    assert urls.credentials(text) == text
    assert urls.mask_credentials(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "hardcoded://",
        "hardcoded://sesame",
        "hardcoded://anna:",
        "hardcoded://:sesame",
        "hardcoded://anna:sesame,bert",
        "https://anna:sesame@host/auth",
        "https://anna:sesame@host:port/",
        "https://anna:ses#ame@host/",
        "https://anna:1/sesame@host/",
    ],
)
def test_a_bad_source_of_credentials_does_not_tell_them(text: str) -> None:
    with pytest.raises(BadValue) as caught:
        urls.credentials(text)

    assert "ame" not in caught.value.wrong + caught.value.right
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_only_a_file_address_is_a_file() -> None:
    assert urls.file_of("file:///etc/mail%20gw/users") == Path("/etc/mail gw/users")
    assert urls.file_of("https://host/etc/users") is None
    assert urls.file_of("") is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("sqlite:///var/lib/mailerq.sqlite", "sqlite:///var/lib/mailerq.sqlite"),
        ("postgresql://anna:sesame@host:5432/mail", "postgresql://anna:***@host:5432/mail"),
        ("mysql://anna@[::1]/mail", "mysql://anna@[::1]/mail"),
    ],
)
def test_a_database_is_shown_without_its_password(text: str, shown: str) -> None:
    assert urls.database(text) == text
    assert urls.mask_url(text) == shown


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
        (values.pause, "-1", "is not a number of seconds", "try 300"),
        (values.seconds, "1.5", "is not a number of whole seconds", "try 2"),
        (values.seconds, "0", "is no time at all", "try 300"),
        (values.zones, "zen.example.org, a_b", "is not a list of domain names", ZONES),
        (values.zones, f"{'a.' * 95}b", "is not a list of domain names", ZONES),
        (values.endpoints, "localhost", "is not a list of addresses", ENDPOINTS),
        (values.endpoints, "::1", "is not a list of addresses", ENDPOINTS),
        (values.endpoints, "[127.0.0.1]:53", "is not a list of addresses", ENDPOINTS),
        (values.endpoints, "192.0.2.256", "is not a list of addresses", ENDPOINTS),
        (values.endpoints, "192.0.2.1:0", "holds a port that does not exist", "1 to 65535"),
        (values.endpoints, "192.0.2.1:65536", "holds a port that does not exist", "1 to 65535"),
        (values.user, "mail:gw", "is not the name of a user", "try mailgw"),
        (values.user, "-x", "is not the name of a user", "try mailgw"),
        (values.dotted, "package.module", "is not the name of a class", CLASS),
        (values.dotted, "package/module:Class", "is not the name of a class", CLASS),
        (values.dotted, ".module:Class", "is not the name of a class", CLASS),
        (values.several_dotted, "a:A, b", "is not the name of a class", CLASS),
        (
            values.logs,
            "stderr,sylog",
            "holds something that is neither a log nor the path of a file",
            "try stdout, stderr, syslog or /var/log/mailgw.log",
        ),
        (rate, "60", "is not a rate", "try connections=60,messages=600"),
        (rate, "mails=60", "is not a rate", "try connections=60,messages=600"),
        (rate, "messages=1, messages=2", "names messages twice", "keep one"),
        (rate, "messages=0", "is too small", "at least 1"),
        (rate, "messages=", "is not a whole number", "1 to 1000000"),
        (urls.credentials, "anna:sesame", "is not a source of credentials", SOURCE),
        (urls.credentials, "ftp://host/", "is not a source of credentials", SOURCE),
        (urls.credentials, "ldap://host:389/dc=x", *ELSEWHERE),
        (urls.credentials, "radius://me:sesame@host:1812", *ELSEWHERE),
        (urls.credentials, "users://anna,client*", *ELSEWHERE),
        (urls.credentials, "exec:///bin/true", *ELSEWHERE),
        (
            urls.credentials,
            "file://users.txt",
            "is not the address of a file",
            "try file:///etc/mailgw/users",
        ),
        (
            urls.credentials,
            "http:///path",
            "is not the address of a server",
            "try https://host/path",
        ),
        (urls.database, "couchbase://host/", "is not the address of a database", DATABASE),
        (urls.database, "sqlite://file", "is not the address of a database", DATABASE),
        (urls.database, "postgresql:///", "is not the address of a database", DATABASE),
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
        "amqp://user:sesame@a;",
        "amqp://user:sesame@a;b:port",
        "user:sesame@host",
    ],
)
def test_a_bad_broker_address_does_not_tell_its_password(text: str) -> None:
    with pytest.raises(BadValue) as caught:
        urls.brokers(text)

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
    assert urls.mask_brokers(text) == shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("spf", ("spf",)),
        ("spam, SPF;dkim,spf", ("spf", "dkim", "spam")),
    ],
)
def test_words_come_in_one_order_and_once(text: str, words: tuple[str, ...]) -> None:
    assert values.words("spf", "dkim", "spam")(text) == words


@pytest.mark.parametrize("text", ["spf,arc", "spf dkim", "true"])
def test_a_word_that_is_none_is_told_the_words(text: str) -> None:
    with pytest.raises(BadValue) as bad:
        values.words("spf", "dkim", "spam")(text)
    assert bad.value.right == "try spf, dkim, spam"


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("localhost", "localhost"),
        ("spamd.example.org", "spamd.example.org"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("/run/spamd.sock", "/run/spamd.sock"),
    ],
)
def test_spamd_is_at_a_host_or_a_socket(text: str, host: str) -> None:
    assert spamd_host(text) == host


@pytest.mark.parametrize("text", ["", "localhost:783", "spamd host", "run/spamd.sock"])
def test_what_is_no_place_for_spamd_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        spamd_host(text)


@pytest.mark.parametrize(
    ("text", "points"), [("", None), ("15", 15), ("7.5", 7.5), ("-1", -1), ("0", 0)]
)
def test_a_score_is_a_number_of_points(text: str, points: float | None) -> None:
    assert score(text) == points


@pytest.mark.parametrize("text", ["nan", "inf", "1e9", "7,5", "+5", "12345"])
def test_what_is_no_score_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        score(text)


@pytest.mark.parametrize(
    ("text", "domains"),
    [("", ()), ("List.Example.org.; a.test,a.test", ("list.example.org", "a.test"))],
)
def test_domains_are_a_list_in_lower_case(text: str, domains: tuple[str, ...]) -> None:
    assert values.domains(text) == domains


@pytest.mark.parametrize("text", ["a@b.test", "*.a.test", "a..b", "-", "a" * 254])
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        values.domains(text)


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
        values.pause,
        values.seconds,
        values.zones,
        values.domains,
        values.words("spf", "dkim"),
        score,
        spamd_host,
        values.endpoints,
        values.user,
        values.logs,
        values.several_dotted,
        urls.brokers,
        urls.credentials,
        urls.database,
        rate,
        networks,
        extract,
    ):
        with contextlib.suppress(BadValue):
            parse(text)


@given(
    st.sampled_from(["hardcoded", "file", "http", "https", "sqlite", "mysql", "amqp"]),
    st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=30),
)
def test_what_a_parser_takes_can_be_shown(scheme: str, rest: str) -> None:
    text = f"{scheme}://{rest}"
    for parse, mask in (
        (urls.credentials, urls.mask_credentials),
        (urls.database, urls.mask_url),
        (urls.brokers, urls.mask_brokers),
    ):
        with contextlib.suppress(BadValue):
            parse(text)
            mask(text)
