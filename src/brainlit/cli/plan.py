"""`brainlit plan`: memory, time and batch sizes of a fit before it is started; with --paper, of the whole paper."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainlit.cli.errors import UsageError, quieten
from brainlit.cli.option_hints import OwnParser

if TYPE_CHECKING:
    from brainlit.tuning.footprint import Clip, Footprint

HELP = """\
examples:
  brainlit plan -c demo -c wav2vec
  brainlit plan -c lebel2023 -c wavlm --model.backbone.weights large --targets 50000 --tr 2
  brainlit plan --paper --bench bench.json

All options of `brainlit fit` may follow. One window of noise, and then two, go through the model on this processor:
nothing is downloaded (published sizes get random weights of their architecture), trained or written.

exit status: 0 planned, 2 wrong use.
"""
GPU_GB = (8.0, 24.0, 80.0)


def run_plan(arguments: Sequence[str]) -> int:
    """Print what a fit with these options takes; returns the exit status.

    Parameters
    ----------
    arguments : sequence of str
        Options of its own, then those of `brainlit fit`.
    """
    parser = OwnParser(
        prog="brainlit plan",
        description="Memory, time and batch sizes of a fit, before it is started.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--targets", type=int, help="voxels to predict, where there is no story store yet")
    parser.add_argument("--tr", type=float, metavar="S", help="seconds of a scanner row, where there is none yet")
    parser.add_argument("--windows", type=int, help="training windows of an epoch, where there is none yet")
    parser.add_argument(
        "--gpu-gb", type=float, nargs="+", default=list(GPU_GB), help="memory of GPUs, in 1e9 bytes (8 24 80)"
    )
    parser.add_argument(
        "--paper", action="store_true", help="instead: what the whole paper costs on one H200, 8 A100s and 2 cores"
    )
    parser.add_argument("--seeds", type=int, default=1, help="with --paper: training seeds of each regime (1)")
    parser.add_argument(
        "--bench", type=Path, metavar="FILE", help="with --paper: what make bench wrote on this machine"
    )
    given, options = parser.parse_known_args(list(arguments))
    if given.paper:
        return _run_paper(given, options)
    if not options:
        raise UsageError("brainlit plan needs the options of a fit: brainlit plan -c demo -c wav2vec")
    quieten()
    print(_planned(given, options, parser.known_keys()))
    return 0


def _run_paper(given: argparse.Namespace, options: Sequence[str]) -> int:
    from brainlit.cli.paper_cost import RECORDED, Study, measured_rates, paper_text

    if options:
        raise UsageError(
            f"brainlit plan --paper takes no options of a fit, such as {options[0]}; leave --paper out to plan a fit."
        )
    if given.seeds < 1:
        raise UsageError(f"--seeds {given.seeds}: give at least 1.")
    core = RECORDED if given.bench is None else measured_rates(given.bench)
    print(paper_text(Study(n_seeds=given.seeds), core))
    return 0


def _planned(given: argparse.Namespace, options: list[str], also: Sequence[str]) -> str:
    from brainlit.cli.training import built, parsed
    from brainlit.tuning import BrainTuning
    from brainlit.tuning.footprint import Clip, measure_step

    config = parsed("fit", options, also).resolved
    sizes, tr_s, n_windows = _data_facts(given, config["data"])
    window = config["data"]["window"]
    clip = Clip(window["n_trs"], tr_s, window["context_s"])
    print("one window and then two go through the model ...", file=sys.stderr, flush=True)
    module = built("model", BrainTuning, {**config["model"], "backbone": _unpublished(config["model"]["backbone"])})
    found = measure_step(module, clip, sizes, config["trainer"].get("precision") or "32-true")
    return plan_text(found, clip, sizes, n_windows, config, given.gpu_gb)


def plan_text(
    found: Footprint,
    clip: Clip,
    sizes: Mapping[str, int],
    n_windows: int | None,
    config: Mapping[str, Any],
    gpu_gb: Sequence[float],
) -> str:
    """What was found, in words and as a table of batch sizes."""
    from brainlit.results.tables import markdown_table
    from brainlit.tuning.precision import is_mixed

    backbone, trainer = config["model"]["backbone"], config["trainer"]
    precision = trainer.get("precision")
    digits = f"--trainer.precision {precision}" if is_mixed(precision) else "float32"
    lines = [
        f"{backbone['family']}, weights {backbone['weights']}: {found.n_parameters / 1e6:.1f} million parameters,"
        f" {found.n_trained / 1e6:.1f} of them trained",
        f"windows of {clip.n_trs} rows and {clip.context_s:g} s before them ({clip.window_s:.1f} s);"
        f" targets: {', '.join(f'{n:,} of {name}' for name, n in sizes.items())}",
        f"one window, forward and backward: {found.flops / 1e12:.2f} x 1e12 operations; {found.wall_s:.2g} s on this"
        f" processor ({found.cpu_s:.2g} s of all its cores), in {digits}",
    ]
    if n_windows:
        n_epochs = trainer["max_epochs"] or 1
        minutes = n_windows * found.wall_s / 60
        lines.append(
            f"an epoch: {n_windows} windows, {minutes:.2g} min here; {n_epochs} epochs {n_epochs * minutes:.2g} min,"
            " without reading, validation and probes"
        )
    one_more = found.memory_bytes(9) - found.memory_bytes(8)
    lines.append(
        f"memory in {digits}: {found.state_bytes / 1e9:.2f} GB for weights and Adam,"
        f" {found.memory_bytes(1) / 1e9:.2f} GB with one window, {one_more / 1e9:.2f} GB for each more; on a GPU some"
        " 1.5 GB more"
    )
    n_step = config["data"]["batch_size"] * trainer["accumulate_grad_batches"]
    rows = [[f"{gb:g} GB", *_batch(found.windows_within(gb * 1e9), n_step)] for gb in gpu_gb]
    heads = ["GPU", "windows at a time", f"options for steps of {n_step} windows"]
    return "\n".join([*lines, "", *markdown_table(heads, rows)])


def _batch(n_fit: int, n_step: int) -> list[str]:
    """How many windows fit, and the options with which an optimiser step still sees n_step of them."""
    if not n_fit:
        return ["none", "shorter windows, --model.trainable.gradient_checkpointing true, or --model.lora.rank 8"]
    n_batches = next(k for k in range(math.ceil(n_step / n_fit), n_step + 1) if n_step % k == 0)
    options = f"--data.batch_size {n_step // n_batches} --trainer.accumulate_grad_batches {n_batches}"
    return [f"{n_fit:,}", f"`{options}`"]


def _unpublished(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """The same architecture without a download: weights that are no folder and not made here become random ones."""
    from brainlit.backbones.addresses import RANDOM_PREFIX
    from brainlit.backbones.tiny import TINY_SIZES

    weights = str(backbone["weights"])
    here = weights.startswith(RANDOM_PREFIX) or Path(weights).exists()
    if weights in TINY_SIZES or not here:
        weights = RANDOM_PREFIX + weights
    return {**backbone, "weights": weights}


def _data_facts(given: argparse.Namespace, settings: Mapping[str, Any]) -> tuple[dict[str, int], float, int | None]:
    """Targets by subject, seconds of a row and windows of an epoch: of the store, or as they were said."""
    from brainlit.cli.training import built
    from brainlit.datamodules import StoryDataModule
    from brainlit.store.schema import INDEX_FILE

    if given.targets is None and given.tr is None and (Path(settings["store_dir"]) / INDEX_FILE).is_file():
        data = built("data", StoryDataModule, settings)
        data.setup("fit")
        return data.target_sizes, data.tr_s, given.windows or int(data.describe()["n_train_windows"])
    if given.targets is None or given.tr is None:
        raise UsageError(
            f"there is no story store at {settings['store_dir']} yet, so say what it will hold: --targets 50000 --tr 2"
            " (voxels and seconds of a row), or make it: brainlit data prepare with the same options."
        )
    if given.targets < 1 or not given.tr > 0:
        raise UsageError(f"--targets {given.targets} --tr {given.tr}: give at least 1 voxel and more than 0 seconds.")
    return {"one subject": given.targets}, given.tr, given.windows
