"""Runs the checks that are wanted on a message: side by side, and within one time limit.

Laws. DMARC waits for SPF and DKIM, nothing else waits for anything. Whatever a check
does, the mail gets its evidence: what has no answer in time is `temperror`, and so is a
check that fails by our own fault, whose traceback is in the log. Nothing goes on after
the evidence is given, or after the caller cancels.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from mailgw.checks.evidence import Evidence, Seal
from mailgw.config.sections.checks import CheckSettings
from mailgw.mail.finding import Check, Finding
from mailgw.mail.octets import Octets
from mailgw.mail.peer import Peer
from mailgw.mail.transaction import Message
from mailgw.observe import log

if TYPE_CHECKING:  # who checks nothing need not wait for its library
    from mailgw.dns import Resolver

# The part of the time that SPF and DKIM have: what they could not find out is known then,
# and DMARC may pass by the other.
_SHARE = 0.8
_LATE = "no answer in time"


@dataclass(frozen=True, slots=True)
class Result:
    """What one check gives: its findings, and the seals if it is ARC."""

    findings: tuple[Finding, ...]
    seals: Sequence[Seal] = ()


# A check of a message and its octets that needs no other check.
Independent: TypeAlias = Callable[[Message, Octets], Awaitable[Result]]
Alignment: TypeAlias = Callable[[Octets, Sequence[Finding]], Awaitable[Finding]]


class Spamd(Protocol):
    """Who is asked about spam; see checks.spamassassin."""

    async def check(self, content: Octets) -> Finding: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Runner:
    """The checks of one configuration: `independent` in the order of their findings.

    `dmarc` is asked with the findings of SPF and DKIM. `patience` is for all, in seconds.
    """

    independent: Mapping[Check, Independent]
    dmarc: Alignment | None = None
    patience: float = 10.0
    spamd: Spamd | None = None

    async def run(self, message: Message, content: Octets) -> Evidence:
        """Give the evidence about a message, within `patience`. Raises nothing."""
        began = time.monotonic()
        peer = message.peer
        tasks = {
            check: asyncio.create_task(_guarded(check, peer, run(message, content)))
            for check, run in self.independent.items()
        }
        everything: dict[Check, asyncio.Task[Result]] = dict(tasks)
        if self.dmarc is not None:
            everything["dmarc"] = asyncio.create_task(
                _guarded("dmarc", peer, self._align(self.dmarc, tasks, content))
            )
        try:
            await asyncio.wait(everything.values(), timeout=self.patience)
            elapsed = (time.monotonic() - began) * 1000
            results = {check: _result(check, task, elapsed) for check, task in everything.items()}
        finally:
            for task in everything.values():
                task.cancel()
        return Evidence(
            tuple(finding for check in _ORDER for finding in _findings(results.get(check))),
            results["arc"].seals if "arc" in results else (),
            elapsed,
        )

    async def close(self) -> None:
        """Let go of what was opened; the resolver is not ours."""
        if self.spamd is not None:
            await self.spamd.close()

    async def _align(
        self, dmarc: Alignment, tasks: Mapping[Check, asyncio.Task[Result]], content: Octets
    ) -> Result:
        began = time.monotonic()
        needed = {check: tasks[check] for check in _ALIGNED if check in tasks}
        await asyncio.wait(needed.values(), timeout=self.patience * _SHARE)
        elapsed = (time.monotonic() - began) * 1000
        known = [
            finding
            for check, task in needed.items()
            for finding in _result(check, task, elapsed).findings
        ]
        return Result((await dmarc(content, known),))


_ALIGNED: tuple[Check, ...] = ("spf", "dkim")
_ORDER: tuple[Check, ...] = ("spf", "dkim", "dmarc", "arc", "spam")


async def _guarded(check: Check, peer: Peer, running: Awaitable[Result]) -> Result:
    """What the check gives; our own bug in it costs this check, not the mail."""
    try:
        return await running
    except Exception:  # noqa: BLE001 - a check ends here, and the mail goes on
        log.failure("check.failed", id=peer.connection_id, check=check)
        return Result(
            (Finding(check, "temperror", reason=f"local error, reference {peer.connection_id}"),)
        )


def _result(check: Check, task: asyncio.Task[Result], elapsed: float) -> Result:
    if task.done() and not task.cancelled():
        return task.result()
    return Result((Finding(check, "temperror", reason=_LATE, milliseconds=elapsed),))


def _findings(result: Result | None) -> tuple[Finding, ...]:
    return () if result is None else result.findings


def runner_of(settings: CheckSettings, resolver: Resolver, hostname: str) -> Runner:
    """The checks that the settings ask for. Loads their libraries, and those alone."""
    wanted = set(settings.check)
    independent: dict[Check, Independent] = {}
    if wanted & {"spf", "dmarc"}:
        independent["spf"] = _spf(settings, resolver, hostname)
    if wanted & {"dkim", "dmarc"}:
        independent["dkim"] = _dkim(resolver)
    if "arc" in wanted:
        independent["arc"] = _arc(resolver)
    spamd = _spamd(settings) if "spam" in wanted else None
    if spamd is not None:
        independent["spam"] = _spam(spamd)
    return Runner(
        independent,
        _dmarc(resolver) if "dmarc" in wanted else None,
        settings.timeout,
        spamd,
    )


def _spf(settings: CheckSettings, resolver: Resolver, hostname: str) -> Independent:
    from mailgw.checks import spf

    limits = spf.Limits(settings.spf_lookups, settings.spf_void_lookups)

    async def run(message: Message, _: Octets) -> Result:
        sender = message.reverse_path
        return Result(
            await spf.check(
                resolver,
                ip=message.peer.remote_ip,
                helo=message.peer.helo,
                reverse_path=None if sender is None else sender.written,
                hostname=hostname,
                limits=limits,
            )
        )

    return run


def _dkim(resolver: Resolver) -> Independent:
    from mailgw.checks import dkim

    async def run(_: Message, content: Octets) -> Result:
        return Result(await dkim.check(resolver, content))

    return run


def _arc(resolver: Resolver) -> Independent:
    from mailgw.checks import arc

    async def run(_: Message, content: Octets) -> Result:
        chain = await arc.check(resolver, content)
        return Result((chain.finding,), chain.seals)

    return run


def _dmarc(resolver: Resolver) -> Alignment:
    from mailgw.checks import dmarc
    from mailgw.checks.organization import public_suffixes

    public_suffixes()  # now, and not when the first mail comes

    def run(content: Octets, findings: Sequence[Finding]) -> Coroutine[object, object, Finding]:
        return dmarc.check(resolver, content, findings)

    return run


def _spamd(settings: CheckSettings) -> Spamd:
    from mailgw.checks.spamassassin import SpamAssassin

    return SpamAssassin(
        settings.spamassassin_host,
        settings.spamassassin_port,
        largest=settings.spamassassin_maxsize,
        patience=settings.spamassassin_timeout,
    )


def _spam(spamd: Spamd) -> Independent:
    async def run(_: Message, content: Octets) -> Result:
        return Result((await spamd.check(content),))

    return run
