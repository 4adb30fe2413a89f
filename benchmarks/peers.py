"""The peers: what a user could run instead of mailgw, each in the best settings we know.

`benchmarks/setup` installs them; their configurations and plugins are in peers/. Laws: one
process (but Postfix, which is many), no log, no DNS, nothing refused for its size or number,
everything kept in memory. "null" drops the mail; "nowait" publishes it to RabbitMQ and says
250 at once; "confirm" says 250 when the broker has confirmed it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes import Failed
from servers import Certificate, Server, listening, program

_HERE = Path(__file__).parent
_SOURCES = _HERE / "peers"
MODULES = _HERE.parent / ".cache" / "peers" / "node_modules"
_POSTFIX_QUEUES = (
    "active bounce corrupt defer deferred flush hold incoming maildrop private public saved trace"
)
_POSTFIX_MASTERS = ("/usr/lib/postfix/sbin/master", "/usr/libexec/postfix/master")
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Outlet:
    """Where a peer puts what it receives: `kind` is null, nowait or confirm."""

    kind: str
    url: str = ""
    queue: str = ""

    @property
    def environ(self) -> dict[str, str]:
        """For the peer's process; the URL holds a password, so it is on no command line."""
        return os.environ | {
            "BENCHMARK_OUTLET": self.kind,
            "BENCHMARK_AMQP_URL": self.url,
            "BENCHMARK_QUEUE": self.queue,
        }

    def name(self, peer: str) -> str:
        return peer if self.kind == "null" else f"{peer} {self.kind}"


DROP = Outlet("null")


@contextmanager
def aiosmtpd(outlet: Outlet, certificate: Certificate | None = None) -> Iterator[Server]:
    """aiosmtpd on uvloop, with a handler that drops or publishes through aio-pika."""
    command = [sys.executable, str(_SOURCES / "aiosmtpd_server.py")]
    environ = outlet.environ | _certificate(certificate)
    with listening(outlet.name("aiosmtpd"), command, environ) as server:
        yield server


@contextmanager
def smtp_server(outlet: Outlet, certificate: Certificate | None = None) -> Iterator[Server]:
    """nodemailer's smtp-server, with a handler that drops or publishes through amqplib."""
    command = [program("node"), str(_SOURCES / "smtp-server.js")]
    environ = outlet.environ | _certificate(certificate) | _node()
    with listening(outlet.name("smtp-server"), command, environ) as server:
        yield server


@contextmanager
def haraka(outlet: Outlet, certificate: Certificate | None = None) -> Iterator[Server]:
    """Haraka, with a queue plugin that drops or publishes through amqplib."""
    environ = outlet.environ | _node() | {"BENCHMARK_PUBLISHER": str(_SOURCES / "publisher.js")}
    plugins = ["bench_front", "bench_null" if outlet.kind == "null" else "bench_rabbitmq"]
    with tempfile.TemporaryDirectory(prefix="mailgw-bench-") as name:
        # A copy, because Haraka makes its queue and more in the folder of its configuration.
        folder = Path(name)
        shutil.copytree(_SOURCES / "haraka", folder, dirs_exist_ok=True)
        config = folder / "config"
        if certificate is None:
            (config / "tls.ini").unlink()
        else:
            plugins.append("tls")
            shutil.copy(certificate.chain, config / "tls_cert.pem")
            shutil.copy(certificate.key, config / "tls_key.pem")
            # Haraka would search for primes of its own first, for a minute.
            _write_named_group(config / "dhparams.pem")
        (config / "plugins").write_text("\n".join(plugins) + "\n")
        command = [program("node"), str(MODULES / "haraka/bin/haraka"), "-c", name]
        with listening(outlet.name("haraka"), command, environ) as server:
            yield server


@contextmanager
def postfix(outlet: Outlet, certificate: Certificate | None = None) -> Iterator[Server]:
    """Postfix's smtpd, started by a master of its own; it can only drop."""
    if outlet.kind != "null":
        raise Failed("postfix publishes nothing")
    if os.geteuid() != 0:
        raise Failed("postfix starts as root only: leave it out with --without postfix")
    with ExitStack() as stack:
        memory = str(_MEMORY) if _MEMORY.is_dir() else None
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="mailgw-bench-", dir=memory))
        _lay_out_postfix(Path(name), certificate)
        # -d: stay in the foreground.
        command = [_postfix_master(), "-c", name, "-d"]
        yield stack.enter_context(listening("postfix", command))


def _lay_out_postfix(folder: Path, certificate: Certificate | None) -> None:
    """Configuration, empty queues and all that Postfix wants to find before it starts."""
    folder.chmod(0o755)
    shutil.copytree(_SOURCES / "postfix", folder, dirs_exist_ok=True)
    lines = [f"queue_directory = {folder}/queue", f"data_directory = {folder}/data"]
    if certificate is not None:
        lines += [
            "smtpd_tls_security_level = may",
            "smtpd_tls_loglevel = 0",
            f"smtpd_tls_chain_files = {certificate.key}, {certificate.chain}",
        ]
    with (folder / "main.cf").open("a") as file:
        file.write("\n".join(lines) + "\n")
    for name in ["data", *(f"queue/{each}" for each in _POSTFIX_QUEUES.split())]:
        (folder / name).mkdir(parents=True)
        shutil.chown(folder / name, "postfix")
    (folder / "queue/pid").mkdir()


def _postfix_master() -> str:
    for each in _POSTFIX_MASTERS:
        if Path(each).exists():
            return each
    raise Failed("postfix is not installed: run benchmarks/setup")


def _node() -> dict[str, str]:
    if not MODULES.is_dir():
        raise Failed("the peers for Node are not installed: run benchmarks/setup")
    return {"NODE_PATH": str(MODULES), "NODE_ENV": "production"}


def _certificate(certificate: Certificate | None) -> dict[str, str]:
    if certificate is None:
        return {}
    return {"BENCHMARK_CERTIFICATE": certificate.chain, "BENCHMARK_KEY": certificate.key}


def _write_named_group(file: Path) -> None:
    """Parameters of RFC 7919, which cost nothing to make; TLS 1.3 does not use them."""
    command = [program("openssl"), "genpkey", "-genparam", "-algorithm", "DH"]
    command += ["-pkeyopt", "group:ffdhe2048", "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True)


Start = Callable[[Outlet, Certificate | None], AbstractContextManager[Server]]

# Who receives and drops, by the name under which it can be left out.
RECEIVERS: dict[str, Start] = {
    "haraka": haraka,
    "smtp-server": smtp_server,
    "aiosmtpd": aiosmtpd,
    "postfix": postfix,
}

# Who publishes, and how.
PUBLISHERS: list[tuple[str, Start, str]] = [
    ("haraka", haraka, "nowait"),
    ("haraka", haraka, "confirm"),
    ("smtp-server", smtp_server, "nowait"),
    ("smtp-server", smtp_server, "confirm"),
    ("aiosmtpd", aiosmtpd, "confirm"),
]


def names(text: str) -> list[str]:
    """The peers that a command line names, by commas. Raises ArgumentTypeError."""
    found = text.split(",")
    if unknown := [name for name in found if name not in RECEIVERS]:
        raise ArgumentTypeError(f"{', '.join(unknown)}: the peers are {', '.join(RECEIVERS)}")
    return found
