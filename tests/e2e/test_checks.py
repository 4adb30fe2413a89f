"""What is checked after the final dot, and what follows: a real gateway, a real DNS server."""

from __future__ import annotations

import base64
import functools
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from client import Client
from gateway import Certificate, Gateway, Json, content
from mailgw.mail.headers import read_fields
from nameserver import NameServer, nameserver

CLIENT = "192.0.2.7"
ALICE = "<alice@sender.test>"
MAIL = b"From: alice@sender.test\r\nTo: bob@ours.test\r\nSubject: hi\r\n\r\nhello\r\n"
ZONE = {
    ("sender.test", "TXT"): ['"v=spf1 ip4:192.0.2.7 -all"'],
    ("_dmarc.sender.test", "TXT"): ['"v=DMARC1; p=reject"'],
    ("strict.test", "TXT"): ['"v=spf1 -all"'],
    ("careful.test", "TXT"): ['"v=spf1 ?all"'],
    ("_dmarc.careful.test", "TXT"): ['"v=DMARC1; p=quarantine"'],
    ("firm.test", "TXT"): ['"v=spf1 ?all"'],
    ("_dmarc.firm.test", "TXT"): ['"v=DMARC1; p=reject"'],
}
DSN = (
    b"From: MAILER-DAEMON@there.test\r\nTo: bob@ours.test\r\nSubject: failed\r\n"
    b'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
    b"--b\r\n\r\nIt failed.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
    b"Reporting-MTA: dns; mx.there.test\r\n\r\n"
    b"Final-Recipient: rfc822; nobody@there.test\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n"
    b"--b--\r\n"
)


@functools.cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def signed(message: bytes) -> bytes:
    """The message as somebody else's software signs it for sender.test."""
    pem = key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    field: bytes = dkim.sign(message, b"s1", b"sender.test", pem, include_headers=[b"From"])
    return field + message


def key_record() -> str:
    """The TXT record of the key, in strings of at most 255 octets."""
    public = key().public_key()
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = f"v=DKIM1; k=rsa; p={base64.b64encode(der).decode()}"
    return " ".join(f'"{text[start : start + 200]}"' for start in range(0, len(text), 200))


@pytest.fixture(scope="module")
def names() -> Iterator[NameServer]:
    with nameserver(ZONE | {("s1._domainkey.sender.test", "TXT"): [key_record()]}) as server:
        yield server


Start = Callable[..., Gateway]


@pytest.fixture
def checking(gateway: Start, names: NameServer, tmp_path: Path) -> Start:
    """Starts a gateway that asks our name server, and whose ours.test is local."""
    (tmp_path / "locals").write_text("@ours.test\n")

    file = tmp_path / "checks.conf"
    file.write_text("smtp-check: spf,dkim,dmarc,arc\n")

    def start(**keys: object) -> Gateway:
        return gateway(
            {
                "config-file": file,
                "local-addresses": tmp_path / "locals",
                "rabbitmq-local": "local",
                "smtp-proxy": "127.0.0.1",
                "dns-server": f"127.0.0.1:{names.port}",
            }
            | {name.replace("_", "-"): value for name, value in keys.items()}
        )

    return start


@contextmanager
def client(server: Gateway, address: str = CLIENT) -> Iterator[Client]:
    """A client that comes from there, through a balancer."""
    with Client(server.port) as connected:
        connected.send(b"PROXY TCP4 %s 198.51.100.1 40000 25\r\n" % address.encode())
        assert connected.hello().startswith("250-")
        yield connected


def send(
    server: Gateway,
    message: bytes = MAIL,
    *recipients: str,
    sender: str = ALICE,
    address: str = CLIENT,
) -> str:
    with client(server, address) as connected:
        return connected.mail(message, *recipients, sender=sender)


def verdicts(document: Json) -> list[str]:
    """The checks of a document as words, in their order."""
    return ["=".join(next(iter(each.items()))) for each in document.get("checks", ())]


def steps(document: Json) -> list[tuple[str, str]]:
    return [(each["step"], each["verdict"]) for each in document["decision"]]


def results(document: Json) -> list[str]:
    """The values of the Authentication-Results fields of a document's message."""
    fields = read_fields(document["mime"].encode())
    return [each.text for each in fields if each.name == "authentication-results"]


