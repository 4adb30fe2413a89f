"""What keeps the gateway from starting: one clear line, exit 2, nothing half open."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from gateway import COMMAND, ENVIRONMENT, Certificate
from tables import sqlite_table


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def serve(folder: Path, keys: dict[str, object]) -> subprocess.CompletedProcess[str]:
    usual: dict[str, object] = {
        "smtp-ip": "127.0.0.1",
        "smtp-port": 0,
        "rabbitmq-address": "",
        "queue-store": folder / "queue.sqlite",
    }
    arguments = [f"--{key}={value}" for key, value in (usual | keys).items()]
    return subprocess.run(
        [*COMMAND, "serve", *arguments],
        env=ENVIRONMENT,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def complaint(folder: Path, keys: dict[str, object]) -> str:
    """The one line with which it did not start."""
    ended = serve(folder, keys)
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    [line] = ended.stderr.splitlines()
    return line


def test_a_port_in_use(tmp_path: Path, taken: int) -> None:
    said = complaint(tmp_path, {"smtp-port": taken})
    assert said == f"mailgw: cannot listen on 127.0.0.1 port {taken}: Address already in use"


def test_of_two_ports_one_is_in_use(tmp_path: Path, taken: int) -> None:
    said = complaint(tmp_path, {"smtp-port": f"0,{taken}"})
    assert said == f"mailgw: cannot listen on 127.0.0.1 port {taken}: Address already in use"


def test_an_address_that_is_not_of_this_machine(tmp_path: Path) -> None:
    said = complaint(tmp_path, {"smtp-ip": "192.0.2.77", "smtp-port": 2525})
    assert "cannot listen on 192.0.2.77 port 2525: Cannot assign requested address" in said


def test_a_certificate_that_is_not_there(tmp_path: Path, certificate: Certificate) -> None:
    keys = certificate.keys | {"smtp-certificate": tmp_path / "missing.pem"}
    assert "smtp-certificate" in complaint(tmp_path, keys)


def test_a_certificate_that_is_none(tmp_path: Path, certificate: Certificate) -> None:
    (tmp_path / "chain.pem").write_text("no certificate\n")
    keys = certificate.keys | {"smtp-certificate": tmp_path / "chain.pem"}
    assert "smtp-certificate" in complaint(tmp_path, keys)


def test_the_key_of_another_certificate(tmp_path: Path, certificate: Certificate) -> None:
    other = trustme.CA().issue_cert("localhost")
    other.private_key_pem.write_to_path(tmp_path / "other.pem")
    said = complaint(tmp_path, certificate.keys | {"smtp-key": tmp_path / "other.pem"})
    assert "KEY_VALUES_MISMATCH" in said


def test_a_key_with_a_passphrase(tmp_path: Path, certificate: Certificate) -> None:
    key = serialization.load_pem_private_key(certificate.key.read_bytes(), password=None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"a passphrase"),
    )
    (tmp_path / "locked.pem").write_bytes(locked)
    said = complaint(tmp_path, certificate.keys | {"smtp-key": tmp_path / "locked.pem"})
    assert "smtp-certificate" in said or "smtp-key" in said


def test_a_bad_line_in_the_local_addresses(tmp_path: Path) -> None:
    (tmp_path / "locals").write_text("@ours.test\nregex (unclosed\n")
    said = complaint(tmp_path, {"local-addresses": tmp_path / "locals"})
    assert f"{tmp_path}/locals:2: " in said


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        ([], "locals.sqlite: No such file or directory"),
        (["CREATE TABLE other (x)"], 'no table locals(type, address) ("mailgw locals add" makes'),
        (
            [
                "CREATE TABLE locals (type, address)",
                "INSERT INTO locals VALUES ('glob', '*@ours.test')",
            ],
            "locals: row 'glob', '*@ours.test': \"glob\" is not a type",
        ),
    ],
)
def test_a_table_that_cannot_be_used_keeps_the_gateway_from_starting(
    tmp_path: Path, statements: list[str], said: str
) -> None:
    table = sqlite_table(tmp_path)
    if statements:
        table.execute(*statements)

    line = complaint(tmp_path, {"database-address": table.url})

    assert said in line


def test_a_database_that_is_away_keeps_the_gateway_from_starting(tmp_path: Path) -> None:
    address = "postgresql://mailgw:opensesame@127.0.0.1:1/mail"

    line = complaint(tmp_path, {"database-address": address})

    assert "database-address: " in line
    assert "opensesame" not in line


def test_a_queue_that_cannot_be_made(tmp_path: Path) -> None:
    said = complaint(tmp_path, {"queue-store": tmp_path / "missing" / "queue.sqlite"})
    assert "missing" in said


def test_a_queue_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "letter").write_bytes(b"Dear reader, this is not a database at all." * 100)
    said = complaint(tmp_path, {"queue-store": tmp_path / "letter"})
    assert "letter" in said
    assert (tmp_path / "letter").read_bytes().startswith(b"Dear reader")


def test_a_user_that_does_not_exist(tmp_path: Path) -> None:
    said = complaint(tmp_path, {"user": "nobody-of-this-name"})
    assert said == "mailgw: command line: user: there is no user nobody-of-this-name"


def test_several_workers_that_cannot_begin_are_one_complaint(tmp_path: Path) -> None:
    (tmp_path / "letter").write_bytes(b"Dear reader, this is not a database at all." * 100)
    said = complaint(tmp_path, {"queue-store": tmp_path / "letter", "smtp-threads": 4})
    assert "letter" in said


def test_an_unknown_key(tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("smtp-prot: 25\n")
    ended = subprocess.run(
        [*COMMAND, "serve", "--config-file", str(tmp_path / "conf")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert f"{tmp_path}/conf:1: " in ended.stderr
    assert "smtp-port" in ended.stderr
    assert "Traceback" not in ended.stderr
