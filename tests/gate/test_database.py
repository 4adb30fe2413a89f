"""The table locals, asked for real: what is read, what is changed, what is said when it fails."""

from __future__ import annotations

import gc
import socket
import sqlite3
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from mailgw.gate import database
from mailgw.gate.database import BadDatabase, NoTable
from parts import needs
from postgres import PASSWORD, PostgreSQL
from tables import TABLE, Table


def rows(url: str) -> list[tuple[object, object]]:
    return sorted((row for block in database.blocks(url) for row in block), key=repr)


def test_all_rows_are_read_as_they_are(table: Table) -> None:
    table.filled("'exact', 'Joe@ours.test'", "'', '@ours.test'", "NULL, 'jörg@ours.test'")

    assert rows(table.url) == [
        ("", "@ours.test"),
        ("exact", "Joe@ours.test"),
        (None, "jörg@ours.test"),
    ]


def test_many_rows_come_by_blocks(table: Table) -> None:
    table.filled()
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)"
    table.execute(f"INSERT INTO locals {numbers} SELECT 'exact', 'u' || i || '@ours.test' FROM n")

    sizes = [len(block) for block in database.blocks(table.url)]

    assert sum(sizes) == 2500
    assert max(sizes) <= 1000


def test_reading_makes_nothing_and_says_how_to_make_it(table: Table, tmp_path: Path) -> None:
    with pytest.raises(NoTable, match='"mailgw locals add" makes it'):
        rows(table.url)

    assert list(tmp_path.iterdir()) == []


def test_adding_makes_the_table_once(table: Table) -> None:
    database.add(table.url, [("exact", "joe@ours.test")])
    database.add(table.url, [("substr", "x'); DROP TABLE locals; --")])

    assert rows(table.url) == [
        ("exact", "joe@ours.test"),
        ("substr", "x'); DROP TABLE locals; --"),
    ]


def test_removing_takes_out_that_row_wherever_it_stands(table: Table) -> None:
    table.filled(*["NULL, 'joe@ours.test'"] * 2, "'exact', 'joe@ours.test'", "'exact', 'ann@x'")

    database.remove(table.url, [(None, "joe@ours.test"), ("exact", "ann@x"), ("exact", "no")])

    assert rows(table.url) == [("exact", "joe@ours.test")]


def test_a_table_of_another_shape_is_named(table: Table) -> None:
    table.execute("CREATE TABLE locals (email VARCHAR(255))")

    with pytest.raises(BadDatabase, match="type"):
        rows(table.url)


def test_a_view_is_as_good_as_a_table(table: Table) -> None:
    table.execute("CREATE VIEW locals AS SELECT 'exact' AS type, 'joe@ours.test' AS address")
    try:
        assert rows(table.url) == [("exact", "joe@ours.test")]
    finally:
        table.execute("DROP VIEW locals")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "letter").write_bytes(b"Dear reader, this is no database." * 100)

    with pytest.raises(BadDatabase, match="not a database"):
        rows(f"sqlite://{tmp_path}/letter")


def test_what_is_being_written_is_read_as_it_was_before(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a b%.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(TABLE)
        connection.execute("INSERT INTO locals VALUES ('exact', 'joe@ours.test')")
        connection.commit()
        connection.execute("INSERT INTO locals VALUES ('exact', 'not-yet@ours.test')")

        found = rows(f"sqlite://{tmp_path}/a b%25.sqlite")

    assert found == [("exact", "joe@ours.test")]


@needs("postgres")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("p%40ss", "wrong-one"), "password authentication failed"),
        (("/mail?", "/elsewhere?"), 'database "elsewhere" does not exist'),
        (("prefer", "verify-full"), "certificate verify failed"),
        (("prefer", "maybe"), "sslmode is none of"),
        (("sslmode=", "host=/tmp&sslmode="), 'knows no "host"'),
    ],
)
def test_a_server_that_refuses_is_quoted_without_the_password(
    postgres: PostgreSQL, change: tuple[str, str], said: str
) -> None:
    url = f"{postgres.url}?sslmode=prefer".replace(*change)

    with pytest.raises(BadDatabase, match=said) as refused:
        rows(url)

    text = str(refused.value)
    assert PASSWORD not in text
    assert "wrong-one" not in text
    # Nor in a traceback, by way of the exception behind it.
    assert PASSWORD not in "".join(traceback.format_exception(refused.value))


@needs("postgres")
def test_tls_is_spoken_where_it_is_asked_for(postgres: PostgreSQL) -> None:
    postgres.execute(
        "CREATE VIEW locals AS SELECT version AS type, ssl::text AS address"
        " FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    )
    try:
        [(version, active)] = rows(f"{postgres.url}?sslmode=require")
        preferred = rows(postgres.url)
        plain = rows(f"{postgres.url}?sslmode=disable")
    finally:
        postgres.execute("DROP VIEW locals")

    assert (str(version)[:4], active) == ("TLSv", "true")
    assert preferred == [(version, active)]
    assert plain == [(None, "false")]


@pytest.fixture
def odd() -> Iterator[int]:
    """A server that answers everything with what no database says, and ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_server_of_another_kind_is_a_refusal(odd: int, scheme: str) -> None:
    with pytest.raises(BadDatabase) as refused:
        rows(f"{scheme}://mailgw:opensesame@127.0.0.1:{odd}/mail")

    said = str(refused.value)
    assert said
    assert "opensesame" not in said


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_failed_connection_leaves_no_socket_behind(odd: int, scheme: str) -> None:
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always")
        with suppress(BadDatabase):
            rows(f"{scheme}://mailgw:opensesame@127.0.0.1:{odd}/mail")
        gc.collect()

    assert [str(each.message) for each in left] == []


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_server_that_is_away_is_a_refusal(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    with pytest.raises(BadDatabase, match=f"127.0.0.1|{port}|refused"):
        rows(f"{scheme}://mailgw:opensesame@127.0.0.1:{port}/mail")
