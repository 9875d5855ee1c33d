"""Published architectures at full size: one training step, checkpoint, export, and back through transformers.

Run as `make bench-full` or `python -m tests.benchmarks.full_size`. Nothing is downloaded: the weights are random, but
as many and as large as the published ones, and loaded from a save_pretrained folder as those are. Each family has a
process of its own, whose peak memory is printed and may not exceed 12 GB. Needs 5 GB of disk; nothing is kept.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import DataLoader

from brainlit.backbones import BackboneConfig, load_backbone
from brainlit.results.export import export_model
from brainlit.tuning import BrainTuning
from brainlit.tuning.heads import HeadConfig
from brainlit.tuning.pooling import PoolingConfig
from brainlit.tuning.precision import fused_suits
from tests.benchmarks.train_step import make_batch

SIZE_OF = {"wav2vec": "base", "hubert": "base", "whisper": "small", "speecht5": "asr", "wavlm": "base-plus"}
PRECISIONS = {"bf16": "bf16-mixed", "fp32": "32-true"}
N_TARGETS, MAX_GB, TOLERANCE = 50_732, 12.0, 1e-5
STAGES = ("make", "load", "step", "checkpoint", "export", "reload")


@dataclass(frozen=True)
class Job:
    """What to measure.

    Parameters
    ----------
    family, precision : str
        Of SIZE_OF and PRECISIONS.
    window_s : float
    batch_size : int
    optimizer_state : bool
        Whether the checkpoint holds it, as that of a run does: three times the bytes to write and to read.
    """

    family: str
    precision: str = "bf16"
    window_s: float = 2.0
    batch_size: int = 1
    optimizer_state: bool = True


@dataclass(frozen=True)
class Stage:
    """Wall and processor seconds of one stage, and the peak memory of the process up to its end."""

    wall_s: float
    cpu_s: float
    peak_gb: float


@dataclass
class Measured:
    """What one process found.

    Parameters
    ----------
    n_parameters, n_trained : int
        Of the backbone; those of it that are trained.
    products : str
        dtype of the first product in the transformer.
    changed : list of str
        Tensors of the export that differ from those it started from.
    n_states : int
        Hidden states that were compared.
    difference : float
        Largest one between the hidden states of the tuned model and of its export in transformers.
    """

    job: Job
    n_parameters: int = 0
    n_trained: int = 0
    loss: float = float("nan")
    products: str = ""
    changed: list[str] = field(default_factory=list)
    n_states: int = 0
    difference: float = float("inf")
    stages: dict[str, Stage] = field(default_factory=dict)

    @property
    def peak_gb(self) -> float:
        """Of the whole process."""
        return max(stage.peak_gb for stage in self.stages.values())


def main() -> None:
    """Print one row for each family; fails if one needs too much memory or is exported wrongly."""
    options = _options()
    print(f"{options.precision}, {options.batch_size} x {options.window_s:g} s, {N_TARGETS} targets, fused AdamW")
    print(header())
    found = []
    for family in options.families:
        found.append(in_own_process(Job(family, options.precision, options.window_s, options.batch_size)))
        print(row(found[-1]), flush=True)
    wrong = [one.job.family for one in found if not (one.peak_gb < MAX_GB and one.difference <= TOLERANCE)]
    if wrong:
        sys.exit(f"above {MAX_GB:g} GB, or other hidden states than {TOLERANCE:g} allows: {', '.join(wrong)}")


def in_own_process(job: Job) -> Measured:
    """Measure in a fresh process, so that its peak memory is that of this job."""
    with fresh_process() as process:
        return process.submit(measure, job).result()


def fresh_process() -> ProcessPoolExecutor:
    """A process that has done nothing yet."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def measure(job: Job) -> Measured:
    """Make the weights, load them, take one step, write a checkpoint, export it, and load the export."""
    _be_quiet()
    found = Measured(job)
    batch = make_batch(job.batch_size, job.window_s, {"S1": N_TARGETS}, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _stage(found, "make"):
            random = BackboneConfig(job.family, f"random:{SIZE_OF[job.family]}", positions="truncated")
            load_backbone(random).model.save_pretrained(folder / "start")
        with _stage(found, "load"):
            module = BrainTuning(
                BackboneConfig(job.family, str(folder / "start"), positions="truncated"),
                pooling=PoolingConfig(over="window"),
                head=HeadConfig(kind="linear"),
                standardise_pools=False,
            )
        trainer = train(module, batch, found)
        with torch.no_grad():
            ours = module.backbone.encode(batch["audio"], batch["audio_mask"]).hidden_states
        opened_by = getattr(module.backbone, "auto_class", "AutoModel")
        with _stage(found, "checkpoint"):
            trainer.save_checkpoint(folder / "last.ckpt", weights_only=not job.optimizer_state)
        del module, trainer
        gc.collect()
        with _stage(found, "export"):
            export_model(folder / "last.ckpt", folder / "export")
        found.changed = changed_tensors(folder / "start", folder / "export")
        with _stage(found, "reload"):
            theirs = exported_states(folder / "export", opened_by, job.family, batch["audio"])
    found.n_states = len(ours)
    pairs = zip(ours, theirs, strict=True)
    found.difference = max(float((mine - other).abs().max()) for mine, other in pairs)
    return found


# --- the step ---


class OneBatch(pl.LightningDataModule):
    """The same windows in every step."""

    context_trs, tr_s = 0, 2.0

    def __init__(self, batch: dict[str, Any]) -> None:
        super().__init__()
        self.batch = batch
        self.target_sizes = {subject: values.shape[2] for subject, values in batch["targets"].items()}

    def train_dataloader(self) -> DataLoader[Any]:
        """One batch."""
        return DataLoader([self.batch], batch_size=None)


class Watch(pl.Callback):
    """Times the step and sees in which precision it multiplies."""

    def __init__(self, found: Measured) -> None:
        self.found = found
        self.started: tuple[float, float] = (0.0, 0.0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Look at the first product of the transformer."""
        backbone = pl_module.backbone
        linear = next(part for part in backbone.layers[0].modules() if isinstance(part, torch.nn.Linear))
        self.hook = linear.register_forward_hook(lambda *parts: setattr(self.found, "products", str(parts[2].dtype)))
        self.found.n_parameters = sum(p.numel() for p in backbone.parameters())
        self.found.n_trained = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
        optimizer = trainer.optimizers[0]
        assert isinstance(optimizer, torch.optim.AdamW)
        assert optimizer.defaults["fused"] == fused_suits(str(trainer.precision))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Start the clocks."""
        self.started = (time.perf_counter(), time.process_time())

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop them: forward, backward and optimiser are done."""
        self.found.stages["step"] = _since(self.started)
        self.hook.remove()
        self.found.loss = float(outputs["loss"])


def train(module: BrainTuning, batch: dict[str, Any], found: Measured) -> pl.Trainer:
    """One step through Lightning, as a run takes it."""
    trainer = pl.Trainer(
        max_steps=1,
        precision=PRECISIONS[found.job.precision],
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Watch(found)],
    )
    trainer.fit(module, datamodule=OneBatch(batch))
    return trainer


# --- the export ---


def exported_states(folder: Path, opened_by: str, family: str, audio: Tensor) -> Sequence[Tensor]:
    """Hidden states of int16 sound by transformers alone, from an exported folder.

    Whisper's published encoder wants 30 s; it is cut to the positions of the window, as `positions: truncated` does.
    """
    import transformers

    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    n_samples = audio.shape[1]
    length = {"max_length": n_samples} if family == "whisper" else {}
    clips = [clip.double().numpy() / 32_768 for clip in audio]
    inputs = extractor(clips, sampling_rate=16_000, return_tensors="pt", **length)
    model = getattr(transformers, opened_by).from_pretrained(folder).eval()
    encoder = model.get_encoder() if family in ("whisper", "speecht5") else model
    if family == "whisper":
        encoder.config.max_source_positions = n_samples // 320
        encoder.embed_positions = torch.nn.Embedding.from_pretrained(encoder.embed_positions.weight[: n_samples // 320])
        inputs = {"input_features": inputs.input_features}
    with torch.no_grad():
        states: Sequence[Tensor] = encoder(**inputs, output_hidden_states=True).hidden_states
    return states


def changed_tensors(before: Path, after: Path) -> list[str]:
    """Names of the tensors that differ between two save_pretrained folders of the same model."""
    files = [safe_open(folder / "model.safetensors", "pt") for folder in (before, after)]
    names = [sorted(file.keys()) for file in files]
    assert names[0] == names[1], "not the same tensors"
    return [name for name in names[0] if not torch.equal(*(file.get_tensor(name) for file in files))]


# --- clocks and tables ---


@contextmanager
def _stage(found: Measured, name: str) -> Iterator[None]:
    started = (time.perf_counter(), time.process_time())
    yield
    found.stages[name] = _since(started)


def _since(started: tuple[float, float]) -> Stage:
    """Seconds since then, and the peak memory until now."""
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return Stage(time.perf_counter() - started[0], time.process_time() - started[1], peak_gb)


def header() -> str:
    """Names of the columns: seconds with those of the processor in brackets, and GB."""
    seconds = "".join(f"{name + ' s':>16}" for name in STAGES)
    return f"{'family':18}{'parameters':>11}{'trained':>9}{seconds}{'GB in step':>12}{'GB peak':>9}{'difference':>12}"


def row(found: Measured) -> str:
    """One family."""
    stages = [found.stages[name] for name in STAGES]
    seconds = "".join(f"{f'{stage.wall_s:.1f} ({stage.cpu_s:.1f})':>16}" for stage in stages)
    name = f"{found.job.family} {SIZE_OF[found.job.family]}"
    counts = f"{found.n_parameters / 1e6:>9.1f} M{found.n_trained / 1e6:>7.1f} M"
    memory = f"{found.stages['step'].peak_gb:>12.2f}{found.peak_gb:>9.2f}"
    return f"{name:18}{counts}{seconds}{memory}{found.difference:>12.1e}"


def _be_quiet() -> None:
    """Lightning and transformers say much that is of no interest for one step."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "brainlit"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=SIZE_OF, default=list(SIZE_OF), help="which ones")
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16", help="bf16 means autocast")
    parser.add_argument("--window-s", type=float, default=2.0, help="seconds per window")
    parser.add_argument("--batch-size", type=int, default=1, help="windows per step")
    return parser.parse_args()


if __name__ == "__main__":
    main()
