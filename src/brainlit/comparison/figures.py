"""Small multiples of a comparison: regimes beside each other, models beside each other, every seed a dot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from brainlit.comparison.effects import (
    ALIGNMENT,
    AUDITORY,
    PRETRAINED,
    REGION,
    WORDS,
    Evidence,
    Key,
    SeedEvidence,
    mean_over_seeds,
)
from brainlit.comparison.evidence import CKA
from brainlit.downstream.representation import Separation, WordMap
from brainlit.encoding.arrays import FloatArray
from brainlit.encoding.statistics import Score
from brainlit.results.figure_data import csv_text
from brainlit.results.marks import Mark, point, score_in_words
from brainlit.results.scores import FORMULAS
from brainlit.results.style import (
    CATEGORY_COLOURS,
    FAINT,
    INK,
    OTHER_REGIME,
    PAPER,
    REGIME_COLOURS,
    REGIME_MARKS,
    STAGE_COLOURS,
    Figure,
    draw_figure,
)

PANELS_ACROSS = 4
MAX_TASK_PANELS = 24
LEAST_SCORE_SPAN, LEGEND_COLUMN_IN = 0.2, 1.6
LABEL_SHARE = 0.07
"""Height of a line's name, as a share of the panel's."""
CONTROL_LINES = {"majority": "commonest label", "random_features": "random features", "transcript": "transcript"}
PREFERENCE_PANELS = {
    "semantic": "meaning: semantic - random",
    "phonetic": "sound: near-homophone - random",
    "difference": "semantic - near-homophone",
}
HOW_WIDE = "over seeds, joined with that over held-out time and subjects where seeds share them"
Panel = tuple[str, Key]
CATEGORY_MARKS = ("o", "s", "^", "D", "v", "P", "X", "h")
MAX_NAMED_WORDS = 24
NAME_SIZE = np.asarray((0.16, 0.04))
"""Width and height of a category's name, as a share of the map's."""


def comparison_figures(evidence: Evidence) -> list[Figure]:
    """The figures for which there are numbers: alignment, low level, downstream, preference, layers, CKA, word maps."""
    drawn: list[Figure | None] = [
        alignment_figure(evidence),
        low_level_figure(evidence),
        downstream_figure(evidence),
        preference_figure(evidence),
        layers_figure(evidence),
        cka_figure(evidence),
    ]
    names = ["word-map"] if len(evidence.maps) == 1 else [f"word-map-{k + 1}" for k in range(len(evidence.maps))]
    for name, (model, words) in zip(names, evidence.maps.items(), strict=True):
        figure = word_map_figure(words, name, simulated=evidence.simulated)
        caption = f"{figure.caption} {model}, first seed, brain-tuned."
        drawn.append(replace(figure, alt=f"{figure.alt} {model}.", caption=caption))
    return [figure for figure in drawn if figure is not None]


def alignment_figure(evidence: Evidence) -> Figure | None:
    """Alignment before and after, by regime, in the compared region and in auditory voxels."""
    formula = f"Alignment r: {FORMULAS[ALIGNMENT]}"
    return _regimes_figure(evidence, "alignment", _alignment_panels(evidence), "held-out correlation r", formula)


def _alignment_panels(evidence: Evidence) -> list[Panel]:
    panels = [(evidence.place, Key(ALIGNMENT, REGION))]
    return panels if evidence.region == AUDITORY else [*panels, ("auditory voxels", Key(ALIGNMENT, AUDITORY))]


def low_level_figure(evidence: Evidence) -> Figure | None:
    """Low-level share, low-level impact and what is the model's own."""
    panels = [
        ("low-level share", Key("low_level_share", REGION)),
        ("low-level impact (%)", Key("impact_banded_ridge", REGION)),
        ("R² that no other band has", Key("partition_backbone", REGION)),
    ]
    formula = (
        f"In {evidence.place}. Share: {FORMULAS['low_level_share']}. Impact: {FORMULAS['impact_residual_lag0']},"
        f" here {FORMULAS['impact_banded_ridge']}. R² that no other band has: unique part, {FORMULAS['partition']}"
    )
    return _regimes_figure(evidence, "low_level", panels, "", formula)


def downstream_figure(evidence: Evidence) -> Figure | None:
    """Score of each task and part, with its controls as lines."""
    panels = [
        (f"{task.removeprefix('demo/')}\n{part.removeprefix('test_')}".replace("_", " "), Key(task, part))
        for task, part in evidence.tasks[:MAX_TASK_PANELS]
    ]
    formula = (
        "Score of a linear probe on frozen features, at the layer that was best on the choosing clips (accuracy, or"
        " macro-F1 of phones). Dashed: the same probe and clips with the commonest label, with random features, and"
        " with the words of the transcript instead of sound"
    )
    return _regimes_figure(evidence, "downstream", panels, "score", formula)


