"""What is scored on the mean of several presentations: R2, shares, r / ceiling and tests, by simulated data sets.

The tables of docs/calibration.md come from the same simulations, with more data sets.
"""

from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding import block_weights, circular_shift_test
from brainlit.encoding.ceiling import region_ratio, signal_rows
from tests.benchmarks.repeats import REPEATS, Averaged, Scored, after, autocorrelated, before

SEED = 70_000


def test_shares_of_averaged_rows_are_those_of_what_is_scored() -> None:
    cell = Averaged((10, 1))
    earlier, now = np.mean([cell.estimates(SEED + k) for k in range(8)], axis=0)
    assert now[0] == pytest.approx(cell.planted, abs=0.02)
    assert now[3] == pytest.approx(cell.planted, abs=0.02)
    assert now[4] == pytest.approx(0.5, abs=0.05)
    assert earlier[0] < cell.planted - 0.03, "the mean z-scored again"
    assert cell.truth(40) == pytest.approx(cell.planted, abs=0.01)


@pytest.mark.parametrize("repeats", REPEATS)
@pytest.mark.parametrize(("half", "model"), [(False, 1.0), (True, 1.0), (False, 0.7)])
def test_r_over_ceiling_is_what_the_model_is_worth(repeats: tuple[int, ...], half: bool, model: float) -> None:
    cell = Scored(repeats, 0.3, half=half, model=model)
    ratios = [after(*cell.data(SEED + k), n_bootstraps=20)[0] for k in range(12)]
    assert np.mean(ratios) == pytest.approx(model, abs=0.02)


def test_of_weak_signals_too() -> None:
    """As of single voxels: a root of what is left after the negative ones are gone."""
    cell = Scored((5, 1), 0.05)
    data = [cell.data(SEED + k) for k in range(25)]
    ratios = np.array([after(*one, n_bootstraps=20)[0] for one in data])
    assert np.isfinite(ratios).mean() > 0.9
    assert np.nanmean(ratios) == pytest.approx(1.0, abs=0.04)
    assert np.mean([before(*one) for one in data]) < 0.85


def test_without_signal_there_is_no_ceiling() -> None:
    cell = Scored((2, 2), 0.0)
    refused = 0
    for k in range(40):
        stories, _ = cell.data(SEED + k)
        predicted = autocorrelated(600, cell.n_voxels, np.random.default_rng(k))
        refused += np.isnan(after(stories, predicted, n_bootstraps=20)[0])
    assert refused >= 36


def test_few_blocks_and_no_voxels_give_none_and_known_ceilings_are_taken() -> None:
    stories, predicted = Scored((5, 5), 0.3).data(SEED)
    observed, groups = np.concatenate([each.mean(axis=0) for each in stories]), np.repeat([0, 1], 300)
    signal, every = signal_rows(stories), np.ones(60, dtype=bool)
    given = observed, predicted, groups
    first = np.arange(600) % 300 < 20
    short = [values[first] for values in (*given, signal)]
    few = block_weights(groups[first], 20, 5, 0)
    assert set(region_ratio(*short, every, few)) == {"r_together"}
    blocks = block_weights(groups, 20, 5, 0)
    assert region_ratio(*given, signal, ~every, blocks) == {}
    assert region_ratio(*given, np.full(60, np.nan), every, blocks) == {}
    known = region_ratio(*given, np.where(every, 0.5, 0.5), every, blocks)
    assert known["ceiling"].value == pytest.approx(0.5)
    assert known["r_over_ceiling"].value == pytest.approx(known["r_together"].value / 0.5)
    louder = observed * np.linspace(1, 1, 60)
    assert region_ratio(louder, 7 * predicted, groups, signal, every, blocks)["r_over_ceiling"].value == pytest.approx(
        region_ratio(*given, signal, every, blocks)["r_over_ceiling"].value
    )


def test_the_permutation_test_keeps_its_level_where_stories_differ_in_noise() -> None:
    """Means of ten presentations and single ones side by side; predictions have nothing to do with either."""
    rng = np.random.default_rng(SEED)
    groups = np.repeat([0, 1], 300)
    observed = autocorrelated(600, 800, rng) * np.where(groups == 0, np.sqrt(0.1), 1.0)[:, None]
    test = circular_shift_test(observed, autocorrelated(600, 800, rng), groups, n_permutations=199)
    assert (test.p <= 0.05).mean() == pytest.approx(0.05, abs=0.025)
