"""This product's own holes, G10, G11 and G13: what the operator writes, by the command line.

A queue for reports or refused mail joins G10 with the keys that name it.
"""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization

from client import Client
from gateway import COMMAND, ENVIRONMENT, Certificate, Gateway
from hostile.world import MESSAGE, taken
from mailgw.cli import main
from mailgw.config import load
from parts import needs
from rabbitmq import RabbitMQ, wait_until


def mailgw(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=ENVIRONMENT,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# --- G10: queues --------------------------------------------------------------------


@pytest.mark.parametrize("key", ["rabbitmq-reports", "rabbitmq-refused", "rabbitmq-quarantine"])
def test_G10_a_queue_that_nothing_would_go_to_is_no_silent_wish(tmp_path: Path, key: str) -> None:
    queues = ["--rabbitmq-address=", "--queue-store=queue.sqlite", f"--{key}=there"]
    checked = mailgw(tmp_path, "check-config", *queues)
    said = checked.stdout + checked.stderr
    # Either the key is honoured, or the start is refused by its name: never in between.
    assert f"{key}: honoured" in said or (checked.returncode == 2 and key in said)


def test_G10_an_inbox_that_is_the_outbox_is_a_relay_and_said_to_be(tmp_path: Path) -> None:
    keys = ["--rabbitmq-inbox=one", "--rabbitmq-outbox=one"]
    checked = mailgw(tmp_path, "check-config", *keys)
    assert "rabbitmq-inbox: warning: is rabbitmq-outbox too" in checked.stdout


def test_G10_without_a_place_for_mail_there_is_no_start(tmp_path: Path) -> None:
    for command in ("check-config", "serve"):
        ended = mailgw(tmp_path, command, "--rabbitmq-address=", "--smtp-port=0")
        assert ended.returncode == 2
        assert "no broker and no embedded queue" in ended.stdout + ended.stderr


def test_G10_an_empty_local_queue_is_the_inbox(gateway: Callable[..., Gateway]) -> None:
    server = gateway({"rabbitmq-local": ""})
    with Client(server.port) as client:
        client.hello()
        assert client.mail(MESSAGE, "bob@ours.test", "x@other.test").count(" for ") == 2
    assert len(taken(server)) == 2


@needs("rabbitmq")
def test_G10_a_queue_that_is_gone_costs_a_451_and_no_mail(
    gateway: Callable[..., Gateway], broker: RabbitMQ
) -> None:
    queues = {"rabbitmq-inbox": "hostile-g10", "rabbitmq-local": "hostile-g10-local"}
    server = gateway({"rabbitmq-address": broker.url, "rabbitmq-declare": "false"} | queues)
    with Client(server.port) as client:
        client.hello()
        wait_until(lambda: " amqp.connected " in server.log, "the broker is there")
        # Nobody made it, and the gateway must not: the mail is not safe.
        said = client.mail(MESSAGE)
    assert said.startswith(("451 4.3.5 ", "451 4.3.0 "))


# --- G11: certificates ----------------------------------------------------------------


def pair(folder: Path, name: str, *, expired: bool = False) -> Certificate:
    """A certificate for localhost of an authority of its own."""
    authority = trustme.CA()
    past = datetime(2020, 1, 1, tzinfo=UTC)
    issued = authority.issue_cert("localhost", not_after=past if expired else None)
    found = Certificate(folder / f"{name}.crt", folder / f"{name}.key", folder / f"{name}-ca.pem")
    found.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(found.key)
    found.key.chmod(0o600)
    authority.cert_pem.write_to_path(found.authority)
    return found


def with_passphrase(key: Path) -> bytes:
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def trusts(server: Gateway, authority: Path) -> bool:
    with Client(server.port) as client:
        client.hello()
        try:
            client.starttls(authority)
        except ssl.SSLError:
            return False
        return "SIZE" in client.ask("EHLO client.test")


def test_G11_of_a_broken_certificate_the_old_one_stays_and_the_log_says_why(
    gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    first, second = pair(tmp_path, "first"), pair(tmp_path, "second")
    chain, key = tmp_path / "mx.crt", tmp_path / "mx.key"
    chain.write_bytes(first.chain.read_bytes())
    key.write_bytes(first.key.read_bytes())
    key.chmod(0o600)
    server = gateway({"smtp-certificate": chain, "smtp-key": key})
    good = chain.read_bytes(), key.read_bytes()
    broken: dict[str, tuple[bytes, bytes]] = {
        "the key of another": (good[0], second.key.read_bytes()),
        "a passphrase": (good[0], with_passphrase(first.key)),
        "no chain": (b"", good[1]),
        "no key": (good[0], b""),
        "half a chain": (good[0][: len(good[0]) // 2], good[1]),
        "the key twice": (good[1], good[1]),
        "noise": (bytes(range(256)), bytes(range(256))),
    }
    with Client(server.port) as live:
        live.hello()
        live.starttls(first.authority)
        live.ask("EHLO client.test")
        for number, (name, (new_chain, new_key)) in enumerate(broken.items(), 1):
            chain.write_bytes(new_chain)
            key.write_bytes(new_key)
            server.signal(signal.SIGHUP)
            server.saw("reload.refused", number)
            refusal = server.log[server.log.rindex(" reload.refused") :]
            assert "mx.crt" in refusal or "smtp-certificate" in refusal, name
            assert trusts(server, first.authority), name
            assert live.ask("NOOP").startswith("250 ")
        assert "secret" not in server.log
        assert live.mail(MESSAGE).startswith("250-2.0.0 ")
        # A good one is taken over, and who is there keeps what it has.
        chain.write_bytes(second.chain.read_bytes())
        key.write_bytes(second.key.read_bytes())
        server.signal(signal.SIGHUP)
        server.saw("reload.done")
        assert trusts(server, second.authority)
        assert not trusts(server, first.authority)
        assert live.mail(MESSAGE).startswith("250-2.0.0 ")
    assert len(taken(server)) == 2


def test_G11_an_expired_certificate_is_used_and_clients_see_it(
    gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    # Most senders do not look (RFC 7435): refusing to start would cost more than it saves.
    old = pair(tmp_path, "old", expired=True)
    server = gateway({"smtp-certificate": old.chain, "smtp-key": old.key})
    with Client(server.port) as client:
        assert "STARTTLS" in client.hello()
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            client.starttls(old.authority)


# --- G13: the file --------------------------------------------------------------------

QUIET = "smtp-ip: 127.0.0.1\nrabbitmq-address:\nqueue-store: queue.sqlite\n"


def check(folder: Path, text: str | bytes) -> tuple[int, str]:
    """Exit code and words of `mailgw check-config` for a file of this text."""
    file = folder / "m.conf"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    command = ["check-config", "--config-file", str(file)]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    return done.exit_code, (done.stdout + done.stderr).replace(f"{folder}/", "")


GOOD = {
    "CRLF": QUIET.replace("\n", "\r\n") + "smtp-maxsize: 5MB\r\n",
    "byte order mark": "\ufeff" + QUIET + "smtp-maxsize: 5MB\n",
    "tabs": QUIET.replace(": ", ":\t") + "\tsmtp-maxsize\t:\t5MB\t\n",
    "no last line end": QUIET + "smtp-maxsize: 5MB",
    "comments": "# :\n#x\n\n \t\n" + QUIET + "# smtp-maxsize: 6MB\nsmtp-maxsize: 5MB\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_G13_a_file_from_any_editor_is_read(tmp_path: Path, name: str) -> None:
    code, said = check(tmp_path, GOOD[name])
    assert (code, "no errors" in said) == (0, True)
    assert load([tmp_path / "m.conf"]).smtp.maxsize == 5_000_000


# Text -> the line of it that is complained of, and what of.
BAD: dict[str, tuple[str | bytes, str]] = {
    "duplicate key": (QUIET + "smtp-ip: ::1\n", "m.conf:4: smtp-ip: is given twice"),
    "unknown key": (QUIET + "smtp-maxsiz: 5\n", "m.conf:4: smtp-maxsiz: is no key (did you mean"),
    "upper case": (QUIET + "SMTP-MAXSIZE: 5\n", "m.conf:4: SMTP-MAXSIZE: is no key (did you mean"),
    "no colon": (QUIET + "smtp-port 25\n", 'm.conf:4: is not of the form "key: value"'),
    "equals": (QUIET + "smtp-port=25\n", 'm.conf:4: is not of the form "key: value"'),
    "size": (QUIET + "smtp-maxsize: 32Q\n", "m.conf:4: smtp-maxsize: "),
    "negative size": (QUIET + "smtp-maxsize: -1\n", "m.conf:4: smtp-maxsize: "),
    "huge size": (QUIET + f"smtp-maxsize: {'9' * 5000}\n", "m.conf:4: smtp-maxsize: "),
    "port": (QUIET + "smtp-port: 65536\n", "m.conf:4: smtp-port: "),
    "port range backwards": (QUIET + "smtp-port: 1026-1024\n", "m.conf:4: smtp-port: "),
    "port range without end": (QUIET + "smtp-port: 25-\n", "m.conf:4: smtp-port: "),
    "address": (QUIET.replace("127.0.0.1", "127.0.0.256"), "m.conf:1: smtp-ip: "),
    "addresses": (QUIET.replace("127.0.0.1", "::1;:::1"), "m.conf:1: smtp-ip: "),
    "boolean": (QUIET + "smtp-received: maybe\n", "m.conf:4: smtp-received: "),
    "NUL": (QUIET + "hostname: a\0b\n", "m.conf:4: hostname: holds a control character"),
    "bare CR": (QUIET + "hostname: a\rlock: b\n", "m.conf:4: hostname: holds a control character"),
    "Latin-1": (QUIET.encode() + b"hostname: caf\xe9\n", "m.conf:4: is not UTF-8"),
    "UTF-16": (QUIET.encode("utf-16"), "m.conf: is UTF-16 (save it as UTF-8)"),
    "seconds": (QUIET + "smtp-timeout: soon\n", "m.conf:4: smtp-timeout: "),
    "infinite": (QUIET + "smtp-timeout: inf\n", "m.conf:4: smtp-timeout: "),
    "no number": (QUIET + "smtp-timeout: nan\n", "m.conf:4: smtp-timeout: "),
}


@pytest.mark.parametrize("name", BAD)
def test_G13_what_is_wrong_is_refused_with_file_and_line(tmp_path: Path, name: str) -> None:
    text, complaint = BAD[name]
    code, said = check(tmp_path, text)
    assert code == 2
    assert complaint in said


@pytest.mark.parametrize("name", ["duplicate key", "unknown key", "UTF-16"])
def test_G13_with_such_a_file_nothing_is_opened(tmp_path: Path, name: str) -> None:
    text, complaint = BAD[name]
    check(tmp_path, text)
    ended = mailgw(tmp_path, "serve", "--config-file=m.conf")
    assert ended.returncode == 2
    assert complaint in ended.stderr
    assert ended.stdout == ""
    assert not (tmp_path / "queue.sqlite").exists()


def test_G13_units_and_port_lists(tmp_path: Path) -> None:
    for written, octets in [("100MB", 10**8), ("100MiB", 100 << 20), ("7", 7), ("1 KB", 1000)]:
        assert check(tmp_path, QUIET + f"smtp-maxsize: {written}\n")[0] == 0
        assert load([tmp_path / "m.conf"]).smtp.maxsize == octets
    assert check(tmp_path, QUIET + "smtp-port: 25,2525,1024-1026\n")[0] == 0
    assert load([tmp_path / "m.conf"]).listen.port == (25, 2525, 1024, 1025, 1026)


def test_G13_of_many_ports_one_in_use_opens_none(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        keys = ["--smtp-ip=127.0.0.1;::1", "--rabbitmq-address=", "--queue-store=queue.sqlite"]
        ended = mailgw(tmp_path, "serve", f"--smtp-port=0,{port}", *keys)
    assert ended.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in ended.stderr
    assert ended.stdout == ""
    assert not (tmp_path / "queue.sqlite").exists()


def test_G13_addresses_of_both_families_are_listened_on(gateway: Callable[..., Gateway]) -> None:
    server = gateway({"smtp-ip": "127.0.0.1; ::1, 127.0.0.2"})
    assert len(server.ports) == 3
    for address, port in zip(("127.0.0.1", "::1", "127.0.0.2"), server.ports, strict=True):
        with socket.create_connection((address, port), 10) as sock:
            assert sock.recv(100).startswith(b"220 mx.ours.test ")
