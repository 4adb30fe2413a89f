"""Three nodes on one machine: they die, alone and by twos, and are restarted in turn.

Restarts in turn are what an update is: gateways behind HAProxy, and nodes, as deploy/ has
them, while clients send and see to it that nobody mistakes the balancer for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fleet import BALANCER, CLIENTS, PLACES, Fleet, deployed
from ledger import Ledger
from scene import Scene, Trial, fault, playing

from gateway import Json, content
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


@pytest.fixture
def fleet(nodes: list[RabbitMQ], tmp_path: Path) -> Iterator[Fleet]:
    with deployed(tmp_path, nodes, QUEUE) as whole:
        yield whole


def members(node: RabbitMQ) -> int:
    return int(node.ctl("eval", "length(rabbit_nodes:all_running()).").strip())


def leader(nodes: list[RabbitMQ]) -> int:
    """Which of them leads the queue."""
    listed = nodes[0].ctl("list_queues", "name", "leader").splitlines()
    [name] = [line.split("\t")[1] for line in listed if line.startswith(f"{QUEUE}\t")]
    return [node.name for node in nodes].index(name)


def complete(nodes: list[RabbitMQ]) -> None:
    """Return when all are there, and each has its replica of the queue."""
    wait_until(lambda: replicas(nodes[0]) == 3, "the queue has three replicas that run", 60)


def replicas(node: RabbitMQ) -> int:
    """How many replicas of the queue are up."""
    listed = node.ctl("list_queues", "name", "online").splitlines()
    [online] = [line.split("\t")[1] for line in listed if line.startswith(f"{QUEUE}\t")]
    return online.count("@")


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


@needs("haproxy")
@fault("", "each gateway and the leading node restarted", "behind HAProxy: SIGTERM, started again")
def test_restarts_one_after_the_other(fleet: Fleet, nodes: list[RabbitMQ], trial: Trial) -> None:
    with trial.load(fleet, port=fleet.port, sources=CLIENTS) as ledger:
        restart_gateways(fleet, ledger)
        restart_node(nodes[leader(nodes)], nodes, ledger)
    documents = trial.take(fleet)
    trial.verdict(fleet, ledger)
    assert origins(documents) == {(n, CLIENTS[n], BALANCER) for n in range(4)}
    assert {each["message-id"][0] for each in documents} == {name[-1] for name in PLACES}


@pytest.mark.soak
@needs("haproxy")
@fault("", "gateways and nodes restarted in turn, twice", "behind HAProxy, 12 clients: as above")
def test_restarts_of_everything_in_turn(fleet: Fleet, nodes: list[RabbitMQ], trial: Trial) -> None:
    with trial.load(fleet, port=fleet.port, senders=12, sources=CLIENTS) as ledger:
        for _ in range(2):
            restart_gateways(fleet, ledger, 1000)
            for node in nodes:
                restart_node(node, nodes, ledger, 1000)
    documents = trial.take(fleet)
    trial.verdict(fleet, ledger)
    assert origins(documents) == {(n, CLIENTS[n % 4], BALANCER) for n in range(12)}


def restart_gateways(fleet: Fleet, ledger: Ledger, mails: int = 50) -> None:
    """One after the other; the other one takes mail meanwhile."""
    for name in PLACES:
        fleet.stop(name)
        ledger.more(mails)
        fleet.start(name)


def restart_node(node: RabbitMQ, nodes: list[RabbitMQ], ledger: Ledger, mails: int = 50) -> None:
    """The other two take mail meanwhile; it is there again, and so is its replica."""
    node.stop()
    ledger.more(mails)
    node.start()
    complete(nodes)
    ledger.more(mails)


def origins(documents: Iterable[Json]) -> set[tuple[int, str, str]]:
    """The clients by their numbers, from where the documents say they came, and through whom."""
    found = set()
    for each in documents:
        name = content(each).split(b"\r\n", 1)[0].decode()
        connection = each["connection"]
        number = int(name.split("-")[-2])
        found.add((number, connection["remote-ip"], connection["proxy-ip"]))
    return found
