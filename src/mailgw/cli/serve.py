"""`mailgw serve`: the gateway, in the foreground."""

from __future__ import annotations

import click

from mailgw.cli.options import FAILED, configured
from mailgw.config import Settings
from mailgw.gate.recipients import BadLocalAddresses
from mailgw.observe import log
from mailgw.plugins import Unavailable
from mailgw.process.worker import serve
from mailgw.wire.listener import CannotListen, Endpoint
from mailgw.wire.tls import BadCertificate


@click.command()
@configured
def command(settings: Settings) -> None:
    """Run the gateway in the foreground.

    SIGTERM and Ctrl-C stop accepting, let transactions finish, wait for their confirms
    and exit with 0; a second one does not wait for clients. Logs go to standard error.
    """
    log.to_stderr()
    try:
        serve(settings, _say_where)
    except (CannotListen, BadCertificate, BadLocalAddresses, Unavailable) as trouble:
        click.echo(f"mailgw: {trouble}", err=True)
        click.get_current_context().exit(FAILED)


def _say_where(endpoints: list[Endpoint]) -> None:
    for endpoint in endpoints:
        kind = "SMTP over TLS" if endpoint.secure else "SMTP"
        click.echo(f"Listening: {endpoint} ({kind})")
