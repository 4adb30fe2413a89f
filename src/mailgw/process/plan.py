"""What the workers run with, made before the fork; and what a reload makes of it.

Laws: a plan is built whole or not at all, and a reload that fails leaves the old one in
force. Keys that a reload does not take over keep the value of the start, so what runs is
judged by the rules once more: a half of the old and a half of the new may not fit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

from mailgw.config import Configuration, Settings, Severity
from mailgw.config.declare import declared
from mailgw.config.rules import Written, judge
from mailgw.config.settings import KEYS
from mailgw.gate.rates import Counters
from mailgw.mail.identifiers import Identifiers
from mailgw.mail.unseen import Unseen
from mailgw.plugins import Output
from mailgw.process.house import house_of, output_of
from mailgw.process.logs import Logs, logs_of
from mailgw.wire.house import House

# Reads the sources of the configuration again.
Read = Callable[[], Configuration]


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings and what was built from them. The output is not open; each worker opens its own."""

    settings: Settings
    output: Output
    house: House
    counters: Counters
    logs: Logs
    unseen: Unseen | None = None

    def house_for_worker(self, identifiers: Identifiers | None = None) -> House:
        """The house with identifiers that no other process draws; for after the fork."""
        own = identifiers or Identifiers(self.settings.document.server_id)
        return replace(self.house, identifiers=own)


@dataclass(slots=True)
class Current:
    """The plan in force in this process, and the only one who keeps it: it may be large."""

    plan: Plan


class CannotReload(Exception):
    """What was read cannot be used; `reasons` are all there are."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


def first_plan(settings: Settings, counters: Counters, unseen: Unseen | None = None) -> Plan:
    """Build everything once. Raises what `house_of` and `logs_of` raise."""
    output = output_of(settings)
    identifiers = Identifiers(settings.document.server_id)
    house = house_of(settings, output, identifiers, counters, unseen=unseen)
    return Plan(settings, output, house, counters, logs_of(settings), unseen)


def renewed(plan: Plan, configuration: Configuration) -> Plan:
    """The plan with what a reload takes over. Raises CannotReload."""
    if configuration.errors:
        raise CannotReload([str(finding) for finding in configuration.errors])
    settings = carried_over(plan.settings, configuration.settings)
    remarks = judge(Written(settings, configuration.entries, KEYS))
    wrong = [
        f"{remark.keys[0]}: {remark.text}; some of this needs a restart"
        for remark in remarks
        if remark.severity is Severity.ERROR
    ]
    if wrong:
        raise CannotReload(wrong)
    try:
        house = house_of(
            settings, plan.output, plan.house.identifiers, plan.counters, unseen=plan.unseen
        )
        logs = logs_of(settings)
    except Exception as trouble:  # whatever it is, the old house goes on
        complaint = configuration.placed(str(trouble) or repr(trouble))
        raise CannotReload([complaint]) from trouble
    return replace(plan, settings=settings, house=house, logs=logs)


def carried_over(running: Settings, read: Settings) -> Settings:
    """What was read, with the keys that want a restart as they are running."""
    sections = {}
    for each in fields(Settings):
        old, new = getattr(running, each.name), getattr(read, each.name)
        kept = {
            attribute: getattr(old, attribute)
            for attribute, key in declared(type(old))
            if not key.reload
        }
        sections[each.name] = replace(new, **kept)
    return Settings(**sections)


def in_need_of_a_restart(running: Settings, read: Settings) -> Iterator[str]:
    """Yield the names of keys whose new value `carried_over` does not take."""
    for each in fields(Settings):
        old, new = getattr(running, each.name), getattr(read, each.name)
        for attribute, key in declared(type(old)):
            if not key.reload and getattr(old, attribute) != getattr(new, attribute):
                yield key.name


def fingerprint(configuration: Configuration) -> str:
    """The same for the same keys with the same text, wherever they were written."""
    texts = sorted((name, entry.text) for name, entry in configuration.entries.items())
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
