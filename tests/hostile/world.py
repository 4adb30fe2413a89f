"""What the tests of hostile input share: strangers, and a look at what came of them.

A gateway is shared by the tests of a module. Each test takes what it made the gateway
publish out of the queue again, to the last document: the fixture `unharmed` finds none
but its own there.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from client import Client
from gateway import Gateway, Json, content, schema
from mailgw.outlets.store_file import read_store

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
ENVELOPE = b"MAIL FROM:<joe@there.test>\r\nRCPT TO:<bob@ours.test>\r\n"
# The one domain that is ours, and one whose name is not ASCII.
LOCALS = "@ours.test\n@köln.test\n"
# What a gateway may grow by for what one test sends it: the pools of an allocator.
GROWTH = 48 << 20
# What the loop may be away for while a message is taken, on a machine with other work.
NOTICEABLE = 0.5

# RFC 3339 time, level, event, fields: all of it printable ASCII.
_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [a-z]+ [a-z][a-z0-9.-]*( [ -~]*)?")


class Stranger(Client):
    """A client of another address of this machine."""

    def __init__(self, port: int, address: str) -> None:
        self.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=15, source_address=(address, 0)
        )
        self._unread = b""


def taken(server: Gateway, queue: str = "inbox") -> list[Json]:
    """Take the documents off the queue, each one strict JSON and held against the schema."""
    lines: list[bytes] = []
    store = server.folder / "queue.sqlite"
    read_store(store, queue, limit=None, follow=False, keep=False, emit=lines.append)
    documents = [json.loads(line.decode("utf-8"), parse_constant=_no_number) for line in lines]
    for document in documents:
        schema().validate(document)
    return documents


def contents(server: Gateway) -> list[bytes]:
    """The messages that were published, octet by octet."""
    return [content(document) for document in taken(server)]


def only(server: Gateway) -> Json:
    """The one document that was published."""
    [document] = taken(server)
    return document


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def codes(client: Client, *lines: bytes | str) -> list[str]:
    """Ask line by line; the reply codes."""
    return [client.ask(line)[:3] for line in lines]


def all_replies(client: Client) -> list[str]:
    """Every reply until the connection ends."""
    replies = []
    with suppress(OSError):
        while said := client.reply():
            replies.append(said)
    return replies


def unnoticed(server: Gateway, send: Callable[[Client], str]) -> float:
    """Seconds until what is sent has its 250, while somebody else asks and asks."""
    replies: list[str] = []
    with Client(server.port) as client, Client(server.port) as bystander:
        client.hello()
        bystander.hello()
        begin = time.perf_counter()
        sending = threading.Thread(target=lambda: replies.append(send(client)))
        sending.start()
        waits = [_answered_in(bystander)]
        while sending.is_alive():
            waits.append(_answered_in(bystander))
            # Not at once again: of harmless commands there is a limit too.
            sending.join(0.05)
        took = time.perf_counter() - begin
    assert replies[0].startswith("250-2.0.0 ")
    assert max(waits) < NOTICEABLE
    return took


def _answered_in(client: Client) -> float:
    begin = time.perf_counter()
    assert client.ask("NOOP").startswith("250 ")
    return time.perf_counter() - begin


@contextmanager
def peak(server: Gateway) -> Iterator[Callable[[], int]]:
    """How far above what it had at the beginning the memory of the workers has been."""
    before = server.memory()
    for worker in server.workers():
        # proc(5): 5 makes the high-water mark what is resident now.
        Path(f"/proc/{worker}/clear_refs").write_text("5")
    yield lambda: sum(map(_high_water, server.workers())) - before


def _high_water(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def bad_lines(server: Gateway) -> list[str]:
    """Lines of the application log that are no event."""
    # Only "\n" ends a line of a file; what else does on a terminal must be escaped.
    return [line for line in server.log.split("\n") if line and not _LINE.fullmatch(line)]


def greeted(port: int, crowd: int = 1) -> list[Client]:
    """Clients that have said EHLO."""
    clients = [Client(port) for _ in range(crowd)]
    for each in clients:
        each.hello()
    return clients
