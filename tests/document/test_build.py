"""Documents: every property, every byte, every recipient; all of them valid by the schema."""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from document.world import ALICE, BOB, CAROL, EVERYBODY, MAIL, PEER, Trust, message, read
from mailgw.config.networks import networks
from mailgw.document.addresses import Outgoing
from mailgw.document.build import Builder
from mailgw.mail.headers import read_fields
from mailgw.mail.peer import Tls
from mailgw.mail.spool import Spool
from mailgw.mail.transaction import Recipient
from mailgw.smtp.address import Address

BUILDER = Builder("mx1.gateway.test", EVERYBODY)


def octets(document: dict[str, Any]) -> bytes:
    """The message as a consumer gets it back."""
    if document.get("mime-encoding") == "base64":
        return base64.b64decode(document["mime"], validate=True)
    mime: str = document["mime"]
    return mime.encode()


def test_a_plain_mail_has_exactly_the_documented_properties() -> None:
    (built,) = BUILDER.build(message(MAIL))

    assert read(built) == {
        "message-id": "k3x9a1r1",
        "transaction-id": "k3x9a1",
        "received": "2024-05-01 08:15:42",
        "hostname": "mx1.gateway.test",
        "envelope": "alice@sender.test",
        "recipient": "bob@ours.test",
        "connection": {
            "local-ip": "192.0.2.10",
            "local-port": 25,
            "remote-ip": "198.51.100.7",
            "remote-port": 40112,
            "secure": False,
        },
        "decision": [],
        "dedupe": built.dedupe,
        "mime-size": len(MAIL),
        "mime-sha256": hashlib.sha256(MAIL).hexdigest(),
        "mime": MAIL.decode(),
    }
    assert (built.recipient, built.message_id, built.priority) == (BOB, "k3x9a1r1", None)
    assert b"\n" not in built.body


def test_the_connection_tells_what_applied_to_it() -> None:
    peer = replace(
        PEER,
        proxy_ip="192.0.2.1",
        tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        helo="client.example",
        user="alice",
    )

    (built,) = BUILDER.build(message(MAIL, peer=peer))

    assert read(built)["connection"] == {
        "local-ip": "192.0.2.10",
        "local-port": 25,
        "remote-ip": "198.51.100.7",
        "remote-port": 40112,
        "secure": True,
        "user": "alice",
        "helo": "client.example",
        "tls-version": "TLSv1.3",
        "tls-cipher": "TLS_AES_256_GCM_SHA384",
        "proxy-ip": "192.0.2.1",
    }


def test_the_null_sender_is_an_empty_envelope() -> None:
    (built,) = BUILDER.build(message(MAIL, reverse_path=None))

    assert read(built)["envelope"] == ""


def test_addresses_are_published_in_utf8() -> None:
    sender = Address("büro", "xn--bcher-kva.test")

    (built,) = BUILDER.build(message(MAIL, reverse_path=sender))

    assert read(built)["envelope"] == "büro@bücher.test"


@pytest.mark.parametrize("hours", [-11, 0, 5])
def test_the_time_is_in_utc(hours: int) -> None:
    received = datetime(2024, 5, 1, 12, 0, 0, tzinfo=timezone(timedelta(hours=hours)))

    (built,) = BUILDER.build(message(MAIL, received=received))

    assert read(built)["received"] == f"{datetime(2024, 5, 1, 12) - timedelta(hours=hours)}"


def test_each_recipient_has_a_document_that_names_nobody_else() -> None:
    bob, carol = BUILDER.build(message(MAIL, recipients=[BOB, CAROL]))

    first, second = read(bob), read(carol)
    assert (first["recipient"], second["recipient"]) == ("bob@ours.test", "carol@ours.test")
    assert (first["message-id"], second["message-id"]) == ("k3x9a1r1", "k3x9a1r2")
    assert b"carol" not in bob.body
    assert b"bob" not in carol.body
    own = {"recipient", "message-id", "dedupe"}
    assert {name for name in first if first[name] != second[name]} == own


