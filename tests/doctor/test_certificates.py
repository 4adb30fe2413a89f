"""Certificates as the doctor sees them: good ones, and each thing that may be wrong."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from doctor.looking import lines, only
from mailgw.doctor.certificates import Presented, look_at_certificate
from mailgw.doctor.observation import Observation
from mailgw.wire.tls import server_context

MX = "mx.example.org"
NOW = datetime.now(UTC)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that this machine trusts."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


def files(
    folder: Path, leaf: trustme.LeafCert, chain: Sequence[trustme.Blob] | None = None
) -> Presented:
    """The certificate on port 25 of MX, in files."""
    blobs = leaf.cert_chain_pems if chain is None else chain
    (folder / "chain.pem").write_bytes(b"".join(blob.bytes() for blob in blobs))
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "key.pem").chmod(0o600)
    return Presented(folder / "chain.pem", folder / "key.pem", (25,), (), MX, clients_verify=False)


def look(presented: Presented) -> list[Observation]:
    return look_at_certificate(
        presented, lambda: server_context(presented.certificate, presented.key, "")
    )


def test_a_good_certificate_is_all_right(trusted: trustme.CA, tmp_path: Path) -> None:
    until = NOW + timedelta(days=80)
    leaf = trusted.issue_cert(MX, not_before=NOW - timedelta(days=1), not_after=until)

    seen = lines(look(files(tmp_path, leaf)))

    assert seen == [
        f"ok certificate of port 25 (STARTTLS): is valid until {until:%Y-%m-%d}, 79 days",
        f"ok certificate of port 25 (STARTTLS): is for {MX}",
        "ok certificate of port 25 (STARTTLS): is trusted by this machine",
    ]


def test_its_ports_are_named(trusted: trustme.CA, tmp_path: Path) -> None:
    presented = files(tmp_path, trusted.issue_cert(MX))

    subject = replace(presented, ports=(25, 587), secure_ports=(465,)).subject

    assert subject == "certificate of ports 25 (STARTTLS), 587 (STARTTLS), 465"


@pytest.mark.parametrize(
    ("left", "line"),
    [
        (timedelta(days=-3), "error certificate of port 25 (STARTTLS): has expired on "),
        (timedelta(days=20, hours=1), "warning certificate of port 25 (STARTTLS): expires in 20"),
        (timedelta(days=22), "ok certificate of port 25 (STARTTLS): is valid until "),
    ],
)
def test_the_end_is_told_in_time(
    trusted: trustme.CA, tmp_path: Path, left: timedelta, line: str
) -> None:
    leaf = trusted.issue_cert(MX, not_before=NOW - timedelta(days=60), not_after=NOW + left)

    seen = look(files(tmp_path, leaf))

    assert only(seen, line)
    assert only(seen, "ok certificate of port 25 (STARTTLS): is trusted")


def test_one_that_is_not_valid_yet_is_an_error(trusted: trustme.CA, tmp_path: Path) -> None:
    leaf = trusted.issue_cert(MX, not_before=NOW + timedelta(days=5))

    assert "is not valid before" in only(look(files(tmp_path, leaf)), "error")


def test_a_key_of_another_certificate_is_an_error(trusted: trustme.CA, tmp_path: Path) -> None:
    presented = files(tmp_path, trusted.issue_cert(MX))
    trusted.issue_cert(MX).private_key_pem.write_to_path(presented.key)

    [seen] = lines(look(presented))

    assert seen.startswith("error certificate of port 25")
    assert "mismatch" in seen


def test_a_missing_file_is_an_error(trusted: trustme.CA, tmp_path: Path) -> None:
    presented = files(tmp_path, trusted.issue_cert(MX))
    presented.certificate.unlink()

    assert "No such file" in only(look(presented), "error")


def test_a_certificate_of_another_name_is_a_warning(trusted: trustme.CA, tmp_path: Path) -> None:
    seen = look(files(tmp_path, trusted.issue_cert("www.example.org", "mail.example.org")))

    assert f"is for www.example.org, mail.example.org, not for {MX}" in only(seen, "warning")


@pytest.mark.parametrize(
    ("name", "fits"),
    [("*.example.org", True), ("MX.Example.ORG", True), ("*.org", False), ("example.org", False)],
)
def test_a_name_may_stand_for_one_label(
    trusted: trustme.CA, tmp_path: Path, name: str, fits: bool
) -> None:
    seen = lines(look(files(tmp_path, trusted.issue_cert(name))))

    assert any(line.endswith(f"is for {MX}") for line in seen) is fits


def test_a_chain_that_leads_nowhere_matters_to_who_verifies(
    authority: trustme.CA, tmp_path: Path
) -> None:
    presented = files(tmp_path, authority.issue_cert(MX))

    servers, people = look(presented), look(replace(presented, clients_verify=True))

    assert "is not trusted by this machine" in only(servers, "note")
    assert "is not trusted by this machine" in only(people, "warning")


def test_a_chain_without_its_middle_is_told(trusted: trustme.CA, tmp_path: Path) -> None:
    leaf = trusted.create_child_ca().issue_cert(MX)

    whole = look(files(tmp_path, leaf))
    cut = look(files(tmp_path, leaf, chain=leaf.cert_chain_pems[:1]))

    assert only(whole, "ok certificate of port 25 (STARTTLS): is trusted")
    assert "the whole chain in the file" in only(cut, "note")


def test_a_chain_in_the_wrong_order_is_a_warning(trusted: trustme.CA, tmp_path: Path) -> None:
    leaf = trusted.create_child_ca().create_child_ca().issue_cert(MX)
    first, second, third = leaf.cert_chain_pems

    seen = look(files(tmp_path, leaf, chain=[first, third, second]))

    assert "below it in the file that did not sign it" in only(seen, "warning")


def by_itself(folder: Path, *, bits: int) -> Presented:
    """A certificate that signed itself, with an RSA key of so many bits."""
    key = rsa.generate_private_key(65537, bits)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, MX)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=300))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(MX)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "self.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "self.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (folder / "self.key").chmod(0o600)
    return Presented(folder / "self.pem", folder / "self.key", (25,), (), MX, clients_verify=False)


def test_one_that_signed_itself_is_told(tmp_path: Path) -> None:
    assert "is signed by itself" in only(look(by_itself(tmp_path, bits=2048)), "note")


def test_a_short_key_is_a_warning(tmp_path: Path) -> None:
    presented = by_itself(tmp_path, bits=1024)

    # Some systems let nobody load it; this is one that does.
    lenient = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    lenient.set_ciphers("DEFAULT:@SECLEVEL=0")
    lenient.load_cert_chain(presented.certificate, presented.key)
    seen = look_at_certificate(presented, lambda: lenient)

    assert "has an RSA key of 1024 bits (2048 bits or more)" in only(seen, "warning")


def test_a_key_that_everybody_can_read_is_a_warning(trusted: trustme.CA, tmp_path: Path) -> None:
    presented = files(tmp_path, trusted.issue_cert(MX))
    presented.key.chmod(0o644)

    assert f"chmod o-r {presented.key}" in only(look(presented), "warning")


def test_a_reload_by_a_user_who_may_not_read_it_is_foreseen(
    trusted: trustme.CA, tmp_path: Path
) -> None:
    presented = replace(files(tmp_path, trusted.issue_cert(MX)), user="daemon")

    told = [line for line in lines(look(presented)) if "a reload cannot" in line]

    assert any(str(presented.key) in line for line in told)
