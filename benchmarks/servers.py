"""Servers that are measured: mailgw and smtp-sink here, the others in peers.py.

Each listens on a free port of the loopback for the length of its `with` block.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path

from processes import Failed, Process, listening_port, running, wait_for

_ROOT = Path(__file__).parent.parent
# Where benchmarks/setup and scripts/test --compiled put the compiled mailgw.
COMPILED = _ROOT / ".cache" / "compiled"
NULL = {"MAILGW_OUTPUT": "null", "MAILGW_RABBITMQ_ADDRESS": ""}


@dataclass(frozen=True, slots=True)
class Server:
    process: Process
    port: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server shows over TLS: the files of a chain and of its key, in PEM."""

    chain: str
    key: str


def builds() -> dict[str, str]:
    """The mailgw there is to compare with others, by name, and the Python that runs each."""
    found = {"mailgw": sys.executable}
    if COMPILED.is_dir() and not is_compiled():
        found["mailgw compiled"] = compiled_python()
    return found


def is_compiled() -> bool:
    """Whether this very process has the compiled mailgw, and so all that it starts."""
    return Path(sys.prefix).resolve() == COMPILED.resolve()


def compiled_python() -> str:
    """The Python that has the compiled mailgw. Raises Failed where it is not of these sources."""
    packages = next(COMPILED.glob("lib/python*/site-packages"), COMPILED)
    for file in sorted((_ROOT / "src").rglob("*.py")):
        copy = packages / file.relative_to(_ROOT / "src")
        if not copy.is_file() or not cmp(file, copy, shallow=False):
            raise Failed(f"{COMPILED.name} is not made of this {file.name}: run benchmarks/setup")
    return str(COMPILED / "bin" / "python")


@contextmanager
def mailgw(
    keys: Mapping[str, str], certificate: Certificate | None = None, build: str = "mailgw"
) -> Iterator[Server]:
    """The gateway with these keys, its log thrown away; `build` is one of `builds`."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("MAILGW_")}
    environ |= {"MAILGW_SMTP_IP": "127.0.0.1", "MAILGW_SMTP_PORT": "0", **keys}
    if certificate is not None:
        environ |= {
            "MAILGW_SMTP_CERTIFICATE": certificate.chain,
            "MAILGW_SMTP_KEY": certificate.key,
        }
    # What it logs is lost, which the report says.
    python = sys.executable if build == "mailgw" else compiled_python()
    command = [python, "-m", "mailgw", "serve"]
    with listening(build, command, environ, quiet=True) as server:
        yield server


@contextmanager
def smtp_sink() -> Iterator[Server]:
    """Postfix's sink."""
    # As root it wants to know who to become instead.
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [program("smtp-sink"), "-4", *user, "127.0.0.1:0", "1024"]
    with listening("smtp-sink", command) as server:
        yield server


@contextmanager
def listening(
    name: str,
    command: Sequence[str],
    environ: Mapping[str, str] | None = None,
    *,
    quiet: bool = False,
) -> Iterator[Server]:
    """A program that listens on one port, which it may choose itself."""
    with running(name, command, environ=environ, quiet=quiet) as process:
        wait_for(lambda: listening_port(process.pid) is not None, "it listens", process)
        port = listening_port(process.pid)
        if port is None:
            raise Failed(f"{name} stopped listening")
        yield Server(process, port)


def program(name: str) -> str:
    """The path of a program, which may live in sbin, as most of Postfix's do."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise Failed(f"{name} is not installed: run benchmarks/setup")
    return found
