"""SIGHUP: who is there stays and keeps what was, who comes meets what is written now."""

from __future__ import annotations

import os
import signal
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from client import Client
from gateway import Certificate, Gateway
from rabbitmq import wait_until

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    file = tmp_path / "mailgw.conf"
    file.write_text("smtp-threads: 2\nsmtp-maxsize: 1000000\n")
    return file


def reload(server: Gateway, outcome: str = "reload.done") -> None:
    """Ask for it, and return when that has come of it."""
    count = server.log.count(f" {outcome}") + 1
    server.signal(signal.SIGHUP)
    server.saw(outcome, count)


def size(said: str) -> str:
    """What an EHLO reply says about SIZE."""
    [line] = [line for line in said.split("\n") if "SIZE" in line]
    return line.split()[1]


def sizes(server: Gateway) -> set[str]:
    """What each of the workers announces, asked one by one."""
    found = set()
    for worker in server.workers():
        others = [each for each in server.workers() if each != worker]
        for each in others:
            os.kill(each, signal.SIGSTOP)
        try:
            with Client(server.port) as client:
                found.add(size(client.hello()))
        finally:
            for each in others:
                os.kill(each, signal.SIGCONT)
    return found


def test_newcomers_meet_the_new_limit_and_who_is_there_keeps_the_old_one(
    gateway: Callable[..., Gateway], conf: Path
) -> None:
    server = gateway({"config-file": conf})
    with Client(server.port) as client:
        assert size(client.hello()) == "1000000"
        client.transaction()
        conf.write_text("smtp-threads: 2\nsmtp-maxsize: 2000000\n")
        reload(server)
        assert sizes(server) == {"2000000"}
        client.send(MESSAGE + b".\r\n")
        assert client.reply().startswith("250-2.0.0 ")
        assert size(client.ask("EHLO client.test")) == "1000000"
    assert "reload.needs-restart" not in server.log
    assert server.stop() == 0


def test_a_worker_that_comes_after_a_reload_has_what_was_reloaded(
    gateway: Callable[..., Gateway], conf: Path
) -> None:
    server = gateway({"config-file": conf})
    conf.write_text("smtp-threads: 2\nsmtp-maxsize: 2000000\n")
    reload(server)
    os.kill(server.workers()[0], signal.SIGKILL)
    server.saw("worker.ready", 3)
    # Not yet in force: nobody asked for it.
    conf.write_text("smtp-threads: 2\nsmtp-maxsize: 3000000\n")
    assert sizes(server) == {"2000000"}


def test_a_file_with_mistakes_changes_nothing_and_each_one_is_told(
    gateway: Callable[..., Gateway], conf: Path
) -> None:
    server = gateway({"config-file": conf})
    conf.write_text("smtp-maxsize: 2000000\nsmtp-timeout: soon\nsmtp-prot: 25\n")
    reload(server, "reload.refused")
    server.saw("reload.refused", 2)
    assert f"{conf}:2: smtp-timeout: " in server.log
    assert f"{conf}:3: " in server.log
    assert sizes(server) == {"1000000"}
    conf.write_text("smtp-threads: 2\nsmtp-maxsize: 2000000\n")
    reload(server)
    assert sizes(server) == {"2000000"}


def test_a_file_that_is_gone_changes_nothing(gateway: Callable[..., Gateway], conf: Path) -> None:
    server = gateway({"config-file": conf})
    conf.unlink()
    reload(server, "reload.refused")
    assert sizes(server) == {"1000000"}


def test_a_key_that_needs_a_restart_is_named_and_the_others_are_taken_over(
    gateway: Callable[..., Gateway], conf: Path
) -> None:
    server = gateway({"config-file": conf})
    conf.write_text("smtp-threads: 1\nserver-id: 7\nsmtp-maxsize: 2000000\n")
    reload(server)
    assert "reload.needs-restart key=smtp-threads" in server.log
    assert "reload.needs-restart key=server-id" in server.log
    assert server.log.count("reload.needs-restart") == 2
    assert len(server.workers()) == 2
    assert sizes(server) == {"2000000"}


def test_local_addresses_are_read_again_and_a_bad_list_is_not_taken(
    gateway: Callable[..., Gateway], conf: Path, tmp_path: Path
) -> None:
    locals_ = tmp_path / "locals"
    locals_.write_text("@ours.test\n")
    server = gateway({"config-file": conf, "smtp-recipients": "local", "local-addresses": locals_})

    def takes(address: str) -> bool:
        with Client(server.port) as client:
            client.hello()
            client.ask("MAIL FROM:<>")
            return client.ask(f"RCPT TO:<{address}>").startswith("250 ")

    assert not takes("bob@also.test")
    locals_.write_text("@ours.test\n@also.test\n")
    reload(server)
    assert takes("bob@also.test")
    locals_.write_text("regex (unclosed\n")
    reload(server, "reload.refused")
    assert f"{locals_}:1: " in server.log
    assert takes("bob@also.test")


