"""Mail that queue-store has from an earlier time, and that nobody hands on any more.

With a broker and without `rabbitmq-outage: store` the file is not used. What is in it had
its 250 all the same, so it is told at the start, and left as it is.
"""

from __future__ import annotations

from mailgw.config import Settings
from mailgw.observe import log
from mailgw.outlets.store_file import StoreError, depths


def tell_what_is_left_behind(settings: Settings) -> None:
    """Log how many documents wait in vain, where any do. Makes no file; may block for seconds."""
    path = settings.store.queue_store
    handed_on = not settings.broker.address or settings.store.outage == "store"
    if path is None or handed_on or not path.exists():
        return
    try:
        documents = sum(depths(path).values())
    except StoreError as trouble:
        log.warning("store.unread", reason=str(trouble))
        return
    if documents:
        log.error("store.left-behind", documents=documents, path=path, rule="rabbitmq-outage")
