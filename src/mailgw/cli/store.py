"""`mailgw store`: the embedded queue, looked at from outside.

It takes nothing off and makes no file. Names of queues may come from strangers, so they are
printed as they may stand on a terminal.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from mailgw.cli.options import FAILED, configured
from mailgw.config import Settings
from mailgw.outlets.lease import holder
from mailgw.outlets.store_file import StoreError, StoreStatus, status

WAITING = 1


@click.group()
def command() -> None:
    """Look into the embedded queue."""


@command.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@configured
def show(settings: Settings, as_json: bool) -> None:
    """Say what queue-store holds, by queue, and whether it is being handed on.

    Exits with 0 where it holds nothing, with 1 where documents are in it, with 2 where
    nobody can tell.
    """
    path = settings.store.queue_store
    if path is None:
        _fail("there is none: queue-store is empty")
        return
    try:
        found = status(path)
    except StoreError as error:
        _fail(str(error))
        return
    draining = holder(path)
    said = _as_json if as_json else _as_text
    click.echo(said(path, found, settings.store.store_max, draining, datetime.now(UTC)))
    if found.queues:
        click.get_current_context().exit(WAITING)


def _as_json(
    path: Path, found: StoreStatus, most: int | None, draining: int | None, now: datetime
) -> str:
    return json.dumps(
        {
            "path": str(path),
            "documents": found.documents,
            "octets": found.octets,
            "oldest-age": _age(found.oldest, now),
            "set-aside": found.aside,
            "used-octets": found.used,
            "file-octets": found.file,
            "max-octets": most,
            "draining": draining,
            "queues": [
                {
                    "queue": each.name,
                    "documents": each.documents,
                    "octets": each.octets,
                    "oldest-age": _age(each.oldest, now),
                }
                for each in found.queues
            ],
        }
    )


def _as_text(
    path: Path, found: StoreStatus, most: int | None, draining: int | None, now: datetime
) -> str:
    limit = f" of {most}" if most is not None else ""
    lines = [f"{path}: {_counted(found.documents)}, {found.used}{limit} octets used"]
    if found.queues:
        lines[0] += f", the oldest {_age(found.oldest, now)} s old"
    for each in found.queues:
        text = f"{_counted(each.documents)}, {each.octets} octets"
        lines.append(f"  {each.name!r}: {text}, the oldest {_age(each.oldest, now)} s old")
    if found.aside:
        lines.append(f"refused by the broker and set aside: {_counted(found.aside)}")
    if draining is not None:
        lines.append(f"process {draining} hands it on to the broker")
    elif found.queues:
        lines.append("nobody hands it on to a broker now")
    return "\n".join(lines)


def _counted(documents: int) -> str:
    return "1 document" if documents == 1 else f"{documents} documents"


def _age(oldest: datetime | None, now: datetime) -> int | None:
    """Whole seconds; clocks may have been set back."""
    return None if oldest is None else max(0, int((now - oldest).total_seconds()))


def _fail(sentence: str) -> None:
    click.echo(f"mailgw store: {sentence}", err=True)
    click.get_current_context().exit(FAILED)
