"""The supervisor's own races, forced; what it does for clients is told by tests/e2e."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_worker_that_dies_just_after_the_look_for_the_dead_is_not_forgotten() -> None:
    """Nothing else wakes the supervisor then: it would wait for the time when it kills."""
    program = Path(__file__).with_name("supervised.py")

    ended = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=20, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "")
