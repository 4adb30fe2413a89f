"""Mail over STARTTLS, one a connection, and what OpenSSL alone takes of it.

The share is counted low: OpenSSL's handshake is measured without any socket, both ends in
one process that does nothing else, and only the server's own calls are timed. It depends on
the key, so there are two; the peers are compared with the quicker one.
"""

from __future__ import annotations

import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import peers
import trustme
from processes import Failed
from samples import Case, Contender, Sample, compare
from sender import client_context
from servers import NULL, Certificate, builds, mailgw
from source import Source

from mailgw.wire.tls import server_context

ALONE = "OpenSSL alone"
SIZE = 4096
SESSIONS = 50
KEYS = {"ECDSA P-256": trustme.KeyType.ECDSA, "RSA 2048": trustme.KeyType.RSA}
TITLE = "4 KB over STARTTLS, TLS 1.3, {key}, one mail a connection"


def measure(without: Sequence[str], rounds: int, seconds: float) -> Iterator[Case]:
    """Compare everybody who speaks TLS, and OpenSSL with nobody around it."""
    quickest = next(iter(KEYS))
    for key in KEYS:
        beside = [each for each in peers.RECEIVERS if each not in without and key == quickest]
        yield _measured(key, beside, rounds, seconds)


def _measured(key: str, beside: Sequence[str], rounds: int, seconds: float) -> Case:
    with ExitStack() as stack:
        shown = stack.enter_context(certificate(KEYS[key]))
        servers = [stack.enter_context(mailgw(NULL, shown, build)) for build in builds()]
        for name in beside:
            servers.append(stack.enter_context(peers.RECEIVERS[name](peers.DROP, shown)))
        contenders = [Contender(ALONE, _handshakes(shown))]
        for server in servers:
            source = stack.enter_context(Source.to(server, SIZE, SESSIONS, "starttls"))
            contenders.append(Contender(server.process.name, source.turn))
        title = TITLE.format(key=key)
        return replace(compare(title, contenders, rounds, seconds), part="encrypted")


@contextmanager
def certificate(key: trustme.KeyType = trustme.KeyType.ECDSA) -> Iterator[Certificate]:
    """One of its own authority, with such a key: ECDSA P-256, or RSA of 2048 bits."""
    authority = trustme.CA()
    ours = authority.issue_cert("peer.example", key_type=key)
    with tempfile.TemporaryDirectory(prefix="mailgw-bench-") as folder:
        chain, secret = Path(folder) / "chain.pem", Path(folder) / "key.pem"
        chain.write_bytes(b"".join(blob.bytes() for blob in ours.cert_chain_pems))
        secret.write_bytes(ours.private_key_pem.bytes())
        yield Certificate(str(chain), str(secret))


def _handshakes(shown: Certificate) -> Callable[[int], Sample]:
    """Turns of nothing but handshakes; the server's CPU time is that of its own calls."""
    # With the gateway's own settings, so that it is the same handshake.
    server = server_context(Path(shown.chain), Path(shown.key), "")
    client = client_context()

    def turn(count: int) -> Sample:
        started, cpu_started = time.perf_counter(), time.thread_time()
        ours = sum(_handshake(server, client) for _ in range(count))
        passed, all_cpu = time.perf_counter() - started, time.thread_time() - cpu_started
        return Sample(count, passed, ours, all_cpu - ours, 0.0, 0.0)

    return turn


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> float:
    """One handshake in memory; the server's seconds of CPU."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(to_client, to_server)
    spent = 0.0
    started = time.thread_time()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    spent += time.thread_time() - started
    # The client begins, and is done before the server is.
    done = False
    while not done:
        _step(theirs)
        started = time.thread_time()
        done = _step(ours)
        spent += time.thread_time() - started
    if ours.version() != "TLSv1.3":
        raise Failed(f"OpenSSL agreed on {ours.version()}")
    return spent


def _step(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
