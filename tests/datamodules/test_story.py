"""The data module as Lightning, the probe and the command line use it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from brainlit.datamodules import StoryDataModule, WindowBatch, WindowConfig
from brainlit.encoding.roles import LeakError, Span
from brainlit.store import StoreError, StoreSettingsError, UnknownNameError
from tests.toy import ToySource


def data_module(path: Path, **settings: Any) -> StoryDataModule:
    """A set-up data module on the shared toy store."""
    settings = {"window": WindowConfig(n_trs=8, context_s=4.0), "batch_size": 3, **settings}
    module = StoryDataModule(ToySource(), str(path), **settings)
    module.prepare_data()
    module.setup()
    return module


def epoch(module: StoryDataModule, number: int = 0) -> list[WindowBatch]:
    loader = module.train_dataloader()
    loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
    return list(loader)  # type: ignore[arg-type]


def places(batches: list[WindowBatch]) -> list[tuple[int, int]]:
    return [
        place for batch in batches for place in zip(batch["story"].tolist(), batch["first_tr"].tolist(), strict=True)
    ]


def test_setup_tells_what_heads_and_probes_need(toy_store_path: Path) -> None:
    module = data_module(toy_store_path, subjects=["sub-B"])
    assert module.target_sizes == {"sub-B": 12}
    assert module.target_voxels["sub-B"].tolist() == list(range(12))
    assert (module.n_bins, module.context_trs, module.tr_s) == (10, 2, 2.0)
    assert module.story_names == [f"toy{k}" for k in range(6)]
    assert module.roles.stories("choose") == ("toy4",)


def test_loaders_give_the_rows_of_their_roles(toy_store_path: Path) -> None:
    module = data_module(toy_store_path)
    assert {story for story, _ in places(epoch(module))} == {0, 1}
    assert {story for story, _ in places(list(module.val_dataloader()))} == {4}  # type: ignore[arg-type]
    assert {story for story, _ in places(list(module.test_dataloader()))} == {5}  # type: ignore[arg-type]
    assert {story for story, _ in places(list(module.predict_dataloader()))} == {5}  # type: ignore[arg-type]


def test_batches_mix_stories(toy_store_path: Path) -> None:
    assert any(len(set(batch["story"].tolist())) > 1 for batch in epoch(data_module(toy_store_path)))


def test_same_seed_same_batches_and_other_seed_others(toy_store_path: Path) -> None:
    first, again, other = (data_module(toy_store_path, seed=seed) for seed in (0, 0, 1))
    assert places(epoch(first, 2)) == places(epoch(again, 2))
    assert places(epoch(first, 2)) != places(epoch(first, 3))
    assert places(epoch(first, 2)) != places(epoch(other, 2))
    for ours, theirs in zip(epoch(first, 2), epoch(again, 2), strict=True):
        assert torch.equal(ours["audio"], theirs["audio"])
        assert torch.equal(ours["targets"]["sub-A"], theirs["targets"]["sub-A"])


def test_workers_change_nothing(toy_store_path: Path) -> None:
    """The parent's files are open when the worker starts."""
    alone, helped = data_module(toy_store_path), data_module(toy_store_path, num_workers=1)
    next(helped.evaluation_batches(helped.roles.spans("tune")))
    ours, theirs = epoch(helped, 1), epoch(alone, 1)
    assert places(ours) == places(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a["audio"], b["audio"])
        assert torch.equal(a["targets"]["sub-B"], b["targets"]["sub-B"])


def test_the_data_travel_to_spawned_workers(toy_store_path: Path) -> None:
    module = data_module(toy_store_path, regime="permuted", permute_block_trs=5)
    dataset, windows = module.train_dataloader().dataset, list(module.train_dataloader().sampler)
    copy = pickle.loads(pickle.dumps(dataset))
    ours, theirs = dataset.__getitems__(windows), copy.__getitems__(windows)  # type: ignore[attr-defined]
    assert torch.equal(ours["audio"], theirs["audio"])
    assert torch.equal(ours["targets"]["sub-A"], theirs["targets"]["sub-A"])


