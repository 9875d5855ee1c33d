from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding import hierarchical_bootstrap
from brainlit.encoding.hierarchical import _replicates, mean_variance

NESTED = {"seeds": "subjects"}


def table(shape: tuple[int, ...], sds: tuple[float, ...], seed: int = 0) -> np.ndarray:
    """Scatter of every level and, last, of the cells."""
    rng = np.random.default_rng(seed)
    scores = sds[-1] * rng.standard_normal(shape)
    for axis, sd in enumerate(sds[:-1]):
        scores = scores + sd * rng.standard_normal([n if k == axis else 1 for k, n in enumerate(shape)])
    return scores


def slow_replicate(scores: np.ndarray, nested: bool, rng: np.random.Generator) -> float:
    """Upper levels first, unit by unit."""
    n_stories, n_subjects, n_seeds = scores.shape
    stories, subjects = rng.integers(0, n_stories, n_stories), rng.integers(0, n_subjects, n_subjects)
    seeds = [rng.integers(0, n_seeds, n_seeds) for _ in subjects]
    return float(np.mean([scores[a, b, c] for a in stories for b, own in zip(subjects, seeds, strict=True)
                          for c in (own if nested else seeds[0])]))  # fmt: skip


@pytest.mark.parametrize("nested", [False, True])
def test_replicates_are_distributed_as_by_loops(nested: bool) -> None:
    scores = table((4, 3, 3), (0.5, 1.0, 0.5, 1.0))
    rng = np.random.default_rng(1)
    fast = _replicates(scores, ["stories", "subjects", "seeds"], NESTED if nested else {}, 10_000, rng)
    slow = np.array([slow_replicate(scores, nested, rng) for _ in range(1500)])
    assert fast.mean() == pytest.approx(scores.mean(), abs=0.02)
    assert fast.std() == pytest.approx(slow.std(), rel=0.08)
    np.testing.assert_allclose(np.quantile(fast, [0.05, 0.95]), np.quantile(slow, [0.05, 0.95]), atol=0.08)


def test_the_variance_of_the_mean_is_unbiased() -> None:
    sds = (0.7, 1.0, 0.5, 0.8)
    planted = 0.49 / 5 + 1.0 / 4 + 0.25 / 3 + 0.64 / 60
    found = np.array([mean_variance(table((5, 4, 3), sds, seed)) for seed in range(500)])
    assert found[:, 0].mean() == pytest.approx(planted, rel=0.08)
    assert (found[:, 1] >= 2).all()


def test_one_level_is_the_t_interval() -> None:
    from scipy.stats import ttest_1samp

    scores = np.random.default_rng(2).standard_normal(9)
    found = hierarchical_bootstrap(scores[None, :, None], n_bootstraps=40_000)
    wanted = ttest_1samp(scores, 0).confidence_interval(0.95)
    assert found.high - found.low == pytest.approx(wanted.high - wanted.low, rel=0.05)
    assert found.not_resampled == ("stories", "seeds")
    assert dict(found.n_units) == {"subjects": 9}
    assert found.estimate == pytest.approx(scores.mean())


def test_crossed_levels_drawn_as_if_they_were_cells_are_far_too_sure() -> None:
    scores = table((6, 8, 3), (1.0, 0.2, 0.1, 0.2), seed=3)
    crossed = hierarchical_bootstrap(scores)
    cells = hierarchical_bootstrap(scores.ravel(), ("cells",))
    assert crossed.high - crossed.low > 4 * (cells.high - cells.low)


def test_seeds_of_their_own_are_no_shared_ones() -> None:
    """A seed that helps all subjects adds uncertainty where seeds are crossed, and scatter where they are nested."""
    scores = table((1, 12, 3), (0.0, 0.1, 1.0, 0.1), seed=4)
    crossed, nested = hierarchical_bootstrap(scores), hierarchical_bootstrap(scores, nested=NESTED)
    assert crossed.high - crossed.low > 5 * (nested.high - nested.low)
    alone = hierarchical_bootstrap(scores[:, :1], nested=NESTED)
    assert dict(alone.n_units) == {"seeds": 3}
    assert alone.not_resampled == ("stories", "subjects")


def test_it_is_seeded_and_batches_change_little(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = table((4, 5, 2), (1.0, 1.0, 1.0, 1.0))
    assert hierarchical_bootstrap(scores) == hierarchical_bootstrap(scores)
    assert hierarchical_bootstrap(scores).low != hierarchical_bootstrap(scores, seed=1).low
    whole = hierarchical_bootstrap(scores)
    monkeypatch.setattr("brainlit.encoding.hierarchical.N_VALUES_AT_ONCE", 40 * 700)
    assert hierarchical_bootstrap(scores).low == pytest.approx(whole.low, abs=0.1 * (whole.high - whole.low))
    same = hierarchical_bootstrap(np.full((3, 2, 2), 0.4))
    assert (same.low, same.high) == pytest.approx((0.4, 0.4))


def test_tables_that_make_no_sense_are_refused() -> None:
    scores = np.zeros((3, 2, 2))
    with pytest.raises(ValueError, match="one axis per level"):
        hierarchical_bootstrap(scores, ("stories", "subjects"))
    with pytest.raises(ValueError, match="the upper one first"):
        hierarchical_bootstrap(scores, nested={"subjects": "seeds"})
    with pytest.raises(ValueError, match="nested in the same one"):
        hierarchical_bootstrap(scores, nested={"seeds": "stories", "subjects": "stories"})
    with pytest.raises(ValueError, match="every level has size 1"):
        hierarchical_bootstrap(scores[:1, :1, :1])
    scores[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="missing or not finite"):
        hierarchical_bootstrap(scores)
