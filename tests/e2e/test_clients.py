"""The clients that people have, against the command that people run."""

from __future__ import annotations

import json
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import Client
from gateway import Certificate, Gateway, content, running
from parts import needs

MESSAGE = b"From: joe@there.test\r\nSubject: hello\r\n\r\nHello Bob.\r\n.dot\r\n"
LOGIN = {"smtp-username": "anna", "smtp-password": "opensesame"}
# With a login strangers may write to local addresses only, and these are they.
LOCALS = "@ours.test\n@xn--kln-sna.test\n"


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, certificate: Certificate
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "locals").write_text(LOCALS)
    keys = certificate.keys | LOGIN | {"local-addresses": folder / "locals"}
    with running(folder, keys) as started:
        yield started


def run(*line: object, octets: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(word) for word in line], input=octets, capture_output=True, timeout=30, check=False
    )


def context(certificate: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate.authority)


def test_the_reply_names_one_identifier_for_each_recipient(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.hello()
        said = client.mail(MESSAGE, "bob@ours.test", "eve@ours.test")
    first, second = gateway.consume()
    assert said.splitlines() == [
        "250-2.0.0 Ok, your message has been queued using the following identifiers:",
        f"250-2.0.0 {first['message-id']} for bob@ours.test",
        f"250 2.0.0 {second['message-id']} for eve@ours.test",
    ]
    assert [first["recipient"], second["recipient"]] == ["bob@ours.test", "eve@ours.test"]
    assert first["transaction-id"] == second["transaction-id"]
    assert content(first) == content(second) == MESSAGE


def test_smtplib_in_clear(gateway: Gateway) -> None:
    with smtplib.SMTP("127.0.0.1", gateway.port, local_hostname="client.test") as client:
        client.sendmail("joe@there.test", ["bob@ours.test"], MESSAGE)
    [document] = gateway.consume()
    assert document["envelope"] == "joe@there.test"
    assert document["hostname"] == "mx.ours.test"
    connection = document["connection"]
    assert connection["helo"] == "client.test"
    assert connection["remote-ip"] == connection["local-ip"] == "127.0.0.1"
    assert connection["local-port"] == gateway.port
    assert connection["secure"] is False
    assert "tls-version" not in connection
    assert content(document) == MESSAGE


def test_smtplib_with_starttls_and_a_login(gateway: Gateway, certificate: Certificate) -> None:
    with smtplib.SMTP("localhost", gateway.port) as client:
        client.starttls(context=context(certificate))
        client.login("anna", "opensesame")
        client.sendmail("anna@ours.test", ["someone@elsewhere.test"], MESSAGE)
    [document] = gateway.consume()
    assert document["connection"]["user"] == "anna"
    assert document["connection"]["secure"] is True
    assert document["connection"]["tls-version"] == "TLSv1.3"
    assert document["connection"]["tls-cipher"].startswith("TLS_")
    assert content(document) == MESSAGE


def test_smtplib_on_the_tls_port(gateway: Gateway, certificate: Certificate) -> None:
    with smtplib.SMTP_SSL("localhost", gateway.secure_port, context=context(certificate)) as client:
        client.sendmail("joe@there.test", ["bob@ours.test"], MESSAGE)
    [document] = gateway.consume()
    assert document["connection"]["secure"] is True
    assert document["connection"]["local-port"] == gateway.secure_port


def test_smtplib_with_addresses_in_other_scripts(gateway: Gateway) -> None:
    subject = "Subject: Übung мир 世界\r\n\r\nგამარჯობა\r\n".encode()
    with smtplib.SMTP("127.0.0.1", gateway.port) as client:
        client.ehlo()
        client.mail("дмитрий@пример.test", ["SMTPUTF8", "BODY=8BITMIME"])
        client.rcpt("jörg@köln.test")
        code, said = client.data(subject)
    [document] = gateway.consume()
    assert code == 250
    assert said.decode().endswith(f"{document['message-id']} for jörg@köln.test")
    assert document["envelope"] == "дмитрий@пример.test"
    assert document["recipient"] == "jörg@köln.test"
    assert content(document) == subject


def test_ipv6(tmp_path: Path) -> None:
    with running(tmp_path, {"smtp-ip": "127.0.0.1;::1"}) as both:
        with smtplib.SMTP("::1", both.ports[1]) as client:
            client.sendmail("joe@there.test", ["bob@ours.test"], MESSAGE)
        [document] = both.consume()
    connection = document["connection"]
    assert (connection["remote-ip"], connection["local-ip"]) == ("::1", "::1")


@needs("swaks")
@pytest.mark.parametrize(
    ("arguments", "connection"),
    [
        ((), {"secure": False}),
        (("--tls",), {"secure": True}),
        (("--tls", "--tls-protocol", "tlsv1_2"), {"secure": True, "tls-version": "TLSv1.2"}),
        (("--tls", "--auth", "PLAIN"), {"secure": True, "user": "anna"}),
        (("--tls", "--auth", "LOGIN"), {"secure": True, "user": "anna"}),
    ],
)
def test_swaks(gateway: Gateway, arguments: tuple[str, ...], connection: dict[str, object]) -> None:
    login = ("--auth-user", "anna", "--auth-password", "opensesame")
    done = run(
        *("swaks", "--server", "127.0.0.1", "--port", gateway.port, "--helo", "client.test"),
        *("--from", "joe@there.test", "--to", "bob@ours.test", "--body", "from swaks", *arguments),
        *(login if "--auth" in arguments else ()),
    )
    assert done.returncode == 0, done.stdout.decode()
    [document] = gateway.consume()
    assert connection.items() <= document["connection"].items()
    assert b"\r\nfrom swaks\r\n" in content(document)


@needs("swaks")
def test_swaks_on_the_tls_port(gateway: Gateway) -> None:
    done = run(
        *("swaks", "--server", "127.0.0.1", "--port", gateway.secure_port, "--tlsc"),
        *("--from", "joe@there.test", "--to", "bob@ours.test", "--helo", "client.test"),
    )
    assert done.returncode == 0, done.stdout.decode()
    [document] = gateway.consume()
    assert document["connection"]["secure"] is True


@needs("swaks")
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        # Swaks would send the password, but nobody offers to take it in clear.
        (("--auth-password", "opensesame"), b"not advertise auth"),
        (("--tls", "--auth-password", "wrong"), b"535 5.7.8 "),
    ],
)
def test_swaks_is_not_let_in(
    gateway: Gateway, arguments: tuple[str, ...], complaint: bytes
) -> None:
    done = run(
        *("swaks", "--server", "127.0.0.1", "--port", gateway.port, "--helo", "client.test"),
        *("--from", "joe@there.test", "--to", "x@elsewhere.test"),
        *("--auth", "PLAIN", "--auth-user", "anna", *arguments),
    )
    assert done.returncode != 0
    assert complaint in (done.stdout + done.stderr).lower()
    assert "opensesame" not in gateway.log
    assert gateway.consume() == []


