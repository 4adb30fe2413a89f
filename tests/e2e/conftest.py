"""What the end-to-end tests share: gateways that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from gateway import Gateway


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways with the keys given, and ends them with the test."""
    started: list[Gateway] = []

    def start(keys: Mapping[str, object] | None = None, **options: Callable[[], None]) -> Gateway:
        started.append(Gateway(tmp_path, keys, **options))
        return started[-1].start()

    yield start
    for each in started:
        each.close()
