"""Stands where aiosmtpd's tests have their conftest.py: their controllers serve our engine.

test_command_tests.py puts this file beside them as conftest.py, and theirs, unchanged, as
given.py. Law: a test passes here only if it would fail without our engine, so for each
one it is noted whether a client of it reached a listener of ours; and where they compare
a reply of the server's own, its code counts, for the words are each server's own. Replies
that their handlers made up are compared word by word.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import types
import unittest.mock
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiosmtpd.controller
import aiosmtpd.smtp
import aiosmtpd.testing.statuscodes
import pytest

from mailgw.config.networks import NOWHERE, networks
from mailgw.gate.door import Door
from mailgw.gate.gate import Gate
from mailgw.gate.guesses import Guesses
from mailgw.gate.handler import Handled
from mailgw.gate.rates import Alone
from mailgw.gate.recipients import LocalAddresses
from mailgw.intake import discard
from mailgw.mail.identifiers import Identifiers
from mailgw.smtp.extensions import Rules, hello_reply
from mailgw.wire.endpoint import bind
from mailgw.wire.house import House
from mailgw.wire.listener import Listener

PATIENCE = 15.0
# What the clients of the test that is running have reached of ours.
reached = 0


class Recorded(Handled):
    """Shows a controller what it would see of aiosmtpd's own server object."""

    def __init__(self, controller: Controller, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._controller = controller

    def connected(self, peer: Any) -> Any:
        global reached
        reached += 1
        answer = super().connected(peer)
        self._controller.smtpd = self._servers[peer.connection_id]
        return answer


class Configured:
    """Their handler, with the authenticator that they gave to their server."""

    def __init__(self, handler: Any, server: aiosmtpd.smtp.SMTP) -> None:
        self._handler = handler
        self.authenticator = server._authenticator or _from_callback(server._auth_callback)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)


def _from_callback(callback: Any) -> Any:
    def authenticator(
        _server: Any, _session: Any, _envelope: Any, mechanism: str, data: Any
    ) -> Any:
        right = bool(callback(mechanism, *data))
        return aiosmtpd.smtp.AuthResult(success=right, handled=False, auth_data=data)

    return authenticator


