"""The whole probe: identities, anchors, leaks, what may be missing, and its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from brainlit.encoding import (
    EncodingModel,
    LeakError,
    ProbeCache,
    ProbeConfig,
    ProbeResult,
    SolverConfig,
    WarmStart,
    banded,
    noise_ceiling,
    run_probe,
    run_probes,
)
from brainlit.encoding.bands import gather_bands
from brainlit.encoding.ceiling import signal_rows
from brainlit.encoding.probe import sub_band_pool
from tests.encoding.conftest import Planted, make_planted, unit_response

QUICK = ProbeConfig(low_level_impact=False, temporal="fir")


@pytest.fixture(scope="module")
def result(planted: Planted) -> ProbeResult:
    Y = planted.Y.copy()
    Y[:, 0] = 3.0
    Y[5, 1] = np.nan
    Y[104, 2] = np.nan
    ceiling = np.full(Y.shape[1], 0.7)
    return run_probe(planted.bands, Y, planted.groups, planted.fit, planted.score, ceiling=ceiling)


def test_shapes_and_dropped_voxels(planted: Planted, result: ProbeResult) -> None:
    n_voxels, n_score = planted.Y.shape[1], int(planted.score.sum()) - 2 * 5
    assert result.n_dropped == 2
    assert result.used.sum() == n_voxels - result.n_dropped
    assert result.observed.shape == result.predictions["backbone"].shape == (n_score, n_voxels)
    assert result.observed.dtype == result.predictions[result.joint].dtype == np.float32
    assert set(result.predictions) == set(result.r_by_model)
    assert result.score_groups.tolist() == [6] * 95 + [7] * 95
    assert len(result.r_by_model) == len(result.r2_by_model) == len(result.partition) == 7
    for table in (result.r_by_model, result.r2_by_model, result.split, result.partition, result.impact):
        for values in table.values():
            assert np.isnan(values[:2]).all()
            assert np.isfinite(values[2])
            assert values.shape == (n_voxels,)


def test_split_and_partition_add_up_to_the_joint_score(result: ProbeResult) -> None:
    np.testing.assert_allclose(sum(result.split.values()), result.r2, atol=1e-6)
    np.testing.assert_allclose(sum(result.partition.values()), result.r2, atol=1e-12)
    np.testing.assert_array_equal(result.r, result.r_by_model["backbone+low_level+semantic"])


def test_stored_predictions_give_the_stored_scores(result: ProbeResult) -> None:
    for model, predicted in result.predictions.items():
        for voxel in (2, 30):
            y, p = result.observed[:, voxel].astype(float), predicted[:, voxel].astype(float)
            assert np.corrcoef(y, p)[0, 1] == pytest.approx(result.r_by_model[model][voxel], abs=1e-4)
            assert 1 - np.sum((y - p) ** 2) / np.sum(y**2) == pytest.approx(result.r2_by_model[model][voxel], abs=1e-5)


def test_a_region_is_a_ratio_of_means(result: ProbeResult) -> None:
    region = np.arange(result.r.size) % 2 == 0
    summary, inside = result.region(region), region & result.used
    r_b = result.r_by_model["backbone"][inside].mean()
    assert summary["n_voxels"] == inside.sum()
    assert summary["r/backbone"] == pytest.approx(r_b)
    assert summary["impact/residual_lags"] == pytest.approx(
        100 * (r_b - result.r_rest["residual_lags"][inside].mean()) / r_b
    )
    r2 = {model: values[inside].mean() for model, values in result.r2_by_model.items()}
    share = (r2["backbone"] + r2["low_level"] - r2["backbone+low_level"]) / r2["backbone"]
    assert summary["low_level_share"] == pytest.approx(share)
    y, p = result.observed[:, inside].astype(float), result.predictions[result.joint][:, inside].astype(float)
    together = (y * p).sum() / np.sqrt(np.square(y).sum() * np.square(p).sum())
    assert summary["r_together"] == pytest.approx(together, rel=1e-4)
    assert summary["ceiling"] == pytest.approx(0.7)
    assert summary["r_over_ceiling"] == pytest.approx(together / 0.7, rel=1e-4)
    np.testing.assert_allclose(result.r_over_ceiling, result.r / 0.7)
    assert np.isnan(result.region(np.zeros(result.r.size, dtype=bool))["r"])
    with pytest.raises(ValueError, match="region mask has shape"):
        result.region(region[:-1])


def test_noise_scores_nothing_and_responses_predict_themselves(planted: Planted) -> None:
    rng = np.random.default_rng(3)
    noise = run_probe(
        planted.bands, rng.standard_normal(planted.Y.shape), planted.groups, planted.fit, planted.score, QUICK
    )
    assert abs(np.mean(noise.r)) < 0.03
    assert abs(np.mean(noise.r2)) < 0.02
    Y = planted.Y[:, :8]
    own = ProbeConfig(delays_trs=(0,), keep_variance=1.0, low_level_impact=False)
    perfect = run_probe({"backbone": Y}, Y, planted.groups, planted.fit, planted.score, own)
    assert perfect.r.min() > 0.99
    assert perfect.r2.min() > 0.99


def test_larger_models_have_cv_scores_at_least_as_high(planted: Planted) -> None:
    from brainlit.encoding.probe_fit import ProbeFit
    from brainlit.encoding.probe_rows import prepare_rows, prepare_targets

    rows = prepare_rows(planted.groups, planted.fit, planted.score, 5, len(planted.Y))
    nested = ProbeFit(rows, prepare_targets(planted.Y, rows), QUICK).fit_nested(planted.bands)
    for model, choice in nested.choices.items():
        for larger, other in nested.choices.items():
            if set(model.split("+")) < set(larger.split("+")):
                assert (other.cv_scores >= choice.cv_scores).all()


def test_scored_rows_change_no_prediction(planted: Planted) -> None:
    """Responses of scored stories, and features of other scored stories, reach no prediction."""
    first = run_probe(planted.bands, planted.Y, planted.groups, planted.fit, planted.score, QUICK)
    Y = planted.Y.copy()
    Y[planted.score] = np.random.default_rng(5).standard_normal(Y[planted.score].shape) * 50
    bands = {band: X.copy() for band, X in planted.bands.items()}
    last = planted.groups == planted.groups.max()
    bands["backbone"][last] *= 9
    other = run_probe(bands, Y, planted.groups, planted.fit, planted.score, QUICK)
    rows = first.score_groups != planted.groups.max()
    np.testing.assert_array_equal(first.predictions[first.joint][rows], other.predictions[first.joint][rows])


def test_solvers_agree_on_the_whole_probe() -> None:
    data = make_planted(seed=11, n_stories=6, n_trs=60, n_voxels=40, noise=2.0)
    arguments = (data.bands, data.Y, data.groups, data.fit, data.score)
    primal, reference = (
        run_probe(*arguments, ProbeConfig(solver=SolverConfig(solver), n_gammas={1: 1, 2: 2, 3: 3}, keep_variance=1.0))
        for solver in ("primal", "himalaya")
    )
    assert (primal.meta["solver"], reference.meta["solver"]) == ("primal", "himalaya")
    for model in primal.r_by_model:
        difference = primal.r_by_model[model] - reference.r_by_model[model]
        assert abs(difference.mean()) < 3e-4
        assert (np.abs(difference) < 0.01).mean() >= 0.97
    for way in primal.r_rest:
        np.testing.assert_allclose(primal.r_rest[way], reference.r_rest[way], atol=0.01)
    unique = primal.partition["semantic"], reference.partition["semantic"]
    assert np.corrcoef(*unique)[0, 1] > 0.98


def test_the_default_rank_changes_little(planted: Planted) -> None:
    arguments = (planted.bands, planted.Y, planted.groups, planted.fit, planted.score)
    less, full = (run_probe(*arguments, replace(QUICK, keep_variance=keep)) for keep in (0.999, 1.0))
    assert abs((less.r - full.r).mean()) < 3e-4
    assert np.quantile(np.abs(less.r - full.r), 0.99) < 0.01


def test_missing_bands_leave_out_what_needs_them(planted: Planted) -> None:
    rest = (planted.Y[:, :10], planted.groups, planted.fit, planted.score)
    two = run_probe({k: planted.bands[k] for k in ("low_level", "backbone")}, *rest)
    assert set(two.partition) == {"backbone", "low_level", "backbone&low_level"}
    assert two.joint == "backbone+low_level"
    assert set(two.impact) == {"residual_lag0", "residual_lags", "banded_ridge"}
    one = run_probe({"backbone": planted.bands["backbone"]}, *rest)
    assert set(one.partition) == {"backbone"}
    assert one.impact == {}
    assert one.low_level_share is None
    assert "low_level_share" not in one.region()


def test_same_seed_same_numbers_other_seed_others(planted: Planted) -> None:
    arguments = (planted.bands, planted.Y, planted.groups, planted.fit, planted.score)
    first, again, other = (run_probe(*arguments, replace(QUICK, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.r, again.r)
    assert not np.array_equal(first.r, other.r)


def test_the_cache_changes_nothing_and_forgets_nothing_wrongly(planted: Planted) -> None:
    cache = ProbeCache()
    arguments = (planted.groups, planted.fit, planted.score, QUICK)
    run_probe(planted.bands, planted.Y, *arguments, cache=cache)
    assert cache.hits == 0
    bands = {**planted.bands, "backbone": planted.bands["backbone"][::-1].copy()}
    cached = run_probe(bands, planted.Y, *arguments, cache=cache)
    assert cache.hits == 2 + 2 + 4
    np.testing.assert_array_equal(cached.r, run_probe(bands, planted.Y, *arguments).r)
    hits = cache.hits
    run_probe(planted.bands, planted.Y + 1e-3 * planted.Y**2, *arguments, cache=cache)
    assert cache.hits == hits + 3
    small = ProbeCache(max_bytes=1)
    run_probe(planted.bands, planted.Y, *arguments, cache=small)
    assert len(small) == 1


def test_a_single_long_span_is_fitted_on_purged_blocks(planted: Planted) -> None:
    groups = planted.score.astype(int)
    result = run_probe(planted.bands, planted.Y, groups, planted.fit, planted.score, QUICK)
    assert result.meta["n_fit_groups"] == 1
    assert result.meta["purge_trs"] == 8
    assert result.r.mean() > 0.4


def test_the_file_gives_back_all_but_the_predictions_of_some_models(result: ProbeResult, tmp_path: Path) -> None:
    path = result.save(tmp_path / "new" / "probe.h5")
    again = ProbeResult.load(path)
    for name in ("r", "r2", "observed", "score_groups", "used", "ceiling"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    for name in ("r_by_model", "split", "partition", "impact", "r_rest"):
        assert list(getattr(again, name)) == list(getattr(result, name))
        for key, values in getattr(result, name).items():
            np.testing.assert_array_equal(getattr(again, name)[key], values)
    assert set(again.predictions) == {"backbone", "low_level", "backbone+low_level", result.joint}
    for model, values in again.predictions.items():
        np.testing.assert_array_equal(values, result.predictions[model])
    assert again.meta == result.meta
    assert again.alpha_at_edge == result.alpha_at_edge
    assert again.region() == result.region()
    with h5py.File(path, "a") as file:  # as an earlier brainlit wrote it
        file.attrs["version"] = 1
        for table in ("r_rest", "impact"):
            for way in ("residual_lags", "banded_ridge"):
                file[table][way][:] = -1.0
    assert ProbeResult.load(path).region() == pytest.approx(result.region(), abs=1e-6, nan_ok=True)
    assert ProbeResult.load(replace(result, ceiling=None).save(path)).ceiling is None
    assert [p.name for p in path.parent.iterdir()] == ["probe.h5"]


def test_a_failed_write_leaves_the_old_file(result: ProbeResult, tmp_path: Path) -> None:
    path = result.save(tmp_path / "probe.h5")
    with pytest.raises(TypeError):
        replace(result, meta={"joint": object()}).save(path)
    assert ProbeResult.load(path).joint == result.joint
    assert [p.name for p in tmp_path.iterdir()] == ["probe.h5"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no probe at"):
        ProbeResult.load(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["format"] = "recipe"
    with pytest.raises(ValueError, match="is 'recipe' version 0"):
        ProbeResult.load(tmp_path / "other.h5")


def test_groups_that_are_fitted_and_scored_are_refused(planted: Planted) -> None:
    score = planted.score.copy()
    score[10] = True
    with pytest.raises(LeakError, match="group 0 is both fitted and scored"):
        run_probe(planted.bands, planted.Y, planted.groups, planted.fit, score)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": {"syntax": np.ones((800, 1))}}, "no other"),
        ({"bands": {"backbone": np.ones((799, 1))}}, r"\(800, n_features\)"),
        ({"bands": {"backbone": np.full((800, 1), np.inf)}}, "is inf at row 0"),
        ({"fit": np.zeros(800, dtype=bool)}, "0 fitted rows"),
        ({"score": np.zeros(799, dtype=bool)}, "one entry for"),
        ({"Y": np.ones((800, 4))}, "none of 4 voxels"),
        ({"ceiling": np.ones(3)}, "ceiling has shape"),
    ],
)
def test_senseless_input_is_named(planted: Planted, change: dict[str, object], message: str) -> None:
    arguments = {
        "bands": {"low_level": planted.bands["low_level"]},
        "Y": planted.Y[:, :4],
        "groups": planted.groups,
        "fit": planted.fit,
        "score": planted.score,
    }
    with pytest.raises(ValueError, match=message):
        run_probe(**{**arguments, **change})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delays_trs": ()}, "at least one delay"),
        ({"n_folds": 1}, "at least 2"),
        ({"skip_trs": -1}, "not negative"),
        ({"keep_variance": 0.0}, "share in"),
        ({"alphas": (1.0, 1.0)}, "increasing"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbeConfig(**settings)


def test_ceiling_and_probe_fit_together(planted: Planted, tmp_path: Path) -> None:
    """The mean of three repeats of a planted signal is predicted up to its ceiling."""
    rng = np.random.default_rng(8)
    clean = make_planted(seed=4, noise=0.0)
    repeats = clean.Y[clean.score] + rng.standard_normal((3, int(clean.score.sum()), clean.Y.shape[1]))
    Y = clean.Y + 0.5 * rng.standard_normal(clean.Y.shape)
    Y[clean.score] = repeats.mean(axis=0)
    ceiling = noise_ceiling(repeats, clean.groups[clean.score])
    first_rows = np.flatnonzero(np.diff(clean.groups[clean.score], prepend=-1))
    kept = np.ones(repeats.shape[1], dtype=bool)
    kept[[row + k for row in first_rows for k in range(QUICK.skip_trs)]] = False
    groups = clean.groups[clean.score][kept]
    signal = signal_rows([repeats[:, kept][:, groups == group] for group in np.unique(groups)])
    for given in (ceiling.ceiling_r, signal):
        probe = run_probe(clean.bands, Y, clean.groups, clean.fit, clean.score, QUICK, ceiling=given)
        assert probe.region()["r_over_ceiling"] == pytest.approx(1.0, abs=0.06)
    np.testing.assert_allclose(probe.ceiling, ceiling.ceiling_r, atol=0.05)
    assert probe.signal is not None
    path = probe.save(tmp_path / "probe.h5")
    np.testing.assert_array_equal(ProbeResult.load(path).signal, signal)
    half = probe.select(np.arange(4)), probe.select(np.arange(4, probe.r.size))
    np.testing.assert_array_equal(ProbeResult.join(half).signal, signal)
    unknown = replace(half[1], ceiling=None, signal=None)
    assert np.isnan(ProbeResult.join([half[0], unknown]).signal[:, 4:]).all()
    with pytest.raises(ValueError, match=r"ceiling has shape .* for each of the \d+ scored rows too"):
        run_probe(clean.bands, Y, clean.groups, clean.fit, clean.score, QUICK, ceiling=signal[1:])


def test_a_subject_without_a_usable_voxel_is_named(planted: Planted) -> None:
    masks = planted.groups, planted.fit, planted.score
    flat = np.ones_like(planted.Y[:, :3])
    with pytest.raises(ValueError, match="no voxel of flat is finite and changing"):
        run_probes(planted.bands, {"fine": planted.Y, "flat": flat}, *masks, QUICK)
    with pytest.raises(ValueError, match="Y of short has shape"):
        run_probes(planted.bands, {"fine": planted.Y, "short": planted.Y[:-1]}, *masks, QUICK)


def test_subjects_probed_together_get_what_each_gets_alone(planted: Planted) -> None:
    ours, theirs = planted.Y[:, :7].copy(), planted.Y[:, 7:].copy()
    ours[:, 2] = 1.0
    masks = planted.groups, planted.fit, planted.score
    ceilings = {"b": np.full(theirs.shape[1], 0.5)}
    together = run_probes(planted.bands, {"a": ours, "b": theirs}, *masks, QUICK, ceilings=ceilings)
    assert together["a"].ceiling is None
    assert together["a"].n_dropped == 1
    for name, Y in (("a", ours), ("b", theirs)):
        alone, joined = run_probe(planted.bands, Y, *masks, QUICK), together[name]
        np.testing.assert_allclose(joined.r, alone.r, atol=1e-5)
        np.testing.assert_allclose(joined.observed, alone.observed, atol=1e-6)
        for part, values in alone.partition.items():
            np.testing.assert_allclose(joined.partition[part], values, atol=1e-5)
        assert joined.alpha_at_edge == pytest.approx(alone.alpha_at_edge)
        assert joined.meta["alpha_at_low_edge"] == pytest.approx(alone.meta["alpha_at_low_edge"])


# --- Input that needs a word ---


def test_one_story_to_fit_on_is_cut_into_purged_blocks_and_said(planted: Planted) -> None:
    one = planted.groups == 0
    alone = run_probe(
        planted.bands, planted.Y[:, :5], planted.groups, one, planted.score, replace(QUICK, delays_trs=(1,))
    )
    assert alone.meta["folds"] == "blocks with 2 TRs purged"
    assert alone.meta["n_fit_groups"] == 1
    more = run_probe(planted.bands, planted.Y[:, :5], planted.groups, planted.fit, planted.score, QUICK)
    assert more.meta["folds"] == "whole groups"


def test_stories_shorter_than_the_delays(planted: Planted) -> None:
    groups = np.arange(len(planted.Y)) // 3
    score = groups >= groups.max() - 50
    config = replace(QUICK, skip_trs=0)
    with pytest.raises(ValueError, match="longest fitted group has 3 TRs and the shortest delay is 3"):
        run_probe(planted.bands, planted.Y, groups, ~score, score, replace(config, delays_trs=(3, 4)))
    groups = np.where(planted.groups == 0, 100 + groups, planted.groups)
    low_level = {"low_level": planted.bands["low_level"]}
    result = run_probe(low_level, planted.Y[:, :5], groups, planted.fit, planted.score, config)
    short = [text for text in result.meta["warnings"] if "longest delay, 4" in text]
    assert len(short) == 1
    assert short[0].startswith("34 of 41 used groups (such as 100)")


def test_a_band_without_variance_explains_nothing_and_is_named(planted: Planted) -> None:
    bands = {"backbone": planted.bands["backbone"], "semantic": np.full((800, 4), 2.5)}
    result = run_probe(bands, planted.Y[:, :5], planted.groups, planted.fit, planted.score, QUICK)
    assert [text for text in result.meta["warnings"] if "band 'semantic' is constant" in text]
    assert not result.r_by_model["semantic"].any()
    np.testing.assert_array_equal(result.split["semantic"], 0.0)
    np.testing.assert_allclose(result.partition["semantic"], 0.0, atol=0.01)


@pytest.mark.parametrize(
    ("alphas", "end", "cure"),
    [
        ((10.0, 100.0), "smallest alpha, 10:", " --probe.alphas [0.1,1,10,100]"),
        ((1e-5, 1e-4, 1e-3), "largest alpha, 0.001:", " --probe.alphas [0.00001,0.0001,0.001,0.01,0.1]"),
    ],
)
def test_alphas_at_an_end_of_the_grid_are_said_with_the_cure(
    planted: Planted, alphas: tuple[float, ...], end: str, cure: str
) -> None:
    arguments = ({"low_level": planted.bands["low_level"]}, planted.Y, planted.groups, planted.fit, planted.score)
    (text,) = run_probe(*arguments, replace(QUICK, alphas=alphas)).meta["warnings"]
    assert end in text
    assert text.endswith(cure)
    assert run_probe(*arguments, QUICK).meta["warnings"] == []


def test_voxels_without_signal_choose_the_largest_alpha_and_warn_of_nothing(planted: Planted) -> None:
    """Half of the voxels hear nothing: they lie at the end of the default grid, where no longer one could help them."""
    Y = planted.Y.copy()
    n_null = Y.shape[1] // 2
    Y[:, :n_null] = np.random.default_rng(5).standard_normal((len(Y), n_null))
    arguments = ({"low_level": planted.bands["low_level"]}, Y, planted.groups, planted.fit, planted.score)
    found = run_probe(*arguments, QUICK)
    at_end = found.alpha_index["low_level"] == len(QUICK.alphas) - 1
    assert at_end[:n_null].mean() > 0.2
    assert at_end[n_null:].mean() == 0.0
    assert np.abs(found.r2_by_model["low_level"][at_end]).max() < 0.01
    assert found.meta["alpha_at_high_edge"]["low_level"] > 0.1, "what a file says of all voxels"
    assert found.meta["warnings"] == []
    longer = run_probe(*arguments, replace(QUICK, alphas=(*QUICK.alphas, 1e5, 1e6)))
    np.testing.assert_allclose(found.r2_by_model["low_level"], longer.r2_by_model["low_level"], atol=0.003)


def test_a_warning_goes_with_the_voxels_that_it_is_about(planted: Planted) -> None:
    """A warning goes where the voxels that matter are left out, and so do those of earlier versions."""
    arguments = ({"low_level": planted.bands["low_level"]}, planted.Y, planted.groups, planted.fit, planted.score)
    found = run_probe(*arguments, replace(QUICK, alphas=(10.0, 100.0)))
    old = "9 % chose the largest alpha. Give a longer grid: probe.alphas from 1 to 10, np.logspace(0, 1, 2)."
    found = replace(found, meta={**found.meta, "warnings": [*found.meta["warnings"], old, "something else."]})
    weak = replace(found, r2_by_model={model: 0.001 * r2 for model, r2 in found.r2_by_model.items()})
    assert found.lasting_warnings == ["something else."]
    assert len(found.select(slice(None)).meta["warnings"]) == 2
    assert weak.select(slice(None)).meta["warnings"] == ["something else."]


def test_memory_besides_the_responses_stays_below_twice_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A brain scaled down: float32 responses are copied once, and all else goes in blocks of voxels."""
    import tracemalloc

    from brainlit.encoding import probe_fit, probe_rows

    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 150)
    X, Y = rng.standard_normal((1200, 3)), rng.standard_normal((1200, 4000), dtype=np.float32)
    Y[0, ::100] = np.nan
    monkeypatch.setattr(probe_rows, "BLOCK_BYTES", Y.nbytes // 20)
    monkeypatch.setattr(probe_fit, "VOXELS_AT_ONCE", 400)
    score = groups == 7
    config = ProbeConfig(n_gammas={1: 1, 2: 1}, alphas=(0.1, 1.0, 10.0), delays_trs=(1, 2), low_level_impact=False)
    config = replace(config, skip_trs=0, solver=SolverConfig(memory_gb=0.002))
    tracemalloc.start()
    result = run_probe({"backbone": X, "semantic": X[::-1].copy()}, Y, groups, ~score, score, config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.n_dropped == 40
    assert peak < 2.0 * Y.nbytes


@pytest.mark.parametrize("solver", ["auto", "kernel", "himalaya"])
def test_the_solvers_settings_reach_every_ridge(monkeypatch: pytest.MonkeyPatch, solver: str) -> None:
    """The models, both residuals and the ridges before them, sub-bands, a warm start, an estimator."""
    seen: list[SolverConfig] = []
    real = banded._solver_class

    def recording(name: str) -> Callable[..., object]:
        def make(*arguments: Any) -> object:
            seen.append(arguments[-1])
            return real(name)(*arguments)  # type: ignore[arg-type]

        return make

    monkeypatch.setattr(banded, "_solver_class", recording)
    asked = SolverConfig(solver, "float64", "cpu:0", n_targets_batch=7, memory_gb=1.5)
    few = {"alphas": (0.1, 10.0), "n_gammas": {1: 1, 2: 1, 3: 1}, "n_folds": 2, "delays_trs": (1, 2)}
    config = ProbeConfig(solver=asked, sub_bands=True, **few)
    rng = np.random.default_rng(0)
    groups, Y = np.repeat(np.arange(4), 30), rng.standard_normal((120, 3))
    sizes = {"backbone": 4, "low_level/spectral": 2, "low_level/rates": 1, "semantic": 3}
    bands = {name: rng.standard_normal((120, size)) for name, size in sizes.items()}
    rows = (groups, groups < 3, groups == 3)
    cold = run_probe(bands, Y, *rows, config)
    n_ridges = len(seen)
    assert n_ridges == 6, "all models, sub-bands, and two residuals with a ridge before each"
    run_probe(bands, Y, *rows, config, warm=WarmStart.from_result(cold))
    EncodingModel(config).fit({"backbone": bands["backbone"]}, Y, groups)
    assert len(seen) == 2 * n_ridges + 1
    assert {replace(own, name=solver) for own in seen} == {asked}


# --- The finer cut: parts of the low-level band each get back what was planted in them ---


GROUPS = np.repeat(np.arange(6), 80)
SCORE = GROUPS >= 4
FINER = ProbeConfig(n_gammas={1: 1, 2: 2, 3: 4}, low_level_impact=False, sub_bands=True)


def bands_and_responses() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """10 voxels of the spectrum, 10 of the rates, 10 of half of each; phonemic features explain nothing."""
    rng = np.random.default_rng(0)
    spectral, phonemic, rates, own = (rng.standard_normal((GROUPS.size, n)) for n in (4, 3, 2, 3))
    sound, pace = (unit_response(X, GROUPS, 30, rng) for X in (spectral, rates))
    kind = np.repeat([0, 1, 2], 10)
    signal = np.where(kind == 0, sound, np.where(kind == 1, pace, (sound + pace) / np.sqrt(2)))
    bands = {
        "low_level/spectral": spectral,
        "backbone": np.c_[own, spectral + rng.standard_normal(spectral.shape)],
        "low_level/phonemic": phonemic,
        "low_level/rates": rates,
    }
    return bands, signal + rng.standard_normal(signal.shape)


@pytest.fixture(scope="module")
def result_sub_bands() -> ProbeResult:
    return run_probe(*bands_and_responses(), GROUPS, ~SCORE, SCORE, FINER)


def test_planted_parts_come_back(result_sub_bands: ProbeResult) -> None:
    assert set(result_sub_bands.sub_split) == {
        "backbone",
        "low_level/spectral",
        "low_level/phonemic",
        "low_level/rates",
    }
    assert set(result_sub_bands.sub_unique) == set(result_sub_bands.sub_split) - {"backbone"}
    rates, spectral, phonemic = (
        result_sub_bands.sub_unique[f"low_level/{name}"] for name in ("rates", "spectral", "phonemic")
    )
    assert np.abs(rates[:10]).max() < 0.05
    assert rates[10:20].mean() == pytest.approx(0.5, abs=0.07)
    assert rates[20:].mean() == pytest.approx(0.25, abs=0.07)
    assert spectral[:10].mean() > 0.2 > 0.05 > np.abs(spectral[10:20]).max()
    assert abs(phonemic.mean()) < 0.01
    assert sum(values[20:].mean() for values in result_sub_bands.sub_split.values()) == pytest.approx(
        result_sub_bands.r2[20:].mean(), abs=0.02
    )


def test_whole_bands_are_what_they_are_without_the_finer_cut(result_sub_bands: ProbeResult) -> None:
    bands, Y = bands_and_responses()
    low_level = np.concatenate([X for band, X in bands.items() if band != "backbone"], axis=1)
    whole = {"backbone": bands["backbone"], "low_level": low_level}
    plain = run_probe(whole, Y, GROUPS, ~SCORE, SCORE, ProbeConfig(n_gammas=FINER.n_gammas, low_level_impact=False))
    assert plain.sub_split == plain.sub_unique == {}
    assert (
        result_sub_bands.partition.keys() == plain.partition.keys() == {"backbone", "low_level", "backbone&low_level"}
    )
    for part, values in plain.partition.items():
        np.testing.assert_allclose(result_sub_bands.partition[part], values, atol=1e-6)
    coarse = run_probe(bands, Y, GROUPS, ~SCORE, SCORE, ProbeConfig(n_gammas=FINER.n_gammas, low_level_impact=False))
    np.testing.assert_array_equal(coarse.r, result_sub_bands.r)
    assert coarse.sub_split == {}


def test_sub_bands_are_cached_and_saved(result_sub_bands: ProbeResult, tmp_path: Path) -> None:
    cache = ProbeCache()
    bands, Y = bands_and_responses()
    run_probe(bands, Y, GROUPS, ~SCORE, SCORE, FINER, cache=cache)
    hits = cache.hits
    again = run_probe(
        {**bands, "backbone": bands["backbone"][::-1].copy()}, Y, GROUPS, ~SCORE, SCORE, FINER, cache=cache
    )
    assert cache.hits - hits >= 2 + 3 + 3
    assert again.sub_split.keys() == result_sub_bands.sub_split.keys()
    loaded = ProbeResult.load(result_sub_bands.save(tmp_path / "probe.h5"))
    for name, values in result_sub_bands.sub_unique.items():
        np.testing.assert_array_equal(loaded.sub_unique[name], values)


def test_a_model_without_a_sub_band_has_the_joint_models_mixtures() -> None:
    names = ("backbone", "low_level/rates", "low_level/spectral")
    pool = sub_band_pool(names, {1: 1, 2: 2, 3: 3}, seed=0)
    assert pool.shape == (3 + 3 * 3, 3)
    np.testing.assert_allclose(pool.sum(axis=1), 1.0)
    joint, without = pool[3:6], pool[6:9]
    assert (joint > 0).all()
    assert (without[:, 1] == 0).all()
    np.testing.assert_allclose(without[:, 0] / without[:, 2], joint[:, 0] / joint[:, 2])


def test_a_band_comes_whole_or_in_parts() -> None:
    one = np.ones((3, 1))
    whole, parts = gather_bands(
        {"semantic": one, "low_level/rates": one, "backbone": one, "low_level/phonemic": 2 * one}
    )
    assert list(whole) == ["backbone", "low_level", "semantic"]
    assert list(parts) == ["backbone", "low_level/rates", "low_level/phonemic", "semantic"]
    np.testing.assert_array_equal(whole["low_level"], [[1, 2]] * 3)
    with pytest.raises(ValueError, match="'low_level' is given whole and as low_level/rates"):
        gather_bands({"low_level": one, "low_level/rates": one})
    with pytest.raises(ValueError, match="at least one of backbone"):
        gather_bands({"syntax/depth": one})
