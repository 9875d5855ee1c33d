"""The figures of a run, drawn from its summary and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from brainlit.encoding.partition import part_name, subsets
from brainlit.results.band_names import bands_of
from brainlit.results.figure_data import csv_text, learning_csv, scores_csv
from brainlit.results.marks import Mark, counts_in_words, point, score_in_words, thinned
from brainlit.results.style import (
    CEILING_COLOUR,
    DIVERGING,
    FAINT,
    INK,
    LOSS_LOOKS,
    MARKS,
    PAPER,
    STAGE_COLOURS,
    Figure,
    colour_map,
    draw_figure,
    part_colours,
    part_hatches,
    part_label,
    region_looks,
)
from brainlit.results.summary import find_score, regions_of, stage_value
from brainlit.results.tables import count_said

STAGES = ("before", "after")
MAX_REGIONS, MAX_STACKS, MAX_PANELS = 13, 8, 4
FEWEST_EPOCHS = 3
"""With fewer, the figure of layers before and after says it all."""
_BAR_COLOURS = {**STAGE_COLOURS, "ceiling": CEILING_COLOUR}


def alignment_figure(summary: Mapping[str, Any]) -> Figure | None:
    """Alignment by region, before and after, with intervals and the noise ceiling; None without a probe."""
    known = [row for region in regions_of(summary) if (row := find_score(summary, region, "r_backbone"))]
    if not known:
        return None
    rows = known[:MAX_REGIONS]

    def draw(figure: Any) -> list[Mark]:
        axes = figure.add_subplot()
        marks = _grouped_bars(axes, rows, "r")
        for k, row in enumerate(rows):
            ceiling = find_score(summary, row["region"], "ceiling")
            highest = _value(ceiling)
            if ceiling and np.isfinite(highest):
                axes.plot([k - 0.42, k + 0.42], [highest, highest], color=INK, linestyle=(0, (4, 2)), linewidth=1.2)
                what = f"{_spaced(row['region'])}, noise ceiling"
                words = score_in_words("r", ceiling["after" if "after" in ceiling else "before"])
                marks.append(
                    Mark(axes, (k - 0.42, k + 0.42), (highest, highest), what, words, counts_in_words(ceiling))
                )
        axes.set_ylabel("held-out correlation r")
        axes.set_title(_title(summary, "Alignment by region"))
        _legend_above(axes)
        return marks

    said = "; ".join(f"{row['region']}: {_pair(row)}" for row in rows)
    dashes = (
        " Dashes: noise ceiling, the highest correlation that all rows and voxels of the region together could reach."
    )
    caption = (
        f"Alignment r: {summary['formulas']['r_backbone']}; layer {summary['probe']['layer']}, mean over subjects."
        f" {_stimulus_words(summary, 'Whiskers' if _has_interval(rows) else '')}"
        f"{dashes if any(find_score(summary, row['region'], 'ceiling') for row in rows) else ''}"
        f"{_not_drawn([row['region'] for row in known[MAX_REGIONS:]])}"
    )
    alt, data = f"Alignment by region. {said}.", scores_csv(summary, ["r_backbone", "ceiling"])
    return _drawn(summary, "alignment", draw, (_width_in(len(rows)), 3.9), alt, caption, data)


def ceiling_figure(summary: Mapping[str, Any]) -> Figure | None:
    """r of all voxels together, its noise ceiling and their ratio beside each other; None without repeats."""
    known = [name for name in regions_of(summary) if find_score(summary, name, "ceiling")]
    if not known:
        return None
    regions = known[:MAX_REGIONS]
    names = {"r_together": "r of all voxels together", "ceiling": "ceiling", "r_over_ceiling": "r / ceiling"}

    def rows_of(metric: str) -> list[Mapping[str, Any]]:
        rows: list[Mapping[str, Any]] = [find_score(summary, name, metric) or {"region": name} for name in regions]
        if metric != "ceiling":
            return rows
        counts = ("region", "n_voxels", "n_subjects")
        return [{**{k: r[k] for k in counts}, "ceiling": r.get("after", r.get("before"))} for r in rows]

    def draw(figure: Any) -> list[Mark]:
        panels = figure.subplots(1, 3, sharex=True)
        marks = []
        for axes, (metric, label) in zip(panels, names.items(), strict=True):
            marks += _grouped_bars(axes, rows_of(metric), label)
            axes.set_title(_title(summary, label) if metric == "r_together" else label)
            axes.set_xticks(range(len(regions)), [_spaced(name) for name in regions], rotation=90)
        panels[0].sharey(panels[1])  # both are r
        figure.legend(handles=_stage_handles(panels[0]), loc="outside upper right", ncols=2)
        return marks

    said = "; ".join(f"{name}: {_value(find_score(summary, name, 'ceiling')):.3f}" for name in regions)
    intervals = "Whiskers, where a number has them" if any(_has_interval(rows_of(name)) for name in names) else ""
    caption = (
        f"Ratio r / ceiling: {summary['formulas']['r_over_ceiling']}. {_stimulus_words(summary, intervals)}"
        f"{_not_drawn(known[MAX_REGIONS:])}"
    )
    alt = f"Raw alignment, noise ceiling and ratio. Ceilings: {said}."
    return _drawn(summary, "ceilings", draw, (11, 4.2), alt, caption, scores_csv(summary, list(names)))


def partition_figure(summary: Mapping[str, Any]) -> Figure | None:
    """Unique and shared explained variance as stacked bars, before beside after; None without other bands."""
    found = {row["metric"].removeprefix("partition_") for row in summary["scores"]}
    parts = [part for part in map(part_name, subsets(bands_of(summary))) if part in found]
    colours, hatches = part_colours(parts), part_hatches(parts)
    known = [name for name in regions_of(summary) if parts and find_score(summary, name, f"partition_{parts[0]}")]
    if not known:
        return None
    regions = known[:MAX_STACKS]
    rows = {(name, part): find_score(summary, name, f"partition_{part}") or {} for name in regions for part in parts}
    stages = [stage for stage in STAGES if stage in summary["stages"]]
    sides = list(zip((-0.2, 0.2) if len(stages) == 2 else (0.0,), stages, strict=True))

    def draw(figure: Any) -> list[Mark]:
        axes = figure.add_subplot()
        own = [{part: rows[region, part] for part in parts} for region in regions]
        stacks = [(k + side, own[k], stage) for k in range(len(regions)) for side, stage in sides]
        marks = _stacks(axes, stacks, colours, hatches)
        places = [k + side for k in range(len(regions)) for side, _ in sides]
        axes.set_xticks(places, [stage for _, stage in sides] * len(regions), fontsize=7.5, color=FAINT)
        axes.axhline(0, color=FAINT, linewidth=0.8)
        for k, region in enumerate(regions):
            below: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            axes.annotate(_wrap(region), (k, 0), (0, -20), va="top", ha="center", **below)
        axes.set_ylabel("R² of the joint model")
        axes.set_title(_title(summary, "What explains the responses"))
        handles = [_patch(colours[part], part_label(part), hatches[part]) for part in reversed(parts)]
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=1 + len(handles) // 16)
        return marks

    first = regions[min(1, len(regions) - 1)]
    said = "; ".join(f"{part_label(part)} {_pair(rows[first, part])}" for part in parts)
    with_intervals = _has_interval(rows.values())
    sure = "" if with_intervals else " The parts are point values without intervals."
    where = "In the table below" if with_intervals else ""
    caption = (
        f"Parts: {summary['formulas']['partition']}. {_stimulus_words(summary, where)}{sure}"
        f"{_not_drawn(known[MAX_STACKS:])}"
    )
    alt = f"Variance partition by region. In {first}: {said}."
    data = scores_csv(summary, ["partition_"])
    return _drawn(summary, "partition", draw, (_width_in(len(regions)) + 1.6, 4.3), alt, caption, data)


def layer_figure(summary: Mapping[str, Any]) -> Figure | None:
    """Alignment of each layer alone, before and after; None with fewer than two layers."""
    layers = sorted({row["layer"] for row in summary["scores"] if row["metric"] == "r_backbone"})
    regions = _panel_regions(summary)
    if len(layers) < 2 or not regions:
        return None

    everything = {
        (region, k): find_score(summary, region, "r_backbone", layer=k) or {} for region in regions for k in layers
    }

    def draw(figure: Any) -> list[Mark]:
        panels = figure.subplots(1, len(regions), sharey=True, squeeze=False)[0]
        marks = []
        for axes, region in zip(panels, regions, strict=True):
            for stage, mark in zip(STAGES, MARKS, strict=False):
                points = [(k, row[stage]) for k in layers if stage in (row := everything[region, k])]
                _line(axes, points, STAGE_COLOURS[stage], mark, stage)
                marks += [
                    point(
                        axes,
                        *(k, score["value"], f"{_spaced(region)}, layer {k}, {stage} tuning"),
                        *(score_in_words("r", score), counts_in_words(everything[region, k])),
                    )
                    for k, score in points
                    if score["value"] is not None
                ]
            axes.set_title(_spaced(region))
            axes.set_xlabel("layer (0 = input)")
            axes.xaxis.get_major_locator().set_params(integer=True)
        panels[0].set_ylabel("held-out correlation r")
        panels[0].legend(loc="best")
        return marks

    focus = summary["headline_region"]
    said = "; ".join(f"layer {k} {_pair(find_score(summary, focus, 'r_backbone', layer=k) or {})}" for k in layers)
    caption = (
        f"Each layer alone: {summary['formulas']['r_backbone']}."
        f" {_stimulus_words(summary, 'Bands' if _has_interval(everything.values()) else '')}"
        f"{_not_drawn(_aligned(summary)[MAX_PANELS:])}"
    )
    alt, data = f"Alignment by layer, {focus}: {said}.", scores_csv(summary, ["r_backbone"], all_layers=True)
    return _drawn(summary, "layers", draw, (2.7 * len(regions) + 1.2, 3.5), alt, caption, data)


def layer_epochs_figure(summary: Mapping[str, Any], regions: Sequence[str]) -> Figure | None:
    """Alignment of layers (up) over epochs (to the right), a panel per region; None below FEWEST_EPOCHS epochs."""
    rows = summary.get("layer_epochs", [])
    epochs, layers = sorted({row["epoch"] for row in rows}), sorted({row["layer"] for row in rows})
    known = [name for name in regions if any(row["region"] == name for row in rows)]
    shown = known[:MAX_PANELS]
    if len(epochs) < FEWEST_EPOCHS or len(layers) < 2 or not shown:
        return None
    tables = {region: np.full((len(layers), len(epochs)), np.nan) for region in shown}
    for row in rows:
        if row["region"] in tables and row["r"] is not None:
            tables[row["region"]][layers.index(row["layer"]), epochs.index(row["epoch"])] = row["r"]
    top = float(np.nanmax([np.nanmax(np.abs(table)) for table in tables.values()])) or 1.0

    def draw(figure: Any) -> list[Mark]:
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        marks = []
        for axes, (region, table) in zip(panels, tables.items(), strict=True):
            image = axes.imshow(table, origin="lower", aspect="auto", cmap=colour_map(DIVERGING), vmin=-top, vmax=top)
            axes.set_title(_spaced(region))
            axes.set_xticks(range(len(epochs)), [str(epoch) for epoch in epochs])
            axes.set_yticks(range(len(layers)), [str(layer) for layer in layers])
            axes.set_xlabel("epochs trained")
            axes.grid(visible=False)
            marks += [
                Mark(
                    axes,
                    *((column - 0.5, column + 0.5), (line - 0.5, line + 0.5)),
                    *(f"{_spaced(region)}, layer {layers[line]}, {count_said(epochs[column], 'epoch')}", f"r {r:.3f}"),
                )
                for (line, column), r in np.ndenumerate(table)
                if np.isfinite(r)
            ]
        panels[0].set_ylabel("layer (0 = input)")
        bar = figure.colorbar(image, ax=list(panels), label="held-out correlation r")
        bar.outline.set_visible(False)
        bar.solids.set_rasterized(True)  # colours of values stay as they are on a dark page
        return marks

    first, table = next(iter(tables.items()))
    best = [layers[int(np.nanargmax(table[:, k]))] for k in range(len(epochs))]
    said = ", ".join(f"epoch {epoch}: layer {layer}" for epoch, layer in zip(epochs, best, strict=True))
    alt = f"Alignment of each layer over epochs. Best layer in {first}: {said}."
    caption = (
        "Each layer alone, mean over subjects, on the scored stories. The palest colour is 0; grey: no number."
        f"{_not_drawn(known[MAX_PANELS:])}"
    )
    data = csv_text(("epoch", "layer", "region", "r"), rows)
    return _drawn(summary, "layer_epochs", draw, (2.6 * len(shown) + 1.6, 3.6), alt, caption, data)


def learning_figure(summary: Mapping[str, Any], metrics: Mapping[str, Sequence[tuple[float, float]]]) -> Figure | None:
    """Training and validation loss by step, and alignment at the probed epochs; None where neither is known."""
    losses = {name: metrics[name] for name in LOSS_LOOKS if metrics.get(name)}
    probes = [row for row in summary["learning"] if row["metric"] == "r_backbone"]
    several = len({row["epoch"] for row in probes}) > 1
    if not losses and not several:
        return None

    def draw(figure: Any) -> list[Mark]:
        panels = list(figure.subplots(1, bool(losses) + several, squeeze=False)[0])
        marks = []
        if losses:
            axes = panels.pop(0)
            for name, points in losses.items():
                colour, line = LOSS_LOOKS[name]
                marker = "o" if len(points) < 3 else None
                axes.plot(*zip(*points, strict=True), color=colour, linestyle=line, label=name, marker=marker)
                marks += [point(axes, x, y, f"{name}, step {x:g}", f"{y:.4g}") for x, y in thinned(points)]
            axes.set(xlabel="optimiser step", ylabel="loss", title=_title(summary, "Loss"))
            axes.legend()
        if several:
            axes = panels.pop(0)
            for region, (colour, mark) in region_looks(_panel_regions(summary)).items():
                rises = [(row["epoch"], row) for row in probes if row["region"] == region]
                _line(axes, rises, colour, mark, _spaced(region))
                marks += [
                    point(
                        axes,
                        *(epoch, row["value"], f"{_spaced(region)}, {count_said(epoch, 'epoch')}"),
                        *(score_in_words("r", row), counts_in_words(row)),
                    )
                    for epoch, row in rises
                    if row["value"] is not None
                ]
            axes.set(xlabel="epochs trained", ylabel="held-out correlation r", title="Alignment")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return marks

    ends = "; ".join(f"{name} from {points[0][1]:.4g} to {points[-1][1]:.4g}" for name, points in losses.items())
    bands = "Bands" if _has_interval([{"r": row} for row in probes]) else ""
    caption = "Losses as logged (metrics.csv)."
    if several:
        caption += (
            f" Alignment: as above, at each probed epoch. {_stimulus_words(summary, bands)}"
            f"{_not_drawn(_aligned(summary)[MAX_PANELS:])}"
        )
    alt, data = f"Learning curves. {ends}.", learning_csv(summary, losses)
    return _drawn(summary, "learning", draw, (9.6 if losses and several else 6, 3.5), alt, caption, data)


def summary_figures(
    summary: Mapping[str, Any], metrics: Mapping[str, Sequence[tuple[float, float]]]
) -> list[tuple[str, Callable[[], Figure | None]]]:
    """Name and drawing function of each figure, so that a failing one can be left out by itself."""
    return [
        ("alignment", lambda: alignment_figure(summary)),
        ("ceilings", lambda: ceiling_figure(summary)),
        ("partition", lambda: partition_figure(summary)),
        ("layers", lambda: layer_figure(summary)),
        ("layer_epochs", lambda: layer_epochs_figure(summary, _aligned(summary))),
        ("learning", lambda: learning_figure(summary, metrics)),
    ]


def _drawn(
    summary: Mapping[str, Any],
    name: str,
    draw: Callable[[Any], list[Mark]],
    size_in: tuple[float, float],
    alt: str,
    caption: str,
    csv: str,
) -> Figure:
    """The figure, which says of what kind the listeners are."""
    simulated = bool(summary["run"].get("simulated"))
    return draw_figure(name, draw, size_in, alt, caption, simulated=simulated, csv=csv)


def _panel_regions(summary: Mapping[str, Any]) -> list[str]:
    """The few regions that curves are drawn for."""
    return _aligned(summary)[:MAX_PANELS]


def _aligned(summary: Mapping[str, Any]) -> list[str]:
    """The regions with an alignment, that of the headline first."""
    named = [name for name in regions_of(summary) if find_score(summary, name, "r_backbone")]
    return sorted(named, key=lambda name: name != summary["headline_region"])


def _not_drawn(regions: Sequence[str]) -> str:
    """The regions for which there is no room, by name."""
    return f" Not drawn, and in the CSV: {', '.join(map(_spaced, regions))}." if regions else ""


def _has_interval(rows: Iterable[Mapping[str, Any]]) -> bool:
    return any(isinstance(part, Mapping) and part.get("low") is not None for row in rows for part in row.values())


def _grouped_bars(axes: Any, rows: Sequence[Mapping[str, Any]], name: str) -> list[Mark]:
    """One group per row, one bar per stage that the row has, whiskers where it has an interval."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.8, foreground=PAPER)]  # a whisker is seen before a bar as light or dark as itself
    stages = [name for name in (*STAGES, "ceiling") if any(name in row for row in rows)]
    width = 0.76 / max(len(stages), 1)
    marks = []
    for s, stage in enumerate(stages):
        offset = (s - (len(stages) - 1) / 2) * width
        found = [(k + offset, row, row.get(stage)) for k, row in enumerate(rows)]
        known = [(x, row, score) for x, row, score in found if score and score["value"] is not None]
        places, values = [x for x, *_ in known], [score["value"] for *_, score in known]
        axes.bar(places, values, width * 0.94, color=_BAR_COLOURS[stage])
        for x, row, score in known:
            what = _spaced(row["region"]) + ("" if stage == "ceiling" else f", {stage} tuning")
            ends_x, ends_y = (x - width / 2, x + width / 2), (0.0, score["value"])
            marks.append(Mark(axes, ends_x, ends_y, what, score_in_words(name, score), counts_in_words(row)))
        sure = [(x, score["low"], score["high"]) for x, _, score in known if score["low"] is not None]
        if sure:
            at, low, high = zip(*sure, strict=True)
            ends: Any = {"solid_capstyle": "butt", "path_effects": halo}
            axes.plot([at, at], [low, high], color=INK, linewidth=1.3, **ends)
    axes.set_xticks(range(len(rows)), [_wrap(row["region"]) for row in rows])
    axes.axhline(0, color=FAINT, linewidth=0.8)
    axes.grid(axis="x", visible=False)
    return marks


