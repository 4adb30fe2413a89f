"""Whom the checks ask is dead, hangs or lies: mail goes on, or is put off where that is wanted.

The resolver and the line to spamd leave alone for seconds who did not answer, so that a
test which waits for the end of it is long; one for each way stays in every run.
"""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from scene import Scene, Trial, fault, playing

from gateway import Json
from nameserver import NameServer, nameserver
from parts import needs
from rabbitmq import wait_until
from spamd import Spamd

# What all checks of a message may take, in seconds.
PATIENCE = 0.5
# What the real spamd is left: two children in Perl, on a machine that has other work. And as
# many clients, so that none waits for another's turn.
REAL = {"smtp-check-timeout": "1.5s", "smtp-confirm-timeout": "4s"}
CHILDREN = 2
ZONE = {
    ("there.test", "TXT"): ['"v=spf1 ip4:127.0.0.1 -all"'],
    ("_dmarc.there.test", "TXT"): ['"v=DMARC1; p=none"'],
}
GOOD = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 6\r\nSpam: False ; 1.2 / 5.0\r\n\r\nA_RULE"


@pytest.fixture
def names() -> Iterator[NameServer]:
    """A name server that knows the sender, and whose answers are not kept for long."""
    with nameserver(ZONE, ttl=0) as server:
        yield server


def asking_dns(folder: Path, names: NameServer, **more: object) -> Scene:
    """A gateway with the embedded queue that checks where mail is from."""
    keys = {
        "smtp-check": "spf,dkim,dmarc",
        "smtp-check-timeout": f"{PATIENCE}s",
        "dns-server": f"127.0.0.1:{names.port}",
        "dns-timeout": f"{PATIENCE}s",
        "dns-min-ttl": 1,
    }
    return Scene(folder, keys=keys | more)


def asking_spamd(folder: Path, port: int, **more: object) -> Scene:
    """The same, and it asks there whether mail is spam."""
    keys = {
        "smtp-check": "spam",
        "smtp-check-timeout": f"{PATIENCE}s",
        "spamassassin-host": "127.0.0.1",
        "spamassassin-port": port,
    }
    return Scene(folder, keys=keys | more)


def behave(names: NameServer, how: str) -> None:
    """Treat everything so that was asked for until now."""
    for name in {name for name, _, _ in names.asked}:
        names.behaviour[name] = how


def found(documents: list[Json], check: str) -> set[str]:
    """What that check came to, in any of the documents."""
    return {each[check] for document in documents for each in document["checks"] if check in each}


def until(trial: Trial, scene: Scene, check: str, verdict: str) -> None:
    """Return when mail was taken for which the check came to that."""
    wait_until(lambda: verdict in found(trial.take(scene), check), f"a document with {verdict}")


# --- spamd ----------------------------------------------------------------------------


@pytest.mark.soak
@needs("spamd")
@fault("F23", "spamd dead", "kill -9, started again")
def test_a_dead_spamd(spamd: Spamd, tmp_path: Path, trial: Trial) -> None:
    with playing(asking_spamd(tmp_path, spamd.port, **REAL)) as scene:
        with trial.load(scene, senders=CHILDREN) as ledger:
            spamd.kill()
            try:
                scene.gateway.saw("spamd.away")
                ledger.more()
            finally:
                spamd.start()
            scene.gateway.saw("spamd.back")
            ledger.more()
        assert found(trial.take(scene), "spam") == {"pass", "temperror"}
        verdict = trial.verdict(scene, ledger)
    assert set(verdict.heard) == {"250 2.0.0"}


@needs("spamd")
@fault("F23", "spamd hanging", "SIGSTOP, SIGCONT")
def test_a_spamd_that_hangs(spamd: Spamd, tmp_path: Path, trial: Trial) -> None:
    with playing(asking_spamd(tmp_path, spamd.port, **REAL)) as scene:
        with trial.load(scene, senders=CHILDREN) as ledger:
            spamd.freeze()
            try:
                scene.gateway.saw("spamd.away")
                # Only a few wait for it, or so many would take minutes.
                ledger.more(200)
            finally:
                spamd.thaw()
            scene.gateway.saw("spamd.back")
            ledger.more()
        assert found(trial.take(scene), "spam") == {"pass", "temperror"}
        verdict = trial.verdict(scene, ledger)
    assert set(verdict.heard) == {"250 2.0.0"}
    assert verdict.slowest >= PATIENCE / 2


@dataclass
class Stranger:
    """Something in the place of spamd: says the same to everybody, once or without an end."""

    port: int = 0
    answer: bytes = GOOD
    endless: bool = False


