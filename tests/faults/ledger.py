"""Clients that never give up, and a ledger of every 250 they heard.

Each mail has a name that no other has, in its subject and all through its text. What was
not accepted or refused for good (4xx, a cut connection, silence) is sent again, the same
octets, as RFC 5321 4.5.4.1 asks. The law: a 250 in the ledger without its documents in
the queue is a loss, and nothing else is.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from client import Client, stuffed
from gateway import Json, content
from rabbitmq import wait_until

# Never in a log: message text is nobody's business.
MARK = "Unverkennbar"
SENDER = "joe@there.test"
# RFC 5321 asks for half an hour; what is tested here is what happens at all.
_REST = 0.05


@dataclass(frozen=True, slots=True)
class Mail:
    name: str
    recipients: tuple[str, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of what was promised.

    `lost`: identifiers told with a 250 whose documents are nowhere. `duplicated`:
    documents beyond the first of each mail and recipient. `unrecognisable`: those of them
    whose `dedupe` or octets differ from the first's. `strange`: documents of no mail that
    was sent, with other octets or for another recipient. `unsettled`: mails for which
    nobody found out within the patience. `slowest`: the longest wait for the reply to a final dot.
    """

    accepted: int
    documents: int
    lost: tuple[str, ...]
    duplicated: int
    unrecognisable: int
    strange: tuple[str, ...]
    unsettled: int
    heard: Counter[str]
    slowest: float

    def __str__(self) -> str:
        return (
            f"accepted {self.accepted}, lost {len(self.lost)}, duplicated {self.duplicated}, "
            f"all {self.duplicated - self.unrecognisable} recognisable by id "
            f"({self.documents} documents; slowest {self.slowest:.2f} s; {self.saw})"
        )

    @property
    def saw(self) -> str:
        """What clients heard besides 250."""
        return ", ".join(sorted(what for what in self.heard if what[0] != "2")) or "250"


def judge(
    accepted: dict[str, tuple[Mail, tuple[str, ...]]],
    sent: dict[str, Mail],
    documents: Iterable[Json],
) -> tuple[int, tuple[str, ...], int, int, tuple[str, ...]]:
    """Hold documents against promises: documents, lost, duplicated, unrecognisable, strange.

    `accepted` is by the mail's name, with the identifiers that its 250 told; `sent` is
    every mail that was tried.
    """
    there: set[str] = set()
    first: dict[tuple[str, str], Json] = {}
    count = duplicated = unrecognisable = 0
    strange: list[str] = []
    for document in documents:
        count += 1
        identifier, octets = document["message-id"], content(document)
        name = octets.split(b"\r\n", 1)[0].removeprefix(b"Subject: ").decode()
        mail = sent.get(name)
        if (
            mail is None
            or octets != mail.content
            or document["recipient"] not in mail.recipients
            or document["envelope"] != SENDER
        ):
            strange.append(identifier)
            continue
        there.add(identifier)
        earlier = first.setdefault((name, document["recipient"]), document)
        if earlier is not document:
            duplicated += 1
            same = earlier["dedupe"] == document["dedupe"] and earlier["mime"] == document["mime"]
            unrecognisable += not same
    # Two mails with one key would make a consumer throw one of them away.
    keys = Counter(document["dedupe"] for document in first.values())
    strange += [f"dedupe {key}" for key, times in keys.items() if times > 1]
    lost = tuple(
        identifier for _, ids in accepted.values() for identifier in ids if identifier not in there
    )
    return count, lost, duplicated, unrecognisable, tuple(strange)


class Ledger:
    """`senders` clients at once, in threads, from the start until `stop`.

    `port` is asked for each connection: the server may come back elsewhere. `octets`: the
    size of a text. `patience`: how long a client waits for a reply, in seconds. `sources`:
    the addresses that the clients come from, in turn.
    """

    def __init__(
        self,
        port: Callable[[], int],
        *,
        senders: int = 4,
        octets: int = 1000,
        recipients: int = 0,
        patience: float = 15.0,
        sources: Sequence[str] = ("",),
    ) -> None:
        self.port = port
        self.octets = octets
        self.recipients = recipients
        self.patience = patience
        self.accepted: dict[str, tuple[Mail, tuple[str, ...]]] = {}
        self.sent: dict[str, Mail] = {}
        self.heard: Counter[str] = Counter()
        self._marked: Counter[str] = Counter()
        self.slowest = 0.0
        self.unsettled = 0
        self.idle = 0
        self.begun = 0
        self.stopping = threading.Event()
        self.going = threading.Event()
        self.going.set()
        self.lock = threading.Lock()
        self._give_up_at = float("inf")
        self._run = uuid.uuid4().hex[:8]
        self._senders = [
            _Sender(self, f"{self._run}-{n}", sources[n % len(sources)]) for n in range(senders)
        ]
        for sender in self._senders:
            sender.start()

    def more(self, count: int = 50, limit: float = 60) -> None:
        """Return when so many more were accepted: it takes mail, or takes it again."""
        enough = len(self.accepted) + count
        wait_until(lambda: len(self.accepted) >= enough, f"{count} more are accepted", limit)

    def mark(self) -> None:
        """What was heard so far does not count for `hears`."""
        with self.lock:
            self._marked = self.heard.copy()

    def hears(self, what: str, count: int = 1, limit: float = 60) -> None:
        """Return when clients heard, since the mark, so many replies that begin so."""

        wait_until(lambda: self.times(what) >= count, f"clients hear {what}", limit)

    def times(self, what: str) -> int:
        """How many replies that begin so were heard since the mark."""
        with self.lock:
            fresh = self.heard - self._marked
        return sum(n for said, n in fresh.items() if said.startswith(what))

    def pause(self, limit: float = 60) -> None:
        """Return when every client has settled its mail and begins no other."""
        self.going.clear()
        wait_until(lambda: self.idle == len(self._senders), "all clients are at rest", limit)

    def resume(self) -> None:
        self.going.set()

    def stop(self, limit: float = 20) -> None:
        """Let each client settle the mail it is at, within the limit, and go."""
        self._give_up_at = time.monotonic() + limit
        self.stopping.set()
        self.going.set()
        for sender in self._senders:
            sender.join(limit + self.patience + 5)
            assert not sender.is_alive(), "a client hangs"

    def verdict(self, documents: Iterable[Json]) -> Verdict:
        assert self.stopping.is_set()
        return Verdict(
            len(self.accepted),
            *judge(self.accepted, self.sent, documents),
            self.unsettled,
            self.heard,
            self.slowest,
        )

    # --- what the clients tell --------------------------------------------------------

    def hopeless(self) -> bool:
        return time.monotonic() > self._give_up_at

    def note(self, mail: Mail, said: str, took: float) -> None:
        with self.lock:
            self.heard[_short(said)] += 1
            self.slowest = max(self.slowest, took)
            if said.startswith("250"):
                ids = tuple(line[4:].split()[1] for line in said.splitlines()[1:])
                assert len(ids) == len(mail.recipients), said
                self.accepted[mail.name] = (mail, ids)