def _stacks(
    axes: Any,
    stacks: Sequence[tuple[float, Mapping[str, Mapping[str, Any]], str]],
    colours: Mapping[str, str],
    hatches: Mapping[str, str],
) -> list[Mark]:
    """At each x the parts of one stage: positive ones upwards from 0, negative ones downwards, so that none hides."""
    bars: dict[str, list[tuple[float, float, float]]] = {}
    marks = []
    for x, rows, stage in stacks:
        up = down = 0.0
        for part, row in rows.items():
            value = stage_value(row, stage)
            if value is None:
                continue
            bottom = up if value >= 0 else down
            bars.setdefault(part, []).append((x, value, bottom))
            what, words = (
                f"{_spaced(row['region'])}, {stage} tuning, {part_label(part)}",
                score_in_words("R²", row[stage], ".4f"),
            )
            marks.append(Mark(axes, (x - 0.18, x + 0.18), (bottom, bottom + value), what, words, counts_in_words(row)))
            up, down = up + max(value, 0.0), down + min(value, 0.0)
    for part, found in bars.items():  # all bars of a part at once, which takes a third of the time
        x_all, values, bottoms = zip(*found, strict=True)
        look: Any = {"color": colours[part], "hatch": hatches[part], "edgecolor": PAPER, "linewidth": 0.5}
        axes.bar(x_all, values, 0.36, bottom=bottoms, **look)
    return marks


