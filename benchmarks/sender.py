"""Our own source of mail, for what smtp-source cannot do: STARTTLS, and looking at the clock.

    sender.py PORT SIZE SESSIONS (starttls | clear)

For each line with a number on standard input so many messages of SIZE octets are sent,
SESSIONS at a time, and "done P50 P99" is said: the milliseconds from the final dot to 250. In
clear a connection is used again, with STARTTLS it carries one message. Any reply but the
expected one ends the program. Laws: the bytes to send are made once, and every command waits
for its reply, as smtp-source does it; TLS is 1.3, nothing is resumed, no certificate verified.

A second number on the line is a rate: then each message has its time, whatever became of those
before, and one that begins late, because no session was free or for any other reason, waits
from when it should have begun. So a server that stands still is seen by all who would have come.
"""

from __future__ import annotations

import math
import select
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence

# What a session waits for, and nothing comes back.
Waits = Generator[int, None, None]

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
# Of the server nothing: the time for the next message has not come.
_NOTHING = 0
_LINE = b"X" * 68 + b"\r\n"


class Unexpected(Exception):
    """The server said something else, or nothing any more."""


def message(size: int) -> bytes:
    """A small header, a body of `size` octets as smtp-source makes it, and the final dot."""
    header = b"From: <sender@example.com>\r\nTo: <recipient@example.org>\r\n"
    header += b"Date: Fri, 20 Nov 2026 12:00:00 +0000\r\nSubject: benchmark\r\n\r\n"
    lines = _LINE * (size // len(_LINE) + 1)
    return header + lines[: size - 2] + b"\r\n.\r\n"


def percentiles(waited: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th of some seconds, in milliseconds."""
    ordered = sorted(waited)
    last = len(ordered) - 1
    return ordered[last // 2] * 1e3, ordered[round(last * 0.99)] * 1e3


class Turn:
    """What is still to be sent, when, and how long the 250s took so far, in seconds.

    With a rate it begins when all sessions, `crowd`, have come; the messages have numbers then.
    """

    def __init__(self, count: int, crowd: int, rate: float | None = None) -> None:
        self.left = count
        self.waited: list[float] = []
        self._crowd = min(count, crowd)
        self._pause = 1 / rate if rate else None
        self._begun: float | None = None
        self._number = 0
        # Who waits for the time of which message.
        self._asleep: deque[tuple[int, int]] = deque()

    def take(self) -> bool:
        """Whether there is one more to send; it is the caller's then."""
        self.left -= 1
        return self.left >= 0

    def sleep(self, descriptor: int) -> int | None:
        """The number of its message, None where there is no rate; `awake` names it in time."""
        if self._pause is None:
            return None
        self._asleep.append((self._number, descriptor))
        self._number += 1
        if self._number == self._crowd:
            self._begun = time.perf_counter()
        return self._number - 1

    def late(self, number: int) -> float:
        """By how many seconds the time of a message has passed."""
        if self._begun is None or self._pause is None:
            return -math.inf
        return time.perf_counter() - self._begun - number * self._pause

    def awake(self) -> list[int]:
        """The connections whose time has come."""
        found = []
        while self._asleep and self.late(self._asleep[0][0]) >= 0:
            found.append(self._asleep.popleft()[1])
        return found

    def rest(self) -> float | None:
        """Seconds until the time of the next one, None where nobody waits for that."""
        if self._begun is None or not self._asleep:
            return None
        return max(0.0, -self.late(self._asleep[0][0]))


def conversation(
    connection: socket.socket, tls: ssl.SSLContext | None, text: bytes, turn: Turn
) -> Waits:
    """One connection, from the banner to the end; its first message has been taken."""
    yield from _reply(connection, b"220")
    yield from _say(connection, b"EHLO client.example\r\n", b"250")
    if tls is not None:
        yield from _say(connection, b"STARTTLS\r\n", b"220")
        connection = tls.wrap_socket(connection, do_handshake_on_connect=False)
        yield from _handshake(connection)
        yield from _say(connection, b"EHLO client.example\r\n", b"250")
    yield from _message(connection, text, turn)
    while tls is None and turn.take():
        yield from _message(connection, text, turn)
    yield from _say(connection, b"QUIT\r\n", b"221")
    connection.close()


def _message(connection: socket.socket, text: bytes, turn: Turn) -> Waits:
    late = 0.0
    number = turn.sleep(connection.fileno())
    if number is not None:
        yield _NOTHING
        late = turn.late(number)
    yield from _say(connection, b"MAIL FROM:<sender@example.com>\r\n", b"250")
    yield from _say(connection, b"RCPT TO:<recipient@example.org>\r\n", b"250")
    yield from _say(connection, b"DATA\r\n", b"354")
    yield from _send(connection, text)
    ended = time.perf_counter()
    yield from _reply(connection, b"250")
    turn.waited.append(time.perf_counter() - ended + late)


def _handshake(connection: ssl.SSLSocket) -> Waits:
    while True:
        try:
            return connection.do_handshake()
        except ssl.SSLWantReadError:
            yield _IN
        except ssl.SSLWantWriteError:
            yield _OUT


def _say(connection: socket.socket, octets: bytes, expected: bytes) -> Waits:
    yield from _send(connection, octets)
    yield from _reply(connection, expected)


def _send(connection: socket.socket, octets: bytes) -> Waits:
    rest = memoryview(octets)
    while rest:
        try:
            rest = rest[connection.send(rest) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            yield _OUT


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


def send_all(open_one: Callable[[Turn], tuple[int, Waits]], turn: Turn, sessions: int) -> None:
    """Hold conversations until all is sent, never more than `sessions` at the same time."""
    poll = select.epoll()
    held: dict[int, Waits] = {}
    waits: dict[int, int] = {}
    while turn.left > 0 or held:
        while len(held) < sessions and turn.take():
            descriptor, talk = open_one(turn)
            held[descriptor], waits[descriptor] = talk, next(talk)
            poll.register(descriptor, waits[descriptor])
        for descriptor in (*_ready(poll, turn.rest()), *turn.awake()):
            wait = next(held[descriptor], None)
            if wait is None:
                # Closed, so epoll has forgotten it.
                del held[descriptor], waits[descriptor]
            elif wait != waits[descriptor]:
                waits[descriptor] = wait
                poll.modify(descriptor, wait)
    poll.close()


def _ready(poll: select.epoll, rest: float | None) -> list[int]:
    """Who can go on because of the server, after so many seconds at the latest."""
    if rest is None:
        return [descriptor for descriptor, _ in poll.poll()]
    # epoll counts in milliseconds, which are long beside a confirm; select does not.
    select.select([poll], [], [], rest)
    return [descriptor for descriptor, _ in poll.poll(0)]


def main(port: int, size: int, sessions: int, tls: ssl.SSLContext | None) -> None:
    """Obey the lines of standard input until it ends."""
    text = message(size)

    def open_one(turn: Turn) -> tuple[int, Waits]:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        return connection.fileno(), conversation(connection, tls, text, turn)

    for line in sys.stdin:
        count, *rate = line.split()
        turn = Turn(int(count), sessions, *map(float, rate))
        send_all(open_one, turn, sessions)
        median, slow = percentiles(turn.waited)
        print(f"done {median:.3f} {slow:.3f}", flush=True)


def client_context() -> ssl.SSLContext:
    """TLS 1.3 with whoever answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


if __name__ == "__main__":
    secure = sys.argv[4] == "starttls"
    main(*(int(word) for word in sys.argv[1:4]), client_context() if secure else None)
