"""spamd as the doctor sees it: one real, one that is not there, one without rules."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from doctor.looking import lines
from mailgw.checks.spamassassin import SpamAssassin
from mailgw.doctor.spamd import look_at_spamd
from mailgw.mail.finding import Finding
from parts import needs
from spamd import Spamd


async def ask(host: str, port: int, content: bytes) -> Finding:
    there = SpamAssassin(host, port, patience=8)
    try:
        return await there.check(content)
    finally:
        await there.close()


@needs("spamd")
async def test_a_real_one_calls_the_test_mail_spam(spamd: Spamd) -> None:
    by_port = await look_at_spamd("here", lambda mail: ask("127.0.0.1", spamd.port, mail))
    by_socket = await look_at_spamd("here", lambda mail: ask(str(spamd.path), 0, mail))

    assert [line.startswith("ok spamd here: calls the test mail spam") for line in lines(by_port)]
    assert lines(by_port) == lines(by_socket)
    assert "of 5.0 points" in lines(by_port)[0]


async def test_one_that_is_not_there_is_an_error(unused_tcp_port: int) -> None:
    [seen] = lines(
        await look_at_spamd("here", lambda mail: ask("127.0.0.1", unused_tcp_port, mail))
    )

    assert seen.startswith("error spamd here: spamd cannot be asked: Connection refused")


async def test_one_without_rules_is_an_error() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: False ; 0.0 / 5.0\r\n\r\n")
        writer.close()

    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        stack.push_async_callback(server.wait_closed)
        stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]

        [seen] = lines(await look_at_spamd("here", lambda mail: ask("127.0.0.1", port, mail)))

    assert seen.startswith("error spamd here: does not call the test mail spam (GTUBE, 0.0 of 5.0")
