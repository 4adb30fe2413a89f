"""Reports, B58-B64: what came back, or says so, is read within bounds and goes to its queue."""

from __future__ import annotations

import base64
import gzip
import socket
import zlib
from collections.abc import Callable
from functools import cache

import pytest

from client import Client, stuffed
from gateway import Gateway, Json, content
from hostile.checked import SOON
from hostile.world import peak, taken, unnoticed
from reports.mails import (
    DMARC_SUBJECT,
    aggregate,
    attached,
    delivery_status,
    multipart,
    report,
    zipped,
)

KEYS: dict[str, object] = {
    "rabbitmq-reports": "reports",
    "rabbitmq-local": "local",
    "smtp-bare-newlines": "carry",
}
_MiB = 1 << 20
# What reading one may need besides the document, which has the message in it.
ROOM = 24 * _MiB
# For as many elements as are read at all; others have their turn all the while.
LONG = 20.0
DSN = report("delivery-status", ("message/delivery-status", delivery_status(1)))


def taken_in(server: Gateway, message: bytes, sender: str = "<>") -> tuple[float, list[Json]]:
    """Seconds until the 250 of a message, and what came into the queue for reports."""

    def send(client: Client) -> str:
        for said in client.transaction("bob@ours.test", sender=sender):
            assert said[0] in "23", said
        client.send(stuffed(message))
        return client.reply()

    with peak(server) as grown:
        seconds = unnoticed(server, send)
        assert grown() < 8 * len(message) + ROOM
    reports = taken(server, "reports")
    everything = reports + taken(server, "local")
    assert [content(each) for each in everything] == [message]
    assert taken(server) == []
    return seconds, reports


def reported(server: Gateway, message: bytes, sender: str = "<>", within: float = SOON) -> Json:
    """What is said of a message that is a report, and is read soon."""
    seconds, [document] = taken_in(server, message, sender)
    assert seconds < within
    assert document["decision"][-1]["verdict"] == "reports"
    told: Json = document["report"]
    assert told.get("error", "").isascii()
    assert len(told.get("error", "")) < 100
    return told


def not_reported(server: Gateway, message: bytes, sender: str = "<>") -> None:
    seconds, reports = taken_in(server, message, sender)
    assert seconds < SOON
    assert reports == []


def packed(content_: bytes, name: str = "example.net!example.org!1!2.zip") -> bytes:
    return attached(content_, name)


@cache
def bomb() -> bytes:
    """A hundred megabytes of blanks, as gzip has them."""
    engine = zlib.compressobj(9, wbits=31)
    parts = [engine.compress(b"<feedback>")]
    parts += [engine.compress(b" " * _MiB) for _ in range(100)]
    return b"".join((*parts, engine.flush()))


@cache
def zip_bomb() -> bytes:
    return zipped(("a.xml", b"<feedback>" + b" " * 100 * _MiB))


@pytest.mark.parametrize("kind", ["gzip", "zip", "tls-rpt", "gzip in zip", "zip in zip"])
def test_B58_a_bomb_does_not_go_off(mx: Gateway, kind: str) -> None:
    match kind:
        case "gzip":
            told = reported(mx, packed(bomb(), "example.net!example.org!1!2.xml.gz"))
        case "zip":
            told = reported(mx, packed(zip_bomb()))
        case "tls-rpt":
            encoded = base64.encodebytes(bomb()).replace(b"\n", b"\r\n")
            part = "application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64"
            told = reported(mx, report("tlsrpt", (part, encoded)))
        case "gzip in zip":
            told = reported(mx, packed(zipped(("a.xml.gz", bomb()))))
        case _:
            told = reported(mx, packed(zipped(("a.zip", zip_bomb()))))
    assert told["type"] == ("tls-rpt" if kind == "tls-rpt" else "dmarc-aggregate")
    # What is inside of what is packed is not unpacked again.
    assert {
        "gzip": "more than 200 times",
        "zip": "more than 200 times",
        "tls-rpt": "it is too large",
    }.get(kind, "not well-formed") in told["error"]


def encrypted() -> bytes:
    archive = bytearray(zipped(("a.xml", aggregate())))
    directory = archive.rindex(b"PK\x01\x02")
    archive[6] |= 1
    archive[directory + 8] |= 1
    return bytes(archive)


