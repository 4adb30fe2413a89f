from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from house import contexts

from mailgw.wire.tls import BadCertificate, Tunnel, server_context


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


class Client:
    """The other side of a tunnel, as bytes too."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def says(self, octets: bytes) -> bytes:
        """The records of it."""
        self.tls.write(octets)
        return self.outgoing.read()

    def shakes(self, records: bytes) -> bytes:
        """What it answers to these records of the handshake."""
        self.incoming.write(records)
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def hears(self, records: bytes) -> bytes:
        """What is in them; b"" for the end of TLS."""
        self.incoming.write(records)
        return self.tls.read(65536)


def whole(tunnel: Tunnel, records: bytes) -> bytes:
    return tunnel.receive(records)


def octets(tunnel: Tunnel, records: bytes) -> bytes:
    return b"".join(tunnel.receive(records[at : at + 1]) for at in range(len(records)))


def introduced(
    folder: Path, version: ssl.TLSVersion, arriving: Callable[[Tunnel, bytes], bytes] = whole
) -> tuple[Tunnel, Client]:
    """A tunnel and a client after their handshake."""
    context, trusting = contexts(folder)
    trusting.minimum_version = trusting.maximum_version = version
    tunnel, client = Tunnel(context), Client(trusting)
    records = b""
    while tunnel.negotiated is None:
        assert arriving(tunnel, client.shakes(records)) == b""
        records = tunnel.data_to_send()
    client.shakes(records)
    return tunnel, client


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
@pytest.mark.parametrize("arriving", [whole, octets])
def test_however_records_arrive_the_same_comes_out(
    tmp_path: Path, version: ssl.TLSVersion, arriving: Callable[[Tunnel, bytes], bytes]
) -> None:
    tunnel, client = introduced(tmp_path, version, arriving)
    long = bytes(range(256)) * 80  # more than one record carries
    records = client.says(b"EHLO client.test\r\n") + client.says(long)
    assert arriving(tunnel, records) == b"EHLO client.test\r\n" + long
    assert not tunnel.ended
    assert tunnel.negotiated is not None
    assert tunnel.negotiated.version == client.tls.version()


@VERSIONS
def test_what_is_sent_is_heard_whole(tmp_path: Path, version: ssl.TLSVersion) -> None:
    tunnel, client = introduced(tmp_path, version)
    long = b"250-and so on\r\n" * 5000
    tunnel.send(long)
    heard = client.hears(tunnel.data_to_send())
    while len(heard) < len(long):
        heard += client.tls.read(65536)
    assert heard == long
    assert tunnel.data_to_send() == b""


def test_nothing_is_given_to_resume_with(tmp_path: Path) -> None:
    tunnel, client = introduced(tmp_path, ssl.TLSVersion.TLSv1_3)
    # A ticket would come first, and with it a write of its own.
    tunnel.send(b"250 OK\r\n")
    assert client.hears(tunnel.data_to_send()) == b"250 OK\r\n"
    assert client.tls.session is None or not client.tls.session.has_ticket


@VERSIONS
def test_the_end_of_tls_comes_with_the_last_reply(tmp_path: Path, version: ssl.TLSVersion) -> None:
    tunnel, client = introduced(tmp_path, version)
    tunnel.send(b"221 Bye\r\n")
    tunnel.close()
    assert client.hears(tunnel.data_to_send()) == b"221 Bye\r\n"
    assert client.tls.read(1) == b""
    tunnel.close()
    assert tunnel.data_to_send() == b""


@VERSIONS
def test_a_client_that_ends_tls_is_heard_up_to_there(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    tunnel, client = introduced(tmp_path, version)
    records = client.says(b"QUIT\r\n")
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    records += client.outgoing.read()
    assert tunnel.receive(records + b"in clear") == b"QUIT\r\n"
    assert tunnel.ended


@VERSIONS
def test_a_record_that_was_changed_on_its_way(tmp_path: Path, version: ssl.TLSVersion) -> None:
    tunnel, client = introduced(tmp_path, version)
    records = bytearray(client.says(b"MAIL FROM:<>\r\n"))
    records[-1] ^= 1
    with pytest.raises(ssl.SSLError):
        tunnel.receive(bytes(records))
    tunnel.close()
    # RFC 8446 5.2: bad_record_mac.
    with pytest.raises(ssl.SSLError, match="bad record mac"):
        client.hears(tunnel.data_to_send())


def test_a_client_with_which_nothing_is_shared_is_told(tmp_path: Path) -> None:
    context, trusting = contexts(tmp_path)
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    trusting.set_ciphers("AES128-GCM-SHA256")  # RSA, and our key is ECDSA
    tunnel, client = Tunnel(context), Client(trusting)
    with pytest.raises(ssl.SSLError, match="no shared cipher"):
        tunnel.receive(client.shakes(b""))
    tunnel.close()
    with pytest.raises(ssl.SSLError, match="alert handshake failure"):
        client.shakes(tunnel.data_to_send())
    assert tunnel.negotiated is None