def test_a_signed_mail_passes_in_the_document_and_in_the_field_of_local_recipients(
    checking: Start,
) -> None:
    server = checking(smtp_auth_results="local")

    mail = signed(MAIL)

    said = send(server, mail, "bob@ours.test", "eve@elsewhere.test")

    assert said.startswith("250-2.0.0 ")
    [local], [other] = server.consume("local"), server.consume("inbox")
    for document in (local, other):
        assert verdicts(document) == [
            "spf=pass",
            "spf=none",
            "dkim=pass",
            "dmarc=pass",
            "arc=none",
        ]
    signature = next(each for each in local["checks"] if "dkim" in each)
    assert signature["domain"] == "sender.test"
    assert signature["selector"] == "s1"
    assert local["checks"][0]["smtp.mailfrom"] == "alice@sender.test"
    [field] = results(local)
    assert field.startswith("mx.ours.test;")
    assert "spf=pass smtp.mailfrom=alice@sender.test;" in field
    assert "dkim=pass" in field
    assert "dmarc=pass" in field
    assert results(other) == []
    assert content(local).endswith(b"\r\n" + mail)
    assert content(other) == mail


def test_the_address_behind_the_balancer_is_the_one_that_spf_judges(checking: Start) -> None:
    server = checking(smtp_check="spf")

    for address in (CLIENT, "198.51.100.9"):
        assert send(server, address=address).startswith("250-2.0.0 ")

    assert [verdicts(each)[0] for each in server.consume("local")] == ["spf=pass", "spf=fail"]


def test_without_a_setting_nothing_follows_from_a_failure(checking: Start) -> None:
    server = checking()

    assert send(server, sender="<joe@strict.test>").startswith("250-2.0.0 ")

    [document] = server.consume("local")
    assert verdicts(document)[0] == "spf=fail"
    assert steps(document)[-2:] == [("verdict", "accept"), ("queue", "local")]


def test_without_checks_a_document_says_only_where_it_went(checking: Start) -> None:
    server = checking(smtp_check="")

    assert send(server).startswith("250-2.0.0 ")

    [document] = server.consume("local")
    assert "checks" not in document
    assert document["decision"] == [
        {
            "step": "queue",
            "verdict": "local",
            "key": "rabbitmq-local",
            "value": "local",
            "ms": 0,
        }
    ]


def test_spf_fail_is_refused_and_says_so_in_the_log(checking: Start) -> None:
    server = checking(smtp_reject="spf")

    said = send(server, sender="<joe@strict.test>")

    assert said == "550 5.7.23 SPF validation failed"
    server.saw("message.refused")
    [line] = [line for line in server.log.splitlines() if " message.refused " in line]
    assert "rule=smtp-reject value=spf" in line
    assert server.consume("local") == []


@pytest.mark.parametrize("whole", [False, True])
def test_what_dmarc_refuses_is_kept_with_its_decision(checking: Start, whole: bool) -> None:
    server = checking(
        smtp_reject="dmarc",
        rabbitmq_refused="refused",
        refused_body=str(whole).lower(),
    )
    forged = MAIL.replace(b"alice@sender.test", b"boss@firm.test")

    said = send(server, forged, "bob@ours.test", "eve@elsewhere.test")

    assert said.startswith("550 5.7.1 ")
    refused = server.consume("refused")
    assert [each["recipient"] for each in refused] == ["bob@ours.test", "eve@elsewhere.test"]
    for document in refused:
        assert document["mime"] == (forged.decode() if whole else "")
        assert document["mime-size"] == len(forged)
        assert steps(document)[-2:] == [("verdict", "refuse"), ("queue", "refused")]
        decided = document["decision"][-2]
        assert (decided["key"], decided["value"]) == ("smtp-reject", "dmarc")
    assert server.consume("local") == server.consume("inbox") == []


def test_what_is_suspicious_goes_to_quarantine_for_everybody(checking: Start) -> None:
    server = checking(smtp_quarantine="dmarc", rabbitmq_quarantine="quarantine")
    forged = MAIL.replace(b"alice@sender.test", b"boss@careful.test")

    said = send(server, forged, "bob@ours.test", "eve@elsewhere.test")

    assert said.startswith("250-2.0.0 ")
    documents = server.consume("quarantine")
    assert len(documents) == 2
    assert steps(documents[0])[-2:] == [("verdict", "quarantine"), ("queue", "quarantine")]
    assert server.consume("local") == server.consume("inbox") == []
    server.saw("message.quarantined")
    [line] = [line for line in server.log.splitlines() if " message.quarantined " in line]
    assert "rule=smtp-quarantine value=dmarc" in line


def test_who_is_authenticated_is_not_refused(checking: Start, certificate: Certificate) -> None:
    server = checking(
        smtp_reject="spf,dmarc",
        smtp_username="anna",
        smtp_password="opensesame",
        smtp_auth_insecure_range=CLIENT,
    )

    with client(server) as connected:
        login = base64.b64encode(b"\0anna\0opensesame").decode()
        assert connected.ask(f"AUTH PLAIN {login}").startswith("235 ")
        said = connected.mail(MAIL, sender="<joe@strict.test>")

    assert said.startswith("250-2.0.0 ")
    [document] = server.consume("local")
    assert verdicts(document)[0] == "spf=fail"
    assert document["decision"][-2]["reason"] == "the client is authenticated"