@pytest.mark.parametrize("window", [None, WindowConfig(n_trs=1, context_s=8.0), WindowConfig(n_trs=64)])
def test_evaluation_gives_every_row_once_and_in_order(toy_store_path: Path, window: WindowConfig | None) -> None:
    module = data_module(toy_store_path)
    spans = [*module.roles.spans("fit"), Span("toy5", 5, 29)]
    rows, values = [], []
    for batch in module.evaluation_batches(spans, batch_size=2, window=window):
        for k, mask in enumerate(batch["row_mask"].numpy()):
            first = int(batch["first_tr"][k])
            rows += [(int(batch["story"][k]), first + row) for row in np.flatnonzero(mask)]
        values.append(batch["targets"]["sub-A"][batch["row_mask"]])
    assert rows == [(2, k) for k in range(40)] + [(3, k) for k in range(40)] + [(5, k) for k in range(5, 29)]
    expected = [module.store.responses("sub-A", span.story, span.start_tr, span.stop_tr) for span in spans]
    np.testing.assert_array_equal(torch.cat(values).numpy(), np.concatenate([e for e in expected if e is not None]))


def test_the_permuted_regime_changes_tuning_targets_only(toy_store_path: Path) -> None:
    brain, permuted = data_module(toy_store_path), data_module(toy_store_path, regime="permuted", permute_block_trs=5)
    assert permuted.target_sizes == brain.target_sizes
    for ours, theirs in zip(epoch(brain), epoch(permuted), strict=True):
        assert torch.equal(ours["audio"], theirs["audio"])
        assert torch.equal(ours["target_mask"]["sub-B"], theirs["target_mask"]["sub-B"])
        assert (ours["targets"]["sub-A"] != theirs["targets"]["sub-A"]).any(dim=2).all()
    for ours, theirs in zip(brain.val_dataloader(), permuted.val_dataloader(), strict=True):
        assert torch.equal(ours["targets"]["sub-A"], theirs["targets"]["sub-A"])  # type: ignore[call-overload]
    spans = brain.roles.spans("tune")
    for ours, theirs in zip(brain.evaluation_batches(spans), permuted.evaluation_batches(spans), strict=True):
        assert torch.equal(ours["targets"]["sub-A"], theirs["targets"]["sub-A"])


