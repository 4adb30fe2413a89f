"""The peer: aiosmtpd on uvloop, its log off, with a handler that drops or publishes.

BENCHMARK_OUTLET is "null", or "confirm": then a document of mailgw's properties, less its
hashes and decisions, goes to BENCHMARK_QUEUE through aio-pika, and 250 waits for the confirm.
STARTTLS where BENCHMARK_CERTIFICATE and BENCHMARK_KEY name files.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import uuid
from datetime import UTC, datetime

import aio_pika
import msgspec
import uvloop
from aiosmtpd.smtp import SMTP, Envelope, Session
from pamqp.commands import Basic

_LARGEST = 64 * 1024 * 1024


class Null:
    """Its hooks are what aiosmtpd looks for."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        return "250 2.0.0 Ok"


class Publishing:
    """One channel for all sessions, as the documentation of aio-pika shows it."""

    def __init__(self, exchange: aio_pika.abc.AbstractExchange, queue: str) -> None:
        self._exchange = exchange
        self._queue = queue

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        name = uuid.uuid4().hex
        message = aio_pika.Message(
            msgspec.json.encode(_document(name, server, session, envelope)),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=name,
            timestamp=datetime.now(UTC),
            type="mailgw.message",
        )
        answer = await self._exchange.publish(message, routing_key=self._queue, mandatory=True)
        return "250 2.0.0 Ok" if isinstance(answer, Basic.Ack) else "451 4.3.0 not confirmed"


def _document(
    name: str, server: SMTP, session: Session, envelope: Envelope
) -> dict[str, str | int | dict[str, str | int | bool]]:
    local_ip, local_port = server.transport.get_extra_info("sockname")
    remote_ip, remote_port = session.peer
    mime = envelope.content
    return {
        "message-id": f"{name}1",
        "transaction-id": name,
        "received": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "hostname": server.hostname,
        "envelope": envelope.mail_from or "",
        "recipient": envelope.rcpt_tos[0],
        "connection": {
            "local-ip": local_ip,
            "local-port": local_port,
            "remote-ip": remote_ip,
            "remote-port": remote_port,
            "secure": session.ssl is not None,
            "helo": session.host_name or "",
        },
        "mime-size": len(mime),
        "mime": mime.decode(),
    }


async def main() -> None:
    """Listen on a free port of the loopback until ended."""
    queue = os.environ["BENCHMARK_QUEUE"]
    handler: Null | Publishing = Null()
    if os.environ["BENCHMARK_OUTLET"] == "confirm":
        connection = await aio_pika.connect(os.environ["BENCHMARK_AMQP_URL"])
        channel = await connection.channel(on_return_raises=True)
        handler = Publishing(channel.default_exchange, queue)
    tls = _context()

    def accept() -> SMTP:
        return SMTP(
            handler,
            hostname="peer.example",
            data_size_limit=_LARGEST,
            enable_SMTPUTF8=True,
            tls_context=tls,
        )

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0, backlog=1024)
    await server.serve_forever()


def _context() -> ssl.SSLContext | None:
    certificate = os.environ.get("BENCHMARK_CERTIFICATE")
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, os.environ["BENCHMARK_KEY"])
    return context


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
