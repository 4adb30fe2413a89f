"""What more than one room's tests need."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import trustme
from hypothesis import HealthCheck, settings

from gateway import Certificate
from parts import needs
from postgres import PostgreSQL
from rabbitmq import RabbitMQ
from s3server import S3
from spamd import Spamd
from tables import Table, sqlite_table

# How long an example takes says more about what else the machine does than about us.
settings.register_profile(
    "mailgw", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("mailgw")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """What a test does to the process-wide logging ends with the test."""
    root, ours = logging.getLogger(), logging.getLogger("mailgw")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


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
def postgres() -> Iterator[PostgreSQL]:
    """One private PostgreSQL for the whole run. Leave it running, and no table behind."""
    cluster = PostgreSQL()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def spamd() -> Iterator[Spamd]:
    """One private spamd for the whole run. Leave it running."""
    server = Spamd()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """One private server that speaks S3 for the whole run. Leave it running."""
    server = S3()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs("postgres"))])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    """A database for local addresses, without the table, of each kind."""
    if request.param == "sqlite":
        yield sqlite_table(tmp_path)
        return
    cluster: PostgreSQL = request.getfixturevalue("postgres")
    yield Table(cluster.url, cluster.execute)
    cluster.execute("DROP TABLE IF EXISTS locals")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("certificate")
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    found = Certificate(folder / "chain.pem", folder / "key.pem", folder / "ca.pem")
    found.chain.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    server.private_key_pem.write_to_path(found.key)
    found.key.chmod(0o600)
    authority.cert_pem.write_to_path(found.authority)
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged may have no UTF-8, in which reports go from process to process."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report
