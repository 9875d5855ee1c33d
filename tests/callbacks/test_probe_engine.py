"""The probe without a trainer: the same records as from the callback, also from ready features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainlit.callbacks.layer_features import layer_features
from brainlit.callbacks.probe_engine import ProbeEngine
from brainlit.datamodules import StoryDataModule
from brainlit.results.record import ProbeRecord, find_records, load_record, record_path
from tests.callbacks.toy_module import ToyModule, toy_data, toy_probe, toy_trainer


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
    records = engine().measure(module, data, ["sub-A", "sub-B"], tmp_path / "own", epoch=4, step=9, facts=facts)
    assert module.training
    assert torch.equal(torch.get_rng_state(), state)
    assert [(record.subject, record.epoch, record.step) for record in records] == [("sub-A", 4, 9), ("sub-B", 4, 9)]
    for record in records:
        assert_same_scores(record, load_record(record_path(tmp_path / "run" / "probes", record.subject, 0)))
        assert (record.facts["weights"], record.facts["warnings"]) == ("abc", ["beware"])


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


def assert_same_scores(found: ProbeRecord, expected: ProbeRecord) -> None:
    assert found.table.keys == expected.table.keys
    assert found.layer == expected.layer
    np.testing.assert_array_equal(found.r, expected.r)
    values = [[row.score.value for row in record.table.rows] for record in (found, expected)]
    np.testing.assert_array_equal(*values)
