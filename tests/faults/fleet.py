"""What stands behind one address: HAProxy, two gateways, and the cluster they publish to.

As deploy/ and docker-compose.cluster.yml have it, with other addresses. A fleet is played
like a scene: clients send to HAProxy, parts are taken away and come back, and the ledger
is held against the one queue that both gateways feed.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scene import Scene, playing

from client import Client
from gateway import Gateway, Json
from haproxy import HAProxy
from rabbitmq import RabbitMQ, wait_until

# A gateway's own, so that no outgoing connection can be at its port while it is away.
PLACES = {"mailgw-1": "127.0.0.11", "mailgw-2": "127.0.0.12"}
# Where the balancer is for them, and where clients are for the balancer.
BALANCER = "127.0.0.1"
CLIENTS = ("127.0.0.21", "127.0.0.22", "127.0.0.23", "127.0.0.24")


class Fleet:
    """The gateways by their names in haproxy.cfg; `port` is where clients go."""

    def __init__(self, scenes: dict[str, Scene], haproxy: HAProxy) -> None:
        self._scenes = scenes
        self._haproxy = haproxy
        self.port = haproxy.ports["smtp", BALANCER]

    @property
    def gateway(self) -> Gateway:
        """The one whose memory is looked at."""
        return self._scenes["mailgw-1"].gateway

    def joined(self) -> None:
        """Return when every worker is connected to a node, and HAProxy knows of all."""
        for name, scene in self._scenes.items():
            scene.joined()
            self.is_in(name)
        assert self._haproxy.health() == 200

    def take(self) -> list[Json]:
        """Every document there is, taken off the queue."""
        return self._scenes["mailgw-1"].take()

    def is_clean(self) -> None:
        for scene in self._scenes.values():
            scene.is_clean()

    def is_in(self, name: str) -> None:
        """Return when HAProxy gives it clients."""
        wait_until(lambda: self._haproxy.status("smtp", name) == "UP", f"{name} is in")

    def stop(self, name: str) -> None:
        """End a gateway as an operator does, and return when HAProxy has taken it out."""
        assert self._scenes[name].gateway.stop() == 0
        wait_until(lambda: self._haproxy.status("smtp", name) == "DOWN", f"{name} is out")

    def start(self, name: str) -> None:
        """Start it again, and return when HAProxy brings it a client."""
        gateway = self._scenes[name].gateway
        gateway.start()
        self.is_in(name)
        before = gateway.log.count(" client.connected ")

        def comes() -> bool:
            # Nobody has fewer sessions than whoever was away.
            with Client(self.port) as newcomer:
                newcomer.hello()
            return gateway.log.count(" client.connected ") > before

        wait_until(comes, f"{name} has a client")


@contextmanager
def deployed(folder: Path, nodes: Sequence[RabbitMQ], queue: str) -> Iterator[Fleet]:
    """All of it for the length of a block; the gateways end with 0."""
    hosts = [f"127.0.0.1:{node.port}" for node in nodes]
    with ExitStack() as stack:
        scenes: dict[str, Scene] = {}
        for number, (name, place) in enumerate(PLACES.items()):
            # Each begins with another node.
            turned = ";".join(hosts[number:] + hosts[:number])
            keys = {
                "smtp-ip": place,
                "smtp-port": _free_port(place),
                "smtp-proxy": BALANCER,
                "server-id": name[-1],
            }
            own = folder / name
            own.mkdir()
            address = f"amqp://guest:guest@{turned}/"
            scene = Scene(own, nodes[0], address, queue=queue, keys=keys)
            scenes[name] = stack.enter_context(playing(scene))
        servers = {name: f"{place}:{scenes[name].gateway.port}" for name, place in PLACES.items()}
        haproxy = HAProxy.deployed(folder, servers)
        stack.callback(haproxy.close)
        yield Fleet(scenes, haproxy.start())


def _free_port(place: str) -> int:
    with socket.create_server((place, 0)) as found:
        number: int = found.getsockname()[1]
    return number
