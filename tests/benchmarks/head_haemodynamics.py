"""Tuning through delays of whole TRs or through a haemodynamic response, on the demo: a markdown table.

Run as `python -m tests.benchmarks.head_haemodynamics --seeds 31 32 33`; a few minutes a seed and way on one core. The
stories and epochs are those of experiments/quick.yaml. Every way has windows of 16 rows; those that convolve hear 20 s
before them instead of 8 s. `val r` is the mean correlation of the head's own predictions with the responses of the role
choose, in semantic voxels; `gain` what the probe of these voxels gains from tuning; `CPU s` processor seconds of a
training step.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from brainlit.backbones import BackboneConfig
from brainlit.callbacks import BandedRidgeProbe
from brainlit.datamodules import StoryDataModule, WindowConfig
from brainlit.demo import DemoSource
from brainlit.encoding.config import ProbeConfig
from brainlit.results.record import load_record, mean_over_subjects, record_path
from brainlit.tuning import BrainTuning, HeadConfig
from brainlit.tuning.module import RunningCorrelation

N_EPOCHS, REGION = 5, "semantic"
WAYS: dict[str, tuple[HeadConfig, float]] = {
    "fir": (HeadConfig(), 8.0),
    "hrf": (HeadConfig(haemodynamic="hrf"), 20.0),
    "hrf_derivatives": (HeadConfig(haemodynamic="hrf_derivatives"), 20.0),
    "learned": (HeadConfig(haemodynamic="learned"), 20.0),
}
COLUMNS = ("seed", "head", "train loss", "val loss", "val r", "probe r before", "after", "gain", "CPU s")


class Clock(pl.Callback):
    """Processor seconds of the training steps."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self._started = time.process_time()

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps.append(time.process_time() - self._started)


def main() -> None:
    """Run each seed and way, print a row for each and then the means."""
    options = _options()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in options.ways}
    with tempfile.TemporaryDirectory() as name:
        for seed in options.seeds:
            for way in options.ways:
                folder = Path(options.folder or name)
                rows[way].append(run(way, seed, folder))
                print(_line(str(seed), way, rows[way][-1]), flush=True)
    for way, own in rows.items():
        print(_line("mean", way, {key: float(np.mean([row[key] for row in own])) for key in own[0]}))


def run(way: str, seed: int, folder: Path) -> dict[str, float]:
    """Tune once, with a probe before and after."""
    head, context_s = WAYS[way]
    data = StoryDataModule(
        DemoSource(seed=seed, n_tune=8, n_fit=8, n_score=4),
        str(folder / f"store-{seed}"),
        window=WindowConfig(n_trs=16, context_s=context_s),
        batch_size=4,
        seed=seed,
    )
    module = BrainTuning(backbone=BackboneConfig(weights="tiny", seed=seed), head=head, seed=seed)
    clock, run_dir = Clock(), folder / f"{way}-{seed}"
    probe = BandedRidgeProbe(
        layers=[-1],
        probe=ProbeConfig(seed=seed, n_gammas={1: 1, 2: 3, 3: 5}, low_level_impact=False),
        n_bootstraps=10,
        figures=False,
    )
    trainer = pl.Trainer(
        max_epochs=N_EPOCHS,
        check_val_every_n_epoch=N_EPOCHS,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        accelerator="cpu",
        callbacks=[clock, probe],
        default_root_dir=str(run_dir),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    pl.seed_everything(seed, verbose=False)
    trainer.fit(module, datamodule=data)
    before, after = (probed_r(run_dir, data, epoch, module.layer) for epoch in (0, N_EPOCHS))
    return {
        "train loss": float(trainer.callback_metrics["train/loss_epoch"]),
        "val loss": float(trainer.callback_metrics["val/loss"]),
        "val r": validation_r(module, data),
        "probe r before": before,
        "after": after,
        "gain": after - before,
        "CPU s": float(np.median(clock.steps)),
    }


def probed_r(run_dir: Path, data: StoryDataModule, epoch: int, layer: int) -> float:
    """The probe's held-out r of the region, mean over subjects."""
    records = [load_record(record_path(run_dir / "probes", name, epoch)) for name in data.subjects]
    return float(mean_over_subjects(records, REGION, layer, "r_backbone").value)


@torch.no_grad()
def validation_r(module: BrainTuning, data: StoryDataModule) -> float:
    """Mean r of the head's predictions over the region's voxels of all subjects, in the role choose."""
    module.eval()
    sums = {name: RunningCorrelation(size, module.device) for name, size in data.target_sizes.items()}
    for batch in _batches(data):
        for name, values in module(batch).items():
            sums[name].update(values, batch["targets"][name], batch["target_mask"][name])
    r = [sums[name].r()[torch.from_numpy(_region(data, name)[data.target_voxels[name]])] for name in data.subjects]
    return float(torch.cat(r).nanmean())


def _batches(data: StoryDataModule) -> Iterator[Mapping[str, Any]]:
    yield from data.evaluation_batches(data.roles.spans("choose"))


def _region(data: StoryDataModule, subject: str) -> Any:
    return np.asarray(data.store.subject(subject).regions[REGION])


def _line(seed: str, way: str, numbers: Mapping[str, float]) -> str:
    return f"| {seed} | {way} | {' | '.join(f'{numbers[column]:.3f}' for column in COLUMNS[2:])} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[31, 32, 33])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--folder", help="where stores and runs stay; a temporary folder otherwise")
    return parser.parse_args()


if __name__ == "__main__":
    main()
