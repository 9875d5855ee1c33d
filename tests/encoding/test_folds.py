"""Folds: every row scored once by models that never saw it, and joined numbers that are those of the joined rows."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from brainlit.encoding.bootstrap import block_weights
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.folds import FoldRows, run_folds
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.temporal import TemporalBand
from brainlit.results.scores import FOLD_MEAN, probe_rows
from tests.encoding import fold_reference as reference

N_TRS, N_FOLDS, PURGE_TRS, LEAD_TRS = 220, 4, 12, 5
PER_TR = ProbeConfig(
    temporal="fir", keep_variance=1.0, n_gammas={1: 1, 2: 2, 3: 2}, purge_trs=reference.INNER_PURGE_TRS
)
ONE_ALPHA = replace(PER_TR, alphas=(10.0,))


def fold_rows(n_trs: int = N_TRS, n_folds: int = N_FOLDS, purge_trs: int = PURGE_TRS) -> list[FoldRows]:
    """Stretches of one story, each group preceded by the rows that feed its delays."""
    found = []
    for start, stop in pairwise(k * n_trs // n_folds for k in range(n_folds + 1)):
        spans = [(0, start - purge_trs), (start, stop), (stop + purge_trs, n_trs)]
        own = [(max(0, a - LEAD_TRS), a, b) for a, b in spans if b > a]
        rows = np.concatenate([np.arange(first, b) for first, _, b in own])
        groups = np.repeat(np.arange(len(own)), [b - first for first, _, b in own])
        inside = np.concatenate([np.arange(first, b) >= a for first, a, b in own])
        is_scored = np.array([own[group][1] == start for group in groups])
        found.append(FoldRows(rows, groups, inside & ~is_scored, inside & is_scored))
    return found


@pytest.fixture(scope="module")
def story() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words per TR, responses of 12 voxels that follow it ever less, and another feature."""
    rng = np.random.default_rng(5)
    rate = rng.poisson(4.0, (N_TRS, 1)).astype(float)
    other = np.cumsum(rng.standard_normal((N_TRS, 2)), axis=0) * 0.3
    signal = reference.fir(rate - rate.mean(), (2,)) + reference.fir(other, (1,))[:, :1]
    Y = signal * np.linspace(1.0, 0.0, 12) + 2.0 * rng.standard_normal((N_TRS, 12)) + np.linspace(0, 8, N_TRS)[:, None]
    return rate, Y, other


@pytest.fixture(scope="module")
def joined(story: tuple[np.ndarray, np.ndarray, np.ndarray]) -> ProbeResult:
    rate, Y, other = story
    bands = {"backbone": other, "low_level": rate, "semantic": rate * other[:, :1]}
    return run_folds(bands, {"": Y.astype(np.float32)}, fold_rows(), replace(PER_TR, sub_bands=False))[""]


