"""The peer: aiosmtpd with a handler that accepts and drops, on uvloop, logging off."""

from __future__ import annotations

import asyncio
import logging

import uvloop
from aiosmtpd.smtp import SMTP, Envelope, Session


class Null:
    """Its hooks are what aiosmtpd looks for."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        return "250 2.0.0 Ok"


async def main() -> None:
    """Listen on a free port of the loopback until ended."""
    loop = asyncio.get_running_loop()
    handler = Null()
    server = await loop.create_server(
        lambda: SMTP(handler, hostname="peer.example", enable_SMTPUTF8=True), "127.0.0.1", 0
    )
    await server.serve_forever()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