@needs("curl")
@pytest.mark.parametrize(
    ("scheme", "arguments", "connection"),
    [
        ("smtp", (), {"secure": False}),
        ("smtp", ("--ssl-reqd",), {"secure": True}),
        ("smtp", ("--ssl-reqd", "--user", "anna:opensesame"), {"secure": True, "user": "anna"}),
        ("smtps", (), {"secure": True}),
        ("smtps", ("--user", "anna:opensesame"), {"secure": True, "user": "anna"}),
    ],
)
def test_curl(
    gateway: Gateway,
    certificate: Certificate,
    scheme: str,
    arguments: tuple[str, ...],
    connection: dict[str, object],
) -> None:
    port = gateway.port if scheme == "smtp" else gateway.secure_port
    done = run(
        *("curl", "--silent", "--show-error", f"{scheme}://localhost:{port}/client.test"),
        *("--cacert", certificate.authority, *arguments),
        *("--mail-from", "joe@there.test", "--mail-rcpt", "bob@ours.test"),
        *("--mail-rcpt", "eve@ours.test", "--upload-file", "-"),
        octets=MESSAGE,
    )
    assert done.returncode == 0, done.stderr.decode()
    documents = gateway.consume()
    assert [document["recipient"] for document in documents] == ["bob@ours.test", "eve@ours.test"]
    for document in documents:
        assert connection.items() <= document["connection"].items()
        assert content(document) == MESSAGE


