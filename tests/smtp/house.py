"""A session with somebody to ask: the smallest house around the language.

What it says and what mail it takes is kept, to be looked at. It asks a plain function,
where the gateway asks its gate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dialogue import Reply as Lines
from dialogue import replies
from mailgw.smtp import events, reply
from mailgw.smtp.address import Address
from mailgw.smtp.extensions import Rules
from mailgw.smtp.reply import Reply
from mailgw.smtp.session import Session

HOST = "mx.example.test"

# Answers an event; knows how many recipients were accepted before.
Gate = Callable[[events.Event, int], Reply]


def open_gate(event: events.Event, _accepted: int) -> Reply:
    """Refuses nobody; knows one login, `user` with `pass`."""
    match event:
        case events.Connected():
            return reply.banner(HOST)
        case events.StartTls():
            return reply.READY_FOR_TLS
        case events.Credentials():
            known = (event.username, event.password) == ("user", "pass")
            return reply.AUTHENTICATED if known else reply.AUTH_FAILED
        case events.MailFrom():
            return reply.SENDER_OK
        case events.RcptTo():
            return reply.RECIPIENT_OK
        case events.DataRequested():
            return reply.START_DATA
        case _:
            return reply.OK


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that was answered 250."""

    mail: events.MailFrom
    recipients: tuple[events.RcptTo, ...]
    content: bytes

    @property
    def envelope(self) -> str:
        """As an `M:` line of a dialogue has it."""
        mail = self.mail
        words = [path(mail.reverse_path)]
        words += [f"SIZE={mail.size}"] * bool(mail.size)
        words += ["BODY=8BITMIME"] * mail.eight_bit + ["SMTPUTF8"] * mail.smtputf8
        words += [f"RET={mail.ret}"] * bool(mail.ret) + [f"ENVID={mail.envid}"] * bool(mail.envid)
        return " -> ".join([" ".join(words), *map(_recipient, self.recipients)])


def path(address: Address | None) -> str:
    return "<>" if address is None else f"<{address.written}>"


def _recipient(event: events.RcptTo) -> str:
    words = [path(event.recipient)]
    words += [f"NOTIFY={event.notify}"] * bool(event.notify)
    words += [f"ORCPT={event.orcpt}"] * bool(event.orcpt)
    return " ".join(words)


class House:
    """`said` are the replies so far, `taken` the messages, `events` all that was asked or told.

    In `events` the octets of a message stand in its last event, so that they do not
    depend on how the client's were cut; those of a refused message are left out.
    """

    def __init__(
        self,
        rules: Rules | None = None,
        gate: Gate = open_gate,
        *,
        tls: bool = False,
        auth_in_clear: bool = False,
    ) -> None:
        self.session = Session(rules or Rules(HOST), tls=tls, auth_in_clear=auth_in_clear)
        self.said: list[Lines] = []
        self.taken: list[Taken] = []
        self.events: list[events.Event] = []
        self._gate = gate
        self._content = b""
        self._mail: events.MailFrom | None = None
        self._recipients: tuple[events.RcptTo, ...] = ()

    def hear(self, *pieces: bytes) -> list[Lines]:
        """Let the client send; return what is said to it. Without pieces: listen."""
        before = len(self.said)
        for piece in pieces or (b"",):
            if piece:
                self.session.receive(piece)
            while (event := self.session.next_event()) is not None:
                self._handle(event)
                self._listen()
            self._listen()
        return self.said[before:]

    def codes(self, *pieces: bytes) -> list[int]:
        """The same, but of the replies only their codes."""
        return [int(lines[0][:3]) for lines in self.hear(*pieces)]

    def _listen(self) -> None:
        text = self.session.data_to_send().decode("utf-8")
        assert text == "" or text.endswith("\r\n")
        self.said += replies(text.split("\r\n")[:-1])

    def _handle(self, event: events.Event) -> None:
        match event:
            case events.DataChunk():
                assert event.data, "a chunk holds something"
                self._content += event.data
                return
            case events.DataRefused() | events.Reset():
                self._forget()
            case events.DataDone():
                event = replace(event, data=self._content + event.data)
                self._answer(event, self._finish(event))
            case _:
                self._answer(event, self._gate(event, len(self._recipients)))
        self.events.append(event)

    def _answer(self, event: events.Event, answer: Reply) -> None:
        self.session.answer(answer)
        match event:
            case events.MailFrom() if answer.positive:
                self._mail = event
            case events.RcptTo() if answer.positive:
                self._recipients += (event,)
            case events.DataDone():
                self._forget()
            case events.Hello() if answer.positive:
                self._forget()
            case events.DataRequested() if not answer.positive:
                self._forget()

    def _finish(self, event: events.DataDone) -> Reply:
        answer = self._gate(event, len(self._recipients))
        if answer.positive:
            assert self._mail is not None, "a message without MAIL"
            assert self._recipients, "a message without RCPT"
            self.taken.append(Taken(self._mail, self._recipients, event.data))
        return answer

    def _forget(self) -> None:
        self._mail, self._recipients, self._content = None, (), b""