class _Sender(threading.Thread):
    """One client: a session for many mails, a new one when it ended."""

    def __init__(self, ledger: Ledger, name: str, source: str) -> None:
        super().__init__(daemon=True)
        self._ledger = ledger
        self._source = source
        self._mails = mails(name, ledger.octets, ledger.recipients)
        self._client: Client | None = None
        self._waited = 0.0

    def run(self) -> None:
        ledger = self._ledger
        while True:
            with ledger.lock:
                ledger.idle += 1
            ledger.going.wait()
            with ledger.lock:
                ledger.idle -= 1
            if ledger.stopping.is_set() or not self._settle(next(self._mails)):
                break
        self._leave()

    def _settle(self, mail: Mail) -> bool:
        ledger = self._ledger
        with ledger.lock:
            ledger.sent[mail.name] = mail
            ledger.begun += 1
        while True:
            self._waited = 0.0
            said = self._attempt(mail)
            ledger.note(mail, said, self._waited)
            if said[0] in "25":
                return True
            if ledger.hopeless():
                with ledger.lock:
                    ledger.unsettled += 1
                return False
            time.sleep(_REST)  # what a client does, not what a test waits for

    def _attempt(self, mail: Mail) -> str:
        """The reply that settled it, or "cut", "away" or "silence"."""
        said = ""
        try:
            said = self._send(mail)
        except TimeoutError:
            said = "silence"
        except ConnectionRefusedError:
            said = "away"
        except OSError:
            said = ""
        if not said[:1].isdigit() or said.startswith("421"):
            self._leave()
        return said or "cut"

    def _send(self, mail: Mail) -> str:
        if self._client is None:
            self._client = Client(self._ledger.port(), source=self._source)
            self._client.socket.settimeout(self._ledger.patience)
            banner = self._client.reply()
            if not banner.startswith("220"):
                return banner
            hello = self._client.ask("EHLO client.test")
            if not hello.startswith("250"):
                return hello
        commands = [f"MAIL FROM:<{SENDER}>", *(f"RCPT TO:<{to}>" for to in mail.recipients)]
        for command in (*commands, "DATA"):
            said = self._client.ask(command)
            if said[:1] not in ("2", "3"):
                return self._reset(said)
        began = time.monotonic()
        try:
            self._client.send(stuffed(mail.content))
            return self._client.reply()
        finally:
            self._waited = time.monotonic() - began

    def _reset(self, said: str) -> str:
        """A transaction that was refused in its middle is left (RFC 5321 4.1.1.5)."""
        if self._client is not None and said and not said.startswith("421"):
            self._client.ask("RSET")
        return said

    def _leave(self) -> None:
        if self._client is not None:
            with suppress(OSError):
                self._client.socket.close()
            self._client = None


def mails(name: str, octets: int, recipients: int = 0) -> Iterator[Mail]:
    """Mails that no other client sends. Without `recipients` every fifth has three of them."""
    sizes = random.Random(name)
    for number in itertools.count():
        to = recipients or (3 if number % 5 == 4 else 1)
        title = f"{name}-{number}"
        line = f"{MARK} {title} ".ljust(78, ".") + "\r\n"
        lines = 1 + sizes.randrange(octets, 2 * octets + 1) // len(line)
        yield Mail(
            title,
            tuple(f"user{each}@ours.test" for each in range(to)),
            f"Subject: {title}\r\nFrom: <{SENDER}>\r\n\r\n{line * lines}".encode(),
        )


def _short(said: str) -> str:
    """The code and the enhanced code."""
    return f"{said[:3]} {said[4:].split(' ')[0]}" if said[:1].isdigit() else said
