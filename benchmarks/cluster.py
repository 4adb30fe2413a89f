"""What replication costs: a classic queue, a quorum queue on one node, one on three.

    .venv/bin/python benchmarks/cluster.py [--octets N] [--once] [--rounds N] [--quick]
                                           [--json FILE]

Three nodes of a private RabbitMQ run all the while, and only the queue differs: each is led by
the first node, to which everybody is connected. Into each goes mail through the whole
gateway, and the same document from a bare publisher (our outlet, without SMTP), persistent,
mandatory, confirmed, 50 in flight; into the last one also mail that comes through HAProxy, as
deploy/ has it. After each turn a consumer takes the documents off and
acknowledges them, which is counted, and timed apart. See README.md for how to read it. Exit 0
whatever the numbers are; 1 when a process died or a document was lost.
"""

from __future__ import annotations

import asyncio
import os
import smtplib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import aio_pika
import frame
from pamqp.common import FieldTable
from processes import (
    Failed,
    Process,
    cpu_seconds,
    machine_cpu_seconds,
    resident,
    running,
    wait_for,
)
from reception import Server, Shape, mailgw, send
from samples import Case, Contender, Figure, Run, Sample, compare

if TYPE_CHECKING:
    from haproxy import HAProxy
    from rabbitmq import RabbitMQ

