"""A private RabbitMQ node for the tests: real, alone, and gone afterwards.

It has its own name, ports, cookie, name server (epmd) and folder, listens on the
loopback only and takes nothing from a broker that the machine may run. Every process
it starts is known by its pid, so that a test can stop the broker, kill it or make it
stand still.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import trustme

from ports import KeptPort

_START_LIMIT = 180.0
# What a deployment's nodes are configured with.
_DEPLOYED = Path(__file__).parent.parent / "deploy/rabbitmq.conf"
# What F7 needs: small enough to be passed, large enough not to be in the way.
MAX_MESSAGE = 16 * 1024 * 1024


class RabbitMQ:
    """One node. `start` may be called again after `stop` and `kill`: the data stay.

    `max_message` is the largest message that it takes, in octets.
    """

    def __init__(self, *, max_message: int = MAX_MESSAGE) -> None:
        self._max_message = max_message
        self._scripts = _scripts()
        # Short and in no home: an Erlang cookie is looked for in $HOME.
        self.folder = Path(tempfile.mkdtemp(prefix="mailgw-rabbitmq-"))
        self.name = f"mailgw-{uuid.uuid4().hex[:8]}@localhost"
        self._ports = [KeptPort() for _ in range(4)]
        self.port, self.tls_port, self._dist_port, self._epmd_port = (
            each.number for each in self._ports
        )
        self.certificate_authority = self.folder / "ca.pem"
        self._epmd: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None
        self._write_configuration()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def tls_url(self) -> str:
        """By name, because the certificate is for "localhost"; the authority is not named."""
        return f"amqps://guest:guest@localhost:{self.tls_port}/"

    def join(self, nodes: Sequence[RabbitMQ]) -> None:
        """Be one cluster with these, itself among them; to be said before the first start.

        It is configured as in deploy/, with these names. The first of them must be started
        first and closed last: the others use its epmd.
        """
        self._epmd_port = nodes[0]._epmd_port
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(nodes[0].name)
        cookie.chmod(0o400)
        deployed = _DEPLOYED.read_text()
        for number, node in enumerate(nodes, 1):
            deployed = re.sub(rf"\brabbit@rabbitmq-{number}$", node.name, deployed, flags=re.M)
        own = self.folder / "rabbitmq.conf"
        # What is said last counts.
        own.write_text(deployed + own.read_text())

    def start(self) -> None:
        """Start the node and return when it speaks AMQP."""
        if not _listens(self._epmd_port):
            self._epmd = subprocess.Popen(
                [_program("epmd"), "-address", "127.0.0.1", "-port", str(self._epmd_port)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            wait_until(lambda: _listens(self._epmd_port), "epmd listens")
        with (self.folder / "node.log").open("ab") as log:
            self._node = subprocess.Popen(
                [str(self._scripts / "rabbitmq-server")],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        wait_until(self._ready, "the broker answers", _START_LIMIT)

    def stop(self) -> None:
        """End the node in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the node as a power cut would, except for the disk."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it stand still: sockets stay open, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End everything and remove the folder."""
        if self._node is not None:
            self.thaw()
            self.stop()
        if self._epmd is not None:
            self._epmd.terminate()
            self._epmd.wait(10)
            self._epmd = None
        for port in self._ports:
            port.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against this node and return what it printed."""
        done = subprocess.run(
            [str(self._scripts / "rabbitmqctl"), "--quiet", "--node", self.name, *arguments],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.folder,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    async def rabbitmqctl(self, *arguments: str) -> str:
        """As `ctl`, while the test's own event loop goes on."""
        return await asyncio.to_thread(self.ctl, *arguments)

    def _ready(self) -> bool:
        assert self._node is not None
        if self._node.poll() is not None:
            log = (self.folder / "node.log").read_text(errors="replace")
            raise RuntimeError(f"RabbitMQ ended by itself:\n{log[-3000:]}")
        return _speaks_amqp(self.port) and _listens(self.tls_port)

    def _end(self, how: signal.Signals) -> None:
        if self._node is None:
            return
        self._signal(how)
        self._node.wait(60)
        self._node = None

    def _signal(self, number: signal.Signals) -> None:
        if self._node is not None and self._node.poll() is None:
            self._node.send_signal(number)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            # The distribution's own folders are not ours to write.
            "RABBITMQ_FEATURE_FLAGS_FILE": str(self.folder / "feature_flags"),
            "RABBITMQ_PID_FILE": str(self.folder / "node.pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2"
            ),
            "RABBITMQ_CTL_DIST_PORT_MIN": "0",
            "RABBITMQ_CTL_DIST_PORT_MAX": "0",
            # The start script then becomes the Erlang machine instead of watching
            # over it: the pid that we know is the broker's.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _write_configuration(self) -> None:
        authority = trustme.CA()
        server = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(self.certificate_authority)
        server.private_key_pem.write_to_path(self.folder / "key.pem")
        chain = b"".join(blob.bytes() for blob in server.cert_chain_pems)
        (self.folder / "certificate.pem").write_bytes(chain)
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "rabbitmq-env.conf").write_text("")
        (self.folder / "rabbitmq.conf").write_text(
            "\n".join(
                [
                    f"listeners.tcp.default = 127.0.0.1:{self.port}",
                    f"listeners.ssl.default = 127.0.0.1:{self.tls_port}",
                    f"ssl_options.certfile = {self.folder}/certificate.pem",
                    f"ssl_options.keyfile = {self.folder}/key.pem",
                    "ssl_options.verify = verify_none",
                    "ssl_options.fail_if_no_peer_cert = false",
                    f"max_message_size = {self._max_message}",
                    "disk_free_limit.absolute = 1MB",
                    "log.file.level = info",
                    "",
                ]
            )
        )


def wait_until(holds: Callable[[], bool], what: str, limit: float = 60.0) -> None:
    """Return as soon as `holds()`, or fail naming `what` never came true."""
    deadline = time.monotonic() + limit
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit} s: {what}")
        time.sleep(0.05)


async def eventually(holds: Callable[[], bool], what: str, limit: float = 60.0) -> None:
    """As `wait_until`, while the event loop goes on."""
    deadline = time.monotonic() + limit
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit} s: {what}")
        await asyncio.sleep(0.01)


def _scripts() -> Path:
    """The scripts themselves: the ones in /usr/sbin change the user and the folder."""
    found = shutil.which("rabbitmq-server", path=os.environ.get("PATH", "") + ":/usr/sbin")
    for folder in [Path("/usr/lib/rabbitmq/bin")] + (
        [Path(found).resolve().parent] if found else []
    ):
        if (folder / "rabbitmq-server").exists():
            return folder
    raise RuntimeError("rabbitmq-server is not installed (Debian: apt-get install rabbitmq-server)")


def _program(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
    if found is None:
        raise RuntimeError(f"{name} is not installed (Debian: apt-get install erlang-base)")
    return found


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _speaks_amqp(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.settimeout(5)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False
