#!/usr/bin/env python3
"""Take mails off a queue of mailgw and put them into a Maildir.

    inbox-to-maildir.py --broker amqp://guest:guest@localhost/ --queue inbox ~/Maildir

An example to copy: plain aio-pika, nothing of mailgw. The law it keeps: a message is
acknowledged after its file is in the Maildir and on the disk, so that whatever happens
a mail is there at least once. The file carries the document's message-id: a mail that
comes twice, because we were stopped between the two steps, is stored once. Nobody else
can read what is made here.

A body that was kept outside the queue is fetched by --fetch, a program that gets the key
as its last argument and writes the body to its standard output; it is held against the
size and the digest in the document.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gzip
import hashlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage


def document_of(message: AbstractIncomingMessage) -> dict[str, Any]:
    """The JSON document in an AMQP message. Raises ValueError if it is none."""
    body = message.body
    if message.content_encoding == "gzip":
        try:
            body = gzip.decompress(body)
        except (OSError, EOFError) as error:
            raise ValueError(f"not gzip: {error}") from error
    document = json.loads(body)
    if not isinstance(document, dict) or not ("mime" in document or "key" in document):
        raise ValueError("a document without mime or key")
    return document


class CannotFetch(Exception):
    """The body of a mail is not to be had now; the mail stays in the queue."""


def fetched(key: str, document: dict[str, Any], fetch: Sequence[str]) -> bytes:
    """The body that is kept outside the queue. Raises CannotFetch."""
    if not fetch:
        raise CannotFetch(f"{key} is kept outside the queue (--fetch says how to get it)")
    done = subprocess.run([*fetch, key], stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise CannotFetch(f"{key}: {fetch[0]} ended with {done.returncode}")
    if hashlib.sha256(done.stdout).hexdigest() != document["mime-sha256"]:
        raise CannotFetch(f"{key}: what was fetched is not what was received")
    return done.stdout


def mime_of(document: dict[str, Any], fetch: Sequence[str] = ()) -> bytes:
    """The bytes of the mail: text as UTF-8, or base64 where they are not valid UTF-8."""
    if "mime" not in document:
        return fetched(str(document["key"]), document, fetch)
    if document.get("mime-encoding") == "base64":
        return base64.b64decode(document["mime"], validate=True)
    mime: str = document["mime"]
    return mime.encode()


def store(maildir: Path, document: dict[str, Any], fetch: Sequence[str] = ()) -> Path:
    """Write the mail into `new` and return its path once it is safe on the disk."""
    maildir.parent.mkdir(parents=True, exist_ok=True)
    for folder in (maildir, maildir / "tmp", maildir / "new", maildir / "cur"):
        folder.mkdir(mode=0o700, exist_ok=True)
    name = file_name(document)
    for present in [maildir / "new" / name, *(maildir / "cur").glob(f"{name}:*")]:
        if present.exists():
            return present
    # Lines end with LF in a Maildir. The envelope travels as Delivered-To and Return-Path.
    mail = mime_of(document, fetch).replace(b"\r\n", b"\n")
    trace = (
        f"Return-Path: <{document.get('envelope', '')}>\nDelivered-To: {document['recipient']}\n"
    )
    temporary = maildir / "tmp" / name
    with open(temporary, "wb", opener=private) as file:
        file.write(trace.encode() + mail)
        file.flush()
        os.fsync(file.fileno())
    final = temporary.rename(maildir / "new" / name)
    directory = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return final


def private(path: str, flags: int) -> int:
    """Open a file that nobody else can read, whatever the umask is."""
    return os.open(path, flags, 0o600)


def file_name(document: dict[str, Any]) -> str:
    """The same for the same message-id, and free of what a Maildir gives a meaning."""
    message_id = re.sub(r"[^A-Za-z0-9_-]", "_", str(document["message-id"]))
    host = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
    return f"{message_id}.mailgw.{host}"


async def take(message: AbstractIncomingMessage, maildir: Path, fetch: Sequence[str] = ()) -> None:
    """Store one message, then acknowledge it."""
    try:
        path = await asyncio.to_thread(store, maildir, document_of(message), fetch)
    except (ValueError, KeyError, TypeError) as error:
        # It will not get better: off the queue (or to its dead-letter exchange).
        print(f"not a mail, rejected: {error}", file=sys.stderr, flush=True)
        await message.reject(requeue=False)
        return
    await message.ack()
    print(path, flush=True)


async def run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # "Robust": it connects again by itself when the broker was away.
    connection = await aio_pika.connect_robust(arguments.broker)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=arguments.prefetch)
        queue = await channel.get_queue(arguments.queue)
        # One after the other, so that stopping has to wait for one only.
        waiting: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await queue.consume(waiting.put)
        stopping = asyncio.ensure_future(stop.wait())
        while not stop.is_set():
            coming = asyncio.ensure_future(waiting.get())
            await asyncio.wait({coming, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                # What was not taken is not acknowledged, and the broker keeps it.
                coming.cancel()
                break
            await take(coming.result(), arguments.maildir, arguments.fetch)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Take mails off a queue of mailgw and put them into a Maildir.",
        epilog="Prints the path of each mail. SIGINT and SIGTERM end it after the mail at hand.",
    )
    parser.add_argument("maildir", type=Path, help="the Maildir; made if it is missing")
    parser.add_argument("--queue", default="inbox", help="default: inbox")
    parser.add_argument(
        "--broker",
        default=os.environ.get("BROKER", "amqp://guest:guest@localhost/"),
        help="amqp[s]://login:password@host/vhost; default: $BROKER, or guest at localhost",
    )
    parser.add_argument(
        "--fetch",
        type=shlex.split,
        default=(),
        metavar="COMMAND",
        help='gets bodies kept outside the queue: "mailgw storage get --config-file mailgw.conf"',
    )
    parser.add_argument("--prefetch", type=int, default=20, help="mails fetched ahead; default: 20")
    arguments = parser.parse_args()
    try:
        asyncio.run(run(arguments))
    except CannotFetch as error:
        # Not acknowledged: the broker gives it to the next one who asks.
        sys.exit(f"inbox-to-maildir: {error}")
    except (aio_pika.exceptions.AMQPError, OSError) as error:
        # Never the URL: it holds the password.
        sys.exit(f"inbox-to-maildir: the broker or the Maildir failed: {error}")


if __name__ == "__main__":
    main()
