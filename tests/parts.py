"""Programs that some tests need, and the one way to do without them.

A part that is not there is a failure of the tests that need it, unless whoever runs
them named it in MAILGW_TEST_WITHOUT (see scripts/test).
"""

from __future__ import annotations

import os

import pytest

WITHOUT = frozenset(os.environ.get("MAILGW_TEST_WITHOUT", "").replace(" ", "").split(","))


def needs(part: str) -> pytest.MarkDecorator:
    """Leave a test out where the part was named, and only there."""
    return pytest.mark.skipif(part in WITHOUT, reason=f"{part} is in MAILGW_TEST_WITHOUT")
