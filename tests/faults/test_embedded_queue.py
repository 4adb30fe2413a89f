"""No broker: the embedded queue, its disk, its lock and the processes that write it."""

from __future__ import annotations

import random
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from scene import Scene, Trial, fault, playing

from parts import needs


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """The same, with a file in the place of the broker."""
    with playing(Scene(tmp_path)) as stage:
        yield stage


@fault("", "embedded queue: file cannot grow", "RLIMIT_FSIZE below its size, raised again")
def test_the_file_cannot_grow(scene: Scene, trial: Trial) -> None:
    # Large enough for the queue to be full long before the log is.
    with trial.load(scene, octets=50_000) as ledger:
        workers = scene.gateway.workers()
        limits = [resource.prlimit(each, resource.RLIMIT_FSIZE) for each in workers]
        for each, (_, hard) in zip(workers, limits, strict=True):
            resource.prlimit(each, resource.RLIMIT_FSIZE, (500_000, hard))
        # A file at its limit is an error of the disk; what is left of a disk is looked at
        # before, and says 452.
        ledger.hears("451 4.3.0", 10)
        for each, limit in zip(workers, limits, strict=True):
            resource.prlimit(each, resource.RLIMIT_FSIZE, limit)
        ledger.more()
    trial.verdict(scene, ledger)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 96 MiB in memory; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "disk", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.soak
@needs("mount")
@fault("", "embedded queue: disk full", "a file system filled up to its last octet, emptied")
def test_the_disk_is_full(small_disk: Path, tmp_path: Path, trial: Trial) -> None:
    with playing(Scene(tmp_path, keys={"queue-store": small_disk / "queue.sqlite"})) as scene:
        scene.store = small_disk / "queue.sqlite"
        with trial.load(scene) as ledger:
            filler = small_disk / "filler"
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            ledger.hears("452 4.3.1", 10)
            filler.unlink()
            ledger.more()
        verdict = trial.verdict(scene, ledger)
    assert set(verdict.heard) == {"250 2.0.0", "452 4.3.1"}


@fault("", "embedded queue: file locked", "another process holds a write transaction")
def test_the_file_is_locked(scene: Scene, trial: Trial) -> None:
    with trial.load(scene) as ledger:
        with closing(sqlite3.connect(scene.store, isolation_level=None, timeout=20)) as other:
            other.execute("BEGIN IMMEDIATE")
            ledger.hears("45", 4)
            other.execute("ROLLBACK")
        ledger.more()
    trial.verdict(scene, ledger)


@fault("", "embedded queue: process killed at random", "kill -9 of all of it, 20 times")
def test_killed_at_random(scene: Scene, trial: Trial) -> None:
    killed_at_random(scene, trial, times=20)


@pytest.mark.soak
@fault("", "embedded queue: process killed 200 times", "kill -9 of all of it at any moment")
def test_killed_at_random_200_times(scene: Scene, trial: Trial) -> None:
    killed_at_random(scene, trial, times=200)


def killed_at_random(scene: Scene, trial: Trial, times: int) -> None:
    moments = random.Random(20_260_302)
    with trial.load(scene) as ledger:
        for _ in range(times):
            ledger.more(moments.randrange(1, 60))
            scene.gateway.close()
            scene.gateway.start()
        ledger.more()
    trial.verdict(scene, ledger)
