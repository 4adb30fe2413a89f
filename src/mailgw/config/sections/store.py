"""The embedded queue, and what becomes of a message until it is safe."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mailgw.config.declare import key, section
from mailgw.config.values import path, size, word


@section("store")
class StoreSettings:
    """The embedded queue"""

    queue_store: Path | None = key(
        "queue-store",
        path,
        default="",
        doc="File of the embedded durable queue (SQLite), which is the queue where "
        "rabbitmq-address is empty. Its folder must exist. Empty: none.",
    )
    outage: Literal["refuse"] = key(
        "rabbitmq-outage",
        word("refuse", later=("store",)),
        default="refuse",
        doc="When the broker is away: refuse mail for the time being, with a 4xx before it is "
        "sent. (store, which takes it into queue-store, is not available yet.)",
    )
    output: Literal["queue", "null"] = key(
        "output",
        word("queue", "null"),
        default="queue",
        doc="Where accepted mail goes: queue, or null, which accepts and drops it and is for "
        "benchmarks only.",
    )
    spool_memory: int = key(
        "spool-memory",
        size,
        default="1MB",
        doc="Messages larger than this wait in an unlinked temporary file while they are "
        "received, not in memory.",
    )
