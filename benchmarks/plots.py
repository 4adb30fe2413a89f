"""The plots of RESULTS.md: rates beside the peers, and rate and latency by sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import matplotlib
import report
from samples import Case, Sample

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

_OURS = "mailgw"
_COLOURS = {
    "mailgw": "#c0392b",
    "mailgw compiled": "#e74c3c",
    "smtp-sink": "#7f8c8d",
    "haraka": "#2980b9",
    "smtp-server": "#27ae60",
    "aiosmtpd": "#8e44ad",
    "postfix": "#d68910",
}
_OTHER = "#95a5a6"
# Where everybody has the same rate there is nothing to see.
_UNDRAWN = ("paced",)


def draw(cases: Sequence[Case], folder: Path) -> dict[str, str]:
    """Write a PNG for each part that there is; the file by the name of its part."""
    drawn = {}
    for part in dict.fromkeys(case.part for case in cases if case.part not in _UNDRAWN):
        of_part = [case for case in cases if case.part == part]
        file = f"{part.replace(' ', '-')}.png"
        if all(case.sessions is not None for case in of_part):
            figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
            _by_sessions(axes, of_part)
        else:
            rows = (len(of_part) + 1) // 2
            figure, grid = pyplot.subplots(
                rows, min(2, len(of_part)), figsize=(10, 0.6 + 2.6 * rows), squeeze=False
            )
            for case, axis in zip(of_part, grid.flat, strict=False):
                _bars(axis, case)
            for axis in list(grid.flat)[len(of_part) :]:
                axis.set_visible(False)
        figure.tight_layout()
        figure.savefig(folder / file, dpi=110)
        pyplot.close(figure)
        drawn[part] = file
    return drawn


def _bars(axis: Axes, case: Case) -> None:
    """A bar for each, its whisker from the slowest to the fastest round."""
    names = list(case.samples)[::-1]
    for at, name in enumerate(names):
        rates = [sample.rate for sample in case.samples[name]]
        middle = median(rates)
        whisker = [[middle - min(rates)], [max(rates) - middle]]
        axis.barh(at, middle, xerr=whisker, color=_colour(name), ecolor="#333333", capsize=2)
        axis.annotate(
            f" {middle:,.0f}", (max(rates), at), va="center", fontsize=8, annotation_clip=False
        )
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.set_xlabel("messages a second", fontsize=9)
    axis.locator_params(axis="x", nbins=6)
    axis.set_title(case.title, fontsize=10)
    axis.margins(x=0.18)
    axis.spines[["top", "right"]].set_visible(False)


def _by_sessions(axes: Sequence[Axes], cases: Sequence[Case]) -> None:
    """Rates on the left; medians and 99th percentiles of the time to 250 on the right."""
    rate, latency = axes
    for name in cases[0].samples:
        style = {"color": _colour(name), "marker": "o", "markersize": 3}
        if name.startswith(_OURS):
            style["linewidth"] = 2.5
        at = [case.sessions for case in cases]
        rate.plot(at, _medians(cases, name, lambda s: s.rate), label=name, **style)
        latency.plot(at, _medians(cases, name, lambda s: s.p50), label=f"{name}, p50", **style)
        latency.plot(at, _medians(cases, name, lambda s: s.p99), linestyle=":", **style)
    rate.set_ylabel("messages a second")
    rate.set_ylim(bottom=0)
    latency.set_ylabel("ms from final dot to 250 (dotted: p99)")
    latency.set_yscale("log")
    for axis in axes:
        axis.set_xscale("log")
        axis.set_xticks([case.sessions for case in cases])
        axis.set_xticklabels([str(case.sessions) for case in cases])
        axis.minorticks_off()
        axis.set_xlabel("sessions")
        axis.grid(alpha=0.3)
    rate.legend(fontsize=8)


def _medians(
    cases: Sequence[Case], name: str, which: Callable[[Sample], float | None]
) -> list[float]:
    return [report.latency(case.samples[name], which) for case in cases]


def _colour(name: str) -> str:
    return _COLOURS.get(name) or _COLOURS.get(name.partition(" ")[0], _OTHER)
