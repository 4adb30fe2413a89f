"""Spam, in the opinion of a SpamAssassin: spamd is asked about a message, by its own protocol.

Laws. One question a message, SYMBOLS, over a connection that is closed when the question
ends, however it ends. Whatever spamd does, there is a finding within the time limit, and
a spamd that does not answer slows down a few messages, not all of them. Its answer is
bounded, and believed only where it is what spamd writes. Nothing of a message is logged.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from mailgw.mail.finding import Finding
from mailgw.mail.octets import Octets
from mailgw.observe import log


@contextmanager
def _some_user_name() -> Iterator[None]:
    """The library wants our user's name when it is imported, and raises where a user id has
    none, as in a container. It is never sent."""
    before = os.environ.get("LOGNAME")
    os.environ["LOGNAME"] = "mailgw"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LOGNAME"]
        else:
            os.environ["LOGNAME"] = before


# It has no types: `_ask` and `_read_verdict` are the only doors.
with _some_user_name():
    from aiospamc.client import Client
    from aiospamc.exceptions import BadResponse
    from aiospamc.requests import Request
    from aiospamc.responses import Response, ResponseException

# As spamc has it: what is larger is seldom spam, and takes spamd long.
LARGEST = 500_000
PATIENCE = 10.0
AT_ONCE = 32

# Octets and lines of an answer. A real one is a few lines, and has 20 octets a rule.
_LARGEST_ANSWER = 16_384
_MOST_LINES = 100
_MOST_SYMBOLS = 500
# Names of rules: printable ASCII without the comma between them.
_SYMBOL = re.compile(rb"[!-+\--~]{1,100}")
# GTUBE is worth a thousand points; NaN is not within anything.
_LARGEST_SCORE = 1e6

# So many questions in a row that came to nothing slowly, and only one message in so many
# seconds is a question, until one is answered.
_ENOUGH = 3
_PAUSE = 5.0
# A question that fails faster costs nobody anything: a connection that is refused.
_SLOW = 1.0


class SpamAssassin:
    """Asks the spamd at `host` and `port`, or at a unix socket where `host` begins with "/".

    Messages of more than `largest` octets are not sent. `patience` is in seconds and for
    all of it: for one of the `at_once` places, the connection and the answer.
    """

    def __init__(
        self,
        host: str,
        port: int = 783,
        *,
        largest: int = LARGEST,
        patience: float = PATIENCE,
        at_once: int = AT_ONCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line = _Line(host, port)
        self._client = Client(self._line)
        self._largest = largest
        self._patience = patience
        self._places = asyncio.Semaphore(at_once)
        self._clock = clock
        self._rest = _Rest(clock)
        self._away = False

    async def check(self, content: Octets) -> Finding:
        """What spamd says of a message.

        "fail" is spam, the score at or over spamd's threshold, "pass" is not; both have
        the score, that threshold and the names of the rules that matched. "none" is a
        message too large to be asked about, "temperror" that nothing is known, and the
        reason says why. Raises nothing.
        """
        began = self._clock()
        if len(content) > self._largest:
            found = Finding("spam", "none", reason="too large for spamd")
        elif not self._rest.lets_ask():
            found = _unknown("spamd does not answer, and is asked again in a few seconds")
        else:
            found = await self._ask(content[:])
        return replace(found, milliseconds=(self._clock() - began) * 1000)

    async def close(self) -> None:
        """Whoever still waits gets "temperror"."""
        self._line.close()

    async def _ask(self, content: bytes) -> Finding:
        asked = None
        try:
            async with asyncio.timeout(self._patience), self._places:
                asked = self._clock()
                answer = await self._client.request(Request("SYMBOLS", body=content))
            found = _read_verdict(answer)
        except asyncio.CancelledError:
            # Somebody's deadline over more than this question was shorter than ours.
            if asked is not None:
                self._rest.was_slow()
                self._in_vain("spamd took too long")
            raise
        except TimeoutError:
            if asked is None:
                return _unknown("too many messages wait for spamd")
            self._rest.was_slow()
            return self._in_vain("spamd took too long")
        except (OSError, ResponseException, BadResponse, _Unusable, ValueError) as trouble:
            if asked is not None and self._clock() - asked >= _SLOW:
                self._rest.was_slow()
            else:
                self._rest.is_over()
            return self._in_vain(_why(trouble))
        self._rest.is_over()
        if self._away:
            self._away = False
            log.info("spamd.back")
        return found

    def _in_vain(self, reason: str) -> Finding:
        # Once, and not for every message that comes while it is away.
        if not self._away and not self._line.closed:
            self._away = True
            log.warning("spamd.away", reason=reason)
        return _unknown(reason)


class _Unusable(Exception):
    """Spamd, or we, ended a question without an answer; the text is our own."""


class _Line:
    """Connections to spamd, one a question: what the library calls a connection manager.

    Its own ones leave the socket to the garbage collector when time is up, read an answer
    of any size, and have tracebacks made for a log.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.closed = False

    async def request(self, data: bytes) -> bytes:
        """The answer to a request, both as they are on the line."""
        self._refuse_if_closed()
        reader, writer = await self._open()
        self._writers.add(writer)
        try:
            self._refuse_if_closed()
            # On a connection that broke already uvloop raises here; drain says it better.
            with suppress(RuntimeError):
                writer.write(data)
                # As spamc does: it is an end that cannot be misread.
                writer.write_eof()
            await writer.drain()
            return await _read_to_end(reader)
        finally:
            self._writers.discard(writer)
            # close() would wait until spamd, which may hang, has taken what it did not read.
            writer.transport.abort()

    def close(self) -> None:
        self.closed = True
        for writer in self._writers:
            writer.transport.abort()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        # The limit is what the library of streams takes in before it is asked to.
        if self._host.startswith("/"):
            return await asyncio.open_unix_connection(self._host, limit=_LARGEST_ANSWER)
        return await asyncio.open_connection(self._host, self._port, limit=_LARGEST_ANSWER)

    def _refuse_if_closed(self) -> None:
        if self.closed:
            raise _Unusable("spamd is asked no more")


