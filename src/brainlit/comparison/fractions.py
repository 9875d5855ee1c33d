"""How alignment grows with the hours of tuning data: one point per regime and share of the data, over seeds.

Runs whose `data.tune_fraction` differs are set beside each other. They must have in common what decides the numbers
besides the share: data, subjects, model, probe and scored stories. So the seeds of a point share people and stories,
and their errors over time do not average out: the interval of a point is that of `effects.over_seeds` for shared data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.comparison.effects import PRETRAINED, over_seeds
from brainlit.comparison.figures import regime_look
from brainlit.comparison.runs import SAME_START, Summary, TuningChange, mean_of_known, run_name, tuning_change
from brainlit.encoding.statistics import Score
from brainlit.files import write_csv
from brainlit.results import marks
from brainlit.results.figure_data import csv_text
from brainlit.results.marks import Mark
from brainlit.results.pages import render_page
from brainlit.results.run_directory import write_text_atomic
from brainlit.results.scores import FORMULAS
from brainlit.results.style import Figure, draw_figure
from brainlit.results.summary import place_words
from brainlit.results.tables import (
    change_in_words,
    change_said,
    count_said,
    markdown_table,
    number_said,
    simulated_said,
)

TABLE_FILE, FIGURE_FILE = "curve.csv", "curve.png"
PAGE_FILE, VECTOR_FILE = "curve.html", "curve.svg"
WRITTEN = (TABLE_FILE, FIGURE_FILE, VECTOR_FILE, PAGE_FILE)
HEADS = (
    *("regime", "fraction", "hours", "seeds", "r before", "r after"),
    *("difference (95 % interval)", "low-level share before / after"),
)
COLUMNS = (
    *("regime", "fraction", "hours", "rows", "n_seeds", "seeds", "region", "layer", "n_voxels", "n_subjects"),
    *("r_before", "r_after", "difference", "difference_low", "difference_high", "difference_min", "difference_max"),
    *("low_level_share_before", "low_level_share_after", "simulated"),
)


@dataclass(frozen=True)
class RunPoint:
    """What one run shows about one region.

    Parameters
    ----------
    hours, rows : float, int
        Tuning data of the run.
    change : TuningChange
        Alignment and low-level share before and after.
    """

    regime: str
    fraction: float
    seed: int
    hours: float
    rows: int
    region: str
    change: TuningChange
    simulated: bool = False


@dataclass(frozen=True)
class CurvePoint:
    """The runs of one regime and one share of the data, one per seed."""

    runs: tuple[RunPoint, ...]

    @property
    def regime(self) -> str:
        """What was predicted."""
        return self.runs[0].regime

    @property
    def fraction(self) -> float:
        """Share of the tuning rows."""
        return self.runs[0].fraction

    @property
    def hours(self) -> float:
        """Of tuning data, mean over seeds."""
        return float(np.mean([run.hours for run in self.runs]))

    def mean(self, name: str) -> float | None:
        """Mean of a number of TuningChange over the seeds that have it."""
        return mean_of_known(getattr(run.change, name) for run in self.runs)

    @property
    def rise(self) -> Score:
        """Mean over seeds with the interval of claims (with one seed its own); none where a seed has none."""
        if len(self.runs) == 1:
            return self.runs[0].change.rise
        return over_seeds([run.change.rise for run in self.runs], [run.change.people for run in self.runs], shared=True)


def curve_points(summaries: Sequence[Summary], region: str | None = None) -> list[CurvePoint]:
    """The points of all curves, by regime and hours.

    Parameters
    ----------
    summaries : sequence of summary
        From `comparison.runs.read_summaries`.
    region : str, optional
        That of the first run's headline by default.

    Raises
    ------
    ValueError
        If runs cannot stand in one figure (naming what differs and both values), one is there twice, or has no probe
        before and after tuning.
    """
    if not summaries:
        raise ValueError("no run is given; name the folders of finished runs.")
    for summary in summaries[1:]:
        _check_same(summaries[0], summary)
    name = region or str(summaries[0]["headline_region"])
    found: dict[tuple[str, float, int], RunPoint] = {}
    for summary in summaries:
        point = _run_point(summary, name)
        key = (point.regime, point.fraction, point.seed)
        if key in found:
            raise ValueError(
                f"two runs of regime {point.regime!r} have tune_fraction {point.fraction:g} and seed {point.seed};"
                " name only one of them."
            )
        found[key] = point
    _check_same_start(found.values())
    _check_same_share([run for run in found.values() if run.fraction < 1])
    groups = dict.fromkeys((run.regime, run.fraction) for run in found.values())
    points = [CurvePoint(tuple(r for r in found.values() if (r.regime, r.fraction) == group)) for group in groups]
    return sorted(points, key=lambda point: (point.regime != "brain", point.regime, point.fraction))


def curve_table(points: Sequence[CurvePoint]) -> str:
    """Markdown: what the listeners are where these are simulated, the effect, then one line per point."""
    lead = [sentence for sentence in (listeners_said(points), *curve_sentences(points)) if sentence]
    table = markdown_table(HEADS, map(_cells, points))
    return "\n".join([*(line for sentence in lead for line in (sentence, "")), _sizes(points), "", *table])


def listeners_said(points: Sequence[CurvePoint]) -> str:
    """A sentence about the listeners where any are simulated, else nothing."""
    return simulated_said(run.simulated for point in points for run in point.runs)


def curve_sentences(points: Sequence[CurvePoint]) -> list[str]:
    """What the most data of each regime did to alignment, and what the least did."""
    return [_sentence([point for point in points if point.regime == name]) for name in _regimes(points)]


def _sentence(points: Sequence[CurvePoint]) -> str:
    """Of one regime; its points come by hours."""
    least, most = points[0], points[-1]
    before, after = (number_said(most.mean(name)) for name in ("r_before", "r_after"))
    said = (
        f"{_words(most.regime)}, {count_said(len(most.runs), 'seed')}: alignment r with"
        f" {place_words(most.runs[0].region)} is {before} before tuning and {after} after {_time(most.hours)} of it,"
        f" {change_in_words(most.rise)}"
    )
    if least is not most:
        said += f"; after {_time(least.hours)} the change is {change_in_words(least.rise)}"
    return f"{said[0].upper()}{said[1:]}."


def _time(hours: float) -> str:
    """In minutes below two hours, as on the axis."""
    return f"{60 * hours:.3g} minutes" if hours < 2 else f"{hours:.3g} hours"


def _regimes(points: Iterable[CurvePoint]) -> list[str]:
    return list(dict.fromkeys(point.regime for point in points))


def _sizes(points: Sequence[CurvePoint]) -> str:
    first = points[0].runs[0]
    sizes = f"{count_said(first.change.n_voxels, 'voxel')}, {count_said(first.change.n_subjects, 'subject')}"
    return f"{first.region}, layer {first.change.layer}: {sizes}"


def _cells(point: CurvePoint) -> list[str]:
    """The cells of HEADS."""
    return [
        *(point.regime, f"{point.fraction:g}", f"{point.hours:.3g}", str(len(point.runs))),
        *(number_said(point.mean("r_before")), number_said(point.mean("r_after")), change_said(point.rise)),
        " / ".join(number_said(point.mean(name)) for name in ("share_before", "share_after")),
    ]


def write_curve_page(points: Sequence[CurvePoint], figure: Figure, folder: Path) -> Path:
    """Write curve.html, which needs no other file: the effect, the figure, the table."""
    first = points[0].runs[0]
    page = render_page(
        "curve.html.j2",
        f"Alignment by tuning data, {place_words(first.region)}",
        about=f"{', '.join(map(_words, _regimes(points)))} · {_sizes(points)}",
        listeners=listeners_said(points),
        headline=curve_sentences(points),
        curve=figure,
        heads=HEADS,
        rows=[_cells(point) for point in points],
    )
    return write_text_atomic(folder / PAGE_FILE, page)


def write_curve_table(points: Sequence[CurvePoint], folder: Path) -> Path:
    """Write curve.csv, one row per point; empty cells where a number is not defined."""
    return write_csv(folder / TABLE_FILE, COLUMNS, map(_csv_row, points))


def _csv_row(point: CurvePoint) -> dict[str, Any]:
    first, rise = point.runs[0], point.rise.json()
    each = [run.change.rise.value for run in point.runs]
    numbers = {
        "hours": point.hours,
        "r_before": point.mean("r_before"),
        "r_after": point.mean("r_after"),
        "difference": rise["value"],
        "difference_low": rise["low"],
        "difference_high": rise["high"],
        "difference_min": min(each),
        "difference_max": max(each),
        "low_level_share_before": point.mean("share_before"),
        "low_level_share_after": point.mean("share_after"),
    }
    return {
        "regime": point.regime,
        "fraction": f"{point.fraction:g}",
        "rows": round(float(np.mean([run.rows for run in point.runs]))),
        "n_seeds": len(point.runs),
        "seeds": " ".join(str(seed) for seed in sorted(run.seed for run in point.runs)),
        "region": first.region,
        "simulated": first.simulated,
        **{name: getattr(first.change, name) for name in ("layer", "n_voxels", "n_subjects")},
        **{name: "" if number is None else f"{number:.6g}" for name, number in numbers.items()},
    }


def _run_point(summary: Summary, region: str) -> RunPoint:
    run = summary["run"]
    data = run.get("data_module") or {}
    if "tune_fraction" not in data or "tune" not in data.get("hours", {}):
        raise ValueError(
            f"the run {run_name(summary)} does not say how much it was tuned on (data_module in its run.json); train it"
            " again, or leave it out."
        )
    return RunPoint(
        regime=str(run.get("regime")),
        fraction=float(data["tune_fraction"]),
        seed=int(run["seed"]),
        hours=float(data["hours"]["tune"]),
        rows=int(data["rows"]["tune"]),
        region=region,
        change=tuning_change(summary, region),
        simulated=bool(run.get("simulated")),
    )


def _what_is_shared(summary: Summary) -> dict[str, Any]:
    """What must be the same in all runs of a figure, by name."""
    run, probe = summary["run"], summary["probe"]
    data, model = run.get("data_module") or {}, run.get("backbone") or {}
    return {
        "data": f"{data.get('store')} ({str(data.get('store_fingerprint'))[:10]})",
        "subjects": ", ".join(data.get("subjects") or ()),
        "model": f"{model.get('family')} ({model.get('weights')})",
        "probed subjects": ", ".join(probe["subjects"]),
        "layer compared": probe.get("layer"),
        "delays of the probe": probe.get("delays_trs"),
        "fit stories": ", ".join(probe.get("fit_spans") or ()),
        "score stories": ", ".join(probe.get("score_spans") or ()),
    }


def _check_same(first: Summary, other: Summary) -> None:
    ours, theirs = _what_is_shared(first), _what_is_shared(other)
    for name, value in ours.items():
        if theirs[name] != value:
            raise ValueError(
                f"{run_name(first)} and {run_name(other)} cannot stand in one curve: {name} {value!r} and"
                f" {theirs[name]!r}. Name runs that differ in regime, tune_fraction and seed only."
            )


def _check_same_start(runs: Iterable[RunPoint]) -> None:
    """Runs of one seed start from the same weights, so the same probe finds the same before tuning."""
    first: dict[int, RunPoint] = {}
    for run in runs:
        start = first.setdefault(run.seed, run)
        if abs(run.change.r_before - start.change.r_before) > SAME_START:
            raise ValueError(
                f"seed {run.seed}: before tuning, r in {run.region} is {start.change.r_before:.4f} with tune_fraction"
                f" {start.fraction:g} ({start.regime}) and {run.change.r_before:.4f} with {run.fraction:g}"
                f" ({run.regime}); they did not start from the same model, stories and probe."
            )


def _check_same_share(runs: Sequence[RunPoint]) -> None:
    """A share is of as many rows in all runs, to rounding: else they were cut out of different stories.

    Runs on everything are left out, for their rows count stories that nobody heard, too.
    """
    wholes = sorted(runs, key=lambda run: run.rows / run.fraction)
    few, many = (wholes[0], wholes[-1]) if wholes else (None, None)
    if few and many and (few.rows + 1) / few.fraction < (many.rows - 1) / many.fraction:
        raise ValueError(
            f"tune_fraction {few.fraction:g} is {few.rows} rows ({few.regime}, seed {few.seed}), and {many.fraction:g}"
            f" is {many.rows} rows ({many.regime}, seed {many.seed}): they are shares of different tuning stories. Name"
            " runs with the same data.roles."
        )


def curve_figure(points: Sequence[CurvePoint]) -> Figure:
    """Alignment after tuning by hours of tuning data (logarithmic), and the untuned model as a dashed line.

    A line's band is the interval of the paired difference, laid at the alignment before tuning: where it leaves out
    the dashed line, tuning changed alignment beyond its uncertainty. Small marks are single seeds.
    """
    starts = [run.change.r_before for point in points for run in point.runs]
    before = sum(starts) / len(starts)

    def draw(figure: Any) -> list[Mark]:
        axes = figure.add_subplot()
        for regime in _regimes(points):
            _curve(axes, [point for point in points if point.regime == regime], regime)
        axes.axhline(before, color=regime_look(PRETRAINED)[0], linestyle=(0, (4, 2)), linewidth=1.2, label="untuned")
        _hours_axis(axes, sorted({point.hours for point in points}))
        axes.set_ylabel("held-out correlation r")
        axes.set_title(f"Alignment by tuning data, {points[0].runs[0].region.replace('_', ' ')}")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
        means = [_mark(axes, one, r) for one in points if (r := one.mean("r_after")) is not None]
        return means + [_seed_mark(axes, one, run) for one in points if len(one.runs) > 1 for run in one.runs]

    alt, numbers = _alt(points, before), csv_text(COLUMNS, map(_csv_row, points))
    simulated = bool(listeners_said(points))
    return draw_figure("curve", draw, (6.6, 4.3), alt, _caption(points), simulated=simulated, csv=numbers)


def _curve(axes: Any, points: Sequence[CurvePoint], regime: str) -> None:
    colour, mark = regime_look(regime)
    hours = [point.hours for point in points]
    axes.plot(hours, [point.mean("r_after") for point in points], color=colour, marker=mark, ms=6, label=_words(regime))
    for point in points:
        if len(point.runs) > 1:
            seeds = [run.change.r_after for run in point.runs]
            axes.plot([point.hours] * len(seeds), seeds, marker=mark, linestyle="", color=colour, ms=2.5)
    known = [(point.hours, *bounds) for point in points if (bounds := _band(point)) is not None]
    if len(known) > 1:
        axes.fill_between(*zip(*known, strict=True), color=colour, alpha=0.18, linewidth=0)
    for x, low, high in known if len(known) == 1 else ():
        axes.plot([x, x], [low, high], color=colour, linewidth=1.4, solid_capstyle="butt")


def _mark(axes: Any, of: CurvePoint, r_after: float) -> Mark:
    """r after tuning; the interval is that of its change."""
    what, numbers = f"{_words(of.regime)}, {_time(of.hours)}", f"r {r_after:.3f}, change {change_in_words(of.rise)}"
    return marks.point(axes, of.hours, r_after, what, numbers, count_said(len(of.runs), "seed"))


def _seed_mark(axes: Any, of: CurvePoint, run: RunPoint) -> Mark:
    what = f"{_words(of.regime)}, {_time(of.hours)}"
    numbers = f"r {run.change.r_after:.3f}, change {change_in_words(run.change.rise)}"
    return marks.point(axes, of.hours, run.change.r_after, what, numbers, f"seed {run.seed}")


def _band(point: CurvePoint) -> tuple[float, float] | None:
    """Interval of the difference, laid at the alignment before tuning."""
    interval, before = point.rise.interval, point.mean("r_before")
    return None if interval is None or before is None else (before + interval[0], before + interval[1])


def _hours_axis(axes: Any, hours: Sequence[float]) -> None:
    """A logarithmic axis with a tick where there are runs, in minutes below two hours."""
    minutes = hours[-1] < 2
    axes.set_xscale("log")
    axes.set_xticks(hours, [f"{60 * h:.3g}" if minutes else f"{h:.3g}" for h in hours])
    axes.minorticks_off()
    axes.margins(x=0.08)
    axes.set_xlabel(f"tuning data ({'minutes' if minutes else 'hours'})")


def _words(regime: str) -> str:
    return regime.replace("_", " ")


def _alt(points: Sequence[CurvePoint], before: float) -> str:
    said = "; ".join(f"{_words(p.regime)} {p.hours:.3g} h: {p.mean('r_after'):.3f}" for p in points)
    return f"Alignment after tuning by hours of tuning data. {said}; untuned {before:.3f}."


def _caption(points: Sequence[CurvePoint]) -> str:
    n_seeds = sorted({len(point.runs) for point in points})
    seeds = str(n_seeds[0]) if len(n_seeds) == 1 else f"{n_seeds[0]} to {n_seeds[-1]}"
    n_people = min(len(run.change.people) for point in points for run in point.runs)
    people = ", and over subjects" if n_people > 1 else " (one subject: nothing about other people)"
    joined = (
        f" over seeds, joined with that over held-out time, which they share{people}"
        if n_seeds[-1] > 1
        else " over held-out time; it does not cover other seeds"
    )
    what = f"Alignment r: {FORMULAS['r_backbone']}. {_sizes(points)[0].upper()}{_sizes(points)[1:]}."
    drawn = f"Marks: mean over {seeds} seeds; small marks: seeds." if n_seeds[-1] > 1 else "Marks: one seed."
    band = f"Bands: 95 % interval of the difference to it, laid at its r,{joined}."
    return f"{what} {drawn} Dashes: the untuned model. {band}"
