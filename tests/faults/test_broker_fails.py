"""The broker dies, stops, stands still, is short of something: mail waits at its sender."""

from __future__ import annotations

import time

import pytest
from scene import VHOST, Scene, Trial, fault

from parts import needs
from rabbitmq import RabbitMQ

pytestmark = needs("rabbitmq")


def remember_queues(broker: RabbitMQ) -> None:
    # RabbitMQ writes the register of quorum queues to disk half a second late. A queue
    # younger than that is forgotten by a kill, messages and all.
    broker.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")


@fault("F11, F16", "broker killed and restarted under load", "kill -9, start again", store=True)
def test_a_killed_broker(scene: Scene, mortal: RabbitMQ, trial: Trial) -> None:
    with trial.load(scene) as ledger:
        remember_queues(mortal)
        ledger.more()
        mortal.kill()
        scene.troubles(ledger, "451 4.3.0", 4)
        mortal.start()
        ledger.more()
    trial.verdict(scene, ledger)


@pytest.mark.soak
@fault("F16", "broker restarted in good order", "SIGTERM, start again")
def test_a_stopped_broker(scene: Scene, mortal: RabbitMQ, trial: Trial) -> None:
    stopped(scene, mortal, trial, seconds=0)


@pytest.mark.soak
@fault("", "broker stopped for a minute", "SIGTERM, 60 seconds, start again")
def test_a_broker_stopped_for_a_minute(scene: Scene, mortal: RabbitMQ, trial: Trial) -> None:
    stopped(scene, mortal, trial, seconds=60)


def stopped(scene: Scene, broker: RabbitMQ, trial: Trial, seconds: float) -> None:
    # In a minute four clients fill a waiting room that takes as long to empty.
    with trial.load(scene, senders=1 if seconds else 4) as ledger:
        broker.stop()
        again = time.monotonic() + seconds
        scene.troubles(ledger, "451 4.3.0")
        while time.monotonic() < again:
            ledger.mark()
            scene.troubles(ledger, "451 4.3.0")
        broker.start()
        ledger.more()
    trial.verdict(scene, ledger)


@fault("F10", "broker frozen", "SIGSTOP until clients were told, SIGCONT", store=True)
def test_a_frozen_broker(scene: Scene, mortal: RabbitMQ, trial: Trial) -> None:
    with trial.load(scene) as ledger:
        mortal.freeze()
        try:
            scene.troubles(ledger, "451 4.3.0", 4)
        finally:
            mortal.thaw()
        ledger.more()
    trial.verdict(scene, ledger)


@fault("F14", "connections closed by the operator", "rabbitmqctl close_all_connections")
def test_connections_closed(scene: Scene, mortal: RabbitMQ, trial: Trial) -> None:
    with trial.load(scene) as ledger:
        lost = scene.gateway.log.count(" amqp.lost ")
        mortal.ctl("close_all_connections", "--vhost", VHOST, "maintenance")
        scene.gateway.saw("amqp.lost ", lost + 2)
        ledger.more()
    trial.verdict(scene, ledger)


@pytest.mark.parametrize(
    ("alarm", "end"),
    [
        pytest.param(
            ("set_vm_memory_high_watermark", "absolute", "1"),
            ("set_vm_memory_high_watermark", "0.6"),
            marks=fault(
                "F8", "memory alarm", "set_vm_memory_high_watermark absolute 1", store=True
            ),
        ),
        pytest.param(
            ("set_disk_free_limit", "1000000GB"),
            ("set_disk_free_limit", "1MB"),
            marks=fault("F9", "disk alarm", "set_disk_free_limit above what is free"),
        ),
    ],
    ids=["memory", "disk"],
)
def test_an_alarm(
    scene: Scene, mortal: RabbitMQ, trial: Trial, alarm: tuple[str, ...], end: tuple[str, ...]
) -> None:
    with trial.load(scene) as ledger:
        mortal.ctl(*alarm)
        try:
            # Before the message was sent: MAIL is refused.
            scene.troubles(ledger, "452 4.3.1", 10)
        finally:
            mortal.ctl(*end)
        ledger.more()
    trial.verdict(scene, ledger)
