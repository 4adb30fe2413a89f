"""From sources to Settings: what lies on top of what, and what is said of each key."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgw.config import ConfigError, Settings, load, read
from mailgw.config.declare import declared
from mailgw.config.networks import EVERYBODY, NOWHERE, networks
from mailgw.config.sections.document import Extract
from mailgw.config.sections.known import (
    ABSENT,
    ALIASES,
    IGNORED,
    LATER,
    RENAMED,
    SECRET,
    SENDING,
)
from mailgw.config.sections.limits import LimitSettings, Rate
from mailgw.config.sections.process import ProcessSettings
from mailgw.config.settings import KEYS, KNOWN, SECTIONS


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def conf(text: str, name: str = "mailgw.conf") -> Path:
    file = Path(name)
    file.write_text(text, encoding="utf-8")
    return file


def errors_of(*arguments: tuple[str, str]) -> list[str]:
    return [str(finding) for finding in read(arguments=arguments).errors]


def test_nothing_written_is_all_defaults() -> None:
    assert load() == Settings()
    assert load().listen.port == (25,)
    assert load().smtp.maxsize == 100_000_000
    assert load().smtp.max_recipients == 1000
    assert load().document.extract == Extract("everybody")
    assert load().broker.address == ("amqp://guest:guest@localhost/",)
    assert load().broker.maxpriority is None
    assert load().store.queue_store is None
    assert load().access.range is EVERYBODY
    assert load().access.proxy == NOWHERE
    assert load().limits == LimitSettings(minimum_rate=1000, dnsbl_action="refuse")
    assert load().log.application == ("stderr",)
    assert load().process == ProcessSettings(user="", lock=None, daemon=False)


def test_every_kind_of_value_reaches_its_section() -> None:
    conf("x", "locals.txt")
    file = conf(
        """\
