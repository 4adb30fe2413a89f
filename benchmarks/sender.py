"""Our own source of mail, for what smtp-source cannot send: mail over STARTTLS.

    sender.py PORT SIZE SESSIONS

For each line with a number on standard input so many messages of SIZE octets are sent, one a
connection, SESSIONS at a time, and "done" is said; any reply but the expected one ends the
program. Laws: the bytes to send are made once, and every command waits for its reply, as
smtp-source does it; TLS is 1.3, nothing is resumed and no certificate is verified.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
from collections.abc import Callable, Generator

# What a session waits for, and nothing comes back.
Waits = Generator[int, None, None]

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_LINE = b"X" * 68 + b"\r\n"


class Unexpected(Exception):
    """The server said something else, or nothing any more."""


def message(size: int) -> bytes:
    """A small header, a body of `size` octets as smtp-source makes it, and the final dot."""
    header = b"From: <sender@example.com>\r\nTo: <recipient@example.org>\r\n"
    header += b"Date: Fri, 20 Nov 2026 12:00:00 +0000\r\nSubject: benchmark\r\n\r\n"
    lines = _LINE * (size // len(_LINE) + 1)
    return header + lines[: size - 2] + b"\r\n.\r\n"


def conversation(connection: socket.socket, tls: ssl.SSLContext, text: bytes) -> Waits:
    """One connection and one message, from the banner to the end."""
    yield from _reply(connection, b"220")
    yield from _say(connection, b"EHLO client.example\r\n", b"250")
    yield from _say(connection, b"STARTTLS\r\n", b"220")
    connection = tls.wrap_socket(connection, do_handshake_on_connect=False)
    yield from _handshake(connection)
    yield from _say(connection, b"EHLO client.example\r\n", b"250")
    yield from _say(connection, b"MAIL FROM:<sender@example.com>\r\n", b"250")
    yield from _say(connection, b"RCPT TO:<recipient@example.org>\r\n", b"250")
    yield from _say(connection, b"DATA\r\n", b"354")
    yield from _say(connection, text, b"250")
    yield from _say(connection, b"QUIT\r\n", b"221")
    connection.close()


def _handshake(connection: ssl.SSLSocket) -> Waits:
    while True:
        try:
            return connection.do_handshake()
        except ssl.SSLWantReadError:
            yield _IN
        except ssl.SSLWantWriteError:
            yield _OUT


def _say(connection: socket.socket, octets: bytes, expected: bytes) -> Waits:
    rest = memoryview(octets)
    while rest:
        try:
            rest = rest[connection.send(rest) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            yield _OUT
    yield from _reply(connection, expected)


def _reply(connection: socket.socket, expected: bytes) -> Waits:
    received = b""
    # RFC 5321 4.2.1: the last line of a reply has a blank after its code.
    while not (received.endswith(b"\r\n") and received.splitlines()[-1][3:4] == b" "):
        if not (isinstance(connection, ssl.SSLSocket) and connection.pending()):
            yield _IN
        try:
            octets = connection.recv(65_536)
        except (BlockingIOError, ssl.SSLWantReadError):  # a session ticket, for instance
            continue
        if not octets:
            raise Unexpected(f"{expected.decode()} expected, and the connection ended")
        received += octets
    if not received.splitlines()[-1].startswith(expected):
        raise Unexpected(f"{expected.decode()} expected, and there came {received!r}")


def send_all(open_one: Callable[[], tuple[int, Waits]], count: int, sessions: int) -> None:
    """Hold `count` conversations, never more than `sessions` at the same time."""
    poll = select.epoll()
    held: dict[int, Waits] = {}
    waits: dict[int, int] = {}
    begun = 0
    while begun < count or held:
        while begun < count and len(held) < sessions:
            descriptor, talk = open_one()
            begun += 1
            held[descriptor], waits[descriptor] = talk, next(talk)
            poll.register(descriptor, waits[descriptor])
        for descriptor, _ in poll.poll():
            wait = next(held[descriptor], None)
            if wait is None:
                # Closed, so epoll has forgotten it.
                del held[descriptor], waits[descriptor]
            elif wait != waits[descriptor]:
                waits[descriptor] = wait
                poll.modify(descriptor, wait)
    poll.close()


def main(port: int, size: int, sessions: int) -> None:
    """Obey the lines of standard input until it ends."""
    text, tls = message(size), client_context()

    def open_one() -> tuple[int, Waits]:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        return connection.fileno(), conversation(connection, tls, text)

    for line in sys.stdin:
        send_all(open_one, int(line), sessions)
        print("done", flush=True)


def client_context() -> ssl.SSLContext:
    """TLS 1.3 with whoever answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
