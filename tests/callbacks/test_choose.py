"""The checkpoint that is chosen by probe, the curve over layers and epochs, and what a probe leaves out for time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from brainlit.callbacks import ChooseCheckpoint, LayerCurve, RunReport
from brainlit.callbacks import report as report_callback
from brainlit.callbacks.choose import check_choosing
from brainlit.encoding import probe as encoding_probe
from brainlit.encoding import probe_fit
from brainlit.encoding.banded import open_search
from brainlit.encoding.config import ProbeConfig, SolverConfig
from brainlit.probing import budget as probe_budget
from brainlit.probing import engine as probe_engine
from brainlit.probing import layer_fits
from brainlit.probing.plan import refuse_scored_monitors
from brainlit.results import report as report_module
from brainlit.results.figures import layer_epochs_figure
from brainlit.results.layer_curve import read_curve
from brainlit.results.record import find_records
from brainlit.results.run_directory import RunDirectory, read_json
from brainlit.results.summary import build_summary
from brainlit.splits import LeakError, make_roles
from tests.callbacks.toy_module import ToyModule, toy_data, toy_probe, toy_trainer

QUICK = ProbeConfig(delays_trs=(1, 2, 3), n_folds=2, temporal="fir")


STEP_S, STATES_S, FITS_S = 2.0, 1.0, 5.0
"""Seconds of a training step, of the hidden states of a batch, and of the encoding models of one layer."""


class Clock:
    """Takes the place of the module `time`: it goes on only where the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def takes(self, seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which now takes so long."""

        def timed(*arguments: Any, **options: Any) -> Any:
            self.now_s += seconds
            return function(*arguments, **options)

        return timed


@pytest.fixture(scope="module")
def run(toy_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs with a probe before and after, a curve at each epoch and a chosen checkpoint."""
    path, clock = tmp_path_factory.mktemp("runs") / "toy" / "one", Clock()
    curve = LayerCurve(probe=QUICK, block_trs=8, n_bootstraps=20)
    callbacks = (toy_probe(), curve, ChooseCheckpoint(probe=QUICK), RunReport())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_module, "draw_figures", lambda *_, **__: ({}, {}))
        for module in (probe_engine, layer_fits, report_callback):
            patch.setattr(module, "time", clock)
        patch.setattr(encoding_probe, "run_probes", clock.takes(FITS_S, encoding_probe.run_probes))
        patch.setattr(ToyModule, "pooled_states", clock.takes(STATES_S, ToyModule.pooled_states))
        patch.setattr(ToyModule, "training_step", clock.takes(STEP_S, ToyModule.training_step))
        trainer = toy_trainer(path, *callbacks, epochs=2, enable_checkpointing=True)
        trainer.fit(ToyModule(), toy_data(toy_store_path))
    return path


