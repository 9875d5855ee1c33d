"""Warm starts and results that are put together from parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainlit.encoding import LeakError, ProbeCache, ProbeConfig, ProbeResult, WarmStart, run_probe, run_probes
from tests.encoding.conftest import Planted, make_planted

QUICK = ProbeConfig(low_level_impact=False)


@pytest.fixture(scope="module")
def data() -> Planted:
    return make_planted(seed=2, n_stories=6, n_trs=60, n_voxels=24)


@pytest.fixture(scope="module")
def cold(data: Planted) -> ProbeResult:
    Y = data.Y.copy()
    Y[:, 3] = 1.0
    return run_probe(data.bands, Y, data.groups, data.fit, data.score, QUICK)


def _arguments(data: Planted) -> tuple[np.ndarray, ...]:
    Y = data.Y.copy()
    Y[:, 3] = 1.0
    return Y, data.groups, data.fit, data.score


def test_choices_are_kept_for_every_model_and_voxel(cold: ProbeResult) -> None:
    gammas = np.asarray(cold.meta["gammas"])
    assert set(cold.gamma_index) == set(cold.alpha_index) == set(cold.r_by_model)
    for model, chosen in cold.gamma_index.items():
        assert chosen.dtype == cold.alpha_index[model].dtype == np.int16
        assert chosen[3] == cold.alpha_index[model][3] == -1
        used = np.asarray(gammas[chosen[cold.used]] > 0).any(axis=0)
        bands = np.array(["backbone", "low_level", "semantic"])[used]
        assert set(bands) <= set(model.split("+"))
    assert (cold.gamma_index["semantic"][cold.used] == 2).all()


def test_the_best_gammas_of_the_same_features_give_the_same_numbers(data: Planted, cold: ProbeResult) -> None:
    warm = run_probe(data.bands, *_arguments(data), QUICK, warm=WarmStart.from_result(cold, n_best=1))
    assert (cold.meta["warm_start"], warm.meta["warm_start"]) == (False, True)
    for model, r in cold.r_by_model.items():
        np.testing.assert_allclose(warm.r_by_model[model], r, atol=1e-5)
        np.testing.assert_array_equal(warm.gamma_index[model], cold.gamma_index[model])
    assert warm.gamma_ranking[warm.joint].min() == -1


def test_other_features_search_less_and_lose_little(
    data: Planted, cold: ProbeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brainlit.encoding.eigen_solvers import PrimalSearch

    asked: list[int] = []
    scores = PrimalSearch.cv_scores

    def counted(self: PrimalSearch, gamma: np.ndarray, targets: np.ndarray | None = None):  # type: ignore[no-untyped-def]
        asked.append(23 if targets is None else len(targets))
        return scores(self, gamma, targets)

    noise = np.random.default_rng(0).standard_normal(data.bands["backbone"].shape)
    bands = {**data.bands, "backbone": data.bands["backbone"] + 0.3 * noise}
    every = run_probe(bands, *_arguments(data), QUICK)
    monkeypatch.setattr(PrimalSearch, "cv_scores", counted)
    warm = run_probe(bands, *_arguments(data), QUICK, warm=WarmStart.from_result(cold, n_best=2))
    assert sum(asked) < 0.6 * 23 * 23
    assert abs(np.nanmean(warm.r - every.r)) < 2e-3


def test_a_warm_start_with_a_cache_is_the_same(data: Planted, cold: ProbeResult) -> None:
    cache, start = ProbeCache(), WarmStart.from_result(cold)
    before = run_probe(data.bands, *_arguments(data), QUICK, cache=cache, warm=start)
    run_probe(data.bands, *_arguments(data), QUICK, cache=cache)
    hits = cache.hits
    after = run_probe(data.bands, *_arguments(data), QUICK, cache=cache, warm=start)
    assert cache.hits > hits
    np.testing.assert_allclose(after.r, before.r, atol=1e-6)
    np.testing.assert_array_equal(after.gamma_ranking[after.joint], before.gamma_ranking[before.joint])


def test_choices_survive_the_file_and_older_files_load(data: Planted, cold: ProbeResult, tmp_path: Path) -> None:
    import h5py

    path = cold.save(tmp_path / "probe.h5")
    again = ProbeResult.load(path)
    assert again.gamma_ranking.keys() == cold.gamma_ranking.keys()
    first, second = WarmStart.from_result(cold), WarmStart.from_result(again)
    np.testing.assert_array_equal(first.wanted(), second.wanted())
    with h5py.File(path, "a") as file:
        for name in ("gamma_ranking", "alpha_index", "rest_predictions", "sub_split", "sub_unique"):
            del file[name]
    old = ProbeResult.load(path)
    assert old.gamma_index == {}
    with pytest.raises(ValueError, match="Probe once without a warm start"):
        WarmStart.from_result(old)


def test_warm_starts_of_other_probes_are_refused(data: Planted, cold: ProbeResult) -> None:
    start = WarmStart.from_result(cold)
    Y, groups, fit, score = _arguments(data)
    with pytest.raises(ValueError, match="remembers 5 gammas"):
        WarmStart.from_result(cold, n_best=6)
    with pytest.raises(ValueError, match="24 voxels, the responses 23"):
        run_probe(data.bands, Y[:, 1:], groups, fit, score, QUICK, warm=start)
    with pytest.raises(ValueError, match="n_gammas and seed"):
        run_probe(data.bands, Y, groups, fit, score, replace(QUICK, seed=5), warm=start)
    with pytest.raises(ValueError, match="warm starts for b, who are not probed; probed: a"):
        run_probes(data.bands, {"a": Y}, groups, fit, score, QUICK, warm={"b": start})
    renamed = {"glove" if band == "semantic" else band: X for band, X in data.bands.items()}
    others = replace(QUICK, bands={"low_level": None, "glove": ["glove"]})
    with pytest.raises(
        ValueError, match="has bands backbone, low_level, semantic, this probe backbone, low_level, glove"
    ):
        run_probe(renamed, Y, groups, fit, score, others, warm=start)
    last = groups == groups.max()
    with pytest.raises(LeakError, match="gammas may have been chosen on rows that are scored now"):
        run_probe(data.bands, Y, groups, ~last, last, QUICK, warm=start)


def test_subjects_without_a_warm_start_try_everything(data: Planted, cold: ProbeResult) -> None:
    Y, groups, fit, score = _arguments(data)
    both = run_probes(
        data.bands, {"a": Y, "b": Y}, groups, fit, score, QUICK, warm={"a": WarmStart.from_result(cold, 1)}
    )
    assert (both["a"].gamma_ranking[cold.joint] == -1).sum() > (both["b"].gamma_ranking[cold.joint] == -1).sum()
    np.testing.assert_array_equal(both["b"].gamma_ranking[cold.joint], cold.gamma_ranking[cold.joint])


def test_shares_of_the_voxels_join_to_the_whole(data: Planted) -> None:
    Y, *rows = _arguments(data)
    ceiling = np.linspace(0.2, 0.9, Y.shape[1])
    settings = ProbeConfig(n_gammas={1: 1, 2: 1, 3: 1}, alphas=(1e-3, 1e-2, 1e-1))
    whole = run_probe(data.bands, Y, *rows, settings, ceiling=ceiling)
    parts = [run_probe(data.bands, Y[:, v], *rows, settings, ceiling=ceiling[v]) for v in np.split(np.arange(24), 3)]
    joined = ProbeResult.join(parts)
    np.testing.assert_array_equal(joined.used, whole.used)
    np.testing.assert_allclose(joined.ceiling, whole.ceiling)
    for table in ("r_by_model", "partition", "split", "r_rest", "predictions", "rest_predictions", "alpha_index"):
        assert getattr(joined, table).keys() == getattr(whole, table).keys()
        for key, values in getattr(whole, table).items():
            np.testing.assert_allclose(getattr(joined, table)[key], values, atol=2e-5)
    assert joined.n_dropped == 1
    assert joined.alpha_at_edge == pytest.approx(whole.alpha_at_edge)
    assert joined.meta == whole.meta
    assert joined.meta["warnings"]
    assert np.isnan(ProbeResult.join([replace(parts[0], ceiling=None), *parts[1:]]).ceiling[:8]).all()


def test_parts_of_different_probes_do_not_join(data: Planted, cold: ProbeResult) -> None:
    other = replace(cold, meta={**cold.meta, "seed": 3})
    with pytest.raises(ValueError, match="differ in seed"):
        ProbeResult.join([cold, other])
    with pytest.raises(ValueError, match="differ in score_groups"):
        ProbeResult.join([cold, replace(cold, score_groups=cold.score_groups + 1)])
    with pytest.raises(ValueError, match="no results to join"):
        ProbeResult.join([])
