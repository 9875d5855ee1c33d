from __future__ import annotations

import csv
import json
import logging
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from brainlit.callbacks import BandedRidgeProbe, RunReport, probe_log
from brainlit.cli.training import parsed
from brainlit.encoding.config import ProbeConfig, SolverConfig
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.temporal import HaemodynamicResponse
from brainlit.probing.inputs import weights_hash
from brainlit.probing.shared import FOLDER
from brainlit.results import report as report_module
from brainlit.results.record import find_records, load_record, record_path
from brainlit.results.run_directory import RunDirectory, RunFinishedError
from tests.callbacks.toy_module import TOY_PROBE, ToyModule, toy_data, toy_probe, toy_trainer
from tests.matrix import mini_folder

BACKEND = "numpy"
EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def backend() -> str:
    from himalaya.backend import get_backend

    return str(get_backend().name)


@pytest.fixture(scope="module")
def fitted(toy_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ToyModule]:
    """A finished run of three epochs with a probe after the first and second, and a report."""
    path = tmp_path_factory.mktemp("runs") / "toy" / "one"
    torch.manual_seed(3)
    module = ToyModule()
    trainer = toy_trainer(path, toy_probe(every_n_epochs=1), RunReport(), epochs=3)
    with pytest.MonkeyPatch.context() as patch:  # figures have tests of their own, and take most of the time
        patch.setattr(report_module, "draw_figures", lambda *_, **__: ({}, {}))
        trainer.fit(module, toy_data(toy_store_path))
    return path, module


