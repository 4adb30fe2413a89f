"""A private PostgreSQL cluster for the tests: real, alone, and gone afterwards.

It listens on the loopback only, on a free port, wants its password, and speaks TLS with a
certificate nobody knows. The server refuses to run as root, so it runs as nobody then.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pg8000.dbapi
import trustme

from ports import KeptPort
from rabbitmq import wait_until

PASSWORD = "p@ss/w0rd"
# In an address: as PASSWORD, with the characters that mean something there as %XX.
_QUOTED = "p%40ss%2Fw0rd"


class PostgreSQL:
    """One cluster with the database "mail"; the data do not outlive it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mailgw-postgres-"))
        self._data = self.folder / "data"
        self._kept = KeptPort()
        self.port = self._kept.number
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://mailgw:{_QUOTED}@127.0.0.1:{self.port}/mail"

    def start(self) -> None:
        """Make the cluster and return when it answers."""
        (self.folder / "password").write_text(PASSWORD)
        self._certify()
        for path in (self.folder, *self.folder.iterdir()):
            _give_away(path)
        self._run(
            "initdb", "--pgdata", self._data, "--username=mailgw", "--auth=scram-sha-256",
            f"--pwfile={self.folder}/password", "--no-sync", "--encoding=UTF8", "--locale=C",
        )  # fmt: skip
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *_as_nobody(), _program("postgres"), "-D", self._data,
                    "-c", "listen_addresses=127.0.0.1", "-p", str(self.port),
                    "-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off",
                    "-c", "ssl=on", "-c", f"ssl_cert_file={self.folder}/server.pem",
                    "-c", f"ssl_key_file={self.folder}/server.key",
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        wait_until(self._answers, "PostgreSQL answers", 60)
        self.execute("CREATE DATABASE mail", database="postgres")

    def execute(self, *statements: str, database: str = "mail") -> None:
        """Run statements, each by itself."""
        connection = pg8000.dbapi.connect(
            "mailgw", "127.0.0.1", database, self.port, PASSWORD, timeout=30
        )
        try:
            connection.autocommit = True
            for statement in statements:
                connection.cursor().execute(statement)
        finally:
            connection.close()

    def close(self) -> None:
        """End it and remove the folder."""
        if self._process is not None:
            # setpriv became the server: this is its pid. SIGINT: do not wait for clients.
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
        self._kept.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _certify(self) -> None:
        certificate = trustme.CA().issue_cert("localhost")
        certificate.private_key_pem.write_to_path(self.folder / "server.key")
        (self.folder / "server.key").chmod(0o600)
        certificate.cert_chain_pems[0].write_to_path(self.folder / "server.pem")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError((self.folder / "log").read_text()[-2000:])
        try:
            self.execute("SELECT 1", database="postgres")
        except (pg8000.dbapi.Error, OSError):
            return False
        return True

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [*_as_nobody(), _program(program), *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")


def _as_nobody() -> list[str]:
    if os.getuid() != 0:
        return []
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def _give_away(path: Path) -> None:
    if os.getuid() == 0:
        os.chown(path, 65534, 65534)


def _program(name: str) -> str:
    """From the newest version there is: Debian keeps them off the PATH."""
    found = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4])
    )
    program = str(found[-1]) if found else shutil.which(name)
    if program is None:
        raise RuntimeError(f"{name} is not installed (Debian: apt-get install postgresql)")
    return program
