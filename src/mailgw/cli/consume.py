"""`mailgw consume QUEUE`: print what is in a queue, one JSON document a line.

From the broker where one is configured, else from the embedded queue. The law: a
document is taken off the queue after it was printed, and where standard output is a
pipe, after the program at its other end has read it; so `| head -1` takes one.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import select
import stat
import sys
import termios
from pathlib import Path

import click

from mailgw.cli.options import FAILED, configured
from mailgw.config import Settings
from mailgw.outlets.store_file import StoreError, depths, read_store

INTERRUPTED = 130  # what a shell makes of SIGINT


@click.command()
@click.argument("queue")
@click.option(
    "--max", "limit", type=click.IntRange(min=1), metavar="N", help="No more than N documents."
)
@click.option("--follow", is_flag=True, help="Wait for more, until interrupted.")
@click.option("--keep", is_flag=True, help="Leave the documents in the queue.")
@configured
def command(settings: Settings, queue: str, limit: int | None, follow: bool, keep: bool) -> None:
    """Print the documents in QUEUE, one a line, and take them off.

    Whoever is interrupted, killed or cut off by a closed pipe may print a document again
    the next time, and loses none.
    """
    printer = Printer(sys.stdout.fileno(), wait=not keep)
    try:
        if settings.broker.address:
            _from_broker(settings, queue, limit, follow, keep, printer)
        elif settings.store.queue_store is not None:
            _from_store(settings.store.queue_store, queue, limit, follow, keep, printer)
        else:
            _fail("there is no queue: rabbitmq-address and queue-store are both empty")
    except ReaderGone:
        return  # it has what it wanted
    except CannotPrint as error:
        _fail(str(error))
    except KeyboardInterrupt:
        if not follow:
            click.get_current_context().exit(INTERRUPTED)


def _from_store(
    path: Path, queue: str, limit: int | None, follow: bool, keep: bool, printer: Printer
) -> None:
    try:
        read_store(path, queue, limit=limit, follow=follow, keep=keep, emit=printer.print)
        if not printer.printed:
            # repr: names of queues may come from strangers, and this is a terminal.
            others = ", ".join(f"{name!r} ({count})" for name, count in depths(path).items())
            hint = f"; there is mail in {others}" if others else ""
            click.echo(f"nothing in queue {queue!r} of {path}{hint}", err=True)
    except StoreError as error:
        _fail(str(error))


def _from_broker(
    settings: Settings, queue: str, limit: int | None, follow: bool, keep: bool, printer: Printer
) -> None:
    # Imported here: reading the embedded queue loads no broker library.
    from mailgw.outlets.amqp_reader import CannotRead, read_broker

    try:
        asyncio.run(
            read_broker(
                settings.broker,
                queue,
                limit=limit,
                follow=follow,
                keep=keep,
                emit=printer.print,
            )
        )
    except CannotRead as error:
        _fail(str(error))
    if not printer.printed:
        click.echo(f"nothing in queue {queue!r} of the broker", err=True)


def _fail(sentence: str) -> None:
    click.echo(f"mailgw consume: {sentence}", err=True)
    click.get_current_context().exit(FAILED)


# Neither is an OSError: to those who read a queue, an OSError is the queue's own trouble.
class ReaderGone(Exception):
    """The program at the other end of the pipe has ended."""


class CannotPrint(Exception):
    """Standard output takes no more; the text says why."""


class Printer:
    """Prints documents to the descriptor `out`; `printed` counts them.

    With `wait`, `print` returns when a pipe's reader has read the line: what only lies in
    the pipe is lost when the reader goes.
    """

    def __init__(self, out: int, wait: bool) -> None:
        self._out = out
        self._wait = wait and stat.S_ISFIFO(os.fstat(out).st_mode)
        self.printed = 0

    def print(self, body: bytes) -> None:
        """Write the line, past every buffer of ours. Raises ReaderGone or CannotPrint."""
        line = memoryview(body + b"\n")
        try:
            while line:
                line = line[os.write(self._out, line) :]
        except BrokenPipeError:
            raise ReaderGone from None
        except OSError as error:
            raise CannotPrint(f"standard output: {error.strerror}") from error
        if self._wait:
            _wait_for_reader(self._out)
        self.printed += 1


def _wait_for_reader(pipe: int) -> None:
    broken = select.poll()
    broken.register(pipe, 0)  # no event but the end of the reader
    turns = 0
    while _unread(pipe):
        # Most readers are there within microseconds; the others are not worth a core.
        gone = broken.poll(0 if turns < 50 else 1)
        if gone and _unread(pipe):
            raise ReaderGone
        turns += 1


def _unread(pipe: int) -> int:
    octets = array.array("i", [0])
    try:
        fcntl.ioctl(pipe, termios.FIONREAD, octets)
    except OSError:
        return 0  # a system that does not tell: printed is all that we can know
    return octets[0]