def test_each_probe_leaves_files_tables_and_scalars(fitted: tuple[Path, ToyModule]) -> None:
    path, _ = fitted
    records = find_records(path / "probes")
    assert [(r.stage, r.epoch, r.step) for r in records if r.subject == "sub-A"] == [
        ("before", 0, 0),
        ("during", 1, 2),
        ("during", 2, 4),
        ("after", 3, 6),
    ]
    assert {record.subject for record in records} == {"sub-A", "sub-B"}
    assert sorted(p.name for p in (path / "probes").glob("*.csv")) == [f"epoch-00{k}.csv" for k in range(4)]
    with (path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    stages = ("before", "during", "after")
    found = {name: [row["step"] for row in rows if row[f"probe/{name}/semantic/layer-2/r_backbone"]] for name in stages}
    assert found == {"before": ["0"], "during": ["2", "4"], "after": ["6"]}
    both = [r.table.get("low_level", 2, "r_backbone") for r in records if r.epoch == 3]
    mean = np.mean([row.score.value for row in both if row is not None])
    assert float(rows[-1]["probe/after/low_level/layer-2/r_backbone"]) == pytest.approx(mean)


def test_the_planted_answer_comes_out(fitted: tuple[Path, ToyModule]) -> None:
    record = load_record(record_path(fitted[0] / "probes", "sub-A", 0))
    r = {name: record.table.get(name, 2, "r_backbone") for name in ("low_level", "semantic")}
    assert r["low_level"] is not None
    assert r["semantic"] is not None
    assert r["low_level"].score.value > 0.7
    assert abs(r["semantic"].score.value) < 0.4
    share = record.table.get("low_level", 2, "low_level_share")
    assert share is not None
    assert share.score.value > 0.8
    assert record.facts["n_repeats"] == 3
    assert record.facts["n_score_trs"] == 35


def test_files_hold_the_probe_and_curves_cover_all_layers(fitted: tuple[Path, ToyModule]) -> None:
    path = record_path(fitted[0] / "probes", "sub-A", 3)
    np.testing.assert_array_equal(ProbeResult.load(path).r_by_model["backbone"], load_record(path).r)
    layers = {layer for _, layer, metric in load_record(path).table.keys if metric == "r_backbone"}
    assert layers == {0, 1, 2}


def test_training_draws_what_it_would_draw_without_probes(
    fitted: tuple[Path, ToyModule], toy_store_path: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    alone = ToyModule()
    toy_trainer(tmp_path, epochs=3).fit(alone, toy_data(toy_store_path))
    assert alone.drawn == fitted[1].drawn
    assert torch.equal(alone.backbone.gain, fitted[1].backbone.gain)


def test_report_summary_and_provenance_are_written_and_the_run_is_finished(fitted: tuple[Path, ToyModule]) -> None:
    path, _ = fitted
    assert RunDirectory.open(path).state == "finished"
    facts = json.loads((path / "run.json").read_text())
    assert (facts["regime"], facts["control"], facts["epochs"], facts["steps"]) == ("brain", False, 3, 6)
    summary = json.loads((path / "summary.json").read_text())
    assert summary["run"]["state"] == "finished"
    assert summary["headline_region"] == "semantic"
    assert json.loads((path / "provenance.json").read_text())["seed"] == 5
    assert summary["headline"][0] in " ".join((path / "report.html").read_text().split())


def test_a_finished_run_is_not_trained_again(fitted: tuple[Path, ToyModule], toy_store_path: Path) -> None:
    with pytest.raises(RunFinishedError, match="not written again"):
        toy_trainer(fitted[0], RunReport()).fit(ToyModule(), toy_data(toy_store_path))


def test_a_failing_probe_stops_the_run_and_gives_everything_back(
    toy_store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brainlit.encoding import probe as encoding_probe

    def broken(*_: Any, **__: Any) -> None:
        torch.rand(3)
        module.eval()
        raise ArithmeticError("singular")

    module, data, name = ToyModule(), toy_data(toy_store_path), backend()
    module.train()
    module.backbone.frozen.eval()
    monkeypatch.setattr(encoding_probe, "run_probes", broken)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with pytest.raises(ArithmeticError, match="singular"):
        toy_trainer(tmp_path, toy_probe()).fit(module, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.head.training
    assert not module.backbone.frozen.training
    assert backend() == name
    assert not list((tmp_path / "probes").rglob("*.h5"))


@pytest.mark.parametrize("solver", ["primal", "himalaya"])
def test_the_himalaya_backend_comes_back(solver: str, toy_store_path: Path, tmp_path: Path) -> None:
    from himalaya.backend import set_backend

    before = backend()
    set_backend(BACKEND)
    try:
        probe = toy_probe(replace(TOY_PROBE, solver=SolverConfig(name=solver)), layers=[2])
        toy_trainer(tmp_path, probe, epochs=1).fit(ToyModule(), toy_data(toy_store_path))
        assert backend() == BACKEND
    finally:
        set_backend(before)


def test_a_figure_that_fails_does_not_stop_the_run(
    toy_store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(probe_log, "build_summary", broken)
    with caplog.at_level(logging.WARNING):
        toy_trainer(tmp_path, toy_probe(figures=True, layers=[2]), epochs=1).fit(ToyModule(), toy_data(toy_store_path))
    assert "Traceback" in caplog.text
    assert "no ink" in caplog.text
    assert len(find_records(tmp_path / "probes")) == 4


class Stop(pl.Callback):
    """Ends the process's work, as a kill would, at the start of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise ConnectionAbortedError


def stopped_run(store: Path, path: Path) -> bytes:
    """A run that ended after its first epoch; returns its first probe file."""
    saving = ModelCheckpoint(path / "checkpoints", save_last=True)
    trainer = toy_trainer(path, toy_probe(), Stop(1), saving, epochs=2, enable_checkpointing=True)
    with pytest.raises(ConnectionAbortedError):
        trainer.fit(ToyModule(), toy_data(store))
    return record_path(path / "probes", "sub-A", 0).read_bytes()


def resume(store: Path, path: Path, **changes: Any) -> None:
    trainer = toy_trainer(path, toy_probe(**changes), epochs=2)
    trainer.fit(ToyModule(), toy_data(store), ckpt_path=path / "checkpoints" / "last.ckpt", weights_only=False)


def test_a_resumed_run_reads_its_first_probe(toy_store_path: Path, tmp_path: Path) -> None:
    before = stopped_run(toy_store_path, tmp_path)
    resume(toy_store_path, tmp_path)
    assert record_path(tmp_path / "probes", "sub-A", 0).read_bytes() == before
    assert [r.epoch for r in find_records(tmp_path / "probes")] == [0, 0, 2, 2]


def test_a_resumed_run_with_other_settings_or_without_its_first_probe_is_refused(
    toy_store_path: Path, tmp_path: Path
) -> None:
    stopped_run(toy_store_path, tmp_path)
    with pytest.raises(RuntimeError, match="other probe settings or data"):
        resume(toy_store_path, tmp_path, probe=replace(TOY_PROBE, delays_trs=(1, 2)))
    record_path(tmp_path / "probes", "sub-B", 0).unlink()
    with pytest.raises(RuntimeError, match="weights of that time are gone"):
        resume(toy_store_path, tmp_path)


def test_a_fresh_start_does_not_trust_a_file_of_other_weights(toy_store_path: Path, tmp_path: Path) -> None:
    first = ToyModule()
    toy_trainer(tmp_path, toy_probe(layers=[2]), epochs=0).fit(first, toy_data(toy_store_path))
    path = record_path(tmp_path / "probes", "sub-A", 0)
    assert load_record(path).facts["weights"] == weights_hash(ToyModule())
    second = ToyModule()
    with torch.no_grad():
        second.backbone.gain[0] = 0.0
    toy_trainer(tmp_path, toy_probe(layers=[2]), epochs=0).fit(second, toy_data(toy_store_path))
    assert load_record(path).facts["weights"] == weights_hash(second) != weights_hash(first)


def test_without_epochs_there_is_one_probe_and_the_regime_is_pretrained(
    toy_store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "draw_figures", lambda *_, **__: ({}, {}))
    path = tmp_path / "toy" / "one"
    toy_trainer(path, toy_probe(layers=[2]), RunReport(), epochs=0).fit(ToyModule(), toy_data(toy_store_path))
    assert {record.stage for record in find_records(path / "probes")} == {"before"}
    assert json.loads((path / "run.json").read_text())["regime"] == "pretrained"


def test_encoding_models_fitted_on_tuned_stories_are_named_in_record_and_report(
    toy_store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "draw_figures", lambda *_, **__: ({}, {}))
    roles = {"tune": ["toy0", "toy2"], "fit": ["toy2", "toy3"], "score": ["toy5"]}
    facts = []
    for name, epochs in (("untuned", 0), ("tuned", 1)):
        data = toy_data(toy_store_path, roles=roles, allow=["tune and fit"])
        path = tmp_path / "toy" / name
        toy_trainer(path, toy_probe(layers=[2]), RunReport(), epochs=epochs).fit(ToyModule(), data)
        facts.append(find_records(path / "probes")[-1].facts)
    assert "fitted_on_tuned" not in facts[0]
    assert (facts[1]["fitted_on_tuned"], facts[1]["n_fit_stories"]) == (["toy2"], 2)
    assert "fitted on stories that the model was tuned on (1 of 2)" in (path / "report.html").read_text()
    assert any("(1 of 2)" in text for text in json.loads((path / "summary.json").read_text())["limits"])


def test_the_time_between_is_limited_but_the_ends_are_not(toy_store_path: Path, tmp_path: Path) -> None:
    probe = toy_probe(every_n_epochs=1, max_seconds=0.0, layers=[2])
    toy_trainer(tmp_path, probe, epochs=4).fit(ToyModule(), toy_data(toy_store_path))
    assert [r.epoch for r in find_records(tmp_path / "probes") if r.subject == "sub-A"] == [0, 1, 4]


def test_scores_and_responses_of_the_scored_story_do_not_reach_the_fit(toy_store_path: Path, tmp_path: Path) -> None:
    toy_trainer(tmp_path, toy_probe(layers=[2]), epochs=0).fit(ToyModule(), toy_data(toy_store_path))
    facts = load_record(record_path(tmp_path / "probes", "sub-A", 0)).facts
    assert facts["fit_spans"] == ["toy2[0:40]", "toy3[0:40]"]
    assert facts["score_spans"] == ["toy5[0:40]"]


@pytest.mark.parametrize(("settings", "message"), [({"layers": [7]}, "layer 7"), ({"partition_layer": -4}, "layer -4")])
def test_layers_that_do_not_exist_are_refused(
    settings: dict[str, Any], message: str, toy_store_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        toy_trainer(tmp_path, toy_probe(**settings), epochs=0).fit(ToyModule(), toy_data(toy_store_path))


def test_settings_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match="every_n_epochs"):
        BandedRidgeProbe(every_n_epochs=-1)
    with pytest.raises(ValueError, match="delays_trs"):
        BandedRidgeProbe(probe=ProbeConfig(delays_trs=()))


OTHER_SETTINGS: dict[str, Any] = {
    "delays_trs": (2, 3),
    "alphas": (1.0, 10.0, 1000.0),
    "bands": {"low_level": ["rms"], "semantic": ["glove", "context"]},
    "n_gammas": {1: 1, 2: 3, 3: 5},
    "mixture_search": "coarse",
    "n_folds": 3,
    "purge_trs": 7,
    "skip_trs": 2,
    "seed": 9,
    "keep_variance": 0.9,
    "low_level_impact": False,
    "impact_lags_trs": 2,
    "sub_bands": True,
    "temporal": {"backbone": "auto", "low_level": "hrf"},
    "response": {
        **{"delay_s": 5.5, "undershoot_s": 15.0, "dispersion_s": 0.9, "undershoot_dispersion_s": 1.1},
        **{"ratio": 5.0, "length_s": 30.0},
    },
    "matched_filter": False,
    "keep_scale": ("semantic",),
    "tuned_sound": True,
    "leave_out_fit": False,
    "bin_s": 0.05,
    "solver": {"name": "himalaya", "precision": "float64", "device": "cuda", "n_targets_batch": 11, "memory_gb": 1.5},
}
"""A value of every setting of a probe that is not the default."""
CONFIGS = [part for name in ("brain_tune", "data/demo") for part in ("-c", str(EXPERIMENTS / f"{name}.yaml"))]


def engines(arguments: list[str], print_to: Path) -> list[ProbeConfig]:
    """The settings with which the callbacks of a command probe; the whole configuration is printed into a file."""
    mini = f"random:{mini_folder(print_to.parent / 'mini')}"  # no tiny model is taught for it
    cli = parsed("fit", [*CONFIGS, f"--model.backbone.weights={mini}", *arguments])
    print_to.write_text(yaml.safe_dump(cli.resolved))
    callbacks = cli.parser.instantiate_classes(cli.config).trainer.callbacks
    return [callback.engine.config for callback in callbacks if hasattr(callback, "engine")]


def test_every_setting_reaches_the_probes_from_yaml_and_from_the_command_line(tmp_path: Path) -> None:
    nested: dict[str, Any] = {"solver": SolverConfig(**OTHER_SETTINGS["solver"])}
    nested["response"] = HaemodynamicResponse(**OTHER_SETTINGS["response"])
    default, other = ProbeConfig(), ProbeConfig(**{**OTHER_SETTINGS, **nested})
    for ours, theirs in ((default, other), *((getattr(default, name), value) for name, value in nested.items())):
        for field in fields(ours):
            assert getattr(ours, field.name) != getattr(theirs, field.name), f"{field.name} has no other value here"

    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in OTHER_SETTINGS.items()}
    names = ("BandedRidgeProbe", "LayerCurve", "ChooseCheckpoint")
    callbacks = [{"class_path": f"brainlit.callbacks.{name}", "init_args": {"probe": plain}} for name in names]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    assert engines(["-c", str(tmp_path / "mine.yaml")], tmp_path / "printed.yaml") == [other] * 3
    again = yaml.safe_load((tmp_path / "printed.yaml").read_text())["trainer"]["callbacks"]
    printed = {**plain, "n_gammas": {str(n_bands): n for n_bands, n in plain["n_gammas"].items()}}
    assert [callback["init_args"]["probe"] for callback in again] == [printed] * 3
    assert engines(["-c", str(tmp_path / "printed.yaml")], tmp_path / "again.yaml") == [other] * 3

    inside = {f"{name}.{key}": value for name in nested for key, value in OTHER_SETTINGS[name].items()}
    dotted = {name: value for name, value in {**plain, **inside}.items() if name not in nested}
    options = [f"--trainer.callbacks={callbacks[0]['class_path']}"]
    options += [f"--trainer.callbacks.probe.{name}={value}" for name, value in dotted.items()]
    assert engines(options, tmp_path / "printed.yaml") == [other]
    assert engines(["-c", str(tmp_path / "printed.yaml")], tmp_path / "again.yaml") == [other]
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "printed.yaml").read_text()


# --- Probes before training that runs share ---


def shared_fit(path: Path, store: Path, probe: BandedRidgeProbe, epochs: int, **data: Any) -> Path:
    """A run that reads and keeps probes before training; its folder."""
    probe.share_gb = 1.0
    torch.manual_seed(3)
    toy_trainer(path, probe, RunReport(), epochs=epochs).fit(ToyModule(), toy_data(store, **data))
    return path


@pytest.fixture(scope="module")
def sharing(toy_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The cache, a run that made its probe before training, and one of another regime that read it."""
    folder = tmp_path_factory.mktemp("sharing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINLIT_CACHE", str(folder / "cache"))
        patch.setattr(report_module, "draw_figures", lambda *_, **__: ({}, {}))
        made = shared_fit(folder / "made", toy_store_path, toy_probe(every_n_epochs=1), 2)
        found = shared_fit(folder / "found", toy_store_path, toy_probe(every_n_epochs=1), 2, regime="permuted")
    return folder / "cache", made, found


def content(path: Path) -> dict[str, Any]:
    """All that a record holds but the seconds that it took; the module learns the same in every regime."""
    found: dict[str, Any] = {}

    def see(name: str, part: Any) -> None:
        attributes = {key: value for key, value in part.attrs.items() if not key.startswith("facts")}
        found[name] = attributes, part[()] if isinstance(part, h5py.Dataset) else None

    with h5py.File(path) as file:
        file.visititems(see)
    facts = dict(load_record(path).facts)
    del facts["seconds"]
    return {**found, "said": facts}


def test_a_run_of_another_regime_reads_the_probe_before_training(sharing: tuple[Path, Path, Path]) -> None:
    cache, made, found = sharing
    files = sorted(path.relative_to(made) for path in (made / "probes").rglob("*.*"))
    assert files == sorted(path.relative_to(found) for path in (found / "probes").rglob("*.*"))
    before = [path for path in files if path.stem == "epoch-000"]
    assert len(before) == 3
    for path in before:
        assert (made / path).read_bytes() == (found / path).read_bytes(), path
    for path in (path for path in files if path.suffix == ".h5"):
        np.testing.assert_equal(content(made / path), content(found / path), err_msg=str(path))
    entries = [path for path in (cache / FOLDER).iterdir() if path.is_dir()]
    assert len(entries) == 1
    said = [json.loads((run / "run.json").read_text())["probes_before"] for run in (made, found)]
    assert said == [{"main": "computed"}, {"main": f"read from {entries[0]}"}]
    summaries = [" ".join((run / "report.html").read_text().split()) for run in (made, found)]
    assert ["made by another run, and read" in page for page in summaries] == [False, True]


@pytest.mark.parametrize("changed", ["nothing", "seed", "damage", "off", "time"])
def test_only_the_same_and_whole_probe_is_read(
    sharing: tuple[Path, Path, Path],
    toy_store_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    changed: str,
) -> None:
    cache, made, _ = sharing
    shutil.copytree(cache, tmp_path / "cache")
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))
    if changed == "damage":
        (file,) = (tmp_path / "cache" / FOLDER).glob("*/sub-B.h5")
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 3] ^= 1
        file.write_bytes(raw)
    settings = {"seed": {"seed": 1}, "time": {"max_seconds_per_probe": 1e6}}.get(changed, {})
    probe = toy_probe(every_n_epochs=1, **settings)
    probe.share_gb = 0.0 if changed == "off" else 1.0
    toy_trainer(tmp_path / "run", probe, epochs=0).fit(ToyModule(), toy_data(toy_store_path))
    assert probe.before.partition(" ")[0] == ("read" if changed == "nothing" else "computed")
    assert ("is damaged" in caplog.text) == (changed == "damage")
    entries = [path for path in (tmp_path / "cache" / FOLDER).iterdir() if path.is_dir()]
    assert len(entries) == (2 if changed == "seed" else 1)
    if changed in ("damage", "off"):
        path = record_path(Path("probes"), "sub-B", 0)
        np.testing.assert_equal(content(tmp_path / "run" / path), content(made / path))
