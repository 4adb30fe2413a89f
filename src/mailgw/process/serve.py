"""From the settings to a gateway that serves, in the one order in which it can be done.

As who we were started: the lock, the sockets, and one whole house, so that certificates
and lists that only root can read are read. Then as `user`, for good: the workers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from mailgw.config import Settings
from mailgw.gate.credentials import BadLogins
from mailgw.gate.recipients import BadLocalAddresses
from mailgw.observe import log
from mailgw.observe.destinations import CannotLog
from mailgw.plugins import BadExtension
from mailgw.process.activation import handed_over, matched
from mailgw.process.channel import Channel
from mailgw.process.crew import Crew
from mailgw.process.daemon import Verdict, in_background, quiet
from mailgw.process.left_behind import tell_what_is_left_behind
from mailgw.process.lock import Lock, Locked
from mailgw.process.machine import ready_for_load
from mailgw.process.notify import Notifier
from mailgw.process.plan import Current, Read, first_plan
from mailgw.process.privileges import CannotBecome, become
from mailgw.process.seat import Seat
from mailgw.process.shared import SharedCounters
from mailgw.process.signals import Signals
from mailgw.process.supervisor import Supervisor
from mailgw.process.trouble import CannotStart
from mailgw.process.unseen import Table, UnseenReplies
from mailgw.process.worker import loop_factory, work
from mailgw.wire.endpoint import CannotListen, Endpoint, bind
from mailgw.wire.tls import BadCertificate

# What may be wrong with what was configured, told in one line each.
_TROUBLES = (
    BadCertificate,
    BadExtension,
    BadLocalAddresses,
    BadLogins,
    CannotBecome,
    CannotListen,
    CannotLog,
    Locked,
)

Ready = Callable[[Sequence[Endpoint]], None]


class _Common:
    """What the workers have in common: memory, made before the fork."""

    def __init__(self, settings: Settings) -> None:
        workers, window = settings.listen.threads, settings.smtp.replay_window
        self._counters = SharedCounters(workers)
        self._table = Table(workers, window)
        self.seat = Seat(self._counters)
        # What is dropped at once may as well be dropped twice.
        remembers = window and settings.store.output != "null"
        self.unseen = UnseenReplies(self._table) if remembers else None

    def take(self, place: int) -> None:
        """Be that worker; for after the fork."""
        self.seat.take(place)
        if self.unseen is not None:
            self.unseen.take(place)

    def clear(self, place: int) -> None:
        """Forget what only concerned a worker that ended."""
        self._counters.clear(place)
        self._table.clear(place)


def serve(settings: Settings, read: Read, ready: Ready) -> int:
    """Run until SIGTERM or SIGINT, drain, and return the exit code.

    `read` reads the configuration anew, for a reload. `ready` is told the endpoints once
    all workers serve. Raises CannotStart, and nothing is left half open then. With
    `daemon` it returns when a process in the background serves.
    """
    try:
        # First of all: systemd means the process that it started, and no child of it.
        sockets = handed_over(os.environ)
        notifier = Notifier.taken_from(os.environ)
    except CannotListen as trouble:
        raise CannotStart(str(trouble)) from trouble
    if settings.process.daemon:
        return in_background(
            lambda verdict: _serve(settings, read, ready, sockets, notifier, verdict)
        )
    return _serve(settings, read, ready, sockets, notifier, None)


def _serve(
    settings: Settings,
    read: Read,
    ready: Ready,
    sockets: list[socket.socket],
    notifier: Notifier,
    verdict: Verdict | None,
) -> int:
    process = settings.process
    with ExitStack() as stack:
        let_go: list[Callable[[], None]] = [verdict.leave, quiet] if verdict else []
        try:
            if process.lock is not None:
                lock = Lock(process.lock)
                stack.callback(lock.release)
                let_go.append(lock.leave)
            endpoints = _endpoints(settings, sockets)
            stack.callback(_close, endpoints)
            common = _Common(settings)
            current = Current(first_plan(settings, common.seat, common.unseen))
            current.plan.logs.use()
            if process.user:
                become(process.user)
        except _TROUBLES as trouble:
            raise CannotStart(str(trouble)) from trouble
        loop_factory()  # loaded now, for all workers
        ready_for_load()
        signals = Signals()
        stack.callback(signals.close)
        let_go.append(signals.leave_to_the_parent)

        def serve_clients(place: int, channel: Channel) -> int:
            common.take(place)
            return work(current, place, channel, read, endpoints)

        def all_serve() -> None:
            ready(endpoints)
            log.info(
                "serve.ready",
                listeners=",".join(str(endpoint) for endpoint in endpoints),
                workers=settings.listen.threads,
            )
            if verdict is not None:
                verdict.ready()
            tell_what_is_left_behind(settings)

        return Supervisor(
            Crew(settings.listen.threads, serve_clients, let_go, common.clear),
            current,
            read,
            signals,
            notifier,
            ready=all_serve,
            stop_listening=lambda: _close(endpoints),
        ).run()


def _endpoints(settings: Settings, sockets: Sequence[socket.socket]) -> list[Endpoint]:
    """What was handed over, and the ports for which nothing was. Raises CannotListen."""
    listen = settings.listen
    handed = matched(sockets, listen.port, listen.secure_port)
    there = {endpoint.sock.getsockname()[1] for endpoint in handed}
    return handed + bind(
        listen.ip,
        [port for port in listen.port if port not in there],
        [port for port in listen.secure_port if port not in there],
    )


def _close(endpoints: Sequence[Endpoint]) -> None:
    for endpoint in endpoints:
        endpoint.sock.close()
