"""A spamd that lies, B56: its answer is a stranger's text, bounded and in its place."""

from __future__ import annotations

import math
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import pytest

from gateway import Gateway, content
from hostile.checked import SOON, examined, found, results, took
from hostile.world import MESSAGE, peak

KEYS: dict[str, object] = {
    "smtp-check": "spam",
    "smtp-auth-results": "local,nonlocal",
    "smtp-reject": "spam",
    "spam-reject-score": 15,
    "spamassassin-host": "127.0.0.1",
    "spamassassin-timeout": 1,
}


class Liar:
    """Takes a question and gives the answer of the day, for as long as somebody reads it."""

    def __init__(self) -> None:
        self.answer: Callable[[], Iterator[bytes]] = lambda: iter([says()])
        self.sent = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        while True:
            connection, _ = self._server.accept()
            with connection, suppress(OSError):
                if self._ending.is_set():
                    return
                connection.settimeout(10)
                while connection.recv(65536):
                    pass
                self.sent = 0
                for piece in self.answer():
                    connection.sendall(piece)
                    self.sent += len(piece)
                connection.shutdown(socket.SHUT_WR)
                # Until the other side has had enough.
                connection.recv(1)


def says(
    spam: str = "False ; 1.2 / 5.0", symbols: bytes = b"A_RULE,ANOTHER", more: bytes = b""
) -> bytes:
    head = f"SPAMD/1.1 0 EX_OK\r\nContent-length: {len(symbols)}\r\nSpam: {spam}\r\n".encode()
    return head + more + b"\r\n" + symbols


@pytest.fixture(scope="module")
def liar() -> Iterator[Liar]:
    server = Liar()
    yield server
    server.close()


@pytest.fixture(scope="module")
def surroundings(liar: Liar) -> Mapping[str, object]:
    return {"spamassassin-port": liar.port}


@pytest.fixture(autouse=True)
def honest_again(liar: Liar) -> Iterator[None]:
    """The mails of `unharmed`, before and after, are judged in the usual way."""
    yield
    liar.answer = lambda: iter([says()])


FORGED = b"Authentication-Results: mx.ours.test; dkim=pass header.d=bank.test\r\n"
# What of these is a rule is believed; nothing of it comes anywhere else.
SYMBOLS = {
    "folded": (b"ONE,\r\n\tTWO,\r\n THREE", ["ONE", "TWO", "THREE"]),
    "a header field": (b"ONE,\r\n" + FORGED, None),
    "an end of a header": (b"ONE\r\n\r\nDear user,\r\n.\r\nQUIT\r\n", None),
    "controls": (b"ONE,\x1b[2J,T\0WO,\x85,\xe2\x80\xa8,\xff,TWO", ["ONE", "TWO"]),
    "JSON": (b'"],"envelope":"x"},ONE', None),
    "long names": (b"X" * 10_000 + b",ONE", ["ONE"]),
    "many names": (b",".join([b"X"] * 8_000), ["X"] * 500),
    "a report": (b"Content analysis details: (5.0 points)\r\n" * 80, None),
}


@pytest.mark.parametrize("name", SYMBOLS)
def test_B56_what_is_no_rule_is_left_out(mx: Gateway, liar: Liar, name: str) -> None:
    symbols, expected = SYMBOLS[name]
    liar.answer = lambda: iter([says(symbols=symbols)])
    document = examined(mx, MESSAGE)
    [spam] = found(document, "spam")
    assert (spam["spam"], spam["score"]) == ("pass", 1.2)
    assert expected in (None, spam["symbols"])
    assert all(re.fullmatch(r"[!-+\--~]{1,100}", each) for each in spam["symbols"])
    assert len(spam["symbols"]) <= 500
    [field] = results(document)
    assert re.fullmatch(
        r"mx\.ours\.test;\s+x-spam=pass policy\.score=1\.2\s+policy\.required-score=5\.0", field
    )
    assert content(document).endswith(b"\r\n" + MESSAGE)
    assert content(document).count(b"\r\n\r\n") == 1


