"""The permuted control: whole blocks, none in place, every row once, one permutation per run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlit.datamodules.targets import PermutedTargets, VoxelTargets, permute_blocks
from brainlit.encoding.roles import Span
from brainlit.store import StoryStore

SPANS = [Span("toy0", 0, 40), Span("toy1", 3, 37), Span("toy2", 10, 40)]
VOXELS = {"sub-A": np.arange(12), "sub-B": np.array([0, 4, 9])}


@given(block_trs=st.integers(1, 30), n_blocks=st.floats(2, 40), seed=st.integers(0, 99))
def test_every_row_moves_by_at_least_a_block_and_is_used_once(block_trs: int, n_blocks: float, seed: int) -> None:
    n_rows = int(np.ceil(block_trs * n_blocks))
    order = permute_blocks(n_rows, block_trs, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.sort(order), np.arange(n_rows))
    assert np.abs(order - np.arange(n_rows)).min() >= block_trs


@pytest.mark.parametrize("n_rows", [250, 300, 345, 400, 7200, 7201])
def test_blocks_stay_whole_and_about_as_long_as_asked(n_rows: int) -> None:
    """The lengths at which a published shuffle left 11 to 41 % of the rows in place."""
    order = permute_blocks(n_rows, 10, np.random.default_rng(0))
    lengths = np.diff(np.flatnonzero(np.concatenate([[True], np.diff(order) != 1, [True]])))
    assert lengths.min() >= 10
    assert np.median(lengths) <= 11


@pytest.mark.parametrize(("n_rows", "block_trs"), [(19, 10), (0, 1), (5, 0)])
def test_too_few_rows_are_refused(n_rows: int, block_trs: int) -> None:
    with pytest.raises(ValueError, match=f"{n_rows} tuning rows cannot be permuted in blocks of {block_trs}"):
        permute_blocks(n_rows, block_trs, np.random.default_rng(0))


def test_voxels_are_the_responses(toy_store: StoryStore) -> None:
    targets = VoxelTargets(toy_store, VOXELS)
    assert targets.sizes == {"sub-A": 12, "sub-B": 3}
    rows = targets.rows("sub-B", "toy2", 5, 9)
    expected = toy_store.responses("sub-B", "toy2")
    assert expected is not None
    np.testing.assert_array_equal(rows, expected[5:9][:, [0, 4, 9]])
    assert targets.rows("sub-B", "toy1", 5, 9) is None


def test_permuted_rows_equal_a_loop(toy_store: StoryStore) -> None:
    voxels = VoxelTargets(toy_store, VOXELS)
    targets = PermutedTargets(voxels, SPANS, block_trs=7, seed=1)
    assert targets.sizes == voxels.sizes
    for subject, heard in (("sub-A", SPANS), ("sub-B", [SPANS[0], SPANS[2]])):
        laid = [(span.story, row) for span in heard for row in range(span.start_tr, span.stop_tr)]
        order = targets.source_rows(subject)
        assert len(order) == len(laid)
        for place, source in enumerate(order):
            story, row = laid[place]
            found = targets.rows(subject, story, row, row + 1)
            expected = voxels.rows(subject, laid[source][0], laid[source][1], laid[source][1] + 1)
            assert expected is not None
            np.testing.assert_array_equal(found, expected)
        whole = targets.rows(subject, "toy2", 12, 33)
        singly = [targets.rows(subject, "toy2", row, row + 1) for row in range(12, 33)]
        np.testing.assert_array_equal(whole, np.concatenate([row for row in singly if row is not None]))
    assert targets.rows("sub-B", "toy1", 5, 9) is None


def test_one_permutation_per_seed_for_all_who_heard_the_same(toy_store: StoryStore) -> None:
    both = PermutedTargets(VoxelTargets(toy_store, VOXELS), SPANS[:1], 5, seed=1)
    alone = PermutedTargets(VoxelTargets(toy_store, {"sub-B": VOXELS["sub-B"]}), SPANS[:1], 5, seed=1)
    other = PermutedTargets(VoxelTargets(toy_store, VOXELS), SPANS[:1], 5, seed=2)
    np.testing.assert_array_equal(both.source_rows("sub-B"), alone.source_rows("sub-B"))
    np.testing.assert_array_equal(both.source_rows("sub-A"), both.source_rows("sub-B"))
    assert (both.source_rows("sub-A") != other.source_rows("sub-A")).any()


@pytest.mark.parametrize(("story", "start", "stop"), [("toy1", 0, 5), ("toy1", 36, 38), ("toy5", 0, 1)])
def test_rows_outside_the_tuning_spans_cannot_be_asked_for(
    toy_store: StoryStore, story: str, start: int, stop: int
) -> None:
    targets = PermutedTargets(VoxelTargets(toy_store, VOXELS), SPANS, 7, seed=0)
    with pytest.raises(ValueError, match=f"of '{story}' are not tuning rows of 'sub-A'"):
        targets.rows("sub-A", story, start, stop)
