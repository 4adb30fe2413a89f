"""Three nodes on one machine: one dies, the one that leads dies, two die and come back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from scene import Scene, Trial, fault, playing

from parts import needs
from rabbitmq import RabbitMQ, wait_until

pytestmark = needs("rabbitmq")

QUEUE = "inbox"


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[RabbitMQ]]:
    """A cluster; leave all of it running."""
    cluster = [RabbitMQ() for _ in range(3)]
    try:
        for node in cluster:
            node.join(cluster)
        cluster[0].start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(RabbitMQ.start, cluster[1:]))
        wait_until(lambda: members(cluster[0]) == 3, "the three have found each other", 60)
        yield cluster
    finally:
        for node in reversed(cluster):
            node.close()


@pytest.fixture
def scene(nodes: list[RabbitMQ], tmp_path: Path) -> Iterator[Scene]:
    """The gateway knows all three, and begins with the first."""
    address = ",".join(node.url for node in nodes)
    with playing(Scene(tmp_path, nodes[0], address, queue=QUEUE)) as stage:
        yield stage


def members(node: RabbitMQ) -> int:
    return int(node.ctl("eval", "length(rabbit_nodes:all_running()).").strip())


def leader(nodes: list[RabbitMQ]) -> int:
    """Which of them leads the queue."""
    listed = nodes[0].ctl("list_queues", "name", "leader").splitlines()
    [name] = [line.split("\t")[1] for line in listed if line.startswith(f"{QUEUE}\t")]
    return [node.name for node in nodes].index(name)


def complete(nodes: list[RabbitMQ]) -> None:
    """Return when all are there and the queue has a leader that answers."""
    wait_until(lambda: members(nodes[0]) == 3, "all nodes run", 60)


@fault("F24", "the leader of three nodes killed", "kill -9 of the node that leads the queue")
def test_the_leader_killed(scene: Scene, nodes: list[RabbitMQ], trial: Trial) -> None:
    with trial.load(scene) as ledger:
        victim = nodes[leader(nodes)]
        victim.kill()
        ledger.more()
        victim.start()
        complete(nodes)
        ledger.more()
    trial.verdict(scene, ledger)


@pytest.mark.soak
@fault("F24", "one of three nodes killed", "kill -9 of a node that follows; started again")
def test_a_follower_killed(scene: Scene, nodes: list[RabbitMQ], trial: Trial) -> None:
    with trial.load(scene) as ledger:
        victim = nodes[(leader(nodes) + 1) % 3]
        victim.kill()
        ledger.more(500)
        victim.start()
        complete(nodes)
        ledger.more()
    trial.verdict(scene, ledger)


@pytest.mark.soak
@fault("F24", "the majority of three nodes lost", "kill -9 of two nodes; both started again")
def test_the_majority_lost(scene: Scene, nodes: list[RabbitMQ], trial: Trial) -> None:
    with trial.load(scene) as ledger:
        victims = nodes[1:]
        for victim in victims:
            victim.kill()
        ledger.hears("451 4.3.0", 10)
        with ThreadPoolExecutor() as pool:
            list(pool.map(RabbitMQ.start, victims))
        complete(nodes)
        ledger.more(limit=60)
    trial.verdict(scene, ledger)
