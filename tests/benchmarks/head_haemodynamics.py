"""Tuning through delays of whole TRs or through a haemodynamic response: a markdown table.

`python -m tests.benchmarks.head_haemodynamics --seeds 31 32 33` tunes the tiny model on the demo; a few minutes a seed
and way on one core. The stories and epochs are those of experiments/quick.yaml. Every way has windows of 16 rows; those
that convolve hear 20 s before them instead of 8 s (and so does "fir, 20 s", which tells what the longer context does by
itself). `val r` is the mean correlation of the head's own predictions with the responses of the role choose, in
semantic voxels; `gain` what the probe of these voxels gains from tuning; `CPU s` processor seconds of a training step.

`--alice WHISPER` tunes Whisper base, in a folder of published weights, on ten real listeners (BRAINLIT_ALICE, see
data/alice.md), in windows of five rows. One story has to serve all roles, so "seeds" are two orders of them: 0 tunes on
the beginning and scores the end, 1 the reverse.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from brainlit.backbones import BackboneConfig
from brainlit.datamodules import StoryDataModule, WindowConfig
from brainlit.demo import DemoSource
from brainlit.encoding import ProbeConfig, run_probe
from brainlit.stories import ManifestSource
from brainlit.tuning import BrainTuning, HeadConfig
from brainlit.tuning.module import RunningCorrelation

N_EPOCHS, REGION = 5, "semantic"
ALICE = Path(__file__).parents[2] / "data" / "alice" / "manifest.yaml"
ALICE_ROLES = (
    {"tune": ["alice[0:150]"], "choose": ["alice[164:204]"], "fit": ["alice[164:270]"], "score": ["alice[284:362]"]},
    {"tune": ["alice[212:362]"], "choose": ["alice[158:198]"], "fit": ["alice[92:198]"], "score": ["alice[0:78]"]},
)
"""Rows that choose are fitted too: nothing is chosen by them here."""
ALICE_RATES = {"backbone_lr": 3e-4, "head_lr": 3e-3}
WAYS: dict[str, tuple[HeadConfig, float]] = {
    "fir": (HeadConfig(haemodynamic="fir"), 8.0),
    "fir, 20 s": (HeadConfig(haemodynamic="fir"), 20.0),
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
    before: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for seed in options.seeds:
            for way in options.ways:
                folder = Path(options.folder or name)
                rows[way].append(run(way, seed, folder, before, options.alice))
                print(_line(str(seed), way, rows[way][-1]), flush=True)
    for way, own in rows.items():
        print(_line("mean", way, {key: float(np.mean([row[key] for row in own])) for key in own[0]}))


def run(way: str, seed: int, folder: Path, before: dict[int, float], alice: str | None = None) -> dict[str, float]:
    """Tune once, with a probe before (of a seed's first way alone: it is the same for all) and after."""
    head, context_s = WAYS[way]
    data = _alice(seed, folder, context_s) if alice else _demo(seed, folder, context_s)
    data.prepare_data()
    data.setup()
    weights = BackboneConfig(family="whisper", weights=alice, seed=seed) if alice else BackboneConfig(seed=seed)
    module = BrainTuning(backbone=weights, head=head, seed=seed, **(ALICE_RATES if alice else {}))
    if seed not in before:
        before[seed] = probed_r(module, data)
    clock = Clock()
    trainer = pl.Trainer(
        max_epochs=N_EPOCHS,
        check_val_every_n_epoch=N_EPOCHS,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        accelerator="cpu",
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    pl.seed_everything(seed, verbose=False)
    trainer.fit(module, datamodule=data)
    after = probed_r(module, data)
    return {
        "train loss": float(trainer.callback_metrics["train/loss_epoch"]),
        "val loss": float(trainer.callback_metrics["val/loss"]),
        "val r": validation_r(module, data),
        "probe r before": before[seed],
        "after": after,
        "gain": after - before[seed],
        "CPU s": float(np.median(clock.steps)),
    }


def _demo(seed: int, folder: Path, context_s: float) -> StoryDataModule:
    return StoryDataModule(
        DemoSource(seed=seed, n_tune=8, n_fit=8, n_score=4),
        str(folder / f"store-{seed}"),
        window=WindowConfig(n_trs=16, context_s=context_s),
        batch_size=4,
        seed=seed,
    )


def _alice(order: int, folder: Path, context_s: float) -> StoryDataModule:
    """Windows of five rows: with 20 s of context they have the 30 s that Whisper hears."""
    return StoryDataModule(
        ManifestSource(str(ALICE)),
        str(folder / "store-alice"),
        window=WindowConfig(n_trs=5, context_s=context_s),
        roles=ALICE_ROLES[order],
        allow=["choose and fit"],
        batch_size=4,
        seed=order,
    )


def probed_r(module: BrainTuning, data: StoryDataModule) -> float:
    """Held-out r of ridges from the last layer's states, mean over the region's voxels of all subjects.

    Means per TR of windows with 8 s of context, four delays, fitted on the role fit and scored on the role score.
    """
    parts: dict[str, list[Any]] = {"states": [], "groups": [], "fit": [], **{name: [] for name in data.subjects}}
    for role in ("fit", "score"):
        for batch in data.evaluation_batches(data.roles.spans(role), 12, WindowConfig(data.window.n_trs, 8.0)):
            mask = batch["row_mask"]
            states = module.pooled_states(dict(batch), [-1])[0, :, -mask.shape[1] :]
            parts["states"].append(states[mask].cpu().numpy())
            # spans of one story are groups of their own: there is a gap between them
            groups = 2 * batch["story"][:, None].expand(mask.shape)[mask].numpy() + (role == "score")
            parts["groups"].append(groups)
            parts["fit"].append(np.full(len(groups), role == "fit"))
            for name in data.subjects:
                parts[name].append(batch["targets"][name][mask].numpy())
    rows = {key: np.concatenate(values) for key, values in parts.items()}
    config = ProbeConfig(temporal="fir", matched_filter=False, low_level_impact=False)
    r = []
    for name in data.subjects:
        given = rows["groups"], rows["fit"], ~rows["fit"]
        result = run_probe({"backbone": rows["states"]}, rows[name], *given, config)
        r.append(result.r[region(data, name)])
    return float(np.nanmean(np.concatenate(r)))


@torch.no_grad()
def validation_r(module: BrainTuning, data: StoryDataModule) -> float:
    """Mean r of the head's predictions over the region's voxels of all subjects, in the role choose."""
    module.eval()
    sums = {name: RunningCorrelation(size, module.device) for name, size in data.target_sizes.items()}
    for batch in data.evaluation_batches(data.roles.spans("choose")):
        for name, values in module(dict(batch)).items():
            sums[name].update(values, batch["targets"][name], batch["target_mask"][name])
    r = [sums[name].r().cpu().numpy()[region(data, name)] for name in data.subjects]
    return float(np.nanmean(np.concatenate(r)))


def region(data: StoryDataModule, subject: str) -> Any:
    """Which of a subject's targets lie in the region; all of them where there is no such region."""
    used = data.target_voxels[subject]
    regions = data.store.subject(subject).regions
    return regions[REGION][used] if REGION in regions else np.ones(len(used), dtype=bool)


def _line(seed: str, way: str, numbers: Mapping[str, float]) -> str:
    return f"| {seed} | {way} | {' | '.join(f'{numbers[column]:.3f}' for column in COLUMNS[2:])} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[31, 32, 33])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--alice", metavar="WHISPER", help="folder of Whisper base; the demo otherwise")
    parser.add_argument("--folder", help="where the stores stay; a temporary folder otherwise")
    return parser.parse_args()


if __name__ == "__main__":
    main()
