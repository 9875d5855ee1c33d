"""The controls besides blocks: shifts, other stories, random phases. None leaves a story its own responses in place."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlit.datamodules.targets.config import ControlConfig
from brainlit.datamodules.targets.controls import (
    ReorderedTargets,
    control_targets,
    draw_seed,
    exchange_stories,
    permute_blocks,
    phase_targets,
    randomise_phases,
    shift_stories,
)
from brainlit.datamodules.targets.stored import VoxelTargets
from brainlit.splits import Span
from brainlit.store import StoryStore

SPANS = [Span("toy0", 0, 40), Span("toy1", 3, 37), Span("toy2", 10, 40), Span("toy2", 0, 5)]
VOXELS = {"sub-A": np.arange(12), "sub-B": np.array([0, 4, 9])}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def blocks_of(voxels: VoxelTargets, spans: list[Span], block_trs: int, seed: int) -> ReorderedTargets:
    def rule(heard: Sequence[Span]) -> np.ndarray:
        return permute_blocks(sum(span.n_trs for span in heard), block_trs, np.random.default_rng(seed))

    return ReorderedTargets(voxels, spans, rule)


def shifts_of(voxels: VoxelTargets, spans: list[Span], min_shift_trs: int, seed: int) -> ReorderedTargets:
    return ReorderedTargets(voxels, spans, lambda heard: shift_stories(heard, min_shift_trs, seed))


def others_of(voxels: VoxelTargets, spans: list[Span], seed: int) -> ReorderedTargets:
    return ReorderedTargets(voxels, spans, lambda heard: exchange_stories(heard, seed))


def span_rows(targets: object, subject: str, span: Span) -> np.ndarray:
    rows = targets.rows(subject, span.story, span.start_tr, span.stop_tr)  # type: ignore[attr-defined]
    assert rows is not None
    return np.asarray(rows)


@given(n_trs=st.lists(st.integers(14, 60), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_a_shift_turns_each_story_by_at_least_the_least_lag_either_way(n_trs: list[int], seed: int) -> None:
    spans = [Span(f"s{k}", 5, 5 + n) for k, n in enumerate(n_trs)]
    order, start = shift_stories(spans, 7, seed), 0
    for n in n_trs:
        own = order[start : start + n] - start
        lag = int(-own[0]) % n
        assert 7 <= lag <= n - 7
        np.testing.assert_array_equal(own, (np.arange(n) - lag) % n)
        start += n


def test_the_shift_of_a_story_depends_on_nothing_else(toy_store: StoryStore) -> None:
    """Also where a story's tuning rows lie in two spans, and where others heard other stories."""
    both = shifts_of(VoxelTargets(toy_store, VOXELS), SPANS, 6, seed=3)
    alone = shifts_of(VoxelTargets(toy_store, {"sub-B": VOXELS["sub-B"]}), SPANS[2:], 6, seed=3)
    for span in SPANS[2:]:
        ours = span_rows(both, "sub-B", span)
        np.testing.assert_array_equal(ours, span_rows(alone, "sub-B", span))
    real = np.concatenate([span_rows(both.voxels, "sub-A", span) for span in SPANS[2:]])
    moved = np.concatenate([span_rows(both, "sub-A", span) for span in SPANS[2:]])
    lags = [lag for lag in range(len(real)) if np.array_equal(np.roll(real, lag, axis=0), moved)]
    assert len(lags) == 1
    other = shifts_of(VoxelTargets(toy_store, VOXELS), SPANS, 6, seed=4)
    assert (both.source_rows("sub-A") != other.source_rows("sub-A")).any()


@pytest.mark.parametrize("least", [0, 21])
def test_stories_too_short_to_shift_are_refused(least: int) -> None:
    with pytest.raises(ValueError, match=f"the 40 tuning rows of 'toy0' cannot be shifted by at least {least} TRs"):
        shift_stories(SPANS, least, 0)


