"""The picture of `results.fractions`: alignment against hours of tuning data, one line per regime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brainlit.results.fractions import CurvePoint
from brainlit.results.look import FAINT, OTHER_COLOURS, REGIME_COLOURS, Figure, house_style, new_figure, render
from brainlit.store.atomic import atomic_path

FIGURE_FILE = "curve.png"


def curve_figure(points: Sequence[CurvePoint]) -> Figure:
    """Alignment after tuning by hours of tuning data (logarithmic), and the untuned model as a dashed line.

    A line's band is the interval of the paired difference, laid at the alignment before tuning: where it leaves out
    the dashed line, tuning changed alignment beyond its uncertainty. Small dots are single seeds.
    """
    before = _mean([run.r_before for point in points for run in point.runs])
    with house_style():
        figure = new_figure(6.8, 4.3)
        axes = figure.add_subplot()
        for regime in dict.fromkeys(point.regime for point in points):
            _curve(axes, [point for point in points if point.regime == regime], _colour(regime), regime)
        axes.axhline(before, color=FAINT, linestyle=(0, (4, 2)), linewidth=1.2, label="untuned")
        _hours_axis(axes, sorted({point.mean("hours") or 0.0 for point in points}))
        axes.set_ylabel("held-out correlation r")
        axes.set_title(f"Alignment by tuning data, {points[0].runs[0].region.replace('_', ' ')}")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return Figure("curve", render(figure, "png"), None, _alt(points, before), _caption(points))


def save_curve_figure(figure: Figure, folder: Path) -> Path:
    """Write curve.png."""
    path = folder / FIGURE_FILE
    with atomic_path(path) as temporary:
        temporary.write_bytes(figure.png)
    return path


def _curve(axes: Any, points: Sequence[CurvePoint], colour: str, regime: str) -> None:
    hours = [point.mean("hours") for point in points]
    axes.plot(hours, [point.mean("r_after") for point in points], color=colour, marker="o", ms=5, label=_words(regime))
    for point, x in zip(points, hours, strict=True):
        if len(point.runs) > 1:
            axes.plot([x] * len(point.runs), [run.r_after for run in point.runs], "o", color=colour, ms=2.5, alpha=0.6)
    bounds = [_band(point) for point in points]
    known = [(x, *bound) for x, bound in zip(hours, bounds, strict=True) if bound is not None]
    if len(known) > 1:
        axes.fill_between(*zip(*known, strict=True), color=colour, alpha=0.18, linewidth=0)
    for x, low, high in known if len(known) == 1 else ():
        axes.plot([x, x], [low, high], color=colour, alpha=0.5, linewidth=4, solid_capstyle="butt")


def _band(point: CurvePoint) -> tuple[float, float] | None:
    """Interval of the difference, laid at the alignment before tuning."""
    _, low, high = point.difference
    before = point.mean("r_before")
    return None if low is None or high is None or before is None else (before + low, before + high)


def _hours_axis(axes: Any, hours: Sequence[float]) -> None:
    """A logarithmic axis with a tick where there are runs, in minutes below two hours."""
    minutes = hours[-1] < 2
    axes.set_xscale("log")
    axes.set_xticks(hours, [f"{60 * h:.3g}" if minutes else f"{h:.3g}" for h in hours])
    axes.minorticks_off()
    axes.margins(x=0.08)
    axes.set_xlabel(f"tuning data ({'minutes' if minutes else 'hours'})")


def _colour(regime: str) -> str:
    return REGIME_COLOURS.get(regime, OTHER_COLOURS[1])


def _words(regime: str) -> str:
    return regime.replace("_", " ")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _alt(points: Sequence[CurvePoint], before: float) -> str:
    said = "; ".join(f"{_words(p.regime)} {p.mean('hours'):.3g} h: {p.mean('r_after'):.3f}" for p in points)
    return f"Alignment after tuning by hours of tuning data. {said}; untuned {before:.3f}."


def _caption(points: Sequence[CurvePoint]) -> str:
    n_seeds = sorted({len(point.runs) for point in points})
    seeds = str(n_seeds[0]) if len(n_seeds) == 1 else f"{n_seeds[0]} to {n_seeds[-1]}"
    return (
        f"Mean over {seeds} seeds (small dots). Bands: 95 % interval of the difference to the untuned model over"
        " held-out time, mean over seeds, for these share the scored stories; it does not cover other seeds."
    )
