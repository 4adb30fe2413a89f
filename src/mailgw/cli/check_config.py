"""`mailgw check-config`: what is wrong, unsafe or worth knowing, one line per finding.

Errors stand bare, the others begin with "warning: ", "note: " or "honoured" after the key.
"""

from __future__ import annotations

import click

from mailgw.cli.options import FAILED, Sources, sourced
from mailgw.config import Severity
from mailgw.config.sections.extensions import ExtensionSettings


@click.command()
@sourced
def command(sources: Sources) -> None:
    """Read and validate the whole configuration, without binding anything.

    Prints one line per finding, "file:line: key: what is wrong (what would be right)", and
    "honoured" for every key that does what it says. Warnings are about what is unsafe on the
    internet, notes about keys that have no use here or differ from MailerQ. Hooks and the
    handler are loaded, as for the start. Exits with 0 where there are no errors, else with 2.
    """
    configuration = sources.read()
    if complaint := _complaint(configuration.settings.extensions):
        configuration = configuration.refused(complaint)
    for finding in configuration.account:
        click.echo(str(finding))
    counts = dict.fromkeys((Severity.ERROR, Severity.WARNING, Severity.NOTE), 0)
    for finding in configuration.findings:
        counts[finding.severity] += 1
    summary = ", ".join(_counted(number, severity.value) for severity, number in counts.items())
    # Not among the findings: they are one a line, for programs too.
    click.echo(summary, err=True)
    if configuration.errors:
        click.get_current_context().exit(FAILED)


def _complaint(settings: ExtensionSettings) -> str | None:
    if not settings.hook and not settings.handler:
        return None
    # Imported here: it brings most of the house.
    from mailgw.process.extensions import Extensions

    return Extensions.complaint(settings)


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}" + ("" if number == 1 else "s")
