"""What STARTTLS costs the gateway: CPU of sessions with one mail, in clear and over TLS.

    .venv/bin/python benchmarks/handshakes.py [--rounds N] [--quick] [--json FILE]

Mail is accepted and dropped; eight clients come at a time, one after the other each, and none
resumes a session. Only the gateway's CPU is looked at: how fast the clients are does not matter,
as long as it need not wake up for each of them. Exit 1 when a process died or a mail was refused.
"""

from __future__ import annotations

import smtplib
import ssl
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import encrypted
import frame
import trustme
from processes import Failed, cpu_seconds
from samples import Figure, Run
from servers import NULL, Server, mailgw

_CLIENTS = 8
_MESSAGE = b"Subject: benchmark\r\n\r\n" + (b"x" * 76 + b"\r\n") * 52


def main() -> int:
    """Let clear and encrypted sessions take turns, and print what each costs."""
    options = frame.parser(__doc__, rounds=5).parse_args()
    rounds, sessions = (2, 50) if options.quick else (options.rounds, 1000)

    def measure(run: Run) -> None:
        try:
            _measure(run, rounds, sessions)
        except smtplib.SMTPException as failure:
            raise Failed(f"a mail was not taken: {failure}") from failure

    return frame.run(measure, options.json)


def _measure(run: Run, rounds: int, sessions: int) -> None:
    with ExitStack() as stack:
        servers = {name: stack.enter_context(_gateway(key)) for name, key in encrypted.KEYS.items()}
        costs: dict[str, list[float]] = {"clear": [], **{name: [] for name in servers}}
        for _ in range(rounds + 1):
            costs["clear"].append(_cost(next(iter(servers.values())), sessions, over_tls=False))
            for name, server in servers.items():
                costs[name].append(_cost(server, sessions, over_tls=True))
        version = _version(next(iter(servers.values())))
    print(f"\nOne mail of 4 KB a session, CPU of the gateway, {rounds} rounds of {sessions}")
    # The first round is a cold start.
    clear = costs.pop("clear")[1:]
    frame.note(run, Figure("handshakes", "a session in clear", "us", clear))
    for name, each in costs.items():
        title = f"a session over {version}, {name}"
        frame.note(run, Figure("handshakes", title, "us", each[1:]))
        more = [a - b for a, b in zip(each[1:], clear, strict=True)]
        frame.note(run, Figure("handshakes", f"{name}: more than in clear", "us", more))


@contextmanager
def _gateway(key: trustme.KeyType) -> Iterator[Server]:
    with encrypted.certificate(key) as shown, mailgw(NULL, shown) as server:
        yield server


def _cost(server: Server, sessions: int, *, over_tls: bool) -> float:
    """CPU microseconds a session."""
    context = _trusting()

    def visit(_: int) -> None:
        with smtplib.SMTP("127.0.0.1", server.port, "client.example", timeout=30) as client:
            if over_tls:
                client.starttls(context=context)
            client.sendmail("sender@example.com", ["recipient@example.org"], _MESSAGE)

    before = cpu_seconds(server.process.pid)
    with ThreadPoolExecutor(_CLIENTS) as clients:
        for _ in clients.map(visit, range(sessions)):
            pass
    return (cpu_seconds(server.process.pid) - before) / sessions * 1e6


def _version(server: Server) -> str:
    with smtplib.SMTP("127.0.0.1", server.port, "client.example", timeout=30) as client:
        client.starttls(context=_trusting())
        found = client.sock
        return found.version() or "?" if isinstance(found, ssl.SSLSocket) else "?"


def _trusting() -> ssl.SSLContext:
    """Whom it trusts makes no difference to the other side."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


if __name__ == "__main__":
    sys.exit(main())
