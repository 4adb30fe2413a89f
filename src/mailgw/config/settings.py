"""From sources to Settings: the only way in.

Reading never stops at the first mistake: all findings of all sources are collected, and
what can be read is read. Later sources lie on top of earlier ones: default, first file,
second file, environment, command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar, cast

from mailgw.config import rules
from mailgw.config.declare import Key, declared
from mailgw.config.finding import ConfigError, Finding, Severity
from mailgw.config.sections.access import AccessSettings
from mailgw.config.sections.broker import BrokerSettings
from mailgw.config.sections.checks import CheckSettings
from mailgw.config.sections.dns import DnsSettings
from mailgw.config.sections.document import DocumentSettings
from mailgw.config.sections.extensions import ExtensionSettings
from mailgw.config.sections.known import (
    ABSENT,
    ALIASES,
    IGNORED,
    LATER,
    OFF,
    RENAMED,
    SECRET,
    SENDING,
)
from mailgw.config.sections.limits import LimitSettings
from mailgw.config.sections.listen import ListenSettings
from mailgw.config.sections.local import LocalSettings
from mailgw.config.sections.log import LogSettings
from mailgw.config.sections.process import ProcessSettings
from mailgw.config.sections.smtp import SmtpSettings
from mailgw.config.sections.storage import StorageSettings
from mailgw.config.sections.store import StoreSettings
from mailgw.config.sections.tls import TlsSettings
from mailgw.config.source import (
    DEFAULT,
    Entry,
    Known,
    from_arguments,
    from_environment,
    from_file,
    printable,
)
from mailgw.config.values import BadValue

S = TypeVar("S")

SECTIONS: tuple[type, ...] = (
    ListenSettings,
    TlsSettings,
    SmtpSettings,
    AccessSettings,
    LimitSettings,
    LocalSettings,
    CheckSettings,
    DocumentSettings,
    BrokerSettings,
    StoreSettings,
    StorageSettings,
    ExtensionSettings,
    DnsSettings,
    LogSettings,
    ProcessSettings,
)

KEYS: Mapping[str, Key] = MappingProxyType(
    {key.name: key for section in SECTIONS for _, key in declared(section)}
)

# Every name that may be written, and the one to write today.
KNOWN: Mapping[str, str] = MappingProxyType(
    {name: name for name in (*KEYS, *LATER, *ABSENT, *IGNORED, *SENDING)}
    | dict(ALIASES)
    | dict(RENAMED)
)
_NAMES = Known(KNOWN, ALIASES, frozenset(key.name for key in KEYS.values() if key.several))


@dataclass(frozen=True, slots=True)
class Settings:
    """What the gateway runs with: one attribute per section. `Settings()` is all defaults."""

    listen: ListenSettings = field(default_factory=ListenSettings)
    tls: TlsSettings = field(default_factory=TlsSettings)
    smtp: SmtpSettings = field(default_factory=SmtpSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    local: LocalSettings = field(default_factory=LocalSettings)
    checks: CheckSettings = field(default_factory=CheckSettings)
    document: DocumentSettings = field(default_factory=DocumentSettings)
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    extensions: ExtensionSettings = field(default_factory=ExtensionSettings)
    dns: DnsSettings = field(default_factory=DnsSettings)
    log: LogSettings = field(default_factory=LogSettings)
    process: ProcessSettings = field(default_factory=ProcessSettings)


@dataclass(frozen=True, slots=True)
class Line:
    """One key as show-config prints it; secrets are masked. `remark` is "" where it is in use."""

    key: str
    value: str
    default: str
    origin: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that reading found out.

    `entries` are the keys that somebody wrote, each as the topmost source has it.
    `settings` hold the default for a key that has an error. `account` holds, beside the
    findings, every key that somebody wrote and that does what it says.
    """

    settings: Settings = field(repr=False)
    entries: Mapping[str, Entry] = field(repr=False)
    findings: tuple[Finding, ...]
    account: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.severity is Severity.ERROR)

    def placed(self, complaint: str) -> str:
        """What the start complains of as "key: ...", with the file and line of the key in front."""
        entry = self.entries.get(complaint.partition(": ")[0])
        if entry is None:
            return complaint
        origins = [line.origin for line in entry.lines if line.text in complaint]
        return f"{origins[0] if origins else entry.origin}: {complaint}"

    def refused(self, complaint: str) -> Configuration:
        """The same with one more error, "key: what is wrong"."""
        key, _, text = complaint.partition(": ")
        origin = self.placed(complaint).removesuffix(f": {complaint}")
        error = Finding(Severity.ERROR, origin, key, text)
        account = (each for each in self.account if each.key != key)
        return replace(self, findings=(error, *self.findings), account=(error, *account))

    def lines(self) -> Iterator[Line]:
        """Yield every key that is available, then those that were written and have no use here."""
        for name, key in KEYS.items():
            entry = self.entries.get(name)
            remark = _SENDING if key.sending else ""
            default = key.show(key.default)
            if entry is None:
                yield Line(name, default, default, DEFAULT, remark)
            else:
                yield Line(name, key.show(entry.text), default, entry.origin, remark)
        for name, entry in self.entries.items():
            if name not in KEYS:
                shown = "***" if name in SECRET and entry.text else entry.text
                yield Line(name, shown, LATER.get(name, ""), entry.origin, _unused(name))


_SENDING = "not applicable, only concerns sending"
_OFF = "off"


def _unused(name: str) -> str:
    """Why a key has no section of ours."""
    if name in IGNORED:
        return f"no effect here, {IGNORED[name]}"
    return _SENDING if name in SENDING else _OFF


