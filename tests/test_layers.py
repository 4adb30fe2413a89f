"""Who may import whom. The failure message is the row of the table that was broken."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "mailgw"

_RULE_ROOM = "mail config plugins dns observe smtp.reply smtp.address"

# Room -> what of ours it may import, besides itself; "*" is everything.
TABLE = {
    "__init__": "",
    "__main__": "cli",
    "cli": "*",
    "process": "*",
    "intake": "checks document reports outlets storage plugins mail config observe smtp.reply",
    # Policy reaches it through its Protocol `Gate` only.
    "wire": "smtp mail config observe",
    # The events of the dialogue are what it is asked about.
    "gate": f"{_RULE_ROOM} smtp.events",
    "checks": _RULE_ROOM,
    "document": _RULE_ROOM,
    "reports": _RULE_ROOM,
    "outlets": _RULE_ROOM,
    "storage": "mail config plugins observe smtp.reply",
    # What it needs of the other rooms it is lent by whoever starts it.
    "doctor": "config dns mail outlets",
    "plugins": "mail observe smtp.reply",
    "dns": "observe",
    "mail": "smtp.address",
    "smtp": "",
    "config": "",
    "observe": "",
}

# Third-party package -> its home, as patterns of paths below the package.
HOMES = {
    "aiodns": "dns.py",
    "aiohttp": "gate/http_login.py",
    "aio_pika": "outlets/amqp*.py",
    "aiosmtpd": "gate/handler.py",
    "aiormq": "outlets/amqp*.py",
    "aiospamc": "checks/spamassassin.py",
    "argon2": "gate/password_file.py",
    "checkdmarc": "doctor/domain.py",
    "click": "cli/*",
    "cryptography": "checks/keys.py doctor/certificates.py",
    "dkim": "checks/signature.py",
    "dns": "dns.py doctor/domain.py",
    "defusedxml": "reports/dmarc.py",
    "flufl": "reports/prose.py",
    # What a report says is read in one room and written in another, without a copy of it.
    "msgspec": "document/* mail/report.py reports/*",
    "netaddr": "config/networks.py",
    "obstore": "storage/bucket.py",
    "pamqp": "outlets/amqp*.py",
    "pycares": "dns.py",
    "pg8000": "gate/database.py",
    "publicsuffixlist": "checks/organization.py",
    "spf": "checks/spf.py",
    "sqlalchemy": "gate/database.py",
    "passlib": "gate/password_file.py",
    "uvloop": "process/*",
}

# The language of SMTP has no sockets, no clock, and says nothing by itself.
NOT_IN_SMTP = frozenset({"asyncio", "socket", "ssl", "time", "logging"})


def violations(path: str, source: str, modules: frozenset[str]) -> Iterator[str]:
    """Yield the row that each import of one file breaks.

    `path` is relative to the package, `modules` are all modules of ours by dotted name.
    """
    room = path.split("/")[0].removesuffix(".py")
    if room not in TABLE:
        yield f"{path}: there is no room {room} in the table"
        return
    for name in _imported(path, ast.parse(source), modules):
        top = name.split(".")[0]
        if top == "mailgw":
            if not _may(room, name.removeprefix("mailgw").lstrip(".")):
                yield f"{path} imports {name}, but: {room} -> {TABLE[room] or 'nothing of ours'}"
        elif top not in sys.stdlib_module_names:
            home = HOMES.get(top, "nowhere")
            if not any(fnmatch(path, pattern) for pattern in home.split()):
                yield f"{path} imports {name}, but: {top} -> {home}"
        elif room == "smtp" and top in NOT_IN_SMTP:
            yield f"{path} imports {name}, but: smtp -> no {', '.join(sorted(NOT_IN_SMTP))}"


def _may(room: str, name: str) -> bool:
    # The package itself holds no more than its version.
    if name in ("", room) or name.startswith(f"{room}."):
        return True
    allowed = TABLE[room].split()
    return "*" in allowed or any(name == each or name.startswith(f"{each}.") for each in allowed)


def _imported(path: str, tree: ast.Module, modules: frozenset[str]) -> Iterator[str]:
    package = ["mailgw", *path.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{name}.{alias.name}"
                yield inner if inner in modules else name


def _modules() -> dict[str, Path]:
    found = {}
    for file in sorted(SOURCE.rglob("*.py")):
        parts = file.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = file
    return found


MODULES = _modules()


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports_only_what_its_room_may(module: str) -> None:
    file = MODULES[module]

    found = violations(
        file.relative_to(SOURCE).as_posix(), file.read_text("utf-8"), frozenset(MODULES)
    )

    assert list(found) == []


@pytest.mark.parametrize(
    ("path", "source", "row"),
    [
        ("smtp/session.py", "import asyncio.streams", "smtp -> no asyncio"),
        ("smtp/session.py", "def f():\n    from time import time", "smtp -> no asyncio"),
        ("smtp/session.py", "import mailgw.mail.peer", "smtp -> nothing of ours"),
        ("config/values.py", "from mailgw.smtp import reply", "config -> nothing of ours"),
        ("config/values.py", "from ..smtp import reply", "config -> nothing of ours"),
        ("config/values.py", "import netaddr", "netaddr -> config/networks.py"),
        ("document/build.py", "from mailgw.outlets.store import S", "document -> mail config"),
        ("document/build.py", "from mailgw.smtp import session", "document -> mail config"),
        ("gate/gate.py", "from mailgw.wire import listener", "gate -> mail config"),
        ("wire/tls.py", "from mailgw.gate.gate import Gate", "wire -> smtp mail config"),
        ("mail/peer.py", "from mailgw.smtp.reply import Reply", "mail -> smtp.address"),
        ("outlets/store.py", "import aio_pika", "aio_pika -> outlets/amqp*.py"),
        ("process/worker.py", "import requests", "requests -> nowhere"),
        ("attic/x.py", "", "there is no room attic"),
    ],
)
def test_a_broken_row_is_told(path: str, source: str, row: str) -> None:
    modules = frozenset({"mailgw.smtp.reply", "mailgw.smtp.session", "mailgw.wire.listener"})

    assert [row in line for line in violations(path, source, modules)] == [True]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("smtp/session.py", "import re\nfrom mailgw.smtp import reply\nfrom . import data"),
        ("document/build.py", "import msgspec\nfrom mailgw.smtp import reply"),
        ("cli/serve.py", "import click\nfrom mailgw.process.worker import Worker"),
        ("outlets/amqp_queues.py", "from aiormq.abc import AbstractChannel"),
        ("cli/__init__.py", "from mailgw import __version__"),
        ("mail/transaction.py", "from mailgw.smtp.address import Address"),
    ],
)
def test_what_the_table_allows_passes(path: str, source: str) -> None:
    modules = frozenset({"mailgw.smtp.reply", "mailgw.smtp.session"})

    assert list(violations(path, source, modules)) == []
