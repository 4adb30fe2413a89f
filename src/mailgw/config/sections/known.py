"""Keys that are known and do nothing here: not available yet, sending only, or renamed.

MailerQ's configuration files are full of them. None may be taken for a typing error,
and none that concerns receiving may be taken silently for obeyed.
"""

from __future__ import annotations

from collections.abc import Mapping

# Receiving keys to come, with the value that MailerQ or we have as default, "" where off is.
# Any other value is refused, because a rule that is written down and not obeyed is a hole.
LATER: Mapping[str, str] = {
    # who may connect, and how often
    "smtp-proxy": "",
    "smtp-range": "",
    "smtp-auth": "",
    "smtp-connections": "",
    "smtp-connections-in": "",
    "smtp-connections-per-ip": "",
    "smtp-rate": "",
    "smtp-greeting-delay": "",
    "smtp-dnsbl": "",
    "smtp-protection": "",
    # what is checked and written down
    "smtp-check": "",
    "smtp-auth-results": "",
    "smtp-default-ips": "",
    "smtp-mappable-ips": "",
    "smtp-unmappable-ips": "",
    "dsn-notify": "FAILURE",
    "dsn-ret": "HDRS",
    "spamassassin-host": "",
    "spamassassin-port": "783",
    # extensions
    "handler": "",
    "hook": "",
    # where mail goes
    "rabbitmq-reports": "",
    "rabbitmq-refused": "",
    "rabbitmq-quarantine": "",
    "queue-store-max": "",
    "storage-address": "",
    "storage-policy": "none",
    "storage-above": "",
    "storage-ttl": "",
    "storage-threads": "1",
    "storage-timeout": "20",
    "storage-reschedule": "120",
    # other ways in
    "spool-directory": "",
    "spool-fail-directory": "",
    "spool-delay": "0",
    "spool-remove": "true",
    "spool-extract": "true",
    "spool-open-files": "10",
    "spool-threads": "1",
    # settings kept elsewhere
    "database-address": "",
    "database-ttl": "600",
    "database-validate": "true",
    # DNS
    "dns-server": "",
    "dns-min-ttl": "60",
    "dns-threads": "",
    "dns-getaddrinfo": "",
    "dns-timeout": "",
    "dns-interval": "",
    "dns-attempts": "5",
    "dns-capacity": "100",
    "dns-sockets": "4",
    "dns-buffersize": "",
    "dns-rotate": "",
    # logs
    "received-log-file": "",
    "received-log-format": "",
    "received-bin-log-file": "",
    "application-log": "",
    # the process
    "user": "",
    "lock": "",
    "daemon": "false",
}

# Words that switch a key off, whichever it is.
OFF = frozenset({"", "0", "no", "off", "false", "none"})

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

# Names of MailerQ 3.0, and others that its documentation uses, with today's.
RENAMED: Mapping[str, str] = {
    "smtp-ranges": "smtp-range",
    "smtp-privatekey": "smtp-key",
    "smtp-defaultip": "smtp-default-ips",
    "smtp-defaultips": "smtp-default-ips",
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
    "received-log-maxsize": "received-log-file",
    "received-log-maxage": "received-log-file",
    "received-log-compression": "received-log-file",
    "received-log-history": "received-log-file",
}

# Of all these, the ones whose values hold credentials: never shown.
SECRET: frozenset[str] = frozenset(
    {
        "smtp-auth",
        "storage-address",
        "database-address",
        "cluster-address",
        "proxy-server",
        "www-auth",
        "www-password",
        "www-url",
    }
)
