"""The frame of a benchmark: its command line, how it ends, and the file that it leaves.

The law: what was started is ended on the way out, also after Ctrl-C and SIGTERM, and the raw
numbers are written only when all of them are there.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import report
import servers
from processes import Failed
from samples import Figure, Run, write


def parser(about: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """The options that all have; `rounds` is how many turns each has by default."""
    options = argparse.ArgumentParser(description=about.splitlines()[0] if about else None)
    if rounds is not None:
        options.add_argument(
            "--rounds", type=_positive, default=rounds, help=f"turns of each (default {rounds})"
        )
    options.add_argument("--quick", action="store_true", help="a little of all: does it work?")
    options.add_argument(
        "--compiled", action=_Compiled, nargs=0, help="mailgw is the compiled one, see README.md"
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers here")
    return options


def run(measure: Callable[[Run], None], file: Path | None) -> int:
    """Let `measure` add to a run what it finds, and keep it in `file`. Returns the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = Run(report.command(), report.machine(None))
    print(report.facts(found.machine), flush=True)
    try:
        measure(found)
    except Failed as failure:
        print(f"benchmark failed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if file is not None:
        write(file, found)
    return 0


class _Compiled(argparse.Action):
    """Begins anew with the Python that has the compiled mailgw, in place of this one."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        if servers.is_compiled():
            return
        try:
            python = servers.compiled_python()
        except Failed as failure:
            parser.error(str(failure))
        os.execv(python, [python, *sys.argv])


def note(found: Run, figure: Figure) -> None:
    """Add a figure to the run, and print it."""
    found.figures.append(figure)
    print(report.figure(figure), flush=True)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
