"""A MailerQ configuration starts unchanged, and check-config accounts for every key of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import gateway
from mailgw.cli import main
from mailgw.config import load, read
from mailgw.config.networks import networks
from mailgw.config.sections.known import ALIASES
from mailgw.config.settings import KEYS

CONFIG = (Path(__file__).parents[1] / "vectors" / "mailerq" / "config.txt").read_text("utf-8")

HONOURED = "honoured"
OFF = "honoured: off"
SENDING = "note: not applicable, only concerns sending"
NO_EFFECT = "note: no effect here, "
# What a whole file may not hold yet, and what an older one is told.
TO_COME = "is not available yet (leave it empty)"
OLD_NAME = "is an old name (today's is "

# Every key that MailerQ's documentation has for a server that receives, as it groups them, and
# what an operator hears about it. Spelled out here, so that a key that we lose is missed.
KEYS_BY_FATE = {
    HONOURED: """
        smtp-ip smtp-port smtp-secure-port smtp-certificate smtp-key smtp-ciphers
        smtp-default-ips smtp-mappable-ips smtp-unmappable-ips smtp-range smtp-username
        smtp-password smtp-auth smtp-proxy smtp-validate-address smtp-connections
        smtp-connections-in smtp-maxsize smtp-threads smtp-timeout smtp-extract dsn-advertise
        dsn-notify dsn-ret
        rabbitmq-address rabbitmq-verify rabbitmq-inbox rabbitmq-local rabbitmq-exchange
        rabbitmq-declare rabbitmq-durable rabbitmq-persistent rabbitmq-lazy rabbitmq-maxpriority
        rabbitmq-encoding rabbitmq-throttle rabbitmq-reports rabbitmq-refused
        smtp-check smtp-auth-results spamassassin-host spamassassin-port
        server-id user lock daemon database-address database-ttl
        received-log-file received-log-format application-log
        dns-min-ttl dns-timeout dns-capacity
        storage-address storage-policy storage-threads storage-timeout
    """,
    OFF: "smtp-protection",
    SENDING: """
        smtp-connections-out rabbitmq-outbox rabbitmq-dsn rabbitmq-results rabbitmq-success
        rabbitmq-failure rabbitmq-retry rabbitmq-consumers rabbitmq-qos rabbitmq-minqos
        rabbitmq-flush-qos license validate-envelope validate-recipient max-delivertime
        max-attempts retry-interval send-log-file download-log-file www-log-file www-port www-ip
        www-dir www-connections www-password www-auth www-secure-port www-certificate
        www-privatekey www-ciphers www-host www-url www-cache-control render-useragent
        cluster-address cluster-exchange cluster-verify plugin-directory proxy-server heartbeat
        heartbeat-enabled
    """,
    NO_EFFECT: """
        rabbitmq-publishers database-validate received-bin-log-file received-log-maxsize
        received-log-maxage received-log-compression received-log-history
        storage-ttl storage-reschedule
        dns-threads dns-getaddrinfo dns-interval dns-attempts dns-sockets dns-buffersize dns-rotate
    """,
    TO_COME: """
        spool-directory spool-fail-directory spool-delay
        spool-remove spool-extract spool-open-files spool-threads
    """,
    OLD_NAME: """
        smtp-ranges smtp-privatekey smtp-hostname rabbitmq-host rabbitmq-user rabbitmq-password
        rabbitmq-vhost received-log-directory received-log-prefix error-log database
    """,
}
FATE = {key: fate for fate, keys in KEYS_BY_FATE.items() for key in keys.split()}
# Not in one file with smtp-auth.
EITHER_OR = {"smtp-username", "smtp-password"}


@pytest.fixture
def config(tmp_path: Path, certificate: gateway.Certificate) -> str:
    """The file, with its folders moved to where this test may write."""
    for name, source in (("crt", certificate.chain), ("key", certificate.key)):
        (tmp_path / f"your.domain.com.{name}").write_bytes(source.read_bytes())
    return re.sub(r"/(?:etc|var/log)/mailerq/", f"{tmp_path}/", CONFIG)


@pytest.fixture
def check(tmp_path: Path) -> Callable[[str], Result]:
    def run(text: str) -> Result:
        file = tmp_path / "config.txt"
        file.write_text(text, encoding="utf-8")
        file.chmod(0o600)
        return CliRunner().invoke(main, ["check-config", "--config-file", str(file)])

    return run


def said_of(key: str, done: Result) -> list[str]:
    """What check-config said of one key, without the place."""
    return re.findall(rf"^[^ ]+: {re.escape(key)}: (.*)$", done.stdout, re.MULTILINE)


def keys_of(config: str) -> set[str]:
    return set(re.findall(r"^([a-z-]+):", config, re.MULTILINE))


def test_a_whole_file_starts_unchanged(config: str, check: Callable[[str], Result]) -> None:
    done = check(config)

    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("no errors, ")


def test_the_file_holds_every_key_that_may_stand_in_one() -> None:
    expected = {key for key, fate in FATE.items() if fate not in (TO_COME, OLD_NAME)}

    assert keys_of(CONFIG) == expected - EITHER_OR


def test_every_key_of_the_file_is_accounted_for(
    config: str, check: Callable[[str], Result]
) -> None:
    done = check(config)

    said = {key: said_of(key, done) for key in keys_of(config)}
    unlike = {
        key: lines for key, lines in said.items() if not any(_is(line, FATE[key]) for line in lines)
    }
    assert unlike == {}


@pytest.mark.parametrize("key", sorted(FATE))
def test_every_key_of_the_documentation_is_known_for_what_it_is(
    key: str, check: Callable[[str], Result]
) -> None:
    fate = FATE[key]
    text = "x"  # nobody's default, and no word for off
    if fate == HONOURED:
        text = KEYS[key].default
    elif fate == OFF:
        text = ""

    said = said_of(key, check(f"{key}: {text}\n"))

    assert any(_is(line, fate) for line in said), said


def test_what_the_file_says_is_what_runs(config: str, tmp_path: Path) -> None:
    file = tmp_path / "config.txt"
    file.write_text(config, encoding="utf-8")

    settings = load([file])

    assert settings.listen.port == (25, 2525, 1024, 1025, 1026)
    assert settings.listen.threads == 4
    assert settings.access.default_ips == ("1.2.3.4", "4.5.6.7")
    assert settings.access.range == networks("192.168.0.0/16;127.0.0.1")
    assert "1.2.3.28" in settings.access.mappable_ips
    assert "1.2.3.28" in settings.access.unmappable_ips
    assert settings.access.auth == "hardcoded://anna:sesame,bert:open"
    assert (settings.limits.connections, settings.limits.connections_in) == (100, 50)
    assert settings.checks.check == ("spf", "dkim", "dmarc", "spam")
    assert settings.checks.auth_results == ("local", "nonlocal")
    assert settings.checks.spamassassin_host == "localhost"
    assert (settings.broker.reports, settings.broker.refused) == ("reports", "refused")
    assert settings.local.ttl == 60
    assert settings.dns.timeout == 60
    assert settings.process.daemon
    assert settings.process.lock == Path("/tmp/mailerq.pid")
    assert settings.log.application == ("syslog", f"{tmp_path}/mailerq.log")
    assert settings.log.received_file == tmp_path / "received.log"


def test_the_other_way_to_name_a_login_is_taken_too(
    config: str, check: Callable[[str], Result]
) -> None:
    done = check(re.sub(r"(?m)^smtp-auth:.*", "smtp-username: anna\nsmtp-password: x", config))

    assert done.exit_code == 0
    assert HONOURED in said_of("smtp-username", done)
    assert HONOURED in said_of("smtp-password", done)


def test_what_the_file_leaves_to_its_defaults_is_safer_here_and_says_why(
    check: Callable[[str], Result],
) -> None:
    done = check("smtp-port: 25\n")

    reasons = {
        "lock": "not MailerQ's default: safer here",
        "rabbitmq-persistent": "not MailerQ's default: safer here",
        "rabbitmq-inbox": "not MailerQ's default: safer here",
        "rabbitmq-queue-type": "not MailerQ's default: safer here",
        "daemon": "not MailerQ's default: false, in the foreground, ",
        "application-log": "not MailerQ's default: stderr, ",
    }
    assert done.exit_code == 0
    for key, reason in reasons.items():
        assert [line.startswith(f"note: {reason}") for line in said_of(key, done)] == [True], key


def test_what_the_file_asks_for_and_is_unsafe_is_done_and_warned_about(
    config: str, check: Callable[[str], Result]
) -> None:
    done = check(config)

    for key in ("lock", "rabbitmq-persistent", "rabbitmq-maxpriority"):
        said = said_of(key, done)
        assert HONOURED in said
        assert any(line.startswith("warning: ") for line in said), key


def test_an_other_spelling_is_read_as_the_key(config: str, tmp_path: Path) -> None:
    file = tmp_path / "config.txt"
    file.write_text(config.replace("smtp-default-ips:", "smtp-defaultips:"), encoding="utf-8")

    assert set(ALIASES) == {"smtp-defaultips"}
    assert read([file]).errors == ()
    assert load([file]).access.default_ips == ("1.2.3.4", "4.5.6.7")


def test_no_password_of_the_file_is_printed(config: str, check: Callable[[str], Result]) -> None:
    assert "sesame" not in check(config).output


def _is(line: str, fate: str) -> bool:
    return line == fate if fate == HONOURED else line.startswith(fate)
