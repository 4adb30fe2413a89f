"""mailgw explain: what it says of a mail, over a real DNS server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import gateway
from mailgw.cli import main
from nameserver import NameServer, nameserver

ZONE = {
    ("there.test", "TXT"): ['"v=spf1 ip4:192.0.2.1 -all"'],
    ("_dmarc.there.test", "TXT"): ['"v=DMARC1; p=reject"'],
}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("locals").write_text("# ours\n@ours.test\n")


@pytest.fixture
def dns() -> Iterator[NameServer]:
    with nameserver(ZONE) as server:
        yield server


CONFIG = """\
smtp-ip: 127.0.0.1
smtp-port: 2525
hostname: mx.ours.test
rabbitmq-address:
queue-store: queue.sqlite
rabbitmq-local: local
local-addresses: locals
smtp-recipients: local
"""
CHECKED = "smtp-check: spf,dmarc\nsmtp-reject: spf\ndns-timeout: 2\n"


def explain(*arguments: str, config: str = CONFIG, ip: str = "192.0.2.1") -> Result:
    Path("mailgw.conf").write_text(config)
    command = ["explain", "--config-file", "mailgw.conf", "--ip", ip, "--helo", "client.test"]
    return CliRunner().invoke(main, [*command, *arguments], catch_exceptions=False)


def told(*arguments: str, config: str = CONFIG, ip: str = "192.0.2.1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(explain(*arguments, "--json", config=config, ip=ip).stdout)
    return found


def step(found: dict[str, Any], name: str) -> dict[str, Any]:
    [one] = [each for each in found["steps"] if each["step"] == name]
    return dict(one)


TO_BOB = ("--from", "joe@there.test", "--rcpt", "bob@ours.test")


def test_a_mail_that_is_taken_is_told_to_its_queue_and_published_nowhere() -> None:
    done = explain(*TO_BOB)

    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "client 192.0.2.1 to port 2525"
    assert [line for line in lines if line.startswith("C: MAIL FROM:<joe@there.test> SIZE=")]
    [rcpt] = [line for line in lines if line.startswith("rcpt accept ")]
    assert rcpt.endswith("local-addresses: locals (mailgw.conf:7); local: @ours.test (locals:2)")
    [queue] = [line for line in lines if line.startswith("queue ")]
    assert queue.endswith("rabbitmq-local: local (mailgw.conf:6); for bob@ours.test")
    assert any(line.startswith("S: 250 2.0.0 ") for line in lines)
    assert not Path("queue.sqlite").exists()


def test_who_may_not_relay_hears_so_with_the_line_of_the_rule() -> None:
    found = told("--from", "joe@there.test", "--rcpt", "x@elsewhere.test")

    assert found["reply"] == "550 5.7.1 Relaying denied"
    refused = step(found, "rcpt")
    assert (refused["key"], refused["value"], refused["origin"]) == (
        "smtp-recipients",
        "local",
        "mailgw.conf:8",
    )


def test_an_own_user_may_relay() -> None:
    found = told("--from", "a@ours.test", "--rcpt", "x@elsewhere.test", "--user", "anna")

    assert found["reply"].startswith("250")
    assert step(found, "rcpt")["reason"] == "the client is authenticated"
    assert step(found, "queue")["key"] == "rabbitmq-inbox"


def test_one_recipient_of_two_is_enough() -> None:
    found = told(*TO_BOB, "--rcpt", "x@elsewhere.test")

    replies = [each["reply"][:3] for each in found["steps"] if each["step"] == "rcpt"]
    assert replies == ["250", "550"]
    assert found["reply"].startswith("250")


def test_a_client_out_of_range_gets_no_banner() -> None:
    found = told(*TO_BOB, config=CONFIG + "smtp-range: 198.51.100.0/24\n")

    [only] = found["steps"]
    assert (only["step"], only["verdict"], only["key"]) == ("connect", "refuse", "smtp-range")
    assert only["reply"].startswith("554")


@pytest.mark.parametrize(
    ("ip", "verdict", "reply"),
    [("192.0.2.1", "pass", "250-2.0.0"), ("192.0.2.9", "fail", "550 5.7.23")],
)
def test_what_the_dns_said_and_what_followed_from_it(
    ip: str, verdict: str, reply: str, dns: NameServer
) -> None:
    config = CONFIG + CHECKED + f"dns-server: 127.0.0.1:{dns.port}\n"

    found = told(*TO_BOB, config=config, ip=ip)

    assert found["reply"].startswith(reply)
    asked = {(each["kind"], each["name"]): each["answer"] for each in found["dns"]}
    assert asked["TXT", "there.test"] == '"v=spf1 ip4:192.0.2.1 -all"'
    assert asked["TXT", "client.test"] == "no such name"
    first = next(each for each in found["steps"] if each["step"] == "spf")
    assert first["verdict"] == verdict
    decided = step(found, "verdict")
    assert (decided["key"], decided["origin"]) == ("smtp-reject", "mailgw.conf:10")


def test_a_change_is_seen_before_it_is_made(dns: NameServer) -> None:
    config = CONFIG + CHECKED + f"dns-server: 127.0.0.1:{dns.port}\n"
    Path("candidate.conf").write_text("smtp-reject:\n")

    found = told(*TO_BOB, "--config-file", "candidate.conf", config=config, ip="192.0.2.9")

    assert found["reply"].startswith("250")


def test_the_message_of_a_file_is_what_is_judged(dns: NameServer) -> None:
    Path("mail.eml").write_bytes(b"From: boss@there.test\nTo: bob@ours.test\n\n.dot\nhello\n")
    config = CONFIG + CHECKED + f"dns-server: 127.0.0.1:{dns.port}\n"

    found = told("--from", "", "--rcpt", "bob@ours.test", "--eml", "mail.eml", config=config)

    assert step(found, "dmarc")["verdict"] == "fail"
    assert found["reply"].startswith("250")


def test_a_secure_port_is_inside_tls(certificate: gateway.Certificate) -> None:
    config = CONFIG + (
        f"smtp-secure-port: 4465\nsmtp-certificate: {certificate.chain}\n"
        f"smtp-key: {certificate.key}\n"
    )

    done = explain(*TO_BOB, "--port", "4465", config=config)

    lines = done.stdout.splitlines()
    assert lines[0] == "client     192.0.2.1 to port 4465, inside TLS"
    assert "           S: 250-STARTTLS" not in lines


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--from", "a@b.test"), "Missing option '--rcpt'"),
        ((*TO_BOB, "--eml", "missing.eml"), "does not exist"),
        ((*TO_BOB, "--port", "0"), "not in the range"),
        ((*TO_BOB, "--local-addresses", "missing"), "missing"),
    ],
)
def test_mistakes_end_in_one_clear_line(arguments: tuple[str, ...], complaint: str) -> None:
    done = explain(*arguments)

    assert done.exit_code == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_none() -> None:
    done = explain(*TO_BOB, ip="client.test")

    assert done.exit_code == 2
    assert '"client.test" is no IP address' in done.stderr


def test_syntax_is_judged_as_by_the_gateway() -> None:
    found = told("--from", "no address", "--rcpt", "bob@ours.test")

    assert step(found, "mail")["reply"].startswith("501")
