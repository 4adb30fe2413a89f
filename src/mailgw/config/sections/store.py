"""The embedded queue, and what becomes of a message until it is safe."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mailgw.config.declare import key, section
from mailgw.config.values import optional, path, size, size_of_at_least, word

# An empty store has a few pages itself; less than this would hardly hold a mail.
_LEAST_STORE = 1_000_000


@section("store")
class StoreSettings:
    """The embedded queue"""

    queue_store: Path | None = key(
        "queue-store",
        path,
        default="",
        doc="File of the embedded durable queue (SQLite), which is the queue where "
        "rabbitmq-address is empty, and where mail waits for the broker with rabbitmq-outage: "
        "store. Its folder must exist. Empty: none.",
    )
    store_max: int | None = key(
        "queue-store-max",
        optional(size_of_at_least(_LEAST_STORE)),
        default="1GB",
        doc="How much queue-store may hold. When it is nearly full, clients hear 452 before they "
        "send a message. Empty: as much as the disk has.",
    )
    outage: Literal["refuse", "store"] = key(
        "rabbitmq-outage",
        word("refuse", "store"),
        default="refuse",
        doc="When the broker is away or takes nothing: refuse mail for the time being, with a 4xx "
        "before it is sent, or store it in queue-store and hand it on, oldest first, when the "
        "broker is back.",
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
