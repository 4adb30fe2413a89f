"""SpamAssassin: one mail that every installation has to call spam shows all of it at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mailgw.doctor.observation import Observation, error, ok
from mailgw.mail.finding import Finding

Ask = Callable[[bytes], Awaitable[Finding]]

# The Generic Test for Unsolicited Bulk Email, in pieces so that this file is none.
_GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
_MAIL = (
    "Date: Sat, 21 Nov 2026 03:00:00 +0000\r\n"
    "From: mailgw doctor <doctor@example.org>\r\n"
    "To: postmaster@example.org\r\n"
    "Message-ID: <doctor@example.org>\r\n"
    "Subject: a test of the spam filter\r\n"
    "\r\n"
    f"{_GTUBE}\r\n"
).encode()


async def look_at_spamd(place: str, ask: Ask) -> list[Observation]:
    """Ask the spamd at `place` about GTUBE."""
    subject = f"spamd {place}"
    found = await ask(_MAIL)
    told = dict(found.members)
    score = f"{told.get('score', 0)} of {told.get('required-score', 0)} points"
    match found.verdict:
        case "fail":
            return [ok(subject, f"calls the test mail spam (GTUBE, {score})")]
        case "pass":
            return [
                error(
                    subject,
                    f"does not call the test mail spam (GTUBE, {score}): it has no rules",
                    "sa-update, and restart spamd",
                )
            ]
        case _:
            return [error(subject, found.reason, "spamassassin-host and spamassassin-port")]
