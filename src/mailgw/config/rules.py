"""What must hold between keys, and what is unsafe on the internet.

A rule is a function from what was written to remarks. The first key of a remark is the
one to change; the remark is dropped where any of its keys could not be read. Rules look
at files, and never at the network.
"""

from __future__ import annotations

import ipaddress
import ssl
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mailgw.config.declare import Key
from mailgw.config.finding import Severity
from mailgw.config.source import COMMAND_LINE, Entry, printable
from mailgw.config.values import has_password

if TYPE_CHECKING:
    from mailgw.config.settings import Settings

# RFC 5321 4.5.3.1.7: a server must take messages of 64K octets.
_SMALLEST_MAXSIZE = 64 * 1024
# RabbitMQ 4: max_message_size, unless the broker's own configuration raises it.
_RABBITMQ_TAKES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Written:
    """What a rule may look at."""

    settings: Settings
    entries: Mapping[str, Entry]
    keys: Mapping[str, Key]


@dataclass(frozen=True, slots=True)
class Remark:
    severity: Severity
    keys: tuple[str, ...]
    text: str


Rule = Callable[[Written], Iterator[Remark]]


def judge(written: Written) -> Iterator[Remark]:
    """Ask every rule."""
    for rule in RULES:
        yield from rule(written)


def _error(text: str, *keys: str) -> Remark:
    return Remark(Severity.ERROR, keys, text)


def _warning(text: str, *keys: str) -> Remark:
    return Remark(Severity.WARNING, keys, text)


def _note(text: str, *keys: str) -> Remark:
    return Remark(Severity.NOTE, keys, text)


# --- listening and TLS --------------------------------------------------------------


def ports_agree(written: Written) -> Iterator[Remark]:
    listen = written.settings.listen
    if not listen.port and not listen.secure_port:
        yield _error("no port to listen on (try 25)", "smtp-port", "smtp-secure-port")
    for port in sorted(set(listen.port) & set(listen.secure_port) - {0}):
        yield _error(f"port {port} is in smtp-port too (keep one)", "smtp-secure-port", "smtp-port")
    for key, ports in (("smtp-port", listen.port), ("smtp-secure-port", listen.secure_port)):
        if 0 in ports:
            yield _note("0 is any free port, another one at each start", key)


def certificate_is_complete(written: Written) -> Iterator[Remark]:
    tls = written.settings.tls
    pair = ("smtp-certificate", "smtp-key")
    if tls.certificate and not tls.key:
        yield _error("needs the private key of the certificate (set smtp-key)", *pair)
    elif tls.key and not tls.certificate:
        yield _error("needs the certificate for this key (set smtp-certificate)", *pair[::-1])
    elif written.settings.listen.secure_port and not tls.certificate:
        yield _error(
            "needs a certificate (set smtp-certificate and smtp-key)", "smtp-secure-port", *pair
        )


def certificate_can_be_used(written: Written) -> Iterator[Remark]:
    tls = written.settings.tls
    troubles = [
        (key, trouble)
        for key, file in (("smtp-certificate", tls.certificate), ("smtp-key", tls.key))
        if file and (trouble := _unreadable(file))
    ]
    for key, trouble in troubles:
        yield _error(trouble, key)
    if tls.certificate and tls.key and not troubles:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # A password of no characters: without one, OpenSSL would ask on the terminal.
            context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
        except ssl.SSLError as error:
            text = f"certificate and key cannot be used together: {error.reason or 'not PEM'}"
            yield _error(text, "smtp-certificate", "smtp-key")


def ciphers_exist(written: Written) -> Iterator[Remark]:
    ciphers = written.settings.tls.ciphers
    if ciphers:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(ciphers)
        except ssl.SSLError:
            yield _error("OpenSSL finds no cipher in it (try HIGH:!aNULL)", "smtp-ciphers")


def mail_in_clear(written: Written) -> Iterator[Remark]:
    if _reachable(written.settings) and not written.settings.tls.certificate:
        yield _warning(
            "without a certificate all mail comes in clear (set it and smtp-key)",
            "smtp-certificate",
            "smtp-ip",
        )


