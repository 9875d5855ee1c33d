"""A run that is killed and resumed is the run that was never killed: same losses, same weights, no row twice."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Sampler

from brainlit.backbones import BackboneConfig
from brainlit.callbacks.resume import RandomState, Requeue, WithinEpoch
from brainlit.results.loggers import MetricsLogger
from brainlit.results.run_directory import RunDirectory
from brainlit.tuning import BrainTuning
from brainlit.tuning.checkpoint import AtomicCheckpointIO
from brainlit.tuning.heads import HeadConfig
from tests.backbones.conftest import save_mini
from tests.tuning.conftest import FakeData

N_EPOCHS, N_BATCHES = 3, 4


class Killed(RuntimeError):
    """As good as SIGKILL: nothing is saved after it."""


class Kill(pl.Callback):
    """End the process before a batch of an epoch, or (None) before its validation."""

    def __init__(self, epoch: int, batch: int | None) -> None:
        self.when = (epoch, batch)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == self.when:
            raise Killed

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if (trainer.current_epoch, None) == self.when:
            raise Killed


class EpochOrder(Sampler[int]):
    """An order that depends on the epoch alone."""

    def __init__(self, n: int) -> None:
        self.n, self.epoch = n, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.n, generator=torch.Generator().manual_seed(self.epoch)).tolist())


class SkippingLoader(DataLoader[Any]):
    """A loader that knows how many batches it gave, and leaves those out after a resume; draws nothing globally."""

    given = skip = 0

    def __iter__(self) -> Any:
        skip, self.skip, self.given = self.skip, 0, 0
        for k, batch in enumerate(super().__iter__()):
            self.given = k + 1
            if k >= skip:
                yield batch

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skip = state["given"]


class ResumableData(FakeData):
    """FakeData whose training loader can go on in the middle of an epoch."""

    def train_dataloader(self) -> DataLoader[Any]:
        sampler, generator = EpochOrder(len(self.items)), torch.Generator().manual_seed(0)
        return SkippingLoader(self.items, batch_size=self.batch_size, sampler=sampler, generator=generator)


Start = Callable[..., BrainTuning]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start or go on with the run of a name; the process's own seed is another one each time."""
    save_mini(tmp_path / "mini")
    seeds = iter(range(100))

    def start(name: str, data: FakeData, *callbacks: pl.Callback, **settings: Any) -> BrainTuning:
        run = RunDirectory.claim(tmp_path, "resume", name)
        torch.manual_seed(0 if not run.resumed else 100 + next(seeds))
        module = BrainTuning(
            backbone=BackboneConfig(weights=str(tmp_path / "mini"), dropout=0.1),
            head=HeadConfig(dropout=0.3),
            backbone_mode="train",
        )
        last = ModelCheckpoint(
            run.checkpoints, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
        )
        checkpoint = run.last_checkpoint
        trainer = pl.Trainer(
            **{"max_epochs": N_EPOCHS, **settings},
            default_root_dir=str(run.path),
            accelerator="cpu",
            logger=MetricsLogger(run.path, resumed_step=run.resumed_step),
            callbacks=[*callbacks, RandomState(), WithinEpoch(), Requeue(), last],
            plugins=[AtomicCheckpointIO()],
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(module, datamodule=data, ckpt_path=str(checkpoint) if checkpoint else None)
        except Killed:
            pass
        else:
            assert trainer.global_step == N_EPOCHS * N_BATCHES // trainer.accumulate_grad_batches
        run.release()
        return module

    return start


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv in the order of its steps."""
    with (run / "metrics.csv").open(newline="") as file:
        found = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
    return sorted(found, key=lambda row: (int(row["step"]), sorted(row)))


def assert_same(tmp_path: Path, whole: BrainTuning, resumed: BrainTuning) -> None:
    """The same weights and, row by row, the same metrics."""
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=1e-6, msg=name)
    expected, found = rows(tmp_path / "resume" / "whole"), rows(tmp_path / "resume" / "killed")
    assert [sorted(row) for row in found] == [sorted(row) for row in expected]
    for one, other in zip(expected, found, strict=True):
        assert {key: float(value) for key, value in other.items()} == pytest.approx(
            {key: float(value) for key, value in one.items()}, rel=1e-6, abs=1e-6
        )


def test_killed_between_two_checkpoints_of_epochs(tmp_path: Path, start: Start) -> None:
    whole = start("whole", FakeData())
    start("killed", FakeData(), Kill(epoch=1, batch=2))
    assert_same(tmp_path, whole, start("killed", FakeData()))


def test_killed_three_times_within_epochs(tmp_path: Path, start: Start) -> None:
    whole = start("whole", ResumableData())
    every_step = ModelCheckpoint(filename="step-{step}", every_n_train_steps=1, save_top_k=-1)
    start("killed", ResumableData(), Kill(epoch=1, batch=2), every_step)
    assert RunDirectory.open(tmp_path / "resume" / "killed").last_checkpoint.name == "step-step=6.ckpt"
    start("killed", ResumableData(), Kill(epoch=1, batch=3), every_step)
    start("killed", ResumableData(), Kill(epoch=1, batch=None), every_step)
    assert_same(tmp_path, whole, start("killed", ResumableData()))