@pytest.mark.parametrize(
    "mime",
    [
        b"",
        b"\r\n",
        b"\x00" * 1024,
        bytes(range(128)),
        "Subject: \U0001f600 \u2028 \ufeff é\r\n\r\n".encode(),
        b'"\\\x1b\x7f/<script>',
    ],
    ids=repr,
)
def test_valid_utf8_is_published_as_the_string_itself(mime: bytes) -> None:
    (built,) = BUILDER.build(message(mime))

    document = read(built)
    assert document["mime"] == mime.decode()
    assert "mime-encoding" not in document


@pytest.mark.parametrize("before", range(5))
@pytest.mark.parametrize("end", [b"", b"\xf0\x9f\x98", b"\xff"], ids=["whole", "cut off", "none"])
def test_a_large_message_is_the_same_octets_wherever_it_is_sliced(before: int, end: bytes) -> None:
    mime = b"x" * before + '\U0001f600\\é"'.encode() * 100_000 + end

    (built,) = BUILDER.build(message(mime))

    document = read(built)
    assert document.get("mime-encoding", "") == ("base64" if end else "")
    found = document["mime"]
    assert (base64.b64decode(found, validate=True) if end else found.encode()) == mime


@pytest.mark.parametrize(
    "mime",
    [
        bytes(range(256)),
        b"Subject: caf\xe9\r\n\r\n",
        b"\xc0\xaf overlong",
        b"\xed\xa0\x80 lone surrogate",
        "UTF-16".encode("utf-16"),
        b"cut off \xf0\x9f\x98",
    ],
    ids=repr,
)
def test_other_octets_are_published_in_base64(mime: bytes) -> None:
    (built,) = BUILDER.build(message(mime))

    document = read(built)
    assert document["mime-encoding"] == "base64"
    assert base64.b64decode(document["mime"], validate=True) == mime
    assert document["mime-size"] == len(mime)
    assert document["mime-sha256"] == hashlib.sha256(mime).hexdigest()


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_bytes_come_back_exactly(mime: bytes) -> None:
    (built,) = Builder("mx1.gateway.test", Trust("nobody")).build(message(mime))

    document = read(built)
    assert octets(document) == mime
    assert document["mime-size"] == len(mime)
    assert document["mime-sha256"] == hashlib.sha256(mime).hexdigest()


@given(st.text(), st.text(), st.text())
def test_no_text_of_a_stranger_stops_a_document(helo: str, user: str, envid: str) -> None:
    peer = replace(PEER, helo=helo, user=user)

    (built,) = BUILDER.build(message(MAIL, peer=peer, envid=envid))

    assert read(built)["connection"]["helo"] == helo


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    (built,) = BUILDER.build(message(MAIL, peer=replace(PEER, helo="a\udcffb")))

    assert read(built)["connection"]["helo"] == "a?b"


def test_a_message_in_a_file_is_published_like_one_in_memory(tmp_path: Path) -> None:
    spool = Spool(memory=1, directory=tmp_path)
    spool.write(MAIL)

    (built,) = BUILDER.build(replace(message(MAIL), content=spool))

    assert built == BUILDER.build(message(MAIL))[0]
    spool.close()


# --- what the client asked about reports ------------------------------------------


@pytest.mark.parametrize(
    ("header", "notify", "orcpt", "ret", "envid", "dsn"),
    [
        (b"", "", "", "", "", None),
        (b"", "NEVER", "", "", "", {"notify": "NEVER"}),
        (
            b"",
            "FAILURE,DELAY",
            "rfc822;bob+40ours.test",
            "hdrs",
            "a+2Bb",
            {
                "notify": "FAILURE,DELAY",
                "orcpt": "rfc822;bob+40ours.test",
                "ret": "hdrs",
                "envid": "a+2Bb",
            },
        ),
        (b"x-mq-dsn-ret: FULL\r\n", "", "", "", "", {"ret": "FULL"}),
        # The header is the more explicit of the two.
        (
            b"x-mq-dsn-notify: SUCCESS\r\n",
            "NEVER",
            "",
            "HDRS",
            "",
            {"notify": "SUCCESS", "ret": "HDRS"},
        ),
    ],
)
def test_dsn_joins_parameters_and_headers(
    header: bytes, notify: str, orcpt: str, ret: str, envid: str, dsn: dict[str, str] | None
) -> None:
    recipient = replace(BOB, notify=notify, orcpt=orcpt)

    (built,) = BUILDER.build(message(header + MAIL, recipients=[recipient], ret=ret, envid=envid))

    assert read(built).get("dsn") == dsn


