"""Logins that a web service knows, asked of real servers on this machine."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import BasicAuth, web

from gateway import Certificate
from mailgw.gate.credentials import CannotTell
from mailgw.gate.http_login import HttpLogin

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """A web service that knows anna; other paths answer what they are named after."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.may_answer = asyncio.Event()
        self.cut = asyncio.Event()
        self.arrived = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.arrived.set()
        self.headers.append(dict(request.headers))
        match request.path.split("/")[1:]:
            case ["status", code]:
                return web.Response(status=int(code), headers={"Set-Cookie": "a=b"})
            case ["redirect", code]:
                return web.Response(status=int(code), headers={"Location": "/status/200"})
            case ["slow"]:
                await self.may_answer.wait()
            case ["huge"]:
                return await self._huge(request)
        login = BasicAuth.decode(request.headers["Authorization"], encoding="utf-8")
        right = (login.login, login.password) == ("anna", "öffne dich: ja")
        return web.Response(status=204 if right else 401)

    async def _huge(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(65536))
        except OSError:
            self.cut.set()
            raise


@asynccontextmanager
async def served(service: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address of a server of aiohttp's."""
    runner = web.ServerRunner(web.Server(service), shutdown_timeout=5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def answering(octets: bytes, times: int = 1) -> AsyncIterator[str]:
    """The address of a server that sends these octets, whatever it is asked, and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            for _ in range(times):
                writer.write(octets)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@asynccontextmanager
async def asking(url: str, **options: float) -> AsyncIterator[HttpLogin]:
    source = HttpLogin(url, **options)
    try:
        yield source
    finally:
        await source.close()


async def why(source: HttpLogin) -> str:
    """Why it cannot tell; nothing of the login is anywhere in what it raises."""
    with pytest.raises(CannotTell) as raised:
        await source.verify("anna.login", "opensesame")
    trouble = raised.value
    for text in ("opensesame", "anna.login", "YW5uYS5sb2dpbjpvcGVuc2VzYW1l"):
        assert text not in repr(trouble) + str(trouble)
    assert trouble.__cause__ is None
    assert trouble.__context__ is None
    return trouble.reason


async def test_the_service_decides() -> None:
    async with served(Service()) as address, asking(f"{address}/login") as source:
        assert await source.verify("anna", "öffne dich: ja") is True
        assert await source.verify("anna", "öffne dich: nein") is False
        assert await source.verify("bob", "öffne dich: ja") is False
        # Would be the login of anna as Basic writes it.
        assert await source.verify("anna:öffne dich", " ja") is False


@pytest.mark.parametrize("code", [200, 201, 204, 299])
async def test_any_2xx_is_a_yes(code: int) -> None:
    async with served(Service()) as address, asking(f"{address}/status/{code}") as source:
        assert await source.verify("anna", "opensesame") is True


@pytest.mark.parametrize("code", [401, 403])
async def test_these_are_a_no(code: int) -> None:
    async with served(Service()) as address, asking(f"{address}/status/{code}") as source:
        assert await source.verify("anna", "opensesame") is False


@pytest.mark.parametrize("code", [400, 404, 407, 429, 500, 503])
async def test_everything_else_cannot_be_told(code: int) -> None:
    async with served(Service()) as address, asking(f"{address}/status/{code}") as source:
        assert await why(source) == f"the web service answered {code}"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_the_password_does_not_follow_a_redirect(code: int) -> None:
    service = Service()
    async with served(service) as address, asking(f"{address}/redirect/{code}") as source:
        assert await why(source) == f"the web service answered {code}"
    assert service.asked == [f"/redirect/{code}"]


async def test_a_service_that_does_not_answer() -> None:
    service = Service()
    async with served(service) as address, asking(f"{address}/slow", patience=0.2) as source:
        assert await why(source) == "the web service took too long"
        service.may_answer.set()


async def test_a_huge_answer_is_not_read() -> None:
    service = Service()
    async with served(service) as address, asking(f"{address}/huge") as source:
        assert await source.verify("anna", "opensesame") is True
        await asyncio.wait_for(service.cut.wait(), 10)


@pytest.mark.parametrize(
    ("octets", "times"),
    [
        (b"", 1),
        (b"220 mx.ours.test ESMTP\r\n", 1),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000, 1),
        (b"HTTP/1.1 2", 1),
        (b"x" * 65536, 1000),
    ],
)
async def test_what_is_no_answer_cannot_be_told(octets: bytes, times: int) -> None:
    async with answering(octets, times) as address, asking(address, patience=5) as source:
        assert (await why(source)).startswith("the web service cannot be asked: ")


async def test_nobody_listens() -> None:
    async with answering(b"") as address:
        pass
    async with asking(address) as source:
        assert "refused" in (await why(source)).lower()


async def test_a_certificate_that_nobody_vouches_for(certificate: Certificate) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate.chain, certificate.key)
    service = Service()
    async with served(service, tls) as address, asking(f"{address}/status/200") as source:
        assert (await why(source)).startswith("the web service cannot be asked: ")
    assert service.asked == []


async def test_only_so_many_are_asked_at_once() -> None:
    now, most = 0, 0
    both = asyncio.Event()

    async def handler(_request: web.Request) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 2:
            both.set()
        await both.wait()
        now -= 1
        return web.Response(status=204)

    async with served(handler) as address, asking(address + "/", at_once=2) as source:
        answers = await asyncio.gather(*(source.verify("anna", "x") for _ in range(20)))
        assert answers == [True] * 20
        assert most == 2


async def test_not_more_wait_than_can_be_served() -> None:
    service = Service()
    async with served(service) as address, asking(f"{address}/slow") as source:
        tasks = [asyncio.create_task(source.verify("anna", "x")) for _ in range(200)]
        await asyncio.sleep(0)
        assert await why(source) == "too many logins wait for the web service"
        service.may_answer.set()
        assert await asyncio.gather(*tasks) == [False] * 200


async def test_one_login_leaves_nothing_for_the_next() -> None:
    service = Service()
    async with served(service) as address, asking(f"{address}/status/200") as source:
        await source.verify("anna", "one")
        await source.verify("bob", "two")
    assert [headers["Authorization"] for headers in service.headers] == [
        "Basic YW5uYTpvbmU=",
        "Basic Ym9iOnR3bw==",
    ]
    assert "Cookie" not in service.headers[1]


async def test_after_closing_nobody_is_told() -> None:
    async with served(Service()) as address:
        source = HttpLogin(f"{address}/status/200")
        assert await source.verify("anna", "x")
        await source.close()
        await source.close()
        assert await why(source) == "the web service is asked no more"
        unused = HttpLogin(f"{address}/status/200")
        await unused.close()


async def test_closing_ends_what_is_under_way() -> None:
    service = Service()
    async with served(service) as address:
        source = HttpLogin(f"{address}/slow")
        asked = [asyncio.create_task(source.verify("anna", "x")) for _ in range(3)]
        await asyncio.wait_for(service.arrived.wait(), 10)
        await source.close()
        answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
        service.may_answer.set()
    assert [type(answer) for answer in answers] == [CannotTell] * 3
