"""Addresses of places for bodies: folders, and buckets of an object store.

As in urls.py: nothing raised here quotes what was read, and `mask_storage` gives the
text without the secrets in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from mailgw.config.values import BadValue

_HINT = "try dir:///var/lib/mailgw/bodies or s3://key:secret@region/bucket"
_S3_HINT = "try s3://key:secret@eu-central-1/bucket"
# What MailerQ has besides. A database full of bodies is what one wants to be rid of.
_ELSEWHERE = frozenset(
    {"mongodb", "couchbase", "sqlite", "mysql", "postgresql", "mariadb", "gs", "azure"}
)
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_PREFIX = re.compile(r"[A-Za-z0-9_.=-]+(?:/[A-Za-z0-9_.=-]+)*")


@dataclass(frozen=True, slots=True)
class FolderUrl:
    """A folder of this machine, or one that is mounted here."""

    path: Path
    compress: bool = False


@dataclass(frozen=True, slots=True)
class S3Url:
    """A bucket, and what stands in front of every name in it.

    Without `access_key` the credentials are those of the machine. `endpoint` is "" for
    Amazon's own.
    """

    bucket: str
    region: str
    prefix: str = ""
    endpoint: str = ""
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    compress: bool = False


StorageUrl = FolderUrl | S3Url


def storage_address(text: str) -> StorageUrl | None:
    """dir:///path (or directory://), s3://key:secret@region/bucket; empty is None.

    Options behind a question mark: compression=gzip, and for s3 endpoint=https://host.
    """
    if not text:
        return None
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if separator and scheme in ("dir", "directory"):
        path, _, query = rest.partition("?")
        options = _options(query, "compression")
        path = unquote(path)
        if not path.startswith("/") or not path.strip("/") or "\0" in path:
            raise BadValue("is not the address of a folder", "try dir:///var/lib/mailgw/bodies")
        return FolderUrl(Path(path), _compress(options))
    if separator and scheme == "s3":
        return _s3(rest)
    if separator and scheme in _ELSEWHERE:
        raise BadValue(f"{scheme}:// is not available here", _HINT)
    raise BadValue("is not the address of a storage", _HINT)


def mask_storage(text: str) -> str:
    """The address without the secret in it."""
    scheme, separator, rest = text.partition("://")
    head, mark, query = rest.partition("?")
    # A secret key of Amazon's may hold a slash, so the last @ counts.
    user, at, place = head.rpartition("@")
    if at:
        user = f"{user.partition(':')[0]}:***" if ":" in user else "***"
    # An endpoint may be written with a login, which is refused, and still not shown.
    query = re.sub(r"//[^/&]*@", "//***@", query)
    return f"{scheme}{separator}{user}{at}{place}{mark}{query}"


def _s3(rest: str) -> S3Url:
    head, _, query = rest.partition("?")
    options = _options(query, "compression", "endpoint")
    user, at, place = head.rpartition("@")
    access, colon, secret = user.partition(":")
    region, _, path = place.partition("/")
    bucket, _, prefix = path.rstrip("/").partition("/")
    if at and not (access and colon and secret):
        raise BadValue("holds half a login", _S3_HINT)
    if not _REGION.fullmatch(region) or not _BUCKET.fullmatch(bucket):
        raise BadValue("names no region and bucket", _S3_HINT)
    if prefix and (not _PREFIX.fullmatch(prefix) or ".." in prefix.split("/")):
        raise BadValue("holds a folder that is none", f"{_S3_HINT}/mail")
    return S3Url(
        bucket=bucket,
        region=region,
        prefix=prefix,
        endpoint=_endpoint(options.get("endpoint", "")),
        access_key=unquote(access),
        secret_key=unquote(secret),
        compress=_compress(options),
    )


def _endpoint(text: str) -> str:
    if not text:
        return ""
    try:
        url = urlsplit(text)
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in text or url.query or url.fragment:
        raise BadValue("has an endpoint that is none", "try ?endpoint=https://s3.example.net")
    return text.rstrip("/")


def _options(query: str, *known: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    found = dict(pairs)
    if not found.keys() <= set(known) or len(found) != len(pairs):
        raise BadValue("has an option that is not known", f"there is {' and '.join(known)}")
    return found


def _compress(options: dict[str, str]) -> bool:
    word = options.get("compression", "").lower()
    if word not in ("", "none", "gzip"):
        raise BadValue("has a compression that is not known", "try compression=gzip")
    return word == "gzip"
