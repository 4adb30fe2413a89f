"""A handler for aiosmtpd that puts every message into a maildir, and runs in mailgw as it is.

    PYTHONPATH=scripts/handlers MAILDIR=/var/mail/archive \\
        mailgw serve --handler maildir:ToMaildir --output null

With `output: null` the maildir is all that there is; otherwise it is a copy, and the
queue gets the message too. Nothing in here is mailgw's.
"""

from __future__ import annotations

import asyncio
import mailbox
import os

from aiosmtpd.smtp import SMTP, Envelope, Session


class ToMaildir:
    def __init__(self) -> None:
        self.maildir = mailbox.Maildir(os.environ.get("MAILDIR", "maildir"))

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        # A maildir writes and syncs a file: that waits in a thread, and no client with it.
        await asyncio.to_thread(self.maildir.add, _with_envelope(envelope))
        return "250 OK, in the maildir"


def _with_envelope(envelope: Envelope) -> bytes:
    """The message as received, and on top of it what only the envelope knew."""
    content = envelope.original_content or b""
    recipients = "".join(f"Delivered-To: {each}\n" for each in envelope.rcpt_tos)
    trace = f"Return-Path: <{envelope.mail_from or ''}>\n{recipients}"
    # Files of a maildir have the line ends of the system.
    return trace.encode() + content.replace(b"\r\n", b"\n")
