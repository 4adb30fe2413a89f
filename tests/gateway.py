"""The gateway as a user runs it: `mailgw serve` in a process of its own, on free ports.

A test gives the keys that matter to it as a literal; what it then sees is what a user
sees: ports, replies, the log, the exit code, and what `mailgw consume` prints.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from rabbitmq import wait_until

Json = dict[str, Any]

# The process must not see the key-like variables of whoever runs the tests.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("MAILGW_")} | {
    "PYTHONPATH": os.pathsep.join(sys.path)
}
COMMAND = (sys.executable, "-m", "mailgw")


class Gateway:
    """One `mailgw serve` in `folder`, with an embedded queue where `keys` name no broker.

    `before` runs in the new process before the command: the place for resource limits.
    `environ` is added to its environment.
    """

    def __init__(
        self,
        folder: Path,
        keys: Mapping[str, object] | None = None,
        before: Callable[[], None] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._keys: dict[str, object] = {
            "smtp-ip": "127.0.0.1",
            "smtp-port": 0,
            "hostname": "mx.ours.test",
            "rabbitmq-address": "",
            "queue-store": folder / "queue.sqlite",
        } | dict(keys or {})
        self._before = before
        self._environ = ENVIRONMENT | dict(environ or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.ports: list[int] = []

    def start(self) -> Gateway:
        """Return when it listens; may be called again when it has ended."""
        before = self.log.count(" serve.ready ") if self._err.exists() else 0
        with self._out.open("wb") as out, self._err.open("ab") as err:
            self.process = subprocess.Popen(
                [*COMMAND, "serve", *self._arguments()],
                env=self._environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                preexec_fn=self._before,
            )
        wait_until(lambda: self._listens(before), "the gateway listens")
        lines = [line for line in self._out.read_text().splitlines() if "Listening: " in line]
        self.ports = [int(line.split()[1].rpartition(":")[2]) for line in lines]
        return self

    @property
    def keys(self) -> Mapping[str, object]:
        """What it was started with, by key."""
        return self._keys

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def secure_port(self) -> int:
        return self.ports[-1]

    @property
    def log(self) -> str:
        return self._err.read_text()

    def saw(self, event: str, count: int = 1) -> None:
        """Return when the log holds the event so many times."""
        wait_until(lambda: self.log.count(f" {event}") >= count, f"{count} x {event} in the log")

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, limit: float = 20) -> int:
        """The exit code, once it has ended."""
        assert self.process is not None
        return self.process.wait(limit)

    def stop(self) -> int:
        """Ask it to end and give the exit code."""
        self.signal()
        return self.wait()

    def close(self) -> None:
        """End it whatever it does, the supervisor first: it would replace the others."""
        if self.process is not None and self.process.poll() is None:
            workers = self.workers()
            self.process.kill()
            for worker in workers:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            self.process.wait()

    def workers(self) -> list[int]:
        """The process ids of those that serve, oldest first."""
        assert self.process is not None
        return children(self.process.pid)

    def memory(self) -> int:
        """Resident octets of all workers; what they share counts for each."""
        pages = [int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in self.workers()]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Open descriptors of all workers."""
        return sum(len(list(Path(f"/proc/{each}/fd").iterdir())) for each in self.workers())

    def consume(self, queue: str = "inbox") -> list[Json]:
        """Take the documents off the queue, each one held against the schema."""
        done = subprocess.run(
            [*COMMAND, "consume", queue, *self._arguments()],
            env=ENVIRONMENT,
            cwd=self.folder,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        documents = [json.loads(line) for line in done.stdout.splitlines()]
        for document in documents:
            schema().validate(document)
        return documents

    def _arguments(self) -> list[str]:
        return [f"--{key}={value}" for key, value in self._keys.items()]

    def _listens(self, before: int) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the gateway ended by itself:\n{self.log[-3000:]}")
        return self.log.count(" serve.ready ") > before

    @property
    def _out(self) -> Path:
        return self.folder / "serve.out"

    @property
    def _err(self) -> Path:
        return self.folder / "serve.err"


def children(pid: int) -> list[int]:
    """The process ids of a process's children."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


@dataclass(frozen=True)
class Certificate:
    """A certificate for "localhost" and who signed it, as files."""

    chain: Path
    key: Path
    authority: Path

    @property
    def keys(self) -> dict[str, object]:
        """The keys that make the gateway use it, with a TLS port behind the plain one."""
        return {
            "smtp-certificate": self.chain,
            "smtp-key": self.key,
            "smtp-secure-port": 0,
        }


@contextmanager
def running(
    folder: Path,
    keys: Mapping[str, object] | None = None,
    before: Callable[[], None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Gateway]:
    """A gateway for the length of a block."""
    gateway = Gateway(folder, keys, before, environ)
    try:
        yield gateway.start()
    finally:
        gateway.close()


def content(document: Json) -> bytes:
    """The message in a document, held against the size and the digest beside it."""
    text = document["mime"]
    octets = (
        base64.b64decode(text)
        if document.get("mime-encoding") == "base64"
        else text.encode("utf-8")
    )
    assert len(octets) == document["mime-size"]
    assert hashlib.sha256(octets).hexdigest() == document["mime-sha256"]
    return octets


@functools.cache
def schema() -> jsonschema.Draft202012Validator:
    """The schema that `mailgw schema` prints, as somebody else's validator reads it."""
    done = subprocess.run([*COMMAND, "schema"], env=ENVIRONMENT, capture_output=True, check=True)
    return jsonschema.Draft202012Validator(json.loads(done.stdout))