class Controller:
    """What their Controller is for a test: a listener in a thread. Ports are free ones."""

    def __init__(
        self,
        handler: Any,
        hostname: str | None = None,
        port: int = 0,
        loop: Any = None,
        *,
        ready_timeout: float = PATIENCE,
        ssl_context: Any = None,
        server_hostname: str | None = None,
        **options: Any,
    ) -> None:
        self.handler = handler
        self.hostname = "127.0.0.1"
        self.port = 0
        self.ssl_context = ssl_context
        self.SMTP_kwargs = {"enable_SMTPUTF8": True} | options
        if server_hostname:
            self.SMTP_kwargs["hostname"] = server_hostname
        self.smtpd: Any = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._trouble: Exception | None = None

    def factory(self) -> aiosmtpd.smtp.SMTP:
        """Tests override it; what they set on the server they make is read off it."""
        return aiosmtpd.smtp.SMTP(self.handler, **self.SMTP_kwargs)

    def start(self) -> None:
        assert self._thread is None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        if self._trouble is not None:
            raise self._trouble

    def stop(self) -> None:
        assert self._thread is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE)
        self._thread = None

    def _serve(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception as trouble:  # noqa: BLE001 - raised by start()
            self._trouble = trouble
        finally:
            self._ready.set()

    async def _run(self) -> None:
        self._loop, self._end, idle = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        self.smtpd = server = self.factory()
        secure = self.ssl_context is not None
        [endpoint] = bind(["127.0.0.1"], [] if secure else [0], [0] if secure else [])
        self.port = endpoint.sock.getsockname()[1]
        listener = Listener(endpoint, self._house(server), on_idle=idle.set)
        listener.start()
        self._ready.set()
        await self._end.wait()
        listener.stop()
        for conversation in tuple(listener.conversations):
            conversation.cut()
        async with asyncio.timeout(PATIENCE):
            while not listener.idle:
                idle.clear()
                await idle.wait()
        listener.close()

    def _house(self, server: aiosmtpd.smtp.SMTP) -> House:
        tls = self.ssl_context or server.tls_context
        in_clear = NOWHERE if server._auth_require_tls else networks("127.0.0.0/8")
        rules = Rules(
            server.hostname,
            max_size=server.data_size_limit or 100_000_000,
            # What their server does without being told.
            addresses="loose",
            newlines="carry",
            starttls=server.tls_context is not None,
            auth=True,
            courtesies=True,
        )
        gate = Recorded(
            self,
            Gate(server.hostname, LocalAddresses.empty(), 1000, lambda: None),
            Configured(self.handler, server),
            "theirs",
            hostname=server.hostname,
            offer=lambda peer: hello_reply(
                rules,
                esmtp=peer.esmtp,
                tls=peer.secure,
                auth=peer.secure or peer.remote_ip in in_clear,
            ),
            guesses=Guesses(0),
            seconds=PATIENCE,
            own_reply=True,
        )
        return House(
            rules=rules,
            door=Door(Alone()),
            gate=gate,
            intake=gate.intake(discard),
            identifiers=Identifiers("1"),
            patience=server._timeout_duration,
            deadline=PATIENCE,
            spool_memory=1_000_000,
            tls=tls,
            auth_in_clear=in_clear,
        )


class Spoken(aiosmtpd.testing.statuscodes.StatusCode):
    """A reply of the server's own: the same as another with the same code."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, tuple) and self[0] == other[0]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[0])

    def __call__(self, *args: bytes) -> Spoken:
        return Spoken(self.code, self.mesg % args)


class Mocker:
    """As much of pytest-mock as these tests use."""

    Mock = unittest.mock.Mock

    def __init__(self) -> None:
        self._patches: list[Any] = []

    def patch(self, target: str, **options: Any) -> Any:
        self._patches.append(unittest.mock.patch(target, **options))
        return self._patches[-1].start()

    def spy(self, thing: Any, name: str) -> Any:
        self._patches.append(unittest.mock.patch.object(thing, name, wraps=getattr(thing, name)))
        return self._patches[-1].start()

    def undo(self) -> None:
        for patch in reversed(self._patches):
            patch.stop()


def _stand_in(name: str, **contents: Any) -> None:
    """A module that they import, and that is not here."""
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(contents)


def _resource(package: str, name: str) -> str:
    return str(Path(__file__).parent.parent / "/".join(package.split(".")[1:]) / name)


_stand_in("pytest_mock", MockFixture=Mocker)
_stand_in("pkg_resources", resource_filename=_resource)
aiosmtpd.controller.Controller = Controller
for _name, _code in vars(aiosmtpd.testing.statuscodes.SMTP_STATUS_CODES).items():
    if _name.startswith("S"):
        setattr(aiosmtpd.testing.statuscodes.SMTP_STATUS_CODES, _name, Spoken(*_code))

from . import given  # noqa: E402 - it imports what was put in place above

globals().update({name: each for name, each in vars(given).items() if not name.startswith("__")})


@pytest.fixture
def mocker() -> Iterator[Mocker]:
    used = Mocker()
    yield used
    used.undo()


@pytest.fixture(scope="session")
def session_mocker() -> Iterator[Mocker]:
    used = Mocker()
    yield used
    used.undo()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    global reached
    reached = 0
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """One line a phase: what became of it, and whether it was about our engine at all."""
    with Path(os.environ["OUTCOMES"]).open("a") as file:
        outcome = {
            "test": report.nodeid,
            "when": report.when,
            "outcome": report.outcome,
            "reached": reached > 0,
            "crash": str(getattr(report.longrepr, "reprcrash", report.longrepr or ""))[-300:],
        }
        file.write(json.dumps(outcome) + "\n")
