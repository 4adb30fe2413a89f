"""A place of each kind, empty."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mailgw.config.storage_urls import S3Url, storage_address
from mailgw.storage.bodies import place_of
from mailgw.storage.place import Place
from parts import needs
from s3server import S3


@pytest.fixture(params=["dir", pytest.param("s3", marks=needs("s3"))])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "dir":
        text = f"dir://{tmp_path}/bodies"
    else:
        server: S3 = request.getfixturevalue("s3")
        text = server.address(server.bucket())
    address = storage_address(text)
    assert address is not None
    made = place_of(address, threads=2, timeout=10)
    yield made
    await made.close()


def s3_url(text: str) -> S3Url:
    found = storage_address(text)
    assert isinstance(found, S3Url)
    return found
