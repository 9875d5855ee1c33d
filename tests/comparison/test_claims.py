"""The rule: every verdict with its borders, and how often it errs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from brainlit.comparison.claims import CANNOT_TELL, NOT_SUPPORTED, SHOWN, SUPPORTED, Kind, smallest_p, verdict
from brainlit.comparison.effects import over_seeds
from brainlit.encoding.statistics import Score

SMALLEST = 0.1
RISES = [
    ((0.2, 0.4), SUPPORTED),
    ((0.01, 0.3), SUPPORTED),
    ((0.0, 0.3), CANNOT_TELL),
    ((-0.2, 0.3), CANNOT_TELL),
    ((-0.2, 0.1), CANNOT_TELL),
    ((-0.2, 0.09), NOT_SUPPORTED),
    ((0.02, 0.09), NOT_SUPPORTED),
    ((0.02, 0.1), SUPPORTED),
    ((-0.4, -0.1), NOT_SUPPORTED),
    ((0.0, 0.0), NOT_SUPPORTED),
]
NOT_WORSE = [
    ((-0.09, 0.3), SUPPORTED),
    ((-0.05, -0.01), SUPPORTED),
    ((-0.1, 0.3), CANNOT_TELL),
    ((-0.3, -0.1), CANNOT_TELL),
    ((-0.3, -0.11), NOT_SUPPORTED),
    ((0.2, 0.3), SUPPORTED),
]
UNCHANGED = [
    ((-0.09, 0.09), SUPPORTED),
    ((0.02, 0.09), SUPPORTED),
    ((-0.1, 0.05), CANNOT_TELL),
    ((0.05, 0.2), CANNOT_TELL),
    ((-0.5, 0.5), CANNOT_TELL),
    ((0.1, 0.2), CANNOT_TELL),
    ((0.11, 0.2), NOT_SUPPORTED),
    ((-0.2, -0.11), NOT_SUPPORTED),
]


@pytest.mark.parametrize(("ends", "expected"), RISES)
def test_a_rise_and_its_mirror_image(ends: tuple[float, float], expected: str) -> None:
    low, high = ends
    assert verdict("rises", SMALLEST, (low, high)) == expected
    assert verdict("falls", SMALLEST, (-high, -low)) == expected


@pytest.mark.parametrize(("ends", "expected"), NOT_WORSE)
def test_no_worse_is_within_the_margin_or_better(ends: tuple[float, float], expected: str) -> None:
    assert verdict("not worse", SMALLEST, ends) == expected


@pytest.mark.parametrize(("ends", "expected"), UNCHANGED)
def test_unchanged_is_shown_and_not_taken_for_granted(ends: tuple[float, float], expected: str) -> None:
    low, high = ends
    assert verdict("unchanged", SMALLEST, (low, high)) == expected
    assert verdict("unchanged", SMALLEST, (-high, -low)) == expected


@pytest.mark.parametrize("kind", ["rises", "falls", "not worse", "unchanged"])
def test_one_seed_can_tell_nothing(kind: Kind) -> None:
    assert verdict(kind, SMALLEST, None) == CANNOT_TELL


def test_what_is_only_shown_gets_no_verdict() -> None:
    assert verdict("shown", SMALLEST, (0.5, 0.6)) == verdict("shown", SMALLEST, None) == SHOWN


def test_a_smallest_effect_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"is 0\.0; it has to be above 0"):
        verdict("rises", 0.0, (0.1, 0.2))


def test_the_smallest_p_is_that_of_all_signs_alike() -> None:
    from brainlit.encoding.difference_tests import paired_sign_flip, paired_wilcoxon

    for n in (2, 3, 5, 8):
        differences = np.arange(1, n + 1) / 10
        assert smallest_p(n) == pytest.approx(float(paired_sign_flip(differences).p))
        assert smallest_p(n) == pytest.approx(float(paired_wilcoxon(differences).p))
    assert smallest_p(1) == smallest_p(0) == 1.0


def _rates(kind: Kind, truth: float, smallest: float, n_seeds: int = 5, n_experiments: int = 4000) -> dict[str, float]:
    """How often each verdict is given if seeds scatter by 1 about the truth."""
    seeds = truth + np.random.default_rng(7).standard_normal((n_experiments, n_seeds))
    means = (over_seeds([Score(value) for value in values], shared=False) for values in seeds)
    said = Counter(verdict(kind, smallest, mean.interval) for mean in means)
    return {word: n / n_experiments for word, n in said.items()}


@pytest.mark.parametrize("kind", ["rises", "falls"])
def test_without_an_effect_a_claim_is_supported_in_at_most_2_5_percent(kind: Kind) -> None:
    assert 0.0175 < _rates(kind, 0.0, smallest=1e-6)[SUPPORTED] < 0.0325
    assert _rates(kind, 0.0, smallest=1.0)[SUPPORTED] < 0.0325


def test_a_large_effect_is_nearly_always_found() -> None:
    assert _rates("rises", 3.0, smallest=0.5)[SUPPORTED] > 0.98
    assert _rates("falls", 3.0, smallest=0.5)[NOT_SUPPORTED] > 0.98


def test_an_effect_that_matters_is_seldom_called_not_supported() -> None:
    assert _rates("rises", 1.0, smallest=1.0)[NOT_SUPPORTED] < 0.0325


@pytest.mark.parametrize("truth", [-1.0, 1.0])
def test_a_change_as_large_as_the_margin_seldom_passes_for_none(truth: float) -> None:
    assert _rates("unchanged", truth, smallest=1.0).get(SUPPORTED, 0.0) < 0.0325
    if truth < 0:
        assert 0.0175 < _rates("not worse", truth, smallest=1.0)[SUPPORTED] < 0.0325