def test_roles_may_be_spans_and_are_guarded(toy_store_path: Path) -> None:
    roles = {"tune": ["toy0[0:15]"], "fit": ["toy2"], "score": ["toy0[25:40]"]}
    module = data_module(toy_store_path, roles=roles)
    assert module.roles.purge_trs == 6  # two TRs of context and four of delay
    assert {story for story, _ in places(epoch(module))} == {0}
    assert max(first for _, first in places(epoch(module))) <= 15 - 8
    assert module.val_dataloader() == []
    with pytest.raises(LeakError, match="10 TRs apart"):
        data_module(toy_store_path, roles=roles, purge_trs=11)
    with pytest.raises(LeakError, match="share 40 TRs"):
        data_module(toy_store_path, roles={"tune": ["toy0"], "score": ["toy0"]})
    allowed = data_module(toy_store_path, roles={"tune": ["toy0"], "score": ["toy0"]}, allow=["tune and score"])
    assert allowed.roles.allow == ("tune and score",)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"subjects": ["sub_A"]}, UnknownNameError, "Did you mean 'sub-A'"),
        ({"subjects": []}, ValueError, "at least one"),
        ({"subjects": ["sub-A", "sub-A"]}, ValueError, "each subject once"),
        ({"roles": {"tune": ["toyO"]}}, ValueError, "unknown story 'toyO'"),
        ({"roles": {"tune": ["toy1"]}}, ValueError, r"'sub-B' heard none of the stories to tune on \(toy1\)"),
        ({"regime": "brian"}, ValueError, "regime is 'brian'"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        (
            {"min_ceiling": 0.4, "roles": {"tune": ["toy0"], "choose": ["toy2"]}},
            ValueError,
            "min_ceiling needs repeats",
        ),
        ({"regime": "permuted", "permute_block_trs": 60}, ValueError, "cannot be permuted in blocks of 60"),
    ],
)
def test_wrong_settings_are_refused(
    toy_store_path: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        data_module(toy_store_path, **settings)


def test_min_ceiling_chooses_voxels(toy_store_path: Path) -> None:
    module = data_module(toy_store_path, min_ceiling=0.3)
    for subject, columns in module.target_voxels.items():
        assert 0 < len(columns) == module.target_sizes[subject] < 12
        assert columns.max() < 8  # the others are noise
    batch = next(module.evaluation_batches([Span("toy5", 0, 8)]))
    responses = module.store.responses("sub-A", "toy5", 0, 8, module.target_voxels["sub-A"])
    np.testing.assert_array_equal(batch["targets"]["sub-A"][0].numpy(), responses)


def test_another_store_is_refused_before_anything_is_read(toy_store_path: Path) -> None:
    with pytest.raises(StoreSettingsError, match="seed=0, but seed=8"):
        StoryDataModule(ToySource(seed=8), str(toy_store_path)).prepare_data()


def test_use_before_setup_says_so(tmp_path: Path) -> None:
    module = StoryDataModule(ToySource(), str(tmp_path / "none"))
    with pytest.raises(RuntimeError, match=r"call prepare_data\(\) and setup\(\) first"):
        module.train_dataloader()
    with pytest.raises(StoreError, match="no finished store"):
        module.setup()


def test_without_tuning_spans_scoring_still_works(toy_store_path: Path) -> None:
    module = data_module(toy_store_path, roles={"fit": ["toy2"], "score": ["toy5"]})
    assert len(list(module.test_dataloader())) == 2
    assert module.describe()["n_train_windows"] == 0
    with pytest.raises(ValueError, match="no spans to tune on"):
        module.train_dataloader()


def test_description_is_plain_and_right(toy_store_path: Path) -> None:
    module = data_module(toy_store_path, subjects=["sub-A"])
    description = module.describe()
    assert json.loads(json.dumps(description)) == description
    assert description["n_train_windows"] == 10
    assert description["n_train_rows"] == 80
    assert description["hours"]["tune"] == pytest.approx(160 / 3600, abs=1e-4)
    assert description["n_targets"] == {"sub-A": 12}
    assert description["n_masked_voxels"] == {"sub-A": 0}


class Recorder(L.LightningModule):
    """Learns nothing to speak of and writes down which windows it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, list[tuple[int, int]]]] = []

    def training_step(self, batch: WindowBatch, batch_idx: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, places([batch])))
        return self.weight.square().sum()

    def validation_step(self, batch: WindowBatch, batch_idx: int) -> None:
        assert set(batch["story"].tolist()) == {4}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(path: Path, folder: Path, max_epochs: int, checkpoint: str | None = None, **settings: Any) -> Recorder:
    recorder = Recorder()
    trainer = L.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = StoryDataModule(
        ToySource(), str(path), window=WindowConfig(n_trs=8, context_s=4.0), batch_size=4, **settings
    )
    trainer.fit(recorder, datamodule=module, ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / f"{max_epochs}.ckpt")
    return recorder


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_resumed_run_sees_what_an_unbroken_one_sees(toy_store_path: Path, tmp_path: Path) -> None:
    whole = fit(toy_store_path, tmp_path, 4)
    assert len({tuple(windows) for _, windows in whole.seen}) == len(whole.seen)  # other windows in each epoch
    fit(toy_store_path, tmp_path, 2)
    resumed = fit(toy_store_path, tmp_path, 4, checkpoint=str(tmp_path / "2.ckpt"))
    assert resumed.seen == [step for step in whole.seen if step[0] >= 2]


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_resuming_on_other_data_is_said(toy_store_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(toy_store_path, tmp_path, 1)
    fit(toy_store_path, tmp_path, 2, checkpoint=str(tmp_path / "1.ckpt"), seed=9)
    assert "the checkpoint was made with seed=0, this run has 9" in caplog.text


def test_the_command_line_can_set_everything(toy_store_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser(allow_abbrev=False)
    parser.add_class_arguments(StoryDataModule, "data")
    arguments = [
        "--data.source=tests.toy.ToySource",
        "--data.source.n_trs=40",
        f"--data.store_dir={toy_store_path}",
        "--data.window.n_trs=1",
        "--data.window.context_s=6",
        '--data.roles={"tune": ["toy0"], "score": ["toy5"]}',
        "--data.min_ceiling=null",
        "--data.regime=permuted",
    ]
    module = parser.instantiate(parser.parse_args(arguments)).data
    module.prepare_data()
    module.setup()
    assert module.window == WindowConfig(n_trs=1, context_s=6.0)
    assert len(module.train_dataloader()) == 40 / 8
    shown = " ".join(parser.format_help().split())
    assert "Seconds of sound before the first of them" in shown
    assert "Decides windows and order of every epoch" in shown
    with pytest.raises(SystemExit):
        parser.parse_args([*arguments, "--data.window.n_rows=3"])
    assert "n_rows" in capsys.readouterr().err
