"""A private HAProxy: configured as a test wants it, or as deploy/ has it, on free ports.

The listening sockets are made here and inherited, so no port is chosen twice and a client
may connect before HAProxy is up.
"""

from __future__ import annotations

import csv
import http.client
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from rabbitmq import wait_until

_DEPLOYED = Path(__file__).parent.parent / "deploy/haproxy.cfg"
_DEFAULTS = """
global
  maxconn 200
  nbthread 1
  stats socket {control} level admin
defaults
  mode tcp
  unique-id-format %ci-%cp-%ts
  timeout connect 5s
  timeout client 30s
  timeout server 30s
"""


def program() -> str:
    """Where HAProxy is; it lives in sbin."""
    found = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")
    assert found is not None, "haproxy is not installed (scripts/install-test-parts haproxy)"
    return found


class HAProxy:
    """One HAProxy with a front for each of `servers`: name -> the options of its server line.

    Each front is to be reached at all of `addresses`. `checks`: names whose servers are
    checked by SMTP.
    """

    def __init__(
        self,
        folder: Path,
        servers: dict[str, str],
        addresses: tuple[str, ...] = ("127.0.0.1",),
        smtp_checks: frozenset[str] = frozenset(),
    ) -> None:
        self.ports: dict[tuple[str, str], int] = {}
        self._control = folder / "control"
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "haproxy.log"
        self._configuration = folder / "haproxy.cfg"
        self._sockets: list[socket.socket] = []
        text = _DEFAULTS.format(control=self._control)
        for name, options in servers.items():
            text += f"listen {name}\n"
            for address in addresses:
                text += f"  bind fd@{self._listen(name, address)}\n"
            text += "  option smtpchk EHLO haproxy.test\n" if name in smtp_checks else ""
            text += f"  server gateway {options}\n"
        self._configuration.write_text(text)

    @classmethod
    def deployed(cls, folder: Path, servers: dict[str, str]) -> HAProxy:
        """The one of deploy/haproxy.cfg, with these addresses for its servers."""
        self = cls(folder, {})
        self._configuration.write_text("\n".join(self._moved(servers)) + "\n")
        return self

    def start(self) -> HAProxy:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program(), "-db", "-f", str(self._configuration)],
                pass_fds=[each.fileno() for each in self._sockets],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._ready, "HAProxy answers")
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def close(self) -> None:
        """End it whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for each in self._sockets:
            each.close()

    def status(self, name: str, server: str = "gateway") -> str:
        """What its checks say of a server: UP, DOWN, or on the way to one of them."""
        lines = self._ask("show stat").removeprefix("# ").strip().splitlines()
        rows = [row for row in csv.DictReader(lines) if row["pxname"] == name]
        return next(row["status"] for row in rows if row["svname"] == server)

    def health(self) -> int:
        """What it answers to whoever asks whether there is a gateway; 200 or 503."""
        port = self.ports["health", "127.0.0.1"]
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as asking:
            asking.request("GET", "/up")
            return asking.getresponse().status

    def take_down(self, name: str) -> None:
        """Hold a server for dead; it comes back after as many good checks as its `rise`."""
        self._ask(f"set server {name}/gateway health down")

    def _moved(self, servers: dict[str, str]) -> Iterator[str]:
        """The lines of deploy/haproxy.cfg; what depends on the machine is ours."""
        section = ""
        missing = set(servers)
        for line in _DEPLOYED.read_text().splitlines():
            match line.split():
                case ["listen" | "frontend", section]:
                    yield line
                case ["bind", _, *options]:
                    number = self._listen(section, "127.0.0.1")
                    yield " ".join(["  bind", f"fd@{number}", *options])
                case ["server", name, _, *options]:
                    missing.remove(name)
                    yield " ".join(["  server", name, servers[name], *options])
                case ["maxconn", _]:
                    # Two descriptors each, and few machines let everybody have so many.
                    yield "  maxconn 200"
                case ["stats", "socket", _, *options]:
                    yield " ".join(["  stats socket", str(self._control), *options])
                case _:
                    yield line
        assert not missing, f"not in {_DEPLOYED}: {missing}"

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(10)
            control.connect(str(self._control))
            control.sendall(command.encode() + b"\n")
            answer = b""
            while data := control.recv(65536):
                answer += data
        return answer.decode()

    def _listen(self, name: str, address: str) -> int:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.create_server((address, 0), family=family)
        self._sockets.append(sock)
        self.ports[name, address] = sock.getsockname()[1]
        return sock.fileno()

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"HAProxy ended by itself:\n{self._log.read_text()}")
        try:
            return "Name: HAProxy" in self._ask("show info")
        except OSError:
            return False
