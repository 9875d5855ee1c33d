from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlit.encoding import gamma_pool, make_folds
from brainlit.encoding.search import inside_set


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(3, 40), min_size=4, max_size=12), n_folds=st.integers(2, 4))
def test_with_enough_groups_folds_hold_out_whole_groups(lengths: list[int], n_folds: int) -> None:
    groups = np.repeat(np.arange(len(lengths)), lengths)
    folds = make_folds(groups, n_folds, purge_trs=5)
    assert np.concatenate([fold.held_out for fold in folds]).tolist() == list(range(groups.size))
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.held_out])
        assert fold.train.size + fold.held_out.size == groups.size


def test_folds_of_equal_stories_are_equal() -> None:
    folds = make_folds(np.repeat(np.arange(12), 50), 4)
    assert [fold.held_out.size for fold in folds] == [150] * 4


@pytest.mark.parametrize("n_groups", [1, 3])
def test_with_few_groups_blocks_are_purged(n_groups: int) -> None:
    groups = np.repeat(np.arange(n_groups), 60)
    folds = make_folds(groups, 4, purge_trs=6)
    assert np.concatenate([fold.held_out for fold in folds]).tolist() == list(range(groups.size))
    for fold in folds:
        same = groups[fold.train][:, None] == groups[fold.held_out][None]
        distance = np.abs(fold.train[:, None] - fold.held_out[None])
        assert distance[same].min(initial=999) >= 6
        far = [t for t in range(groups.size) if t not in fold.train and t not in fold.held_out]
        assert len(far) <= 10


def test_purging_counts_rows_of_the_recording() -> None:
    times = np.r_[0:20, 40:60]
    fold = make_folds(np.zeros(40), 2, purge_trs=10, times_trs=times)[0]
    assert fold.train.tolist() == list(range(20, 40))


def test_impossible_folds_are_refused() -> None:
    with pytest.raises(ValueError, match="n_folds is 1"):
        make_folds(np.zeros(10), 1)
    with pytest.raises(ValueError, match="n_folds is 5 for 3 rows"):
        make_folds(np.zeros(3), 5)
    with pytest.raises(ValueError, match="leaves no row to train on"):
        make_folds(np.zeros(10), 2, purge_trs=20)


def test_the_pool_is_nested_and_seeded() -> None:
    three = gamma_pool(3, {1: 1, 2: 4, 3: 8}, seed=1)
    assert three.shape == (3 + 3 * 4 + 8, 3)
    np.testing.assert_allclose(three.sum(axis=1), 1.0)
    assert (three >= 0).all()
    assert len(np.unique(three, axis=0)) == len(three)
    np.testing.assert_array_equal(three[inside_set(three, [0, 1])][:, :2], gamma_pool(2, {1: 1, 2: 4}, seed=1))
    np.testing.assert_array_equal(three, gamma_pool(3, {1: 1, 2: 4, 3: 8}, seed=1))
    assert not np.array_equal(three, gamma_pool(3, {1: 1, 2: 4, 3: 8}, seed=2))
    assert [0.5, 0.5] in gamma_pool(2).tolist()
    with pytest.raises(ValueError, match="at least one gamma"):
        gamma_pool(2, {1: 1, 2: 0})