@pytest.fixture(scope="module")
def summary(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return loaded


def test_the_best_checkpoint_on_choose_is_kept_and_said(run: Path, summary: dict[str, Any]) -> None:
    chosen = read_json(run / "chosen.json")
    assert chosen["by"] == "choose/semantic/r"
    assert (chosen["fit_spans"], chosen["choose_spans"]) == (["toy2[0:40]", "toy3[0:40]"], ["toy4[0:40]"])
    values = [row["scores"]["choose/semantic/r"] for row in chosen["epochs"]]
    assert (chosen["value"], chosen["epoch"]) == (max(values), 1 + int(np.argmax(values)))
    assert Path(chosen["checkpoint"]) == run / "checkpoints" / "best-by-probe.ckpt"
    assert Path(chosen["checkpoint"]).is_file()
    assert chosen["epochs"][0]["scores"]["choose/low_level/r"] > 0.7
    with (run / "metrics.csv").open(newline="") as file:
        logged = [float(row["choose/low_level/r"]) for row in csv.DictReader(file) if row.get("choose/low_level/r")]
    assert logged == pytest.approx([row["scores"]["choose/low_level/r"] for row in chosen["epochs"]])
    assert summary["chosen"] == chosen
    page = " ".join((run / "report.html").read_text().split())
    assert "best-by-probe.ckpt, after epoch" in page
    assert "toy4[0:40], which are neither tuned on nor scored" in page


def test_the_curve_has_the_numbers_of_the_probe_at_every_epoch(run: Path) -> None:
    rows = {(row.epoch, row.region, row.layer): row for row in read_curve(run / "layer_curve.csv")}
    assert {epoch for epoch, _, _ in rows} == {0, 1, 2}
    before = [record for record in find_records(run / "probes") if record.epoch == 0]
    for layer in (0, 1, 2):
        found = [record.table.get("low_level", layer, "r_backbone") for record in before]
        mean = np.mean([row.score.value for row in found if row is not None])
        assert rows[0, "low_level", layer].r == pytest.approx(mean, abs=1e-6)
        assert rows[0, "low_level", layer].low < mean < rows[0, "low_level", layer].high  # type: ignore[operator]
    with (run / "metrics.csv").open(newline="") as file:
        assert sum(bool(row.get("curve/low_level/layer-2")) for row in csv.DictReader(file)) == 3


def test_layers_over_epochs_are_drawn(summary: dict[str, Any]) -> None:
    figure = layer_epochs_figure(summary, ["low_level", "semantic"])
    assert figure is not None
    assert "Best layer in low_level: epoch 0: layer" in figure.alt
    fewer = [row for row in summary["layer_epochs"] if row["epoch"] < 2]
    assert layer_epochs_figure({**summary, "layer_epochs": fewer}, ["low_level"]) is None


def test_time_of_probes_is_compared_with_that_of_training(run: Path, summary: dict[str, Any]) -> None:
    seconds = summary["seconds"]
    n_epochs, n_steps, n_probes, n_batches, n_layers = 2, 2, 2, 3, 3
    records = find_records(run / "probes")
    assert seconds["probes"] == pytest.approx(n_probes * (n_batches * STATES_S + n_layers * FITS_S))
    assert seconds["probes"] == pytest.approx(sum(record.facts["seconds"] for record in records))
    assert seconds["training"] == pytest.approx(n_epochs * n_steps * STEP_S), "neither probes, curves nor choosing"
    assert seconds["probes"] + seconds["training"] < summary["run"]["seconds"]
    assert seconds["share"] == pytest.approx(seconds["probes"] / seconds["training"])
    assert "% of training)" in (run / "report.html").read_text()


@pytest.fixture(scope="module")
def thinned(toy_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs whose probes have no time."""
    path = tmp_path_factory.mktemp("runs") / "toy" / "thinned"
    probe = toy_probe(every_n_epochs=1, max_seconds_per_probe=1e-6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_budget, "FEWEST_PER_REGION", 1)
        toy_trainer(path, probe, epochs=3).fit(ToyModule(), toy_data(toy_store_path))
    return path


def test_a_probe_without_time_is_thinned_and_says_so(thinned: Path) -> None:
    records = [record for record in find_records(thinned / "probes") if record.subject == "sub-A"]
    assert [record.stage for record in records] == ["before", "during", "during", "after"]
    least = {"layers": [2], "voxel_share": 0.0625, "n_gammas": {"1": 1, "2": 1, "3": 1}}
    assert [record.facts["thinned"] for record in records] == [least] * 4
    assert records[0].facts["thinned_words"].startswith("1 of 3 layers, 6.25 % of the voxels, mixtures per number")
    assert len({np.isfinite(record.r).tobytes() for record in records}) == 1
    assert {layer for _, layer, _ in records[0].table.keys} == {2}
    assert {"low_level", "semantic"} <= set(records[0].regions)


def test_only_probes_during_training_start_warm(thinned: Path) -> None:
    records = [record for record in find_records(thinned / "probes") if record.subject == "sub-B"]
    assert [record.facts["warm_start"] for record in records] == [False, True, True, False]


def test_before_and_after_must_leave_out_the_same(thinned: Path) -> None:
    run, records = RunDirectory(thinned), find_records(thinned / "probes")
    assert build_summary(run, records, "finished")["probe"]["thinned"]["layers"] == [2]
    records[-1].facts["thinned"]["voxel_share"] = 0.5
    with pytest.raises(ValueError, match="leave out different layers, voxels or mixtures"):
        build_summary(run, records, "finished")


@pytest.mark.parametrize("callback", [ChooseCheckpoint, LayerCurve, toy_probe])
def test_it_computes_where_and_as_precisely_as_asked(
    callback: Any, toy_store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = SolverConfig("primal", precision="float64", device="cpu:0", n_targets_batch=7, memory_gb=0.5)
    calls: list[SolverConfig] = []

    def recorded(*arguments: Any) -> Any:
        calls.append(arguments[-1])
        return open_search(*arguments)

    monkeypatch.setattr(probe_fit, "open_search", recorded)
    own = callback(probe=replace(QUICK, solver=asked))
    toy_trainer(tmp_path, own, epochs=1, enable_checkpointing=True).fit(ToyModule(), toy_data(toy_store_path))
    assert calls
    assert set(calls) == {asked}


@pytest.mark.parametrize(
    ("roles", "allow", "message"),
    [
        ({"tune": ["a"], "fit": ["b"], "score": ["c"]}, (), "the role 'choose' has no stories"),
        ({"fit": ["b"], "choose": ["c[0:50]"], "score": ["c[40:90]"]}, ("choose and score",), "the role 'score'"),
        ({"fit": ["b"], "choose": ["c[0:50]"], "score": ["c[55:90]"]}, ("choose and score",), "less than 9 TRs"),
        ({"tune": ["a"], "fit": ["b"], "choose": ["a"], "score": ["c"]}, ("tune and choose",), "the role 'tune'"),
    ],
)
def test_choosing_by_stories_of_another_role_is_refused(
    roles: dict[str, list[str]], allow: tuple[str, ...], message: str
) -> None:
    with pytest.raises(LeakError, match=message):
        check_choosing(make_roles(roles, dict.fromkeys("abc", 90), 9, allow))


def test_a_run_that_would_choose_by_nothing_does_not_start(toy_store_path: Path, tmp_path: Path) -> None:
    data = toy_data(toy_store_path, roles={"tune": ["toy0"], "fit": ["toy2", "toy3"], "score": ["toy5"]})
    trainer = toy_trainer(tmp_path, ChooseCheckpoint(probe=QUICK), epochs=1, enable_checkpointing=True)
    module = ToyModule()
    with pytest.raises(LeakError, match="'choose' has no stories"):
        trainer.fit(module, data)
    assert not module.drawn


@pytest.mark.parametrize(
    "callback",
    [ModelCheckpoint(monitor="probe/semantic/layer-2/r_backbone", mode="max"), EarlyStopping("curve/semantic/layer-2")],
)
def test_a_checkpoint_chosen_on_scored_stories_is_refused(callback: Any) -> None:
    trainer: Any = SimpleNamespace(callbacks=[ModelCheckpoint(monitor="val/loss"), ModelCheckpoint(), callback])
    with pytest.raises(LeakError, match="of the stories that are scored"):
        refuse_scored_monitors(trainer)
    trainer.callbacks.pop()
    refuse_scored_monitors(trainer)
