"""`mailgw storage`: bodies outside the queue, and what is left of mail that never was.

`get` is for consumers without a library of their own, `sweep` for a timer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import click

from mailgw.cli.options import FAILED, configured
from mailgw.config import Settings
from mailgw.config.source import printable
from mailgw.config.values import BadValue, duration
from mailgw.storage.bodies import place_of
from mailgw.storage.place import NoSuchObject, Place, StorageError
from mailgw.storage.sweep import Swept, fetch, sweep

NO_SUCH_BODY = 1
# Seconds for one request; a large body may come over a slow line.
_PATIENCE = 300.0


@click.group()
def command() -> None:
    """Read bodies outside the queue, and remove those of mail that was never accepted."""


@command.command()
@click.argument("name", metavar="KEY")
@configured
def get(settings: Settings, name: str) -> None:
    """Print the message that a document has under KEY, octet by octet.

    Exits with 1 where there is none, with 2 where the storage cannot tell or breaks off.
    """
    try:
        asyncio.run(_print(settings, name))
    except NoSuchObject as error:
        _fail(str(error), NO_SUCH_BODY)
    except StorageError as error:
        _fail(str(error))
    except BrokenPipeError:
        return  # whoever read it had enough
    except OSError as error:
        _fail(f"standard output: {error.strerror}")


@command.command("sweep")
@click.option("--older-than", default="1h", metavar="TIME", help="1h, 90m; default 1h.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option(
    "--uncertain",
    is_flag=True,
    help="Remove those too that may be in a document: only when the queues of that time are empty.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@configured
def remove_orphans(
    settings: Settings, older_than: str, dry_run: bool, uncertain: bool, as_json: bool
) -> None:
    """Remove bodies that were written and never published.

    Those whose publish was under way when a gateway was killed are told, and stay. Exits
    with 0 also where some of them stay, with 2 where the storage fails.
    """
    try:
        age = duration(older_than)
    except BadValue as bad:
        raise click.BadParameter(f"{older_than!r} {bad.wrong} (try 1h)") from None
    if age <= settings.smtp.confirm_timeout:
        # Mail may still be under way for so long.
        _fail(f"--older-than: must be above smtp-confirm-timeout, which is "
              f"{settings.smtp.confirm_timeout:g} s")  # fmt: skip
    before = datetime.now(UTC) - timedelta(seconds=age)

    async def run() -> Swept:
        async with _opened(settings) as place:
            return await sweep(place, before, dry=dry_run, uncertain=uncertain)

    try:
        swept = asyncio.run(run())
    except StorageError as error:
        _fail(str(error))
    if as_json:
        click.echo(
            json.dumps(
                {
                    "dry-run": dry_run,
                    "orphans": swept.orphans,
                    "uncertain": swept.uncertain,
                    "uncertain-removed": uncertain and not dry_run,
                    "octets": swept.octets,
                    "leftovers": swept.leftovers,
                }
            )
        )
        return
    done = "would be removed" if dry_run else "removed"
    for key in swept.orphans:
        click.echo(f"{key}: {done}")
    for key in swept.uncertain:
        click.echo(f"{key}: {done if uncertain else 'may be in a document, stays'}")
    removed = len(swept.orphans) + (len(swept.uncertain) if uncertain else 0)
    stay = "" if uncertain else f", {len(swept.uncertain)} uncertain"
    click.echo(
        f"{removed} {done} ({swept.octets} octets){stay}, {swept.leftovers} leftovers", err=True
    )


async def _print(settings: Settings, key: str) -> None:
    out = sys.stdout.fileno()
    async with _opened(settings) as place:
        async for piece in fetch(place, key):
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(out, rest) :]


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Place]:
    address = settings.storage.address
    if address is None:
        raise StorageError("there is no storage: storage-address is empty")
    place = place_of(address, threads=1, timeout=_PATIENCE)
    try:
        yield place
    finally:
        await place.close()


def _fail(sentence: str, code: int = FAILED) -> NoReturn:
    click.echo(printable(f"mailgw storage: {sentence}"), err=True)
    click.get_current_context().exit(code)
