"""Our own processes are killed, at the moments that hurt, and asked to end under load."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from link import Link, linked
from scene import Scene, Trial, fault, playing

from client import Client
from gateway import Certificate
from parts import needs
from rabbitmq import wait_until

pytestmark = needs("rabbitmq")


@pytest.fixture
def own(scene: Scene, tmp_path: Path) -> Iterator[Scene]:
    """A gateway of the test's own in front of the same broker, because it is the victim."""
    # A queue of its own too: what a test that fails leaves behind is no other's mystery.
    queue = f"own-{tmp_path.name}"
    with playing(Scene(tmp_path, scene.broker, scene.address, scene.outage, queue)) as stage:
        yield stage


def kill_workers(scene: Scene) -> None:
    """Kill every worker, and return when others have taken their places."""
    ready = scene.gateway.log.count(" worker.ready ")
    victims = scene.gateway.workers()
    for each in victims:
        os.kill(each, signal.SIGKILL)
    scene.gateway.saw("worker.ready ", ready + len(victims))


@fault("F20", "worker killed in the middle of DATA", "kill -9 while half a message is there")
def test_a_worker_killed_mid_data(own: Scene, trial: Trial) -> None:
    with trial.load(own) as ledger, Client(own.gateway.port) as half:
        half.hello()
        half.transaction()
        half.send(b"Subject: half\r\n\r\nhalf a mess")
        kill_workers(own)
        assert half.ended()
        ledger.more()
    verdict = trial.verdict(own, ledger)
    assert verdict.heard["cut"] > 0


@fault(
    "F20",
    "worker killed between publish and confirm",
    "confirms are held back, then kill -9",
    store=True,
)
def test_a_worker_killed_before_the_confirm(own: Scene, link: Link, trial: Trial) -> None:
    with trial.load(own) as ledger:
        link.to_client.hold()
        try:
            # Longer than heartbeats: confirms for mail that the broker has.
            wait_until(lambda: link.to_client.waiting >= 20, "confirms wait")
            kill_workers(own)
        finally:
            link.cut()
            link.to_client.release()
        ledger.more()
    trial.verdict(own, ledger)


@fault("F20", "worker killed between confirm and 250", "the 250s are held back, then kill -9")
def test_a_worker_killed_after_the_confirm(own: Scene, trial: Trial) -> None:
    with linked(lambda: own.gateway.port) as line, trial.load(own, port=line.port) as ledger:
        # The reply to a final dot is the only one of two lines.
        line.to_client.hold(b"250-2.0.0 ")
        wait_until(lambda: line.to_client.waiting > 50 * 4, "every client waits for its 250")
        kill_workers(own)
        line.cut()
        line.to_client.release()
        ledger.more()
    verdict = trial.verdict(own, ledger)
    assert verdict.duplicated > 0


@fault("F20", "workers killed at random", "kill -9, six times, at any moment")
def test_workers_killed_at_random(own: Scene, trial: Trial) -> None:
    kill_at_random(own, trial, times=6)


@pytest.mark.soak
@fault("", "workers killed at random for long", "kill -9, 24 times, at any moment")
def test_workers_killed_at_random_for_long(own: Scene, trial: Trial) -> None:
    # Who dies younger leaves a place that stays empty for longer and longer.
    kill_at_random(own, trial, times=24, age=10)


def kill_at_random(scene: Scene, trial: Trial, times: int, age: float = 0) -> None:
    """Kill workers that have been seen for so many seconds."""
    moments = random.Random(20_260_301)
    seen: dict[int, float] = {}

    def grown() -> list[int]:
        now = time.monotonic()
        return [each for each in scene.gateway.workers() if now - seen.setdefault(each, now) >= age]

    with trial.load(scene) as ledger:
        for _ in range(times):
            ledger.more(moments.randrange(5, 60))
            # Places of those that die young stay empty for a while.
            wait_until(lambda: grown() != [], "somebody serves", 40)
            os.kill(moments.choice(grown()), signal.SIGKILL)
        ledger.more()
    trial.verdict(scene, ledger)


@fault("F20", "supervisor killed", "kill -9; the workers finish and end; started again")
def test_the_supervisor_killed(own: Scene, trial: Trial) -> None:
    with trial.load(own) as ledger:
        workers = own.gateway.workers()
        own.gateway.signal(signal.SIGKILL)
        assert own.gateway.wait() == -signal.SIGKILL
        wait_until(lambda: not any(alive(each) for each in workers), "the workers have ended")
        own.gateway.start()
        ledger.more()
    trial.verdict(own, ledger)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@fault("F20", "SIGTERM under load", "SIGTERM, exit 0, started again")
