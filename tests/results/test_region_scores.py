from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding.intervals import small_sample_factor
from brainlit.encoding.statistics import correlation_within, r2_within
from brainlit.results.region_scores import Score, block_weights, mean_score, region_replicates, stretch_of

GROUPS = np.repeat([0, 1], [47, 33])


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    observed = rng.standard_normal((80, 5)) + GROUPS[:, None]
    return observed, 0.5 * observed + rng.standard_normal((80, 5))


REGIONS = {"first": np.array([True, True, False, False, False]), "last": np.array([False, False, False, True, True])}


def test_one_draw_of_every_block_gives_the_probes_own_numbers(data: tuple[np.ndarray, np.ndarray]) -> None:
    observed, predicted = data
    block_of_row, weights = block_weights(GROUPS, 10, 3, seed=0)
    found = region_replicates(observed, predicted, GROUPS, REGIONS, (block_of_row, np.ones_like(weights[:1])))
    r, r2 = correlation_within(observed, predicted, GROUPS), r2_within(observed, predicted, GROUPS)
    for name, mask in REGIONS.items():
        np.testing.assert_allclose(found[name][0], r[mask].mean(), rtol=1e-10)
        np.testing.assert_allclose(found[name][1], r2[mask].mean(), rtol=1e-10)


def test_replicates_agree_with_rows_copied_one_by_one(data: tuple[np.ndarray, np.ndarray]) -> None:
    observed, predicted = data
    block_of_row, weights = block_weights(GROUPS, 10, 4, seed=1)
    found = region_replicates(observed, predicted, GROUPS, REGIONS, (block_of_row, weights))
    o, p = observed.copy(), predicted.copy()
    for group in (0, 1):
        o[group == GROUPS] -= o[group == GROUPS].mean(axis=0)
        p[group == GROUPS] -= p[group == GROUPS].mean(axis=0)
    for k, draw in enumerate(weights):
        rows = np.repeat(np.arange(80), draw[block_of_row].astype(int))
        x, y = o[rows], p[rows]
        r = (x * y).sum(axis=0) / np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
        assert found["last"][0][k] == pytest.approx(r[3:].mean(), rel=1e-9)


def test_blocks_stay_inside_stories_and_short_rests_join() -> None:
    block_of_row, weights = block_weights(GROUPS, 10, 50, seed=0)
    assert not set(block_of_row[:47]) & set(block_of_row[47:])
    assert np.bincount(block_of_row).tolist() == [10, 10, 10, 10, 7, 10, 10, 13]
    assert (weights[:, :5].sum(axis=1) == 5).all()
    assert (weights[:, 5:].sum(axis=1) == 3).all()


def test_same_seed_same_draws_other_seed_others() -> None:
    one, same, other = (block_weights(GROUPS, 10, 20, seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        observed = rng.standard_normal((200, 1))
        predicted = 0.5 * observed + np.sqrt(0.75) * rng.standard_normal((200, 1))
        groups = np.repeat([0, 1], 100)
        blocks = block_weights(groups, 10, 400, seed)
        draws = region_replicates(observed, predicted, groups, {"all": np.array([True])}, blocks)["all"][0]
        low, high = Score(0.5, draws).interval or (0, 0)
        covered += low < 0.5 < high
    assert 48 <= covered <= 60


def test_a_paired_difference_is_narrower_than_two_separate_ones(data: tuple[np.ndarray, np.ndarray]) -> None:
    observed, predicted = data
    better = predicted + 0.1 * observed
    blocks = block_weights(GROUPS, 10, 300, seed=0)
    before, after = (
        Score(0.0, region_replicates(observed, p, GROUPS, REGIONS, blocks)["first"][0]) for p in (predicted, better)
    )
    low, high = (after - before).interval or (0, 0)
    alone_low, alone_high = before.interval or (0, 0)
    assert 0 < high - low < 0.5 * (alone_high - alone_low)


def test_few_blocks_widen_the_interval_about_the_value_and_one_block_per_story_gives_none() -> None:
    groups = np.repeat([0, 1], [60, 100])
    few, none = block_weights(groups, 20, 500, 0), block_weights(groups, 100, 500, 0)
    factor = stretch_of(groups, few)
    assert factor == small_sample_factor(8, 0.95, 2)
    assert factor == pytest.approx(np.sqrt(8 / 6) * 2.4469 / 1.95996, rel=1e-4)
    replicates = 0.3 + few[1] @ np.linspace(-0.1, 0.1, 8)
    plain = Score(0.3, replicates)
    (low, high), (lower, higher) = plain.interval, plain.stretched(factor).interval  # type: ignore[misc]
    assert [0.3 - lower, higher - 0.3] == pytest.approx([factor * (0.3 - low), factor * (high - 0.3)])
    assert stretch_of(groups, none) is None
    assert stretch_of(groups, block_weights(groups, 50, 500, 0)) is None  # one and two blocks
    assert Score(0.3, replicates).stretched(None).interval is None
    difference = plain.stretched(factor) - Score(0.1, replicates * 0.5).stretched(factor)
    assert difference.replicates == pytest.approx(0.2 + factor * (replicates * 0.5 - 0.2))


def test_scores_without_replicates_have_no_interval() -> None:
    assert Score(1.0).interval is None
    assert (Score(1.0) - Score(0.25, np.zeros(3))).json() == {"value": 0.75, "low": None, "high": None}
    assert Score(1.0).over(Score(0.0)).json()["value"] is None
    assert mean_score([Score(1.0, np.ones(2)), Score(3.0, np.zeros(2))]).json()["value"] == 2.0
    assert mean_score([Score(1.0, np.ones(2)), Score(3.0)]).replicates is None
    with pytest.raises(ValueError, match="no scores"):
        mean_score([])


@pytest.mark.parametrize(("block_trs", "n"), [(0, 10), (10, 0)])
def test_sizes_must_be_positive(block_trs: int, n: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        block_weights(GROUPS, block_trs, n, seed=0)
