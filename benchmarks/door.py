"""What the front door costs: newcomers, idle clients, look-ups, and a reload under load.

    .venv/bin/python benchmarks/door.py [--quick]

See README.md for how to read it. Exit 0 when the numbers stand, whatever they are; 1 when
a process died or a client was not answered.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import netaddr
from processes import Failed, cpu_seconds
from reception import SMALL, send
from servers import NULL, Server, mailgw, smtp_sink

from mailgw.config.networks import networks
from mailgw.gate.recipients import LocalAddresses


def main() -> int:
    """Run all parts, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: does it work?")
    scale = 10 if parser.parse_args().quick else 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with tempfile.TemporaryDirectory() as folder:
            _newcomers(20_000 // scale)
            _idle(5_000 // scale, 10_000 // scale)
            _ranges(10_000 // scale)
            _local_addresses(Path(folder), 1_000_000 // scale)
            _reload(Path(folder), 1_000_000 // scale)
    except Failed as failure:
        print(f"benchmark failed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


# --- newcomers ------------------------------------------------------------------------


def _newcomers(count: int) -> None:
    print(f"Newcomers, {count} one after the other in each of 3 rounds: connect, read, close")
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
    sink = median(rate for rate, _ in rates["smtp-sink, banner"])
    for name, found in rates.items():
        rate, cpu = (median(each) for each in zip(*found, strict=True))
        print(f"  {name:<32}{rate:>8.0f}/s{cpu:>8.0f} us CPU{rate / sink:>8.2f} of smtp-sink")


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


def _idle(count: int, messages: int) -> None:
    print(f"\n{count} idle clients (EHLO said) beside 4 KB mail on 50 reused connections")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < count + 1_000:
        raise Failed(f"{most} open files are too few for {count} clients (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with mailgw(NULL) as server:
        send(server, SMALL, messages)  # warm
        empty = _memory(server.process.pid)
        alone, beside = [], []
        for _ in range(3):
            alone.append(send(server, SMALL, messages))
            with _waiting(server.port, count):
                full = _memory(server.process.pid)
                beside.append(send(server, SMALL, messages))
    print(f"  memory: {(full - empty) / count / 1000:.1f} KB a client")
    ratio = median(b.rate / a.rate for a, b in zip(alone, beside, strict=True))
    print(f"  rate beside them: {ratio:.2f} of that without them")


@contextmanager
def _waiting(port: int, count: int) -> Iterator[None]:
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.recv(512)
            client.sendall(b"EHLO client.example\r\n")
            clients.append(client)
        for client in clients:
            if not client.recv(1024):
                raise Failed("an idle client was not answered")
        yield


def _memory(pid: int) -> int:
    """Octets that the workers have in memory."""
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(
        int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        for worker in workers
    )


# --- look-ups -------------------------------------------------------------------------


def _ranges(count: int) -> None:
    print(f"\nOne address among {count} ranges, half of them IPv6")
    half = count // 2
    texts = [f"10.{n >> 8}.{n & 255}.0/25" for n in range(half)]
    texts += [f"2001:db8:{n:x}::/48" for n in range(half)]
    ours, peer = networks("; ".join(texts)), netaddr.IPSet(texts)
    asked = {"IPv4": "10.5.6.7", "IPv6": "2001:db8:1f::7"}
    for family, address in asked.items():
        mine = _each(lambda address=address: address in ours)
        others = _each(lambda address=address: address in peer)
        print(f"  {family}: {mine:.1f} us; netaddr.IPSet {others / mine:.0f} times as long")


def _local_addresses(folder: Path, count: int) -> None:
    print(f"\nOne address among {count} local ones")
    file = _list(folder, count)
    before, begun = _own_memory(), time.perf_counter()
    found = LocalAddresses.load(file)
    seconds, octets = time.perf_counter() - begun, _own_memory() - before
    known, unknown = f"user{count // 2}@example.org", f"user{count}@example.org"
    plain = {known}
    mine, no = (_each(lambda a=a: found.is_local(a)) for a in (known, unknown))
    print(f"  {mine:.1f} us for one that is, {no:.1f} us for one that is not")
    print(f"  a Python set of one lower-case text: {_each(lambda: known.lower() in plain):.1f} us")
    print(f"  read from the file in {seconds:.1f} s, {octets / 1e6:.0f} MB")


def _list(folder: Path, count: int) -> Path:
    file = folder / "local-addresses"
    file.write_text("".join(f"user{n}@example.org\n" for n in range(count)))
    return file


def _own_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _each(work: Callable[[], object]) -> float:
    """Microseconds for one time, the median of several rounds."""
    rounds = []
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(20_000):
            work()
        rounds.append((time.perf_counter() - begun) / 20_000 * 1e6)
    return median(rounds)


# --- reload ---------------------------------------------------------------------------


def _reload(folder: Path, count: int) -> None:
    print(f"\nA reload with {count} local addresses, while a client sends mail without a pause")
    file = _list(folder, count)
    with mailgw(NULL | {"MAILGW_LOCAL_ADDRESSES": str(file)}) as server:
        quiet = _longest_wait(server, 3.0, lambda: None)
        busy = [
            _longest_wait(server, 6.0, lambda: os.kill(server.process.pid, signal.SIGHUP))
            for _ in range(3)
        ]
    print(
        f"  the longest wait: {_milliseconds(busy)} ms in 3 reloads, {quiet * 1e3:.0f} ms without"
    )


def _milliseconds(seconds: Sequence[float]) -> str:
    return ", ".join(f"{each * 1e3:.0f}" for each in seconds)


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
