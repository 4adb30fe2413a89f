"""The table locals(type, address) behind `database-address`.

Laws: the table is read by blocks, in one transaction, so a list is what stood there at
one moment. Reading changes nothing, not even by making a file. What a driver says may
quote what it was given, so nobody outside hears it before the password is out of it.
"""

from __future__ import annotations

import sqlite3
import ssl
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import sqlalchemy
from pg8000.core import CoreConnection
from sqlalchemy.engine import URL, make_url

Row = tuple[object, object]

# Seconds to wait for a connection, and for each piece of an answer after that.
PATIENCE = 30.0
_SQLITE_PATIENCE = 5.0
# Rows read at once: an event loop beside it wants its turn in between.
_BLOCK = 1_000

_DRIVERS = {"postgresql": "postgresql+pg8000", "mysql": "mysql+pymysql"}
_MAKES_IT = '("mailgw locals add" makes it)'

_table = sqlalchemy.Table(
    "locals",
    sqlalchemy.MetaData(),
    sqlalchemy.Column("type", sqlalchemy.String(16)),
    sqlalchemy.Column("address", sqlalchemy.Text, nullable=False),
)


class BadDatabase(Exception):
    """The table cannot be read or changed; the text says why, and holds no password."""


class NoTable(BadDatabase):
    """There is nothing to read yet; `add` makes it."""


def blocks(address: str) -> Iterator[list[Row]]:
    """Yield the rows (type, address), whatever is in them, by blocks. Raises BadDatabase."""
    with _connection(address, write=False) as connection:
        if not sqlalchemy.inspect(connection).has_table(_table.name):
            raise NoTable(f"there is no table locals(type, address) {_MAKES_IT}")
        result = connection.execution_options(yield_per=_BLOCK).execute(_table.select())
        for rows in result.partitions():
            yield [(row[0], row[1]) for row in rows]


def add(address: str, rows: Sequence[tuple[str, str]]) -> None:
    """Put rows in, making the table where there is none. Raises BadDatabase."""
    with _connection(address, write=True) as connection:
        _table.create(connection, checkfirst=True)
        if rows:
            connection.execute(
                _table.insert(), [{"type": kind, "address": text} for kind, text in rows]
            )


def remove(address: str, rows: Sequence[Row]) -> None:
    """Take rows out, wherever they stand several times too. Raises BadDatabase."""
    with _connection(address, write=True) as connection:
        for kind, text in rows:
            # A comparison with None becomes IS NULL.
            same = (_table.c.type == kind, _table.c.address == text)
            connection.execute(_table.delete().where(*same))


@contextmanager
def _connection(address: str, *, write: bool) -> Iterator[sqlalchemy.Connection]:
    """A connection in a transaction, which is committed where the block ends in good order."""
    secrets: list[str] = []
    try:
        engine, secrets = _engine(address, write)
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()
    except BadDatabase:
        raise
    except Exception as error:  # noqa: BLE001 - what a driver raises when a server is odd
        _hang_up(error)
        # Not chained: the values of the frames below hold the password.
        raise BadDatabase(_reason(error, secrets)) from None


def _hang_up(error: Exception) -> None:
    """Close the socket that pg8000 leaves behind where a server is none of its kind.

    Its connection is half made then, and nothing but the frames of the failure knows it.
    """
    failure = getattr(error, "orig", None) or error
    for frame, _ in traceback.walk_tb(failure.__traceback__):
        connection = frame.f_locals.get("self")
        if isinstance(connection, CoreConnection):
            # The file over the socket first: it holds the socket open.
            for left in (getattr(connection, name, None) for name in ("_sock", "_usock")):
                if left is not None:
                    with suppress(OSError, ValueError):
                        left.close()


def _engine(address: str, write: bool) -> tuple[sqlalchemy.Engine, list[str]]:
    """The engine, and what must not be shown."""
    scheme, _, rest = address.partition("://")
    if scheme.lower() == "sqlite":
        # As in file:///path: what follows the two slashes is the path, and it is absolute.
        path = Path("/" + unquote(rest).lstrip("/"))
        mode = "rwc" if write else "ro"

        def connect() -> sqlite3.Connection:
            name = f"file:{quote(str(path))}?mode={mode}"
            return sqlite3.connect(name, uri=True, timeout=_SQLITE_PATIENCE)

        if not write and not path.exists():
            raise NoTable(f"{path}: No such file or directory {_MAKES_IT}")
        pool = sqlalchemy.NullPool
        return sqlalchemy.create_engine("sqlite://", creator=connect, poolclass=pool), []
    url = make_url(address)
    engine = sqlalchemy.create_engine(
        url.set(drivername=_DRIVERS[url.drivername], query={}),
        poolclass=sqlalchemy.NullPool,
        connect_args=_options(url),
        hide_parameters=True,
    )
    password = url.password or ""
    return engine, [password, quote(password, safe="")] if password else []


def _options(url: URL) -> dict[str, Any]:
    """What the drivers are told besides the address, each in its own words."""
    context = _tls(url)
    if url.drivername == "postgresql":
        return {"timeout": PATIENCE, "ssl_context": context, "application_name": "mailgw"}
    times = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), int(PATIENCE))
    return {**times, "charset": "utf8mb4", **({"ssl": context} if context else {})}


def _tls(url: URL) -> ssl.SSLContext | bool | None:
    """As libpq reads sslmode; None is prefer: TLS where the server has it, with anybody."""
    if extra := set(url.query) - {"sslmode"}:
        raise BadDatabase(f'knows no "{min(extra)}" behind the ? (only sslmode)')
    match url.query.get("sslmode", "prefer"):
        case "prefer":
            return None
        case "disable":
            return False
        case "verify-full":
            return ssl.create_default_context()
        case "require":
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
    raise BadDatabase("sslmode is none of disable, prefer, require, verify-full")


def _reason(error: Exception, secrets: Sequence[str]) -> str:
    """What went wrong in one line, in the words of the server where it said something."""
    cause = getattr(error, "orig", None) or error
    said = cause.args[0] if cause.args else ""
    if isinstance(said, dict):  # pg8000 hands over the fields of the answer
        said = said.get("M", "")
    elif len(cause.args) > 1:  # pymysql: number and text
        said = cause.args[1]
    text = " ".join(str(said).split()) or type(cause).__name__
    for secret in secrets:
        text = text.replace(secret, "***")
    return "".join(char if char.isprintable() else "?" for char in text)[:300]
