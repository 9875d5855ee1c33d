"""Probes of another data set than the one that is tuned on."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from brainlit.callbacks import BandedRidgeProbe, RunReport
from brainlit.callbacks.held_out import more_facts
from brainlit.cli.training import parsed
from brainlit.datamodules import StoryDataModule, WindowConfig
from brainlit.probing.inputs import weights_hash
from brainlit.results import report as report_module
from brainlit.results.record import find_held_out, find_records, load_record, record_path
from brainlit.results.report import write_report
from brainlit.splits import LeakError
from brainlit.store import StoreSettingsError
from tests.callbacks.test_probe import Stop
from tests.callbacks.toy_module import ToyModule, toy_data, toy_probe, toy_trainer
from tests.matrix import mini_folder
from tests.toy import ToySource

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def other_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a second toy data set, built by the first probe that needs it."""
    return tmp_path_factory.mktemp("other") / "store"


def other_data(store: Path, **changes: Any) -> StoryDataModule:
    """Other stories at another TR, in other windows, heard by sub-A alone."""
    settings = {"window": WindowConfig(n_trs=6, context_s=3.0), "batch_size": 2, "subjects": ["sub-A"], **changes}
    return StoryDataModule(ToySource(seed=9, n_trs=48, tr_s=1.5), str(store), **settings)


def held_out_probe(store: Path, name: str | None = "other", **changes: Any) -> BandedRidgeProbe:
    data = changes.pop("data", None) or other_data(store)
    return toy_probe(data=data, name=name, layers=[2], **changes)


@pytest.fixture(scope="module")
def fitted(toy_store_path: Path, other_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ToyModule]:
    """A finished run of two epochs, tuned on sub-A, probed on sub-B too and on the other data; without pictures."""
    path = tmp_path_factory.mktemp("runs") / "toy" / "one"
    torch.manual_seed(3)
    module = ToyModule()
    callbacks = (toy_probe(layers=[2]), held_out_probe(other_store), RunReport())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_module, "draw_figures", lambda *_, **__: ({}, {}))
        data = toy_data(toy_store_path, held_out_subjects=["sub-B"])
        toy_trainer(path, *callbacks, epochs=2).fit(module, data)
    return path, module


def test_records_lie_in_a_folder_of_their_own(fitted: tuple[Path, ToyModule]) -> None:
    probes = fitted[0] / "probes"
    main, found = find_records(probes), find_held_out(probes)
    assert {record.subject for record in main} == {"sub-A", "sub-B"}
    assert all("data_set" not in record.facts for record in main)
    assert [(r.subject, r.stage, r.epoch) for r in found["other"]] == [("sub-A", "before", 0), ("sub-A", "after", 2)]
    assert list(found) == ["other"]
    assert sorted(path.name for path in (probes / "other").glob("*.csv")) == ["epoch-000.csv", "epoch-002.csv"]
    facts = found["other"][0].facts
    assert facts["score_spans"] == ["toy5[0:48]"]
    assert facts["n_score_trs"] == 43
    assert facts["data_set"] == "toy"
    assert found["other"][0].fingerprint not in {record.fingerprint for record in main}


def test_the_planted_answer_of_the_other_data_comes_out(fitted: tuple[Path, ToyModule]) -> None:
    table = find_held_out(fitted[0] / "probes")["other"][0].table
    heard, meant = (table.get(name, 2, "r_backbone") for name in ("low_level", "semantic"))
    assert heard is not None
    assert meant is not None
    assert heard.score.value > 0.7
    assert abs(meant.score.value) < 0.4


