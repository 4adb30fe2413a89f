"""Large mail from many at once: what it costs is bounded, and the bound is the README's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client import Client
from flock import octets, send_together
from gateway import Gateway
from parts import needs
from rabbitmq import RabbitMQ
from s3server import S3

MB = 1_000_000
README = (Path(__file__).parents[2] / "README.md").read_text()


def bound(server: Gateway, idle: int, clients: int) -> int:
    """What the README says that the workers of this gateway take at most."""
    [said] = re.findall(r"^    (idle \+ .*)$", README, re.MULTILINE)
    pattern = r"idle \+ clients x \(spool-memory \+ ([0-9.]+) MB\) \+ ([0-9]+) x smtp-maxsize"
    found = re.fullmatch(pattern, said)
    assert found is not None, said
    a_client, largest = float(found[1]) * MB + 1 * MB, int(found[2])
    maxsize = int(str(server.keys["smtp-maxsize"]).removesuffix("MB")) * MB
    return int(idle + clients * a_client + largest * maxsize)


def test_bodies_that_are_stored_pass_through_and_are_not_held(
    gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    bodies = tmp_path / "bodies"
    server = gateway(
        {"storage-address": f"dir://{bodies}", "storage-above": "1MB", "smtp-confirm-timeout": 60,
         "storage-timeout": 50}
    )  # fmt: skip
    message = octets(10 * MB)
    idle = server.memory()

    flock = send_together(server, message, 12, limit=60)

    assert flock.codes == {"250"}
    # Together they are 120 MB.
    assert flock.most.memory - idle < 50 * MB
    documents = server.consume()
    assert {document["mime-size"] for document in documents} == {len(message)}
    assert len({document["key"] for document in documents}) == 12
    assert all((bodies / document["key"]).read_bytes() == message for document in documents)


@needs("rabbitmq")
def test_a_broker_that_was_told_to_take_more_gets_more(
    gateway: Callable[..., Gateway], broker: RabbitMQ
) -> None:
    # The node takes 16 MiB, as one of RabbitMQ 4 does; 3.10 would take more by default.
    server = gateway(
        {"rabbitmq-address": broker.url, "rabbitmq-inbox": "big", "smtp-confirm-timeout": 60,
         "rabbitmq-queue-type": "classic", "rabbitmq-max-message-size": "8MB"}
    )  # fmt: skip
    server.saw("amqp.connected")
    with Client(server.port) as client:
        client.hello()
        assert client.mail(octets(7 * MB)).startswith("250-")
        assert client.mail(octets(9 * MB)).startswith("552 5.3.4 ")
        # What announces its size need not be sent at all.
        assert client.ask("MAIL FROM:<> SIZE=9999999").startswith("552 5.3.4 ")
        assert client.mail(b"Subject: small\r\n\r\nHello.\r\n").startswith("250-")
    assert "channel-lost" not in server.log
    sizes = [document["mime-size"] for document in server.consume("big")]
    assert sizes == [len(octets(7 * MB)), 26]


# --- in full size ---------------------------------------------------------------------


@pytest.fixture
def willing() -> Iterator[RabbitMQ]:
    """A broker that takes messages of 128 MiB."""
    node = RabbitMQ(max_message=128 * 1024 * 1024)
    try:
        node.start()
        yield node
    finally:
        node.close()


def keys_for(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, object]:
    keys: dict[str, object] = {
        "smtp-maxsize": "100MB",
        "smtp-confirm-timeout": 1800,
        "storage-timeout": 1700,
        "queue-store-max": "",
    }
    match kind:
        case "broker":
            node: RabbitMQ = request.getfixturevalue("willing")
            keys["rabbitmq-address"] = node.url
        case "folder":
            keys |= {"storage-address": f"dir://{tmp_path}/bodies", "storage-policy": "in"}
        case "s3":
            s3: S3 = request.getfixturevalue("s3")
            keys |= {"storage-address": s3.address(s3.bucket()), "storage-policy": "in"}
    return keys


@pytest.mark.soak
@pytest.mark.parametrize(
    "kind",
    [
        "embedded queue",
        pytest.param("broker", marks=needs("rabbitmq")),
        "folder",
        pytest.param("s3", marks=needs("s3")),
    ],
)
@pytest.mark.parametrize("size", [25 * MB, 99 * MB])
def test_a_hundred_clients_with_large_mail_at_once(
    gateway: Callable[..., Gateway],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    kind: str,
    size: int,
) -> None:
    server = gateway(keys_for(kind, tmp_path, request))
    if kind == "broker":
        server.saw("amqp.connected")
    message = octets(size)
    idle = server.memory()

    flock = send_together(server, message, 100, limit=1800)

    assert flock.codes == {"250"}
    most = 150 * MB if kind == "folder" else bound(server, idle, 100)
    assert flock.most.memory < most
    assert flock.most.descriptors < 2 * 100 + 64


@pytest.mark.soak
@needs("rabbitmq")
def test_G06_a_thousand_recipients_of_ten_megabytes(
    gateway: Callable[..., Gateway], willing: RabbitMQ
) -> None:
    server = gateway(
        {"rabbitmq-address": willing.url, "smtp-maxsize": "20MB", "smtp-confirm-timeout": 60}
    )
    server.saw("amqp.connected")
    idle = server.memory()
    with Client(server.port) as client:
        client.socket.settimeout(120)
        client.hello()
        # Whether ten gigabytes are safe within the minute is the broker's to say.
        said = client.mail(octets(10 * MB), *(f"user{n}@ours.test" for n in range(1000)))
        assert said.startswith(("250-", "451 4.3.0 ", "452 4.3.1 "))
        assert server.memory() - idle < 100 * MB
        assert client.mail(b"Subject: small\r\n\r\nHello.\r\n")[:3] in ("250", "451", "452")


@pytest.mark.soak
def test_control_characters_cost_six_times_their_octets_and_one_at_a_time(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway({"smtp-maxsize": "70MB", "smtp-confirm-timeout": 600, "queue-store-max": ""})
    message = b"Subject: large\r\n\r\n" + (b"\x01" * 76 + b"\r\n") * (60 * MB // 78)
    idle = server.memory()

    flock = send_together(server, message, 4, limit=600)

    assert flock.codes == {"250"}
    assert 5 * len(message) < flock.most.memory - idle < 9 * len(message)
