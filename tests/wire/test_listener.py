from __future__ import annotations

import asyncio
import gc
import socket
import weakref

import pytest
from house import PATIENCE, Held, Taken, serving, talking

from mailgw.wire.endpoint import CannotListen, bind


def test_every_address_gets_every_port() -> None:
    endpoints = bind(["127.0.0.1", "::1"], [0, 0], [0])
    assert [endpoint.secure for endpoint in endpoints] == [False, False, True] * 2
    assert [str(endpoint).rpartition(":")[0] for endpoint in endpoints] == [
        *["127.0.0.1"] * 3,
        *["[::1]"] * 3,
    ]
    for endpoint in endpoints:
        with socket.create_connection(endpoint.sock.getsockname()[:2]):
            pass
        endpoint.sock.close()


def test_without_an_address_everybody_is_heard() -> None:
    endpoints = bind([], [0], [])
    assert [str(endpoint).rpartition(":")[0] for endpoint in endpoints] == ["0.0.0.0", "[::]"]
    for endpoint in endpoints:
        endpoint.sock.close()


def test_when_one_cannot_be_had_none_is_kept() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.create_server(("127.0.0.1", 0)) as released,
    ):
        free = released.getsockname()[1]
        released.close()
        taken = other.getsockname()[1]
        with pytest.raises(CannotListen, match=f"127.0.0.1 port {taken}: Address already in use"):
            bind(["127.0.0.1"], [free, taken], [])
        # The first one was given back.
        socket.create_server(("127.0.0.1", free)).close()


async def test_a_client_that_is_gone_before_it_is_looked_at_harms_nobody() -> None:
    async with serving(Taken()) as door:
        for _ in range(20):
            sock = socket.create_connection(("127.0.0.1", door.port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        async with talking(door) as client:
            assert (await client.reply()).startswith("220 ")


async def test_a_flood_of_clients_is_served() -> None:
    async with serving(Taken()) as door:
        socks = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(200)]
        async with talking(door) as client:
            assert (await client.reply()).startswith("220 ")
            assert len(door.listener.conversations) == 201
        for sock in socks:
            sock.close()
        await door.deserted()


async def test_stopping_refuses_newcomers_and_keeps_who_is_there() -> None:
    async with serving(Taken()) as door, talking(door) as client:
        await client.reply()
        door.listener.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", door.port))
        assert (await client.ask(b"EHLO client.test")).startswith("250-")


async def test_who_has_gone_leaves_nothing_for_the_collector() -> None:
    async with serving(Taken()) as door, talking(door) as client:
        await client.reply()
        let_go = asyncio.Event()
        [conversation] = door.listener.conversations
        # Compiled, a link has no weak references; what only it holds may have them.
        conversation._link.trouble = Held()
        weakref.finalize(conversation._link.trouble, let_go.set)
        del conversation

        gc.disable()
        try:
            await client.ask(b"QUIT")
            await asyncio.wait_for(let_go.wait(), PATIENCE)
        finally:
            gc.enable()
