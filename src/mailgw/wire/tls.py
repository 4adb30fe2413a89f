"""TLS for the server side: a context from files, and what a handshake agreed on."""

from __future__ import annotations

import ssl
from asyncio import BaseTransport
from pathlib import Path

from mailgw.mail.peer import Tls


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
    try:
        # Without a callback OpenSSL would ask on the terminal for a passphrase.
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except (OSError, ValueError) as trouble:
        raise BadCertificate(f"{certificate} and {key}: {_plain(trouble)}") from None
    if ciphers:
        try:
            context.set_ciphers(ciphers)
        except ssl.SSLError:
            raise BadCertificate(f"no cipher matches {ciphers!r}") from None
    return context


def negotiated(transport: BaseTransport) -> Tls | None:
    """What the transport's handshake agreed on; None in clear."""
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        return None
    cipher = tls.cipher()
    return Tls(tls.version() or "", cipher[0] if cipher else "")


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase, which cannot be asked for here")


def _plain(trouble: OSError | ValueError) -> str:
    if isinstance(trouble, ssl.SSLError) and trouble.reason:
        return trouble.reason.lower().replace("_", " ")
    if isinstance(trouble, OSError) and trouble.strerror:
        return trouble.strerror
    return str(trouble)
