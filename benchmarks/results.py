"""The raw numbers of runs as a page and plots: RESULTS.md, *.png. Called by benchmarks/report.

The law: every figure stands below the command that makes it and the machine that it was made
on, and no figure comes from anywhere but the files that were named.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import plots
import report
from samples import Case, Figure, Run, Sample, read

_HERE = Path(__file__).parent
_OURS, _COMPILED = "mailgw", "mailgw compiled"
_ALONE = "OpenSSL alone"

_TITLES = {
    "dropped": "Accepted and dropped",
    "confirmed": "Safe in a quorum queue",
    "encrypted": "Over TLS, accepted and dropped",
    "dropped by sessions": "Accepted and dropped, by sessions",
    "confirmed by sessions": "Confirmed by a quorum queue, by sessions",
    "publishers": "Confirmed publishing without SMTP",
    "embedded": "The embedded queue, beside SQLite alone",
    "paced": "From final dot to 250 at half of the top rate",
    "workers": "Worker processes",
    "memory": "Memory",
    "door": "The front door",
    "handshakes": "STARTTLS, by what a session costs",
    "checks": "The checks",
    "slow neighbours": "Beside servers of checks that are slow",
    "cluster": "Replication, and HAProxy",
}
_OPENING = """\
# Results

Written by `benchmarks/report` from the raw numbers of the runs named below;
[README.md](README.md) says what is measured and how to read it. Medians of the rounds; a ratio is
the median of the ratios of each round, with the smallest and the largest behind it. "CPU" is the
server's own, in microseconds a message; "by CPU" is how much less of it mailgw takes.
"""


def main(files: Sequence[Path]) -> int:
    """Write the page and the plots beside this file."""
    runs = []
    for file in files:
        try:
            runs.append(read(file))
        except (KeyError, TypeError, ValueError) as trouble:
            print(f"{file}: not the raw numbers of a run: {trouble!r}", file=sys.stderr)
            return 1
    cases = [case for run in runs for case in run.cases]
    drawn = plots.draw(cases, _HERE)
    page = [_OPENING]
    for run in runs:
        page += _run(run, drawn)
    (_HERE / "RESULTS.md").write_text("\n".join(page).rstrip() + "\n")
    return 0


def _run(run: Run, drawn: dict[str, str]) -> Iterator[str]:
    yield f"    {run.command}\n"
    yield f"on {report.facts(run.machine)}.\n"
    for part in dict.fromkeys(each.part for each in (*run.cases, *run.figures)):
        yield f"## {_TITLES.get(part, part)}\n"
        if part in drawn:
            yield f"![{_TITLES.get(part, part)}]({drawn[part]})\n"
        for case in run.cases:
            if case.part == part:
                yield from _case(case)
        if figures := [each for each in run.figures if each.part == part]:
            yield from _figures(figures)


def _figures(figures: Sequence[Figure]) -> Iterator[str]:
    yield _row(["", "median", "least to most", "expected", ""])
    yield _row(["---"] * 5)
    for each in figures:
        wanted = report.expected(each)
        said = ("yes" if each.holds else "no") if wanted else ""
        middle = f"{report.number(each.middle)} {each.unit}".strip()
        yield _row([each.title, middle, report.spread(each), wanted, said])
    yield ""


def _case(case: Case) -> Iterator[str]:
    yield f"**{case.title}**\n"
    timed = any(each.p50 is not None for samples in case.samples.values() for each in samples)
    head = ["server", "msg/s", "CPU", *(["p50 ms", "p99 ms"] if timed else [])]
    for ours in _ours(case):
        head += [f"{ours} / it", "by CPU"]
    head.append("held up by")
    yield _row(head)
    yield _row(["---"] * len(head))
    for name, samples in case.samples.items():
        yield _row(_cells(case, name, samples, timed))
    if _ALONE in case.samples:
        for ours in _ours(case):
            yield f"\n{report.share(case, _ALONE, ours, None).strip()}."
    yield ""


def _cells(case: Case, name: str, samples: list[Sample], timed: bool) -> Iterator[str]:
    yield name
    yield _number(median(sample.rate for sample in samples))
    yield _number(median(sample.server_cost for sample in samples))
    if timed:
        for which in (lambda s: s.p50, lambda s: s.p99):
            known = any(which(sample) is not None for sample in samples)
            yield f"{report.latency(samples, which):.2f}" if known else ""
    for each in _ours(case):
        # The two of ours are compared once.
        if name in (each, _ALONE, _COMPILED):
            yield from ("", "")
            continue
        rates, costs = report.compared(case, each, name)
        yield f"{report.bound(case, each, name)} {_spread(rates)}".strip()
        yield _spread(costs) if costs else ""
    yield report.bottleneck(samples)


def _ours(case: Case) -> list[str]:
    return [name for name in (_OURS, _COMPILED) if name in case.samples]


def _spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _row(cells: Sequence[str] | Iterator[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main([Path(name) for name in sys.argv[1:]]))