@pytest.mark.parametrize(
    ("header", "ret", "dsn"),
    [
        (b"", "", {"notify": "FAILURE,DELAY", "ret": "HDRS"}),
        (b"x-mq-dsn-notify: NEVER\r\n", "FULL", {"notify": "NEVER", "ret": "FULL"}),
    ],
)
def test_our_own_wishes_fill_what_the_mail_leaves_open(
    header: bytes, ret: str, dsn: dict[str, str]
) -> None:
    builder = Builder("mx1.gateway.test", EVERYBODY, notify="FAILURE,DELAY", ret="HDRS")

    (built,) = builder.build(message(header + MAIL, ret=ret))

    assert read(built)["dsn"] == dsn


# --- what x-mq-* headers asked for --------------------------------------------------


def test_what_headers_asked_for_is_in_the_document_of_every_recipient() -> None:
    marked = (
        b"X-MQ-Tag: a\r\nx-mq-tag: b\r\nx-mq-priority: 7\r\nx-mq-custom-identifier: my-id\r\n"
        b"x-mq-envelope: bounce@sender.test\r\nx-mq-key: forged\r\n"
    )

    documents = BUILDER.build(message(marked + MAIL, recipients=[BOB, CAROL]))

    for built in documents:
        document = read(built)
        assert document["tags"] == ["a", "b"]
        assert document["priority"] == built.priority == 7
        assert document["custom-identifier"] == "my-id"
        assert document["envelope"] == "bounce@sender.test"
        assert document["mime"] == MAIL.decode()
        assert document["mime-sha256"] == hashlib.sha256(MAIL).hexdigest()
        assert "key" not in document
        assert built.rejected == ("x-mq-key",)


@given(
    st.lists(
        st.tuples(
            st.from_regex(rb"x-mq-[!-9;-~]{0,12}", fullmatch=True),
            st.binary(max_size=30).map(lambda value: value.replace(b"\n", b"")),
        )
    )
)
def test_no_header_makes_a_document_that_the_schema_does_not_know(
    headers: list[tuple[bytes, bytes]],
) -> None:
    marked = b"".join(b"%b: %b\r\n" % header for header in headers)

    (built,) = BUILDER.build(message(marked + MAIL))

    document = read(built)
    assert octets(document) == MAIL
    assert document["recipient"] == "bob@ours.test"


def test_one_name_is_never_in_a_document_twice() -> None:
    marked = b"x-mq-pool: a\r\nX-MQ-POOL: b\r\nx-mq-a: 1\r\nX-mq-A: 2\r\nx-mq-hostname: x\r\n"

    (built,) = BUILDER.build(message(marked + MAIL))

    for name in (b'"pool":', b'"a":', b'"hostname":'):
        assert built.body.count(name) == 1


# --- the Received field -------------------------------------------------------------


def test_a_received_field_goes_on_top_where_it_is_asked_for() -> None:
    builder = Builder("mx1.gateway.test", EVERYBODY, received=True)

    (built,) = builder.build(message(b"x-mq-tag: t\r\n" + MAIL))

    document = read(built)
    mime = octets(document)
    first = next(read_fields(mime))
    assert first.name == "received"
    assert b"by mx1.gateway.test" in first.value
    assert mime[first.end :] == MAIL
    assert document["mime-size"] == len(mime)
    assert document["mime-sha256"] == hashlib.sha256(mime).hexdigest()


def test_a_message_that_begins_with_a_blank_cannot_continue_our_field() -> None:
    builder = Builder("mx1.gateway.test", EVERYBODY, received=True)
    content = b" with evil; Thu, 01 Jan 1970 00:00:00 +0000\r\nSubject: hi\r\n\r\n"

    (built,) = builder.build(message(content))

    assert octets(read(built)) == content


# --- the same mail again -------------------------------------------------------------


def dedupe(**changed: Any) -> str:
    (built,) = BUILDER.build(message(changed.pop("content", MAIL), **changed))
    assert read(built)["dedupe"] == built.dedupe
    return built.dedupe