def test_scalars_have_the_name_and_the_main_ones_do_not(fitted: tuple[Path, ToyModule]) -> None:
    with (fitted[0] / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = find_held_out(fitted[0] / "probes")["other"]
    for record in found:
        key = f"{record.stage}/low_level/layer-2/r_backbone"
        (logged,) = [float(row[f"probe/other/{key}"]) for row in rows if row[f"probe/other/{key}"]]
        assert logged == pytest.approx(record.table.get("low_level", 2, "r_backbone").score.value)  # type: ignore[union-attr]
        assert logged not in [float(row[f"probe/{key}"]) for row in rows if row[f"probe/{key}"]]


def test_training_goes_on_as_without_it(fitted: tuple[Path, ToyModule], toy_store_path: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    alone = ToyModule()
    toy_trainer(tmp_path, epochs=2).fit(alone, toy_data(toy_store_path, held_out_subjects=["sub-B"]))
    assert alone.drawn == fitted[1].drawn


def test_summary_and_report_keep_them_apart(fitted: tuple[Path, ToyModule]) -> None:
    path = fitted[0]
    summary = json.loads((path / "summary.json").read_text())
    part = summary["held_out"]["other"]
    assert part["subjects"] == ["sub-A"]
    assert part["stages"]["after"]["epoch"] == 2
    row = next(r for r in part["scores"] if (r["region"], r["metric"]) == ("low_level", "r_backbone"))
    before, after = find_held_out(path / "probes")["other"]
    values = [record.table.get("low_level", 2, "r_backbone").score.value for record in (before, after)]  # type: ignore[union-attr]
    assert [row["before"]["value"], row["after"]["value"]] == pytest.approx(values)
    assert row["difference"]["value"] == pytest.approx(values[1] - values[0])
    assert row["difference"]["low"] is not None
    assert (summary["probe"]["n_score_trs"], part["n_score_trs"]) == (35, 43)
    assert not [text for text in summary["warnings"] if "tuned on" in text]
    page = " ".join((path / "report.html").read_text().split())
    assert page.count("<h2>Held-out data: other</h2>") == 1
    assert "scored on toy5[0:48] (43 TRs used)" in page


def test_held_out_subjects_are_marked(fitted: tuple[Path, ToyModule]) -> None:
    summary = json.loads((fitted[0] / "summary.json").read_text())
    subjects = summary["probe"]["subjects"]
    assert subjects["sub-B"]["tuned_on"] is False
    assert "tuned_on" not in subjects["sub-A"]
    assert "of 2 subjects (1 not tuned on)" in summary["headline"][0]
    page = " ".join((fitted[0] / "report.html").read_text().split())
    assert "<dd>sub-A, sub-B (not tuned on)</dd>" in page
    assert "By subject, semantic" in page
    assert "<td>sub-B (not tuned on)</td>" in page
    assert "<td>sub-A</td>" in page


def test_a_resumed_run_reads_its_first_probe(
    toy_store_path: Path, other_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving = ModelCheckpoint(tmp_path / "checkpoints", save_last=True)
    callbacks = (toy_probe(layers=[2]), held_out_probe(other_store), Stop(1), saving)
    with pytest.raises(ConnectionAbortedError):
        toy_trainer(tmp_path, *callbacks, enable_checkpointing=True).fit(ToyModule(), toy_data(toy_store_path))
    path = record_path(tmp_path / "probes" / "other", "sub-A", 0)
    before = path.read_bytes()

    def resume(**changes: Any) -> None:
        trainer = toy_trainer(tmp_path, toy_probe(layers=[2]), held_out_probe(other_store, **changes))
        last = tmp_path / "checkpoints" / "last.ckpt"
        trainer.fit(ToyModule(), toy_data(toy_store_path), ckpt_path=last, weights_only=False)

    with pytest.raises(RuntimeError, match="other probe settings or data"):
        resume(data=other_data(other_store, window=WindowConfig(n_trs=8, context_s=3.0)))
    resume()
    assert path.read_bytes() == before
    assert [r.epoch for r in find_held_out(tmp_path / "probes")["other"]] == [0, 2]
    assert load_record(path).facts["weights"] == weights_hash(ToyModule())
    path.unlink()
    with pytest.raises(RuntimeError, match=r"probes/other/sub-A/epoch-000\.h5, is missing"):
        resume()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": None}, "needs a name"),
        ({"name": "a/b"}, "no folder name"),
        ({"name": "main"}, "two probes have the name 'main'"),
        ({"name": "sub-A"}, "'sub-A', which is a subject"),
        ({"roles": {"tune": ["toy0"], "score": ["toy5"]}}, "held-out data 'other' have no stories to fit"),
        ({"window": WindowConfig(n_trs=20, context_s=3.0)}, "are 33 s long, context included, and the backbone hears"),
    ],
)
def test_what_cannot_be_probed_is_refused_before_training(
    settings: dict[str, Any], message: str, toy_store_path: Path, other_store: Path, tmp_path: Path
) -> None:
    name = settings.pop("name", "other")
    module = ToyModule()
    module.backbone.max_samples, module.backbone.sample_rate_hz = 20 * 16_000, 16_000  # type: ignore[assignment]
    with pytest.raises(ValueError, match=message):
        toy_trainer(
            tmp_path,
            held_out_probe(other_store, "main"),
            held_out_probe(other_store, name, data=other_data(other_store, **settings)),
        ).fit(module, toy_data(toy_store_path))
    assert not (tmp_path / "probes").exists()
    assert not module.drawn


def test_a_name_needs_data() -> None:
    with pytest.raises(ValueError, match="name is 'other', but the probe has no data of its own"):
        toy_probe(name="other")


def test_a_store_of_another_source_is_refused(toy_store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreSettingsError):
        toy_trainer(tmp_path, held_out_probe(toy_store_path)).fit(ToyModule(), toy_data(toy_store_path))


def test_scored_stories_that_are_tuned_on_are_pointed_out(
    toy_store_path: Path, other_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "draw_figures", lambda *_, **__: ({}, {}))
    path = tmp_path / "toy" / "one"
    roles = {"tune": ["toy2", "toy4"], "fit": ["toy2", "toy3"], "score": ["toy0"]}  # tune is left out, so no leak
    data = other_data(other_store, roles=roles)
    callbacks = (toy_probe(layers=[2]), held_out_probe(other_store, data=data), RunReport())
    toy_trainer(path, *callbacks, epochs=0).fit(ToyModule(), toy_data(toy_store_path))
    assert data.describe()["roles"] == {"fit": ["toy2[0:48]", "toy3[0:48]"], "score": ["toy0[0:48]"]}
    (warning,) = [text for text in json.loads((path / "summary.json").read_text())["warnings"] if "alpha" not in text]
    assert "toy (held-out data): toy0 are scored, and stories of these names are tuned on" in warning
    assert warning.split(":")[0] in write_report(path).read_text()


def test_a_sound_that_was_tuned_on_is_refused_under_any_name_unless_words_allow_it(
    toy_store_path: Path, tmp_path: Path
) -> None:
    roles = {"fit": ["toy2", "toy3"], "score": ["toy0"]}  # toy0 is tuned on, and this is the same store
    probe = held_out_probe(toy_store_path, data=toy_data(toy_store_path, roles=roles))
    with pytest.raises(LeakError, match=r"'toy0' \(score of the held-out data\) is 'toy0', which was tuned on"):
        toy_trainer(tmp_path / "one", probe).fit(ToyModule(), toy_data(toy_store_path))
    assert not list((tmp_path / "one").glob("probes/**/*.h5"))
    allowed = toy_data(toy_store_path, roles=roles, allow=["tune and score", "tune and fit"])
    trainer = toy_trainer(tmp_path / "two", held_out_probe(toy_store_path, data=allowed), epochs=0)
    trainer.fit(ToyModule(), toy_data(toy_store_path))
    assert find_held_out(tmp_path / "two" / "probes")
    assert more_facts(allowed, ["toy0", "toy3"])["fitted_on_tuned"] == ["toy3"]


YAML = """
trainer:
  callbacks:
    - class_path: brainlit.callbacks.BandedRidgeProbe
      init_args:
        seed: ${{seed_everything}}
        probe:
          seed: ${{seed_everything}}
    - class_path: brainlit.callbacks.BandedRidgeProbe
      init_args:
        name: other
        data:
          class_path: brainlit.datamodules.StoryDataModule
          init_args:
            source:
              class_path: tests.toy.ToySource
              init_args:
                seed: 9
            store_dir: {store}
            window:
              n_trs: 6
              context_s: 3.0
            seed: ${{seed_everything}}
    - class_path: brainlit.callbacks.RunReport
"""


def test_the_command_line_understands_it(other_store: Path, tmp_path: Path) -> None:
    file = tmp_path / "held_out.yaml"
    file.write_text(YAML.format(store=other_store))
    configs = ["-c", str(EXPERIMENTS / "brain_tune.yaml"), "-c", str(EXPERIMENTS / "data" / "demo.yaml")]
    mini = f"--model.backbone.weights=random:{mini_folder(tmp_path / 'mini')}"  # no tiny model is taught for it
    cli = parsed("fit", [*configs, "-c", str(file), "--seed_everything", "7", mini])
    _, own, _ = cli.resolved["trainer"]["callbacks"]
    settings = own["init_args"]
    assert settings["name"] == "other"
    assert settings["data"]["init_args"]["seed"] == 7
    assert settings["data"]["init_args"]["window"]["n_trs"] == 6
    probes = cli.parser.instantiate_classes(cli.config).trainer.callbacks
    assert [getattr(probe, "name", None) for probe in probes] == [None, "other", None]
    assert isinstance(probes[1].data, StoryDataModule)
    assert probes[1].data.window == WindowConfig(n_trs=6, context_s=3.0)
    assert (probes[1].data.source.seed, probes[1].data.features) == (9, StoryDataModule(ToySource(), "x").features)
