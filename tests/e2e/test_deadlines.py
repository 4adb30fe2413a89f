"""Silent, slow and greedy clients, and those who vanish."""

from __future__ import annotations

import itertools
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from client import Client
from gateway import Gateway, running
from mailgw.outlets.store_file import depths

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
PATIENCE = 1.0
# A deadline is looked at once a second; the rest is for a busy machine.
SOON = 8.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("deadlines")
    with running(folder, {"smtp-timeout": PATIENCE}) as started:
        yield started


def trickle(client: Client, octet: bytes) -> float:
    """Send one octet again and again until the connection ends; how long that took."""
    begin = time.monotonic()
    client.socket.settimeout(0.1)
    for _ in itertools.count():
        try:
            client.send(octet)
            if not client.socket.recv(65536):
                break
        except TimeoutError:
            assert time.monotonic() - begin < 30, "the connection is kept for ever"
        except OSError:
            break
    return time.monotonic() - begin


@pytest.mark.parametrize(
    "before",
    [
        (),
        (b"EHLO client.test",),
        (b"EHLO client.test", b"MAIL FROM:<joe@there.test>"),
        (b"EHLO client.test", b"MAIL FROM:<joe@there.test>", b"RCPT TO:<bob@ours.test>"),
        (b"EHLO client.test", b"MAIL FROM:<>", b"RCPT TO:<bob@ours.test>", b"DATA"),
    ],
)
def test_a_silent_client_is_told_and_cut(shared: Gateway, before: tuple[bytes, ...]) -> None:
    with Client(shared.port) as client:
        client.reply()
        for line in before:
            client.ask(line)
        begin = time.monotonic()
        assert client.reply().startswith("421 4.4.2 ")
        assert client.reply() == ""
        assert PATIENCE * 0.9 < time.monotonic() - begin < SOON


def test_one_octet_at_a_time_in_a_command_keeps_no_connection(shared: Gateway) -> None:
    with Client(shared.port) as client:
        client.hello()
        assert trickle(client, b"N") < SOON


def test_one_octet_at_a_time_in_data_keeps_no_connection(shared: Gateway) -> None:
    with Client(shared.port) as client:
        client.hello()
        client.transaction()
        assert trickle(client, b"x") < SOON
    assert shared.consume() == []


def test_one_octet_at_a_time_in_bdat_keeps_no_connection(shared: Gateway) -> None:
    with Client(shared.port) as client:
        client.hello()
        client.ask("MAIL FROM:<joe@there.test>")
        client.ask("RCPT TO:<bob@ours.test>")
        client.send(b"BDAT 1000000 LAST\r\n")
        assert trickle(client, b"x") < SOON


def test_empty_chunks_for_ever_keep_no_connection(shared: Gateway) -> None:
    with Client(shared.port) as client:
        client.hello()
        client.ask("MAIL FROM:<joe@there.test>")
        client.ask("RCPT TO:<bob@ours.test>")
        said = [client.ask("BDAT 0") for _ in range(99)]
        while said[-1].startswith("250 ") and len(said) < 1000:
            said.append(client.ask("BDAT 0"))
        assert said[-1].startswith("421 4.7.0 ")


def test_a_message_that_comes_steadily_may_take_longer_than_the_patience(
    shared: Gateway,
) -> None:
    with Client(shared.port) as client:
        client.hello()
        client.transaction()
        begin = time.monotonic()
        while time.monotonic() - begin < 3 * PATIENCE:
            client.send(b"y" * 998 + b"\r\n")
            # A line a tick: what is waited for here is the clock itself.
            client.socket.settimeout(0.05)
            with pytest.raises(TimeoutError):
                client.socket.recv(1)
        client.socket.settimeout(15)
        client.send(b".\r\n")
        assert client.reply().startswith("250-2.0.0 ")
    assert len(shared.consume()) == 1


def test_a_client_that_reads_no_replies_is_cut_and_memory_stays_flat(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway({"smtp-timeout": PATIENCE, "output": "null"})
    before = most = server.memory()
    with Client(server.port, buffer=2048) as client:
        client.hello()
        # Many replies for few octets, and none of them an error.
        transaction = b"MAIL FROM:<joe@there.test>\r\nRCPT TO:<bob@ours.test>\r\nDATA\r\n.\r\n"
        client.socket.settimeout(0.2)
        deadline = time.monotonic() + 40
        while " client.gone " not in server.log:
            assert time.monotonic() < deadline, "the connection is kept for ever"
            try:
                client.socket.send(transaction * 500)
            except TimeoutError:
                most = max(most, server.memory())
            except OSError:
                break
        server.saw("client.gone")
    assert most - before < 60_000_000
    with Client(server.port) as client:
        assert "PIPELINING" in client.hello()


STATES: dict[str, tuple[bytes, ...]] = {
    "banner": (),
    "ehlo": (b"EHLO client.test\r\n",),
    "mail": (b"EHLO client.test\r\n", b"MAIL FROM:<joe@there.test>\r\n"),
    "rcpt": (
        b"EHLO client.test\r\n",
        b"MAIL FROM:<joe@there.test>\r\n",
        b"RCPT TO:<bob@ours.test>\r\n",
    ),
}
STATES["data"] = (*STATES["rcpt"], b"DATA\r\n")
STATES["chunks"] = (*STATES["rcpt"], b"BDAT 5\r\nhello")
STATES["auth"] = (b"EHLO client.test\r\n", b"AUTH LOGIN\r\n")
# What is sent last, without an answer to wait for.
UNFINISHED: dict[str, bytes] = {
    "banner": b"EH",
    "ehlo": b"MAIL FRO",
    "mail": b"RCPT TO:<bo",
    "rcpt": b"DATA\r",
    "data": MESSAGE + b"the line is not ended",
    "chunks": b"BDAT 10 LAST\r\nhalf",
    "auth": b"YW5u",
}


@pytest.mark.parametrize("how", ["half-close", "close", "reset"])
@pytest.mark.parametrize("state", STATES)
def test_a_client_that_vanishes_publishes_nothing_and_leaves_no_traceback(
    shared: Gateway, state: str, how: str
) -> None:
    gone = shared.log.count(" client.gone ")
    with Client(shared.port) as client:
        client.reply()
        for line in STATES[state]:
            client.send(line)
            client.reply()
        client.send(UNFINISHED[state])
        match how:
            case "half-close":
                client.socket.shutdown(socket.SHUT_WR)
                assert client.ended()
            case "reset":
                client.socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
    shared.saw("client.gone", gone + 1)
    assert "Traceback" not in shared.log
    assert depths(shared.folder / "queue.sqlite") == {}


def test_a_whole_session_and_a_half_close_in_one_packet_is_served(shared: Gateway) -> None:
    session = (
        b"EHLO client.test\r\nMAIL FROM:<joe@there.test>\r\nRCPT TO:<bob@ours.test>\r\n"
        b"DATA\r\n" + MESSAGE + b".\r\nQUIT\r\n"
    )
    with Client(shared.port) as client:
        client.send(session)
        client.socket.shutdown(socket.SHUT_WR)
        said = [client.reply() for _ in range(7)]
    assert [reply[:3] for reply in said] == ["220", "250", "250", "250", "354", "250", "221"]
    assert len(shared.consume()) == 1
