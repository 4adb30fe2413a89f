"""Fuzz one target for as long as it is let, guided by what the code covers.

    pip install atheris
    PYTHONPATH=src:tests python tests/fuzz/guided.py session -max_total_time=600

Atheris is not among the packages of the suite: it has no wheels for every Python. Where
it finds something it writes the octets to a file, which is to be given as an argument to
see it again. Everything behind the target's name is libFuzzer's.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mailgw"]):
    from fuzz.targets import TARGETS, seeds


def main() -> None:
    name, *options = sys.argv[1:]
    corpus = Path(tempfile.mkdtemp(prefix=f"mailgw-fuzz-{name}-"))
    for number, octets in enumerate(seeds(name)):
        (corpus / f"seed{number}").write_bytes(octets)
    files = any(not each.startswith("-") for each in options)
    # A second for one input is a hang; a gigabyte is a leak.
    limits = ["-timeout=10", "-rss_limit_mb=1024", "-max_len=4096"]
    given = options if files else [*options, str(corpus)]
    atheris.Setup([sys.argv[0], *limits, *given], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
