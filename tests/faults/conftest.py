"""What the faults share: brokers that may be murdered, and the table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from link import Link, linked
from scene import EXCHANGE, PASSWORD, USER, VHOST, Scene, Trial, allow, playing
from table import WITH_STORE, Row, render

from rabbitmq import RabbitMQ

# What becomes of mail while the broker is away (rabbitmq-outage).
OUTAGES = ["refuse", "store"]
ROWS: pytest.StashKey[list[Row]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(number, name, made, store): what a test injects")
    config.stash[ROWS] = []


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With a waiting room only what matters for it is in every run; the rest is a soak."""
    for item in items:
        mark = item.get_closest_marker("fault")
        if _outage(item) == "store" and not (mark and mark.kwargs.get("store")):
            item.add_marker(pytest.mark.soak)


def _outage(item: pytest.Item) -> str:
    spec = getattr(item, "callspec", None)
    return str(spec.params.get("scene", "")) if spec is not None else ""


def pytest_sessionfinish(session: pytest.Session) -> None:
    wish = os.environ.get("MAILGW_FAULTS_TABLE")
    if wish and session.config.stash[ROWS]:
        file = Path(wish)
        earlier = file.read_text() if file.exists() else ""
        file.write_text(render(session.config.stash[ROWS], earlier))


@pytest.fixture
def trial(request: pytest.FixtureRequest) -> Trial:
    """The fault of this test, from its mark."""
    mark = request.node.get_closest_marker("fault")
    assert mark is not None, "this test names no fault"
    number, name, made = mark.args
    if _outage(request.node) == "store":
        name += WITH_STORE
    return Trial(number, name, made, request.config.stash[ROWS])


@pytest.fixture(scope="package")
def mortal() -> Iterator[RabbitMQ]:
    """A broker for this folder alone, because it will be killed."""
    node = RabbitMQ()
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture(scope="package")
def link(mortal: RabbitMQ) -> Iterator[Link]:
    """The line from the gateway to the broker."""
    with linked(lambda: mortal.port) as line:
        yield line


@pytest.fixture(scope="package", params=OUTAGES)
def scene(
    mortal: RabbitMQ,
    link: Link,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Scene]:
    """One gateway that lives through one fault after the other."""
    mortal.ctl("add_vhost", VHOST)
    mortal.ctl("set_permissions", "-p", VHOST, "guest", ".*", ".*", ".*")
    mortal.ctl("add_user", USER, PASSWORD)
    allow(mortal)
    address = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{link.port}/{VHOST}?heartbeat=3"
    stage = Scene(
        tmp_path_factory.mktemp("faults"),
        mortal,
        address,
        outage=request.param,
        keys={"rabbitmq-exchange": EXCHANGE},
    )
    with playing(stage):
        yield stage
    mortal.ctl("delete_user", USER)
    mortal.ctl("delete_vhost", VHOST)
