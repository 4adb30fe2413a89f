"""The world in which mail is checked: a mail that passes everything, and the DNS behind it.

Laws: who signs and who answers DNS questions is what the tests use, so nothing of it is
what is measured; both sides of a comparison ask the same name server.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from reception import Letter

sys.path.append(str(Path(__file__).parent.parent / "tests"))

import signers
from mailgw.dns import AresResolver
from mailgw.mail.finding import Finding
from nameserver import NameServer

CLIENT, HELO = "127.0.0.1", "mx.sender.test"
SENDER = "bounce@sender.test"
HOSTNAME = "mx.ours.test"
FOUR = ("spf", "dkim", "dmarc", "arc")
SIGNED = "from:to:subject:date:message-id:mime-version:content-type"
HEADER = (
    b"Received: from app.sender.test (app.sender.test [192.0.2.10])\r\n"
    b"\tby mx.sender.test with ESMTPS id 4f1a; Fri, 20 Nov 2026 23:43:38 +0000\r\n"
    b"From: Anna Sender <anna@sender.test>\r\n"
    b"To: Bob <bob@ours.test>\r\n"
    b"Subject: what we said on Tuesday about the\r\n\tdelivery\r\n"
    b"Date: Fri, 20 Nov 2026 23:43:37 +0000\r\n"
    b"Message-ID: <4f1a.2c@app.sender.test>\r\n"
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n"
    b"\r\n"
)
_LINE = b"What is written here is of no interest, but it has words and blanks.\r\n"
# Longer than any run: what is in the caches stays there.
_TTL = 86_400


@contextmanager
def name_server(more: Mapping[str, str] | None = None) -> Iterator[NameServer]:
    """The DNS of the senders, for the length of a block; `more` are further TXT records."""
    texts = {
        "sender.test": "v=spf1 include:_spf.sender.test mx -all",
        "_spf.sender.test": "v=spf1 ip4:192.0.2.0/24 ip4:127.0.0.1 ip6:2001:db8::/32 ~all",
        HELO: "v=spf1 a -all",
        "_dmarc.sender.test": "v=DMARC1; p=reject; rua=mailto:dmarc@sender.test",
        **{name: record for name, [record] in signers.chain_world(50).items()},
        **(more or {}),
    }
    records = {(name, "TXT"): [_strings(text)] for name, text in texts.items()}
    records |= {("sender.test", "MX"): [f"10 {HELO}."], (HELO, "A"): [CLIENT]}
    server = NameServer(records, _TTL)
    try:
        yield server
    finally:
        server.close()


def resolver(server: NameServer) -> AresResolver:
    """The resolver of the gateway, as its settings have it by default."""
    at = [("127.0.0.1", server.port)]
    return AresResolver(at, timeout=5.0, min_ttl=60, capacity=100)


def signed_mail(size: int) -> bytes:
    """A mail of about so many octets, signed once, with one ARC set on top."""
    body = _LINE * ((size - 3_000) // len(_LINE))
    content = HEADER + body
    return signers.chain(signers.signature(content, {"h": SIGNED}) + content, 1)


def passes(findings: tuple[Finding, ...]) -> bool:
    """Whether there is a finding of each of the four checks, and all of them pass."""
    return {each.check for each in findings} == set(FOUR) and all(
        each.verdict == "pass" for each in findings
    )


def letter(file: Path, size: int) -> Letter:
    """The signed mail as smtp-source sends it from a file: it adds the CRs itself."""
    file.write_bytes(signed_mail(size).replace(b"\r\n", b"\n"))
    return Letter(file, SENDER, HELO)


def _strings(text: str) -> str:
    """A TXT record as in a zone file: in strings of at most 255 octets."""
    return " ".join(f'"{text[start : start + 200]}"' for start in range(0, len(text), 200))
