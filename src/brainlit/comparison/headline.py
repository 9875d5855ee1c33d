"""What a comparison leads with: the effect in a sentence and a figure, before any verdict.

Alignment before tuning, after brain-tuning and after permuted tuning in the compared region, each with its interval
over seeds, what brain-tuning added to either, and, where listeners are simulated, the same change where nothing can
happen. Nothing is judged here: `judged_claims` does that, by rules that were fixed before looking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from brainlit.comparison.claims import BEYOND_PERMUTED, SMALLEST, TUNED
from brainlit.comparison.effects import (
    ALIGNMENT,
    BRAIN,
    NULL,
    PERMUTED,
    PLANTED_NULLS,
    PRETRAINED,
    REGION,
    Evidence,
    Key,
    mean_over_seeds,
)
from brainlit.comparison.figures import panels_csv, regime_look, regime_said
from brainlit.encoding.statistics import Score
from brainlit.results.marks import Mark, point, score_in_words
from brainlit.results.style import FAINT, INK, NO_NUMBER, PAPER, Figure, draw_figure
from brainlit.results.tables import change_in_words, count_said

EFFECT = "effect"
"""Name of the figure."""
SHOWN = (PRETRAINED, BRAIN, PERMUTED)
WORDS = {PRETRAINED: "before tuning", BRAIN: "after brain-tuning", PERMUTED: "after permuted tuning"}
ALIGNED, OWN_PART = Key(ALIGNMENT, REGION), "partition_backbone"
SMALLEST_R = SMALLEST["r"][0]
"""Margin of the planted nulls, of r and of R2 alike."""
WIDTH_IN = 6.6
"""That of a page at reading size, and readable on a phone."""


@dataclass(frozen=True)
class Effect:
    """What one model showed in the compared region; what was not measured is None or absent.

    Parameters
    ----------
    n_seeds : int
        Seeds that have the alignment after brain-tuning, or of any kind where none has that.
    states : mapping of regime to Score
        Alignment r, mean over seeds.
    rise, beyond : Score or None
        After brain-tuning less before, and less after permuted tuning; differences within seeds.
    nulls : mapping of words to Score
        Change of what cannot change: r of null voxels, the model's own part of R2 in the other planted nulls.
    """

    model: str
    n_seeds: int
    states: dict[str, Score]
    rise: Score | None
    beyond: Score | None
    nulls: dict[str, Score]


def effects(evidence: Evidence) -> list[Effect]:
    """The effect of each model that has any alignment in the compared region."""
    found = [_effect(evidence, model) for model in evidence.models]
    return [one for one in found if one.states]


def _effect(evidence: Evidence, model: str) -> Effect:
    seeds = evidence.of(model)
    states = {regime: mean_over_seeds(seeds, ALIGNED, regime) for regime in SHOWN}
    nulls = {}
    if evidence.simulated:
        keys = {f"r, {NULL} voxels": Key(ALIGNMENT, NULL)}
        keys |= {f"own R², {region} voxels": Key(OWN_PART, region) for region in PLANTED_NULLS}
        changes = {words: mean_over_seeds(seeds, k, *TUNED) for words, k in keys.items() if k.where != evidence.region}
        nulls = {words: score for words, score in changes.items() if score is not None}
    counted = BRAIN if states[BRAIN] is not None else next((r for r in SHOWN if states[r] is not None), BRAIN)
    return Effect(
        model,
        sum(bool(seed.values(counted, ALIGNED)) for seed in seeds),
        {regime: score for regime, score in states.items() if score is not None},
        mean_over_seeds(seeds, ALIGNED, *TUNED),
        mean_over_seeds(seeds, ALIGNED, *BEYOND_PERMUTED),
        nulls,
    )


def effect_sentences(evidence: Evidence) -> list[str]:
    """One sentence for each model; nothing where no alignment was measured."""
    return [_sentence(one, evidence.place) for one in effects(evidence)]


def _sentence(one: Effect, place: str) -> str:
    states = [f"{score.value:.3f} {WORDS[regime]}" for regime, score in one.states.items()]
    listed = states[0] if len(states) == 1 else f"{', '.join(states[:-1])} and {states[-1]}"
    said = f"{one.model}, {count_said(one.n_seeds, 'seed')}: alignment r with {place} is {listed}"
    changes = {"over before": one.rise, "over permuted": one.beyond}
    parts = [
        f"{change_in_words(score, ' over seeds')} {words}" for words, score in changes.items() if score is not None
    ]
    if parts:
        said += f": {', '.join(parts)}"
    if one.nulls:
        where, most = max(one.nulls.items(), key=lambda item: abs(item[1].value))
        largest = change_in_words(most, " over seeds")
        said += f"; in planted nulls ({len(one.nulls)}), where nothing can change, the largest change is {largest},"
        said += f" {where}"
    return f"{said}."


# --- The figure ---


def effect_figure(evidence: Evidence) -> Figure | None:
    """For each model r before, after and permuted, every seed a mark; below, what changed beside the planted nulls."""
    found = effects(evidence)
    if not found:
        return None
    heights = [
        h for one in found for h in (0.9 + 0.3 * len(one.states), *([0.9 + 0.3 * _n_rows(one)] * bool(one.nulls)))
    ]

    def draw(figure: Any) -> list[Mark]:
        marks = []
        panels = iter(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
        for one in found:
            marks += _draw_states(next(panels), evidence, one)
            if one.nulls:
                marks += _draw_nulls(next(panels), evidence.place, one)
        return marks

    caption = (
        "Alignment r: mean held-out correlation over voxels, compared layer. Filled marks and bars: mean over seeds and"
        " its 95 % interval; hollow marks: seeds."
    )
    if any(one.nulls for one in found):
        caption += (
            " Own R²: what the model explains and neither low-level nor semantic features do; in planted nulls nothing"
            f" can change. Grey: within ±{SMALLEST_R:g}, the smallest effect of interest."
        )
    alt = " ".join(effect_sentences(evidence))
    numbers = panels_csv(evidence, [(f"r, {evidence.place}", ALIGNED)])
    return draw_figure(EFFECT, draw, (WIDTH_IN, sum(heights)), alt, caption, simulated=evidence.simulated, csv=numbers)


def _n_rows(one: Effect) -> int:
    return len(one.nulls) + (one.rise is not None)


def _draw_states(axes: Any, evidence: Evidence, one: Effect) -> list[Mark]:
    seeds = evidence.of(one.model)
    marks = []
    for y, (regime, mean) in enumerate(one.states.items()):
        colour, mark = regime_look(regime)
        known = {seed.seed: score for seed in seeds if (score := seed.value(regime, ALIGNED)) is not None}
        hollow: Any = {"facecolors": PAPER, "edgecolors": colour, "linewidths": 0.9, "marker": mark}
        axes.scatter([score.value for score in known.values()], [y + 0.32] * len(known), s=14, **hollow)
        marks += [
            point(
                axes,
                score.value,
                y + 0.32,
                f"{one.model}, {WORDS[regime]}",
                score_in_words("r", score.json()),
                f"seed {k}",
            )
            for k, score in known.items()
        ]
        _draw_mean(axes, y, mean, colour, mark, f"{mean.value:.3f}")
        words = score_in_words("r", mean.json()), count_said(len(known), "seed")
        marks.append(point(axes, mean.value, y, f"{one.model}, {WORDS[regime]}", *words))
    _rows(axes, [WORDS.get(regime, regime_said(regime)) for regime in one.states])
    axes.set_title(f"{one.model}, {count_said(one.n_seeds, 'seed')}: {evidence.place}", fontsize=10)
    axes.set_xlabel("held-out correlation r")
    return marks


def _draw_nulls(axes: Any, place: str, one: Effect) -> list[Mark]:
    marks = []
    rows = {f"r, {place}": one.rise} if one.rise is not None else {}
    axes.axvspan(-SMALLEST_R, SMALLEST_R, color=NO_NUMBER, alpha=0.45, linewidth=0)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    for y, (name, score) in enumerate([*rows.items(), *one.nulls.items()]):
        colour, mark = regime_look(BRAIN) if y < len(rows) else (INK, "o")
        _draw_mean(axes, y, score, colour, mark, f"{score.value:+.3f}")
        words = score_in_words("", score.json(), "+.3f"), count_said(one.n_seeds, "seed")
        marks.append(point(axes, score.value, y, f"{one.model}, change of {name}", *words))
    _rows(axes, [*rows, *one.nulls])
    axes.set_title("What changed, and what cannot", fontsize=10)
    axes.set_xlabel("after brain-tuning less before")
    return marks


def _draw_mean(axes: Any, y: float, mean: Score, colour: str, mark: str, words: str) -> None:
    """A mean with its interval, and its number beside it."""
    if mean.interval is not None:
        axes.plot(mean.interval, [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot([mean.value], [y], color=colour, marker=mark, ms=7, linestyle="")
    at: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 10, "annotation_clip": False}
    axes.annotate(words, (1.015, y), color=INK, **at)


def _rows(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.08)
