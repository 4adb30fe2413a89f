from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from mailgw.wire.tls import BadCertificate, server_context


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    certificate = trustme.CA().issue_cert("localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    return chain, key


def why(chain: Path, key: Path, ciphers: str = "") -> str:
    with pytest.raises(BadCertificate) as bad:
        server_context(chain, key, ciphers)
    return str(bad.value)


def test_tls_1_2_is_the_floor(files: tuple[Path, Path]) -> None:
    context = server_context(*files, "ECDHE+AESGCM")
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_a_missing_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    assert "No such file or directory" in why(tmp_path / "missing", files[1])


def test_a_key_of_somebody_else(files: tuple[Path, Path], tmp_path: Path) -> None:
    trustme.CA().issue_cert("x.test").private_key_pem.write_to_path(tmp_path / "other")
    assert "key values mismatch" in why(files[0], tmp_path / "other")


def test_what_is_no_certificate(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("Dear reader\n")
    assert str(tmp_path / "letter") in why(tmp_path / "letter", files[1])


def test_a_passphrase_is_never_asked_for(files: tuple[Path, Path], tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(files[1].read_bytes(), password=None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"a passphrase"),
    )
    (tmp_path / "locked").write_bytes(locked)
    assert "the key has a passphrase" in why(files[0], tmp_path / "locked")


def test_ciphers_that_nobody_knows(files: tuple[Path, Path]) -> None:
    assert why(*files, "NO:SUCH") == "no cipher matches 'NO:SUCH'"