# "@" stands for a folder that is there.
EVIL = ("../../evil.xml", "@/evil.xml", "..\\evil.xml", "C:\\evil.xml", "evil\0.xml", "a/../b")
ARCHIVES: dict[str, Callable[[], tuple[bytes, str]]] = {
    "members": lambda: (
        zipped(*((f"{number}.xml", b"") for number in range(2_000))),
        "the zip archive has too many members",
    ),
    "encrypted": lambda: (encrypted(), "the zip archive is encrypted"),
    "gz in gz in gz": lambda: (
        gzip.compress(gzip.compress(gzip.compress(aggregate()))),
        "the XML is not well-formed",
    ),
    "truncated zip": lambda: (zipped(("a.xml", aggregate()))[:-30], "ends too early"),
    "truncated gz": lambda: (gzip.compress(aggregate(50))[:-30], "ends too early"),
    "half a zip": lambda: (zipped(("a.xml", aggregate(500)))[:200], "ends too early"),
    "only a mark": lambda: (b"PK\x03\x04", "ends too early"),
    "lying size": lambda: (
        zipped(("a.xml", aggregate())).replace(
            len(aggregate()).to_bytes(4, "little"), b"\x01\0\0\0"
        ),
        "",
    ),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_B59_a_broken_archive_is_a_broken_report(mx: Gateway, name: str) -> None:
    archive, error = ARCHIVES[name]()
    told = reported(mx, packed(archive))
    assert told["type"] == "dmarc-aggregate"
    assert error in told["error"]


@pytest.mark.parametrize("name", EVIL)
def test_B59_no_name_in_an_archive_is_a_path(mx: Gateway, name: str) -> None:
    above = mx.folder.parent
    name = name.replace("@", str(above))
    before = {each for each in above.rglob("*") if "evil" in each.name}
    files = set(mx.folder.iterdir())
    told = reported(mx, packed(zipped((name, aggregate()))))
    assert told["total-records"] == 1
    # And neither is the name of the attachment.
    reported(mx, packed(zipped(("a.xml", aggregate())), name.replace("\0", "") + ".zip"))
    assert {each for each in above.rglob("*") if "evil" in each.name} == before
    assert set(mx.folder.iterdir()) == files


def laughs() -> str:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return f'<!DOCTYPE f [<!ENTITY l0 "ha">{entities}]><feedback><version>&l9;</version></feedback>'


def test_B60_xml_fetches_nothing_and_expands_nothing(mx: Gateway) -> None:
    secret = mx.folder / "secret"
    secret.write_text("swordfish")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        there = f"http://127.0.0.1:{server.getsockname()[1]}"
        body = "<feedback><report_metadata><org_name>&a;</org_name></report_metadata></feedback>"
        for document in (
            f'<!DOCTYPE f [<!ENTITY a SYSTEM "{secret.as_uri()}">]>{body}',
            f'<!DOCTYPE f [<!ENTITY a SYSTEM "{there}/">]>{body}',
            f'<!DOCTYPE f [<!ENTITY % p SYSTEM "{there}/p.dtd"> %p;]>{body}',
            f'<!DOCTYPE f SYSTEM "{there}/f.dtd"><feedback/>',
            f'<!DOCTYPE f [<!ATTLIST feedback x CDATA "&a;"><!ENTITY a "b">]>{body}',
            laughs(),
        ):
            told = reported(mx, packed(document.encode(), "example.net!example.org!1!2.xml"))
            assert "document type or entities" in told["error"]
            assert told["total-records"] == 0
            assert "swordfish" not in str(told)
            assert "haha" not in str(told)
        # An include is an element like any other.
        include = f'<x:include xmlns:x="http://www.w3.org/2001/XInclude" href="{there}/"/>'
        xml = aggregate().replace(b"<record>", include.encode() + b"<record>")
        assert reported(mx, packed(xml))["total-records"] == 1
        with pytest.raises(BlockingIOError):
            server.accept()
    secret.unlink()


XML: dict[str, tuple[bytes, str]] = {
    "depth": (b"<feedback>" + b"<a>" * 200_000, "nested too deeply"),
    "elements": (b"<feedback>" + b"<a/>" * 2_000_000, "too many elements"),
    "one tag": (b'<feedback><a b="' + b"x" * 5_000_000, "a tag that is too long"),
    "attributes": (b"<feedback " + b"".join(b'a%d="" ' % n for n in range(300_000)), "too long"),
    "not closed": (b"<feedback><record>" * 5, "not well-formed"),
    "no encoding": (b'<?xml version="1.0" encoding="klingon"?><feedback/>', "not well-formed"),
    "invalid UTF-8": (b"<feedback><version>\xff\xfe</version></feedback>", "not well-formed"),
}


@pytest.mark.parametrize("name", XML)
def test_B60_xml_of_any_shape_is_bounded(mx: Gateway, name: str) -> None:
    document, error = XML[name]
    # As it is, up to what is read of it, and packed, where many of them are a bomb.
    for file in (document[: 4 * _MiB], gzip.compress(document, 1)):
        told = reported(mx, packed(file), within=LONG)
        assert told["type"] == "dmarc-aggregate"
        assert error in told["error"] or "more than 200 times" in told["error"]


def test_B60_utf16_is_read(mx: Gateway) -> None:
    document = '<?xml version="1.0" encoding="utf-16"?>' + aggregate(3).decode()
    told = reported(mx, packed(document.encode("utf-16")))
    assert (told["total-records"], "error" in told) == (3, False)


def test_B61_the_form_of_the_header_makes_it_a_report(mx: Gateway) -> None:
    head = b"From: dmarchelp@there.test\r\nSubject: " + DMARC_SUBJECT
    for mail, error in [
        # As one large sender had it in 2023, and what else may stand there.
        (head + b"\r\n\r\nunused\r\n", "there is no report attached"),
        (head + b"\r\n\r\n\xff\xfe\x80 no text\r\n", "there is no report attached"),
        (head.upper() + b"\r\n\r\n", "there is no report attached"),
        (multipart("mixed", ("text/plain", b"unused"), header=(head + b"\r\n").decode()), "no rep"),
        (packed(b"unused"), "the XML is not well-formed"),
        (packed(b""), "the XML is not well-formed"),
    ]:
        told = reported(mx, mail)
        assert told["type"] == "dmarc-aggregate"
        assert error in told["error"]


def test_B61_words_in_capitals_are_the_words(mx: Gateway) -> None:
    document = aggregate(2).replace(b">pass<", b">PASS<").replace(b">none<", b">None<")
    told = reported(mx, packed(document))
    assert "error" not in told
    assert {(each["dkim"], each["spf"], each["disposition"]) for each in told["records"]} == {
        ("pass", "pass", "none")
    }


def test_B61_a_text_part_that_is_no_text_beside_the_report(mx: Gateway) -> None:
    mail = multipart(
        "mixed",
        ("text/plain; charset=utf-8", b"\xff\xfe\x80 unused"),
        ("application/xml", aggregate()),
        header=f"Subject: {DMARC_SUBJECT.decode()}\r\n",
    )
    told = reported(mx, mail)
    assert (told["total-records"], "error" in told) == (1, False)


def nested(depth: int) -> bytes:
    """A status part inside of so many multiparts."""
    begin = b"".join(
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=b%d\r\n\r\n"
        b"--b%d\r\n" % (n, n)
        for n in range(depth)
    )
    return begin + b"Content-Type: message/delivery-status\r\n\r\n" + delivery_status(1)


def test_B62_a_delivery_report_of_any_shape_is_routed(mx: Gateway) -> None:
    status = ("message/delivery-status", delivery_status(1))
    for mail, recipients, error in [
        (DSN, 1, ""),
        (report("delivery-status"), 0, "there is no delivery-status part"),
        (report("delivery-status", ("text/plain", b"sorry")), 0, "no delivery-status part"),
        (report("DELIVERY-STATUS", status), 1, ""),
        (report('"Delivery-Status"', status), 1, ""),
        (report("delivery-status", ("MESSAGE/Delivery-Status", status[1])), 1, ""),
        (report("global-delivery-status", ("message/global-delivery-status", status[1])), 1, ""),
        (report("delivery-status", status, status, status), 1, ""),
        (report("delivery-status", (status[0], b"\xff\0\x1b[2J: x\r\n")), 0, "no recipient"),
        (nested(200), None, None),
    ]:
        told = reported(mx, mail)
        assert told["type"] == "dsn"
        if error is not None:
            assert (told["total-recipients"], error in told.get("error", "")) == (recipients, True)
            assert ("error" in told) == bool(error)


def test_B62_of_five_thousand_recipients_all_are_counted(mx: Gateway) -> None:
    told = reported(
        mx, report("delivery-status", ("message/delivery-status", delivery_status(5000)))
    )
    assert (told["total-recipients"], len(told["recipients"])) == (5_000, 500)
    assert told["truncated"] is True


def test_B62_an_address_of_a_report_is_text_and_no_more(mx: Gateway) -> None:
    status = (
        b"Reporting-MTA: dns; \x1b[2Jmx\r\n\r\n"
        b"Final-Recipient: utf-8; \\x{D800}\\x{110000}\\x{0A}a@b\r\n"
        b"Action: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 " + b"x" * 100_000 + b"\r\n"
    )
    told = reported(mx, report("delivery-status", ("message/delivery-status", status)))
    [recipient] = told["recipients"]
    assert recipient["status"] == "5.1.1"
    assert len(str(told)) < 10_000


def test_B63_a_report_inside_of_a_mail_is_none(mx: Gateway) -> None:
    quoted = b"".join(b"> " + line for line in DSN.splitlines(True))
    text = b"Subject: Fwd: failed\r\n\r\n" + DSN
    for mail in (
        multipart("mixed", ("text/plain", b"see"), ("message/rfc822", DSN)),
        multipart("mixed", ("message/rfc822", packed(aggregate())), header="Subject: Fwd: x\r\n"),
        b"Subject: Re: failed\r\n\r\n" + quoted,
        text,
    ):
        not_reported(mx, mail, "<joe@there.test>")


def test_B63_the_form_decides_whoever_sends_it(mx: Gateway) -> None:
    # As the README says: a report is a claim, and its sender is in the document.
    for sender in ("<joe@there.test>", "<>"):
        assert reported(mx, DSN, sender)["type"] == "dsn"


def test_B63_for_who_is_not_local_nothing_is_a_report(mx: Gateway) -> None:
    with Client(mx.port) as client:
        client.hello()
        assert client.mail(DSN, "x@other.test", sender="<>").startswith("250-2.0.0 ")
    [document] = taken(mx)
    assert "report" not in document
    assert taken(mx, "reports") == taken(mx, "local") == []


FEEDBACK = b"Feedback-Type: abuse\r\nUser-Agent: x/1\r\nVersion: 1\r\nSource-IP: 192.0.2.1\r\n"
ABUSE = ("message/feedback-report", FEEDBACK)
ORIGINAL = ("message/rfc822", b"From: joe@ours.test\r\nSubject: news\r\n\r\nnews\r\n")


def test_B64_feedback_of_any_shape_is_routed(mx: Gateway) -> None:
    without = (ABUSE[0], FEEDBACK.partition(b"\r\n")[2])
    for mail, kind, error in [
        (report("feedback-report", ABUSE, ORIGINAL), "abuse", ""),
        (report("feedback-report", without, ORIGINAL), None, "it has no Feedback-Type"),
        (report("feedback-report", ORIGINAL), None, "there is no feedback-report part"),
        (report("feedback-report", (ABUSE[0], b"")), None, "its feedback-report part is empty"),
        # Several in one, as one sender has it: of the first it is told.
        (report("feedback-report", *[ABUSE, ORIGINAL] * 7), "abuse", ""),
        (report("feedback-report", *[ABUSE] * 3_000), "abuse", ""),
        (report("feedback-report", (ABUSE[0], FEEDBACK * 5_000)), "abuse", ""),
        (report("feedback-report", (ABUSE[0], b"\0\xff" + FEEDBACK)), None, "no Feedback-Type"),
    ]:
        told = reported(mx, mail, "<fbl@there.test>")
        assert told["type"] == "arf"
        assert told.get("feedback-type") == kind
        assert error in told.get("error", "")
        assert ("error" in told) == bool(error)


def test_B64_more_values_than_anybody_writes_are_cut(mx: Gateway) -> None:
    many = b"".join(b"Original-Rcpt-To: <u%d@ours.test>\r\n" % n for n in range(5_000))
    told = reported(mx, report("feedback-report", (ABUSE[0], FEEDBACK + many), ORIGINAL))
    assert (len(told["original-rcpt-to"]), told["truncated"]) == (100, True)
    assert told["original"]["subject"] == "news"
