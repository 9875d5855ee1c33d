"""What test says of its number, and what predict writes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brainlit.cli.computed import about_test_r, predicted_sentence
from brainlit.results.run_directory import write_json_atomic
from brainlit.splits import make_roles


def _data(regime: str = "brain", n_batches: int = 3) -> Any:
    spans = {"fit": ["a", "b"], "score": ["c", "d[4:10]"]}
    return SimpleNamespace(
        regime=regime,
        roles=make_roles(spans, dict.fromkeys("abcd", 20), purge_trs=2),
        store=SimpleNamespace(n_trs=lambda story: 20),
        test_dataloader=lambda: [0] * n_batches,
        predict_dataloader=lambda: [0] * n_batches,
    )


def _trainer(n_batches: int = 3, **more: Any) -> Any:
    counts = {"num_test_batches": [n_batches], "num_predict_batches": [n_batches]}
    return SimpleNamespace(**{"callback_metrics": {"test/r": 0.1}, "fast_dev_run": False, **counts, **more})


MODEL: Any = SimpleNamespace(hparams={"layer": -2}, backbone=SimpleNamespace(n_layers=4))


def test_it_says_rows_layer_and_whose_predictions(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "best.ckpt"
    write_json_atomic(tmp_path / "summary.json", {"probe": {"layer": 4, "n_score_trs": 16, "fit_stories": ["a", "b"]}})
    said = about_test_r(_trainer(), MODEL, _data(), checkpoint)
    assert said == (
        "test/r is the correlation of the tuned head's own predictions, from layer 3 in best.ckpt, with the responses,"
        " over all 26 rows of c, d[4:10], as the mean of all targets; the r of the report is another number: it is that"
        " of ridge encoding models, which are fitted anew on a, b to the states of layer 4 before training and after"
        " its last step, over the 16 rows that a probe scores (not the first of a story), by region."
    )


def test_without_a_report_and_with_some_batches_it_is_said_too(tmp_path: Path) -> None:
    said = about_test_r(_trainer(2), MODEL, _data("language_model"), tmp_path / "x.ckpt")
    assert "with the representations of the regime language_model, which are no brain's" in said
    assert "over those in the first 2 of 3 batches of the 26 rows of c, d[4:10]" in said
    assert "to the states of a layer before training" in said


def test_where_nothing_is_predicted_nothing_is_said(tmp_path: Path) -> None:
    assert about_test_r(_trainer(callback_metrics={}), MODEL, _data("stimulus"), tmp_path / "x.ckpt") == ""


def test_a_trial_writes_no_predictions(tmp_path: Path) -> None:
    said = predicted_sentence(_trainer(1, fast_dev_run=1), [], _data(), tmp_path / "run" / "checkpoints" / "x.ckpt")
    assert said == "A trial run (fast_dev_run): what was predicted (1 of 3 batches) is not written."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("n_batches", "end"), [(3, "predictions.h5"), (2, "(2 of 3 batches): rows of the others are NaN")]
)
def test_predictions_say_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_batches: int, end: str
) -> None:
    monkeypatch.setattr("brainlit.cli.computed.write_predictions", lambda *given: tmp_path / "predictions.h5")
    said = predicted_sentence(_trainer(n_batches), [], _data(), tmp_path / "x.ckpt")
    assert said.startswith(f"Predictions: {tmp_path / 'predictions.h5'}")
    assert said.endswith(end)
