"""TLS for the server side: a context from files, and the tunnel that a handshake makes.

The tunnel has no socket and no clock: records go in, what the client said comes out, and
the reverse. Law: nothing costs a write of its own that can travel with a reply.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path
from sys import intern
from typing import Final

from mailgw.mail.peer import Tls

# RFC 8446 5.1: the most that one record carries.
_RECORD: Final = 16_384


class BadCertificate(Exception):
    """Certificate, key and ciphers do not make a context; the text says why."""


def server_context(certificate: Path, key: Path, ciphers: str) -> ssl.SSLContext:
    """Load what a listener presents. Raises BadCertificate.

    TLS 1.2 is the floor (RFC 8996). `ciphers` is an OpenSSL string for TLS 1.2, "" for
    the library's choice.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # No tickets to resume with (RFC 8446 4.6.1): every client would pay for what few use. A
    # handshake without them costs as much as one that resumes, where the key is ECDSA.
    context.num_tickets = 0
    try:
        # Without a callback OpenSSL would ask on the terminal for a passphrase.
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except (OSError, ValueError) as trouble:
        raise BadCertificate(f"{certificate} and {key}: {plain(trouble)}") from None
    if ciphers:
        try:
            context.set_ciphers(ciphers)
        except ssl.SSLError:
            raise BadCertificate(f"no cipher matches {ciphers!r}") from None
    return context


class Tunnel:
    """The server's side of TLS with one client, beginning with the handshake."""

    __slots__ = ("_closed", "_incoming", "_outgoing", "_tls", "ended", "negotiated")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._closed = False
        # What the handshake agreed on, None until it is done.
        self.negotiated: Tls | None = None
        # The client said that it says no more.
        self.ended = False

    def receive(self, records: bytes) -> bytes:
        """What the client said in these records, as far as they are complete.

        Then send `data_to_send()`, also where `negotiated` is there since now. Raises
        ssl.SSLError when the handshake fails and for what was not written by the client:
        nothing follows it but `close()`.
        """
        self._incoming.write(records)
        said = []
        try:
            if self.negotiated is None:
                self._tls.do_handshake()
                self.negotiated = _agreed(self._tls)
            # Asked first, because an exception costs more than a record.
            while self._incoming.pending:
                octets = self._tls.read(_RECORD)
                if not octets:
                    self.ended = True
                    break
                said.append(octets)
        except ssl.SSLWantReadError:
            pass
        return said[0] if len(said) == 1 else b"".join(said)

    def data_to_send(self) -> bytes:
        """Records that TLS itself has to say, if any."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def send(self, octets: bytes) -> None:
        """Put octets into records, which `data_to_send` gives. Not amid the handshake."""
        written = self._tls.write(octets)
        while written < len(octets):
            written += self._tls.write(octets[written:])

    def close(self) -> None:
        """Tell the client that nothing was cut off; more cannot be sent (RFC 8446 6.1)."""
        if self._closed:
            return
        self._closed = True
        # The client's own close_notify is not waited for. After a failure, and amid the
        # handshake, there is none to give.
        with suppress(ssl.SSLError):
            self._tls.unwrap()


def _agreed(tls: ssl.SSLObject) -> Tls:
    cipher = tls.cipher()
    # Few there are, and clients may stay for long: none keeps texts of its own.
    return Tls(intern(tls.version() or ""), intern(cipher[0] if cipher else ""))


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase, which cannot be asked for here")


def plain(trouble: OSError | ValueError) -> str:
    """What went wrong, in the words of OpenSSL or of the system, without their numbers."""
    # Of a file that is no certificate it is None, whatever the types say.
    reason = getattr(trouble, "reason", None)
    if isinstance(trouble, ssl.SSLError) and isinstance(reason, str):
        return reason.lower().replace("_", " ")
    if isinstance(trouble, OSError) and trouble.strerror:
        return trouble.strerror
    return str(trouble)