@given(n_trs=st.lists(st.integers(1, 30), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_no_story_keeps_its_rows_and_those_of_the_other_come_in_order(n_trs: list[int], seed: int) -> None:
    spans = [Span(f"s{k}", 0, n) for k, n in enumerate(n_trs)]
    starts = np.concatenate([[0], np.cumsum(n_trs)])
    story_of = np.repeat(np.arange(len(n_trs)), n_trs)
    order, used = exchange_stories(spans, seed), set()
    for k, n in enumerate(n_trs):
        sources = order[starts[k] : starts[k + 1]]
        (other,) = set(story_of[sources].tolist())
        assert other != k
        used.add(other)
        np.testing.assert_array_equal(sources - starts[other], np.arange(n) % n_trs[other])
    assert used == set(range(len(n_trs)))


def test_other_stories_are_those_that_the_subject_heard(toy_store: StoryStore) -> None:
    targets = others_of(VoxelTargets(toy_store, VOXELS), SPANS[:3], seed=0)
    np.testing.assert_array_equal(  # sub-B heard two of the three, so they change places
        span_rows(targets, "sub-B", Span("toy2", 10, 40)),
        span_rows(targets.voxels, "sub-B", Span("toy0", 0, 30)),
    )
    assert targets.rows("sub-B", "toy1", 3, 8) is None
    with pytest.raises(ValueError, match=r"not two stories to tune on \(toy0\)"):
        others_of(VoxelTargets(toy_store, VOXELS), SPANS[:1], seed=0)


@pytest.mark.parametrize("n_rows", [40, 41, 2, 1])
def test_random_phases_keep_spectra_and_cross_spectra(n_rows: int) -> None:
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((n_rows, 5)) @ rng.standard_normal((5, 5)) + 3).astype(np.float32)
    surrogate = randomise_phases(values, np.random.default_rng(1))
    before, after = np.fft.rfft(values, axis=0), np.fft.rfft(surrogate, axis=0)
    cross = [spectra[:, :, None] * spectra[:, None, :].conj() for spectra in (before, after)]
    np.testing.assert_allclose(cross[1], cross[0], atol=1e-4 * np.abs(cross[0]).max())
    np.testing.assert_allclose(surrogate.mean(axis=0), values.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(np.cov(surrogate.T), np.cov(values.T), atol=1e-4) if n_rows > 1 else None
    assert surrogate.dtype == np.float32
    if n_rows >= 40:
        r = [np.corrcoef(a, b)[0, 1] for a, b in zip(values.T, surrogate.T, strict=True)]
        assert np.abs(r).max() < 0.6


def test_phase_surrogates_are_one_draw_for_all_subjects(toy_store: StoryStore, own_cache: Path) -> None:
    voxels = VoxelTargets(toy_store, VOXELS)
    targets, again = phase_targets(voxels, SPANS, seed=1), phase_targets(voxels, SPANS, seed=1)
    other = phase_targets(voxels, SPANS, seed=2)
    assert len(list(own_cache.glob("targets-*[!k]"))) == 2  # made once per seed
    assert targets.sizes == voxels.sizes
    for span in (SPANS[0], SPANS[2]):
        real = {name: span_rows(voxels, name, span) for name in VOXELS}
        ours = {name: span_rows(targets, name, span) for name in VOXELS}
        ratio = {name: np.fft.rfft(ours[name], axis=0) / np.fft.rfft(real[name], axis=0) for name in VOXELS}
        np.testing.assert_allclose(ratio["sub-A"][1:, :1], ratio["sub-B"][1:, :1], atol=1e-3)
        np.testing.assert_array_equal(ours["sub-B"], span_rows(again, "sub-B", span))
        assert np.abs(ours["sub-B"] - span_rows(other, "sub-B", span)).max() > 0.1
    whole, part = span_rows(targets, "sub-A", SPANS[2]), targets.rows("sub-A", "toy2", 17, 21)
    np.testing.assert_array_equal(part, whole[7:11])
    copy = pickle.loads(pickle.dumps(targets))
    np.testing.assert_array_equal(copy.rows("sub-A", "toy2", 17, 21), part)
    assert targets.rows("sub-B", "toy1", 3, 8) is None
    with pytest.raises(ValueError, match=r"rows 3\.\.8 of 'toy2' are not tuning rows of 'sub-A'"):
        targets.rows("sub-A", "toy2", 3, 8)


@pytest.mark.parametrize("kind", ["blocks", "shift", "other_story", "phase"])
def test_every_control_keeps_variance_and_loses_the_match(toy_store: StoryStore, kind: str) -> None:
    config = ControlConfig(kind, block_trs=5, min_shift_trs=8)  # type: ignore[arg-type]
    voxels = VoxelTargets(toy_store, VOXELS)
    spans = [Span(f"toy{k}", 0, 40) for k in range(4)]
    targets = control_targets(config, voxels, spans, seed=0)
    assert targets.sizes == voxels.sizes
    ours = np.concatenate([span_rows(targets, "sub-A", span) for span in spans])
    real = np.concatenate([span_rows(voxels, "sub-A", span) for span in spans])
    np.testing.assert_allclose(ours.std(axis=0), real.std(axis=0), rtol=1e-4)
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(ours.T, real.T, strict=True)]
    assert abs(np.mean(r)) < 0.3
    if kind == "blocks":
        np.testing.assert_array_equal(ours, real[blocks_of(voxels, spans, 5, 0).source_rows("sub-A")])


@pytest.mark.parametrize("kind", ["blocks", "shift", "other_story", "phase"])
def test_the_first_draw_is_that_of_the_seed_and_the_others_are_others(toy_store: StoryStore, kind: str) -> None:
    voxels = VoxelTargets(toy_store, VOXELS)
    spans = [Span(f"toy{k}", 0, 40) for k in range(4)]

    def rows(seed: int, **settings: int) -> np.ndarray:
        config = ControlConfig(kind, block_trs=5, min_shift_trs=8, **settings)  # type: ignore[arg-type]
        targets = control_targets(config, voxels, spans, seed)
        return np.concatenate([span_rows(targets, "sub-A", span) for span in spans])

    first = {
        "blocks": lambda: blocks_of(voxels, spans, 5, seed=3),
        "shift": lambda: shifts_of(voxels, spans, 8, seed=3),
        "other_story": lambda: others_of(voxels, spans, seed=3),
        "phase": lambda: phase_targets(voxels, spans, seed=3),
    }[kind]()
    expected = np.concatenate([span_rows(first, "sub-A", span) for span in spans])
    np.testing.assert_array_equal(rows(3), expected)
    np.testing.assert_array_equal(rows(3, draw=1), expected)
    np.testing.assert_array_equal(rows(3, draw=2), rows(3, draw=2))
    several = {draw: rows(3, draw=draw).tobytes() for draw in range(1, 9)}
    assert len(set(several.values())) > 4, "of few stories there are few exchanges"
    if kind != "other_story":
        assert len(set(several.values())) == 8
        assert several[2] not in {rows(seed).tobytes() for seed in range(8)}, "a draw is not another seed's first one"


def test_draws_are_independent_of_each_other_and_of_neighbouring_seeds() -> None:
    seeds = [draw_seed(seed, draw) for seed in range(50) for draw in range(1, 6)]
    assert len(set(seeds)) == len(seeds)
    assert [draw_seed(seed, 1) for seed in range(50)] == list(range(50))
    together = np.corrcoef([np.random.default_rng(draw_seed(11, draw)).standard_normal(4000) for draw in (1, 2, 3, 4)])
    assert np.abs(together - np.eye(4)).max() < 4 / np.sqrt(4000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "phas"}, "control.kind is 'phas'. Did you mean 'phase'"),
        ({"block_trs": 0}, "control.block_trs is 0"),
        ({"min_shift_trs": 0}, "control.min_shift_trs is 0"),
        ({"draw": 0}, "control.draw is 0; draws are counted from 1"),
    ],
)
def test_impossible_controls_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ControlConfig(**settings)  # type: ignore[arg-type]