def test_a_dns_that_does_not_answer_is_temperror_and_the_mail_goes_on_in_time(
    checking: Start,
) -> None:
    with nameserver({}) as dead:
        port = dead.port
        for name in ("sender.test", "_dmarc.sender.test", "s1._domainkey.sender.test"):
            dead.behaviour[name] = "silent"
        server = checking(dns_server=f"127.0.0.1:{port}", dns_timeout=60, smtp_check_timeout="1s")
        began = time.monotonic()

        said = send(server, signed(MAIL))

        assert said.startswith("250-2.0.0 ")
        assert time.monotonic() - began < 8
        [document] = server.consume("local")
    found = verdicts(document)
    assert "spf=temperror" in found
    assert "dkim=temperror" in found
    assert "dmarc=temperror" in found
    assert document["checks"][0]["reason"] == "no answer in time"


def test_what_cannot_be_known_now_is_put_off_where_that_is_wanted(checking: Start) -> None:
    with nameserver({}) as dead:
        dead.behaviour["sender.test"] = "servfail"
        server = checking(
            smtp_check="spf", smtp_defer="temperror", dns_server=f"127.0.0.1:{dead.port}"
        )

        said = send(server)

    assert said.startswith("451 4.7.24 ")
    assert server.consume("local") == []
    server.saw("message.deferred")
    [line] = [line for line in server.log.splitlines() if " message.deferred " in line]
    assert "rule=smtp-defer value=temperror" in line


def test_a_spamd_that_hangs_is_temperror_and_the_mail_goes_on(checking: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = checking(
            smtp_check="spf,spam",
            spamassassin_host="127.0.0.1",
            spamassassin_port=silent.getsockname()[1],
            spamassassin_timeout="500ms",
        )

        assert send(server).startswith("250-2.0.0 ")

        [document] = server.consume("local")
    assert verdicts(document) == ["spf=pass", "spf=none", "spam=temperror"]


def test_a_field_that_claims_to_be_ours_is_gone(checking: Start) -> None:
    server = checking(smtp_check="spf", smtp_auth_results="local,nonlocal")
    others = b"Authentication-Results: mx.theirs.test; dkim=pass\r\n"
    forged = (
        b"Authentication-Results: MX.ours.test; dkim=pass header.d=bank.test\r\n"
        b"Authentication-results : (x)\r\n\tmx.ours.test. 1; dkim=pass\r\n"
    )

    assert send(server, forged + others + MAIL).startswith("250-2.0.0 ")

    [document] = server.consume("local")
    ours, theirs = results(document)
    assert "bank.test" not in document["mime"]
    assert ours.startswith("mx.ours.test;")
    assert theirs == "mx.theirs.test; dkim=pass"
    assert content(document).endswith(others + MAIL)


def test_a_report_to_somebody_who_is_local_goes_to_the_queue_for_reports(checking: Start) -> None:
    server = checking(smtp_check="", rabbitmq_reports="reports")

    for message in (DSN, MAIL):
        said = send(server, message, "bob@ours.test", "eve@elsewhere.test", sender="<>")
        assert said.startswith("250-2.0.0 ")

    [report] = server.consume("reports")
    assert report["recipient"] == "bob@ours.test"
    assert report["report"]["type"] == "dsn"
    [recipient] = report["report"]["recipients"]
    assert (recipient["action"], recipient["status"]) == ("failed", "5.1.1")
    assert steps(report) == [("queue", "reports")]
    [local] = server.consume("local")
    assert "report" not in local
    assert all("report" not in each for each in server.consume("inbox"))


def test_the_received_log_says_what_is_a_report(checking: Start, tmp_path: Path) -> None:
    file = tmp_path / "received.log"
    server = checking(
        smtp_check="spf",
        rabbitmq_reports="reports",
        received_log_file=file,
        received_log_format="{if $report}report{else}mail{/if} {$json.checks} {$json.decision}",
    )

    for message in (DSN, MAIL):
        assert send(server, message).startswith("250-2.0.0 ")
    assert server.stop() == 0

    assert file.read_text().splitlines() == [
        "report spf=pass,spf=none spf=pass,spf=none,verdict=accept,queue=reports",
        "mail spf=pass,spf=none spf=pass,spf=none,verdict=accept,queue=local",
    ]


def test_a_reload_takes_other_checks_over(checking: Start, tmp_path: Path) -> None:
    server = checking()
    for number, wanted in enumerate(("spf", ""), 1):
        (tmp_path / "checks.conf").write_text(f"smtp-check: {wanted}\n")
        server.signal(signal.SIGHUP)
        server.saw("reload.done", number)

        assert send(server).startswith("250-2.0.0 ")

        [document] = server.consume("local")
        assert verdicts(document) == (["spf=pass", "spf=none"] if wanted else [])
    assert server.stop() == 0
    assert "Traceback" not in server.log
