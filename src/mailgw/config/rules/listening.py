"""Ports, TLS and the dialogue: what listens, and how it speaks."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from mailgw.config.rules.written import Remark, Written, error, note, reachable, unreadable, warning

# RFC 5321 4.5.3.1.7: a server must take messages of 64K octets.
_SMALLEST_MAXSIZE = 64 * 1024
# RabbitMQ 4: max_message_size, unless the broker's own configuration raises it.
_RABBITMQ_TAKES = 16 * 1024 * 1024


def ports_agree(written: Written) -> Iterator[Remark]:
    listen = written.settings.listen
    if not listen.port and not listen.secure_port:
        yield error("no port to listen on (try 25)", "smtp-port", "smtp-secure-port")
    for port in sorted(set(listen.port) & set(listen.secure_port) - {0}):
        yield error(f"port {port} is in smtp-port too (keep one)", "smtp-secure-port", "smtp-port")
    for key, ports in (("smtp-port", listen.port), ("smtp-secure-port", listen.secure_port)):
        if 0 in ports:
            yield note("0 is any free port, another one at each start", key)


def certificate_is_complete(written: Written) -> Iterator[Remark]:
    tls = written.settings.tls
    pair = ("smtp-certificate", "smtp-key")
    if tls.certificate and not tls.key:
        yield error("needs the private key of the certificate (set smtp-key)", *pair)
    elif tls.key and not tls.certificate:
        yield error("needs the certificate for this key (set smtp-certificate)", *pair[::-1])
    elif written.settings.listen.secure_port and not tls.certificate:
        yield error(
            "needs a certificate (set smtp-certificate and smtp-key)", "smtp-secure-port", *pair
        )


def certificate_can_be_used(written: Written) -> Iterator[Remark]:
    tls = written.settings.tls
    troubles = [
        (key, trouble)
        for key, file in (("smtp-certificate", tls.certificate), ("smtp-key", tls.key))
        if file and (trouble := unreadable(file))
    ]
    for key, trouble in troubles:
        yield error(trouble, key)
    if tls.certificate and tls.key and not troubles:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # A password of no characters: without one, OpenSSL would ask on the terminal.
            context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
        except ssl.SSLError as trouble:
            text = f"certificate and key cannot be used together: {trouble.reason or 'not PEM'}"
            yield error(text, "smtp-certificate", "smtp-key")


def ciphers_exist(written: Written) -> Iterator[Remark]:
    ciphers = written.settings.tls.ciphers
    if ciphers:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(ciphers)
        except ssl.SSLError:
            yield error("OpenSSL finds no cipher in it (try HIGH:!aNULL)", "smtp-ciphers")


def mail_in_clear(written: Written) -> Iterator[Remark]:
    if reachable(written.settings) and not written.settings.tls.certificate:
        yield warning(
            "without a certificate all mail comes in clear (set it and smtp-key)",
            "smtp-certificate",
            "smtp-ip",
            "smtp-proxy",
        )


def sizes_are_sensible(written: Written) -> Iterator[Remark]:
    maxsize, broker = written.settings.smtp.maxsize, written.settings.broker
    if maxsize < _SMALLEST_MAXSIZE:
        yield warning("RFC 5321 wants 64 KiB at least (try 64KiB)", "smtp-maxsize")
        return
    staying, taken = written.settings.storage.largest_staying(maxsize), broker.max_message
    if staying > (taken or _RABBITMQ_TAKES) and broker.address and not broker.encoding:
        remark, most = (
            (note, "16 MiB by default") if taken is None else (warning, f"{taken} octets")
        )
        yield remark(
            f"the broker takes {most}, and larger mail is refused (try storage-address with "
            "storage-above: 10MB, or raise its max_message_size and rabbitmq-max-message-size)",
            "smtp-maxsize",
            "rabbitmq-address",
            "rabbitmq-max-message-size",
            "storage-address",
            "storage-above",
        )


def newlines_are_carried(written: Written) -> Iterator[Remark]:
    if written.settings.smtp.bare_newlines == "carry":
        yield warning(
            "what sends such mail on may smuggle a second one (try refuse)", "smtp-bare-newlines"
        )


def greeting_comes_in_time(written: Written) -> Iterator[Remark]:
    limits, smtp = written.settings.limits, written.settings.smtp
    if limits.greeting_delay >= smtp.timeout:
        yield error(
            "is not shorter than smtp-timeout, so that nobody would be greeted (try 5)",
            "smtp-greeting-delay",
            "smtp-timeout",
        )


def one_client_is_not_all(written: Written) -> Iterator[Remark]:
    limits = written.settings.limits
    per_ip = limits.per_ip or 0
    for key, most in (
        ("smtp-connections", limits.connections),
        ("smtp-connections-in", limits.connections_in),
    ):
        if most is not None and per_ip > most:
            yield warning(
                f"is above {key}, so that one client can take all (try less)",
                "smtp-connections-per-ip",
                key,
            )