def preference_figure(evidence: Evidence) -> Figure | None:
    """Cosines of semantic pairs and of near-homophones per layer, before and after."""
    panels = [(name, Key(what, WORDS)) for what, name in PREFERENCE_PANELS.items()]
    formula = "Mean cosine of word pairs less that of random pairs, mean over words taken off first"
    return _layers_figure(evidence, "preference", panels, "difference of cosines", formula)


def layers_figure(evidence: Evidence) -> Figure | None:
    """Alignment of each layer alone, by regime."""
    return _layers_figure(
        evidence, "layers", _alignment_panels(evidence), "held-out correlation r", f"Alignment r: {FORMULAS[ALIGNMENT]}"
    )


def cka_figure(evidence: Evidence) -> Figure | None:
    """How like its start each layer still is."""
    formula = "Debiased linear CKA of word means (mean over the tokens of a word) with those of the same layer before"
    panels = [("likeness to the model before tuning", Key(CKA, WORDS))]
    return _layers_figure(evidence, "cka", panels, "CKA", formula)


def _regimes_figure(evidence: Evidence, name: str, panels: Sequence[Panel], label: str, formula: str) -> Figure | None:
    """A panel per number; models to the right, in each its regimes. None without a number."""
    panels = [panel for panel in panels if any(_values(evidence.seeds, r, panel[1]) for r in evidence.regimes)]
    if not panels:
        return None
    across = min(len(panels), PANELS_ACROSS)
    down = -(-len(panels) // across)
    width = max(2.4, 0.3 * len(evidence.models) * len(evidence.regimes) + 1.0)
    is_one_number = len({key.what for _, key in panels}) == 1

    def draw(figure: Any) -> list[Mark]:
        grid = figure.subplots(down, across, squeeze=False, sharey=is_one_number)
        marks = []
        for axes, (title, key) in zip(grid.flat, panels, strict=False):
            marks += _draw_regimes(axes, evidence, key, " ".join(title.split()))
            axes.set_title(title, fontsize=10)
            _draw_controls(axes, evidence, key)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        grid[0][0].set_ylabel(label)
        _legend(figure, evidence)
        return marks

    said = "; ".join(f"{' '.join(title.split())}: {_regimes_said(evidence, key)}" for title, key in panels)
    size_in, caption = (min(width * across, 13.0), 2.7 * down + 0.5), f"{formula}. {_dots(evidence)}"
    numbers = panels_csv(evidence, panels)
    return draw_figure(name, draw, size_in, f"{said}.", caption, simulated=evidence.simulated, csv=numbers)


def _layers_figure(evidence: Evidence, name: str, panels: Sequence[Panel], label: str, formula: str) -> Figure | None:
    """A row per model, a panel per number, a line per regime over layers. None with fewer than two layers."""
    rows = {
        model: [panel for panel in panels if len(_layers_of(evidence.of(model), panel[1])) > 1]
        for model in evidence.models
    }
    rows = {model: own for model, own in rows.items() if own}
    if not rows:
        return None
    across = max(len(own) for own in rows.values())

    def draw(figure: Any) -> list[Mark]:
        grid = figure.subplots(len(rows), across, squeeze=False)
        marks = []
        for line, (model, own) in zip(grid, rows.items(), strict=True):
            for axes, (title, key) in zip(line, own, strict=False):
                marks += _draw_layers(axes, evidence, model, key, title)
                axes.set_title(f"{model}\n{title}" if len(rows) > 1 else title, fontsize=10)
            for axes in line[len(own) :]:
                axes.set_visible(False)
            line[0].set_ylabel(label)
        for axes in grid[-1]:
            axes.set_xlabel("layer (0 = input)")
        _legend(figure, evidence)
        return marks

    said = "; ".join(
        f"{model}, {title}, last layer: {_last_layer_said(evidence, model, key)}"
        for model, own in rows.items()
        for title, key in own
    )
    caption = (
        f"{formula}. Each layer by itself. Lines: means over seeds; bands: their 95 % intervals, {HOW_WIDE} (none for"
        " one seed)."
    )
    size_in, numbers = (3.6 * across + 0.4, 2.8 * len(rows) + 0.6), panels_csv(evidence, panels, by_layer=True)
    return draw_figure(name, draw, size_in, f"{said}.", caption, simulated=evidence.simulated, csv=numbers)


def panels_csv(evidence: Evidence, panels: Sequence[Panel], *, by_layer: bool = False) -> str:
    """The numbers of panels: a row for each seed, and one without a seed for their mean with its interval."""
    columns = ("model", "what", "layer", "regime", "seed", "value", "low", "high")
    return csv_text(columns, _panel_rows(evidence, panels, by_layer))


def _panel_rows(evidence: Evidence, panels: Sequence[Panel], by_layer: bool) -> Iterator[dict[str, Any]]:
    for model in evidence.models:
        seeds = evidence.of(model)
        for title, key in panels:
            for layer in _layers_of(seeds, key) if by_layer else [key.layer]:
                at = key._replace(layer=layer)
                for regime in evidence.regimes:
                    where = {"model": model, "what": " ".join(title.split()), "layer": layer, "regime": regime}
                    known = {seed.seed: one for seed in seeds if (one := seed.value(regime, at)) is not None}
                    yield from ({**where, "seed": seed, **one.json()} for seed, one in known.items())
                    if known:
                        yield {**where, **_mean(seeds, regime, at, list(known.values())).json()}


def _draw_regimes(axes: Any, evidence: Evidence, key: Key, title: str) -> list[Mark]:
    models, regimes = evidence.models, evidence.regimes
    marks = []
    step = 0.8 / len(regimes)
    for m, model in enumerate(models):
        places = {regime: m + (k - (len(regimes) - 1) / 2) * step for k, regime in enumerate(regimes)}
        for seed in evidence.of(model):  # a thin line through the numbers of one seed: they are paired
            points = [(x, one.value) for regime, x in places.items() if (one := seed.value(regime, key)) is not None]
            axes.plot(
                [x for x, _ in points], [y for _, y in points], color=STAGE_COLOURS["before"], linewidth=0.7, zorder=1
            )
        for regime, x in places.items():
            values = _values(evidence.of(model), regime, key)
            if not values:
                continue
            mean, (colour, mark) = _mean(evidence.of(model), regime, key, values), regime_look(regime)
            what = f"{title}: {model}, {regime_said(regime)}"
            marks.append(_mark(axes, x, mean, what, len(values)))
            if len(values) > 1:
                each = ((seed.seed, seed.value(regime, key)) for seed in evidence.of(model))
                marks += [
                    point(axes, x, one.value, what, score_in_words("", one.json()), f"seed {name}")
                    for name, one in each
                    if one is not None
                ]
            look: Any = {"s": 20, "color": colour, "marker": mark, "edgecolors": PAPER, "linewidths": 0.4, "zorder": 3}
            axes.scatter([x] * len(values), [one.value for one in values], **look)
            axes.plot([x - step / 3, x + step / 3], [mean.value] * 2, color=colour, linewidth=2.2)
            if mean.interval is not None:
                axes.plot([x, x], mean.interval, color=colour, linewidth=1.4, solid_capstyle="butt")
    axes.set_xlim(-0.5, len(models) - 0.5)
    axes.set_xticks(range(len(models)), [model.replace(" (", "\n(") for model in models], fontsize=8.5)
    return marks


def _mark(axes: Any, x: float, mean: Score, what: str, n_seeds: int) -> Mark:
    """Of a mean over seeds, or of the only one."""
    seeds = f"mean of {n_seeds} seeds" if n_seeds > 1 else "1 seed: its own interval"
    return point(axes, x, mean.value, what, score_in_words("", mean.json()), seeds)


def _draw_controls(axes: Any, evidence: Evidence, key: Key) -> None:
    """Lines at the controls' scores with their names; a span of y that makes no mountains of clips."""
    controls = evidence.controls.get((key.what, key.where))
    if controls is None:
        return
    lines = sorted((controls[name], words) for name, words in CONTROL_LINES.items() if name in controls)
    for value, _ in lines:
        axes.axhline(value, color=FAINT, linewidth=1.0, linestyle=(0, (4, 2)))
    low, high = axes.get_ylim()
    missing = max(0.0, LEAST_SCORE_SPAN - (high - low)) / 2
    axes.set_ylim(low - missing, high + missing)
    at: Any = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom"}
    for value, words in _names_apart(lines, LABEL_SHARE * (high - low + 2 * missing)):
        axes.text(1.0, value, words, fontsize=7, color=FAINT, **at)


def _names_apart(lines: Sequence[tuple[float, str]], room: float) -> list[tuple[float, str]]:
    """Names of lines from the lowest up; those too near to the one below share its place above both.

    >>> _names_apart([(0.10, "one"), (0.12, "two"), (0.9, "three")], 0.05)
    [(0.12, 'one, two'), (0.9, 'three')]
    """
    named: list[tuple[float, str]] = []
    for value, words in lines:
        if named and value - named[-1][0] < room:
            named[-1] = (value, f"{named[-1][1]}, {words}")
        else:
            named.append((value, words))
    return named


def _draw_layers(axes: Any, evidence: Evidence, model: str, key: Key, title: str) -> list[Mark]:
    marks = []
    for regime in evidence.regimes:
        found = {
            layer: values
            for layer in _layers_of(evidence.of(model), key)
            if (values := _values(evidence.of(model), regime, key._replace(layer=layer)))
        }
        if not found:
            continue
        means = (mean_over_seeds(evidence.of(model), key._replace(layer=layer), regime) for layer in found)
        ends = [mean for mean in means if mean is not None]
        where = f"{title}: {model}, {regime_said(regime)}"
        marks += [
            _mark(axes, layer, mean, f"{where}, layer {layer}", len(found[layer]))
            for layer, mean in zip(found, ends, strict=True)
        ]
        colour, mark = regime_look(regime)
        axes.plot(list(found), [mean.value for mean in ends], color=colour, marker=mark, ms=4.5)
        if all(mean.interval is not None for mean in ends):
            bounds = [mean.low for mean in ends], [mean.high for mean in ends]
            axes.fill_between(list(found), *bounds, color=colour, alpha=0.15, linewidth=0)
    axes.set_xticks(_layers_of(evidence.of(model), key))
    return marks


def _legend(figure: Any, evidence: Evidence) -> None:
    from matplotlib.lines import Line2D

    looks = {regime: regime_look(regime) for regime in evidence.regimes}
    handles = [Line2D([], [], color=colour, marker=m, label=regime_said(r)) for r, (colour, m) in looks.items()]
    ncols = max(1, min(len(handles), int(figure.get_size_inches()[0] / LEGEND_COLUMN_IN)))
    figure.legend(handles=handles, loc="outside upper left", ncols=ncols)


def _values(seeds: Iterable[SeedEvidence], regime: str, key: Key) -> list[Score]:
    return [one for seed in seeds if (one := seed.value(regime, key)) is not None]


def _mean(seeds: Sequence[SeedEvidence], regime: str, key: Key, values: Sequence[Score]) -> Score:
    """Mean and interval as claims have them; of one seed its own."""
    return values[0] if len(values) == 1 else mean_over_seeds(seeds, key, regime) or values[0]


def _layers_of(seeds: Iterable[SeedEvidence], key: Key) -> list[int]:
    return sorted({layer for seed in seeds for layer in seed.layers(key.what, key.where)})


def regime_look(regime: str) -> tuple[str, str]:
    """Colour and mark of a regime."""
    return REGIME_COLOURS.get(regime, OTHER_REGIME), REGIME_MARKS.get(regime, "P")


def regime_said(regime: str) -> str:
    """A regime in words."""
    return "before tuning" if regime == PRETRAINED else regime.replace("_", " ")


def _regimes_said(evidence: Evidence, key: Key) -> str:
    """Means of all models and regimes, for those who cannot see the figure."""
    parts = []
    for model in evidence.models:
        found = [(regime, _values(evidence.of(model), regime, key)) for regime in evidence.regimes]
        means = ", ".join(f"{regime_said(r)} {_average(values):.3f}" for r, values in found if values)
        parts += [f"{model} {means}"] if means else []
    return "; ".join(parts)


def _last_layer_said(evidence: Evidence, model: str, key: Key) -> str:
    seeds = evidence.of(model)
    last = key._replace(layer=_layers_of(seeds, key)[-1])
    found = [(regime, _values(seeds, regime, last)) for regime in evidence.regimes]
    return ", ".join(f"{regime_said(r)} {_average(values):.3f}" for r, values in found if values)


def _average(values: Sequence[Score]) -> float:
    return float(np.mean([one.value for one in values]))


def _dots(evidence: Evidence) -> str:
    counts = ", ".join(f"{model} {len(evidence.of(model))}" for model in evidence.models)
    return (
        f"Dots: seeds (n: {counts}), permutations averaged, joined where they are one seed's; bars: mean and 95 %"
        f" interval, {HOW_WIDE}, or with one seed its own interval."
    )


# --- Words in the plane ---


def word_map_figure(words: WordMap, name: str = "word-map", *, simulated: bool = False) -> Figure:
    """Two panels, before and after; a colour and a mark per category, its name at the middle of its words.

    Categories beyond the eighth repeat colours with other marks. Words are named too where they are few.
    """
    kinds = sorted(set(words.categories))
    sides = (("before", words.before, words.separation[0]), ("after", words.after, words.separation[1]))

    def draw(figure: Any) -> list[Mark]:
        panels = figure.subplots(1, 2)
        marks = []
        for axes, (stage, places, apart), share in zip(panels, sides, words.explained, strict=True):
            _draw_words(axes, words, kinds, places)
            named = zip(words.words, words.categories, places.tolist(), strict=True)
            marks += [point(axes, x, y, f"{word}, {stage}", kind) for word, kind, (x, y) in named]
            axes.set_title(f"{stage}: {_accuracy_said(apart)}")
            shown = f"; the plane holds {100 * share:.0f} % of the variance" if np.isfinite(share) else ""
            axes.set_xlabel(f"{_axes_name(words)}{shown}", color=FAINT, fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=min(len(kinds), 8))
        return marks

    said = "; ".join(
        f"{stage} {_accuracy_said(apart)} (chance {100 * apart.chance:.0f} %), silhouette {apart.silhouette:.3f}"
        for stage, _, apart in sides
    )
    alt = f"Map of {len(words.words)} words of {len(kinds)} categories ({', '.join(kinds)}): {said}."
    return draw_figure(name, draw, (10.4, 5.2), alt, _word_map_caption(words), simulated=simulated)


def _draw_words(axes: Any, words: WordMap, kinds: list[str], places: FloatArray) -> None:
    from matplotlib.patheffects import withStroke

    mine_of = np.asarray(words.categories)
    halo = withStroke(linewidth=3, foreground=PAPER)
    bold: Any = {"weight": "bold", "ha": "center", "va": "center", "path_effects": [halo], "zorder": 4}
    middles = np.stack([np.median(places[mine_of == kind], axis=0) for kind in kinds])
    named_at = apart_from_each_other(middles, NAME_SIZE * np.ptp(places, axis=0))
    for k, kind in enumerate(kinds):
        colour = CATEGORY_COLOURS[k % len(CATEGORY_COLOURS)]
        mark = CATEGORY_MARKS[(k + k // len(CATEGORY_COLOURS)) % len(CATEGORY_MARKS)]
        mine = places[mine_of == kind]
        axes.scatter(*mine.T, s=30, color=colour, marker=mark, linewidths=0.4, edgecolors=PAPER, label=kind)
        axes.text(*named_at[k], kind, color=INK, **bold)
    if len(words.words) <= MAX_NAMED_WORDS:
        for word, place in zip(words.words, places, strict=True):
            axes.annotate(word, place, (4, 3), textcoords="offset points", fontsize=7, color=FAINT)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_aspect("equal", adjustable="datalim")


def apart_from_each_other(places: FloatArray, size: FloatArray, n_steps: int = 200) -> FloatArray:
    """Places of names of one size (width, height), moved up and down until none lies on another, if that can be.

    Parameters
    ----------
    places : array of shape (n, 2)
        Middles of the names.
    """
    moved = np.array(places, dtype=np.float64)
    for _ in range(n_steps):
        gaps = moved[:, None] - moved
        on_each_other = (np.abs(gaps) < size).all(axis=2) & ~np.eye(len(moved), dtype=bool)
        if not on_each_other.any():
            break
        # Names at one height have no upper one: the order of their rows decides, so that they part.
        above = np.where(gaps[:, :, 1] == 0, np.tri(len(moved)) - 0.5, gaps[:, :, 1])
        push = np.sign(above) * (1.01 * size[1] - np.abs(gaps[:, :, 1])) / 2
        moved[:, 1] += np.where(on_each_other, push, 0).sum(axis=1) / on_each_other.sum(axis=1).clip(1)
    return moved


def _accuracy_said(apart: Separation) -> str:
    return f"{100 * apart.accuracy:.0f} % of words nearest to their own category"


def _axes_name(words: WordMap) -> str:
    return (
        "first two principal components" if words.method == "pca" else "t-SNE (distances between groups mean nothing)"
    )


def _word_map_caption(words: WordMap) -> str:
    p_before, p_after = (apart.p for apart in words.separation)
    return (
        f"Each mark is a word: the mean over its spoken tokens; {_axes_name(words)}, each stage by its own, the second"
        " turned or mirrored onto the first. In the titles, in all dimensions: share of words whose nearest category"
        " centroid, made without the word itself, is that of their category; chance"
        f" {100 * words.separation[1].chance:.0f} % by permuting categories over words (p before {p_before:.3f}, after"
        f" {p_after:.3f})."
    )
