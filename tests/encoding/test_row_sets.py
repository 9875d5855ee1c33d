"""r on some rows: against loops that know nothing of sums, and its intervals on simulated stories."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from brainlit.encoding.bootstrap import N_VOXELS_AT_ONCE
from brainlit.encoding.row_sets import row_set_scores
from tests.benchmarks.unseen_words import coverage

Array = npt.NDArray[np.float64]
GROUPS = np.repeat([5, 2, 9], [70, 50, 60])
REGIONS = {"first": np.arange(4) < 2, "all": np.ones(4, dtype=bool)}
HOW = {"block_trs": 10, "n_bootstraps": 4000, "seed": 3}


@pytest.fixture
def data() -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    observed = rng.standard_normal((180, 4)) + GROUPS[:, None]
    predicted = 0.6 * observed + rng.standard_normal((180, 4)) - 3 * GROUPS[:, None]
    rows = rng.random(180) < 0.5
    rows[70:120] = np.arange(50) // 10 == 1  # one block of this story only
    return observed, predicted, rows


def slow_r(observed: Array, predicted: Array, rows: Array) -> list[float]:
    """Row by row, voxel by voxel."""
    found = []
    for v in range(observed.shape[1]):
        o, p = [], []
        for group in (5, 2, 9):
            own = [k for k in range(len(rows)) if rows[k] and GROUPS[k] == group]
            if own:
                o += [observed[k, v] - sum(observed[j, v] for j in own) / len(own) for k in own]
                p += [predicted[k, v] - sum(predicted[j, v] for j in own) / len(own) for k in own]
        found.append(float(np.corrcoef(o, p)[0, 1]))
    return found


def test_the_number_is_the_mean_r_of_rows_centred_within_their_stories(data: tuple[Array, Array, Array]) -> None:
    scores = row_set_scores(data[0], data[1], GROUPS, data[2], REGIONS, **HOW)
    r = slow_r(*data)
    assert scores["first"].value == pytest.approx(np.mean(r[:2]), abs=1e-12)
    assert scores["all"].value == pytest.approx(np.mean(r), abs=1e-12)


def test_its_interval_is_that_of_the_jackknife_over_blocks(data: tuple[Array, Array, Array]) -> None:
    observed, predicted, rows = data
    block = np.concatenate([np.arange(n) // 10 + 100 * group for n, group in ((70, 5), (50, 2), (60, 9))])
    blocks = np.unique(block[rows])
    without = np.array([np.mean(slow_r(observed, predicted, rows & (block != b))) for b in blocks])
    n = len(blocks)
    assert n == 14
    error = np.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
    score = row_set_scores(observed, predicted, GROUPS, rows, REGIONS, **HOW)["all"]
    assert score.n_units == {"blocks": n}
    assert score.replicates is not None
    sizes = np.array([(rows & (block == b)).sum() for b in blocks])
    df = sizes.sum() ** 2 / np.square(sizes).sum() - 1
    assert 8 < df < n - 1
    widened = {9: 2.262, 10: 2.228, 11: 2.201, 12: 2.179}[round(df)] / 1.960
    assert np.std(score.replicates) == pytest.approx(widened * error, rel=0.04)
    assert np.mean(score.replicates) == pytest.approx(score.value, abs=error / 10)


def test_differences_are_paired(data: tuple[Array, Array, Array]) -> None:
    observed, predicted, rows = data
    other = predicted + 0.05 * np.random.default_rng(1).standard_normal(predicted.shape)
    one, two = (row_set_scores(observed, p, GROUPS, rows, REGIONS, **HOW)["all"] for p in (predicted, other))
    assert one.high - one.low > 10 * ((one - two).high - (one - two).low)
    same = row_set_scores(observed, predicted, GROUPS, rows, REGIONS, **HOW)["all"]
    np.testing.assert_array_equal(same.replicates, one.replicates)


def test_many_voxels_are_taken_in_parts(data: tuple[Array, Array, Array]) -> None:
    observed, predicted, rows = data
    n = N_VOXELS_AT_ONCE // 4 + 1
    wide = [np.tile(values, n) for values in (observed, predicted)]
    (score,) = row_set_scores(*wide, GROUPS, rows, {"": np.ones(4 * n, dtype=bool)}, **HOW).values()
    assert score.value == pytest.approx(np.mean(slow_r(*data)), abs=1e-12)


def test_few_rows_give_no_number_and_few_blocks_no_interval(data: tuple[Array, Array, Array]) -> None:
    observed, predicted, _ = data
    rows = np.zeros(180, dtype=bool)
    rows[:29] = True
    assert row_set_scores(observed, predicted, GROUPS, rows, REGIONS, **HOW) == {}
    rows[:30] = True
    score = row_set_scores(observed, predicted, GROUPS, rows, REGIONS, **HOW)["all"]
    assert np.isfinite(score.value)
    assert score.interval is None, "three blocks"
    rows[:40] = True
    assert row_set_scores(observed, predicted, GROUPS, rows, REGIONS, **HOW)["all"].interval is not None


def test_voxels_that_do_not_vary_count_as_0(data: tuple[Array, Array, Array]) -> None:
    observed, predicted, rows = data
    still = predicted.copy()
    still[:, 2:] = 1.0
    scores = row_set_scores(observed, still, GROUPS, rows, REGIONS, **HOW)
    assert scores["all"].value == pytest.approx(scores["first"].value / 2)


def test_rows_that_do_not_fit_are_refused(data: tuple[Array, Array, Array]) -> None:
    with pytest.raises(ValueError, match="rows have shape"):
        row_set_scores(data[0], data[1], GROUPS, data[2][:-1], REGIONS)


def test_intervals_cover_the_truth_on_short_runs_of_rows() -> None:
    found, truth, n_rows = coverage(60, 20_000, (4, 105, 0.35))
    intervals = found["blocks left out"]
    assert len(intervals) >= 55
    assert n_rows > 100
    inside = ((intervals[:, 0] < truth) & (truth < intervals[:, 1])).mean(axis=0)
    assert (inside > 0.86).all(), "95 % less three standard errors of 60 data sets"
    assert 0.1 < np.mean(intervals[:, 1, 0] - intervals[:, 0, 0]) < 0.4, "and not because they are endless"
