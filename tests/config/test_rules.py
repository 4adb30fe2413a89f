"""What must hold between keys, and what is unsafe on the internet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trustme

from mailgw.config import Severity, read

LOGIN = {"smtp-username": "anna", "smtp-password": "sesame"}
# Nothing to complain about: loopback, no broker, a queue.
QUIET = {
    "smtp-ip": "127.0.0.1",
    "rabbitmq-address": "",
    "queue-store": "queue.sqlite",
}
BROKER = {"smtp-ip": "127.0.0.1", "smtp-maxsize": "10MB"}
QUORUM = BROKER | {"rabbitmq-queue-type": "quorum"}
CLASSIC = BROKER | {"rabbitmq-queue-type": "classic"}
OUTSIDE = QUIET | {"smtp-ip": "192.0.2.1", "smtp-recipients": "local", "smtp-extract": "false"}
OUTSIDE_TLS = OUTSIDE | {"smtp-certificate": "mx.crt", "smtp-key": "mx.key", "local-addresses": "l"}


@pytest.fixture(autouse=True)
def _in_a_folder_with_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    authority = trustme.CA()
    for name in ("mx", "other"):
        issued = authority.issue_cert(f"{name}.example")
        issued.cert_chain_pems[0].write_to_path(f"{name}.crt")
        issued.private_key_pem.write_to_path(f"{name}.key")
        Path(f"{name}.key").chmod(0o600)
    Path("l").write_text("@example.com\n")
    Path("folder").mkdir()
    Path("shared").mkdir()
    Path("shared").chmod(0o1777)


def found(severity: Severity, texts: dict[str, str]) -> list[str]:
    """The findings of one severity as "key: text", without those about the command line."""
    configuration = read(arguments=list(texts.items()))
    return [
        f"{each.key}: {each.text}"
        for each in configuration.findings
        if each.severity is severity and "among the processes" not in each.text
    ]


@pytest.mark.parametrize("texts", [QUIET, OUTSIDE_TLS, BROKER])
def test_a_sound_configuration_has_neither_errors_nor_warnings(texts: dict[str, str]) -> None:
    assert found(Severity.ERROR, texts) == []
    assert found(Severity.WARNING, texts) == []


@pytest.mark.parametrize(
    ("texts", "error"),
    [
        (
            QUIET | {"smtp-check": "spf", "smtp-check-timeout": "30"},
            "smtp-check-timeout: is not shorter than smtp-confirm-timeout",
        ),
        (
            QUIET | {"smtp-check": "dkim", "smtp-confirm-timeout": "10"},
            "smtp-check-timeout: is not shorter than smtp-confirm-timeout",
        ),
        (
            QUIET | {"smtp-check": "spf", "smtp-reject": "spf,dmarc"},
            "smtp-reject: dmarc is not checked (add it to smtp-check)",
        ),
        (
            QUIET | {"smtp-check": "dmarc", "smtp-reject": "spf"},
            "smtp-reject: spf is not checked",
        ),
        (
            QUIET | {"smtp-quarantine": "spam", "rabbitmq-quarantine": "jail"},
            "smtp-quarantine: spam is not checked",
        ),
        (
            QUIET | {"smtp-check": "spam", "smtp-quarantine": "spam"},
            "smtp-quarantine: there is no queue for it (set rabbitmq-quarantine)",
        ),
        (QUIET | {"smtp-defer": "temperror"}, "smtp-defer: nothing is checked"),
        (
            QUIET | {"smtp-check": "spam", "smtp-reject": "spam"},
            "smtp-reject: spam is refused from no score on (set spam-reject-score, try 15)",
        ),
        (QUIET | {"smtp-certificate": "mx.crt"}, "smtp-certificate: needs the private key"),
        (QUIET | {"smtp-key": "mx.key"}, "smtp-key: needs the certificate"),
        (QUIET | {"smtp-secure-port": "465"}, "smtp-secure-port: needs a certificate"),
        (
            QUIET | {"smtp-certificate": "gone.crt", "smtp-key": "mx.key"},
            'smtp-certificate: "gone.crt" cannot be read: No such file',
        ),
        (
            QUIET | {"smtp-certificate": "mx.crt", "smtp-key": "folder"},
            'smtp-key: "folder" cannot be read: Is a directory',
        ),
        (
            QUIET | {"smtp-certificate": "mx.crt", "smtp-key": "other.key"},
            "smtp-certificate: certificate and key cannot be used together: KEY_VALUES_MISMATCH",
        ),
        (
            QUIET | {"smtp-certificate": "l", "smtp-key": "l"},
            "smtp-certificate: certificate and key cannot be used together: ",
        ),
        (QUIET | {"smtp-ciphers": "NO-SUCH"}, "smtp-ciphers: OpenSSL finds no cipher in it"),
        (QUIET | {"smtp-port": ""}, "smtp-port: no port to listen on"),
        (
            QUIET | {"smtp-secure-port": "25", "smtp-certificate": "mx.crt", "smtp-key": "mx.key"},
            "smtp-secure-port: port 25 is in smtp-port too",
        ),
        (
            QUIET | {"smtp-username": "anna", "smtp-auth-insecure-range": "::1"},
            "smtp-username: needs a password",
        ),
        (QUIET | {"smtp-password": "sesame"}, "smtp-password: needs a user name"),
        (
            QUIET | {"smtp-username": "anna", "smtp-password": "sesame"},
            "smtp-username: nobody could log in, because AUTH needs TLS",
        ),
        (QUIET | {"local-addresses": "gone"}, 'local-addresses: "gone" cannot be read'),
        (
            QUIET | {"smtp-auth": "hardcoded://anna:sesame"},
            "smtp-auth: nobody could log in, because AUTH needs TLS",
        ),
        (
            QUIET | LOGIN | {"smtp-auth": "hardcoded://b:c", "smtp-auth-insecure-range": "::1"},
            "smtp-auth: is set beside smtp-username",
        ),
        (
            QUIET | {"smtp-auth": "file:///gone", "smtp-auth-insecure-range": "::1"},
            'smtp-auth: "/gone" cannot be read: No such file',
        ),
        (
            QUIET | {"smtp-greeting-delay": "5m"},
            "smtp-greeting-delay: is not shorter than smtp-timeout",
        ),
        (
            QUIET | {"application-log": "stderr,gone/mailgw.log"},
            'application-log: there is no folder "gone"',
        ),
        (
            QUIET | {"received-log-file": "gone/received.log"},
            'received-log-file: there is no folder "gone"',
        ),
        (QUIET | {"received-log-file": "folder"}, 'received-log-file: "folder" is a folder'),
        (QUIET | {"queue-store": ""}, "rabbitmq-address: no broker and no embedded queue"),
        (QUIET | {"queue-store": "gone/q"}, 'queue-store: there is no folder "gone"'),
        (QUIET | {"queue-store": "folder"}, "queue-store: is a folder"),
        (BROKER | {"rabbitmq-outage": "store"}, "rabbitmq-outage: there is no queue-store"),
        (QUORUM | {"rabbitmq-maxpriority": "4"}, "rabbitmq-maxpriority: quorum queues have no"),
        (QUORUM | {"rabbitmq-durable": "false"}, "rabbitmq-durable: quorum queues are always"),
    ],
)
def test_keys_that_contradict_each_other_are_an_error(texts: dict[str, str], error: str) -> None:
    errors = found(Severity.ERROR, texts)

    assert [line[: len(error)] for line in errors] == [error]


@pytest.mark.parametrize(
    "texts",
    [
        QUIET | {"smtp-certificate": "mx.crt", "smtp-key": "mx.key", "smtp-secure-port": "465"},
        QUIET
        | {
            "smtp-certificate": "mx.crt",
            "smtp-key": "mx.key",
            "smtp-username": "a",
            "smtp-password": "b",
        },
        QUIET
        | {"smtp-username": "a", "smtp-password": "b", "smtp-auth-insecure-range": "127.0.0.1"},
        QUIET | {"smtp-auth": "hardcoded://a:b", "smtp-auth-insecure-range": "127.0.0.1"},
        OUTSIDE_TLS | {"smtp-auth": "https://localhost/"},
        QUIET | {"smtp-greeting-delay": "299s"},
        QUIET | {"smtp-greeting-delay": "6s", "smtp-timeout": "7"},
        QUIET | {"application-log": "stdout,syslog,./mailgw.log"},
        QUIET | {"received-log-file": "folder/received.log"},
        QUIET | {"smtp-ciphers": "HIGH:!aNULL"},
        QUIET | {"queue-store": "", "output": "null"},
        BROKER | {"rabbitmq-outage": "store", "queue-store": "queue.sqlite"},
        CLASSIC | {"rabbitmq-maxpriority": "4"},
        CLASSIC | {"rabbitmq-durable": "false"},
        CLASSIC | {"rabbitmq-lazy": "true"},
        QUIET | {"rabbitmq-maxpriority": "4"},
    ],
)
def test_the_same_keys_set_rightly_are_no_error(texts: dict[str, str]) -> None:
    assert found(Severity.ERROR, texts) == []


@pytest.mark.parametrize(
    ("texts", "warning"),
    [
        (OUTSIDE_TLS | {"smtp-recipients": "any"}, "smtp-recipients: everybody who can connect"),
        (OUTSIDE_TLS | {"smtp-extract": "true"}, "smtp-extract: everybody who can connect"),
        (OUTSIDE_TLS | {"smtp-extract": "0.0.0.0/0"}, "smtp-extract: everybody who can connect"),
        (
            OUTSIDE_TLS | {"smtp-certificate": "", "smtp-key": ""},
            "smtp-certificate: without a certificate",
        ),
        (OUTSIDE_TLS | {"local-addresses": ""}, "smtp-recipients: no address is local"),
        (
            QUIET | {"smtp-auth-insecure-range": "0.0.0.0/0"},
            "smtp-auth-insecure-range: lets everybody",
        ),
        (
            OUTSIDE_TLS | {"smtp-recipients": "any", "smtp-range": "0.0.0.0/0"},
            "smtp-recipients: everybody who can connect",
        ),
        (
            OUTSIDE_TLS | {"smtp-ip": "::1", "smtp-proxy": "::1", "smtp-recipients": "any"},
            "smtp-recipients: everybody who can connect",
        ),
        (OUTSIDE_TLS | {"smtp-proxy": "0.0.0.0/0"}, "smtp-proxy: everybody may say which address"),
        (
            OUTSIDE_TLS | {"smtp-auth": "http://auth.example/"},
            "smtp-auth: passwords go to auth.example in clear",
        ),
        (
            QUIET | {"smtp-connections-per-ip": "11", "smtp-connections": "10"},
            "smtp-connections-per-ip: is above smtp-connections,",
        ),
        (
            QUIET | {"smtp-connections-per-ip": "11", "smtp-connections-in": "10"},
            "smtp-connections-per-ip: is above smtp-connections-in,",
        ),
        (QUIET | {"daemon": "true"}, "application-log: a daemon has no terminal"),
        (QUIET | {"lock": "shared/mailerq.pid"}, "lock: everybody can be first to make a file"),
        (QUIET | {"queue-store": "shared/q"}, "queue-store: everybody can be first to make a file"),
        (QUIET | {"queue-store-max": "199MB"}, "queue-store-max: has no room for two mails"),
        (
            BROKER | {"rabbitmq-outage": "store", "queue-store": "q", "queue-store-max": "19MB"},
            "queue-store-max: has no room for two mails",
        ),
        (QUIET | {"smtp-maxsize": "1KB"}, "smtp-maxsize: RFC 5321 wants 64 KiB"),
        (QUIET | {"smtp-bare-newlines": "carry"}, "smtp-bare-newlines: what sends such mail on"),
        (QUIET | {"output": "null"}, "output: accepts mail and drops it"),
        (BROKER | {"rabbitmq-inbox": "outbox"}, "rabbitmq-inbox: is rabbitmq-outbox too"),
        (
            BROKER | {"rabbitmq-inbox": "q", "rabbitmq-outbox": "q"},
            "rabbitmq-inbox: is rabbitmq-outbox too",
        ),
        (BROKER | {"rabbitmq-persistent": "no"}, "rabbitmq-persistent: a restart of the broker"),
        (BROKER | {"rabbitmq-maxpriority": "4"}, "rabbitmq-maxpriority: quorum queues have no"),
        (BROKER | {"rabbitmq-durable": "false"}, "rabbitmq-durable: quorum queues are always"),
        (BROKER | {"rabbitmq-lazy": "true"}, "rabbitmq-lazy: quorum queues have no lazy mode"),
        (CLASSIC | {"rabbitmq-durable": "no"}, "rabbitmq-durable: a restart of the broker"),
        (
            BROKER | {"rabbitmq-address": "amqps://broker/", "rabbitmq-verify": "no"},
            "rabbitmq-verify: anybody on the way",
        ),
        (
            BROKER | {"rabbitmq-address": "amqp://broker/"},
            "rabbitmq-address: mail and password go to broker in clear",
        ),
    ],
)
def test_what_is_unsafe_is_a_warning(texts: dict[str, str], warning: str) -> None:
    warnings = found(Severity.WARNING, texts)

    assert [line[: len(warning)] for line in warnings] == [warning]
    assert found(Severity.ERROR, texts) == []


def test_a_server_on_all_addresses_is_open_to_the_internet() -> None:
    texts = QUIET | {"smtp-ip": ""}

    assert [line.split(":")[0] for line in found(Severity.WARNING, texts)] == [
        "smtp-certificate",
        "smtp-extract",
        "smtp-recipients",
    ]


@pytest.mark.parametrize(
    "texts",
    [
        LOGIN,
        {"smtp-auth": "hardcoded://anna:sesame"},
        {"smtp-range": "192.168.0.0/16"},
        {"smtp-range": "192.168.0.0/16", "smtp-extract": "true"},
        {"smtp-range": "192.168.0.0/16", "smtp-extract": "true", "smtp-proxy": "192.168.0.1"},
    ],
)
def test_a_login_or_a_range_is_no_open_relay(texts: dict[str, str]) -> None:
    assert found(Severity.WARNING, OUTSIDE_TLS | {"smtp-recipients": "any"} | texts) == []


@pytest.mark.parametrize(
    "texts",
    [
        OUTSIDE_TLS | {"local-addresses": "", "database-address": "postgresql://localhost/mail"},
        OUTSIDE_TLS | {"smtp-auth": "http://127.0.0.1:8080/"},
        QUIET | {"smtp-connections-per-ip": "10", "smtp-connections": "10"},
        QUIET | {"daemon": "true", "application-log": "stderr,syslog"},
        QUIET | {"daemon": "true", "application-log": ""},
        QUIET | {"lock": "folder/mailgw.pid"},
        QUIET | {"queue-store-max": "200MB"},
        QUIET | {"queue-store-max": ""},
        BROKER | {"queue-store": "q", "queue-store-max": "1MB"},
    ],
)
def test_the_same_set_safely_is_no_warning(texts: dict[str, str]) -> None:
    assert found(Severity.WARNING, texts) == []
    assert found(Severity.ERROR, texts) == []


def test_a_file_of_logins_that_can_be_read_is_no_error(tmp_path: Path) -> None:
    texts = QUIET | {"smtp-auth": f"file://{tmp_path}/l", "smtp-auth-insecure-range": "::1"}

    assert found(Severity.ERROR, texts) == []


def test_defaults_that_differ_from_mailerq_are_noted_with_the_reason() -> None:
    notes = found(Severity.NOTE, BROKER)

    assert [re.sub(r": .*", "", line) for line in notes] == [
        "application-log",
        "daemon",
        "lock",
        "rabbitmq-inbox",
        "rabbitmq-persistent",
        "rabbitmq-queue-type",
        "rabbitmq-throttle",
    ]
    assert all(": not MailerQ's default: " in line for line in notes)


def test_what_was_chosen_is_not_noted() -> None:
    notes = found(Severity.NOTE, BROKER | {"rabbitmq-persistent": "true"})

    assert not [line for line in notes if line.startswith("rabbitmq-persistent")]


def test_a_queue_beside_a_broker_is_noted_as_unused() -> None:
    notes = found(Severity.NOTE, BROKER | {"queue-store": "queue.sqlite"})

    assert [line for line in notes if line.startswith("queue-store: not used while")]


def test_a_queue_that_outages_are_stored_in_is_used() -> None:
    texts = BROKER | {"queue-store": "queue.sqlite", "rabbitmq-outage": "store"}

    assert not [line for line in found(Severity.NOTE, texts) if line.startswith("queue-store")]


@pytest.mark.parametrize(
    ("texts", "severity"),
    [
        ({}, Severity.NOTE),
        ({"smtp-maxsize": "16MiB"}, None),
        ({"rabbitmq-max-message-size": "150MB"}, None),
        ({"rabbitmq-max-message-size": "50MB"}, Severity.WARNING),
        ({"rabbitmq-encoding": "gzip"}, None),
        ({"rabbitmq-address": "", "queue-store": "queue.sqlite"}, None),
        ({"storage-above": "10MB"}, None),
        ({"storage-above": "20MB"}, Severity.NOTE),
        ({"storage-policy": "in"}, None),
    ],
)
def test_mail_that_the_broker_does_not_take_is_told_beforehand(
    texts: dict[str, str], severity: Severity | None
) -> None:
    texts = BROKER | {"smtp-maxsize": "100MB"} | texts
    if any("storage" in key for key in texts):
        texts["storage-address"] = "dir:///tmp/bodies"

    told = [
        each
        for each in (Severity.NOTE, Severity.WARNING)
        if any("larger mail is refused" in line for line in found(each, texts))
    ]

    assert told == ([] if severity is None else [severity])


def test_an_outage_without_a_broker_is_noted_as_none() -> None:
    notes = found(Severity.NOTE, QUIET | {"rabbitmq-outage": "store"})

    assert [line for line in notes if line.startswith("rabbitmq-outage: without effect")]


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, False), (0o600, False)])
def test_a_file_that_everybody_reads_keeps_no_secret(mode: int, warned: bool) -> None:
    file = Path("mailgw.conf")
    file.write_text("smtp-ip: ::1\nrabbitmq-address: amqp://anna:sesame@localhost/\n")
    file.chmod(mode)

    warnings = [str(each) for each in read([file]).findings if each.severity is Severity.WARNING]

    expected = (
        "mailgw.conf:2: rabbitmq-address: warning: everybody on this machine can read it "
        "(chmod o-r mailgw.conf)"
    )
    assert warnings == ([expected] if warned else [])


@pytest.mark.parametrize(
    ("lines", "warned"),
    [
        ("smtp-auth: hardcoded://anna:sesame\nsmtp-auth-insecure-range: ::1\n", ["smtp-auth"]),
        ("database-address: mysql://anna:sesame@h/mail\n", ["database-address"]),
        ("database-address: mysql://anna@h/mail\n", []),
        ("storage-address: s3://anna:sesame@eu-west-1/bodies\n", ["storage-address"]),
        ("storage-address: s3://eu-west-1/bodies\n", []),
        ("smtp-username: anna\nsmtp-password: sesame\n", ["smtp-password"]),
        ("smtp-auth: hardcoded://anna\ndatabase-address: mysql://[::1\n", []),
    ],
)
def test_a_login_in_an_address_is_a_secret(lines: str, warned: list[str]) -> None:
    file = Path("mailgw.conf")
    file.write_text(f"smtp-ip: ::1\n{lines}")
    file.chmod(0o644)

    warnings = [each for each in read([file]).findings if each.severity is Severity.WARNING]

    assert [each.key for each in warnings if "(chmod o-r" in each.text] == warned


@pytest.mark.parametrize(
    "line", ["smtp-password:", "rabbitmq-address: amqp://localhost/", "smtp-port: 25"]
)
def test_a_file_without_a_secret_may_be_read_by_everybody(line: str) -> None:
    file = Path("mailgw.conf")
    file.write_text(f"smtp-ip: ::1\n{line}\n")
    file.chmod(0o644)

    assert [each for each in read([file]).findings if each.severity is Severity.WARNING] == []


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, False)])
def test_files_that_hold_keys_hashes_mail_and_addresses_are_not_for_everybody(
    mode: int, warned: bool
) -> None:
    users = Path("users").absolute()
    users.write_text("anna:$5$x$y\n")
    keys = {
        "smtp-auth": f"file://{users}",
        "queue-store": "queue.sqlite",
        "application-log": "stderr,./mailgw.log",
        "received-log-file": "received.log",
    }
    files = {
        "application-log": "mailgw.log",
        "queue-store": "queue.sqlite",
        "received-log-file": "received.log",
        "smtp-auth": str(users),
        "smtp-key": "mx.key",
    }
    for name in files.values():
        Path(name).touch()
        Path(name).chmod(mode)

    warnings = sorted(found(Severity.WARNING, OUTSIDE_TLS | keys))

    expected = [
        f"{key}: everybody on this machine can read the file (chmod o-r {name})"
        for key, name in files.items()
    ]
    assert warnings == (expected if warned else [])


def test_a_secret_on_the_command_line_is_a_warning() -> None:
    configuration = read(arguments=[*QUIET.items(), ("smtp-password", "x"), ("smtp-username", "a")])

    assert "smtp-password" in {
        each.key for each in configuration.findings if "among the processes" in each.text
    }


def test_a_rule_is_silent_about_keys_that_cannot_be_read() -> None:
    errors = found(Severity.ERROR, QUIET | {"queue-store": "", "rabbitmq-address": "http://x"})

    assert [line.split(":")[0] for line in errors] == ["rabbitmq-address"]


def test_a_key_that_nobody_can_read_is_an_error() -> None:
    Path("loop.key").symlink_to("loop.key")

    errors = found(Severity.ERROR, QUIET | {"smtp-certificate": "mx.crt", "smtp-key": "loop.key"})

    assert errors == ['smtp-key: "loop.key" cannot be read: Too many levels of symbolic links']


CHECKED = QUIET | {"smtp-check": "spf,dkim,dmarc,arc,spam"}


@pytest.mark.parametrize(
    ("texts", "warning"),
    [
        (QUIET | {"smtp-auth-results": "local"}, "smtp-auth-results: nothing is checked"),
        (CHECKED | {"rabbitmq-quarantine": "q"}, "rabbitmq-quarantine: nothing goes there"),
        (CHECKED | {"rabbitmq-refused": "q"}, "rabbitmq-refused: nothing goes there"),
        (
            CHECKED | {"smtp-reject": "spf", "rabbitmq-refused": "inbox"},
            "rabbitmq-refused: is where accepted mail goes",
        ),
        (CHECKED | {"spam-reject-score": "7"}, "spam-reject-score: has no effect without"),
        (
            CHECKED | {"spamassassin-timeout": "20"},
            "spamassassin-timeout: is longer than smtp-check-timeout",
        ),
        (
            QUIET | {"smtp-check": "dmarc", "arc-trusted": "list.test"},
            "arc-trusted: has no effect without dmarc and arc",
        ),
    ],
)
def test_what_is_said_of_checks_and_has_no_effect_is_warned_about(
    texts: dict[str, str], warning: str
) -> None:
    assert found(Severity.ERROR, texts) == []
    assert [line.startswith(warning) for line in found(Severity.WARNING, texts)] == [True]


def test_checks_with_all_their_consequences_are_sound() -> None:
    texts = CHECKED | {
        "smtp-auth-results": "local,nonlocal",
        "smtp-reject": "dmarc,spf,spam",
        "spam-reject-score": "15",
        "smtp-quarantine": "dmarc,spam",
        "rabbitmq-quarantine": "quarantine",
        "rabbitmq-refused": "refused",
        "rabbitmq-reports": "reports",
        "smtp-defer": "temperror",
        "arc-trusted": "list.test",
    }

    assert found(Severity.ERROR, texts) == []
    assert found(Severity.WARNING, texts) == []
