"""A bucket of an S3 store as a place for objects.

Laws. An object goes up in one request, so that no store keeps parts that nobody sees and
somebody pays for. What a store answers is told in words of ours: its own may quote the
credentials. Nothing is opened before it is first used, because a process may fork before.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore import exceptions
from obstore.store import S3Store

from mailgw.config.storage_urls import S3Url
from mailgw.storage.place import Entry, NoSuchObject, StorageError, Unclear

if TYPE_CHECKING:
    from obstore.store import S3Config

T = TypeVar("T")

# S3 takes so many names in one request to delete.
_AT_ONCE = 1000
_PIECE = 1024 * 1024
# The word that a store has for what is wrong, and the status it came with.
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_STATUS = re.compile(r"\bstatus(?: code)?:? ?([1-5][0-9]{2})\b", re.IGNORECASE)
# How the library says that a login was not taken, where it has no exception for it.
_REFUSED = ("status: 401", "status: 403")
_PHRASES = (
    ("certificate", "its certificate is not trusted"),
    ("kind: timeout", "no answer in time"),
    ("kind: connect", "cannot be reached"),
)


class Bucket:
    """Keeps objects in the bucket of `url`. One request takes at most `timeout` seconds.

    No more than `threads` of them are made at once.
    """

    holds_whole = True

    def __init__(self, url: S3Url, timeout: float, threads: int = 1) -> None:
        self._url = url
        self._timeout = timeout
        self._opened: S3Store | None = None
        # The library's own coroutines end in threads that know nothing of ours, and abort
        # the process where it ends a moment before them.
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="storage")

    async def put(self, name: str, pieces: Iterable[bytes]) -> None:
        await self._do(lambda: obstore.put(self._store, name, pieces, use_multipart=False))

    async def get(self, name: str) -> AsyncIterator[bytes]:
        found = await self._do(lambda: obstore.get(self._store, name), name)
        pieces = iter(found.stream(min_chunk_size=_PIECE))
        while piece := await self._do(lambda: bytes(next(pieces, b"")), name):
            yield piece

    async def size(self, name: str) -> int | None:
        try:
            return (await self._do(lambda: obstore.head(self._store, name), name))["size"]
        except NoSuchObject:
            return None

    async def remove(self, names: Collection[str]) -> None:
        wanted = list(names)
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            await self._do(partial(obstore.delete, self._store, some))

    async def entries(self, folder: str) -> AsyncIterator[Entry]:
        pages = await self._do(lambda: iter(obstore.list(self._store, f"{folder}/")))
        while page := await self._do(lambda: next(pages, ())):
            for each in page:
                yield Entry(each["path"], each["size"], each["last_modified"])

    async def tidy(self, before: datetime, *, dry: bool) -> int:
        return 0  # an upload that breaks off leaves nothing

    async def close(self) -> None:
        # Not waited for: each request has its deadline.
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def _store(self) -> S3Store:
        if self._opened is None:
            url, seconds = self._url, timedelta(seconds=self._timeout)
            config: S3Config = {"region": url.region}
            if url.access_key:
                config["access_key_id"] = url.access_key
                config["secret_access_key"] = url.secret_key
            if url.endpoint:
                config["endpoint"] = url.endpoint
                # An endpoint of one's own rarely has a name for each bucket.
                config["virtual_hosted_style_request"] = False
            self._opened = S3Store(
                url.bucket,
                prefix=url.prefix or None,
                config=config,
                client_options={
                    "timeout": seconds,
                    "connect_timeout": min(seconds, timedelta(seconds=5)),
                    "allow_http": url.endpoint.startswith("http://"),
                },
                retry_config={"max_retries": 2, "retry_timeout": seconds},
            )
        return self._opened

    async def _do(self, work: Callable[[], T], name: str = "") -> T:
        """Do it in a thread; what the library raises becomes a StorageError."""
        bucket = f"s3 bucket {self._url.bucket}"
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except FileNotFoundError as error:
            if name and "NoSuchBucket" not in str(error):
                raise NoSuchObject(f"{bucket}: there is no {name}") from None
            raise StorageError(f"{bucket}: there is no such bucket") from None
        except (exceptions.UnauthenticatedError, exceptions.PermissionDeniedError) as error:
            raise StorageError(f"{bucket}: {_code(error)}the credentials are refused") from None
        except (exceptions.BaseError, OSError, ValueError) as error:
            if any(each in str(error) for each in _REFUSED):
                raise StorageError(f"{bucket}: {_code(error)}the credentials are refused") from None
            raise Unclear(f"{bucket}: {_code(error)}{_phrase(error)}") from None
        except RuntimeError:  # the pool was shut down
            raise StorageError(f"{bucket}: closed") from None


def _code(error: Exception) -> str:
    found = _CODE.search(str(error)) or _STATUS.search(str(error))
    return f"{found[1]}, " if found else ""


def _phrase(error: Exception) -> str:
    text = str(error).lower()
    return next((ours for theirs, ours in _PHRASES if theirs in text), "the request failed")