def test_asked_to_end_under_load(own: Scene, trial: Trial) -> None:
    with trial.load(own) as ledger:
        assert own.gateway.stop() == 0
        own.gateway.start()
        ledger.more()
    trial.verdict(own, ledger)


@fault("F21", "out of file descriptors", "RLIMIT_NOFILE below what is open, raised again")
def test_out_of_descriptors(own: Scene, trial: Trial) -> None:
    with trial.load(own, octets=1_000_000, recipients=1) as ledger, ExitStack() as crowd:
        # Messages above spool-memory want a file each, and newcomers a socket each.
        workers = own.gateway.workers()
        limits = [resource.prlimit(each, resource.RLIMIT_NOFILE) for each in workers]
        for each, (_, hard) in zip(workers, limits, strict=True):
            resource.prlimit(each, resource.RLIMIT_NOFILE, (16, hard))
        ledger.hears("452 4.3.1", 4)
        for _ in range(20):
            crowd.enter_context(Client(own.gateway.port))
        own.gateway.saw("accept.exhausted")
        for each, limit in zip(workers, limits, strict=True):
            resource.prlimit(each, resource.RLIMIT_NOFILE, limit)
        ledger.more()
    trial.verdict(own, ledger)


@fault("", "certificate broken at reload", "the file is cut in half, SIGHUP; mended, SIGHUP")
def test_a_broken_certificate_at_reload(
    scene: Scene, trial: Trial, certificate: Certificate, tmp_path: Path
) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(certificate.chain.read_bytes())
    key.write_bytes(certificate.key.read_bytes())
    key.chmod(0o600)
    keys = {"smtp-certificate": chain, "smtp-key": key}
    queue = f"own-{tmp_path.name}"
    with playing(Scene(tmp_path, scene.broker, scene.address, scene.outage, queue, keys)) as stage:
        with trial.load(stage) as ledger:
            chain.write_bytes(certificate.chain.read_bytes()[:500])
            stage.gateway.signal(signal.SIGHUP)
            stage.gateway.saw("reload.refused")
            encrypted(stage, certificate)
            ledger.more()
            chain.write_bytes(certificate.chain.read_bytes())
            stage.gateway.signal(signal.SIGHUP)
            stage.gateway.saw("reload.done")
            encrypted(stage, certificate)
            ledger.more()
        verdict = trial.verdict(stage, ledger)
    assert set(verdict.heard) == {"250 2.0.0"}


@fault("", "certificate replaced at reload", "another authority's, SIGHUP with half of it, SIGHUP")
def test_a_certificate_replaced_at_reload(
    scene: Scene, trial: Trial, certificate: Certificate, tmp_path: Path
) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    shutil.copy(certificate.chain, chain)
    shutil.copy(certificate.key, key)
    other = another(tmp_path)
    keys = {"smtp-certificate": chain, "smtp-key": key}
    queue = f"own-{tmp_path.name}"
    with playing(Scene(tmp_path, scene.broker, scene.address, scene.outage, queue, keys)) as stage:
        with Client(stage.gateway.port) as old, trial.load(stage) as ledger:
            old.hello()
            old.starttls(certificate.authority)
            assert old.ask("EHLO client.test").startswith("250-")
            # The chain is there, its key is not yet: what was good goes on.
            shutil.copy(other.chain, chain)
            stage.gateway.signal(signal.SIGHUP)
            stage.gateway.saw("reload.refused")
            encrypted(stage, certificate)
            ledger.more()
            shutil.copy(other.key, key)
            stage.gateway.signal(signal.SIGHUP)
            stage.gateway.saw("reload.done")
            for _ in range(10):
                encrypted(stage, other)
            ledger.more()
            # Whoever was there before keeps the session that it has.
            assert old.ask("NOOP").startswith("250 ")
        verdict = trial.verdict(stage, ledger)
    assert set(verdict.heard) == {"250 2.0.0"}


def another(folder: Path) -> Certificate:
    """A certificate for the same name, from an authority that signed no other."""
    authority = trustme.CA()
    server = authority.issue_cert("localhost")
    found = Certificate(folder / "other.pem", folder / "other-key.pem", folder / "other-ca.pem")
    found.chain.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    server.private_key_pem.write_to_path(found.key)
    found.key.chmod(0o600)
    authority.cert_pem.write_to_path(found.authority)
    return found


def encrypted(scene: Scene, certificate: Certificate) -> None:
    """A newcomer gets TLS with that certificate."""
    with Client(scene.gateway.port) as client:
        client.hello()
        client.starttls(certificate.authority)
