"""Samples as text: tables, ratios, and what stood in the way."""

from __future__ import annotations

import json
import os
import platform
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from peers import MODULES
from processes import Failed
from samples import Case, Figure, Sample
from servers import program

# From this share of a core on, a process is what holds the others up.
_SATURATED = 0.9
# More than this share of a core for others, and rates say little.
_NOISY = 0.25


def machine(rabbitmq: str | None) -> dict[str, str]:
    """The facts without which the numbers mean nothing."""
    return {
        "cores": str(os.cpu_count()),
        "processor": _processor(),
        "kernel": platform.release(),
        "mailgw": _said([sys.executable, "-m", "mailgw", "--version"]).removeprefix("mailgw "),
        "uvloop": version("uvloop"),
        "aiosmtpd": version("aiosmtpd"),
        "aio-pika": version("aio-pika"),
        "Postfix": _postfix(),
        "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
        "Node": _said([program("node"), "--version"]) if MODULES.is_dir() else "not installed",
        **{name: _module(name) for name in ("haraka", "smtp-server", "amqplib")},
        "RabbitMQ": rabbitmq or "not used",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def facts(machine: Mapping[str, str]) -> str:
    """One line of them."""
    return ", ".join(f"{name} {text}" for name, text in machine.items() if text != "not used")


def command() -> str:
    """What was typed, without the folder of this machine and the file of the raw numbers."""
    words = list(sys.argv[1:])
    if "--json" in words:
        at = words.index("--json")
        del words[at : at + 2]
    return " ".join([".venv/bin/python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _postfix() -> str:
    try:
        return _said([program("postconf"), "-d", "-h", "mail_version"])
    except Failed:
        return "unknown"


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _module(name: str) -> str:
    """The version of a Node package, by its own word."""
    file = MODULES / name / "package.json"
    if not file.exists():
        return "not installed"
    return str(json.loads(file.read_text())["version"])


def reception(case: Case) -> Iterator[str]:
    """The table of one case of part 1."""
    yield f"{case.title}"
    yield (
        f"  {'server':<21}{'msg/s':>8} {'(min-max)':>15}{'CPU us/msg':>12}"
        f"{'server':>9}{'source':>8}{'others':>8}  bottleneck"
    )
    for name, samples in case.samples.items():
        yield (
            f"  {name:<21}{_rates(samples)}{_cost(samples):>12.0f}"
            f"{_share(samples, lambda s: s.server_cpu):>9.0%}"
            f"{_share(samples, lambda s: s.source_cpu):>8.0%}"
            f"{_share(samples, lambda s: s.elsewhere):>8.0%}  {bottleneck(samples)}"
        )


def end_to_end(case: Case) -> Iterator[str]:
    """The table of part 2."""
    yield f"{case.title}"
    yield (
        f"  {'publisher':<21}{'msg/s':>8} {'(min-max)':>15}{'CPU us/msg':>12}{'broker us':>11}"
        f"{'itself':>9}{'broker':>8}{'source':>8}{'others':>8}"
    )
    for name, samples in case.samples.items():
        yield (
            f"  {name:<21}{_rates(samples)}{_cost(samples):>12.0f}"
            f"{median(s.broker_cost for s in samples):>11.0f}"
            f"{_share(samples, lambda s: s.server_cpu):>9.0%}"
            f"{_share(samples, lambda s: s.broker_cpu):>8.0%}"
            f"{_share(samples, lambda s: s.source_cpu):>8.0%}"
            f"{_share(samples, lambda s: s.elsewhere):>8.0%}"
        )


def sessions(case: Case) -> Iterator[str]:
    """The table of one number of sessions."""
    yield f"{case.title}"
    yield (
        f"  {'server':<21}{'msg/s':>8} {'(min-max)':>15}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'CPU us/msg':>12}{'server':>9}{'source':>8}{'others':>8}  bottleneck"
    )
    for name, samples in case.samples.items():
        yield (
            f"  {name:<21}{_rates(samples)}{latency(samples, lambda s: s.p50):>9.2f}"
            f"{latency(samples, lambda s: s.p99):>9.2f}{_cost(samples):>12.0f}"
            f"{_share(samples, lambda s: s.server_cpu):>9.0%}"
            f"{_share(samples, lambda s: s.source_cpu):>8.0%}"
            f"{_share(samples, lambda s: s.elsewhere):>8.0%}  {bottleneck(samples)}"
        )


def figure(found: Figure) -> str:
    """One line: the median, the least and the most, and whether it is what it is meant to be."""
    between = f"({spread(found)})" if spread(found) else ""
    line = f"  {found.title:<58}{number(found.middle):>8} {found.unit:<8}{between:<16}"
    if wanted := expected(found):
        line += f"   expected {wanted}: {'yes' if found.holds else 'NO'}"
    return line.rstrip()


def spread(found: Figure) -> str:
    """The least and the most of several rounds."""
    if len(found.values) == 1:
        return ""
    return f"{number(min(found.values))} to {number(max(found.values))}"


def expected(found: Figure) -> str:
    """What it is meant to be, empty where that is nothing."""
    if found.at_most is not None:
        return f"at most {found.at_most:g}"
    return "" if found.at_least is None else f"at least {found.at_least:g}"


def number(value: float) -> str:
    """Three digits that count, and no more behind the point than that."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def latency(samples: Sequence[Sample], which: Callable[[Sample], float | None]) -> float:
    """The median over the turns of one percentile, in milliseconds."""
    return median(found for sample in samples if (found := which(sample)) is not None)


def ratios(
    case: Case, ours: str, expected: Mapping[str, float], without: Sequence[str] = ()
) -> Iterator[str]:
    """A line for each of the others but those `without`."""
    for name in case.samples:
        if name != ours and name not in without:
            yield ratio(case, ours, name, expected.get(name))


def ratio(case: Case, ours: str, theirs: str, expected: float | None) -> str:
    """One line: how many times as fast, and how many times as cheap, round by round."""
    rates, costs = compared(case, ours, theirs)
    line = (
        f"  {f'{ours} / {theirs}':<33}{bound(case, ours, theirs):<3}{median(rates):.2f}"
        f"  ({min(rates):.2f}-{max(rates):.2f})"
    )
    if costs:
        line += f"   by CPU {median(costs):.2f}"
    if expected is not None:
        line += f"   expected >= {expected:g}: {'yes' if median(rates) >= expected else 'NO'}"
    return line


def compared(case: Case, ours: str, theirs: str) -> tuple[list[float], list[float]]:
    """Round by round how many times as fast, and how many times as cheap, one of them is."""
    pairs = list(zip(case.samples[ours], case.samples[theirs], strict=True))
    rates = [a.rate / b.rate for a, b in pairs]
    return rates, [b.server_cost / a.server_cost for a, b in pairs if a.server_cost]


def share(case: Case, part: str, whole: str, expected: float | None) -> str:
    """One line: how much of the CPU time of one the other would have taken."""
    pairs = zip(case.samples[part], case.samples[whole], strict=True)
    shares = [a.server_cost / b.server_cost for a, b in pairs if b.server_cost]
    spread = f"{median(shares):.0%} ({min(shares):.0%}-{max(shares):.0%})"
    line = f"  {part} is {spread} of what {whole} takes"
    if expected is not None:
        line += f"   expected > {expected:.0%}: {'yes' if median(shares) > expected else 'NO'}"
    return line


def bound(case: Case, ours: str, theirs: str) -> str:
    """What a ratio is worth when the source could not send faster to one side, or to both."""
    limits = ("source", "both")
    match bottleneck(case.samples[ours]) in limits, bottleneck(case.samples[theirs]) in limits:
        case True, False:
            return ">="
        case False, True:
            return "<="
        case True, True:
            return "~"
        case _:
            return ""


def bottleneck(samples: list[Sample]) -> str:
    """Who had no CPU time left; with one core each that is who sets the rate."""
    server = _share(samples, lambda s: s.server_cpu) >= _SATURATED
    source = _share(samples, lambda s: s.source_cpu) >= _SATURATED
    if server and source:
        return "both"
    if server or source:
        return "server" if server else "source"
    if _share(samples, lambda s: s.elsewhere) >= _NOISY:
        return "the machine (others work on it)"
    return "neither"


def _rates(samples: list[Sample]) -> str:
    rates = [sample.rate for sample in samples]
    digits = 0 if median(rates) >= 100 else 1
    low, high = f"{min(rates):.{digits}f}", f"{max(rates):.{digits}f}"
    return f"{median(rates):>8.{digits}f} {f'({low}-{high})':>15}"


def _cost(samples: list[Sample]) -> float:
    return median(sample.server_cost for sample in samples)


def _share(samples: list[Sample], cpu: Callable[[Sample], float]) -> float:
    return median(sample.busy(cpu(sample)) for sample in samples)
