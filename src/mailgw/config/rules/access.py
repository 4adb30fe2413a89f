"""Who may connect, log in and send."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from mailgw.config.rules.written import (
    Remark,
    Written,
    error,
    is_loopback,
    strangers_connect,
    unreadable,
    warning,
)
from mailgw.config.urls import file_of


def proxies_are_few(written: Written) -> Iterator[Remark]:
    if written.settings.access.proxy.everyone:
        yield warning(
            "everybody may say which address he has, and pass for one that is trusted "
            "(name the proxies alone)",
            "smtp-proxy",
        )


def login_is_complete(written: Written) -> Iterator[Remark]:
    access, tls = written.settings.access, written.settings.tls
    if access.username and access.auth:
        yield error(
            "is set beside smtp-username (keep one; hardcoded:// takes several logins)",
            "smtp-auth",
            "smtp-username",
        )
    if access.username and not access.password:
        yield error("needs a password (set smtp-password)", "smtp-username", "smtp-password")
    elif access.password and not access.username:
        yield error("needs a user name (set smtp-username)", "smtp-password", "smtp-username")
    elif written.logins and not tls.certificate and not access.auth_insecure_range:
        yield error(
            "nobody could log in, because AUTH needs TLS "
            "(set smtp-certificate and smtp-key, or smtp-auth-insecure-range)",
            "smtp-username" if access.username else "smtp-auth",
            "smtp-certificate",
            "smtp-auth-insecure-range",
        )
    if access.auth_insecure_range.everyone:
        yield warning("lets everybody send passwords in clear", "smtp-auth-insecure-range")


def logins_can_be_looked_up(written: Written) -> Iterator[Remark]:
    source = written.settings.access.auth
    file = file_of(source)
    if file and (trouble := unreadable(file)):
        yield error(trouble, "smtp-auth")
    url = urlsplit(source) if source.lower().startswith("http://") else None
    if url and not is_loopback(url.hostname or ""):
        yield warning(f"passwords go to {url.hostname} in clear (try https)", "smtp-auth")


def open_relay(written: Written) -> Iterator[Remark]:
    settings = written.settings
    everywhere = settings.access.recipients == "any" and not written.logins
    if everywhere and strangers_connect(settings):
        yield warning(
            "everybody who can connect may write to any address, which is an open relay where "
            "mail is sent on (try local, or set smtp-auth, or smtp-range)",
            "smtp-recipients",
            "smtp-username",
            "smtp-auth",
            "smtp-range",
            "smtp-ip",
            "smtp-proxy",
        )


def extraction_by_strangers(written: Written) -> Iterator[Remark]:
    extract = written.settings.document.extract
    everybody = extract.who == "everybody" or extract.networks.everyone
    if everybody and strangers_connect(written.settings):
        yield warning(
            "everybody who can connect may choose queues and addresses with x-mq-* headers "
            "(try authenticated)",
            "smtp-extract",
            "smtp-range",
            "smtp-ip",
            "smtp-proxy",
        )


def local_addresses_exist(written: Written) -> Iterator[Remark]:
    access, local = written.settings.access, written.settings.local
    if local.addresses and (trouble := unreadable(local.addresses)):
        yield error(trouble, "local-addresses")
    if access.recipients == "local" and not local.addresses and not local.database:
        yield warning(
            "no address is local, so that only authenticated clients can write "
            "(set local-addresses)",
            "smtp-recipients",
            "local-addresses",
            "database-address",
        )