@contextmanager
def answering() -> Iterator[Stranger]:
    """A stranger for the length of a block."""
    stranger = Stranger()

    class Conversation(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            answer, endless = stranger.answer, stranger.endless
            # Who is asked leaves in the middle of it.
            with suppress(OSError):
                self.rfile.read()
                self.wfile.write(answer)
                while endless:
                    self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Conversation) as server:
        stranger.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield stranger
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "endless"),
    [
        pytest.param(
            b"220 mail.there.test ESMTP\r\n",
            False,
            marks=fault("F23", "spamd answers rubbish", "another protocol on its port"),
        ),
        pytest.param(
            b"Spam: True ; 9 / 5\r\n" * 200,
            True,
            marks=fault("F23", "spamd answers without an end", "lines for ever on its port"),
        ),
    ],
    ids=["rubbish", "endless"],
)
def test_a_spamd_that_is_none(tmp_path: Path, trial: Trial, answer: bytes, endless: bool) -> None:
    with answering() as stranger, playing(asking_spamd(tmp_path, stranger.port)) as scene:
        with trial.load(scene) as ledger:
            stranger.answer, stranger.endless = answer, endless
            scene.gateway.saw("spamd.away")
            ledger.more()
            stranger.answer, stranger.endless = GOOD, False
            scene.gateway.saw("spamd.back")
            ledger.more()
        assert found(trial.take(scene), "spam") == {"pass", "temperror"}
        verdict = trial.verdict(scene, ledger)
    assert set(verdict.heard) == {"250 2.0.0"}


@needs("spamd")
@fault("F23", "spamd dead, smtp-defer: temperror", "kill -9, started again")
def test_a_dead_spamd_that_is_waited_for(spamd: Spamd, tmp_path: Path, trial: Trial) -> None:
    keys = REAL | {"smtp-defer": "temperror"}
    with playing(asking_spamd(tmp_path, spamd.port, **keys)) as scene:
        with trial.load(scene, senders=CHILDREN) as ledger:
            spamd.kill()
            try:
                ledger.hears("451 4.3.0", 10)
            finally:
                spamd.start()
            ledger.more()
        assert found(trial.take(scene), "spam") == {"pass"}
        trial.verdict(scene, ledger)


# --- DNS ------------------------------------------------------------------------------


@pytest.mark.soak
@fault("F23", "DNS hanging", "no answers, then answers")
def test_a_name_server_that_hangs(names: NameServer, tmp_path: Path, trial: Trial) -> None:
    is_of_no_use(names, tmp_path, trial, "silent")


@pytest.mark.soak
@fault("F23", "DNS lying", "answers with other ids, then answers")
def test_a_name_server_that_answers_others(names: NameServer, tmp_path: Path, trial: Trial) -> None:
    is_of_no_use(names, tmp_path, trial, "wrong-id")


@pytest.mark.soak
@fault("F23", "DNS answers rubbish", "octets that are no message, then answers")
def test_a_name_server_that_speaks_rubbish(names: NameServer, tmp_path: Path, trial: Trial) -> None:
    is_of_no_use(names, tmp_path, trial, "garbage")


def is_of_no_use(names: NameServer, tmp_path: Path, trial: Trial, how: str) -> None:
    with playing(asking_dns(tmp_path, names)) as scene:
        with trial.load(scene) as ledger:
            behave(names, how)
            until(trial, scene, "dmarc", "temperror")
            ledger.more(4)
            behave(names, "usual")
            until(trial, scene, "dmarc", "pass")
            ledger.more()
        verdict = trial.verdict(scene, ledger)
    assert set(verdict.heard) == {"250 2.0.0"}


@fault("F23", "DNS dead", "its port is closed, for good")
def test_a_dead_name_server(tmp_path: Path, trial: Trial) -> None:
    with ExitStack() as life:
        names = life.enter_context(nameserver(ZONE, ttl=0))
        with playing(asking_dns(tmp_path, names)) as scene:
            with trial.load(scene) as ledger:
                life.close()
                until(trial, scene, "dmarc", "temperror")
                ledger.more()
            verdict = trial.verdict(scene, ledger)
    assert set(verdict.heard) == {"250 2.0.0"}


@fault("F23", "DNS denies everything", "NXDOMAIN for all names, then the truth")
def test_a_name_server_that_knows_nobody(names: NameServer, tmp_path: Path, trial: Trial) -> None:
    with playing(asking_dns(tmp_path, names)) as scene:
        with trial.load(scene) as ledger:
            # Nobody can tell such a lie from the truth; but it must not keep mail out.
            names.records.clear()
            until(trial, scene, "dmarc", "none")
            ledger.more()
            names.records.update(ZONE)
            until(trial, scene, "dmarc", "pass")
            ledger.more()
        verdict = trial.verdict(scene, ledger)
    assert set(verdict.heard) == {"250 2.0.0"}


@fault("F23", "DNS hanging, smtp-defer: temperror", "no answers, then answers")
def test_a_name_server_that_is_waited_for(names: NameServer, tmp_path: Path, trial: Trial) -> None:
    with playing(asking_dns(tmp_path, names, **{"smtp-defer": "temperror"})) as scene:
        with trial.load(scene) as ledger:
            behave(names, "silent")
            ledger.hears("451 4.7.24", 4)
            behave(names, "usual")
            ledger.more()
        assert found(trial.take(scene), "dmarc") == {"pass"}
        trial.verdict(scene, ledger)
