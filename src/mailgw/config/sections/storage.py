"""Where bodies are kept that do not go through the queue."""

from __future__ import annotations

from typing import Literal

from mailgw.config.declare import key, section
from mailgw.config.storage_urls import StorageUrl, mask_storage, storage_address
from mailgw.config.values import duration, optional, size, whole, word


@section("storage")
class StorageSettings:
    """Bodies outside the queue"""

    address: StorageUrl | None = key(
        "storage-address",
        storage_address,
        default="",
        mask=mask_storage,
        reload=True,
        doc="Where bodies are kept that do not travel in the document, which has key instead of "
        "mime: dir:///path, or s3://key:secret@region/bucket, with ?endpoint=https://host for "
        "another S3 than Amazon's. With ?compression=gzip they are compressed there. Empty: "
        "every body travels in its document.",
    )
    policy: Literal["none", "in", "out", "all"] = key(
        "storage-policy",
        word("none", "in", "out", "all"),
        default="none",
        reload=True,
        doc="Which bodies go to storage-address: in and all, every one received; none and out, "
        "only those that storage-above sends there.",
    )
    above: int | None = key(
        "storage-above",
        optional(size),
        default="",
        reload=True,
        doc="Bodies larger than this go to storage-address, the others stay in their document. "
        "Empty: storage-policy alone decides.",
    )
    threads: int = key(
        "storage-threads",
        whole(1, 256),
        default="8",
        reload=True,
        doc="Mails whose bodies each worker stores at once; the next ones wait.",
        differs="8 instead of 1: every client waits for its body to be stored",
    )
    timeout: float = key(
        "storage-timeout",
        duration,
        default="20",
        reload=True,
        doc="How long storing the bodies of a mail may take; then the client is asked to come "
        "again.",
    )

    def largest_staying(self, maxsize: int) -> int:
        """Octets of the largest body that travels in its document, of those up to `maxsize`."""
        if self.address is None:
            return maxsize
        if self.policy in ("in", "all"):
            return 0
        return maxsize if self.above is None else min(maxsize, self.above)
