"""Part 1: mail that is accepted and dropped, by mailgw and everybody else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import peers
from processes import Failed, cpu_seconds, machine_cpu_seconds, run_to_end
from samples import WARM_UP, Case, Contender, Sample, compare
from servers import NULL, Server, builds, mailgw, program, smtp_sink

SESSIONS = 50
_TURN_LIMIT = 120.0
# What is sent at the same time, all sessions together, is kept by some servers in memory,
# several times over.
_LARGEST_IN_FLIGHT = 80 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Shape:
    """What smtp-source sends: bodies of `size` octets, many or one a connection."""

    size: int
    reused: bool

    @property
    def title(self) -> str:
        connections = "connections reused" if self.reused else "one mail a connection"
        size = f"{self.size >> 20} MB" if self.size >= 1 << 20 else f"{self.size >> 10} KB"
        sessions = "" if self.sessions == SESSIONS else f", {self.sessions} sessions"
        return f"{size}, {connections}{sessions}"

    @property
    def sessions(self) -> int:
        return min(SESSIONS, max(1, _LARGEST_IN_FLIGHT // self.size))

    @property
    def fewest(self) -> int:
        """Messages of the shortest turn: as many as warm up, or a few of the large ones."""
        return WARM_UP if self.sessions == SESSIONS else 2 * self.sessions


SMALL = Shape(4096, reused=True)
SMALL_ONCE = Shape(4096, reused=False)
MIDDLE = Shape(102_400, reused=True)
LARGE = Shape(10 * 1024 * 1024, reused=True)
SHAPES = [SMALL, SMALL_ONCE, MIDDLE, LARGE]


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that smtp-source sends from a file, from whom, and under which name."""

    file: Path
    sender: str
    helo: str


def measure(
    shapes: Sequence[Shape], without: Sequence[str], rounds: int, seconds: float
) -> Iterator[Case]:
    """Compare all servers but those `without`, a case for each shape."""
    with ExitStack() as stack:
        servers = [stack.enter_context(mailgw(NULL, build=build)) for build in builds()]
        servers.append(stack.enter_context(smtp_sink()))
        for name, start in peers.RECEIVERS.items():
            if name not in without:
                servers.append(stack.enter_context(start(peers.DROP, None)))
        for shape in shapes:
            contenders = [_sending(server, shape) for server in servers]
            case = compare(shape.title, contenders, rounds, seconds, shape.fewest)
            yield replace(case, part="dropped")


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
    command = [
        program("smtp-source"),
        "-4",
        "-s",
        str(min(shape.sessions, count)),
        "-m",
        str(count),
    ]
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