_HERE = Path(__file__).parent
_PART = "cluster"
# Each led by the node that it is declared at. Version 2 is what RabbitMQ 4 knows as classic.
_CLASSIC: FieldTable = {
    "x-queue-type": "classic",
    "x-queue-version": 2,
    "x-queue-master-locator": "client-local",
}
_QUORUM: FieldTable = {"x-queue-type": "quorum", "x-queue-leader-locator": "client-local"}
_QUEUES: dict[str, FieldTable] = {
    "classic": _CLASSIC,
    "quorum-1": {**_QUORUM, "x-quorum-initial-group-size": 1},
    "quorum-3": {**_QUORUM, "x-quorum-initial-group-size": 3},
}
# Unacknowledged at once; what a consumer may have that does some work for each.
_PREFETCH = 200
_REMARKS = """\
"node 1" leads and has the connections, "others" is the mean of the two that follow: CPU
microseconds a message until it was confirmed. "taken off": CPU of all nodes for the consumer's
share. "written": KB a message that node 1 gave to its disk. Client, gateway and three nodes
share the cores of this machine: CPU a message says what a part costs, the rates do not say
what it could do alone. Medians; ratios are round by round.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(Sample):
    """As Sample; and for each node its CPU seconds, then for the consumer all of theirs.

    `written`: octets that the first node wrote until all was confirmed. `balancer`: HAProxy's
    CPU seconds, where there is one.
    """

    balancer: float
    nodes: tuple[float, ...]
    consuming: float
    written: int


@dataclass(frozen=True, slots=True)
class Cluster:
    url: str
    pids: tuple[int, ...]
    version: str

    def cpu(self) -> tuple[float, ...]:
        return tuple(cpu_seconds(pid) for pid in self.pids)

    def written(self) -> int:
        lines = Path(f"/proc/{self.pids[0]}/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def main() -> int:
    """Run the comparison and print it."""
    parser = frame.parser(__doc__, rounds=5)
    parser.add_argument("--octets", type=int, default=4096, help="of a body (default 4096)")
    parser.add_argument("--once", action="store_true", help="one mail a connection")
    options = parser.parse_args()
    rounds, seconds = (2, 0.5) if options.quick else (options.rounds, 1.5)
    shape = Shape(options.octets, reused=not options.once)
    return frame.run(partial(_compare, shape=shape, rounds=rounds, seconds=seconds), options.json)


def _compare(run: Run, shape: Shape, rounds: int, seconds: float) -> None:
    with _cluster() as cluster:
        run.machine["RabbitMQ"] = cluster.version
        asyncio.run(_declare(cluster))
        case, octets, memory = _measure(cluster, shape, rounds, seconds)
    run.cases.append(case)
    print(f"\n{case.title}, {rounds} rounds of {seconds} s\n{_REMARKS}")
    for line in (*_table(case), ""):
        print(line)
    for figure in _figures(case):
        # The table has them.
        run.figures.append(figure)
    for figure in _ratios(case):
        frame.note(run, figure)
    frame.note(run, Figure(_PART, f"{shape.title}: a document", "KB", [octets / 1000]))
    frame.note(run, Figure(_PART, "a worker's memory after all of it", "MB", [memory / 1e6]))


# --- the cluster --------------------------------------------------------------------


@contextmanager
def _cluster() -> Iterator[Cluster]:
    """Three nodes of our own, as the tests have them."""
    sys.path.append(str(_HERE.parent / "tests"))
    from rabbitmq import RabbitMQ, wait_until

    nodes: list[RabbitMQ] = [RabbitMQ() for _ in range(3)]
    try:
        for node in nodes:
            node.join(nodes)
        nodes[0].start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(RabbitMQ.start, nodes[1:]))
        count = "length(rabbit_nodes:all_running())."
        wait_until(lambda: nodes[0].ctl("eval", count).strip() == "3", "they are a cluster", 60)
        pids = tuple(int(node.ctl("eval", "os:getpid().").strip().strip('"')) for node in nodes)
        version = nodes[0].ctl("eval", "rabbit_misc:version().").strip().strip('"')
        yield Cluster(nodes[0].url, pids, version)
    finally:
        for node in reversed(nodes):
            node.close()


async def _declare(cluster: Cluster) -> None:
    """Make the queues."""
    connection = await aio_pika.connect(cluster.url)
    async with connection:
        channel = await connection.channel()
        for name, arguments in _QUEUES.items():
            await channel.declare_queue(name, durable=True, arguments=arguments)


async def _consume(cluster: Cluster, queue: str, expected: int) -> int:
    """Take and acknowledge what is there, and give the size of the last document."""
    octets = 0
    connection = await aio_pika.connect(cluster.url)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=_PREFETCH)
        source = await channel.get_queue(queue)
        taken = 0
        while taken < expected:
            async with source.iterator(timeout=15) as messages:
                async for message in messages:
                    await message.ack()
                    octets, taken = len(message.body), taken + 1
                    if taken == expected:
                        break
        left = await channel.get_queue(queue)
        if left.declaration_result.message_count:
            raise Failed(f"{queue}: more documents than were confirmed")
    return octets


# --- turns --------------------------------------------------------------------------


def _measure(cluster: Cluster, shape: Shape, rounds: int, seconds: float) -> tuple[Case, int, int]:
    """The samples, the octets of a document, and those of a worker when all is done."""
    with ExitStack() as stack:
        servers = {queue: stack.enter_context(_gateway(cluster, queue)) for queue in _QUEUES}
        for server in servers.values():
            wait_for(partial(_takes_mail, server), "it takes mail", server.process)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailgw-bench-")))
        body = folder / "document.json"
        first = next(iter(servers))
        body.write_bytes(_document(cluster, first, servers[first], shape))
        contenders = []
        for queue, server in servers.items():
            publisher = stack.enter_context(_publisher(cluster, queue, body))
            contenders += [
                _contender(cluster, f"mailgw {queue}", queue, _sending(server, shape)),
                _contender(cluster, f"bare {queue}", queue, _publishing(publisher)),
            ]
        behind = stack.enter_context(_gateway(cluster, queue, MAILGW_SMTP_PROXY="127.0.0.1"))
        balancer = stack.enter_context(_balancer(behind, folder))
        front = Server(behind.process, balancer.ports["smtp", "127.0.0.1"])
        wait_for(lambda: _takes_mail(front), "it takes mail", behind.process)
        contenders.append(
            _contender(cluster, f"haproxy {queue}", queue, _sending(front, shape), balancer.pid)
        )
        octets = body.stat().st_size
        case = compare(f"{shape.title}, a document each", contenders, rounds, seconds)
        memory = max(resident(server.process.pid) for server in servers.values())
        return replace(case, part=_PART), octets, memory


@contextmanager
def _gateway(cluster: Cluster, queue: str, **more: str) -> Iterator[Server]:
    keys = {
        "MAILGW_RABBITMQ_ADDRESS": cluster.url,
        "MAILGW_RABBITMQ_INBOX": queue,
        "MAILGW_RABBITMQ_DECLARE": "false",
        **more,
    }
    with mailgw(keys) as server:
        yield server


@contextmanager
def _balancer(server: Server, folder: Path) -> Iterator[HAProxy]:
    """HAProxy as in deploy/, with one gateway for both."""
    from haproxy import HAProxy

    place = f"127.0.0.1:{server.port}"
    found = HAProxy.deployed(folder, {"mailgw-1": place, "mailgw-2": place})
    try:
        yield found.start()
    finally:
        found.close()


def _takes_mail(server: Server) -> bool:
    """The gateway connects to the broker by itself, and says 451 until it has."""
    with smtplib.SMTP("127.0.0.1", server.port, "client.example", timeout=5) as client:
        client.ehlo()
        return client.mail("sender@example.com")[0] == 250


def _document(cluster: Cluster, queue: str, server: Server, shape: Shape) -> bytes:
    """What the gateway publishes for one message of smtp-source."""
    send(server, shape, 1)
    return asyncio.run(_first(cluster, queue))


async def _first(cluster: Cluster, queue: str) -> bytes:
    connection = await aio_pika.connect(cluster.url)
    async with connection:
        channel = await connection.channel()
        message = await (await channel.get_queue(queue)).get(no_ack=True)
        return message.body if message else b""


@contextmanager
def _publisher(cluster: Cluster, queue: str, body: Path) -> Iterator[Process]:
    command = [sys.executable, str(_HERE / "publisher.py"), "outlet", queue, str(body)]
    environ = {**os.environ, "MAILGW_RABBITMQ_ADDRESS": cluster.url}
    # It says that the classic queue differs from what it would declare.
    with running(f"bare {queue}", command, environ=environ, pipes=True, quiet=True) as process:
        yield process


def _sending(server: Server, shape: Shape) -> Callable[[int], Sample]:
    return lambda count: send(server, shape, count)


def _publishing(publisher: Process) -> Callable[[int], Sample]:
    def turn(count: int) -> Sample:
        before, all_before = cpu_seconds(publisher.pid), machine_cpu_seconds()
        started = time.perf_counter()
        answer = publisher.ask(str(count))
        took = time.perf_counter() - started
        if answer != "done":
            raise Failed(f"{publisher.name} said {answer!r}")
        cpu = cpu_seconds(publisher.pid) - before
        return Sample(count, took, cpu, 0.0, 0.0, machine_cpu_seconds() - all_before - cpu)

    return turn


def _contender(
    cluster: Cluster,
    name: str,
    queue: str,
    turn: Callable[[int], Sample],
    balancer: int | None = None,
) -> Contender:
    def balancing() -> float:
        return cpu_seconds(balancer) if balancer else 0.0

    def whole(count: int) -> Sample:
        before, written, balanced = cluster.cpu(), cluster.written(), balancing()
        sample = turn(count)
        after, written = cluster.cpu(), cluster.written() - written
        balanced = balancing() - balanced
        asyncio.run(_consume(cluster, queue, count))
        consumed = sum(cluster.cpu()) - sum(after)
        nodes = tuple(b - a for a, b in zip(before, after, strict=True))
        elsewhere = max(0.0, sample.elsewhere - sum(nodes) - balanced)
        sample = replace(sample, broker_cpu=sum(nodes), elsewhere=elsewhere)
        return Turn(
            **asdict(sample),
            balancer=balanced,
            nodes=nodes,
            consuming=consumed,
            written=written,
        )

    return Contender(name, whole)


# --- as text ------------------------------------------------------------------------


def _table(case: Case) -> Iterator[str]:
    yield (
        f"  {'':<18}{'msg/s':>7} {'(min-max)':>13}{'CPU us/msg':>12}{'haproxy':>9}"
        f"{'node 1':>8}{'others':>8}{'taken off':>11}{'written':>9}{'elsewhere':>11}"
    )
    for name, samples in case.samples.items():
        turns = [each for each in samples if isinstance(each, Turn)]
        rates = [each.rate for each in turns]
        spread = f"({min(rates):.0f}-{max(rates):.0f})"
        yield (
            f"  {name:<18}{median(rates):>7.0f} {spread:>13}"
            f"{_us(turns, lambda turn: turn.server_cpu):>12.0f}"
            f"{_us(turns, lambda turn: turn.balancer):>9.0f}"
            f"{_us(turns, lambda turn: turn.nodes[0]):>8.0f}"
            f"{_us(turns, lambda turn: sum(turn.nodes[1:]) / 2):>8.0f}"
            f"{_us(turns, lambda turn: turn.consuming):>11.0f}"
            f"{median(turn.written / turn.messages / 1000 for turn in turns):>9.1f}"
            f"{median(turn.busy(turn.elsewhere) for turn in turns):>11.0%}"
        )


def _us(turns: Sequence[Turn], cpu: Callable[[Turn], float]) -> float:
    """The median of CPU microseconds a message."""
    return median(cpu(turn) / turn.messages * 1e6 for turn in turns)


def _figures(case: Case) -> Iterator[Figure]:
    """What a sample of any benchmark does not hold."""
    of_what: dict[str, Callable[[Turn], float]] = {
        "node 1, CPU": lambda turn: turn.nodes[0],
        "each other node, CPU": lambda turn: sum(turn.nodes[1:]) / 2,
        "all nodes to take it off, CPU": lambda turn: turn.consuming,
        "HAProxy, CPU": lambda turn: turn.balancer,
    }
    for name, samples in case.samples.items():
        turns = [each for each in samples if isinstance(each, Turn)]
        for what, cpu in of_what.items():
            values = [cpu(turn) / turn.messages * 1e6 for turn in turns]
            if any(values):
                yield Figure(_PART, f"{name}: {what}", "us/msg", values)
        written = [turn.written / turn.messages / 1000 for turn in turns]
        yield Figure(_PART, f"{name}: node 1 wrote", "KB/msg", written)


def _ratios(case: Case) -> Iterator[Figure]:
    for kind in ("mailgw", "bare"):
        for ours, theirs in (("quorum-1", "classic"), ("quorum-3", "quorum-1")):
            pairs = list(
                zip(case.samples[f"{kind} {ours}"], case.samples[f"{kind} {theirs}"], strict=True)
            )
            title = f"{kind}: {ours} / {theirs}"
            yield Figure(_PART, f"{title}, rate", "", [a.rate / b.rate for a, b in pairs])
            costs = [a.broker_cost / b.broker_cost for a, b in pairs if b.broker_cost]
            if costs:
                yield Figure(_PART, f"{title}, CPU of all nodes", "", costs)


if __name__ == "__main__":
    sys.exit(main())
