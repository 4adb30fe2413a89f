"""This machine: its logs, files and other users, and what comes unexpected after MailerQ."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from mailgw.config.rules.written import Remark, Written, error, note, quoted, warning
from mailgw.config.source import COMMAND_LINE, Entry, printable
from mailgw.config.urls import file_of
from mailgw.config.values import BadValue


def logs_can_be_written(written: Written) -> Iterator[Remark]:
    for key, file in _logs(written):
        if not file.parent.is_dir():
            yield error(f"there is no folder {quoted(file.parent)} (make it)", key)
        elif file.is_dir():
            yield error(f"{quoted(file)} is a folder (try a file in it)", key)


def daemon_is_heard(written: Written) -> Iterator[Remark]:
    log = written.settings.log.application
    if written.settings.process.daemon and log and set(log) <= {"stdout", "stderr"}:
        yield warning(
            "a daemon has no terminal, so that nobody sees the log (try syslog)",
            "application-log",
            "daemon",
        )


def files_are_ours(written: Written) -> Iterator[Remark]:
    """Who makes them first can read what we write to them, or keep us from it."""
    files = [
        ("lock", written.settings.process.lock, "/run/mailgw/mailgw.pid"),
        ("queue-store", written.settings.store.queue_store, "/var/lib/mailgw/queue.sqlite"),
    ]
    for name, file, better in files:
        if file and _mode(file.parent) & stat.S_IWOTH:
            yield warning(f"everybody can be first to make a file there (try {better})", name)


def secrets_are_kept(written: Written) -> Iterator[Remark]:
    for name, entry in written.entries.items():
        if not _holds_secret(written, name, entry):
            continue
        if entry.origin == COMMAND_LINE:
            yield warning("everybody on this machine can see it among the processes", name)
        elif entry.file and _world_readable(entry.file):
            file = printable(str(entry.file))
            yield warning(f"everybody on this machine can read it (chmod o-r {file})", name)


def secret_files_are_kept(written: Written) -> Iterator[Remark]:
    settings = written.settings
    files = [
        ("smtp-key", settings.tls.key),
        ("smtp-auth", file_of(settings.access.auth)),
        # What we make is private; what was there before, or is made by logrotate, may not be.
        ("queue-store", settings.store.queue_store),
        *_logs(written),
    ]
    for name, file in files:
        if file and _world_readable(file):
            shown = printable(str(file))
            yield warning(f"everybody on this machine can read the file (chmod o-r {shown})", name)


def unlike_mailerq(written: Written) -> Iterator[Remark]:
    for name, key in written.keys.items():
        unused = (name.startswith("rabbitmq-") and not written.settings.broker.address) or (
            name.startswith("storage-") and written.settings.storage.address is None
        )
        if key.differs and name not in written.entries and not unused:
            yield note(f"not MailerQ's default: {key.differs}", name)


def _logs(written: Written) -> Iterator[tuple[str, Path]]:
    """Files that hold the addresses of who wrote to whom, under their keys."""
    log = written.settings.log
    yield from (("application-log", Path(name)) for name in log.application if "/" in name)
    if log.received_file:
        yield "received-log-file", log.received_file


def _holds_secret(written: Written, name: str, entry: Entry) -> bool:
    key = written.keys.get(name)
    if key is None or key.mask is None or entry.text in ("", key.default):
        return False
    try:
        key.parse(entry.text)
    except BadValue:  # told elsewhere, and not to be masked
        return False
    return "***" in key.show(entry.text)


def _world_readable(file: Path) -> bool:
    mode = _mode(file)
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)


def _mode(file: Path) -> int:
    try:
        return file.stat().st_mode
    except OSError:
        return 0
