"""Keys that are known and do nothing here: to come, sending only, without meaning, or renamed.

MailerQ's configuration files are full of them. None may be taken for a typing error,
and none that concerns receiving may be taken silently for obeyed.
"""

from __future__ import annotations

from collections.abc import Mapping

# Receiving keys to come, with the value that MailerQ or we have as default, "" where off is.
# Any other value is refused, because a rule that is written down and not obeyed is a hole.
LATER: Mapping[str, str] = {
    # where mail goes
    # other ways in
    "spool-directory": "",
    "spool-fail-directory": "",
    "spool-delay": "0",
    "spool-remove": "true",
    "spool-extract": "true",
    "spool-open-files": "10",
    "spool-threads": "1",
}

# Words that switch a key off, whichever it is.
OFF = frozenset({"", "0", "no", "off", "false", "none"})

# Receiving keys that we shall not have, with what to use instead. Refused unless off.
ABSENT: Mapping[str, str] = {
    "smtp-protection": "is not available here: nobody says where its list comes from "
    "(use smtp-dnsbl, or smtp-range)",
}

_RESOLVER = "the resolver decides"
_ROTATION = "logrotate's work: a log that was moved away is opened again"

# Keys whose subject is settled another way here, with the reason: any value is the same to us,
# and none of them keeps mail out or lets it in.
IGNORED: Mapping[str, str] = {
    "dns-interval": _RESOLVER,
    "dns-attempts": _RESOLVER,
    "dns-sockets": _RESOLVER,
    "dns-buffersize": _RESOLVER,
    "dns-rotate": _RESOLVER,
    "dns-threads": _RESOLVER,
    "dns-getaddrinfo": _RESOLVER,
    "rabbitmq-publishers": "each worker publishes over one connection (smtp-threads are the "
    "workers)",
    "database-validate": "the one table that is used is always checked",
    "received-bin-log-file": "the log of MailerQ's own console (received-log-file is the readable "
    "one)",
    "storage-ttl": "what is published stays until its consumer or the store's own rules remove it",
    "storage-reschedule": "where storing fails the client is asked to come again",
    "received-log-maxsize": _ROTATION,
    "received-log-maxage": _ROTATION,
    "received-log-compression": _ROTATION,
    "received-log-history": _ROTATION,
}

_SENDING_LOGS = tuple(
    f"{log}-log-{part}"
    for log in ("send", "download", "www")
    for part in ("file", "directory", "prefix", "maxsize", "maxage", "compression", "history")
)

# Known, and without any use in a program that does not send mail or have a console.
SENDING: frozenset[str] = frozenset(
    {
        "smtp-connections-out",
        "rabbitmq-results",
        "rabbitmq-success",
        "rabbitmq-failure",
        "rabbitmq-retry",
        "rabbitmq-dsn",
        "rabbitmq-consumers",
        "rabbitmq-qos",
        "rabbitmq-minqos",
        "rabbitmq-flush-qos",
        "temporary-type",
        "validate-envelope",
        "validate-recipient",
        "max-delivertime",
        "max-attempts",
        "retry-interval",
        "www-port",
        "www-ip",
        "www-dir",
        "www-connections",
        "www-password",
        "www-auth",
        "www-secure-port",
        "www-certificate",
        "www-privatekey",
        "www-private-key",
        "www-ciphers",
        "www-host",
        "www-url",
        "www-cache-control",
        "render-useragent",
        "cluster-address",
        "cluster-exchange",
        "cluster-verify",
        "plugin-directory",
        "proxy-server",
        "heartbeat",
        "heartbeat-enabled",
        "license",
        "send-bin-log-file",
        "download-bin-log-file",
        *_SENDING_LOGS,
    }
)

# Other spellings that MailerQ's documentation uses for today's keys, and that it takes.
ALIASES: Mapping[str, str] = {
    "smtp-defaultips": "smtp-default-ips",
}

# Names of MailerQ 3.0, and others that its documentation uses, with today's.
RENAMED: Mapping[str, str] = {
    "smtp-ranges": "smtp-range",
    "smtp-privatekey": "smtp-key",
    "smtp-defaultip": "smtp-default-ips",
    "smtp-hostname": "hostname",
    "smtp-check-spf": "smtp-check",
    "smtp-check-dkim": "smtp-check",
    "smtp-check-dmarc": "smtp-check",
    "smtp-authentication-results": "smtp-auth-results",
    "rabbitmq-host": "rabbitmq-address",
    "rabbitmq-user": "rabbitmq-address",
    "rabbitmq-password": "rabbitmq-address",
    "rabbitmq-vhost": "rabbitmq-address",
    "rabbitmq-queue": "rabbitmq-outbox",
    "database": "database-address",
    "storage": "storage-address",
    "error-log": "application-log",
    "received-log-directory": "received-log-file",
    "received-log-prefix": "received-log-file",
}

# Of all these, the ones whose values hold credentials: never shown.
SECRET: frozenset[str] = frozenset(
    {
        "cluster-address",
        "proxy-server",
        "www-auth",
        "www-password",
        "www-url",
    }
)