def _line(axes: Any, points: Sequence[tuple[float, Mapping[str, Any]]], colour: str, mark: str, label: str) -> None:
    points = [(x, score) for x, score in points if score["value"] is not None]
    if not points:
        return
    axes.plot([x for x, _ in points], [s["value"] for _, s in points], color=colour, marker=mark, ms=4.5, label=label)
    if all(score["low"] is not None for _, score in points):
        bounds = [[s[side] for _, s in points] for side in ("low", "high")]
        axes.fill_between([x for x, _ in points], *bounds, color=colour, alpha=0.18, linewidth=0)


def _legend_above(axes: Any) -> None:
    at: Any = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.2}
    axes.legend(handles=_stage_handles(axes), ncols=2, **at)


def _stage_handles(axes: Any) -> list[Any]:
    """Of the stages that bars are drawn of."""
    from matplotlib.colors import to_rgba

    drawn = {bar.get_facecolor() for bar in axes.patches}
    colours = {stage: STAGE_COLOURS[stage] for stage in STAGES if to_rgba(STAGE_COLOURS[stage]) in drawn}
    return [_patch(colour, f"{stage} tuning") for stage, colour in colours.items()]


def _patch(colour: str, label: str, hatch: str = "") -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, edgecolor=PAPER, linewidth=0, hatch=hatch, label=label)


