"""What the end-to-end tests share: a certificate, and gateways that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import trustme

from gateway import Certificate, Gateway


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


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways with the keys given, and ends them with the test."""
    started: list[Gateway] = []

    def start(keys: Mapping[str, object] | None = None, **options: Callable[[], None]) -> Gateway:
        started.append(Gateway(tmp_path, keys, **options))
        return started[-1].start()

    yield start
    for each in started:
        each.close()