@needs("postfix")
def test_many_sessions_of_smtp_source(gateway: Gateway) -> None:
    done = run(
        *("smtp-source", "-s", 20, "-m", 400, "-r", 3, "-l", 2000, "-d"),
        *("-f", "joe@there.test", "-t", "bob@ours.test", "-M", "client.test"),
        f"127.0.0.1:{gateway.port}",
    )
    assert (done.returncode, done.stderr) == (0, b"")
    documents = gateway.consume()
    assert len(documents) == 1200
    assert len({document["message-id"] for document in documents}) == 1200
    assert len({document["transaction-id"] for document in documents}) == 400


@needs("openssl")
@pytest.mark.parametrize(
    ("version", "taken"),
    [("tls1", None), ("tls1_1", None), ("tls1_2", "TLSv1.2"), ("tls1_3", "TLSv1.3")],
)
@pytest.mark.parametrize("start", [("-starttls", "smtp"), ()])
def test_versions_of_tls(
    gateway: Gateway,
    certificate: Certificate,
    version: str,
    taken: str | None,
    start: tuple[str, ...],
) -> None:
    port = gateway.port if start else gateway.secure_port
    failed = gateway.log.count(" tls.failed ")
    done = run(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *start, f"-{version}"),
        # The old ones are off in OpenSSL's own defaults too; the refusal must be ours.
        *("-cipher", "DEFAULT@SECLEVEL=0", "-CAfile", certificate.authority),
        *("-verify_return_error", "-quiet", "-ign_eof"),
        octets=b"EHLO client.test\r\nQUIT\r\n",
    )
    if taken is None:
        assert done.returncode != 0
        assert done.stdout == b""
        # What the client would say if it had refused by itself.
        assert b"no protocols available" not in done.stderr
        gateway.saw("tls.failed", failed + 1)
    else:
        assert done.returncode == 0, done.stderr.decode()
        assert b"250 AUTH PLAIN LOGIN\r\n" in done.stdout
        assert b"STARTTLS" not in done.stdout
        assert done.stdout.endswith(b"221 2.0.0 Bye\r\n")


def test_a_login_is_offered_inside_tls_only(gateway: Gateway, certificate: Certificate) -> None:
    with Client(gateway.port) as client:
        assert "AUTH" not in client.hello()
        assert client.ask("AUTH PLAIN AGFubmEAb3BlbnNlc2FtZQ==").startswith("538 5.7.11 ")
        client.starttls(certificate.authority)
        assert "AUTH PLAIN LOGIN" in client.ask("EHLO client.test")
        assert client.ask("AUTH PLAIN AGFubmEAb3BlbnNlc2FtZQ==").startswith("235 2.7.0 ")


def test_strangers_may_write_to_local_addresses_only(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.hello()
        assert client.ask("MAIL FROM:<joe@there.test>").startswith("250 2.1.0 ")
        assert client.ask("RCPT TO:<bob@ours.test>").startswith("250 2.1.5 ")
        assert client.ask("RCPT TO:<x@elsewhere.test>").startswith("530 5.7.0 ")


def test_documents_are_one_line_of_json_each(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.hello()
        client.mail("Subject: a\u2028b\r\n\r\n\u0085\r\n".encode(), sender="<>")
    [document] = gateway.consume()
    assert document["envelope"] == ""
    assert len(json.dumps(document, ensure_ascii=True).splitlines()) == 1
    assert Path(gateway.folder / "queue.sqlite").exists()
