"""What the front door costs: newcomers, idle clients, look-ups, and a reload under load.

    .venv/bin/python benchmarks/door.py [--quick] [--json FILE]

See README.md for how to read it. Exit 0 when the numbers stand, whatever they are; 1 when
a process died or a client was not answered.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import encrypted
import frame
import netaddr
from processes import Failed, cpu_seconds, resident
from reception import SMALL, send
from samples import Figure, Run
from sender import client_context
from servers import NULL, Server, mailgw, smtp_sink

from mailgw.config.networks import networks
from mailgw.gate.recipients import LocalAddresses

# What is meant to be: KB an idle client, microseconds of a look-up, seconds to read the list.
_IDLE, _ADDRESS, _RANGE, _READ = 20.0, 2.0, 10.0, 3.0


def main() -> int:
    """Run all parts, one after the other."""
    options = frame.parser(__doc__).parse_args()
    scale = 10 if options.quick else 1

    def measure(run: Run) -> None:
        with tempfile.TemporaryDirectory() as folder:
            _newcomers(run, 20_000 // scale)
            _idle(run, 5_000 // scale, 10_000 // scale)
            _idle_in_tls(run, 2_000 // scale)
            _ranges(run, 10_000 // scale)
            _local_addresses(run, Path(folder), 1_000_000 // scale)
            _reload(run, Path(folder), 1_000_000 // scale)

    return frame.run(measure, options.json)


def _note(
    run: Run, title: str, unit: str, values: Sequence[float], at_most: float | None = None
) -> None:
    frame.note(run, Figure("door", title, unit, list(values), at_most=at_most))


# --- newcomers ------------------------------------------------------------------------


def _newcomers(run: Run, count: int) -> None:
    print(f"\nNewcomers, {count} one after the other in each of 3 rounds: connect, read, close")
    refusing = NULL | {"MAILGW_SMTP_RANGE": "192.0.2.0/24"}
    with ExitStack() as stack:
        servers = [
            ("mailgw, banner", stack.enter_context(mailgw(NULL))),
            ("mailgw, refused by smtp-range", stack.enter_context(mailgw(refusing))),
            ("smtp-sink, banner", stack.enter_context(smtp_sink())),
        ]
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in servers}
        for _ in range(3):
            for name, server in servers:
                rates[name].append(_visit(server, count))
    sink = [rate for rate, _ in rates["smtp-sink, banner"]]
    for name, found in rates.items():
        rate, cpu = zip(*found, strict=True)
        _note(run, f"newcomers: {name}", "/s", rate)
        _note(run, f"newcomers: {name}, CPU", "us", cpu)
        if name != "smtp-sink, banner":
            shares = [mine / its for mine, its in zip(rate, sink, strict=True)]
            _note(run, f"newcomers: {name} / smtp-sink", "", shares)


def _visit(server: Server, count: int) -> tuple[float, float]:
    """Connections a second, and the server's CPU for one in microseconds."""
    before, begun = cpu_seconds(server.process.pid), time.perf_counter()
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            if not client.recv(512):
                raise Failed("a client was not answered")
    seconds = time.perf_counter() - begun
    return count / seconds, (cpu_seconds(server.process.pid) - before) / count * 1e6


# --- idle clients ---------------------------------------------------------------------


