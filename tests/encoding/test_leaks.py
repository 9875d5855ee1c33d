"""Planted leaks: each is refused with a reason, or reaches no number because of how the probe is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from brainlit.encoding import (
    LeakError,
    ProbeConfig,
    ProbeResult,
    Span,
    WarmStart,
    delay_within,
    make_roles,
    refuse_leaking_folds,
    refuse_scored,
    refuse_tuned,
    residual_features,
    run_probe,
    standardise,
)
from brainlit.encoding.arrays import position_in_group
from brainlit.encoding.bands import rotate_band
from brainlit.encoding.search import Fold, make_folds
from tests.encoding.conftest import Planted, make_planted

QUICK = ProbeConfig(n_gammas={1: 1, 2: 1, 3: 1}, alphas=(1e-2, 1e-1, 1.0, 10.0), low_level_impact=False)
N_TRS = {"alice": 300, "alice_again": 300, "tea": 200, "end": 150}
SOUNDS = {"alice": "aaa", "alice_again": "aaa", "tea": "bbb", "end": "ccc"}


@pytest.fixture(scope="module")
def data() -> Planted:
    return make_planted(seed=9, n_stories=5, n_trs=60, n_voxels=12)


@pytest.fixture(scope="module")
def clean(data: Planted) -> ProbeResult:
    return probe(data)


def probe(data: Planted, **changed: object) -> ProbeResult:
    arguments = {"bands": data.bands, "Y": data.Y, "groups": data.groups, "fit": data.fit, "score": data.score}
    return run_probe(**{**arguments, "config": QUICK, **changed})  # type: ignore[arg-type]


# --- Roles ---


def test_a_story_in_two_roles() -> None:
    with pytest.raises(LeakError, match=r"alice\[0:300\] \(tune\) and alice\[0:300\] \(score\) share 300 TRs"):
        make_roles({"tune": ["alice"], "score": ["alice"]}, N_TRS, purge_trs=10)


def test_spans_closer_than_the_purge() -> None:
    with pytest.raises(LeakError, match="5 TRs apart; window and delays reach over 10 TRs"):
        make_roles({"fit": ["tea[:100]"], "score": ["tea[105:]"]}, N_TRS, purge_trs=10)


def test_one_sound_under_two_names() -> None:
    asked = {"tune": ["alice"], "fit": ["tea"], "score": ["alice_again"]}
    assert make_roles(asked, N_TRS, 10).stories("score") == ("alice_again",)
    with pytest.raises(LeakError, match=r"'alice' \(tune\) and 'alice_again' \(score\) are the same sound"):
        make_roles(asked, N_TRS, 10, sounds=SOUNDS)
    assert make_roles(asked, N_TRS, 10, allow=["tune and score"], sounds=SOUNDS).allow == ("tune and score",)
    within = {"tune": ["alice", "alice_again"], "score": ["end"]}
    assert make_roles(within, N_TRS, 10, sounds=SOUNDS).n_trs("tune") == 600


@pytest.mark.parametrize("purpose", ["choosing voxels by their ceiling", "choosing a checkpoint", "permuted targets"])
def test_what_decides_something_looks_at_scored_rows(purpose: str) -> None:
    """A ceiling for voxel selection, a checkpoint, a permutation: none may look at scored rows or next to them."""
    roles = make_roles({"tune": ["alice"], "choose": ["tea[:90]"], "score": ["tea[100:]", "end"]}, N_TRS, purge_trs=10)
    refuse_scored(roles, [*roles.spans("choose"), *roles.spans("tune")], purpose)
    with pytest.raises(LeakError, match=rf"{purpose} would look at end\[0:150\]"):
        refuse_scored(roles, [*roles.spans("choose"), Span("end", 0, 150)], purpose)
    with pytest.raises(LeakError, match=r"tea\[0:95\], and tea\[100:200\] is scored"):
        refuse_scored(roles, [Span("tea", 0, 95)], purpose)


def test_what_the_roles_allow_in_words_is_allowed_for_that_role_only() -> None:
    asked = {"tune": ["alice"], "choose": ["end"], "score": ["end"]}
    roles = make_roles(asked, N_TRS, 10, allow=["choose and score"])
    refuse_scored(roles, roles.spans("choose"), "choosing a checkpoint")
    with pytest.raises(LeakError, match="choosing a checkpoint"):
        refuse_scored(roles, [Span("end", 0, 20)], "choosing a checkpoint")


def test_tuned_stories_in_the_held_out_data() -> None:
    held_out = make_roles({"fit": ["tea"], "score": ["end"]}, N_TRS, 10)
    with pytest.raises(LeakError, match=r"'end' \(score of the held-out data\) is 'end', which was tuned on"):
        refuse_tuned(held_out, ["end"])
    with pytest.raises(LeakError, match=r"'tea' \(fit of the held-out data\) is 'the_tea'"):
        refuse_tuned(held_out, ["the_tea"], SOUNDS, {"the_tea": "bbb"})
    refuse_tuned(held_out, ["end"], SOUNDS, {"end": "another sound of that name"})
    refuse_tuned(replace(held_out, allow=("tune and score",)), ["end"])


# --- Rows of a probe ---


def test_fitted_and_scored_rows_in_one_group(data: Planted) -> None:
    score = data.score.copy()
    score[50:60] = True
    with pytest.raises(LeakError, match="group 0 is both fitted and scored"):
        probe(data, fit=data.fit & ~score, score=score)


def test_folds_that_split_a_story(data: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(groups: np.ndarray, n_folds: int, purge_trs: int, times: np.ndarray) -> list[Fold]:
        rows = np.arange(len(groups))
        return [Fold(rows[rows % n_folds != k], rows[rows % n_folds == k]) for k in range(n_folds)]

    monkeypatch.setattr("brainlit.encoding.probe_fit.make_folds", careless)
    with pytest.raises(LeakError, match="fold 0 trains on rows of group 0 that are 1 TRs from rows it holds out"):
        probe(data)


def test_folds_of_blocks_without_a_purge() -> None:
    groups = np.zeros(100, dtype=np.int64)
    times = position_in_group(groups)
    refuse_leaking_folds(make_folds(groups, 4, 8), groups, times, 8)
    with pytest.raises(LeakError, match="group 0 that are 5 TRs from rows it holds out; the purge is 8"):
        refuse_leaking_folds(make_folds(groups, 4, 5), groups, times, 8)


def test_a_warm_start_that_saw_the_scored_rows(data: Planted, clean: ProbeResult) -> None:
    first = data.groups == 0
    with pytest.raises(LeakError, match="chosen on rows that are scored now"):
        probe(data, fit=~first, score=first, warm=WarmStart.from_result(clean))


# --- Leaks that cannot be, for the numbers do not move ---

Change = Callable[[np.ndarray, np.ndarray], None]


def _louder(values: np.ndarray, rows: np.ndarray) -> None:
    values[rows] *= 50.0


def _noise(values: np.ndarray, rows: np.ndarray) -> None:
    values[rows] = 50.0 * np.random.default_rng(0).standard_normal(values[rows].shape)


@pytest.mark.parametrize("change", [_louder, _noise])
def test_a_scale_of_features_that_knows_the_scored_stories(data: Planted, change: Change) -> None:
    X = data.bands["backbone"].copy()
    before = standardise(X, data.groups, data.fit)
    change(X, data.score)
    np.testing.assert_array_equal(standardise(X, data.groups, data.fit)[data.fit], before[data.fit])


@pytest.mark.parametrize("change", [_louder, _noise])
def test_alphas_gammas_and_voxels_chosen_on_scored_stories(data: Planted, clean: ProbeResult, change: Change) -> None:
    Y, bands = data.Y.copy(), {band: X.copy() for band, X in data.bands.items()}
    change(Y, data.score)
    for X in bands.values():
        change(X, data.score)
    other = probe(data, Y=Y, bands=bands)
    assert not np.allclose(other.observed, clean.observed)
    np.testing.assert_array_equal(other.used, clean.used)
    for model in clean.r_by_model:
        np.testing.assert_array_equal(other.alpha_index[model], clean.alpha_index[model])
        np.testing.assert_array_equal(other.gamma_ranking[model], clean.gamma_ranking[model])


def test_predictions_that_know_other_scored_stories(data: Planted, clean: ProbeResult) -> None:
    Y, bands = data.Y.copy(), {band: X.copy() for band, X in data.bands.items()}
    last = data.groups == 4
    for values in (Y, *bands.values()):
        _noise(values, last)
    other = probe(data, Y=Y, bands=bands)
    kept = clean.score_groups == 3
    np.testing.assert_array_equal(other.predictions[clean.joint][kept], clean.predictions[clean.joint][kept])


def test_delays_across_a_storys_border(data: Planted) -> None:
    X = data.bands["backbone"].copy()
    before = delay_within(X, data.groups, (1, 2, 3, 4))
    _noise(X, data.groups == 2)
    after = delay_within(X, data.groups, (1, 2, 3, 4))
    np.testing.assert_array_equal(after[data.groups != 2], before[data.groups != 2])
    with pytest.raises(ValueError, match="must be contiguous"):
        probe(data, groups=np.where(data.groups == 2, 0, data.groups))


@pytest.mark.parametrize("lags_trs", [(0,), (-2, -1, 0, 1, 2)])
def test_low_level_features_regressed_out_with_scored_rows(data: Planted, lags_trs: tuple[int, ...]) -> None:
    config = ProbeConfig(alphas=(1e-2, 1.0), n_folds=3, purge_trs=0)
    backbone, low_level = data.bands["backbone"].copy(), data.bands["low_level"].copy()
    before = residual_features(backbone, low_level, data.groups, data.fit, lags_trs, config)
    _noise(backbone, data.score)
    _louder(low_level, data.score)
    after = residual_features(backbone, low_level, data.groups, data.fit, lags_trs, config)
    np.testing.assert_array_equal(after[data.fit], before[data.fit])


def test_principal_components_of_scored_rows(data: Planted) -> None:
    X = data.bands["backbone"].astype(np.float32)
    before = rotate_band(X, data.fit, 0.9)
    _louder(X, data.score)
    np.testing.assert_array_equal(rotate_band(X, data.fit, 0.9)[data.fit], before[data.fit])
