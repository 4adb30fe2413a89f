"""How many gateways and nodes a mail volume needs: the arithmetic of docs/scaling.md.

    .venv/bin/python benchmarks/scaling.py [--KEY=VALUE ...]

Every number that a formula begins with is an argument: what was measured, by cluster.py,
handshakes.py and checks.py, and what was assumed. Prints the tables of the page. Nothing is
measured here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import ceil

VOLUMES = (1e6, 1e7, 1e8, 1e9)


@dataclass(frozen=True, slots=True)
class Basis:
    """CPU is in microseconds a mail, sizes are in octets, rates a second."""

    # Measured on one machine: mail of 50 KB, one a connection, through all parts.
    gateway_cpu: float = 602.0
    tls_cpu: float = 590.0
    checks_cpu: float = 955.0
    balancer_cpu: float = 270.0
    broker_cpu: float = 1123.0
    queue_rate: float = 2328.0
    mail: float = 52_000.0
    document: float = 53_300.0
    written: float = 2.0
    # Assumed.
    peak: float = 3.0
    busy: float = 0.5
    cores: float = 16.0
    node_network: float = 1.25e9
    node_disk: float = 1.0e9
    session: float = 5.0
    backlog: float = 3600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a volume a day needs; a rate is that of the peak."""

    rate: float
    sessions: float
    inbound: float
    gateway_cores: float
    gateways: int
    balancers: int
    clusters: int
    node_cores: float
    node_network: float
    node_disk: float
    backlog: float
    queues: int
    first: str


def plan(volume: float, basis: Basis) -> Plan:
    """The arithmetic, once."""
    rate = volume / 86_400 * basis.peak
    cpu = basis.gateway_cpu + basis.tls_cpu + basis.checks_cpu
    gateway_cores = rate * cpu / 1e6 / basis.busy
    # Of all three nodes, as if each had a third of everything.
    node_cores = rate * basis.broker_cpu / 1e6 / basis.busy / 3
    # Into a node: its third of the publishes, two thirds of all for its replicas, and a third of
    # the two thirds that came to or are wanted from a node that does not lead.
    network = rate * basis.document * (1 / 3 + 2 / 3 + 2 / 9 + 2 / 9)
    disk = rate * basis.document * basis.written
    wants = {
        "CPU": node_cores / basis.cores,
        "network": network / basis.node_network / basis.busy,
        "disk": disk / basis.node_disk / basis.busy,
    }
    balancing = {
        "CPU": rate * basis.balancer_cpu / 1e6 / basis.busy / basis.cores,
        "network": rate * basis.mail / basis.node_network / basis.busy,
    }
    clusters = max(1, ceil(max(wants.values())))
    return Plan(
        rate=rate,
        sessions=rate * basis.session,
        inbound=rate * basis.mail,
        gateway_cores=gateway_cores,
        # One more, so that one may be away.
        gateways=ceil(gateway_cores / basis.cores) + 1,
        balancers=ceil(max(balancing.values())) + 1,
        clusters=clusters,
        node_cores=node_cores / clusters,
        node_network=network / clusters,
        node_disk=disk / clusters,
        backlog=volume / 86_400 * basis.backlog * basis.document / clusters,
        queues=max(1, ceil(rate / basis.queue_rate / basis.busy)),
        first=max(wants, key=lambda name: wants[name]),
    )


def tables(basis: Basis) -> Iterator[str]:
    """What stands in front of the queues, and what carries them; a line for each volume."""
    yield (
        "| mails a day | peak, mails/s | sessions at once | mail in, MB/s "
        f"| gateways of {basis.cores:.0f} cores | of which busy | balancers |"
    )
    yield "| --- " * 7 + "|"
    for volume in VOLUMES:
        found = plan(volume, basis)
        yield (
            f"| {volume:,.0f} | {found.rate:,.0f} | {found.sessions:,.0f} "
            f"| {_number(found.inbound / 1e6)} | {found.gateways} "
            f"| {_number(found.gateway_cores * basis.busy)} cores | {found.balancers} |"
        )
    yield ""
    yield (
        "| mails a day | clusters of three nodes | queues | a node: busy cores "
        "| network, MB/s each way | disk, MB/s | an hour's backlog, GB | short first |"
    )
    yield "| --- " * 8 + "|"
    for volume in VOLUMES:
        found = plan(volume, basis)
        yield (
            f"| {volume:,.0f} | {found.clusters} | {found.queues} "
            f"| {_number(found.node_cores * basis.busy)} | {_number(found.node_network / 1e6)} "
            f"| {_number(found.node_disk / 1e6)} | {_number(found.backlog / 1e9)} "
            f"| {found.first} |"
        )


def _number(value: float) -> str:
    """Two digits that count: no more is known."""
    if value < 0.095:
        return "< 0.1"
    return f"{value:.1f}" if value < 9.95 else f"{float(f'{value:.2g}'):,.0f}"


def main() -> None:
    """Print the table for what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for field in fields(Basis):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    print("\n".join(tables(Basis(**vars(parser.parse_args())))))


if __name__ == "__main__":
    main()
