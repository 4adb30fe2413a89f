"""`mailgw show-config`: every key with its effective value, default and origin."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from mailgw.cli.options import FAILED, Sources, sourced
from mailgw.config.render import table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object, a member per key.")
@sourced
def command(sources: Sources, as_json: bool) -> None:
    """Show every key: its value, its default, and where the value came from.

    Secrets are masked. With errors in the configuration they are shown instead, and the
    exit code is 2.
    """
    configuration = sources.read()
    if configuration.errors:
        for finding in configuration.errors:
            click.echo(str(finding), err=True)
        click.get_current_context().exit(FAILED)
    lines = list(configuration.lines())
    if as_json:
        members = {line.key: asdict(line) for line in lines}
        for member in members.values():
            del member["key"]
        click.echo(json.dumps(members, indent=2, ensure_ascii=False))
    else:
        click.echo(table(lines), nl=False)
