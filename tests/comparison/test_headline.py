"""The effect comes first: its sentence and its figure, on planted numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from brainlit.comparison.effects import ALIGNMENT, REGION, Evidence, Key, SeedEvidence, State
from brainlit.comparison.headline import effect_figure, effect_sentences, effects
from brainlit.encoding.statistics import Score
from brainlit.results.style import REGIME_COLOURS
from tests.results.test_figures import count
from tests.results.test_style import colours_of, on_dark

R, NULL_R, OWN = Key(ALIGNMENT, REGION), Key(ALIGNMENT, "null"), Key("partition_backbone", "auditory")
BEFORE, AFTER, PERMUTED = [0.30, 0.31, 0.29], [0.42, 0.44, 0.40], [0.29, 0.32, 0.30]
T_2 = 4.302653
"""97.5 % quantile of Student's t with two degrees of freedom."""


def planted(regimes: dict[str, Sequence[float]], simulated: bool = True, model: str = "m", **nulls: float) -> Evidence:
    """Seeds with data of their own; `nulls` move the null regions after brain-tuning."""
    seeds = []
    for k in range(len(next(iter(regimes.values())))):
        states: dict[str, tuple[State, ...]] = {}
        for regime, values in regimes.items():
            moved = {name: more * (regime == "brain") for name, more in nulls.items()}
            state = {R: {"": Score(values[k])}}
            state |= {NULL_R: {"": Score(moved["null"])}} if "null" in moved else {}
            state |= {OWN: {"": Score(0.01 + moved["auditory"])}} if "auditory" in moved else {}
            states[regime] = (state,)
        seeds.append(SeedEvidence(model, k, states, data={"probe": f"{k}"}))
    return Evidence("semantic", tuple(seeds), simulated=simulated)


WHOLE = {"pretrained": BEFORE, "brain": AFTER, "permuted": PERMUTED}


def half_width(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return T_2 * float(np.std(np.subtract(ours, theirs), ddof=1)) / 3**0.5


def test_the_sentence_has_the_effect_its_intervals_n_and_the_planted_nulls() -> None:
    (said,) = effect_sentences(planted(WHOLE, null=0.001, auditory=-0.004))
    rise, beyond = half_width(AFTER, BEFORE), half_width(AFTER, PERMUTED)
    assert said.startswith(
        "m, 3 seeds: alignment r with semantic voxels is 0.300 before tuning, 0.420 after brain-tuning and 0.303 after"
        f" permuted tuning: +0.120 (95 % interval {0.12 - rise:+.3f} to {0.12 + rise:+.3f}) over before, +0.117 (95 %"
        f" interval {0.35 / 3 - beyond:+.3f} to {0.35 / 3 + beyond:+.3f}) over permuted; in planted nulls (2), where"
        " nothing can change, the largest change is -0.004 (95 % interval "
    )
    assert said.endswith(", own R², auditory voxels.")


def test_what_was_not_measured_is_left_out_and_real_people_have_no_planted_nulls() -> None:
    (said,) = effect_sentences(planted({"pretrained": BEFORE, "brain": AFTER}, simulated=False, null=0.3))
    assert said.startswith("m, 3 seeds: alignment r with semantic voxels is 0.300 before tuning and 0.420 after brain")
    assert said.endswith(" over before.")
    assert effect_sentences(planted({"permuted": [0.3]})) == [
        "m, 1 seed: alignment r with semantic voxels is 0.300 after permuted tuning."
    ]
    (one,) = effect_sentences(planted({"pretrained": [0.3], "brain": [0.4]}))
    assert "+0.100 (no interval over seeds) over before" in one
    nothing = Evidence("semantic", (SeedEvidence("m", 1, {}),))
    assert (effect_sentences(nothing), effect_figure(nothing)) == ([], None)


def test_the_compared_region_is_no_null_of_itself() -> None:
    (one,) = effects(Evidence("auditory", planted(WHOLE, null=0.0, auditory=0.0).seeds, simulated=True))
    assert list(one.nulls) == ["r, null voxels"]


@pytest.fixture(scope="module")
def figures() -> tuple[bytes, ...]:
    other = planted(WHOLE, model="n", null=0.0).seeds
    both = planted(WHOLE, null=0.001, auditory=-0.004)
    drawn = (effect_figure(both), effect_figure(Evidence("semantic", (*both.seeds, *other), simulated=True)))
    assert drawn[0] is not None
    assert drawn[1] is not None
    for colour in (REGIME_COLOURS[name] for name in ("pretrained", "brain", "permuted")):
        assert count(drawn[0], colour) > 100
    assert colours_of(drawn[0]) <= on_dark()
    assert drawn[0].alt.startswith("Simulated listeners. m, 3 seeds: alignment r with semantic voxels is 0.300 before")
    assert "within ±0.01, the smallest effect of interest" in drawn[0].caption
    seeds = [(mark.what, mark.numbers, mark.n) for mark in drawn[0].marks if mark.n.startswith("seed ")]
    assert sorted(seeds) == sorted(
        (f"m, {words}", f"r {r:.3f}, no interval", f"seed {k}")
        for words, values in {
            "before tuning": BEFORE,
            "after brain-tuning": AFTER,
            "after permuted tuning": PERMUTED,
        }.items()
        for k, r in enumerate(values)
    )
    return drawn[0].png, drawn[1].png


def test_the_figure_shows_every_model_at_reading_size(figures: tuple[bytes, ...]) -> None:
    one, two = (Image.open(io.BytesIO(png)).size for png in figures)
    assert one[0] == two[0] <= 160 * 7
    assert two[1] > 1.7 * one[1]
