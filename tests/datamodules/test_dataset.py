"""A run that was stopped in the middle of an epoch goes on with the batches that were to come."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from brainlit.datamodules import ControlConfig, StepLoader, StoryDataModule, WindowBatch, WindowConfig
from tests.datamodules.test_story import data_module, places
from tests.toy import ToySource

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
]


def loader_of(path: Path, epoch: int = 0, **settings: Any) -> StepLoader:
    loader = data_module(path, batch_size=1, **settings).train_dataloader()
    loader.sampler.set_epoch(epoch)
    return loader


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loaded_state_goes_on_after_the_last_batch(toy_store_path: Path, num_workers: int) -> None:
    """Batches that a worker has read ahead do not count; the next epoch is whole again."""
    whole = [places([batch]) for batch in loader_of(toy_store_path, 3)]
    stopped = loader_of(toy_store_path, 3, num_workers=num_workers)
    begun = iter(stopped)
    assert [places([next(begun)]) for _ in range(4)] == whole[:4]
    state = stopped.state_dict()
    assert state == {"epoch": 3, "batch": 4, "n_batches": len(whole)}
    resumed = loader_of(toy_store_path, num_workers=num_workers)
    resumed.load_state_dict(state)
    assert len(resumed) == len(whole)
    iterator = iter(resumed)
    resumed.sampler.set_epoch(3)  # after the iterator is made, as Lightning does
    assert [places([batch]) for batch in iterator] == whole[4:]
    assert resumed.state_dict()["batch"] == len(whole)
    assert [places([batch]) for batch in resumed] == whole
    resumed.sampler.set_epoch(4)
    assert [places([batch]) for batch in resumed] == [places([batch]) for batch in loader_of(toy_store_path, 4)]


def test_a_state_of_another_epoch_changes_nothing(toy_store_path: Path) -> None:
    loader = loader_of(toy_store_path, 1)
    loader.load_state_dict({"epoch": 0, "batch": 4, "n_batches": len(loader)})
    assert len(list(loader)) == len(loader)


def test_an_epoch_of_another_length_is_refused(toy_store_path: Path) -> None:
    loader = loader_of(toy_store_path)
    loader.load_state_dict({"epoch": 0, "batch": 4, "n_batches": 99})
    with pytest.raises(ValueError, match="after 4 of 99 batches of epoch 0, and an epoch of this run has 12"):
        next(iter(loader))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_iterating_draws_nothing_from_the_global_state(toy_store_path: Path, num_workers: int) -> None:
    module = data_module(toy_store_path, num_workers=num_workers)
    before = torch.get_rng_state()
    list(islice(module.train_dataloader(), 2))
    list(module.val_dataloader())
    assert torch.equal(before, torch.get_rng_state())


class Recorder(L.LightningModule):
    """Learns nothing to speak of and writes down which windows it saw."""

    def __init__(self, asks_for_length: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.asks_for_length, self.n_steps = asks_for_length, 0.0
        self.seen: list[tuple[int, list[tuple[int, int]], str]] = []

    def training_step(self, batch: WindowBatch, batch_idx: int) -> torch.Tensor:
        tuned = [name for name, mask in batch["target_mask"].items() if mask.any()]
        self.seen.append((self.current_epoch, places([batch]), "+".join(tuned)))
        return self.weight.square().sum()

    def validation_step(self, batch: WindowBatch, batch_idx: int) -> None:
        assert set(batch["story"].tolist()) == {4}
        assert len(batch["text"]) == len(batch["audio"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.asks_for_length:
            self.n_steps = self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    path: Path, folder: Path, start: Path | None = None, asks: bool = False, epochs: int = 3, **settings: Any
) -> Recorder:
    """Three epochs, with a checkpoint after every step."""
    recorder = Recorder(asks)
    each = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=epochs, accelerator="cpu", default_root_dir=folder, callbacks=[each], **quiet)
    window = WindowConfig(n_trs=8, context_s=4.0)
    module = StoryDataModule(ToySource(), str(path), window=window, **{"batch_size": 3, **settings})
    trainer.fit(recorder, datamodule=module, ckpt_path=start)
    return recorder


@pytest.mark.parametrize("asks_for_length", [False, True])
@pytest.mark.parametrize("settings", [{}, {"subject_steps": "sequential"}], ids=["together", "sequential"])
def test_a_resumed_run_sees_what_an_unbroken_one_sees(
    toy_store_path: Path, tmp_path: Path, asks_for_length: bool, settings: dict[str, Any]
) -> None:
    """Stopped inside an epoch, at its end and after the first step; whether or not the schedule asked for the length,
    which makes Lightning build its loader before it knows of the checkpoint."""
    whole = fit(toy_store_path, tmp_path / "whole", asks=asks_for_length, **settings)
    assert len({tuple(windows) for _, windows, _ in whole.seen}) > 8  # other windows in each epoch
    n_steps = len(whole.seen)
    if asks_for_length:
        assert whole.n_steps == n_steps
    for step in (1, n_steps // 3 + 2, 2 * n_steps // 3):
        start = tmp_path / "whole" / f"step={step}.ckpt"
        resumed = fit(toy_store_path, tmp_path / f"from{step}", start, asks_for_length, **settings)
        assert resumed.seen == whole.seen[step:]


def test_a_resumed_run_with_workers_sees_the_same(toy_store_path: Path, tmp_path: Path) -> None:
    whole = fit(toy_store_path, tmp_path / "whole", asks=True)
    start = tmp_path / "whole" / "step=6.ckpt"
    assert fit(toy_store_path, tmp_path / "on", start, True, num_workers=1).seen == whole.seen[6:]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 9}, "made with seed 0, and this run has 9"),
        ({"regime": "stimulus"}, "made with regime permuted, and this run has stimulus"),
        ({"control": ControlConfig(block_trs=5, draw=2)}, "'draw': 1.* and this run has .*'draw': 2"),
        ({"control": ControlConfig("phase")}, "'kind': 'blocks', .* and this run has .*'kind': 'phase'"),
        ({"subjects": ["sub-A"]}, "made with subjects"),
        ({"tune_fraction": 0.8}, "made with tune_fraction 1.0, and this run has 0.8"),
        ({"roles": {"tune": ["toy0", "toy2"]}}, "made with tune "),
        ({"batch_size": 2}, "made with batch_size 3, and this run has 2"),
    ],
)
def test_resuming_on_other_data_is_refused(
    toy_store_path: Path, changed: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path))
    settings = {"regime": "permuted", "seed": 0, "control": ControlConfig(block_trs=5)}
    state = data_module(toy_store_path, **settings).state_dict()
    data_module(toy_store_path, **settings).load_state_dict(state)
    with pytest.raises(ValueError, match=message):
        data_module(toy_store_path, **{**settings, **changed}).load_state_dict(state)


@pytest.mark.filterwarnings("ignore:Found .* module")
def test_a_checkpoint_may_be_tested_with_other_batches(
    toy_store_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(toy_store_path, tmp_path, epochs=1)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    module = data_module(toy_store_path, batch_size=2)
    trainer.validate(Recorder(), datamodule=module, ckpt_path=str(tmp_path / "step=2.ckpt"))
    assert "the checkpoint was made with batch_size 3, this run has 2" in caplog.text
