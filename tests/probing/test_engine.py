"""The probe without a trainer: the same records as from the callback, also from ready features."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainlit.datamodules import StoryDataModule
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.probe import run_probe
from brainlit.encoding.temporal import Temporal
from brainlit.probing import budget as probe_budget
from brainlit.probing.budget import ProbeScope
from brainlit.probing.engine import ProbeContext, ProbeEngine
from brainlit.probing.hidden_states import layer_features
from brainlit.results.record import ProbeRecord, find_records, load_record, record_path
from tests.callbacks.toy_module import TOY_PROBE, ToyModule, toy_data, toy_probe, toy_trainer
from tests.toy import TwoClocks


@pytest.fixture
def data(toy_store_path: Path) -> StoryDataModule:
    ready = toy_data(toy_store_path)
    ready.prepare_data()
    ready.setup()
    return ready


def engine(**changes: Any) -> ProbeEngine:
    return toy_probe(**changes).engine


def test_it_makes_the_records_of_the_callback(data: StoryDataModule, toy_store_path: Path, tmp_path: Path) -> None:
    toy_trainer(tmp_path / "run", toy_probe(), epochs=0).fit(ToyModule(), toy_data(toy_store_path))
    module = ToyModule().train()
    state = torch.get_rng_state()
    facts = {"weights": "abc", "warnings": ["beware"]}
    context = ProbeContext(epoch=4, step=9, facts=facts)
    records = engine().measure(module, data, ["sub-A", "sub-B"], tmp_path / "own", context)
    assert module.training
    assert torch.equal(torch.get_rng_state(), state)
    assert [(record.subject, record.epoch, record.step) for record in records] == [("sub-A", 4, 9), ("sub-B", 4, 9)]
    for record in records:
        assert_same_scores(record, load_record(record_path(tmp_path / "run" / "probes", record.subject, 0)))
        used = record.regions["all voxels"]
        by_layer = load_record(record_path(tmp_path / "own", record.subject, 4)).r_by_layer
        assert sorted(by_layer) == sorted({layer for _, layer, metric in record.table.keys if metric == "r_backbone"})
        for layer, r in by_layer.items():
            row = record.table.get("all voxels", layer, "r_backbone")
            assert row is not None
            assert r[used].mean() == pytest.approx(row.score.value, abs=1e-6), layer
        assert record.facts["weights"] == "abc"
        *of_the_search, last = record.facts["warnings"]
        assert last == "beware"
        assert all("alpha" in text for text in of_the_search)


def test_a_record_says_where_voxels_lie_and_in_which_space(
    data: StoryDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = data.store.subject("sub-A")
    centres_mm = 2.0 * np.argwhere(np.ones((person.n_voxels, 1, 1), dtype=bool))
    store = type(data.store)
    monkeypatch.setattr(store, "settings", property(lambda _: {"responses": {"space": "MNI152NLin6Asym"}}))

    def recorded(**places: Any) -> ProbeRecord:
        monkeypatch.setattr(store, "subject", lambda *_: replace(person, **places))
        (record,) = engine().measure(ToyModule(), data, ["sub-A"], tmp_path, ProbeContext(epoch=0, step=0, facts={}))
        return record

    record = recorded(vertices=None, coordinates_mm=centres_mm)
    np.testing.assert_array_equal(record.coordinates_mm, centres_mm)
    assert record.facts["space"] == "MNI152NLin6Asym"
    on_surface = recorded(vertices=np.arange(person.n_voxels), coordinates_mm=centres_mm)
    assert on_surface.coordinates_mm is None, "one kind of places is enough"


def test_sub_bands_are_in_the_records_where_asked(data: StoryDataModule, tmp_path: Path) -> None:
    (plain,) = engine(layers=[1]).measure(ToyModule(), data, ["sub-A"], tmp_path / "plain")
    (record,) = engine(probe=replace(TOY_PROBE, sub_bands=True), layers=[1]).measure(
        ToyModule(), data, ["sub-A"], tmp_path / "parts"
    )
    found = {row.metric for row in record.table.rows} - {row.metric for row in plain.table.rows}
    assert found == {f"sub_{what}_low_level.spectral" for what in ("split", "unique")} | {
        f"sub_split_{band}" for band in ("backbone", "semantic")
    }
    split = [
        row.score.value
        for row in record.table.rows
        if row.metric.startswith("sub_split_") and row.region == "all voxels"
    ]
    joint = record.table.get("all voxels", record.layer, "r2_joint")
    assert joint is not None
    assert sum(split) == pytest.approx(joint.score.value, abs=0.02)


@pytest.mark.parametrize("temporal", ["fir", "hrf", "hrf_derivatives", "auto"])
def test_planted_voxels_are_found_whatever_the_temporal_choice(
    temporal: Temporal, data: StoryDataModule, tmp_path: Path
) -> None:
    config = replace(TOY_PROBE, temporal=temporal)
    (record,) = engine(probe=config, layers=[1]).measure(ToyModule(), data, ["sub-A"], tmp_path)
    parts = {"fir": ["fir"], "hrf": ["hrf"], "hrf_derivatives": ["hrf", "derivatives"]}
    assert list(record.facts["temporal"]) == ["backbone", "low_level", "semantic"]
    for own in record.facts["temporal"].values():
        assert sum(own.values()) == pytest.approx(1.0)
        assert temporal == "auto" or list(own) == parts[temporal]
    assert record.facts["filter"].startswith("none: it is not known what the responses passed")
    r = {metric: record.table.get(metric.partition("/")[0], record.layer, metric.partition("/")[2]) for metric in R}
    assert all(row is not None and row.score.value > 0.45 for row in r.values()), r


R = ("low_level/r_backbone", "low_level/r_low_level", "semantic/r_semantic")


def test_listeners_who_began_at_other_times_are_each_found(tmp_path: Path) -> None:
    data = toy_data(tmp_path / "store", TwoClocks())
    data.prepare_data()
    data.setup()
    records = engine(layers=[1]).measure(ToyModule(), data, ["sub-A", "sub-B"], tmp_path)
    assert [record.subject for record in records] == ["sub-A", "sub-B"]
    for record in records:
        for metric in R:
            row = record.table.get(metric.partition("/")[0], record.layer, metric.partition("/")[2])
            assert row is not None
            assert row.score.value > 0.45, (record.subject, metric)


def test_ready_features_give_the_same(data: StoryDataModule, tmp_path: Path) -> None:
    module, own = ToyModule(), engine(layers=[1])
    expected = own.measure(module, data, ["sub-B"], tmp_path / "model")
    features = layer_features(module, data, own.spans(data), [1, 2], progress=False)
    found = engine().measure_features(features, data, ["sub-B"], tmp_path / "array")
    assert_same_scores(found[0], expected[0])
    assert [record.layer for record in find_records(tmp_path / "array")] == [2]
    (other,) = engine().measure_features(features, data, ["sub-B"], tmp_path / "other", partition_layer=1)
    assert other.layer == 1


def test_features_that_do_not_fit_are_refused(data: StoryDataModule, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layer 3 have shape \(119, 2\); need \(120, n_features\)"):
        engine().measure_features({3: np.zeros((119, 2), np.float32)}, data, ["sub-A"], tmp_path)
    with pytest.raises(ValueError, match=r"layer 7 does not exist: there are features of the layers \[0\]"):
        engine().measure_features({0: np.zeros((120, 2), np.float32)}, data, ["sub-A"], tmp_path, partition_layer=7)


def random_features(seed: int) -> dict[int, np.ndarray]:
    return {0: np.random.default_rng(seed).standard_normal((120, 3)).astype(np.float32)}


def test_bands_that_did_not_change_are_looked_up(data: StoryDataModule, tmp_path: Path) -> None:
    own = engine(layers=[0], partition_layer=0)
    cache, n_bands, n_gammas = own.fits.cache, 3, 3 + 3 * 2 + 2
    own.measure_features(random_features(0), data, ["sub-A", "sub-B"], tmp_path)
    assert (cache.hits, cache.misses) == (0, n_bands + n_gammas)
    without_backbone = 2 + 2 + 2  # two bands, a gamma for each, and two for both together
    own.measure_features(random_features(1), data, ["sub-A", "sub-B"], tmp_path, ProbeContext(epoch=1))
    assert (cache.hits, cache.misses) == (without_backbone, 2 * (n_bands + n_gammas) - without_backbone)


def test_a_warm_start_can_be_read_from_the_last_record(data: StoryDataModule, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"layers": [0], "partition_layer": 0}
    first = engine(**settings)
    (cold,) = first.measure_features(random_features(0), data, ["sub-A"], tmp_path)
    assert cold.facts["warm_start"] is False
    for own in (first, engine(**settings)):
        own.remember(tmp_path, ["sub-A"], epoch=1)
        context = ProbeContext("during", 1, 3, warm=True)
        (warm,) = own.measure_features(random_features(0), data, ["sub-A"], tmp_path, context)
        assert warm.facts["warm_start"] is True
        np.testing.assert_allclose(warm.r, cold.r, atol=1e-6)


def test_thinned_voxels_are_neither_used_nor_dropped(
    data: StoryDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_budget, "FEWEST_PER_REGION", 1)
    own = engine(layers=[0], partition_layer=0)
    (whole,) = own.measure_features(random_features(0), data, ["sub-A"], tmp_path)
    n_gammas = {1: 1, 2: 2, 3: 2}
    context = ProbeContext(scope=ProbeScope((0,), 0.5, n_gammas))
    (half,) = own.measure_features(random_features(0), data, ["sub-A"], tmp_path, context)
    used = np.isfinite(half.r)
    assert 3 <= used.sum() < np.isfinite(whole.r).sum()
    np.testing.assert_allclose(half.r[used], whole.r[used], atol=1e-6)
    facts = half.facts
    assert facts["n_used"] + facts["n_dropped"] + facts["n_left_out"] == facts["n_voxels"] == len(half.r)
    assert (facts["n_used"], facts["n_dropped"]) == (used.sum(), whole.facts["n_dropped"])
    assert set(half.regions) == set(whole.regions)
    assert half.fingerprint == whole.fingerprint


def test_parts_travel_between_processes_unchanged() -> None:
    rng = np.random.default_rng(0)
    bands = {name: rng.standard_normal((80, 2)) for name in ("backbone", "low_level")}
    groups = np.repeat([0, 1, 2, 3], 20)
    config = ProbeConfig(n_folds=2, delays_trs=(1,), low_level_impact=False)
    result = run_probe(bands, rng.standard_normal((80, 5)), groups, groups < 3, groups == 3, config)
    again = pickle.loads(pickle.dumps(result))
    for field in fields(result):
        np.testing.assert_equal(getattr(again, field.name), getattr(result, field.name))


def assert_same_scores(found: ProbeRecord, expected: ProbeRecord) -> None:
    assert found.table.keys == expected.table.keys
    assert found.layer == expected.layer
    np.testing.assert_array_equal(found.r, expected.r)
    values = [[row.score.value for row in record.table.rows] for record in (found, expected)]
    np.testing.assert_array_equal(*values)


@pytest.mark.parametrize(("search", "changes"), [("all", False), ("coarse", True)])
def test_records_do_not_compare_where_others_were_the_first_mixtures(
    data: StoryDataModule, monkeypatch: pytest.MonkeyPatch, search: Any, changes: bool
) -> None:
    own = ProbeEngine(ProbeConfig(mixture_search=search))
    now = own.fingerprint(data, "sub-A")
    monkeypatch.setattr("brainlit.probing.engine.FIRST_MIXTURES", "single bands, equal shares of two")
    assert (own.fingerprint(data, "sub-A") != now) == changes
