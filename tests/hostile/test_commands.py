"""Envelope and wire, B19, B20, B22-B25 and B37: parameters, order, and too much of anything."""

from __future__ import annotations

import pytest

from client import Client
from gateway import Gateway
from hostile.world import ENVELOPE, MESSAGE, all_replies, codes, only, peak, taken

KEYS: dict[str, object] = {
    "dsn-advertise": "true",
    "smtp-recipients": "local",
    "smtp-maxsize": 1_000_000,
}


def answers(server: Gateway, commands: dict[str, str], *before: str) -> dict[str, str]:
    """What each command is answered in a session of its own, which goes on afterwards."""
    found = {}
    for command in commands:
        with Client(server.port) as client:
            client.hello()
            codes(client, *before)
            found[command] = client.ask(command)[: len(commands[command])]
            assert client.ask("RSET").startswith("250 ")
            assert client.ask("NOOP").startswith("250 ")
    return found


def test_B19_parameters_that_are_broken_twice_or_unknown(mx: Gateway) -> None:
    mail = {
        f"MAIL FROM:<joe@there.test> {word}": code
        for word, code in {
            "SIZE": "501",
            "SIZE=": "501",
            "SIZE=1 SIZE=1": "501",
            "BODY": "501",
            "BODY=BINARYMIME": "501",
            "SMTPUTF8=1": "501",
            "=": "501",
            "=x": "501",
            "X==y": "501",
            "-X=1": "501",
            "SIZE=1=2": "501",
            "X=ü": "501",
            "__proto__": "501",
            "__proto__=x": "501",
            "constructor=prototype": "555",
            "toString": "555",
            "XFOO=1": "555",
            "NOTIFY=NEVER": "555",
            "AUTH=<>": "555",
            "X" * 1500: "555",
        }.items()
    }
    assert answers(mx, mail) == mail
    rcpt = {
        f"RCPT TO:<bob@ours.test> {word}": code
        for word, code in {"NOTIFY": "501", "NOTIFY=": "501", "SIZE=1": "555", "=": "501"}.items()
    }
    assert answers(mx, rcpt, "MAIL FROM:<>") == rcpt


def test_B20_sizes_that_are_too_big_or_none(mx: Gateway) -> None:
    commands = {
        f"MAIL FROM:<joe@there.test> SIZE={size}": code
        for size, code in {
            "1000001": "552 5.3.4",
            str(2**64 + 1): "552 5.3.4",
            "9" * 21: "501 5.5.4",
            "-1": "501 5.5.4",
            "+1": "501 5.5.4",
            "abc": "501 5.5.4",
            "1e9": "501 5.5.4",
            "0x10": "501 5.5.4",
            "1,000": "501 5.5.4",
            "١٢": "501 5.5.4",
            "0": "250",
            "1000000": "250",
            "00000000000000000001": "250",
        }.items()
    }
    assert answers(mx, commands) == commands


def test_B22_commands_out_of_order(mx: Gateway) -> None:
    with Client(mx.port) as client:
        assert client.reply().startswith("220 ")
        early = ["MAIL FROM:<>", "RCPT TO:<bob@ours.test>", "DATA", "BDAT 0 LAST"]
        assert codes(client, *early) == ["503"] * 4
        assert codes(client, "EHLO client.test", "RCPT TO:<bob@ours.test>", "DATA") == (
            ["250", "503", "503"]
        )
    with Client(mx.port) as client:
        client.hello()
        said = codes(client, "MAIL FROM:<joe@there.test>", "MAIL FROM:<evil@evil.test>", "DATA")
        assert said == ["250", "503", "503"]
        # None was accepted, so there is nobody to send it to.
        assert codes(client, "RCPT TO:<x@elsewhere.test>", "DATA", "BDAT 0 LAST") == (
            ["550", "503", "503"]
        )
        assert codes(client, "RCPT TO:<bob@ours.test>", "MAIL FROM:<>", "DATA") == (
            ["250", "503", "354"]
        )
        client.send(MESSAGE + b".\r\n")
        assert client.reply().startswith("250-2.0.0 ")
        assert codes(client, "RCPT TO:<bob@ours.test>", "DATA") == ["503", "503"]
    assert only(mx)["envelope"] == "joe@there.test"


def test_B22_a_pipeline_whose_recipients_are_refused_carries_no_mail(mx: Gateway) -> None:
    # The text of the mail is what a hurried client sends without having looked.
    with Client(mx.port) as client:
        client.hello()
        client.send(
            b"MAIL FROM:<joe@there.test>\r\nRCPT TO:<x@elsewhere.test>\r\nDATA\r\n"
            b"Subject: x\r\n\r\n" + ENVELOPE.replace(b"\r\n", b"\r\n.\r\n") + b".\r\nQUIT\r\n"
        )
        said = [each[:3] for each in all_replies(client)]
    assert said[:3] == ["250", "550", "503"]
    assert taken(mx) == []