# --- who may send -------------------------------------------------------------------


def login_is_complete(written: Written) -> Iterator[Remark]:
    access, tls = written.settings.access, written.settings.tls
    if access.username and not access.password:
        yield _error("needs a password (set smtp-password)", "smtp-username", "smtp-password")
    elif access.password and not access.username:
        yield _error("needs a user name (set smtp-username)", "smtp-password", "smtp-username")
    elif access.username and not tls.certificate and not access.auth_insecure_range:
        yield _error(
            "nobody could log in, because AUTH needs TLS "
            "(set smtp-certificate and smtp-key, or smtp-auth-insecure-range)",
            "smtp-username",
            "smtp-certificate",
            "smtp-auth-insecure-range",
        )
    if access.auth_insecure_range.everyone:
        yield _warning("lets everybody send passwords in clear", "smtp-auth-insecure-range")


def open_relay(written: Written) -> Iterator[Remark]:
    access = written.settings.access
    if access.recipients == "any" and not access.username and _reachable(written.settings):
        yield _warning(
            "everybody who can connect may write to any address, which is an open relay where "
            "mail is sent on (try local, or set smtp-username)",
            "smtp-recipients",
            "smtp-username",
            "smtp-ip",
        )


def extraction_by_strangers(written: Written) -> Iterator[Remark]:
    extract = written.settings.document.extract
    everybody = extract.who == "everybody" or extract.networks.everyone
    if everybody and _reachable(written.settings):
        yield _warning(
            "everybody who can connect may choose queues and addresses with x-mq-* headers "
            "(try authenticated)",
            "smtp-extract",
            "smtp-ip",
        )


def local_addresses_exist(written: Written) -> Iterator[Remark]:
    access, local = written.settings.access, written.settings.local
    if local.addresses and (trouble := _unreadable(local.addresses)):
        yield _error(trouble, "local-addresses")
    if access.recipients == "local" and not local.addresses:
        yield _warning(
            "no address is local, so that only authenticated clients can write "
            "(set local-addresses)",
            "smtp-recipients",
            "local-addresses",
        )


# --- the dialogue -------------------------------------------------------------------


def sizes_are_sensible(written: Written) -> Iterator[Remark]:
    maxsize = written.settings.smtp.maxsize
    if maxsize < _SMALLEST_MAXSIZE:
        yield _warning("RFC 5321 wants 64 KiB at least (try 64KiB)", "smtp-maxsize")
    elif maxsize > _RABBITMQ_TAKES and written.settings.broker.address:
        yield _note(
            "RabbitMQ 4 takes 16 MiB unless its max_message_size is raised; larger mail would "
            "be refused after it was received",
            "smtp-maxsize",
            "rabbitmq-address",
        )


def newlines_are_carried(written: Written) -> Iterator[Remark]:
    if written.settings.smtp.bare_newlines == "carry":
        yield _warning(
            "what sends such mail on may smuggle a second one (try refuse)", "smtp-bare-newlines"
        )


# --- where mail goes ----------------------------------------------------------------


def mail_has_a_place(written: Written) -> Iterator[Remark]:
    broker, store = written.settings.broker, written.settings.store
    if store.output == "null":
        yield _warning("accepts mail and drops it, for benchmarks only", "output")
    elif not broker.address and not store.queue_store:
        yield _error(
            "no broker and no embedded queue, so that mail has no place to go (set one of them)",
            "rabbitmq-address",
            "queue-store",
            "output",
        )
    if store.queue_store and broker.address:
        yield _note(
            "not used while rabbitmq-address is set: rabbitmq-outage: store is not available yet",
            "queue-store",
            "rabbitmq-address",
        )
    if store.queue_store and not store.queue_store.parent.is_dir():
        folder = printable(str(store.queue_store.parent))
        yield _error(f'there is no folder "{folder}" (make it)', "queue-store")
    elif store.queue_store and store.queue_store.is_dir():
        yield _error("is a folder (try a file in it, such as queue.sqlite)", "queue-store")


