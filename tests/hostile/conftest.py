"""A gateway for each module, and after each test the question that every row has.

"Any" = the process lives, the next session works, memory is bounded, and what was
published is exactly what should be: asked by `unharmed` around every test that uses `mx`.
A module says in `KEYS` how its gateway is configured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from client import Client
from gateway import Certificate, Gateway, content, running
from hostile.world import GROWTH, LOCALS, bad_lines, taken

_WITNESS = b"Subject: I am still served\r\n\r\nAnd so is my mail.\r\n"


@pytest.fixture(scope="module")
def surroundings() -> Mapping[str, object]:
    """Keys that name servers which the module started; one that has some overrides this."""
    return {}


@pytest.fixture(scope="module")
def mx(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    certificate: Certificate,
    surroundings: Mapping[str, object],
) -> Iterator[Gateway]:
    """The gateway of the module: a plain port, a TLS port, and what its KEYS say."""
    folder = tmp_path_factory.mktemp(request.module.__name__.rpartition(".")[2])
    (folder / "locals").write_text(LOCALS, encoding="utf-8")
    keys: Mapping[str, object] = getattr(request.module, "KEYS", {})
    # Where a module tries its gateway under several keys, the parameter is one choice.
    chosen: Mapping[str, object] = getattr(request, "param", {})
    usual = {"local-addresses": "locals"} | certificate.keys | dict(surroundings)
    with running(folder, usual | dict(keys) | dict(chosen)) as started:
        # The first mail makes a worker load and allocate what every mail needs.
        _witness(started)
        yield started


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing a stranger did is left: no dead worker, no document, no traceback, no memory."""
    if "mx" not in request.fixturenames:
        yield
        return
    server: Gateway = request.getfixturevalue("mx")
    workers, memory = server.workers(), server.memory()
    yield
    assert server.workers() == workers
    _witness(server)
    assert server.memory() - memory < GROWTH
    assert "Traceback" not in server.log
    assert bad_lines(server) == []


def _witness(server: Gateway) -> None:
    with Client(server.port) as client:
        client.hello()
        assert client.mail(_WITNESS).startswith("250-2.0.0 ")
    # In whichever queue, and with a trace field on top where the module asks for one.
    [document] = [each for queue in ("inbox", "local") for each in taken(server, queue)]
    assert content(document).endswith(_WITNESS)


@pytest.fixture
def gateway(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways of a test's own, and ends them with it."""
    started: list[Gateway] = []

    def start(keys: Mapping[str, object] | None = None, **options: Callable[[], None]) -> Gateway:
        folder = tmp_path_factory.mktemp("own")
        (folder / "locals").write_text(LOCALS, encoding="utf-8")
        started.append(Gateway(folder, {"local-addresses": "locals"} | dict(keys or {}), **options))
        return started[-1].start()

    yield start
    for each in started:
        each.close()
        assert "Traceback" not in each.log, request.node.name
