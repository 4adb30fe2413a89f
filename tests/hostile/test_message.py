"""Message and JSON, B38-B44 and B55: what is inside, and that nobody is held up by it.

B45-B54 stand in test_signatures and test_checks, B56 in test_spamd.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from client import Client
from gateway import Gateway, content
from hostile.world import MESSAGE, only, peak, taken, unnoticed
from parts import needs
from rabbitmq import MAX_MESSAGE, RabbitMQ, wait_until

KEYS: dict[str, object] = {"smtp-bare-newlines": "carry", "smtp-received": "false"}


def comes_out(server: Gateway, *messages: bytes) -> None:
    """Each is taken within a second, holds nobody else up, and is published as it came."""
    for message in messages:
        with peak(server) as grown:
            # The better of two: the machine has other work.
            assert min(_taken_in(server, message) for _ in range(2)) < 1.0
            highest = grown()
        documents = taken(server)
        assert [content(each) for each in documents] == [message] * 2
        # A control character is six in JSON.
        assert highest < 10 * len(json.dumps(documents[0])) + 8_000_000


def _taken_in(server: Gateway, message: bytes) -> float:
    return unnoticed(server, lambda client: client.chunks(message))


END = b"\r\n\r\ntext\r\n"


def test_B38_address_headers_without_end(mx: Gateway) -> None:
    comes_out(
        mx,
        b"To: " + b"," * 100_000 + END,
        b"To: " + b", ".join(b"user%d@there.test" % n for n in range(20_000)) + END,
        b"To: " + b"(" * 100_000 + END,
        b"To: " + b"(" * 50_000 + b")" * 50_000 + END,
        b"To: " + b'"' * 100_001 + END,
        b"To: " + b"<@a,@b:" * 20_000 + END,
        b"To: " + b"group:" * 30_000 + b";" + END,
        b"To: " + b"\\" * 100_001 + END,
        b"To: " + b" \r\n\t" * 50_000 + END,
    )


def test_B39_encoded_words_without_end(mx: Gateway) -> None:
    comes_out(
        mx,
        b"Subject: " + b"=?utf-8?b?w6k=?= " * 20_000 + END,
        b"Subject: " + b"=?utf-8?q?=C3=A9?=\r\n " * 20_000 + END,
        b"Subject: " + b"=?" * 100_000 + END,
        b"Subject: =?utf-8?b?" + b"A" * 500_000 + b"?=" + END,
        b"Content-Disposition: attachment"
        + b"".join(b"; filename*%d*=utf-8''%%C3%%A9" % n for n in range(20_000))
        + END,
    )


def test_B40_parts_without_end(mx: Gateway) -> None:
    def nested(depth: int, kind: bytes) -> bytes:
        return b"".join(
            b"Content-Type: %b; boundary=b%d\r\n\r\n--b%d\r\n" % (kind, n, n) for n in range(depth)
        )

    comes_out(
        mx,
        nested(2_000, b"multipart/mixed"),
        nested(2_000, b"multipart/report"),
        b"Content-Type: message/rfc822\r\n\r\n" * 2_000,
        b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" * 2_000,
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 50_000,
        # A part that says it has the boundary of what it is a part of.
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" * 2_000 + b"--b--\r\n",
        b'Content-Type: multipart/mixed; boundary=""\r\n\r\n' + b"--\r\n" * 50_000,
        b"Content-Type: multipart/mixed; boundary=" + b"b" * 100_000 + END,
    )


def test_B41_header_values_that_broke_other_parsers(mx: Gateway) -> None:
    comes_out(
        mx,
        b"Message-ID: <>>\r\nIn-Reply-To: <<<\r\nReferences: <" + END,
        b"From: =?utf-8?q?a=0D=0ABcc=3A_evil=40evil.test?= <joe@there.test>" + END,
        b"From: =?utf-8?b?DQpCY2M6IGV2aWxAZXZpbC50ZXN0?= <joe@there.test>" + END,
        b"Subject: =?no-such-charset?b?AAAA?= =?utf-7?q?+ACI-?= =?utf-8?x?y?=" + END,
        b"Content-Type: text/plain; charset=\0; charset*0*=x''%%%" + END,
        b"To: friends (comment): joe@there.test (x), ; , undisclosed recipients:;" + END,
        b"From: joe@there.test)bob@ours.test\r\nTo: a@b@c, <a@b>c@d" + END,
        b"Date: Xyz, 99 Foo 99999 99:99:99 +9999\r\nMIME-Version: 9.9" + END,
        b"Content-Transfer-Encoding: base64\r\n\r\n\xff=A===\r\n",
    )


def test_B42_messages_whose_header_is_none(mx: Gateway) -> None:
    comes_out(
        mx,
        b"only a body, and no header\r\n",
        b"first line without a colon\r\nSubject: x" + END,
        b"\r\nSubject: this is text\r\n",
        b"From joe@there.test Mon Jan  1 00:00:00 2026\r\nSubject: x" + END,
        b" begins with a fold\r\nSubject : blank before the colon" + END,
        b"Subject\t: x\r\n: no name\r\n:\r\n::\r\nX Y: z" + END,
        b"X: y\r\n" * 20_000 + END,
        b"X-Large: " + b"y" * 100_000 + END,
        b"X" * 100_000 + b": name" + END,
        b"X-Folded: a\r\n" + b" b\r\n" * 30_000 + END,
        b"",
        b"\r\n",
        b"no line end",
    )


# What is no UTF-8 comes as base64 with `mime-encoding`: the octets can be had again.
ENCODINGS: dict[str, bytes] = {
    "raw latin-1": "Subject: café\r\n\r\n£\r\n".encode("latin-1"),
    "utf-16": "Subject: x\r\n\r\ntext\r\n".encode("utf-16"),
    "utf-16 without mark": "Subject: x\r\n\r\ntext\r\n".encode("utf-16-be"),
    "lone surrogate": b"Subject: \xed\xa0\x80\xed\xb0\x80\r\n\r\nx\r\n",
    "overlong": b"Subject: \xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf\r\n\r\nx\r\n",
    "beyond unicode": b"Subject: \xf4\x90\x80\x80\xf8\x88\x80\x80\x80\r\n\r\nx\r\n",
    "cut in a character": "Subject: €".encode()[:-1],
    "mark in front": b"\xef\xbb\xbfSubject: x\r\n\r\nx\r\n",
    "what JSON escapes": b'Subject: "\\/\b\f\0\x1b\x7f\xc2\x80\xe2\x80\xa8</script>\r\n\r\nx\r\n',
    "no character": b"Subject: \xef\xbf\xbe\xef\xbf\xbf\r\n\r\nx\r\n",
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_B43_octets_that_are_no_text_come_out_exactly(mx: Gateway, name: str) -> None:
    message = ENCODINGS[name]
    with Client(mx.port) as client:
        client.hello()
        assert client.chunks(message[:9], message[9:]).startswith("250-2.0.0 ")
    document = only(mx)
    try:
        text = message.decode()
    except UnicodeDecodeError:
        assert document["mime-encoding"] == "base64"
    else:
        assert document["mime"] == text
        assert "mime-encoding" not in document
    # And what every parser of JSON must be able to say again.
    assert json.loads(json.dumps(document).encode()) == document
    assert document["mime-size"] == len(message)


def test_B44_every_octet_and_a_megabyte_of_nul(mx: Gateway) -> None:
    comes_out(
        mx,
        b"Subject: all\r\n\r\n" + bytes(range(256)) * 2_000,
        bytes(range(256)),
        # Six characters of JSON for each octet of the message.
        b"Subject: nul\r\n\r\n" + bytes(1 << 20),
    )


@needs("rabbitmq")
def test_B44_what_is_too_large_as_json_is_refused_and_breaks_nobody_else(
    gateway: Callable[..., Gateway], broker: RabbitMQ
) -> None:
    server = gateway(
        {
            "rabbitmq-address": broker.url,
            "rabbitmq-inbox": "hostile-b44",
            "smtp-bare-newlines": "carry",
        }
    )
    server.saw("amqp.connected")
    # Below the broker's limit as it comes; above it as JSON, for its escapes or its base64.
    messages = [
        b"Subject: x\r\n\r\n" + bytes(MAX_MESSAGE // 5),
        b"Subject: x\r\n\r\n" + b"\xff" * (MAX_MESSAGE * 4 // 5) + b"\r\n",
        b"Subject: x\r\n\r\n" + b"x" * MAX_MESSAGE + b"\r\n",
    ]
    # This broker's limit is its administrator's own: the first one teaches it, at the cost
    # of the channel; from then on it is asked before anything is sent.
    with Client(server.port) as client:
        client.hello()
        assert client.chunks(messages[0]).startswith("552 5.3.4 ")
        wait_until(lambda: client.mail(MESSAGE).startswith("250"), "it publishes again")
    stop = threading.Event()
    others: list[str] = []

    def go_on_sending() -> None:
        with Client(server.port) as client:
            client.hello()
            while not stop.is_set():
                others.append(client.mail(MESSAGE)[:10])

    sending = threading.Thread(target=go_on_sending)
    sending.start()
    try:
        for message in messages:
            with Client(server.port) as client:
                client.hello()
                assert client.chunks(message).startswith("552 5.3.4 ")
                assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    finally:
        stop.set()
        sending.join()
    assert set(others) == {"250-2.0.0 "}
    assert len(server.consume("hostile-b44")) == len(others) + 4
    assert server.log.count("amqp.channel-lost") == 1


HOP = b"Received: from a.test by b.test; Fri, 20 Nov 2026 12:00:00 +0000\r\n"


@pytest.mark.parametrize(
    ("header", "loops"),
    [
        (HOP * 120, True),
        (HOP * 101, True),
        (HOP.upper() * 101, True),
        (b"received:\r\n" * 101, True),
        (b"Received:\r\n a\r\n\tb\r\n" * 101, True),
        (HOP * 50 + b"X: y\r\n" + HOP * 51, True),
        (HOP * 100, False),
        (b"X-Received: x\r\n" * 500, False),
        (b"X: y\r\n" + b" Received: in a fold\r\n" * 500, False),
        # Our own name among them is no loop yet: a mail may come back, forwarded.
        (b"Received: from x by mx.ours.test with ESMTP id 1; now\r\n" * 3, False),
    ],
)
def test_B55_more_hops_than_any_path_has_are_a_loop(
    mx: Gateway, header: bytes, loops: bool
) -> None:
    message = header + MESSAGE + HOP * 200
    with Client(mx.port) as client:
        client.hello()
        assert client.mail(message).startswith("554 5.4.6 " if loops else "250-2.0.0 ")
        assert client.chunks(message).startswith("554 5.4.6 " if loops else "250-2.0.0 ")
    assert len(taken(mx)) == (0 if loops else 2)


def test_B55_a_blank_before_the_colon_hides_no_hop(mx: Gateway) -> None:
    # RFC 5322 4.5 lets it be read so, and the next server may.
    with Client(mx.port) as client:
        client.hello()
        for name in (b"Received : x\r\n", b"Received\t: x\r\n"):
            assert client.mail(name * 120 + MESSAGE).startswith("554 5.4.6 ")
    assert taken(mx) == []
