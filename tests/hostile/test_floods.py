"""Besides the rows: what attackers do with a mail server that has nothing wrong with it.

Many at once, in a hurry, again and again; and somebody honest among them who wants to
be served meanwhile.
"""

from __future__ import annotations

import base64
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from client import Client
from gateway import Gateway
from hostile.world import ENVELOPE, MESSAGE, Stranger, all_replies, codes, peak, taken
from rabbitmq import wait_until

KEYS: dict[str, object] = {
    "smtp-threads": 2,
    "smtp-timeout": 1,
    "smtp-recipients": "local",
    "smtp-auth": "hardcoded://anna:opensesame",
    "smtp-auth-insecure-range": "127.0.0.0/8",
    "smtp-minimum-rate": 100_000,
}
# How long a mail may take amid all that, on two processors with other work.
BEARABLE = 5.0


@contextmanager
def honest(server: Gateway, mails: int = 10) -> Iterator[None]:
    """Somebody who sends mail after mail while the others do their worst."""
    with ThreadPoolExecutor(1) as alone:
        sent = alone.submit(lambda: [_mail_takes(server) for _ in range(mails)])
        yield
        assert max(sent.result(60)) < BEARABLE
    assert [each["envelope"] for each in taken(server)] == ["joe@there.test"] * mails


def _mail_takes(server: Gateway) -> float:
    begin = time.monotonic()
    with Client(server.port) as client:
        client.hello()
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    return time.monotonic() - begin


def test_connections_that_are_reset_at_once(mx: Gateway) -> None:
    descriptors = mx.descriptors()

    def knock(number: int) -> None:
        with suppress(OSError), Stranger(mx.port, f"127.0.0.{number % 50 + 2}") as client:
            if number % 3:
                client.send(b"EHLO x\r\n" * (number % 3))
            linger = struct.pack("ii", 1, 0)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    with honest(mx), ThreadPoolExecutor(20) as crowd, peak(mx) as grown:
        list(crowd.map(knock, range(1_500)))
        assert grown() < 32_000_000
    # Each worker's first client makes its event loop and its queue open some of their own.
    wait_until(lambda: mx.descriptors() <= descriptors + 10, "the sockets are closed")


def test_password_guessing_from_many_addresses_at_many_names(mx: Gateway) -> None:
    def guess(number: int) -> list[str]:
        heard = []
        with suppress(OSError), Stranger(mx.port, f"127.0.1.{number % 10 + 1}") as client:
            client.hello()
            # All tries in one write, as the fast ones do it.
            for word in range(5):
                login = base64.b64encode(f"\0user{number}\0word{word}".encode()).decode()
                client.send(f"AUTH PLAIN {login}\r\n".encode())
            heard = [each[:3] for each in all_replies(client)]
        return heard

    with honest(mx), ThreadPoolExecutor(20) as crowd:
        said = [code for each in crowd.map(guess, range(100)) for code in each]
    assert "235" not in said
    # Ten a minute for each of ten addresses, however they are spread over workers.
    assert said.count("535") <= 100
    assert "421" in said


def test_a_dictionary_of_recipients(mx: Gateway) -> None:
    names = b"".join(b"RCPT TO:<name%d@elsewhere.test>\r\n" % n for n in range(500))

    def harvest(_: int) -> list[str]:
        with Client(mx.port) as client:
            client.hello()
            with suppress(OSError):
                client.send(b"MAIL FROM:<>\r\n" + names + b"DATA\r\n")
            return [each[:3] for each in all_replies(client)]

    with honest(mx), ThreadPoolExecutor(10) as crowd:
        said = list(crowd.map(harvest, range(30)))
    assert all(each.count("550") <= 100 for each in said)
    assert not any("354" in each for each in said)


def test_large_messages_that_never_end(mx: Gateway) -> None:
    chunk = (b"x" * 998 + b"\r\n") * 100

    def pour(number: int) -> None:
        with suppress(OSError), Client(mx.port) as client:
            client.hello()
            codes(client, *ENVELOPE.splitlines(), "DATA")
            for _ in range(30):
                client.send(chunk)
            if number % 2:
                client.reply()  # that never comes: the deadline does

    with honest(mx), ThreadPoolExecutor(20) as crowd, peak(mx) as grown:
        list(crowd.map(pour, range(40)))
        # A megabyte of each is in memory, the rest in files without names.
        assert grown() < 20 * 3_000_000 + 16_000_000


def test_octets_at_random(mx: Gateway) -> None:
    # The same noise each time, so that what it finds can be found again.
    source = random.Random(5321)
    noise = [source.randbytes(2_000) for _ in range(100)]
    noise += [source.randbytes(50) + b"\r\n" + ENVELOPE for _ in range(100)]

    def shout(number: int) -> None:
        with (
            suppress(OSError),
            Client(mx.port if number % 5 else mx.secure_port) as client,
        ):
            client.send(noise[number] * 20)
            client.socket.shutdown(socket.SHUT_WR)
            client.ended()

    heard = mx.log.count(" client.connected ")
    with honest(mx), ThreadPoolExecutor(10) as crowd:
        list(crowd.map(shout, range(len(noise))))
    mx.saw("client.connected", heard + 160)


def test_a_slow_sender_of_a_large_message_is_cut_and_a_steady_one_is_not(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway({"smtp-timeout": 1, "smtp-minimum-rate": 50_000})
    with Client(server.port) as slow, Client(server.port) as steady:
        for client in (slow, steady):
            client.hello()
            codes(client, *ENVELOPE.splitlines(), "DATA")
        end = time.monotonic() + 3
        slow.socket.settimeout(0.001)
        cut = ""
        while time.monotonic() < end:
            steady.send(b"y" * 9_998 + b"\r\n")
            with suppress(OSError):
                slow.send(b"y" * 8 + b"\r\n")
                cut = cut or slow.socket.recv(100).decode()
            steady.socket.settimeout(0.05)
            with suppress(TimeoutError):
                steady.socket.recv(1)
        assert cut.startswith("421 4.4.2 ")
        steady.socket.settimeout(15)
        steady.send(b".\r\n")
        assert steady.reply().startswith("250-2.0.0 ")
    assert len(taken(server)) == 1