@pytest.mark.parametrize("config", [ONE_ALPHA, PER_TR], ids=["one alpha", "nested choice of alpha"])
def test_delays_agree_with_plain_numpy(
    config: ProbeConfig, story: tuple[np.ndarray, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    rate, Y, _ = story
    monkeypatch.setattr(reference, "ALPHAS", np.array(config.alphas))
    expected = reference.fold_r(reference.fir(rate - rate.mean()), Y, N_FOLDS, PURGE_TRS, skip_trs=LEAD_TRS)
    found = run_folds({"low_level": rate}, {"": Y.astype(np.float32)}, fold_rows(), config)[""]
    assert expected.max() > 0.5
    near = 0.005 if config is ONE_ALPHA else 0.02
    np.testing.assert_allclose(found.r, expected, atol=near)


def test_the_haemodynamic_basis_agrees_with_plain_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    events_s = np.sort(rng.uniform(-40, 2 * N_TRS, 900))  # before the first row too: no transient to scale by
    X = reference.convolved(events_s, 1.0 + 2.0 * np.arange(N_TRS))
    Y = X @ rng.standard_normal((3, 8)) / X.std() + 2.0 * rng.standard_normal((N_TRS, 8))
    monkeypatch.setattr(reference, "ALPHAS", np.array(ONE_ALPHA.alphas))
    shares = [0.75, 0.125, 0.125]
    expected = reference.fold_r(X, Y, N_FOLDS, PURGE_TRS, skip_trs=LEAD_TRS, shares=shares)
    band = TemporalBand({"hrf": X[:, :1].astype(np.float32), "derivatives": X[:, 1:].astype(np.float32)})
    config = replace(ONE_ALPHA, temporal="hrf_derivatives")
    found = run_folds({"low_level": band}, {"": Y.astype(np.float32)}, fold_rows(), config)[""]
    assert expected.max() > 0.3
    np.testing.assert_allclose(found.r, expected, atol=0.005)


def test_every_row_is_scored_once_and_each_stretch_counts_apart(joined: ProbeResult) -> None:
    assert np.bincount(joined.score_groups).tolist() == [50, 55, 55, 55]
    assert joined.meta["fold_of_group"] == [0, 1, 2, 3]
    assert joined.meta["n_score_trs"] == len(joined.observed) == N_TRS - LEAD_TRS
    assert joined.meta["n_score_trs_by_fold"] == [50, 55, 55, 55]
    assert joined.meta["n_fit_trs_by_fold"] == [153, 136, 136, 148]


def test_numbers_are_those_of_the_joined_rows(
    joined: ProbeResult, story: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    """Responses in one scale for all folds: the correlation with the raw ones is 1, voxel by voxel."""
    _, Y, _ = story
    stretches = [(5, 55), (55, 110), (110, 165), (165, 220)]
    raw = np.concatenate([Y[a:b] - Y[a:b].mean(axis=0) for a, b in stretches])
    size = np.sqrt((raw**2).sum(axis=0) / (joined.observed.astype(float) ** 2).sum(axis=0))
    np.testing.assert_allclose(joined.observed * size, raw, atol=1e-4)
    for model, predicted in joined.predictions.items():
        p = np.concatenate([part - part.mean(axis=0) for part in np.split(predicted * size, [50, 105, 160])])
        np.testing.assert_allclose(joined.r2_by_model[model], 1 - ((raw - p) ** 2).sum(0) / (raw**2).sum(0), atol=1e-4)
        r = (raw * p).sum(axis=0) / np.sqrt((raw**2).sum(axis=0) * (p**2).sum(axis=0))
        np.testing.assert_allclose(joined.r_by_model[model], r, atol=1e-5)
    np.testing.assert_allclose(sum(joined.split.values()), joined.r2, atol=1e-4)
    np.testing.assert_allclose(sum(joined.partition.values()), joined.r2, atol=1e-6)
    assert set(joined.impact) == {"residual_lag0", "residual_lags", "banded_ridge"}
    assert all(np.isfinite(rest).all() for rest in joined.r_rest.values())


def test_what_a_fold_scores_and_purges_never_reaches_its_models(
    story: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Responses of the scored rows and of those beside them may be anything: predictions stay what they are."""
    rate, Y, _ = story
    changed = Y.copy()
    changed[55 - PURGE_TRS : 110 + PURGE_TRS] = 100.0 * np.random.default_rng(0).standard_normal((79, 12))
    runs = [run_folds({"low_level": rate}, {"": values}, fold_rows(), PER_TR)[""] for values in (Y, changed)]
    before, after = (run.predictions["low_level"][50:105].astype(float) for run in runs)
    ratio = after / before  # the unit of the joined rows is another one
    np.testing.assert_allclose(ratio, np.broadcast_to(np.median(ratio, axis=0), ratio.shape), rtol=1e-2)
    others = [run.predictions["low_level"][:50] for run in runs]
    assert np.corrcoef(others[0][:, 0], others[1][:, 0])[0, 1] < 0.999  # which were fitted on them


def test_a_voxel_that_one_fold_cannot_use_is_dropped(story: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    rate, Y, _ = story
    constant = Y.copy()
    constant[110:165, 3] = 1.0
    found = run_folds({"low_level": rate}, {"": constant}, fold_rows(), PER_TR)[""]
    assert found.n_dropped == 1
    assert np.flatnonzero(np.isnan(found.r)).tolist() == np.flatnonzero(~found.used).tolist() == [3]
    assert np.isnan(found.predictions["low_level"][:, 3]).all()
    assert np.isfinite(found.r[~np.isnan(found.r)]).all()


def test_a_result_of_folds_is_cut_joined_and_saved_like_any_other(joined: ProbeResult, tmp_path: Path) -> None:
    halves = [joined.select(slice(0, 5)), joined.select(slice(5, 12))]
    whole = ProbeResult.join(halves)
    np.testing.assert_array_equal(whole.r, joined.r)
    assert whole.alpha_at_edge == joined.alpha_at_edge
    assert {index.shape for index in joined.alpha_index.values()} == {(N_FOLDS, 12)}
    loaded = ProbeResult.load(joined.save(tmp_path / "probe.h5"))
    np.testing.assert_array_equal(loaded.r, joined.r)
    assert loaded.meta["fold_of_group"] == joined.meta["fold_of_group"]
    assert loaded.region() == pytest.approx(joined.region(), nan_ok=True)


def test_intervals_are_wider_by_what_the_fits_of_folds_share(joined: ProbeResult) -> None:
    """Replicates of a record lie sqrt(1 + scored / fitted rows) times as far out as those of fixed rows."""
    n_fit = np.mean([153, 136, 136, 148])
    assert joined.overlap_factor == pytest.approx(np.sqrt(1 + 215 / n_fit))
    fixed = replace(joined, meta={key: value for key, value in joined.meta.items() if key != "fold_of_group"})
    assert fixed.overlap_factor == 1.0
    blocks, regions = block_weights(joined.score_groups, 10, 50, 0), {"all voxels": joined.used}
    rows = [{row.metric: row.score for row in probe_rows(result, regions, 0, blocks)} for result in (joined, fixed)]
    assert set(rows[0]) - set(rows[1]) == {FOLD_MEAN}
    for metric in ("r_backbone", "r2_joint", "partition_backbone"):
        ours, plain = (own[metric].replicates - own[metric].value for own in rows)
        np.testing.assert_allclose(ours, plain * joined.overlap_factor, rtol=1e-6)


def test_wrong_folds_are_refused(story: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    rate, Y, _ = story
    with pytest.raises(ValueError, match="there are 1 folds; give at least 2"):
        run_folds({"low_level": rate}, {"": Y}, fold_rows()[:1], PER_TR)
    twice = [fold_rows()[0], fold_rows()[0]]
    with pytest.raises(ValueError, match="55 rows are scored by two folds, such as row 0"):
        run_folds({"low_level": rate}, {"": Y}, twice, PER_TR)
