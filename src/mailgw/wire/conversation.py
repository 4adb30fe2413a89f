"""One client: carries events from the session to the decisions and replies back.

Three laws. A decision that need not wait is answered without a task switch, so a
pipelined MAIL, RCPT, DATA is answered in one write. Waiting for the client has
deadlines; committing has its own. Once the final dot is in, a client that vanishes does
not cancel the publish.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Recipient
from mailgw.observe import log
from mailgw.smtp import events, reply
from mailgw.smtp.reply import Refusal, Reply
from mailgw.smtp.session import Session
from mailgw.wire.house import Answer, House, Now
from mailgw.wire.last_reply import LastReply
from mailgw.wire.transport import Link
from mailgw.wire.under_way import UnderWay


class Conversation:
    """Receives from a Link, which it answers; `done` is called when all is over.

    `secure`: TLS comes first, and the link starts when it is there.
    """

    def __init__(
        self,
        link: Link,
        peer: Peer,
        house: House,
        *,
        secure: bool,
        done: Callable[[Conversation], None],
    ) -> None:
        self._link = link
        self.house = house
        self._done = done
        self._session = Session(
            house.rules, tls=secure, auth_in_clear=peer.remote_ip in house.auth_in_clear
        )
        self._last_reply = LastReply(link, house.unseen)
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + (house.handshake if secure else house.patience)
        self._waiting: asyncio.Task[None] | None = None
        self._draining = False
        self._half_closed = False
        self._under_way = UnderWay(house.spool_memory, house.spool_directory)
        self._started = False
        # While the banner is held back: who sets it ends that.
        self._hush: asyncio.Future[Reply] | None = None
        self._taken = 0
        self.peer = peer
        link.receiver = self

    # --- what the link tells --------------------------------------------------------

    def started(self) -> None:
        self._started = True
        # Balancers look in every few seconds: that would be most of the log.
        if not self.peer.health_check:
            log.info(
                "client.connected",
                id=self.peer.connection_id,
                peer=self.peer.remote_ip,
                port=self.peer.local_port,
                proxy=self.peer.proxy_ip,
                tls=self.peer.tls.version if self.peer.tls else None,
            )
        self._proceed()

    def secured(self) -> None:
        # RFC 3207 4.2: what was learnt in clear is forgotten.
        self.peer = replace(self.peer, tls=self._link.tls, helo=None, esmtp=False, user=None)
        self.house.gate.secured(self.peer)
        if not self._started:
            self.started()
            return
        self._deadline = self._loop.time() + self.house.patience
        self._session.tls_started()
        if self._draining:
            self._end_if_drained()

    def received(self, data: bytes) -> None:
        if self._last_reply.awaited:
            self._last_reply.heard()
        self._session.receive(data)
        if self._waiting is not None or self._link.choked:
            # What is pipelined behind an answer still owed waits in the kernel.
            self._link.pause()
            self._break_hush(reply.TALKED_EARLY)
        else:
            self._proceed()

    def half_closed(self) -> None:
        # RFC 5321 4.1.1.10: without the final dot there is no message; one that has it
        # is finished, and its reply may still be read.
        self._half_closed = True
        if self._waiting is None:
            self._last_reply.close()
        else:
            self._last_reply.lost()
            self._break_hush(reply.BYE)

    def writable(self) -> None:
        if self._waiting is None:
            self._link.resume()
            self._proceed()

    def ended(self) -> None:
        # Who only looks whether a TLS port is there shakes no hands, every few seconds.
        if self._link.shaking_hands and not self.peer.health_check:
            log.info(
                "tls.failed",
                id=self.peer.connection_id,
                peer=self.peer.remote_ip,
                reason=self._link.trouble or "the connection ended",
            )
        if self._waiting is None:
            self._end()
        else:
            self._last_reply.lost()
            self._break_hush(reply.BYE)

    # --- what the house asks --------------------------------------------------------

    def drain(self) -> None:
        """End as soon as no transaction is under way (RFC 5321 3.8)."""
        self._draining = True
        if not self._started:
            self._link.abort()
        elif self._waiting is None:
            self._end_if_drained()
        else:
            self._break_hush(reply.SHUTTING_DOWN)

    def cut(self) -> None:
        """End now; a message whose final dot came is finished all the same."""
        self._draining = True
        if self._link.shaking_hands:
            self._link.abort()
        elif self._waiting is None:
            self._say_last(reply.SHUTTING_DOWN)
        else:
            self._break_hush(reply.SHUTTING_DOWN)

    def check_deadline(self, now: float) -> None:
        """Called about once a second: nobody needs a finer clock, or one of their own."""
        self._last_reply.look()
        if now < self._deadline:
            return
        if self._link.shaking_hands:
            self._link.abort("no handshake in time")
        elif self._waiting is not None:
            # Answered 451 by `_wait`; what was under way may still become safe.
            self._waiting.cancel()
        elif self._link.open and not self._session.closed:
            log.info("client.timeout", id=self.peer.connection_id, rule=reply.TIMEOUT.rule)
            self._say_last(reply.TIMEOUT)

    # --- the loop -------------------------------------------------------------------

    def _proceed(self) -> None:
        """Take events until the session wants more bytes or a decision has to wait."""
        session = self._session
        try:
            while (event := session.next_event()) is not None:
                waiting = self._handle(event)
                if waiting is not None:
                    self._flush()
                    self._deadline = self._loop.time() + self.house.deadline
                    self._waiting = self._loop.create_task(self._wait(event, waiting))
                    return
        except Exception:  # noqa: BLE001 - the one connection ends that met the bug
            log.failure("client.error", id=self.peer.connection_id)
            session.shut(reply.TRY_AGAIN)
        self._flush()
        if self._draining:
            self._end_if_drained()

    def _handle(self, event: events.Event) -> Awaitable[Answer] | None:
        """Ask; settle what is answered at once, hand back what has to be waited for."""
        try:
            answer = self._ask(event)
        except Refusal as refusal:
            answer = refusal.reply
        except Exception:  # noqa: BLE001 - our own bug costs this client a 451, no more
            answer = self._our_bug()
        if answer is None:
            return None
        # What else there is must be waited for.
        if isinstance(answer, Reply) or isinstance(answer, Recipient):  # noqa: SIM101 - it is faster
            self._settle(event, answer)
            return None
        return answer

    async def _wait(self, event: events.Event, waiting: Awaitable[Answer]) -> None:
        try:
            answer = await waiting
        except Refusal as refusal:
            answer = refusal.reply
        except asyncio.CancelledError:
            log.warning("decision.late", id=self.peer.connection_id, about=type(event).__name__)
            answer = reply.TRY_AGAIN
        except Exception:  # noqa: BLE001 - our own bug costs this client a 451, no more
            answer = self._our_bug()
        self._settle(event, answer)
        self._waiting = None
        if self._link.transport is None:
            self._end()
            return
        self._proceed()
        self._link.resume()
        if self._half_closed and self._waiting is None:
            self._last_reply.close()

    def _our_bug(self) -> Reply:
        log.failure("decision.error", id=self.peer.connection_id)
        return reply.local_error(self.peer.connection_id)

    def _flush(self) -> None:
        data = self._session.data_to_send()
        if self._session.refused:
            self._log_refused_commands()
        if data:
            # An answered command moves the deadline, single octets do not.
            self._deadline = self._loop.time() + self.house.patience
            self._link.send(data, last=self._session.closed)
        if self._session.closed:
            self._last_reply.close()

    def _end_if_drained(self) -> None:
        if self._session.between_transactions:
            self._say_last(reply.SHUTTING_DOWN)

    def _say_last(self, answer: Reply) -> None:
        if not self._session.closed:
            self._session.shut(answer)
        self._flush()

    def _end(self) -> None:
        self._last_reply.ended()
        self._under_way.forget()
        if self._started:
            self.house.gate.gone(self.peer)
            if self._taken or not self.peer.health_check:
                log.info("client.gone", id=self.peer.connection_id, taken=self._taken)
        self._done(self)

    # --- events ---------------------------------------------------------------------

    def _ask(self, event: events.Event) -> Now[Answer] | None:
        """Put an event to the house; None for one that only tells."""
        gate, peer = self.house.gate, self.peer
        # For classes `match` costs three times as much; what comes with every mail comes first.
        if isinstance(event, events.RcptTo):
            return gate.recipient(peer, event, len(self._under_way.recipients))
        if isinstance(event, events.MailFrom):
            return gate.sender(peer, event) if not self._draining else reply.SHUTTING_DOWN
        if isinstance(event, events.DataRequested):
            return gate.data(peer)
        if isinstance(event, events.DataDone):
            return self._hand_over(event.data)
        match event:
            case events.DataChunk():
                self._under_way.keep(event.data, peer.connection_id)
                self._credit(len(event.data))
            case events.Connected():
                return self._greet(peer)
            case events.Hello():
                return gate.hello(peer.introduced(event.name, esmtp=event.esmtp))
            case events.StartTls():
                return reply.READY_FOR_TLS if self.house.tls is not None else reply.TLS_NOT_OFFERED
            case events.Credentials():
                return gate.credentials(peer, event.username, event.password)
            case events.DataRefused():
                self._log_refusal("message.refused", event.reply)
                self._under_way.forget()
            case events.Reset():
                self._under_way.forget()
            case events.Courtesy():
                if event.verb == "RSET":
                    self._under_way.forget()
                return gate.courtesy(peer, event)
        return None

    def _settle(self, event: events.Event, answer: Answer) -> None:
        """Give the session its answer and remember what was agreed."""
        said = answer if isinstance(answer, Reply) else reply.RECIPIENT_OK
        if said is reply.TALKED_EARLY:
            # Whatever it said so far, and says still, is not heard.
            self._session.shut(said)
        else:
            self._session.answer(said)
        if isinstance(event, events.RcptTo):
            if isinstance(answer, Recipient):
                self._under_way.recipients.append(answer)
            else:
                self._log_refusal("rcpt.refused", said, rcpt=event.recipient)
        elif isinstance(event, events.MailFrom):
            if said.positive:
                self._under_way.sender = event
            else:
                self._log_refusal("mail.refused", said, sender=event.reverse_path)
        elif isinstance(event, events.DataRequested):
            if not said.positive:
                self._log_refusal("data.refused", said)
                self._under_way.forget()
        elif isinstance(event, events.DataDone):
            self._taken += said.positive
            self._last_reply.said(positive=said.positive)
            self._under_way.forget()
        else:
            self._settle_rarer(event, said)

    def _settle_rarer(self, event: events.Event, said: Reply) -> None:
        match event:
            case events.Connected():
                if not said.positive:
                    self._log_refusal("client.refused", said)
            case events.Hello() if said.positive:
                self.peer = self.peer.introduced(event.name, esmtp=event.esmtp)
                self._under_way.forget()
            case events.Hello():
                self._log_refusal("hello.refused", said, helo=event.name)
            case events.StartTls() if said.positive:
                self._start_tls()
            case events.Credentials() if said.positive:
                self.peer = replace(self.peer, user=event.username)
                log.info("auth.accepted", id=self.peer.connection_id, user=event.username)
            case events.Credentials():
                self._log_refusal("auth.refused", said, user=event.username)

    # --- the banner -----------------------------------------------------------------

    def _greet(self, peer: Peer) -> Now[Reply]:
        greeting = self.house.gate.connected(peer)
        # A balancer that only looks whether we are there will not wait that long.
        if not self.house.greeting_delay or peer.health_check:
            return greeting
        # From now on, not from when the task begins: the client's first octets may be here.
        self._hush = self._loop.create_future()
        return self._greet_late(greeting, self._hush)

    async def _greet_late(self, greeting: Now[Reply], hush: asyncio.Future[Reply]) -> Reply:
        """Hold the banner back, and look out for who speaks before it (RFC 5321 4.3.1).

        What must be waited for to know the greeting goes on meanwhile.
        """
        delay = self.house.greeting_delay
        self._deadline = self._loop.time() + delay + self.house.deadline
        asked = asyncio.ensure_future(_known(greeting))
        try:
            # Nothing is awaited inside an `except` here: compiled, what is handled there would be
            # seen by everybody else meanwhile.
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    return await hush
            return await asked
        finally:
            self._hush = None
            asked.cancel()

    def _break_hush(self, answer: Reply) -> None:
        if self._hush is not None and not self._hush.done():
            self._hush.set_result(answer)

    # --- TLS ------------------------------------------------------------------------

    def _start_tls(self) -> None:
        self._flush()
        if self.house.tls is not None:
            self._link.start_tls(self.house.tls)
            self._deadline = self._loop.time() + self.house.handshake

    # --- the transaction ------------------------------------------------------------

    def _credit(self, octets: int) -> None:
        """Octets of a message earn time, so that a trickle runs out of it."""
        latest, rate = self._loop.time() + self.house.patience, self.house.minimum_rate
        self._deadline = min(self._deadline + octets / rate, latest) if rate else latest

    def _hand_over(self, end: bytes) -> Now[Reply]:
        """The message is complete: give it to the intake."""
        self._under_way.keep(end, self.peer.connection_id)
        if self._under_way.failed:
            return reply.STORAGE_FULL
        message = self._under_way.message(self.house.identifiers.next(), self.peer)
        self._last_reply.begun(message)
        return self.house.intake(message)

    def _log_refused_commands(self) -> None:
        for answer in self._session.refused:
            self._log_refusal("command.refused", answer)
        self._session.refused.clear()

    def _log_refusal(self, event: str, answer: Reply, **fields: object) -> None:
        log.info(
            event,
            id=self.peer.connection_id,
            peer=self.peer.remote_ip,
            **fields,
            rule=answer.rule or None,
            reply=answer.code,
            text=answer.text,
        )


async def _known(answer: Now[Reply]) -> Reply:
    return answer if isinstance(answer, Reply) else await answer