def _value(row: Mapping[str, Any] | None) -> float:
    value = stage_value(row, "after" if row and "after" in row else "before")
    return float("nan") if value is None else value


def _pair(row: Mapping[str, Any] | None) -> str:
    known = [(stage, stage_value(row, stage)) for stage in STAGES]
    return ", ".join(f"{stage} {value:.3f}" for stage, value in known if value is not None) or "not defined"


def _width_in(n_regions: int) -> float:
    """Wide enough for the names, narrow enough for a page."""
    return min(max(6.4, 1.1 * n_regions + 2.0), 11.0)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _wrap(name: str) -> str:
    words = _spaced(name)
    return words.replace(" ", "\n", 1) if len(words) > 10 else words


def _title(summary: Mapping[str, Any], text: str) -> str:
    return f"{text} (permuted control)" if summary["run"].get("control") else text


def _stimulus_words(summary: Mapping[str, Any], intervals: str) -> str:
    """What was scored; where intervals are shown, if they are, and how they came about."""
    probe = summary["probe"]
    stories = probe.get("score_stories", [])
    boot = probe.get("bootstrap", {})
    said = f"{probe.get('n_score_trs')} TRs of {count_said(len(stories), 'held-out story', 'held-out stories')}."
    if intervals:
        said += (
            f" {intervals}: 95 % interval, block bootstrap over {boot.get('block_trs')}-TR blocks or longer within"
            f" stories, {boot.get('n_bootstraps')} draws."
        )
    return said