def queues_differ(written: Written) -> Iterator[Remark]:
    broker = written.settings.broker
    if broker.address and broker.inbox == broker.outbox:
        yield _warning(
            "is rabbitmq-outbox too: a sender on it would relay whatever comes in",
            "rabbitmq-inbox",
            "rabbitmq-outbox",
        )


def queue_type_can_do_it(written: Written) -> Iterator[Remark]:
    broker = written.settings.broker
    if not broker.address or broker.queue_type != "quorum":
        return
    quorum = "rabbitmq-queue-type"
    if broker.maxpriority is not None:
        yield _error(
            f"quorum queues have no such priorities (leave it empty, or {quorum}: classic)",
            "rabbitmq-maxpriority",
            quorum,
        )
    if not broker.durable:
        yield _error(
            f"quorum queues are always durable (try true, or {quorum}: classic)",
            "rabbitmq-durable",
            quorum,
        )
    if broker.lazy:
        yield _warning("quorum queues have no lazy mode (try false)", "rabbitmq-lazy", quorum)


def broker_keeps_mail(written: Written) -> Iterator[Remark]:
    broker = written.settings.broker
    if not broker.address:
        return
    if not broker.persistent:
        yield _warning("a restart of the broker loses accepted mail (try true)", _PERSISTENT)
    elif not broker.durable and broker.queue_type == "classic":
        yield _warning("a restart of the broker loses the queues (try true)", "rabbitmq-durable")


def broker_is_trusted(written: Written) -> Iterator[Remark]:
    broker = written.settings.broker
    for address in broker.address:
        url = urlsplit(address)
        if url.scheme == "amqps" and not broker.verify:
            yield _warning(
                "anybody on the way can be the broker (try true)",
                "rabbitmq-verify",
                "rabbitmq-address",
            )
        if url.scheme == "amqp" and not _is_loopback(url.hostname or ""):
            yield _warning(
                f"mail and password go to {url.hostname} in clear (try amqps)", "rabbitmq-address"
            )


# --- how it was written -------------------------------------------------------------


def secrets_are_kept(written: Written) -> Iterator[Remark]:
    for name, entry in written.entries.items():
        if not _holds_secret(written, name, entry):
            continue
        if entry.origin == COMMAND_LINE:
            yield _warning("everybody on this machine can see it among the processes", name)
        elif entry.file and _world_readable(entry.file):
            file = printable(str(entry.file))
            yield _warning(f"everybody on this machine can read it (chmod o-r {file})", name)


def unlike_mailerq(written: Written) -> Iterator[Remark]:
    for name, key in written.keys.items():
        about_broker = name.startswith("rabbitmq-") and not written.settings.broker.address
        if key.differs and name not in written.entries and not about_broker:
            yield _note(f"not MailerQ's default: {key.differs}", name)


RULES: tuple[Rule, ...] = (
    ports_agree,
    certificate_is_complete,
    certificate_can_be_used,
    ciphers_exist,
    mail_in_clear,
    login_is_complete,
    open_relay,
    extraction_by_strangers,
    local_addresses_exist,
    sizes_are_sensible,
    newlines_are_carried,
    mail_has_a_place,
    queues_differ,
    queue_type_can_do_it,
    broker_keeps_mail,
    broker_is_trusted,
    secrets_are_kept,
    unlike_mailerq,
)

_PERSISTENT = "rabbitmq-persistent"


def _reachable(settings: Settings) -> bool:
    """Whether a client on another machine could connect."""
    return not settings.listen.ip or not all(_is_loopback(ip) for ip in settings.listen.ip)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761 6.3


def _unreadable(file: Path) -> str:
    shown = f'"{printable(str(file))}"'
    try:
        with file.open("rb"):
            return ""
    except OSError as error:
        return f"{shown} cannot be read: {error.strerror}"


def _holds_secret(written: Written, name: str, entry: Entry) -> bool:
    key = written.keys.get(name)
    if key is None or key.mask is None or entry.text in ("", key.default):
        return False
    if name == "rabbitmq-address":
        return any(has_password(address) for address in written.settings.broker.address)
    return True


def _world_readable(file: Path) -> bool:
    try:
        status = file.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & stat.S_IROTH)