def test_B23_recipients_beyond_the_limit_are_for_another_mail(mx: Gateway) -> None:
    with Client(mx.port) as client, peak(mx) as grown:
        client.hello()
        client.ask("MAIL FROM:<joe@there.test>")
        client.send(b"".join(b"RCPT TO:<user%d@ours.test>\r\n" % n for n in range(1500)))
        said = [client.reply()[:9] for _ in range(1500)]
        assert said == ["250 2.1.5"] * 1000 + ["452 4.5.3"] * 500
        assert client.ask("DATA").startswith("354 ")
        client.send(MESSAGE + b".\r\n")
        assert client.reply().count(" for user") == 1000
        assert grown() < 20_000_000
    assert len({each["recipient"] for each in taken(mx)}) == 1000


@pytest.mark.parametrize("address", ["user{}@elsewhere.test", "user{}@nowhere.ours.test", "user{}"])
def test_B23_a_harvester_is_closed(mx: Gateway, address: str) -> None:
    with Client(mx.port) as client:
        client.hello()
        client.ask("MAIL FROM:<joe@there.test>")
        client.send(b"".join(f"RCPT TO:<{address.format(n)}>\r\n".encode() for n in range(150)))
        said = [each[:3] for each in all_replies(client)]
    assert said[-1] == "421"
    assert set(said[:-1]) <= {"550", "501"}
    assert len(said) <= 102


@pytest.mark.parametrize(
    ("line", "most"),
    [
        (b"XYZZY\r\n", 11),
        (b"\r\n", 11),
        (b"\xff\xfe\r\n", 11),
        (b"NOOP\n", 11),
        (b"MAIL FROM:<\r\n", 11),
        (b"EXPN list\r\n", 11),
        (b"NOOP\r\n", 101),
        (b"RSET\r\n", 101),
        (b"VRFY joe\r\n", 101),
        (b"HELP\r\n", 101),
        (b"EHLO client.test\r\n", 101),
    ],
)
def test_B24_who_asks_for_ever_is_closed(mx: Gateway, line: bytes, most: int) -> None:
    with Client(mx.port) as client:
        client.hello()
        client.send(line * 1000)
        said = [each[:3] for each in all_replies(client)]
    assert said[-1] == "421"
    assert len(said) <= most


FOREIGN = {
    "get": b"GET / HTTP/1.1\r\nHost: mx.ours.test\r\n\r\n",
    "post": b"POST /x HTTP/1.1\r\nHost: mx.ours.test:25\r\nContent-Length: 500\r\n\r\n",
    "put": b"PUT / HTTP/1.0\r\n\r\n",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "header first": b"Host: mx.ours.test\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.9\r\n",
    "rtsp": b"DESCRIBE rtsp://mx.ours.test/ RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    "sip": b"INVITE sip:bob@ours.test SIP/2.0\r\n\r\n",
    "connect": b"CONNECT mx.ours.test:25 HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_B25_another_protocol_runs_no_line_of_its_body(mx: Gateway, name: str) -> None:
    body = b"EHLO evil.test\r\n" + ENVELOPE + b"DATA\r\nSubject: x\r\n\r\nevil\r\n.\r\nQUIT\r\n"
    with Client(mx.port) as client:
        client.send(FOREIGN[name] + body)
        said = [each[:3] for each in all_replies(client)]
    assert said == ["220", "421"]
    assert taken(mx) == []


def test_B37_dsn_parameters_cannot_carry_a_line_end(mx: Gateway) -> None:
    mail = {
        f"MAIL FROM:<joe@there.test> {word}": "501"
        for word in (
            "ENVID=a+0D",
            "ENVID=a+0A+0Db",
            "ENVID=a+7F",
            "ENVID=a+0d",
            "ENVID=a+4",
            "ENVID=" + "a" * 101,
            "ENVID=ü",
            "RET=X",
            "RET=",
            "RET=FULL RET=HDRS",
        )
    }
    assert answers(mx, mail) == mail
    rcpt = {
        f"RCPT TO:<bob@ours.test> {word}": "501"
        for word in (
            "ORCPT=rfc822;a+0D+0Ab@c",
            "ORCPT=rfc822;a+00b@c",
            "ORCPT=a@b",
            "ORCPT=;a@b",
            "ORCPT=rfc822;",
            "ORCPT=rfc822;" + "a" * 500,
            "ORCPT=utf-8;a\u2028b@c",
            "NOTIFY=NEVER,FAILURE",
            "NOTIFY=FAILURE,,DELAY",
            "NOTIFY=SOMETIMES",
            "NOTIFY=",
        )
    }
    assert answers(mx, rcpt, "MAIL FROM:<>") == rcpt


def test_B37_what_is_kept_of_dsn_is_as_it_was_written(mx: Gateway) -> None:
    with Client(mx.port) as client:
        client.hello()
        said = codes(
            client,
            "MAIL FROM:<joe@there.test> RET=hdrs ENVID=QQ+2B3+3D",
            "RCPT TO:<bob@ours.test> NOTIFY=success,DELAY ORCPT=rfc822;Bob+2Bx@ours.test",
            "DATA",
        )
        assert said == ["250", "250", "354"]
        client.send(MESSAGE + b".\r\n")
        assert client.reply().startswith("250-2.0.0 ")
    assert only(mx)["dsn"] == {
        "notify": "SUCCESS,DELAY",
        "ret": "HDRS",
        "orcpt": "rfc822;Bob+2Bx@ours.test",
        "envid": "QQ+2B3+3D",
    }
