"""The compiled wheel: what its list may hold, and whether it is what these tests run on.

scripts/test --compiled runs the tests on such a wheel; everywhere else they run on the sources.
"""

from __future__ import annotations

import ast
import builtins
import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"][
    "targets"
]["wheel"]["hooks"]["custom"]
LISTED: list[str] = HOOK["modules"]
COMPILED = os.environ.get("MAILGW_TEST_COMPILED") == "yes"


def test_the_tests_run_on_what_they_were_started_for() -> None:
    modules = [file.removesuffix(".py").replace("/", ".") for file in LISTED]

    origins = {module: find_spec(module) for module in modules}

    compiled = {
        module
        for module, spec in origins.items()
        if spec is not None and str(spec.origin).endswith(tuple(EXTENSION_SUFFIXES))
    }
    assert compiled == (set(modules) if COMPILED else set())


def test_the_version_says_which_it_is() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "mailgw", "--version"], capture_output=True, text=True, timeout=60
    ).stdout

    kind = ", compiled" if COMPILED else ""
    assert said == f"mailgw 0.1.0 (Python {platform.python_version()}{kind})\n"


def test_nobody_compiles_who_does_not_ask() -> None:
    assert HOOK["enable-by-default"] is False


def test_nothing_compiled_lies_beside_the_sources() -> None:
    found = [file for file in (ROOT / "src").rglob("*") if file.suffix in (".so", ".pyd", ".c")]
    assert found == []


def test_the_list_is_in_order_and_every_file_of_it_is_there() -> None:
    assert sorted(set(LISTED)) == LISTED
    assert [file for file in LISTED if not (ROOT / "src" / file).is_file()] == []


@pytest.mark.parametrize("file", LISTED)
def test_a_listed_module_has_nothing_that_breaks_when_it_is_compiled(file: str) -> None:
    source = (ROOT / "src" / file).read_text("utf-8")

    assert list(breaking(source)) == []


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("class A(msgspec.Struct):\n    x: int", "1: class A(msgspec.Struct)"),
        ("class A(asyncio.Future[None]):\n    pass", "1: class A(asyncio.Future)"),
        ("class A(logging.Handler):\n    pass", "1: class A(logging.Handler)"),
        ("class A(asyncio.Protocol):\n    pass", "1: class A(asyncio.Protocol)"),
        ("async def f():\n    try:\n        a()\n    except E:\n        await b()", "5: await b()"),
        ("async def f():\n    try:\n        a()\n    finally:\n        await b()", "5: await b()"),
    ],
)
def test_what_breaks_is_told(source: str, line: str) -> None:
    assert list(breaking(source)) == [line]


@pytest.mark.parametrize(
    "source",
    [
        "class A(NamedTuple):\n    x: int",
        "class A(ValueError):\n    pass",
        "class A:\n    pass\nclass B(A):\n    pass",
        "async def f():\n    try:\n        await a()\n    except E:\n        b()",
    ],
)
def test_what_does_not_break_passes(source: str) -> None:
    assert list(breaking(source)) == []


@pytest.mark.parametrize("file", LISTED)
def test_the_constants_of_a_listed_module_are_final(file: str) -> None:
    # Compiled, others are looked up by name at each use.
    source = (ROOT / "src" / file).read_text("utf-8")

    assert list(not_final(source)) == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("_LIMIT = 5\n_CODE: int = 250", ["_LIMIT", "_CODE"]),
        ("_plain = re.compile('a').fullmatch", ["_plain"]),
        ("ONE, TWO = 1, 2", ["ONE", "TWO"]),
        ("_seen = 0\ndef see() -> None:\n    global _seen\n    _seen += 1", []),
        ("_LIMIT: Final = 5\nMAP: Final[dict[str, int]] = {}", []),
        (
            "T = TypeVar('T')\nNow: TypeAlias = T | None\nEvent = A | B\nRead = Callable[[T], T]",
            [],
        ),
    ],
)
def test_what_is_not_final_is_told(source: str, names: list[str]) -> None:
    assert list(not_final(source)) == names


def not_final(source: str) -> Iterator[str]:
    """The names of constants that may be given another value; types are none."""
    module = ast.parse(source)
    variables = {n for each in ast.walk(module) if isinstance(each, ast.Global) for n in each.names}
    for name in _assigned(module):
        if name not in variables:
            yield name


def _assigned(module: ast.Module) -> Iterator[str]:
    for node in module.body:
        match node:
            case ast.Assign(targets=targets, value=value):
                made = ast.unparse(value)
                if made.startswith(("TypeVar(", "Callable[", "Generator[", "Literal[", "tuple[")):
                    continue
                if isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr):
                    continue
                for target in targets:
                    yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))
            case ast.AnnAssign(annotation=annotation, target=ast.Name(id=name)):
                if ast.unparse(annotation).partition("[")[0] not in ("Final", "TypeAlias"):
                    yield name


def breaking(source: str) -> Iterator[str]:
    """What mypyc takes and makes something else of, line by line."""
    classes = {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)}
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ClassDef(bases=bases):
                # Its fields would lie where a base that is not compiled has weak references, or
                # what a metaclass put there.
                for base in (ast.unparse(each).partition("[")[0] for each in bases):
                    if base not in classes and not _plain(base):
                        yield f"{node.lineno}: class {node.name}({base})"
            case ast.Try(handlers=handlers, finalbody=last):
                # While one waits there, the exception is the current one of all that runs.
                behind = [each for handler in handlers for each in handler.body] + last
                for inner in (inner for each in behind for inner in ast.walk(each)):
                    if isinstance(inner, ast.Await | ast.AsyncFor | ast.AsyncWith | ast.Yield):
                        yield f"{inner.lineno}: {ast.unparse(inner)}"


def _plain(base: str) -> bool:
    """Whether it is a class that mypyc knows how to build on."""
    found = getattr(builtins, base, None)
    return base in {"NamedTuple", "Protocol", "Enum", "StrEnum", "IntEnum"} or (
        isinstance(found, type) and issubclass(found, Exception)
    )
