"""What every command takes: `--config-file` (twice if need be) and `--KEY VALUE`.

A command that needs the configuration says so with a decorator:

    @click.command()
    @click.argument("queue")
    @configured
    def command(settings: Settings, queue: str) -> None: ...

`configured` hands over the Settings, `sourced` the Sources, for commands that read them
more than once or want the findings. A mistake of the user ends in lines on stderr and
exit code 2, never in a traceback.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import click

from mailgw.config import (
    ConfigError,
    Configuration,
    Finding,
    Settings,
    Severity,
    load,
    read,
)
from mailgw.config.settings import KNOWN

P = ParamSpec("P")
R = TypeVar("R")

FAILED = 2


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the configuration of this run comes from; reading again sees changed files."""

    files: tuple[Path, ...]
    environ: Mapping[str, str] = field(repr=False)
    arguments: tuple[tuple[str, str], ...] = field(repr=False)

    def load(self) -> Settings:
        """The settings, or ConfigError with all that is wrong."""
        return load(self.files, self.environ, self.arguments)

    def read(self) -> Configuration:
        """The settings with all findings, warnings and notes too."""
        return _with_format_read(read(self.files, self.environ, self.arguments))


_FORMAT = "received-log-format"


def _with_format_read(configuration: Configuration) -> Configuration:
    """Add what is wrong with the template of the received log; its language is not config's."""
    entry = configuration.entries.get(_FORMAT)
    if entry is None:
        return configuration
    # Imported here: the other commands need not wait for it.
    from mailgw.observe.template import BadTemplate
    from mailgw.process.logs import template_of

    try:
        template_of(entry.text)
    except BadTemplate as bad:
        wrong = Finding(Severity.ERROR, entry.origin, _FORMAT, str(bad))
        account = tuple(wrong if each.key == _FORMAT else each for each in configuration.account)
        findings = (*configuration.findings, wrong)
        return replace(configuration, findings=findings, account=account)
    return configuration


def sourced(function: Callable[Concatenate[Sources, P], R]) -> Callable[P, R]:
    """Give a command the shared options, and their Sources as its first argument."""

    @functools.wraps(function)
    def with_sources(*args: P.args, **kwargs: P.kwargs) -> R:
        given = _Given.of(click.get_current_context())
        sources = Sources(tuple(given.files), os.environ.copy(), tuple(given.arguments))
        return function(sources, *args, **kwargs)

    return _take_options(with_sources)


def configured(function: Callable[Concatenate[Settings, P], R]) -> Callable[P, R]:
    """Give a command the shared options, and the loaded Settings as its first argument."""

    @functools.wraps(function)
    def with_settings(sources: Sources, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            settings = sources.load()
        except ConfigError as error:
            for finding in error.findings:
                click.echo(str(finding), err=True)
            click.get_current_context().exit(FAILED)
        return function(settings, *args, **kwargs)

    return sourced(with_settings)


class _Given:
    """What one command line holds, gathered by the callbacks of its options."""

    def __init__(self) -> None:
        self.files: list[Path] = []
        self.arguments: list[tuple[str, str]] = []

    @classmethod
    def of(cls, context: click.Context) -> _Given:
        given: _Given = context.meta.setdefault(__name__, cls())
        return given


def _files(context: click.Context, _: click.Parameter, values: tuple[str, ...]) -> None:
    _Given.of(context).files.extend(Path(value) for value in values)


def _argument(key: str) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], None]:
    def take(context: click.Context, _: click.Parameter, values: tuple[str, ...]) -> None:
        _Given.of(context).arguments.extend((key, value) for value in values)

    return take


def _no_key(_: click.Context, __: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.BadParameter("stands for the name of a key, such as --smtp-port")


def _take_options(function: Callable[P, R]) -> Callable[P, R]:
    # An option of the command's own goes before a key of that name.
    own = {option for each in getattr(function, "__click_params__", ()) for option in each.opts}
    for key in (each for each in KNOWN if f"--{each}" not in own):
        function = click.option(
            f"--{key}",
            # Not the key itself: a command may have a parameter of that name.
            f"key_{key.replace('-', '_')}",
            multiple=True,  # so that a key given twice is noticed
            hidden=True,
            expose_value=False,
            callback=_argument(key),
        )(function)
    function = click.option(
        "--KEY",
        metavar="VALUE",
        expose_value=False,
        callback=_no_key,
        help="Any key of the configuration, such as --smtp-port 2525; show-config lists them.",
    )(function)
    return click.option(
        "--config-file",
        metavar="FILE",
        multiple=True,
        expose_value=False,
        callback=_files,
        help="Configuration file; a second one lies on top of the first.",
    )(function)
