"""The ports to listen on: are they free, and may we take them?

Law: nothing is bound. What listens is read from /proc, and where there is no such thing
nothing is said.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mailgw.doctor.observation import Observation, error, note, ok, warning

_LISTENS = "0A"
_BIND_SERVICE = 10  # CAP_NET_BIND_SERVICE of capabilities(7)
_EVERYWHERE = ("0.0.0.0", "::")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens; `inode` names it among the descriptors of a process."""

    address: str
    port: int
    inode: str


def may_bind(port: int) -> bool:
    """Whether who we are may listen there, if it is free."""
    return port >= _first_free_for_all() or _may_bind_low()


def look_at_ports(
    addresses: Sequence[str], ports: Sequence[int], may: Callable[[int], bool] = may_bind
) -> list[Observation]:
    """What listens on them now; no addresses is all of them. Port 0 is always free."""
    listeners, ours = list(listening()), addresses or _EVERYWHERE
    # Once a port: who has several of its addresses is often one process.
    return [_port(port, ours, listeners, may) for port in dict.fromkeys(ports) if port]


def listening() -> Iterator[Listener]:
    """Yield what listens on TCP in this network namespace."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            lines = (_PROC / "net" / table).read_text("ascii").splitlines()[1:]
            for words in map(str.split, lines):
                if words[3] == _LISTENS:
                    address, _, port = words[1].partition(":")
                    yield Listener(_address(address), int(port, 16), words[9])


def _address(written: str) -> str:
    # proc_net_tcp(5): words of 32 bits, each in the order of this machine, which is little
    # endian wherever we have been seen to run.
    words = [bytes.fromhex(written[at : at + 8])[::-1] for at in range(0, len(written), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def _port(
    port: int,
    addresses: Sequence[str],
    listeners: Sequence[Listener],
    may: Callable[[int], bool],
) -> Observation:
    subject = f"port {port}"
    taken = [
        each
        for each in listeners
        if each.port == port and any(_collide(each.address, ours) for ours in addresses)
    ]
    if not taken and may(port):
        return ok(subject, "is free")
    if not taken:
        return warning(
            subject,
            "is free, and only root may listen there; we are not root here",
            "start as root with user: NAME, or by systemd with a socket unit",
        )
    pid, name = holder(taken[0].inode)
    if pid == 1:
        return note(subject, "is held by process 1, as for socket activation")
    if name == "mailgw":
        return note(subject, f"the gateway listens there already, as process {pid}")
    who = f"process {pid} ({name})" if pid else "another process"
    return error(subject, f"is taken by {who}, on {taken[0].address}", "end it, or another port")


def _collide(theirs: str, ours: str) -> bool:
    if (":" in theirs) != (":" in ours):
        # A socket on all IPv6 addresses has all of IPv4 too, unless it says no to that.
        return theirs == "::" and ours == "0.0.0.0"
    return theirs == ours or theirs in _EVERYWHERE or ours in _EVERYWHERE


def holder(inode: str) -> tuple[int, str]:
    """The process that has the socket, and its program's name; 0 and "" where nobody tells."""
    wanted = f"socket:[{inode}]"
    for folder in _PROC.glob("[0-9]*"):
        with suppress(OSError):
            for descriptor in (folder / "fd").iterdir():
                with suppress(OSError):
                    if str(descriptor.readlink()) == wanted:
                        return int(folder.name), _program(folder)
    return 0, ""


def _program(process: Path) -> str:
    words = (process / "cmdline").read_bytes().split(b"\0")
    names = [os.fsdecode(word.rpartition(b"/")[2]) for word in words[:4]]
    # Python's own name says less than what it runs.
    return "mailgw" if "mailgw" in names else names[0][:50] or "unknown"


def _first_free_for_all() -> int:
    with suppress(OSError, ValueError):
        return int((_PROC / "sys/net/ipv4/ip_unprivileged_port_start").read_text())
    return 1024


def _may_bind_low() -> bool:
    if os.geteuid() == 0:
        return True
    with suppress(OSError):
        for line in (_PROC / "self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _BIND_SERVICE & 1)
    return False