def _idle(run: Run, count: int, messages: int) -> None:
    print(f"\n{count} idle clients (EHLO said) beside 4 KB mail on 50 reused connections")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < count + 1_000:
        raise Failed(f"{most} open files are too few for {count} clients (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with mailgw(NULL) as server:
        send(server, SMALL, messages)  # warm
        empty = resident(server.process.pid)
        alone, beside, grown = [], [], []
        for _ in range(3):
            alone.append(send(server, SMALL, messages))
            with _waiting(server.port, count):
                grown.append((resident(server.process.pid) - empty) / count / 1000)
                beside.append(send(server, SMALL, messages))
    _note(run, f"memory of one of {count} idle clients", "KB", grown, at_most=_IDLE)
    shares = [b.rate / a.rate for a, b in zip(alone, beside, strict=True)]
    _note(run, f"rate beside {count} idle clients / without", "", shares)


def _idle_in_tls(run: Run, count: int) -> None:
    print(f"\n{count} idle clients inside TLS 1.3 (STARTTLS, EHLO said)")
    context = client_context()
    with encrypted.certificate() as shown, mailgw(NULL, shown) as server:
        with _waiting(server.port, 10, context):  # warm
            empty = resident(server.process.pid)
        # Once: a second round would find the memory that the first one left free.
        with _waiting(server.port, count, context):
            grown = (resident(server.process.pid) - empty) / count / 1000
    title = f"memory of one of {count} idle clients inside TLS"
    _note(run, title, "KB", [grown], at_most=_IDLE)


@contextmanager
def _waiting(port: int, count: int, tls: ssl.SSLContext | None = None) -> Iterator[None]:
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.recv(512)
            if tls is not None:
                for command in (b"EHLO client.example\r\n", b"STARTTLS\r\n"):
                    client.sendall(command)
                    client.recv(1024)
                client = stack.enter_context(tls.wrap_socket(client))
            client.sendall(b"EHLO client.example\r\n")
            clients.append(client)
        for client in clients:
            if not client.recv(1024):
                raise Failed("an idle client was not answered")
        yield


# --- look-ups -------------------------------------------------------------------------


def _ranges(run: Run, count: int) -> None:
    print(f"\nOne address among {count} ranges, half of them IPv6")
    half = count // 2
    texts = [f"10.{n >> 8}.{n & 255}.0/25" for n in range(half)]
    texts += [f"2001:db8:{n:x}::/48" for n in range(half)]
    ours, peer = networks("; ".join(texts)), netaddr.IPSet(texts)
    asked = {"IPv4": "10.5.6.7", "IPv6": "2001:db8:1f::7"}
    for family, address in asked.items():
        mine = _each(lambda address=address: address in ours)
        others = _each(lambda address=address: address in peer)
        _note(run, f"{family} address among {count} ranges", "us", mine, at_most=_RANGE)
        shares = [b / a for a, b in zip(mine, others, strict=True)]
        _note(run, f"{family}: netaddr.IPSet takes as long", "times", shares)


def _local_addresses(run: Run, folder: Path, count: int) -> None:
    print(f"\nOne address among {count} local ones")
    file = _list(folder, count)
    before, begun = _own_memory(), time.perf_counter()
    found = LocalAddresses.load(file)
    seconds, octets = time.perf_counter() - begun, _own_memory() - before
    known, unknown = f"user{count // 2}@example.org", f"user{count}@example.org"
    plain = {known}
    mine, no = (_each(lambda a=a: found.is_local(a)) for a in (known, unknown))
    _note(run, f"one of {count} local addresses", "us", mine, at_most=_ADDRESS)
    _note(run, "one that is none of them", "us", no, at_most=_ADDRESS)
    lower = _each(lambda: known.lower() in plain)
    _note(run, "a Python set of one lower-case text", "us", lower)
    _note(run, f"{count} local addresses read from the file", "s", [seconds], at_most=_READ)
    _note(run, f"{count} local addresses in memory", "MB", [octets / 1e6])


def _list(folder: Path, count: int) -> Path:
    file = folder / "local-addresses"
    file.write_text("".join(f"user{n}@example.org\n" for n in range(count)))
    return file


def _own_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _each(work: Callable[[], object]) -> list[float]:
    """Microseconds for one time, in each of several rounds."""
    rounds = []
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(20_000):
            work()
        rounds.append((time.perf_counter() - begun) / 20_000 * 1e6)
    return rounds


# --- reload ---------------------------------------------------------------------------


def _reload(run: Run, folder: Path, count: int) -> None:
    print(f"\nA reload with {count} local addresses, while a client sends mail without a pause")
    file = _list(folder, count)
    with mailgw(NULL | {"MAILGW_LOCAL_ADDRESSES": str(file)}) as server:
        quiet = _longest_wait(server, 3.0, lambda: None)
        busy = [
            _longest_wait(server, 6.0, lambda: os.kill(server.process.pid, signal.SIGHUP))
            for _ in range(3)
        ]
    _note(run, "the longest wait for a 250 in a reload", "ms", [each * 1e3 for each in busy])
    _note(run, "the longest wait without one", "ms", [quiet * 1e3])


def _longest_wait(server: Server, seconds: float, act: Callable[[], None]) -> float:
    """The slowest mail within that time, in which `act` is done after a second."""
    timer = threading.Timer(1.0, act)
    longest = 0.0
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        _ask(client, b"")
        _ask(client, b"EHLO client.example\r\n")
        timer.start()
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            _ask(client, b"MAIL FROM:<sender@example.com>\r\n")
            _ask(client, b"RCPT TO:<user1@example.org>\r\n")
            _ask(client, b"DATA\r\n")
            _ask(client, b"Subject: x\r\n\r\nx\r\n.\r\n")
            longest = max(longest, time.perf_counter() - begun)
    timer.join()
    return longest


def _ask(client: socket.socket, line: bytes) -> None:
    client.sendall(line)
    if client.recv(1024)[:1] not in (b"2", b"3"):
        raise Failed("a client was cut by the reload, or refused")


if __name__ == "__main__":
    sys.exit(main())
