"""The network between gateway and broker: gone without a word, deaf, slow, in the wrong moment."""

from __future__ import annotations

from link import Link, linked
from scene import DEADLINE, Scene, Trial, fault

from parts import needs

pytestmark = needs("rabbitmq")


@fault(
    "F17",
    "network to the broker silent",
    "nothing is carried either way, then all of it",
    store=True,
)
def test_a_silent_network(scene: Scene, link: Link, trial: Trial) -> None:
    with trial.load(scene) as ledger:
        link.to_server.hold()
        link.to_client.hold()
        try:
            scene.troubles(ledger, "451 4.3.0", 4)
        finally:
            link.to_server.release()
            link.to_client.release()
        ledger.more()
    verdict = trial.verdict(scene, ledger)
    # A third of the deadline, and then there is the waiting room.
    assert verdict.slowest >= (DEADLINE if scene.outage == "refuse" else DEADLINE / 3)


@fault("", "a confirm that never comes", "what the broker says is swallowed, then the line cut")
def test_a_confirm_that_never_comes(scene: Scene, link: Link, trial: Trial) -> None:
    with trial.load(scene) as ledger:
        link.to_client.swallow()
        try:
            scene.troubles(ledger, "451 4.3.0", 4)
        finally:
            link.cut()
            link.to_client.release()
        ledger.more()
    verdict = trial.verdict(scene, ledger)
    assert link.to_client.swallowed > 0
    # The broker had it, and the client sent it again.
    assert verdict.duplicated > 0


@fault("F19", "half of the recipients published", "20 documents a mail, the line cut between")
def test_half_of_the_recipients(scene: Scene, link: Link, trial: Trial) -> None:
    with trial.load(scene, octets=20_000, recipients=20, senders=2) as ledger:
        link.to_server.octets_per_second = 1_000_000
        for _ in range(3):
            ledger.more(2)
            # Some documents of the next mails, and none of them whole: 20 are 500 KB.
            link.to_server.carries(150_000)
            ledger.mark()
            link.cut()
            scene.troubles(ledger, "451 4.3.0")
            scene.joined()
        link.to_server.release()
        ledger.more(5)
    verdict = trial.verdict(scene, ledger)
    assert verdict.duplicated > 0


@fault("F18", "slow link", "200 KB/s to the broker, 12 clients with mails of 100 KB or more")
def test_a_slow_link(scene: Scene, link: Link, trial: Trial) -> None:
    with trial.load(scene, octets=100_000, recipients=1, senders=12) as ledger:
        link.to_server.octets_per_second = 200_000
        try:
            scene.troubles(ledger, "451 4.3.0", 12)
        finally:
            link.to_server.release()
        ledger.more(20)
    trial.verdict(scene, ledger)


@fault("F22", "client gone after the final dot", "the reply is cut off on its way to the client")
def test_a_client_that_vanishes(scene: Scene, trial: Trial) -> None:
    with linked(lambda: scene.gateway.port) as line, trial.load(scene, port=line.port) as ledger:
        for _ in range(5):
            line.to_client.hold()
            line.cut()
            line.to_client.release()
            ledger.hears("cut")
            ledger.more(10)
    trial.verdict(scene, ledger)