# --- certificates -------------------------------------------------------------------


def served(port: int) -> bytes:
    """The certificate that a newcomer is shown."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=15))


def issue(folder: Path, authority: trustme.CA) -> Certificate:
    issued = authority.issue_cert("localhost")
    found = Certificate(folder / "chain.pem", folder / "key.pem", folder / "ca.pem")
    found.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(found.key)
    authority.cert_pem.write_to_path(found.authority)
    return found


def test_a_new_certificate_is_shown_to_newcomers_and_old_sessions_go_on(
    gateway: Callable[..., Gateway], conf: Path, tmp_path: Path
) -> None:
    authority = trustme.CA()
    files = issue(tmp_path, authority)
    server = gateway({"config-file": conf} | files.keys)
    before = served(server.secure_port)
    with Client(server.secure_port) as client:
        client.handshake(files.authority)
        client.hello()
        issue(tmp_path, authority)
        reload(server)
        assert client.mail(MESSAGE).startswith("250-2.0.0 ")
    after = served(server.secure_port)
    assert before != after
    assert after == ssl.PEM_cert_to_DER_cert(files.chain.read_text())
    with Client(server.port) as client:
        client.hello()
        client.starttls(files.authority)
        assert client.ask("EHLO client.test").startswith("250-")


def test_a_pair_that_does_not_fit_leaves_the_old_one(
    gateway: Callable[..., Gateway], conf: Path, tmp_path: Path
) -> None:
    # hostile-input G11.
    authority = trustme.CA()
    files = issue(tmp_path, authority)
    server = gateway({"config-file": conf} | files.keys)
    before = served(server.secure_port)
    authority.issue_cert("localhost").private_key_pem.write_to_path(files.key)
    reload(server, "reload.refused")
    files.chain.write_text("no certificate\n")
    reload(server, "reload.refused")
    files.chain.unlink()
    reload(server, "reload.refused")
    assert served(server.secure_port) == before
    assert "PRIVATE KEY" not in server.log


def test_a_tls_port_is_never_left_without_its_certificate(
    gateway: Callable[..., Gateway], conf: Path, tmp_path: Path
) -> None:
    files = issue(tmp_path, trustme.CA())
    with_tls = "".join(f"{key}: {value}\n" for key, value in files.keys.items())
    conf.write_text(with_tls)
    server = gateway({"config-file": conf})
    before = served(server.secure_port)
    # Right for a start; but the port is open, and closing it needs one.
    conf.write_text("")
    reload(server, "reload.refused")
    assert "needs a restart" in server.log
    assert served(server.secure_port) == before


# --- load ---------------------------------------------------------------------------


class Sender:
    """One client that sends mail after mail over one connection, until it is told to stop."""

    def __init__(self, port: int) -> None:
        self.promised = 0
        self.trouble = ""
        self._stop = threading.Event()
        self._port = port
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _send(self) -> None:
        try:
            with Client(self._port) as client:
                client.hello()
                while not self._stop.is_set():
                    said = client.mail(MESSAGE)
                    if not said.startswith("250-2.0.0 "):
                        self.trouble = said or "closed"
                        return
                    self.promised += 1
        except (OSError, AssertionError) as trouble:
            self.trouble = repr(trouble)


def test_reloads_under_load_drop_nobody(gateway: Callable[..., Gateway], conf: Path) -> None:
    server = gateway({"config-file": conf, "output": "queue"})
    senders = [Sender(server.port) for _ in range(6)]
    try:
        for number in range(5):
            begun = [sender.promised for sender in senders]
            conf.write_text(f"smtp-threads: 2\nsmtp-maxsize: {2_000_000 + number}\n")
            reload(server)
            wait_until(
                lambda begun=begun: all(
                    sender.promised > before or sender.trouble
                    for sender, before in zip(senders, begun, strict=True)
                ),
                "everybody's mail goes on",
            )
    finally:
        for sender in senders:
            sender.end()
    assert [sender.trouble for sender in senders] == [""] * 6
    assert sizes(server) == {"2000004"}
    assert server.stop() == 0
    assert len(server.consume()) == sum(sender.promised for sender in senders)
    assert "Traceback" not in server.log


def test_many_wishes_at_once_are_granted_one_after_the_other(
    gateway: Callable[..., Gateway], conf: Path
) -> None:
    server = gateway({"config-file": conf})
    conf.write_text("smtp-threads: 2\nsmtp-maxsize: 2000000\n")
    for _ in range(50):
        server.signal(signal.SIGHUP)
    server.saw("reload.done")
    assert sizes(server) == {"2000000"}
    server.signal()
    assert server.wait() == 0
    assert "reload.refused" not in server.log
