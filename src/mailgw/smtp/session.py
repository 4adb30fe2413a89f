"""SMTP session, server side (RFC 5321 and the extensions it offers).

Bytes and answers go in; events and bytes come out. Nothing here waits, reads a clock or
knows a socket, so every sentence of the RFCs we obey can be tested by calling a
function:

    session.receive(data)        then always send session.data_to_send()
    session.next_event()         an Event, or None: more data is needed
    session.answer(reply)        exactly once per event that asks
    session.tls_started()        after a 220 to StartTls; forgets what was said in clear

Syntax, order, unknown verbs, sizes and error counting never leave this room.
"""

from __future__ import annotations

from typing import Final

from mailgw.smtp import command, events, reply, sasl
from mailgw.smtp.data import Body
from mailgw.smtp.extensions import Rules
from mailgw.smtp.inbound import Inbound
from mailgw.smtp.reply import Refusal, Reply
from mailgw.smtp.state import (
    ARRIVED,
    AUTH,
    CHUNK,
    CHUNKS,
    CLOSED,
    DATA,
    GREETED,
    HANDSHAKE,
    MAIL,
    RCPT,
    READY,
    TURNED_AWAY,
    State,
)

# What settles a line: an event for somebody else, a reply to be said, or nothing more.
Outcome = events.Event | Reply | None

# What a client may do for nothing, in errors and in tenths of one: see `_say`.
_ERROR: Final = 10
_NUISANCE: Final = 1
_SMALL_CHUNK: Final = 512


_IN_TRANSACTION: Final = (MAIL, RCPT, CHUNKS)
_BETWEEN_TRANSACTIONS: Final = (ARRIVED, GREETED, TURNED_AWAY, READY)
# Stand for "the bytes come by DATA", and for "no message is being read".
_NO_CHUNK: Final = command.Bdat(0, False)
_NO_BODY: Final = Body(0, "carry")


