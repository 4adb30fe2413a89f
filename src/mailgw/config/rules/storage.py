"""Whether bodies can be kept where they are to be kept, and who else may read them there."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from importlib.util import find_spec
from urllib.parse import urlsplit

from mailgw.config.rules.written import Remark, Written, error, is_loopback, quoted, warning
from mailgw.config.storage_urls import FolderUrl, S3Url

_ADDRESS = "storage-address"


def storage_has_a_use(written: Written) -> Iterator[Remark]:
    storage = written.settings.storage
    if storage.address is not None:
        if storage.policy in ("none", "out") and storage.above is None:
            yield warning(
                "nothing goes there (set storage-policy: in, or storage-above)",
                _ADDRESS,
                "storage-policy",
                "storage-above",
            )
        return
    for name, in_use in (
        ("storage-policy", storage.policy in ("in", "all")),
        ("storage-above", storage.above is not None),
    ):
        if in_use:
            yield warning("there is no place for bodies (set storage-address)", name, _ADDRESS)


def storage_ends_in_time(written: Written) -> Iterator[Remark]:
    storage, confirm = written.settings.storage, written.settings.smtp.confirm_timeout
    if storage.address is not None and storage.timeout >= confirm:
        yield error(
            "is not shorter than smtp-confirm-timeout, so that a slow storage would leave no time "
            f"to publish (try {confirm / 2:g})",
            "storage-timeout",
            "smtp-confirm-timeout",
            _ADDRESS,
        )


def storage_can_be_used(written: Written) -> Iterator[Remark]:
    address = written.settings.storage.address
    if isinstance(address, FolderUrl):
        if address.path.exists() and not address.path.is_dir():
            yield error(f"{quoted(address.path)} is not a folder", _ADDRESS)
        elif not address.path.parent.is_dir():
            yield error(f"there is no folder {quoted(address.path.parent)} (make it)", _ADDRESS)
        elif _open_to_others(address):
            yield warning(
                f"others on this machine may look into it (chmod 700 {quoted(address.path)})",
                _ADDRESS,
            )
    if isinstance(address, S3Url):
        if find_spec("obstore") is None:
            yield error("needs what is not installed (pip install 'mailgw[storage]')", _ADDRESS)
        endpoint = urlsplit(address.endpoint)
        if endpoint.scheme == "http" and not is_loopback(endpoint.hostname or ""):
            yield warning(f"mail goes to {endpoint.hostname} in clear (try https)", _ADDRESS)


def _open_to_others(address: FolderUrl) -> bool:
    try:
        mode = address.path.stat().st_mode
    except OSError:  # it will be made, for nobody else
        return False
    return bool(stat.S_IMODE(mode) & 0o077)
