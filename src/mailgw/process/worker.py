"""One event loop: serves, and drains when it is asked to end.

A signal to end is a wish, not a blow: what was begun with a client is finished, what was taken is
confirmed, and then the process exits with 0.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

from mailgw.config.settings import Settings
from mailgw.mail.identifiers import Identifiers
from mailgw.observe import log
from mailgw.plugins import Output
from mailgw.process.house import house_of, output_of
from mailgw.process.machine import ready_for_load
from mailgw.wire.house import House
from mailgw.wire.listener import Endpoint, Listener, bind

# How long clients may take to end what they began once we are asked to stop, in seconds.
# Docker's and systemd's patience are set above it.
DRAIN = 25.0


def serve(settings: Settings, ready: Callable[[list[Endpoint]], None]) -> None:
    """Run until SIGTERM or SIGINT, then drain. `ready` is called once all ports listen.

    Raises CannotListen, BadCertificate, BadLocalAddresses or Unavailable for what keeps the
    gateway from starting; nothing is left half open then.
    """
    output = output_of(settings)
    house = house_of(settings, output, Identifiers(settings.document.server_id))
    endpoints = bind(settings.listen.ip, settings.listen.port, settings.listen.secure_port)
    ready_for_load()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(settings, house, output, endpoints, ready))


async def _run(
    settings: Settings,
    house: House,
    output: Output,
    endpoints: list[Endpoint],
    ready: Callable[[list[Endpoint]], None],
) -> None:
    loop = asyncio.get_running_loop()
    end_of_log = log.gather(loop)
    stop, stop_now, idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
    _listen_to_signals(stop, stop_now)
    await output.open()
    listeners = [Listener(endpoint, house, on_idle=idle.set) for endpoint in endpoints]
    for listener in listeners:
        listener.start()
    ready(endpoints)
    log.info("serve.ready", listeners=",".join(str(endpoint) for endpoint in endpoints))
    await stop.wait()
    log.info("serve.draining", clients=sum(len(each.conversations) for each in listeners))
    await _drain(listeners, idle, stop_now, settings.smtp.confirm_timeout)
    await output.close()
    for listener in listeners:
        listener.close()
    log.info("serve.stopped")
    end_of_log()


def _listen_to_signals(stop: asyncio.Event, stop_now: asyncio.Event) -> None:
    def asked_to_stop() -> None:
        # Who asks twice does not want to wait for clients.
        if stop.is_set():
            stop_now.set()
        stop.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, asked_to_stop)
    loop.add_signal_handler(signal.SIGINT, asked_to_stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: log.warning("reload.not-available"))


async def _drain(
    listeners: list[Listener], idle: asyncio.Event, stop_now: asyncio.Event, committing: float
) -> None:
    """Let the clients finish what they began; cut those who do not, but no commit."""
    for listener in listeners:
        listener.stop()
        for conversation in tuple(listener.conversations):
            conversation.drain()
    hurried = asyncio.create_task(stop_now.wait())
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN):
            await _until_idle(listeners, idle, hurried)
    hurried.cancel()
    for listener in listeners:
        for conversation in tuple(listener.conversations):
            conversation.cut()
    with suppress(TimeoutError):
        async with asyncio.timeout(committing):
            await _until_idle(listeners, idle, None)


async def _until_idle(
    listeners: list[Listener], idle: asyncio.Event, hurried: asyncio.Task[bool] | None
) -> None:
    while not all(listener.idle for listener in listeners):
        idle.clear()
        waiter = asyncio.create_task(idle.wait())
        try:
            wanted = {waiter} if hurried is None else {waiter, hurried}
            done, _ = await asyncio.wait(wanted, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        if hurried in done:
            return


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # no wheel for this platform; asyncio's own loop serves as well
        return None
    return uvloop.new_event_loop