class Session:
    """One client's conversation. `tls` is true on a port with implicit TLS.

    `auth_in_clear` lets this client authenticate without TLS.
    """

    def __init__(self, rules: Rules, *, tls: bool = False, auth_in_clear: bool = False) -> None:
        self.rules = rules
        self.tls = tls
        self.user: str | None = None
        # With what this room refused by itself; who reads it empties it.
        self.refused: list[Reply] = []
        self._auth_in_clear = auth_in_clear
        self._grammar = rules.grammar
        self._state: State = ARRIVED
        self._asked: events.Event | None = None
        self._out: list[bytes] = []
        self._strain = 0
        self._most_strain = rules.max_errors * _ERROR
        self._inbound = Inbound()
        self._smtputf8 = False
        self._chunking = False
        self._body = _NO_BODY
        self._chunk = _NO_CHUNK
        self._chunk_left = 0
        self._mechanism = ""
        self._exchange: sasl.Exchange | None = None

    # --- the door -------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the conversation is over; what is still to send is to be sent first."""
        return self._state is CLOSED

    @property
    def between_transactions(self) -> bool:
        """Whether nothing is lost by ending here (RFC 5321 3.8)."""
        return self._asked is None and self._state in _BETWEEN_TRANSACTIONS

    @property
    def reading_message(self) -> bool:
        return self._state is DATA or self._state is CHUNK

    def receive(self, data: bytes) -> None:
        """Take what the client sent. It is read by `next_event`."""
        if self._state is not CLOSED and self._state is not HANDSHAKE:
            self._inbound.receive(data)

    def data_to_send(self) -> bytes:
        """What must be sent now, in one write; asking empties it."""
        out = self._out
        if len(out) < 2:
            return out.pop() if out else b""
        data = b"".join(out)
        out.clear()
        return data

    def next_event(self) -> events.Event | None:
        """The next event, or None while an answer is owed or more data is needed."""
        inbound = self._inbound
        while self._asked is None:
            state = self._state
            if state is ARRIVED:
                return self._ask(events.Connected())
            if state is CLOSED or state is HANDSHAKE:
                return None
            # A BDAT that has all its octets, be it none, needs no more to be settled.
            if inbound.position == len(inbound.buffer) and (state is not CHUNK or self._chunk_left):
                return None
            if state is DATA or state is CHUNK:
                event = self._read_message()
                if event is None and self.reading_message:
                    return None
            else:
                line = inbound.take_line(auth=state is AUTH)
                if line is None:
                    return None
                event = self._settle(line)
            if event is not None:
                return event
        return None

    def answer(self, answer: Reply) -> None:
        """Settle the event that asked."""
        asked, self._asked = self._asked, None
        # For classes `match` costs three times as much; what comes with every mail comes first.
        if isinstance(asked, events.RcptTo):
            self._answer_recipient(answer)
        elif isinstance(asked, events.MailFrom):
            self._say(answer)
            self._advance(answer, MAIL)
        elif isinstance(asked, events.DataRequested):
            self._answer_data(answer)
        elif isinstance(asked, events.DataDone):
            self._end_transaction()
            if answer.positive:
                self._strain = 0
            self._say(answer)
        else:
            self._answer_rarer(asked, answer)

    def _answer_rarer(self, asked: events.Event | None, answer: Reply) -> None:
        match asked:
            case events.Connected():
                self._say(answer)
                if self._state is ARRIVED:
                    self._state = GREETED if answer.positive else TURNED_AWAY
            case events.Hello():
                self._answer_hello(asked, answer)
            case events.StartTls():
                self._answer_starttls(answer)
            case events.Credentials():
                self._say(answer)
                if answer.positive:
                    self.user = asked.username
            case events.Courtesy():
                self._answer_courtesy(asked, answer)
            case _:
                raise RuntimeError("no event waits for an answer")

    def tls_started(self) -> None:
        """The handshake is done: the client is a stranger again (RFC 3207 4.2)."""
        self.tls = True
        self.user = None
        self._state = GREETED

    def shut(self, answer: Reply) -> None:
        """Say a 421 and read nothing more."""
        self._out.append(answer.wire)
        self._asked = None
        self._state = CLOSED

    # --- saying ---------------------------------------------------------------------

    def _ask(self, event: events.Event) -> events.Event:
        self._asked = event
        return event

    def _say(self, answer: Reply, strain: int | None = None) -> None:
        """Say it; a client that earns too many refusals, or asks idly for ever, is closed.

        A refusal counts as an error, other replies for nothing, where `strain` does not
        say otherwise. An accepted message clears the account.
        """
        self._out.append(answer.wire)
        if strain is None:
            strain = _ERROR if answer.code >= 500 else 0
        self._strain += strain
        if answer.closes:
            self._state = CLOSED
        elif self._strain >= self._most_strain:
            self.refused.append(reply.TOO_MANY_ERRORS)
            self.shut(reply.TOO_MANY_ERRORS)

    def _advance(self, answer: Reply, state: State) -> None:
        if answer.positive and self._state is not CLOSED:
            self._state = state

    def _end_transaction(self) -> None:
        if self._state is not CLOSED:
            self._state = READY

    # --- commands -------------------------------------------------------------------

    def _settle(self, line: bytes | Reply) -> events.Event | None:
        if self._state is AUTH:
            outcome = self._respond(line)
        elif isinstance(line, Reply):
            outcome = line
        else:
            outcome = self._obey(command.parse(line, self._grammar))
        if isinstance(outcome, Reply):
            if not outcome.positive:
                self.refused.append(outcome)
            self._say(outcome)
            return None
        return outcome

    def _obey(self, asked: command.Command | Reply) -> Outcome:
        """Check the order of a command; make it an event or a reply."""
        if isinstance(asked, events.RcptTo):
            return self._rcpt(asked)
        if isinstance(asked, events.MailFrom):
            return self._mail(asked)
        if isinstance(asked, events.DataRequested):
            return self._data(asked)
        match asked:
            case events.Hello():
                # RFC 5321 3.1: whom 554 greeted is heard until it says QUIT, in vain.
                turned_away = self._state is TURNED_AWAY
                return reply.BAD_SEQUENCE if turned_away else self._ask(asked)
            case command.Quit():
                if self.rules.courtesies:
                    return self._ask(events.Courtesy("QUIT", "", reply.BYE))
                return reply.BYE
            case command.Bdat():
                return self._bdat(asked)
            case command.Said():
                if self.rules.courtesies and asked.verb != "HELP":
                    return self._ask(events.Courtesy(asked.verb, asked.argument, asked.reply))
                self._say(asked.reply, _NUISANCE)
            case events.Reset():
                return self._reset(asked)
            case events.StartTls():
                return self._starttls(asked)
            case command.Auth():
                return self._auth(asked)
            case Reply():
                return asked
        return None

    def _out_of_order(self) -> Reply:
        # RFC 5321 4.1.4: EHLO opens a session.
        return reply.HELLO_FIRST if self._state is GREETED else reply.BAD_SEQUENCE

    def _reset(self, asked: events.Reset) -> events.Event:
        if self._state in _IN_TRANSACTION:
            self._end_transaction()
        if self.rules.courtesies:
            return self._ask(events.Courtesy("RSET", "", reply.OK))
        self._say(reply.OK, _NUISANCE)
        return asked

    def _answer_hello(self, asked: events.Hello, answer: Reply) -> None:
        if not answer.positive:
            self._say(answer)
            return
        # RFC 5321 4.1.4: amid a transaction it does what RSET does.
        self._end_transaction()
        self._chunking = asked.esmtp
        if not self.rules.courtesies:
            answer = self.rules.hellos[asked.esmtp, self.tls, self._auth_offered()]
        self._say(answer, _NUISANCE)

    def _answer_courtesy(self, asked: events.Courtesy, answer: Reply) -> None:
        self._say(answer, _ERROR if answer.code >= 500 else _NUISANCE)
        if asked.verb == "QUIT":
            # RFC 5321 4.1.1.10: the client is gone, whatever it was told.
            self._state = CLOSED

    def _mail(self, asked: events.MailFrom) -> Outcome:
        if self._state is not READY:
            return self._out_of_order()
        # RFC 1870 6.1: refused before it is sent.
        if asked.size > self.rules.max_size:
            return reply.TOO_BIG
        self._smtputf8 = asked.smtputf8
        return self._ask(asked)

    def _rcpt(self, asked: events.RcptTo) -> Outcome:
        if self._state is not MAIL and self._state is not RCPT:
            return self._out_of_order()
        if not self._smtputf8 and not asked.recipient.ascii:
            return reply.NEEDS_SMTPUTF8_RECIPIENT
        return self._ask(asked)

    def _answer_recipient(self, answer: Reply) -> None:
        if answer.positive:
            self._state = RCPT
        # A mailing list has dead addresses; a harvester has little else.
        self._say(answer, _NUISANCE if answer.code >= 500 else 0)

    def _starttls(self, asked: events.StartTls) -> Outcome:
        if self.tls:
            return reply.TLS_ACTIVE
        if not self.rules.starttls:
            return reply.TLS_NOT_OFFERED
        if self._state is not READY:
            return self._out_of_order()
        return self._ask(asked)

    def _answer_starttls(self, answer: Reply) -> None:
        self._say(answer)
        if answer.code == 220:
            # Dropped, not parsed: bytes queued behind STARTTLS came in clear and would
            # otherwise run inside TLS (RFC 3207 4.2; CVE-2011-0411).
            self._inbound.clear()
            self._state = HANDSHAKE

    # --- AUTH (RFC 4954) ------------------------------------------------------------

    def _auth_offered(self) -> bool:
        return self.rules.auth and (self.tls or self._auth_in_clear)

    def _auth(self, asked: command.Auth) -> Outcome:
        if not self.rules.auth:
            return reply.AUTH_NOT_OFFERED
        if self.user is not None:
            return reply.AUTH_DONE
        if self._state is not READY:
            return self._out_of_order()
        if not self._auth_offered():
            return reply.AUTH_NEEDS_TLS
        mechanism = sasl.MECHANISMS.get(asked.mechanism)
        if mechanism is None:
            return reply.AUTH_UNKNOWN_MECHANISM
        try:
            initial = None if asked.initial is None else sasl.decode(asked.initial, initial=True)
        except Refusal as refusal:
            return refusal.reply
        self._mechanism, self._exchange = asked.mechanism, mechanism(initial)
        return self._continue(self._exchange, None)

    def _respond(self, line: bytes | Reply) -> Outcome:
        exchange, self._exchange = self._exchange, None
        self._state = READY
        if exchange is None:
            raise RuntimeError("no exchange is under way")
        if isinstance(line, Reply):
            return reply.AUTH_TOO_LONG if line is reply.LINE_TOO_LONG else line
        try:
            response = sasl.decode(line.decode("ascii", "replace"))
        except Refusal as refusal:
            return refusal.reply
        return self._continue(exchange, response)

    def _continue(self, exchange: sasl.Exchange, response: bytes | None) -> Outcome:
        """Go one step on; without a response, to the first."""
        try:
            prompt = next(exchange) if response is None else exchange.send(response)
        except StopIteration as end:
            username, password = end.value
            return self._ask(events.Credentials(self._mechanism, username, password))
        except Refusal as refusal:
            return refusal.reply
        self._state, self._exchange = AUTH, exchange
        return sasl.challenge(prompt)

    # --- the message ----------------------------------------------------------------

    def _data(self, asked: events.DataRequested) -> Outcome:
        if self._state is MAIL:
            return reply.NO_RECIPIENTS
        # RFC 3030 2: not after a BDAT of the same transaction.
        if self._state is not RCPT:
            return self._out_of_order()
        self._chunk = _NO_CHUNK
        return self._ask(asked)

    def _bdat(self, asked: command.Bdat) -> Outcome:
        """A refused BDAT is answered now; its octets come all the same (RFC 3030 2)."""
        if self._state not in (RCPT, CHUNKS):
            self._inbound.discard(asked.size)
            return reply.NO_RECIPIENTS if self._state is MAIL else self._out_of_order()
        if not self._chunking:  # who said HELO was offered nothing
            self._inbound.discard(asked.size)
            return reply.NOT_IMPLEMENTED
        first = self._state is RCPT
        if (0 if first else self._body.size) + asked.size > self.rules.max_size:
            self._inbound.discard(asked.size)
            return self._refuse_message(reply.TOO_BIG)
        self._chunk, self._chunk_left = asked, asked.size
        if first:
            return self._ask(events.DataRequested())
        self._state = CHUNK
        return None

    def _answer_data(self, answer: Reply) -> None:
        chunked = self._chunk is not _NO_CHUNK
        if not answer.positive:
            self._inbound.discard(self._chunk_left if chunked else 0)
            self._end_transaction()
            self._say(answer)
            return
        self._body = Body(self.rules.max_size, self.rules.newlines)
        self._state = CHUNK if chunked else DATA
        if not chunked:
            self._say(reply.START_DATA)

    def _read_message(self) -> events.Event | None:
        octets, complete = self._read_dots() if self._state is DATA else self._read_chunk()
        if not complete:
            return events.DataChunk(octets) if octets else None
        trouble = self._body.trouble
        if trouble is not None:
            return self._refuse_message(trouble)
        return self._ask(events.DataDone(octets))

    def _read_dots(self) -> tuple[bytes, bool]:
        inbound, body = self._inbound, self._body
        octets, inbound.position, complete = body.dots.read(inbound.buffer, inbound.position)
        return body.take(octets, last=complete), complete

    def _read_chunk(self) -> tuple[bytes, bool]:
        octets = self._inbound.take(self._chunk_left)
        self._chunk_left -= len(octets)
        ended = self._chunk_left == 0
        complete = ended and self._chunk.last
        if ended and not complete:
            self._state = CHUNKS
            # Small chunks, for ever, are no way to send a message.
            strain = _NUISANCE if self._chunk.size < _SMALL_CHUNK else 0
            self._say(Reply(250, "0.0", f"{self._chunk.size} octets received"), strain)
        return self._body.take(octets, last=complete), complete

    def _refuse_message(self, answer: Reply) -> events.Event:
        self._end_transaction()
        self._say(answer)
        return events.DataRefused(answer)