# a gateway for a small office
smtp-ip: 127.0.0.1; ::1
smtp-port: 25,2525,1024-1026
smtp-maxsize: 20MiB
smtp-timeout: 60.5
smtp-validate-address: loose
smtp-username: anna
smtp-password: open # sesame
smtp-auth-insecure-range: 192.0.2.0/24;127.0.0.1
smtp-extract: authenticated
local-addresses: locals.txt
rabbitmq-address:
queue-store: queue.sqlite
rabbitmq-encoding: gzip
dsn-advertise: 1
smtp-range: 10.0.0.0/8
smtp-connections-per-ip: 20
smtp-rate: connections=60,messages=600
smtp-greeting-delay: 1.5
smtp-dnsbl: zen.example.org
dns-server: 127.0.0.1:5353
database-ttl: 10m
user: mailgw
lock: mailgw.pid
application-log: syslog,./mailgw.log
hook-timeout: 2
"""
    )

    settings = load([file])

    assert settings.listen.ip == ("127.0.0.1", "::1")
    assert settings.listen.port == (25, 2525, 1024, 1025, 1026)
    assert settings.smtp.maxsize == 20_971_520
    assert settings.smtp.timeout == 60.5
    assert settings.smtp.validate_address == "loose"
    assert settings.smtp.dsn is True
    assert (settings.access.username, settings.access.password) == ("anna", "open # sesame")
    assert settings.access.auth_insecure_range == networks("127.0.0.1;192.0.2.0/24")
    assert settings.document.extract == Extract("authenticated")
    assert settings.local.addresses == Path("locals.txt")
    assert settings.broker.address == ()
    assert settings.broker.encoding == "gzip"
    assert settings.store.queue_store == Path("queue.sqlite")
    assert settings.access.range == networks("10.0.0.0/8")
    assert (settings.limits.per_ip, settings.limits.rate) == (20, Rate(60, 600))
    assert (settings.limits.greeting_delay, settings.limits.dnsbl) == (1.5, ("zen.example.org",))
    assert settings.dns.server == (("127.0.0.1", 5353),)
    assert settings.local.ttl == 600
    assert (settings.process.user, settings.process.lock) == ("mailgw", Path("mailgw.pid"))
    assert settings.log.application == ("syslog", "./mailgw.log")
    assert settings.extensions.hook_timeout == 2


LAYERS = [
    ("25", "default"),
    ("1", "first.conf:1"),
    ("2", "second.conf:2"),
    ("3", "environment"),
    ("4", "command line"),
]


@pytest.mark.parametrize("depth", range(len(LAYERS)))
def test_each_source_lies_on_top_of_the_one_before(depth: int) -> None:
    files = [conf("smtp-port: 1\n", "first.conf"), conf("# two\nsmtp-port: 2\n", "second.conf")]

    configuration = read(
        files[:depth],
        {"MAILGW_SMTP_PORT": "3"} if depth >= 3 else {},
        [("smtp-port", "4")] if depth >= 4 else [],
    )

    value, origin = LAYERS[depth]
    line = next(line for line in configuration.lines() if line.key == "smtp-port")
    assert configuration.settings.listen.port == (int(value),)
    assert (line.value, line.default, line.origin) == (value, "25", origin)


def test_a_second_file_may_switch_off_what_the_first_set() -> None:
    files = [conf("dsn-advertise: true\n", "a.conf"), conf("dsn-advertise:\n", "b.conf")]

    assert load(files).smtp.dsn is False


def test_an_unreadable_value_is_an_error_with_its_line() -> None:
    file = conf("#\n" * 40 + "smtp-maxsize: 32Q\n")

    with pytest.raises(ConfigError) as caught:
        load([file])

    assert str(caught.value) == 'mailgw.conf:41: smtp-maxsize: "32Q" is not a size (try 32MB)'


def test_all_errors_of_all_sources_come_at_once_and_in_reading_order() -> None:
    files = [conf("output: b\nsmtp-prot: 1\n", "b.conf"), conf("smtp-port: x\n", "a.conf")]

    with pytest.raises(ConfigError) as caught:
        load(
            [*files, Path("gone")],
            {"MAILGW_NO": "1"},
            [("rabbitmq-outage", "wait"), ("smtp-timeout", "")],
        )

    assert [str(finding) for finding in caught.value.findings] == [
        'b.conf:1: output: "b" is not one of its words (try queue or null)',
        "b.conf:2: smtp-prot: is no key (did you mean smtp-port?)",
        'a.conf:1: smtp-port: "x" is not a list of ports (try 25,2525 or 1024-1026)',
        "gone: cannot be read: No such file or directory",
        'command line: rabbitmq-outage: "wait" is not one of its words (try refuse or store)',
        "command line: smtp-timeout: the empty value is not a number of seconds (try 300)",
        "environment: MAILGW_NO: is no key (show-config lists them all)",
    ]


def test_an_error_is_one_even_where_a_later_source_covers_it() -> None:
    with pytest.raises(ConfigError):
        load([conf("smtp-port: x\n")], {}, [("smtp-port", "25")])


@pytest.mark.parametrize(
    ("key", "text", "hint"),
    [
        ("smtp-port", "25 # smtp", "; a comment needs a line of its own)"),
        ("smtp-maxsize", '"10MB"', "; without quotation marks)"),
    ],
)
def test_a_usual_mistake_gets_its_own_hint(key: str, text: str, hint: str) -> None:
    assert [line[-len(hint) :] for line in errors_of((key, text))] == [hint]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("spool-directory", "/var/spool/mailerq"),
    ],
)
def test_a_rule_that_would_not_be_obeyed_keeps_the_gateway_from_starting(
    key: str, text: str
) -> None:
    assert errors_of((key, text)) == [f"command line: {key}: is not available yet (leave it empty)"]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("spool-directory", ""),
        ("smtp-protection", ""),
        ("smtp-protection", "no"),
        ("spool-remove", "true"),
        ("spool-threads", "1"),
    ],
)
def test_a_later_key_that_is_off_passes(key: str, text: str) -> None:
    assert errors_of((key, text)) == []


@pytest.mark.parametrize(
    "key", ["smtp-connections-out", "rabbitmq-qos", "www-port", "max-attempts", "rabbitmq-outbox"]
)
def test_a_sending_key_is_known_and_noted(key: str) -> None:
    configuration = read(arguments=[(key, "1")])

    assert configuration.errors == ()
    assert f"command line: {key}: note: not applicable, only concerns sending" in [
        str(finding) for finding in configuration.findings
    ]


def test_a_protection_that_nobody_explains_is_refused_with_what_is_there_instead() -> None:
    assert errors_of(("smtp-protection", "true")) == [
        "command line: smtp-protection: is not available here: nobody says where its list comes "
        "from (use smtp-dnsbl, or smtp-range)"
    ]


@pytest.mark.parametrize(
    ("key", "text", "reason"),
    [
        ("dns-attempts", "5", "the resolver decides"),
        ("database-validate", "true", "the one table that is used is always checked"),
        (
            "received-log-maxsize",
            "100MB",
            "logrotate's work: a log that was moved away is opened again",
        ),
    ],
)
def test_a_key_without_effect_is_noted_with_the_reason(key: str, text: str, reason: str) -> None:
    configuration = read(arguments=[(key, text)])

    assert configuration.errors == ()
    assert f"command line: {key}: note: no effect here, {reason}" in [
        str(finding) for finding in configuration.findings
    ]


def test_another_spelling_of_a_key_counts_as_the_key() -> None:
    assert load([conf("smtp-defaultips: 192.0.2.1;192.0.2.2\n")]).access.default_ips == (
        "192.0.2.1",
        "192.0.2.2",
    )


def test_hooks_stand_on_several_lines_in_their_order() -> None:
    file = conf("hook: ours.grey:Grey\nsmtp-port: 25\nhook: a:A, b:B\n")

    assert load([file]).extensions.hook == ("ours.grey:Grey", "a:A", "b:B")
    assert load([file], {"MAILGW_HOOK": "c:C,d:D"}).extensions.hook == ("c:C", "d:D")


def test_a_bad_one_of_several_lines_is_told_with_its_own_line() -> None:
    file = conf("hook: a:A\n\nhook: nothing\n")

    assert [str(each) for each in read([file]).errors] == [
        'mailgw.conf:3: hook: "nothing" is not the name of a class (try package.module:Class)'
    ]


def test_the_account_names_every_key_that_was_written() -> None:
    file = conf(
        "smtp-port: 25\nrabbitmq-qos: 5\ndns-rotate: true\nspool-directory:\nsmtp-maxsize: 32Q\n"
    )

    account = [str(each) for each in read([file]).account if each.origin != "default"]

    assert account == [
        "mailgw.conf:1: smtp-port: honoured",
        "mailgw.conf:2: rabbitmq-qos: note: not applicable, only concerns sending",
        "mailgw.conf:3: dns-rotate: note: no effect here, the resolver decides",
        "mailgw.conf:4: spool-directory: honoured: off",
        'mailgw.conf:5: smtp-maxsize: "32Q" is not a size (try 32MB)',
    ]


@pytest.mark.parametrize(
    ("key", "today"),
    [
        ("smtp-ranges", "smtp-range"),
        ("smtp-privatekey", "smtp-key"),
        ("rabbitmq-host", "rabbitmq-address"),
        ("rabbitmq-password", "rabbitmq-address"),
    ],
)
def test_an_old_name_is_told_todays(key: str, today: str) -> None:
    assert errors_of((key, "sesame")) == [
        f"command line: {key}: is an old name (today's is {today})"
    ]


def test_every_name_is_declared_in_one_place_only() -> None:
    groups = [set(names) for names in (KEYS, LATER, ABSENT, IGNORED, SENDING, ALIASES, RENAMED)]

    assert len(set().union(*groups)) == sum(len(group) for group in groups)
    assert set(RENAMED.values()) <= set(KEYS) | set(LATER)
    assert set(ALIASES.values()) <= set(KEYS)
    assert set(SECRET) <= set(KNOWN)


def test_every_section_is_the_attribute_it_is_named_after() -> None:
    settings = Settings()

    named = {section.__section__: section for section in SECTIONS}
    assert {f.name: type(getattr(settings, f.name)) for f in fields(settings)} == named


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: str(section.__name__))
def test_every_default_is_what_its_text_says(section: type) -> None:
    made = section()

    for attribute, key in declared(section):
        assert getattr(made, attribute) == key.parse(key.default), key.name


SECRETS = {
    "smtp-username": "anna",
    "smtp-password": "sesame",
    "rabbitmq-address": "amqp://anna:sesame@localhost/,amqps://anna:sesame@h/",
    "smtp-auth-insecure-range": "127.0.0.1",
    "database-address": "mysql://anna:sesame@localhost/mail",
    "www-password": "sesame",
}


def test_a_secret_is_in_no_repr_and_no_line() -> None:
    configuration = read(
        [conf("".join(f"{key}: {text}\n" for key, text in SECRETS.items()))],
    )

    assert configuration.errors == ()
    shown = repr(configuration) + repr(configuration.settings)
    shown += repr(list(configuration.lines())) + repr(configuration.findings)
    assert "sesame" not in shown
    assert "anna" in repr(list(configuration.lines()))


def test_a_hardcoded_login_is_in_no_repr_and_no_line() -> None:
    file = conf("smtp-auth: hardcoded://anna:sesame\nsmtp-auth-insecure-range: ::1\n")

    configuration = read([file])

    assert configuration.errors == ()
    shown = repr(configuration) + repr(configuration.settings)
    shown += repr(list(configuration.lines())) + repr(configuration.findings)
    assert "sesame" not in shown


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("rabbitmq-address", "amqp://anna:sesame@localhost:port/"),
        ("smtp-password", "ses\x07ame"),
        ("smtp-auth", "hardcoded://anna:sesame,sesame"),
        ("smtp-auth", "ldap://anna:sesame@host/"),
        ("database-address", "oracle://anna:sesame@host/"),
        ("database-address", "mysql://anna:sesame@host:port/"),
        ("rabbitmq-passwort", "sesame"),
    ],
)
def test_a_secret_is_in_no_error(key: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load([conf(f"{key}: {text}\n")])

    assert "ses" not in str(caught.value)


@given(
    st.dictionaries(
        st.sampled_from(sorted(KNOWN)),
        st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12),
        max_size=8,
    )
)
def test_whatever_is_written_loading_raises_what_reading_found(texts: dict[str, str]) -> None:
    # Files that a value may name are opened: keep them inside the empty folder.
    pairs = [(key, text.replace("/", "")) for key, text in texts.items()]
    configuration = read(arguments=pairs)

    try:
        load(arguments=pairs)
    except ConfigError as error:
        found = error.findings
    else:
        found = ()
    assert found == configuration.errors
