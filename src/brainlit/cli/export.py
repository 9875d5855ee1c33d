"""`brainlit export RUN`: a tuned model as a folder that transformers loads without brainlit."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brainlit.cli.errors import UsageError

if TYPE_CHECKING:
    from brainlit.results.run_directory import RunDirectory


def main(arguments: Sequence[str]) -> int:
    """Write the folder; print where it is."""
    parser = argparse.ArgumentParser(
        prog="brainlit export",
        description="Write a tuned model as a Hugging Face folder: config, weights, feature extractor, model card.",
    )
    parser.add_argument("run", type=Path, help="a run's folder, or a checkpoint file")
    parser.add_argument(
        "--checkpoint", default="best", help="best (the default; last where there is none), last, or a checkpoint file"
    )
    parser.add_argument("--output", type=Path, help="folder to write (default: RUN/export)")
    parser.add_argument("--overwrite", action="store_true", help="replace the export of another checkpoint")
    given = parser.parse_args(list(arguments))
    from brainlit.results.export import export_model
    from brainlit.results.run_directory import RunDirectory

    if given.run.is_file():
        run, checkpoint, output = None, given.run, given.run.with_name(f"{given.run.stem}-export")
    else:
        run = RunDirectory.open(given.run)
        checkpoint, output = chosen_checkpoint(run, given.checkpoint), run.path / "export"
    folder = export_model(checkpoint, given.output or output, run, overwrite=given.overwrite)
    print(f"{checkpoint} is now a model of transformers, with its card: {folder}")
    return 0


def chosen_checkpoint(run: RunDirectory, name: str) -> Path:
    """The checkpoint of a run that 'best', 'last' or a path stands for; where there is no best one, the last.

    Raises
    ------
    FileNotFoundError
        If the run has no checkpoint yet.
    UsageError
        If the name is none of these.
    """
    best = run.checkpoints / "best.ckpt"
    if name == "best" and best.is_file():
        return best
    if name in ("best", "last"):
        last = run.last_checkpoint
        if last is None:
            raise FileNotFoundError(f"{run.path} has no checkpoint: it was stopped before its first epoch ended.")
        return last
    for path in (Path(name), run.checkpoints / name):
        if path.is_file():
            return path
    found = sorted(path.name for path in run.checkpoints.glob("*.ckpt"))
    raise UsageError(f"--checkpoint is {name!r}; give best, last or a file. The run has: {', '.join(found) or 'none'}.")
