"""The command `mailgw`.

Each command is a module that exports a click command named `command`; it is imported
only when it is asked for, so that looking at a configuration loads no broker library.
What all commands share, `--config-file` and `--KEY VALUE`, is in options.py.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from types import MappingProxyType

import click

from mailgw import __version__

# Name -> module with `command` in it, and what the list of commands says.
COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "serve": ("mailgw.cli.serve", "Run the gateway in the foreground."),
        "check-config": ("mailgw.cli.check_config", "Validate the configuration, bind nothing."),
        "show-config": ("mailgw.cli.show_config", "Show every key and where its value is from."),
        "doctor": ("mailgw.cli.doctor", "Look at what surrounds it, or at a domain's records."),
        "explain": ("mailgw.cli.explain", "Say what would become of a mail, and why."),
        "consume": ("mailgw.cli.consume", "Print the documents in a queue, one a line."),
        "locals": ("mailgw.cli.locals", "List, change and try the local addresses."),
        "store": ("mailgw.cli.store", "Look into the embedded queue."),
        "storage": ("mailgw.cli.storage", "Read bodies outside the queue, remove orphans."),
        "schema": ("mailgw.cli.schema", "Print the JSON Schema of the documents."),
    }
)


class Commands(click.Group):
    """A group that knows its commands by name and imports the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found = import_module(COMMANDS[cmd_name][0]).command
        if not isinstance(found, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name][0]}.command is no click command")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Ours, because click's own imports every command to ask for its help.
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _say_version(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked:
        found = find_spec("mailgw.smtp.session")
        # All that hatch_build.py compiles are, or none.
        compiled = found is not None and str(found.origin).endswith(tuple(EXTENSION_SUFFIXES))
        kind = ", compiled" if compiled else ""
        click.echo(f"mailgw {__version__} (Python {platform.python_version()}{kind})")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_say_version,
    help="Show the version, and whether it is a compiled one.",
)
def main() -> None:
    """Receive mail over SMTP and put it into RabbitMQ, one JSON document per recipient."""