def test_the_same_envelope_and_bytes_have_the_same_dedupe() -> None:
    later = datetime(2024, 5, 1, 9, 0, 0)
    elsewhere = replace(PEER, remote_ip="198.51.100.8", helo="other.example")

    assert dedupe() == dedupe(received=later, peer=elsewhere)


@pytest.mark.parametrize(
    "changed",
    [
        {"content": MAIL + b" "},
        {"content": b"x-mq-tag: t\r\n" + MAIL},
        {"recipients": [CAROL]},
        {"reverse_path": None},
        {"reverse_path": Address("alic", "sender.test")},
    ],
)
def test_another_envelope_or_other_bytes_have_another_dedupe(changed: dict[str, Any]) -> None:
    assert dedupe(**changed) != dedupe()


def test_a_dedupe_does_not_depend_on_who_else_got_the_mail() -> None:
    alone = BUILDER.build(message(MAIL, recipients=[CAROL]))[0]
    second = BUILDER.build(message(MAIL, recipients=[BOB, CAROL]))[1]

    assert alone.dedupe == second.dedupe


# --- mails from elsewhere ---------------------------------------------------------------

_ROOT = Path(__file__).resolve().parents[2]
_EMAILS = (
    Path(os.environ.get("MAILGW_TEST_VECTORS", _ROOT.parent / "shared" / "vectors")) / "emails"
)
_FILES = sorted(path for path in _EMAILS.rglob("*") if path.is_file())


@pytest.mark.skipif(
    not _FILES,
    reason="LEFT OUT: no mails to read; MAILGW_TEST_VECTORS names the folder that holds emails/",
)
@pytest.mark.parametrize("path", _FILES, ids=lambda path: str(path.relative_to(_EMAILS)))
def test_a_mail_from_elsewhere_comes_back_exactly(path: Path) -> None:
    content = path.read_bytes()

    (built,) = BUILDER.build(message(content, reverse_path=ALICE))

    document = read(built)
    assert b"x-mq-" not in content.lower()
    assert octets(document) == content
    assert document["mime-sha256"] == hashlib.sha256(content).hexdigest()


def test_the_recipients_of_a_mail_share_its_bytes() -> None:
    # hostile-input G06: many recipients of a large mail must not cost its size each.
    everybody = tuple(Recipient(Address(f"user{n}", "ours.test")) for n in range(100))
    built = BUILDER.build(replace(message(MAIL + b"x" * 1_000_000), recipients=everybody))

    own = sum(len(part) for each in built for part in each.parts if len(part) < 10_000)
    assert len({id(max(each.parts, key=len)) for each in built}) == 1
    assert own < 100 * 2_000


@pytest.mark.parametrize(
    ("local_ip", "field", "ips"),
    [
        ("192.0.2.10", b"", ["192.0.2.10"]),
        ("192.0.2.11", b"", ["203.0.113.1", "203.0.113.2"]),
        ("192.0.2.10", b"x-mq-ip: 198.51.100.1\r\n", ["198.51.100.1"]),
        ("192.0.2.11", b"x-mq-ip: 198.51.100.1\r\n", ["198.51.100.1"]),
        ("192.0.2.10", b"x-mq-ip: nonsense\r\n", ["192.0.2.10"]),
    ],
)
def test_addresses_to_send_from_are_those_asked_for_or_the_configured_ones(
    local_ip: str, field: bytes, ips: list[str]
) -> None:
    outgoing = Outgoing(
        ("203.0.113.1", "203.0.113.2"), networks("192.0.2.0/24"), networks("192.0.2.11")
    )
    builder = Builder("mx.ours.test", EVERYBODY, outgoing=outgoing)
    mail = message(field + MAIL, peer=replace(PEER, local_ip=local_ip), recipients=(BOB, CAROL))

    documents = [read(built) for built in builder.build(mail)]

    assert [document["ips"] for document in documents] == [ips, ips]


def test_a_stranger_cannot_choose_where_to_send_from() -> None:
    builder = Builder("mx.ours.test", Trust("authenticated"), outgoing=Outgoing(("203.0.113.1",)))
    (built,) = builder.build(message(b"x-mq-ip: 198.51.100.1\r\n" + MAIL))
    assert read(built)["ips"] == ["203.0.113.1"]