SCORES = {
    "nan": "True ; nan / 5.0",
    "nan threshold": "True ; 20.0 / nan",
    "inf": "True ; inf / 5.0",
    "minus inf": "False ; -inf / 5.0",
    "overflow": "True ; 1e999 / 5.0",
    "far too large": "True ; 99999999999999999999.9 / 5.0",
    "digits": f"True ; {'9' * 9_000} / 5.0",
    "words": "True ; many / 5.0",
    "hexadecimal": "True ; 0x20 / 5.0",
    "neither": "Maybe ; 20.0 / 5.0",
    "empty": "",
}


@pytest.mark.parametrize("name", SCORES)
def test_B56_a_score_that_is_none_counts_for_nothing(mx: Gateway, liar: Liar, name: str) -> None:
    liar.answer = lambda: iter([says(SCORES[name])])
    # Nobody is refused for it: `smtp-reject` has spam.
    document = examined(mx, MESSAGE)
    [spam] = found(document, "spam")
    assert spam["spam"] == "temperror"
    assert "score" not in spam
    assert "policy." not in results(document)[0]


def endless(piece: bytes) -> Callable[[], Iterator[bytes]]:
    def answer() -> Iterator[bytes]:
        yield says()[:-20]
        # Two gigabytes, if somebody reads them.
        for _ in range((2 << 30) // len(piece)):
            yield piece

    return answer


ANSWERS: dict[str, Callable[[], Iterator[bytes]]] = {
    "2 GB": endless(b"x" * 65_536),
    "2 GB of lines": endless(b"x\r\n" * 20_000),
    "2 GB of headers": endless(b"X: y\r\n" * 10_000),
    "2 GB of blanks": endless(b" " * 65_536),
    "a size of 2 GB": lambda: iter(
        [says().replace(b"Content-length: 14", b"Content-length: 2147483648")]
    ),
    "a size below zero": lambda: iter(
        [says().replace(b"Content-length: 14", b"Content-length: -1")]
    ),
    "a size beyond digits": lambda: iter(
        [says().replace(b"Content-length: 14", b"Content-length: " + b"9" * 5_000)]
    ),
    "nothing": lambda: iter([]),
    "a line end": lambda: iter([b"\r\n"]),
    "half": lambda: iter([says()[:30]]),
    "octets": lambda: iter([bytes(range(256)) * 10]),
    "a failure": lambda: iter([says().replace(b"0 EX_OK", b"74 EX_IOERR")]),
    "an unknown code": lambda: iter([says().replace(b"0 EX_OK", b"99999 EX_LIE")]),
    "HTTP": lambda: iter([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"]),
    "compressed": lambda: iter([says(more=b"Compress: zlib\r\n", symbols=b"x\x9c" + b"\0" * 99)]),
    "SMTP": lambda: iter([b"220 mx.there.test ESMTP\r\n"]),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_B56_an_answer_that_is_none_is_a_temperror(mx: Gateway, liar: Liar, name: str) -> None:
    liar.answer = ANSWERS[name]
    with peak(mx) as grown:
        document = examined(mx, MESSAGE)
        assert grown() < 8_000_000
    [spam] = found(document, "spam")
    assert spam["spam"] in ("temperror", "pass")
    # Where it can be read at all it is what stands in it, and no more.
    if spam["spam"] == "pass":
        assert spam["score"] == 1.2
    assert re.fullmatch(r"[ -~]*", spam.get("reason", ""))
    assert liar.sent < 16 << 20
    assert took(document) < SOON + 1


def test_B56_what_it_says_in_the_usual_way_is_believed(mx: Gateway, liar: Liar) -> None:
    liar.answer = lambda: iter([says("True ; 7.5 / 5.0")])
    [spam] = found(examined(mx, MESSAGE), "spam")
    assert (spam["spam"], spam["score"], math.isfinite(spam["score"])) == ("fail", 7.5, True)
