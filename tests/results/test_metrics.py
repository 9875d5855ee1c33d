"""What the curves of a run say about how it learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainlit.results.metrics import METRICS_FILE, learning_warnings, read_metrics, validations, worse_than_mean_said
from brainlit.results.report import write_report
from brainlit.results.run_directory import RunDirectory, read_json, write_json_atomic
from brainlit.results.summary import RUN_FILE, SUMMARY_FILE, build_summary


def found(losses, of_mean=1.0):
    steps = [10 * k + 9 for k in range(len(losses))]
    curves = {"val/loss": list(zip(steps, losses, strict=True))}
    if of_mean is not None:
        curves["val/loss_of_mean"] = [(step, of_mean) for step in steps]
    return validations(curves)


@pytest.mark.parametrize(
    ("losses", "of_mean", "worse"),
    [
        ([0.71, 5.8], 0.98, True),
        ([5.8, 0.71], 0.98, False),
        ([0.98], 0.98, False),
        ([0.99], 0.98, True),
        ([5.8], None, False),
        ([], None, False),
    ],
)
def test_a_run_that_ends_worse_than_the_mean(losses, of_mean, worse):
    said = worse_than_mean_said(found(losses, of_mean))
    assert bool(said) == worse
    assert any("worse than predicting" in text for text in learning_warnings(found(losses, of_mean), {})) == worse


def test_the_lowest_loss_is_named_where_the_run_went_on_past_it():
    (text,) = learning_warnings(found([0.71, 5.8], 0.98), {})
    assert text.startswith(
        "Training ended worse than predicting the mean of every target: validation loss 5.8, that of the mean 0.98. The"
        " lowest was 0.71 (checkpoint best)."
    )


@pytest.mark.parametrize(
    ("losses", "falls"),
    [
        ([0.9, 0.8, 0.7], True),
        ([0.9, 0.8, 0.796], False),  # half a percent
        ([0.7, 0.9, 0.8], False),  # it has been lower
        ([0.8, 0.9], False),
        ([0.8], False),
        ([-0.2, -0.3], True),  # a correlation's loss may be negative
    ],
)
def test_a_loss_that_still_falls(losses, falls):
    said = learning_warnings(found(losses), {})
    assert any("had not stopped falling" in text and "--trainer.max_epochs" in text for text in said) == falls


def test_the_headline_and_the_warnings_of_a_report_say_so(tmp_path: Path):
    run = RunDirectory.create(tmp_path, "e", "one")
    write_json_atomic(run.path / RUN_FILE, {"warnings": ["The run is too short to learn."]})
    rows = ["epoch,step,train/loss,val/loss,val/loss_of_mean", "0,0,0.9,,", "0,1,,0.71,0.98", "1,3,,5.8,0.98"]
    (run.path / METRICS_FILE).write_text("\n".join(rows) + "\n")
    page = write_report(run).read_text()
    summary = read_json(run.path / SUMMARY_FILE)
    assert summary["validation"] == [
        {"step": 1, "loss": 0.71, "of_mean": 0.98},
        {"step": 3, "loss": 5.8, "of_mean": 0.98},
    ]
    worse = "Training ended worse than predicting the mean of every target: validation loss 5.8, that of the mean 0.98."
    assert summary["headline"][-1] == worse
    short, mean = summary["warnings"]
    assert "too short to learn" in short
    assert mean.startswith(worse)
    assert page.count("worse than predicting the mean") == 2  # headline and warnings
    assert "too short to learn" in page
    (run.path / METRICS_FILE).write_text("\n".join([*rows[:2], "1,3,,0.9,0.98"]) + "\n")
    assert not any("predicting the mean" in text for text in build_summary(run)["headline"])


def test_a_run_without_metrics_warns_of_nothing(tmp_path: Path):
    assert read_metrics(tmp_path / METRICS_FILE) == {}
    summary = build_summary(RunDirectory.create(tmp_path, "e", "one"))
    assert (summary["validation"], summary["warnings"]) == ([], [])
