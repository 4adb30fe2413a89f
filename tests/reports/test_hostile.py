"""Reports that were made to hurt: bounded in time, in memory, and in what they may cause.

The time that the event loop is held is measured in processor time of its thread, so that it
does not depend on what else the machine does.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailgw.reports.read import read
from reports.mails import aggregate, attached, bounce, delivery_status, multipart, report, zipped

EXAMPLES = [
    path.read_bytes() for path in sorted((Path(__file__).parent / "examples").glob("*.eml"))
]
# 20 ms are promised on our machine; three times that is noise, ten would be a fault.
LONGEST_HOLD = 0.06
_MiB = 1 << 20


async def held(content: bytes) -> tuple[dict[str, Any], float]:
    """What is read, and how long the loop was held at most while it was."""
    longest = 0.0
    reading = asyncio.ensure_future(read(content))
    while not reading.done():
        begin = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - begin)
    found = reading.result()
    assert found is not None
    told: dict[str, Any] = msgspec.to_builtins(found)
    return told, longest


def xml(content: bytes) -> bytes:
    return attached(content)


def encrypted() -> bytes:
    packed = bytearray(zipped(("a.xml", aggregate())))
    directory = packed.rindex(b"PK\x01\x02")
    packed[6] |= 1
    packed[directory + 8] |= 1
    return bytes(packed)


def second_directory() -> bytes:
    """An archive whose comment holds the end of another one, with a huge directory."""
    packed = zipped(("a.xml", aggregate()))
    return packed[:-2] + b"\x16\0" + b"PK\x05\x06" + b"\0" * 8 + b"\xff" * 8 + b"\0\0"


ARCHIVES: dict[str, Callable[[], tuple[bytes, str]]] = {
    "a gzip bomb": lambda: (
        gzip.compress(b"<feedback>" + b" " * 100 * _MiB),
        "packed more than 200 times",
    ),
    "a zip bomb": lambda: (
        zipped(("a.xml", b"<feedback>" + b" " * 100 * _MiB)),
        "more than 200 times",
    ),
    "2,000 members": lambda: (
        zipped(*((f"{number}.xml", b"") for number in range(2000))),
        "the zip archive has too many members",
    ),
    "gzip in gzip in gzip": lambda: (
        gzip.compress(gzip.compress(gzip.compress(aggregate()))),
        "the XML is not well-formed",
    ),
    "encrypted": lambda: (encrypted(), "the zip archive is encrypted"),
    "truncated zip": lambda: (
        zipped(("a.xml", aggregate()))[:-30],
        "the zip archive ends too early",
    ),
    "truncated gzip": lambda: (gzip.compress(aggregate(50))[:-30], "the gzip data ends too early"),
    "damaged gzip": lambda: (
        gzip.compress(aggregate())[:-8] + b"\0" * 8,
        "the gzip data is damaged",
    ),
    "damaged zip": lambda: (
        zipped(("a.xml", aggregate(50))).replace(b"\x00a.xml", b"\x00\xff.xml", 1),
        "the zip archive is damaged",
    ),
    "two directories": lambda: (second_directory(), "the zip archive"),
    "empty zip": lambda: (zipped(), "the XML is not well-formed"),
    "only folders": lambda: (zipped(("a/", b"")), "the zip archive is empty"),
}


@pytest.mark.parametrize("name", ARCHIVES)
async def test_archives_are_bounded(name: str) -> None:
    packed, error = ARCHIVES[name]()

    found, longest = await held(attached(packed, "example.net!example.org!1!2.zip"))

    assert found["type"] == "dmarc-aggregate"
    assert error in found["error"]
    assert longest < LONGEST_HOLD


DOCUMENTS: dict[str, Callable[[], tuple[bytes, str]]] = {
    "an entity": lambda: (
        b'<!DOCTYPE feedback [<!ENTITY a "ha">]><feedback><version>&a;</version></feedback>',
        "the XML has a document type or entities, which no report needs",
    ),
    "a billion laughs": lambda: (
        b'<!DOCTYPE f [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
        b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><feedback>&c;</feedback>',
        "document type or entities",
    ),
    "200,000 deep": lambda: (b"<feedback>" + b"<a>" * 200_000, "the XML is nested too deeply"),
    "four million elements": lambda: (
        b"<feedback>" + b"<a/>" * 4_000_000,
        "the XML has too many elements",
    ),
    "one tag of 19 MB": lambda: (
        b'<feedback><a b="' + b"x" * 19_000_000,
        "the XML has a tag that is too long",
    ),
    "a comment of 19 MB": lambda: (b"<feedback><!--" + b"x" * 19_000_000, "a tag that is too long"),
    "a value of 15 MB": lambda: (b"<feedback><version>" + b"x" * 15_000_000, "not well-formed"),
    "an unknown encoding": lambda: (
        b'<?xml version="1.0" encoding="klingon"?><feedback/>',
        "the XML is not well-formed",
    ),
    "no UTF-8": lambda: (b"<feedback><version>\xff\xfe</version></feedback>", "not well-formed"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_xml_is_bounded(name: str) -> None:
    document, error = DOCUMENTS[name]()

    found, longest = await held(xml(document))

    assert found["type"] == "dmarc-aggregate"
    assert error in found["error"]
    assert longest < LONGEST_HOLD


async def test_more_than_20_mib_are_not_read() -> None:
    element = b"<version>" + b"x" * 1000 + b"</version>"
    mail = multipart(
        "mixed",
        ("text/xml", b"<feedback>" + element * 21_000),
        header="Subject: Report Domain: example.org\r\n",
    )

    found, longest = await held(mail)

    assert found["error"] == "it is larger than 20 MiB"
    assert longest < LONGEST_HOLD


async def test_nothing_is_fetched_that_xml_names(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("swordfish")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        documents = [
            f'<!DOCTYPE f [<!ENTITY a SYSTEM "{target}">]>'
            "<feedback><version>&a;</version></feedback>"
            for target in (secret.as_uri(), f"http://127.0.0.1:{port}/")
        ] + [f'<!DOCTYPE f SYSTEM "http://127.0.0.1:{port}/f.dtd"><feedback/>']

        found = [(await held(xml(document.encode())))[0] for document in documents]

        with pytest.raises(BlockingIOError):
            server.accept()
    assert ["document type" in each["error"] for each in found] == [True] * 3
    assert "swordfish" not in repr(found)


async def test_utf16_is_read() -> None:
    document = '<?xml version="1.0" encoding="utf-16"?>' + aggregate(3).decode()

    found, _ = await held(xml(document.encode("utf-16")))

    assert "error" not in found
    assert found["total-records"] == 3


async def test_of_a_report_of_10_mb_all_is_counted_and_the_beginning_kept() -> None:
    found, longest = await held(attached(gzip.compress(aggregate(30_000))))

    assert "error" not in found
    assert found["truncated"] is True
    assert len(found["records"]) == 1000
    assert found["total-records"] == 30_000
    assert found["total-messages"] == 30_000 * 30_001 // 2
    assert longest < LONGEST_HOLD


async def test_of_5000_recipients_all_are_counted_and_the_first_kept() -> None:
    found, longest = await held(
        report("delivery-status", ("message/delivery-status", delivery_status(5000)))
    )

    assert "error" not in found
    assert found["truncated"] is True
    assert len(found["recipients"]) == 500
    assert found["total-recipients"] == 5000
    assert longest < LONGEST_HOLD


def status(content: bytes) -> bytes:
    return report("delivery-status", ("message/delivery-status", content))


def tls(content: bytes) -> bytes:
    return report("tlsrpt", ("application/tlsrpt+json", content))


BOUNDARY = b'Content-Type: multipart/report; report-type=delivery-status; boundary="%s"\r\n\r\n'
SLOW: dict[str, Callable[[], bytes]] = {
    "a million empty lines": lambda: status(b"\r\n" * 1_000_000),
    "one group of fields": lambda: status(b"a:b\r\n" * 400_000),
    "one field": lambda: status(b"Status: 5.1.1\r\n" + b" x\r\n" * 300_000),
    "one line": lambda: status(b"Diagnostic-Code: " + b"5" * 2_000_000),
    "blanks": lambda: status(b"Status:" + b" " * 2_000_000),
    "50,000 parts": lambda: report("delivery-status", *[("text/plain", b"x")] * 50_000),
    "2,000 multiparts, one in the other": lambda: b"".join(
        b"--%d\r\n" % (number - 1) + BOUNDARY % b"%d" % number for number in range(2000)
    ).removeprefix(b"---1\r\n"),
    "a multipart that contains itself": lambda: (
        BOUNDARY % b"b" + (b"--b\r\n" + BOUNDARY % b"b") * 2000
    ),
    "no delimiters but many of them": lambda: BOUNDARY % b"b" + b"x--b" * 5_000_000,
    "delimiters of another boundary": lambda: BOUNDARY % b"b" + b"--bx\r\n" * 3_000_000,
    "dashes": lambda: BOUNDARY % (b"-" * 68 + b"a") + b"-" * 20_000_000,
    "headers of parts": lambda: report(
        "delivery-status", *[("text/plain\r\n" + "a:b\r\n" * 7000, b"")] * 50
    ),
    "parameters": lambda: report("delivery-status", *[("text/plain" + '; a="' * 7000, b"x")] * 50),
    "quoted-printable": lambda: report(
        "delivery-status",
        (
            "message/delivery-status\r\nContent-Transfer-Encoding: quoted-printable",
            b"=" * 15 * _MiB,
        ),
    ),
    "no base64": lambda: attached(b"").replace(b"\r\n\r\n", b"\r\n\r\n" + b"!" * 20 * _MiB),
    "objects": lambda: tls(b'{"policies":[' + b"{}," * 600_000 + b"{}]}"),
    "as many objects as are read": lambda: tls(b'{"policies":[' + b"{}," * 19_000 + b"{}]}"),
    "arrays in arrays": lambda: tls(b"[" * 39_000),
    "digits": lambda: tls(
        b'{"policies":[{"summary":{"total-failure-session-count":' + b"9" * 1_900_000
    ),
    "at signs": lambda: bounce("@" * 40_000),
    "addresses": lambda: bounce("<a@b.example>: 550 5.1.1 no\n" * 5000),
    "words of failure": lambda: bounce("fail delivery user mailbox " * 2000),
    "fields": lambda: bounce("From: a\n b\n b\n" * 5000),
    "folded fields": lambda: bounce(("From:\n" + " \n" * 49 + "x\n") * 400),
    "tags": lambda: bounce("<&amp" * 10_000, header="Content-Type: text/html\r\n"),
    "a form of a bounce": lambda: bounce("Unable to deliver message to\n <\n <a\n" * 400),
    "encoded-words": lambda: bounce("x", subject="failure notice " + "=?utf-8?q?a?= " * 2000),
}


@pytest.mark.parametrize("name", SLOW)
async def test_no_report_holds_the_event_loop(name: str) -> None:
    found, longest = await held(SLOW[name]())

    assert "error" in found or found.get("recipients") or found.get("policies")
    assert longest < LONGEST_HOLD


async def test_reading_can_be_cancelled() -> None:
    reading = asyncio.ensure_future(read(attached(gzip.compress(aggregate(30_000)))))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    reading.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reading


def sound(content: bytes, envelope: str | None = None) -> None:
    """Reading gives a report or none, and the report can be written down and read again."""
    found = asyncio.run(read(content, envelope))
    if found is not None:
        written = msgspec.json.encode(found)
        assert msgspec.json.decode(written, type=type(found)) == found
        error = msgspec.to_builtins(found).get("error", "")
        assert "\n" not in error
        assert error.isascii()


@given(st.binary(max_size=2000))
def test_no_octets_make_it_raise(content: bytes) -> None:
    sound(content, "")


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(EXAMPLES),
    st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from(["cut", "flip", "drop", "twice", "boundary"])),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 255),
)
def test_no_damage_makes_it_raise(
    mail: bytes, damages: list[tuple[float, str]], octet: int
) -> None:
    for where, damage in damages:
        at = int(where * len(mail))
        match damage:
            case "cut":
                mail = mail[:at] if at > len(mail) // 2 else mail
            case "flip":
                mail = mail[:at] + bytes([octet]) + mail[at + 1 :]
            case "drop":
                mail = mail[:at] + mail[at + 20 :]
            case "twice":
                mail = mail[:at] + mail[max(at - 200, 0) :]
            case "boundary":
                mail = mail[:at] + b"\n--b1\n" + mail[at:]

    sound(mail, "")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600), st.sampled_from(["gzip", "zip", "tls", "status", "html"]))
def test_nothing_in_an_attachment_makes_it_raise(octets: bytes, kind: str) -> None:
    match kind:
        case "gzip":
            sound(attached(b"\x1f\x8b\x08\0" + octets))
            sound(attached(gzip.compress(octets)))
        case "zip":
            packed = zipped(("a.xml", aggregate()))
            cut = len(octets) % len(packed)
            sound(attached(packed[:cut] + octets + packed[cut + len(octets) :]))
            sound(attached(b"PK\x03\x04" + octets + packed[-60:]))
        case "tls":
            sound(tls(octets))
            sound(tls(b'{"policies": [{"policy": "' + octets + b'"}]}'))
        case "status":
            sound(status(octets))
            sound(status(b"Final-Recipient: rfc822;" + octets + b"\r\nStatus: " + octets))
        case "html":
            sound(bounce(octets.decode("latin-1"), header="Content-Type: text/html\r\n"))
