"""What TLS is made of."""

from __future__ import annotations

from pathlib import Path

from mailgw.config.declare import key, section, text_key
from mailgw.config.values import path


@section("tls")
class TlsSettings:
    """TLS"""

    certificate: Path | None = key(
        "smtp-certificate",
        path,
        default="",
        reload=True,
        doc="File with the certificate in PEM, the chain below it. With smtp-key it makes "
        "STARTTLS available. Empty: no TLS.",
    )
    key: Path | None = key(
        "smtp-key",
        path,
        default="",
        reload=True,
        doc="File with the private key of the certificate in PEM, without a passphrase.",
    )
    ciphers: str = text_key(
        "smtp-ciphers",
        default="",
        reload=True,
        doc="Ciphers for TLS 1.2 as OpenSSL writes them. Empty: a modern choice.",
    )
