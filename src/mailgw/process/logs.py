"""The logs as they are configured: opened before they are used, all or none.

Who starts as root and becomes another user leaves that user its logs: what is made here
belongs to it, so that it can open them again when they were rotated away.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from mailgw.config.settings import Settings
from mailgw.document.built import Built
from mailgw.document.view import reader
from mailgw.observe import log
from mailgw.observe.destinations import CannotLog, Destination, File, Owner, open_all
from mailgw.observe.received import ReceivedLog, names
from mailgw.observe.template import BadTemplate, Template


@dataclass(frozen=True, slots=True)
class Logs:
    """Where the program's own lines go, open, and from which level on."""

    destinations: tuple[Destination, ...]
    level: str

    def use(self) -> None:
        """Send what is said from now on there, and nowhere else."""
        log.direct(self.destinations, self.level)


def logs_of(settings: Settings) -> Logs:
    """Open what `application-log` names. Raises CannotLog."""
    destinations = open_all(settings.log.application, _owner(settings))
    return Logs(tuple(destinations), settings.log.level)


def received_log_of(settings: Settings) -> ReceivedLog[Built] | None:
    """The received log, where there is to be one. Raises CannotLog, also for its format."""
    if settings.log.received_file is None:
        return None
    try:
        template = template_of(settings.log.received_format)
    except BadTemplate as bad:
        raise CannotLog(f"received-log-format: {bad}") from None
    return ReceivedLog(template, File(settings.log.received_file, _owner(settings)))


def template_of(text: str) -> Template[Built]:
    """Read the value of `received-log-format`. Raises BadTemplate."""
    return Template(text, names(reader))


def _owner(settings: Settings) -> Owner | None:
    if not settings.process.user or os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(settings.process.user)
    except KeyError:  # who becomes that user says that there is none
        return None
    return user.pw_uid, user.pw_gid
