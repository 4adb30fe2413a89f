"""What more than one room's tests need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trustme

from gateway import Certificate
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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("certificate")
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    found = Certificate(folder / "chain.pem", folder / "key.pem", folder / "ca.pem")
    found.chain.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    server.private_key_pem.write_to_path(found.key)
    authority.cert_pem.write_to_path(found.authority)
    return found
