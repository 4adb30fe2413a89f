"""The broker is there and takes nothing: full, altered, or it no longer knows us."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from link import Link
from scene import (
    EXCHANGE,
    PASSWORD,
    USER,
    VHOST,
    Scene,
    Trial,
    allow,
    delete,
    fault,
    on_their_way,
    send,
)

from parts import needs
from rabbitmq import RabbitMQ

pytestmark = needs("rabbitmq")


@pytest.fixture
def policy(mortal: RabbitMQ, scene: Scene) -> Iterator[Callable[[str], None]]:
    """Sets what the inbox may hold, for the length of a test."""

    def limit(definition: str) -> None:
        mortal.ctl(
            "set_policy", "-p", VHOST, "--apply-to", "queues", "full", scene.queue, definition
        )

    yield limit
    if "full" in mortal.ctl("list_policies", "-p", VHOST):
        mortal.ctl("clear_policy", "-p", VHOST, "full")


@fault("F5", "queue full, publishes refused", "policy max-length 1, overflow reject-publish: nack")
def test_a_full_queue(
    scene: Scene, mortal: RabbitMQ, trial: Trial, policy: Callable[[str], None]
) -> None:
    with trial.load(scene) as ledger:
        policy('{"max-length": 1, "overflow": "reject-publish"}')
        scene.troubles(ledger, "452 4.3.1", 10)
        # 3.10 forgets to tell the publishers that there is room again.
        mortal.ctl("clear_policy", "-p", VHOST, "full")
        ledger.more()
    trial.verdict(scene, ledger)


def test_a_queue_that_drops_its_head_throws_away_what_was_accepted_and_the_newest_stay(
    scene: Scene, trial_without_row: Trial, policy: Callable[[str], None]
) -> None:
    """F6: the broker acks and throws away older mail, which no publisher can see."""
    policy('{"max-length": 10}')
    with trial_without_row.load(scene, senders=1, recipients=1) as ledger:
        ledger.more(50)
    verdict = ledger.verdict(scene.take())
    kept = list(ledger.accepted.values())[-verdict.documents :]
    assert 0 < verdict.documents <= 10
    assert not {identifier for _, ids in kept for identifier in ids} & set(verdict.lost)


@pytest.fixture
def trial_without_row() -> Trial:
    return Trial("F6", "queue full, older mail dropped", "policy max-length 10", [])


@fault(
    "F3",
    "inbox queue deleted",
    "deleted while publishes are on their way: returned",
    store=True,
)
def test_a_deleted_queue(scene: Scene, mortal: RabbitMQ, link: Link, trial: Trial) -> None:
    with trial.load(scene) as ledger:
        with on_their_way(scene, link, trial, ledger):
            delete(mortal, scene.queue, VHOST)
        scene.troubles(ledger, "451 4.3.5")
        ledger.more()
    trial.verdict(scene, ledger)
    assert scene.gateway.log.count("amqp.returned") <= 2 * 2


@fault("F4", "exchange gone", "exchange deleted while publishes are on their way: 404")
def test_a_deleted_exchange(scene: Scene, mortal: RabbitMQ, trial: Trial) -> None:
    with trial.load(scene) as ledger:
        delete_exchange(mortal)
        scene.troubles(ledger, "451 4.3.0")
        ledger.more()
    trial.verdict(scene, ledger)


def delete_exchange(broker: RabbitMQ) -> None:
    name = f'rabbit_misc:r(<<"{VHOST}">>, exchange, <<"{EXCHANGE}">>)'
    broker.ctl("eval", f'rabbit_exchange:delete({name}, false, <<"operator">>).')


@fault("F7", "a message too large for the broker", "17 MiB among others: 406, the channel closed")
def test_an_oversized_message(scene: Scene, trial: Trial) -> None:
    large = b"Subject: large\r\n\r\n" + (b"x" * 998 + b"\r\n") * 17_500
    with trial.load(scene) as ledger:
        said = [send(scene.gateway, large) for _ in range(4)]
        ledger.more()
    # The message and its document, in each worker.
    verdict = trial.verdict(scene, ledger, growth=250_000_000)
    # Each of the two workers learns it at the cost of one channel.
    assert {reply[:10] for reply in said} == {"552 5.3.4 "}
    lines = scene.gateway.log.splitlines()
    assert len([line for line in lines if "channel-lost" in line and "larger" in line]) <= 2
    # Nobody else notices: what was on its way is published again.
    assert set(verdict.heard) == {"250 2.0.0"}


@fault("F15", "password changed", "change_password, connections closed; changed back")
def test_a_changed_password(scene: Scene, mortal: RabbitMQ, trial: Trial) -> None:
    with trial.load(scene) as ledger:
        mortal.ctl("change_password", USER, "another")
        mortal.ctl("close_all_connections", "--vhost", VHOST, "rotated")
        scene.troubles(ledger, "451 4.3.0", 10)
        mortal.ctl("change_password", USER, PASSWORD)
        ledger.more()
    trial.verdict(scene, ledger)
    assert scene.gateway.log.count("it refuses the login") <= 2


@fault("F15", "permission removed", "set_permissions without write; given back")
def test_a_removed_permission(scene: Scene, mortal: RabbitMQ, trial: Trial) -> None:
    with trial.load(scene) as ledger:
        allow(mortal, write="^$")
        # Rights are kept with a channel for a while; a new connection asks again.
        mortal.ctl("close_all_connections", "--vhost", VHOST, "rights")
        scene.troubles(ledger, "451 4.3.0", 10)
        allow(mortal)
        ledger.more()
    trial.verdict(scene, ledger)


@fault("F15", "virtual host deleted", "delete_vhost while publishes are on their way; made again")
def test_a_deleted_virtual_host(scene: Scene, mortal: RabbitMQ, link: Link, trial: Trial) -> None:
    with trial.load(scene) as ledger:
        with on_their_way(scene, link, trial, ledger):
            mortal.ctl("delete_vhost", VHOST)
        scene.troubles(ledger, "451 4.3.0", 10)
        mortal.ctl("add_vhost", VHOST)
        mortal.ctl("set_permissions", "-p", VHOST, "guest", ".*", ".*", ".*")
        allow(mortal)
        ledger.more()
    trial.verdict(scene, ledger)
