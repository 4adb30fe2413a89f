"""A private spamd for the tests: real, alone, and gone afterwards.

It listens on the loopback and on a unix socket, asks nobody about a mail (-L), and has the
rules of the package with a configuration of its own. Root is not what it should be, so it
runs as nobody then.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from ports import KeptPort
from rabbitmq import wait_until

# What the rules for text, header fields and MIME parts are evaluated by.
_PLUGINS = ("Check", "BodyEval", "HeaderEval", "HTMLEval", "MIMEEval", "RelayEval")


class Spamd:
    """One spamd, on `port` and at `path`; neither changes when it is started anew."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mailgw-spamd-"))
        self.path = self.folder / "socket"
        self._kept = KeptPort()
        self.port = self._kept.number
        self._log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        rules, home = self.folder / "rules", self.folder / "home"
        rules.mkdir()
        home.mkdir()
        (rules / "local.cf").write_text("use_bayes 0\n")
        (rules / "plugins.pre").write_text(
            "".join(f"loadplugin Mail::SpamAssassin::Plugin::{name}\n" for name in _PLUGINS)
        )
        for path in (self.folder, rules, home, *rules.iterdir()):
            if os.getuid() == 0:
                os.chown(path, 65534, 65534)

    def start(self) -> None:
        """Return when it answers on both."""
        self.path.unlink(missing_ok=True)
        home = str(self.folder / "home")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *_as_nobody(), _program(), "--local", "--nouser-config", "--syslog=stderr",
                    "--min-children=1", "--max-children=2", "--min-spare=1", "--max-spare=1",
                    f"--siteconfigpath={self.folder / 'rules'}", f"--helper-home-dir={home}",
                    f"--listen=127.0.0.1:{self.port}", f"--listen={self.path}",
                ],
                env={"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": home},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own: the children are ended with it, by its number.
                start_new_session=True,
            )  # fmt: skip
        wait_until(self._answers, "spamd answers", 60)

    def kill(self) -> None:
        """End it and its children, in the middle of whatever they do."""
        if self._process is not None:
            # Children may outlive the server, and keep the number of the group.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None
            # The children hold the port too, and end a moment later.
            wait_until(self._is_gone, "nobody listens any more")

    def freeze(self) -> None:
        """From now on connections are taken by the kernel, and nobody answers."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and remove the folder."""
        self.kill()
        self._kept.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"spamd ended by itself:\n{self._log.read_text()[-2000:]}")
        try:
            return self._pong(("127.0.0.1", self.port)) and self._pong(str(self.path))
        except OSError:
            return False

    def _is_gone(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=10).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False

    def _pong(self, address: tuple[str, int] | str) -> bool:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family) as sock:
            sock.settimeout(10)
            sock.connect(address)
            sock.sendall(b"PING SPAMC/1.5\r\n\r\n")
            answer = b""
            while data := sock.recv(1024):
                answer += data
        return answer.endswith(b" PONG\r\n")


def _as_nobody() -> list[str]:
    if os.getuid() != 0:
        return []
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def _program() -> str:
    found = shutil.which("spamd", path=os.environ.get("PATH", "") + ":/usr/sbin")
    assert found is not None, "spamd is not installed (scripts/install-test-parts spamd)"
    return found
