"""Part 1: mail that is accepted and dropped, by mailgw, aiosmtpd and smtp-sink."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes import (
    Failed,
    Process,
    cpu_seconds,
    listening_port,
    machine_cpu_seconds,
    run_to_end,
    running,
    wait_for,
)
from samples import Case, Contender, Sample, compare

SESSIONS = 50
_TURN_LIMIT = 60.0
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Shape:
    """What smtp-source sends: bodies of `size` octets, many or one a connection."""

    size: int
    reused: bool

    @property
    def title(self) -> str:
        connections = "connections reused" if self.reused else "one mail a connection"
        return f"{self.size // 1024} KB, {connections}"


SHAPES = [Shape(size, reused) for size in (4096, 102_400) for reused in (True, False)]


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that smtp-source sends from a file, from whom, and under which name."""

    file: Path
    sender: str
    helo: str


@dataclass(frozen=True, slots=True)
class Server:
    process: Process
    port: int


def measure(shapes: Sequence[Shape], rounds: int, seconds: float) -> Iterator[Case]:
    """Compare the three servers, a case for each shape."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(mailgw({"MAILGW_OUTPUT": "null", "MAILGW_RABBITMQ_ADDRESS": ""})),
            stack.enter_context(
                _server("aiosmtpd", [sys.executable, str(_HERE / "null_aiosmtpd.py")])
            ),
            stack.enter_context(smtp_sink()),
        ]
        for shape in shapes:
            yield compare(shape.title, [_sending(s, shape) for s in servers], rounds, seconds)


@contextmanager
def mailgw(keys: dict[str, str]) -> Iterator[Server]:
    """The gateway with these keys, on a free port, its log thrown away."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("MAILGW_")}
    environ |= {"MAILGW_SMTP_IP": "127.0.0.1", "MAILGW_SMTP_PORT": "0", **keys}
    with _server("mailgw", [sys.executable, "-m", "mailgw", "serve"], environ) as server:
        yield server


@contextmanager
def smtp_sink() -> Iterator[Server]:
    """Postfix's sink, on a free port."""
    # As root it wants to know who to become instead.
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [program("smtp-sink"), "-4", *user, "127.0.0.1:0", "1024"]
    with _server("smtp-sink", command) as server:
        yield server


@contextmanager
def _server(
    name: str, command: Sequence[str], environ: dict[str, str] | None = None
) -> Iterator[Server]:
    # Only mailgw logs by itself, so only its words are lost, and it is said in the report.
    with running(name, command, environ=environ, quiet=name == "mailgw") as process:
        wait_for(lambda: listening_port(process.pid) is not None, "it listens", process)
        port = listening_port(process.pid)
        if port is None:
            raise Failed(f"{name} stopped listening")
        yield Server(process, port)


def program(name: str) -> str:
    """The path of one of Postfix's programs, which live in sbin."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise Failed(f"{name} is not installed: scripts/install-test-parts postfix")
    return found


def _sending(server: Server, shape: Shape) -> Contender:
    return Contender(server.process.name, lambda count: send(server, shape, count))


def send(
    server: Server,
    shape: Shape,
    count: int,
    broker: int | None = None,
    letter: Letter | None = None,
) -> Sample:
    """Send so many messages with smtp-source; it fails unless each is answered 250.

    `broker` is the pid of the broker behind the server, if there is one. A `letter` is sent
    instead of what smtp-source makes up.
    """
    command = [program("smtp-source"), "-4", "-s", str(min(SESSIONS, count)), "-m", str(count)]
    if letter is None:
        command += ["-l", str(shape.size), "-f", "sender@example.com", "-M", "client.example"]
    else:
        command += ["-F", str(letter.file), "-f", letter.sender, "-M", letter.helo]
    command += ["-t", "recipient@example.org", *(["-d"] if shape.reused else [])]
    command += [f"127.0.0.1:{server.port}"]
    pid = server.process.pid
    server.process.check()
    before, all_before = cpu_seconds(pid), machine_cpu_seconds()
    broker_before = cpu_seconds(broker) if broker else 0.0
    try:
        seconds, source_cpu = run_to_end("smtp-source", command, _TURN_LIMIT)
    except Failed:
        # Whose fault it was, if it was somebody else's.
        server.process.check()
        raise
    server.process.check()
    server_cpu = cpu_seconds(pid) - before
    broker_cpu = cpu_seconds(broker) - broker_before if broker else 0.0
    others = machine_cpu_seconds() - all_before - server_cpu - source_cpu - broker_cpu
    return Sample(count, seconds, server_cpu, source_cpu, broker_cpu, max(0.0, others))