def load(
    files: Sequence[Path] = (),
    environ: Mapping[str, str] = MappingProxyType({}),
    arguments: Sequence[tuple[str, str]] = (),
) -> Settings:
    """Read everything, validate it, and return the settings.

    `arguments` are (key, text) pairs. Raises ConfigError with all errors there are.
    """
    configuration = read(files, environ, arguments)
    if configuration.errors:
        raise ConfigError(configuration.errors)
    return configuration.settings


def read(
    files: Sequence[Path] = (),
    environ: Mapping[str, str] = MappingProxyType({}),
    arguments: Sequence[tuple[str, str]] = (),
) -> Configuration:
    """Read everything and return what was found, errors included. Opens files, binds nothing."""
    sources = [from_file(file, _NAMES) for file in files]
    sources.append(from_environment(environ, _NAMES))
    sources.append(from_arguments(arguments, _NAMES))
    findings = [finding for source in sources for finding in source.findings]
    # An unreadable value is an error even where a later source covers it.
    for source in sources:
        for entry in source.entries.values():
            findings.extend(_unusable(entry))
    entries = {key: entry for source in sources for key, entry in source.entries.items()}
    failed = {each.key for each in findings if each.severity is Severity.ERROR}
    texts = {name: entry.text for name, entry in entries.items() if name not in failed}
    settings = Settings(
        listen=_build(ListenSettings, texts),
        tls=_build(TlsSettings, texts),
        smtp=_build(SmtpSettings, texts),
        access=_build(AccessSettings, texts),
        limits=_build(LimitSettings, texts),
        local=_build(LocalSettings, texts),
        checks=_build(CheckSettings, texts),
        document=_build(DocumentSettings, texts),
        broker=_build(BrokerSettings, texts),
        store=_build(StoreSettings, texts),
        storage=_build(StorageSettings, texts),
        extensions=_build(ExtensionSettings, texts),
        dns=_build(DnsSettings, texts),
        log=_build(LogSettings, texts),
        process=_build(ProcessSettings, texts),
    )
    findings.extend(_judge(settings, entries, failed))
    account = [*findings, *_honoured(entries, findings)]
    return Configuration(
        settings,
        entries,
        tuple(sorted(findings, key=_order(files))),
        tuple(sorted(account, key=_order(files))),
    )


def _unusable(entry: Entry) -> Iterator[Finding]:
    """Say why one entry, taken alone, cannot be used, or that it need not be there."""
    name, text = entry.key, entry.text
    if name in RENAMED:
        yield _error(entry, f"is an old name (today's is {RENAMED[name]})")
    elif name in LATER:
        if text.lower() not in OFF and text.lower() != LATER[name].lower():
            yield _error(entry, "is not available yet (leave it empty)")
    elif name in ABSENT:
        if text.lower() not in OFF:
            yield _error(entry, ABSENT[name])
    elif name in SENDING or name in IGNORED:
        yield Finding(Severity.NOTE, entry.origin, name, _unused(name))
    else:
        key = KEYS[name]
        for line in entry.lines or (entry,):
            try:
                key.parse(line.text)
            except BadValue as bad:
                yield _error(line, _complaint(key, line.text, bad))
                return
        if key.sending:
            yield Finding(Severity.NOTE, entry.origin, name, _SENDING)


def _honoured(entries: Mapping[str, Entry], findings: Sequence[Finding]) -> Iterator[Finding]:
    failed = {each.key for each in findings if each.severity is Severity.ERROR}
    for name, entry in entries.items():
        unused = name in SENDING or name in IGNORED or (name in KEYS and KEYS[name].sending)
        if name not in failed and not unused:
            text = "" if name in KEYS else _OFF
            yield Finding(Severity.HONOURED, entry.origin, name, text)


def _complaint(key: Key, text: str, bad: BadValue) -> str:
    hints = [bad.right] if bad.right else []
    if " #" in text or "\t#" in text:
        hints.append("a comment needs a line of its own")
    elif len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        hints.append("without quotation marks")
    hint = f" ({'; '.join(hints)})" if hints else ""
    # Even the value that cannot be read may hold a password.
    shown = "the value" if key.mask else f'"{text}"' if text else "the empty value"
    return f"{shown} {bad.wrong}{hint}"


def _build(section: type[S], texts: Mapping[str, str]) -> S:
    values = {
        attribute: key.parse(texts[key.name])
        for attribute, key in declared(section)
        if key.name in texts
    }
    # Declarations, not the type checker, know that each value fits its attribute.
    return cast(Callable[..., S], section)(**values)


def _judge(settings: Settings, entries: Mapping[str, Entry], failed: set[str]) -> Iterator[Finding]:
    written = rules.Written(settings, entries, KEYS)
    for remark in rules.judge(written):
        # A rule over a key that could not be read would speak of its default.
        if failed.isdisjoint(remark.keys):
            entry = entries.get(remark.keys[0])
            origin = entry.origin if entry else DEFAULT
            yield Finding(remark.severity, origin, remark.keys[0], remark.text)


def _error(entry: Entry, text: str) -> Finding:
    return Finding(Severity.ERROR, entry.origin, entry.key, text)


def _order(files: Sequence[Path]) -> Callable[[Finding], tuple[int, int, str]]:
    """Sort as one reads: files in their order and by line, then what has no line."""
    names = [printable(str(file)) for file in files]

    def place(finding: Finding) -> tuple[int, int, str]:
        if finding.origin in names:
            return names.index(finding.origin), 0, finding.key
        name, _, line = finding.origin.rpartition(":")
        if name in names and line.isdigit():
            return names.index(name), int(line), finding.key
        return len(names), 0, finding.origin + finding.key

    return place
