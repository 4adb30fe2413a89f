"""What an extension may be, and how it is found by its name.

The parts that come with mailgw keep the same protocols, so they are the examples.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeAlias

from mailgw.mail.peer import Peer
from mailgw.mail.publication import Publication
from mailgw.mail.transaction import Recipient, Transaction
from mailgw.smtp import reply
from mailgw.smtp.reply import Reply

# What a hook answers: None for "no opinion", at once or after a while.
Opinion: TypeAlias = Reply | Awaitable[Reply | None] | None


class BadExtension(Exception):
    """An extension that cannot be loaded; the text is one line, and names it."""


class Hook(Protocol):
    """Code of the operator's own with a say in each step of a mail's reception.

    A hook is one object for all clients of a worker, made once, without arguments. It has
    as many of these methods as it likes; those it lacks cost nothing. Each may be a plain
    method, which must not block because all clients wait for it, or a coroutine, which
    has `hook-timeout` seconds. It answers None, "no opinion", or a Reply, and the first
    Reply among the hooks is the last word of the hooks:

    - 4xx or 5xx is said to the client as it is (421 also ends the connection).
    - 2xx (220 to connect, 354 to data) lets it pass where our own rules would refuse for
      good, with a 5xx. What they put off with a 4xx, or what there are too many of, still
      is: a hook cannot make a queue safe.

    One that raises, hangs or answers anything else costs its client a 451 with a
    reference, and has its traceback in the log. Raising Refusal is answering its reply.
    """

    def connect(self, peer: Peer) -> Opinion:
        """A client is there and waits for the banner, which a 220 replaces."""

    def hello(self, peer: Peer) -> Opinion:
        """EHLO or HELO, its name in `peer.helo`."""

    def secure(self, peer: Peer) -> object:
        """TLS is active; `peer.tls` says how. Only told: nobody waits for it."""

    def auth(self, peer: Peer, username: str, password: str) -> Opinion:
        """A login. 235 makes the client that user, without asking our own logins."""

    def mail(self, peer: Peer, transaction: Transaction) -> Opinion:
        """MAIL, with the sender in `transaction.reverse_path`, None for the null sender."""

    def rcpt(self, peer: Peer, transaction: Transaction, recipient: Recipient) -> Opinion:
        """RCPT. `transaction` has the recipients before this one.

        Whether `recipient` is local is found out afterwards, so it says False here.
        """

    def data(self, peer: Peer, transaction: Transaction) -> Opinion:
        """DATA or the first BDAT, before the bytes come."""

    def message(self, peer: Peer, transaction: Transaction, content: bytes) -> Opinion:
        """The message is complete, and nothing has been done with it yet.

        A 2xx means what None means here: the client hears 250 when the queue has it, and
        not before.
        """

    def disconnect(self, peer: Peer) -> object:
        """The client has gone. Only told: nobody waits for it."""


def load(name: str) -> object:
    """Import package.module, call its Name without arguments, and give what that makes.

    Raises BadExtension with one line that says which of it went wrong. Blocks; for the
    start and for reloading.
    """
    module, _, path = name.partition(":")
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Ours to name, or one that the module itself wanted.
        missing = f"there is no module {error.name}"
        raise BadExtension(f"{name}: {missing} (is its folder in PYTHONPATH?)") from error
    except (Exception, SystemExit) as error:
        raise BadExtension(f"{name}: importing {module} failed: {_line(error)}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise BadExtension(f"{name}: {module} has no {path}") from None
    if not callable(found):
        raise BadExtension(f"{name}: is not a class, nor anything else that can be called")
    try:
        made: object = found()
    except (Exception, SystemExit) as error:
        raise BadExtension(f"{name}: cannot be made: {_line(error)}") from error
    return made


def _line(error: BaseException) -> str:
    """An exception as one line of bounded length."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else text[:300] + "..."


class Unavailable(Exception):
    """Not safe, and worth trying again: the client gets `reply`, always a 4xx.

    `reason` is for the log alone; it may name hosts and queues, `reply` never does.
    `nowhere` says that it is known of every document that no queue has it.
    """

    def __init__(
        self, reason: str, reply: Reply = reply.TRY_AGAIN, *, nowhere: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply
        self.nowhere = nowhere


class Refused(Unavailable):
    """The other side is there, and says no to this document: to wait for it will not help."""


class Undeliverable(Exception):
    """Not safe, and trying again will not help: the client gets `reply`, always a 5xx.

    `nowhere` as in Unavailable.
    """

    def __init__(self, reason: str, reply: Reply = reply.TOO_BIG, *, nowhere: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply
        self.nowhere = nowhere


class Output(Protocol):
    """Takes documents and says when they are safe."""

    async def open(self) -> None:
        """Get ready. Returns also when the other side is away: `trouble` says so then.

        Raises Unavailable only for what waiting cannot mend (a file that cannot be made).
        """

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Hand over the documents of one transaction and wait until every one is safe.

        Takes the whole transaction, because its 250 covers all recipients: a store can
        commit them as one. Raises Unavailable or Undeliverable; some of the documents may
        be safe even then (delivery is at least once). The caller has the deadline, and
        cancels.
        """

    @property
    def largest(self) -> int | None:
        """Octets of the largest document that it may take; None where that is not known."""

    def trouble(self) -> Reply | None:
        """The 4xx to give before a message is sent, where we know now that it would fail."""

    async def close(self) -> None:
        """Wait for what is under way and let go."""
