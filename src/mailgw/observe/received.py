"""The received log: a line for each document that got its 250.

Law: only what the template names is looked up, and a line is written when the document
is safe, not before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from mailgw.observe import log
from mailgw.observe.channel import Channel
from mailgw.observe.destinations import Destination
from mailgw.observe.template import Names, Read, Template, UnknownName

T = TypeVar("T")


class ReceivedLog(Generic[T]):
    """Writes a line for every document it is told of, once per turn of the running loop."""

    def __init__(self, template: Template[T], destination: Destination) -> None:
        self._template = template
        self._channel = Channel([destination], log.trouble)
        self._loop: asyncio.AbstractEventLoop | None = None

    def note(self, documents: Iterable[T]) -> None:
        """Write down that these are safe. Never waits and never fails."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            self._channel.gather(loop)
        for document in documents:
            self._channel.add(logging.INFO, self._template.line(document))


def names(json: Names[T], clock: Callable[[], float] = time.time) -> Names[T]:
    """What the names in a `received-log-format` stand for; `json` knows those below $json.

    $date is when the line is written, in UTC, $time the same in seconds since 1970;
    $report is whether the document is a report.
    """

    def find(path: tuple[str, ...]) -> Read[T]:
        match path:
            case ("date",):
                return lambda _: time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(clock()))
            case ("time",):
                return lambda _: int(clock())
            case ("report",):
                report = json(path)
                return lambda document: bool(report(document))
            case ("json", _, *_):
                return json(path[1:])
            case _:
                raise UnknownName("is not known (try $json.message_id, $date, $time, $report)")

    return find
