"""Nothing of a test's log stays behind it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from mailgw.observe import log


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("mailgw")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    log.direct([])
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
