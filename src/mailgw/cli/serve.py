"""`mailgw serve`: the gateway, in the foreground unless `daemon` says otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import click

from mailgw.cli.options import FAILED, Sources, sourced
from mailgw.observe import log
from mailgw.process.serve import serve
from mailgw.process.trouble import CannotStart
from mailgw.wire.endpoint import Endpoint


@click.command()
@sourced
def command(sources: Sources) -> None:
    """Run the gateway: a supervisor, and as many workers as smtp-threads says.

    SIGTERM and Ctrl-C stop accepting, let transactions finish, wait for their confirms
    and exit with 0; a second one does not wait for clients. SIGHUP reads the configuration
    again and drops nobody; what cannot be used leaves the old one in force.
    """
    context = click.get_current_context()
    configuration = sources.read()
    if configuration.errors:
        for finding in configuration.errors:
            click.echo(str(finding), err=True)
        context.exit(FAILED)
    log.to_stderr()
    try:
        code = serve(configuration.settings, sources.read, _say_where)
    except CannotStart as trouble:
        placed = configuration.placed(str(trouble))
        click.echo(f"mailgw: {placed}", err=True)
        code = trouble.code
    context.exit(code)


def _say_where(endpoints: Sequence[Endpoint]) -> None:
    for endpoint in endpoints:
        kind = "SMTP over TLS" if endpoint.secure else "SMTP"
        click.echo(f"Listening: {endpoint} ({kind})")
