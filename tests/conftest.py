"""What more than one room's tests need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rabbitmq import RabbitMQ


@pytest.fixture(scope="session")
def broker() -> Iterator[RabbitMQ]:
    """One private RabbitMQ node for the whole run. Leave it running and without alarms."""
    node = RabbitMQ()
    try:
        node.start()
        yield node
    finally:
        node.close()
