"""A handler for aiosmtpd that hands every message on to another mail server, and runs in
mailgw as it is.

    PYTHONPATH=scripts/handlers FORWARD_TO=mail.internal.example:25 \\
        mailgw serve --handler forward:Forward --output null --hook-timeout 25

The client hears what that server says: its 250 once it has the message, its refusal, or a
451 when it cannot be reached. Nothing in here is mailgw's.
"""

from __future__ import annotations

import asyncio
import os
import smtplib

from aiosmtpd.smtp import SMTP, Envelope, Session

# In seconds. A hook-timeout that is shorter tells the client to try again while the other
# server may still take the message.
_PATIENCE = 20.0


class Forward:
    def __init__(self) -> None:
        self.host, _, port = os.environ.get("FORWARD_TO", "localhost:25").rpartition(":")
        self.port = int(port)

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
        return await asyncio.to_thread(self._forward, session, envelope)

    def _forward(self, session: Session, envelope: Envelope) -> str:
        peer = session.peer[0] if session.peer else "unknown"
        content = f"X-Peer: {peer}\r\n".encode() + (envelope.original_content or b"")
        options = ["SMTPUTF8"] if envelope.smtp_utf8 else []
        try:
            with smtplib.SMTP(self.host, self.port, timeout=_PATIENCE) as server:
                server.ehlo_or_helo_if_needed()
                said = server.mail(envelope.mail_from or "", options)
                for recipient in envelope.rcpt_tos:
                    # One reply is for all: where one is refused, nobody gets it.
                    said = server.rcpt(recipient) if _yes(said) else said
                return _status(*(server.data(content) if _yes(said) else said))
        except smtplib.SMTPResponseException as no:
            return _status(no.smtp_code, no.smtp_error)
        except (OSError, smtplib.SMTPException):
            return "451 4.4.1 The next server cannot be reached, try again later"


def _yes(said: tuple[int, bytes]) -> bool:
    return 200 <= said[0] < 300


def _status(code: int, text: bytes | str) -> str:
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(words.split())}"
