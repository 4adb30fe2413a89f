"""`mailgw schema`: the JSON Schema of the documents that are published."""

from __future__ import annotations

import click


@click.command()
def command() -> None:
    """Print the JSON Schema of the documents."""
    # Imported here: the document room is not needed to show the help.
    from mailgw.document.schema import json_schema

    click.echo(json_schema().rstrip(b"\n"))