class _Rest:
    """Whether to ask a spamd that did not answer the last ones who asked."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._slow_ones = 0
        self._until = 0.0

    def lets_ask(self) -> bool:
        """May be asked once a question: of those that come in a pause, one is let through."""
        if self._slow_ones < _ENOUGH:
            return True
        if self._clock() < self._until:
            return False
        self._until = self._clock() + _PAUSE
        return True

    def was_slow(self) -> None:
        self._slow_ones += 1
        self._until = self._clock() + _PAUSE

    def is_over(self) -> None:
        self._slow_ones = 0


async def _read_to_end(reader: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    while data := await reader.read(_LARGEST_ANSWER):
        answer += data
        if len(answer) > _LARGEST_ANSWER:
            raise _Unusable("spamd answered more than it ever does")
    if not answer:
        raise _Unusable("spamd answered nothing")
    # The library copies what is left of an answer with every line of it.
    if answer.count(b"\n") > _MOST_LINES:
        raise _Unusable("spamd answered more lines than it ever does")
    return bytes(answer)


def _read_verdict(answer: Response) -> Finding:
    spam = answer.headers.get("Spam")
    if spam is None:
        raise _Unusable("spamd answered without a score")
    # They are rounded: whether one reaches the other is spamd's to say.
    is_spam, score, required = bool(spam.value), float(spam.score), float(spam.threshold)
    if not (abs(score) <= _LARGEST_SCORE and abs(required) <= _LARGEST_SCORE):
        raise _Unusable("spamd answered with a score that is none")
    return Finding(
        "spam",
        "fail" if is_spam else "pass",
        properties=(("policy.score", f"{score:.1f}"), ("policy.required-score", f"{required:.1f}")),
        members=(
            ("score", score),
            ("required-score", required),
            ("symbols", _symbols(answer.body)),
        ),
        score=score,
    )


def _symbols(body: bytes) -> tuple[str, ...]:
    """Names of rules; what cannot be one is left out. Behind a comma the line may be folded."""
    names = [name for name in re.split(rb"[,\s]+", body) if _SYMBOL.fullmatch(name)]
    return tuple(name.decode("ascii") for name in names[:_MOST_SYMBOLS])


def _unknown(reason: str) -> Finding:
    return Finding("spam", "temperror", reason=reason)


def _why(trouble: Exception) -> str:
    # Their own text is not for us: it may quote what spamd wrote.
    if isinstance(trouble, _Unusable):
        return str(trouble)
    if isinstance(trouble, ResponseException):
        known = 0 < trouble.code < 256
        return f"spamd answered {int(trouble.code)}" if known else "spamd answered an unknown code"
    if isinstance(trouble, OSError):
        if isinstance(trouble, socket.gaierror):
            return "the name of spamd's host has no address"
        # None where a host has several addresses, and each failed in its own way.
        text = os.strerror(trouble.errno) if trouble.errno else "no connection"
        return f"spamd cannot be asked: {text}"
    return "the answer of spamd cannot be read"