# --- permuted
# The permuted control: whole blocks, none in place, every row once, one permutation per run.


SPANS_permuted = [Span("toy0", 0, 40), Span("toy1", 3, 37), Span("toy2", 10, 40)]


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
    targets = blocks_of(voxels, SPANS_permuted, block_trs=7, seed=1)
    assert targets.sizes == voxels.sizes
    for subject, heard in (("sub-A", SPANS_permuted), ("sub-B", [SPANS_permuted[0], SPANS_permuted[2]])):
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
    both = blocks_of(VoxelTargets(toy_store, VOXELS), SPANS_permuted[:1], 5, seed=1)
    alone = blocks_of(VoxelTargets(toy_store, {"sub-B": VOXELS["sub-B"]}), SPANS_permuted[:1], 5, seed=1)
    other = blocks_of(VoxelTargets(toy_store, VOXELS), SPANS_permuted[:1], 5, seed=2)
    np.testing.assert_array_equal(both.source_rows("sub-B"), alone.source_rows("sub-B"))
    np.testing.assert_array_equal(both.source_rows("sub-A"), both.source_rows("sub-B"))
    assert (both.source_rows("sub-A") != other.source_rows("sub-A")).any()


@pytest.mark.parametrize(("story", "start", "stop"), [("toy1", 0, 5), ("toy1", 36, 38), ("toy5", 0, 1)])
def test_rows_outside_the_tuning_spans_cannot_be_asked_for(
    toy_store: StoryStore, story: str, start: int, stop: int
) -> None:
    targets = blocks_of(VoxelTargets(toy_store, VOXELS), SPANS_permuted, 7, seed=0)
    with pytest.raises(ValueError, match=f"of '{story}' are not tuning rows of 'sub-A'"):
        targets.rows("sub-A", story, start, stop)
