"""Every mail of the corpus goes in over SMTP and comes out of the queue octet by octet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import Client
from gateway import Gateway, content, running

BESIDE_THE_PROJECT = Path(__file__).parents[3] / "shared" / "vectors"
EMAILS = Path(os.environ.get("MAILGW_TEST_VECTORS", BESIDE_THE_PROJECT)) / "emails"
# What lies beside the mails: expectations of others, and licences.
NO_MAIL = (".json", ".md")
LICENCES = ("LICENSE", "COPYING", "MIT", "PSF")


def corpus() -> list[Path]:
    return sorted(
        path
        for path in EMAILS.rglob("*")
        if path.is_file() and path.suffix not in NO_MAIL and not path.name.startswith(LICENCES)
    )


MAILS = corpus()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    if not MAILS:
        pytest.skip("the corpus of mails is not here (MAILGW_TEST_VECTORS names its folder)")
    with running(tmp_path_factory.mktemp("vectors"), {"smtp-bare-newlines": "carry"}) as started:
        yield started


def sent_as(octets: bytes) -> bytes:
    """The file as a mail client sends it: DATA ends with CRLF, so the message does."""
    return octets if octets.endswith(b"\r\n") else octets + b"\r\n"


def with_network_line_ends(octets: bytes) -> bytes:
    """A file that was written on Unix, as its mail went over the wire."""
    return octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def test_the_corpus_is_a_corpus(shared: Gateway) -> None:
    assert len(MAILS) > 100


def test_by_data_every_mail_comes_out_as_it_went_in(shared: Gateway) -> None:
    wanted: dict[str, bytes] = {}
    with Client(shared.port) as client:
        client.hello()
        for path in MAILS:
            octets = path.read_bytes()
            for message in (sent_as(octets), sent_as(with_network_line_ends(octets))):
                said = client.mail(message)
                assert said.startswith("250-2.0.0 "), f"{path}: {said}"
                wanted[said.split()[-3]] = message
    found = {document["message-id"]: content(document) for document in shared.consume()}
    assert found.keys() == wanted.keys()
    assert [name for name in found if found[name] != wanted[name]] == []


def test_by_bdat_every_file_comes_out_octet_by_octet(shared: Gateway) -> None:
    wanted: dict[str, bytes] = {}
    with Client(shared.port) as client:
        client.hello()
        for path in MAILS:
            message = path.read_bytes()
            # In the middle of a line, most likely, and once in one piece.
            middle = len(message) // 2
            for chunks in ((message,), (message[:middle], message[middle:], b"")):
                said = client.chunks(*chunks)
                assert said.startswith("250-2.0.0 "), f"{path}: {said}"
                wanted[said.split()[-3]] = message
    found = {document["message-id"]: content(document) for document in shared.consume()}
    assert found.keys() == wanted.keys()
    assert [name for name in found if found[name] != wanted[name]] == []


@pytest.fixture(scope="module")
def carrying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("carrying"), {"smtp-bare-newlines": "carry"}) as started:
        yield started


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(bytes(range(256)) * 4096 + b"\r\n", id="all octets"),
        pytest.param(b"\0" * (1 << 20) + b"\r\n", id="a megabyte of NUL"),
        pytest.param(b"\xff\xfeS\0u\0b\0\r\n\r\n\xed\xa0\x80\xc0\xaf\r\n", id="no UTF-8"),
        pytest.param("Subject: Ünï мир 世界 🂡\r\n\r\nგამარჯობა\r\n".encode(), id="UTF-8"),
        pytest.param("Subject: café\r\n\r\n£\r\n".encode("latin-1"), id="Latin-1"),
        pytest.param("Subject: мир\r\n\r\nживи\r\n".encode("koi8-r"), id="KOI8-R"),
        pytest.param("Subject: 世界\r\n\r\nこんにちは\r\n".encode("iso-2022-jp"), id="ISO-2022-JP"),
        pytest.param("Subject: 世界\r\n\r\n你好\r\n".encode("gb18030"), id="GB18030"),
        pytest.param("Subject: x\r\n\r\nhello".encode("utf-16") + b"\r\n", id="UTF-16"),
        pytest.param(b"no header at all\r\n", id="no header"),
        pytest.param(b"\r\n\r\n", id="blank first line"),
        pytest.param(b"From joe Mon Jan  1\r\nSubject : x\r\n:\r\n y\r\n\r\n", id="mbox line"),
        pytest.param(b".\r\n..\r\n.x\r\n\r\n...\r\n", id="dots"),
        pytest.param(b"a\n.\nb\r.\rc\n.\r\n.\r\nd\r\n", id="bare newlines around dots"),
        pytest.param(b"To: " + b"," * 100_000 + b"\r\n\r\n", id="commas"),
        pytest.param(b"To: " + b"(" * 100_000 + b"\r\n\r\n", id="nested comments"),
        pytest.param(b"Subject: " + b"=?utf-8?q?a?= " * 20_000 + b"\r\n\r\n", id="encoded words"),
        pytest.param(b"X: y\r\n" * 20_000 + b"\r\n", id="20,000 headers"),
        pytest.param(
            b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n' * 2000, id="nested parts"
        ),
        pytest.param(b"x" * 100_000 + b"\r\n", id="one long line"),
    ],
)
def test_hostile_content_comes_out_octet_by_octet(carrying: Gateway, message: bytes) -> None:
    with Client(carrying.port) as client:
        client.hello()
        assert client.chunks(message).startswith("250-2.0.0 ")
        assert client.mail(message).startswith("250-2.0.0 ")
    assert [content(document) == message for document in carrying.consume()] == [True, True]


@pytest.mark.parametrize("smallest", [b"", b"x"])
def test_a_message_without_a_line_end_comes_by_bdat_only(
    carrying: Gateway, smallest: bytes
) -> None:
    with Client(carrying.port) as client:
        client.hello()
        assert client.chunks(smallest).startswith("250-2.0.0 ")
    [document] = carrying.consume()
    assert content(document) == smallest


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"0123456789abcdef" * 4 + b"\r\n", id="text"),
        pytest.param(b"\xff" * 64 + b"\r\n", id="no UTF-8"),
    ],
)
def test_20_megabytes_come_out_octet_by_octet(carrying: Gateway, octets: bytes) -> None:
    message = b"Subject: large\r\n\r\n" + octets * (20_000_000 // len(octets))
    with Client(carrying.port) as client:
        client.hello()
        assert client.mail(message, "bob@ours.test", "eve@ours.test").startswith("250-2.0.0 ")
    assert [content(document) == message for document in carrying.consume()] == [True, True]
