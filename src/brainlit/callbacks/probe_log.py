"""What a run shows outside of its folder: scalars in the loggers, tables and pictures in W&B, a line on the screen."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import WandbLogger

from brainlit.results.export import export_model
from brainlit.results.group import group_score, of_tables
from brainlit.results.record import COLUMNS, ProbeRecord, find_records, table_rows
from brainlit.results.report import draw_figures
from brainlit.results.run_directory import RunDirectory
from brainlit.results.scores import ALL_VOXELS
from brainlit.results.summary import build_summary
from brainlit.results.wandb_names import (
    MOST_SCALARS,
    PROBE_EPOCH,
    headline_scalars,
    probe_prefix,
    probe_scalars,
)

log = logging.getLogger(__name__)

TABLE = "table"
"""All numbers of a probe, after the prefix of its scalars."""


def log_scores(trainer: pl.Trainer, records: Sequence[ProbeRecord], name: str | None = None) -> None:
    """Give the scalars to every logger at the current step; W&B has the first of them, and a table of all numbers."""
    values, step = probe_scalars(records, name), trainer.global_step
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            most = getattr(logger, "scalars", MOST_SCALARS) - 1
            shown = dict(list(values.items())[:most])
            logger.log_metrics({**shown, PROBE_EPOCH: records[0].epoch}, step=step)
            data = [[row[column] for column in COLUMNS] for row in table_rows(records)]
            logger.log_table(f"{probe_prefix(name)}/{TABLE}", columns=list(COLUMNS), data=data, step=step)
        else:
            logger.log_metrics(values, step=step)
        logger.save()


def log_figures(trainer: pl.Trainer, run_path: Path) -> None:
    """Draw the figures of the run so far and give them to W&B; whatever goes wrong here never stops a run."""
    try:
        from PIL import Image

        run = RunDirectory(run_path)
        records = find_records(run.probes)
        figures, _ = draw_figures(run, build_summary(run, records), records, brains=False)
        for figure in figures.values():
            figure.save(run.figures)
        for logger in _wandb_loggers(trainer):
            pictures = {name: (Image.open(io.BytesIO(figure.png)), figure.alt) for name, figure in figures.items()}
            _log_pictures(logger, pictures, trainer.global_step)
    except Exception:
        log.warning("the figures of the probe could not be drawn or sent; the numbers are safe:", exc_info=True)


def summary_line(
    records: Sequence[ProbeRecord], headline_region: str | None, read_from: str = "", name: str | None = None
) -> str:
    """One line: alignment of the region of interest with its interval, and the low-level share.

    Parameters
    ----------
    read_from : str
        Where the records lay, if they were not made now.
    """
    first, tables = records[0], {record.subject: record.table for record in records}
    regions = dict.fromkeys(region for record in records for region, _, _ in record.table.keys)
    region = next((name for name in (headline_region, "semantic") if name in regions), ALL_VOXELS)
    parts = []
    for metric, label in (("r_backbone", "r"), ("r_over_ceiling", "r/ceiling"), ("low_level_share", "low-level share")):
        found = group_score(metric, of_tables(tables, str(region), first.layer))
        if found is not None:
            bounds = "" if found.score.interval is None else " [{:.3f}, {:.3f}]".format(*found.score.interval)
            some = f" ({len(found.subjects)} of them)" if len(found.subjects) < len(records) else ""
            parts.append(f"{label} {found.score.value:.3f}{bounds}{some}")
    seconds = sum(record.facts.get("seconds", 0.0) for record in records)
    how = f"read from {read_from}" if read_from else f"{seconds:.0f} s"
    words = first.facts.get("thinned_words")
    how += f", thinned to {words}" if words else ""
    return (
        f"probe {f'of {name} ' if name else ''}{first.stage} (epoch {first.epoch}), {region}, layer {first.layer},"
        f" {len(records)} subject{'s' if len(records) > 1 else ''}: {', '.join(parts)} ({how})"
    )


def log_run(trainer: pl.Trainer, run: RunDirectory, report: Path, summary: Mapping[str, Any]) -> None:
    """Give W&B the result of a run that has ended: headline, maps, the page, and the exported model if asked.

    Whatever goes wrong here is logged: the run is on disk.
    """
    try:
        for logger in _wandb_loggers(trainer):
            _log_result(logger, run, report, summary, trainer.global_step)
            if getattr(logger, "log_model", False):
                _log_export(logger, run)
    except Exception:
        log.warning("the result could not be given to W&B; it is in %s:", run.path, exc_info=True)


def _log_result(logger: WandbLogger, run: RunDirectory, report: Path, summary: Mapping[str, Any], step: int) -> None:
    import wandb
    from PIL import Image

    given = logger.experiment.summary.keys()  # what the last probe drew is there, but for the maps
    files = [path for path in sorted(run.figures.glob("*.png")) if f"figures/{path.stem}" not in given]
    _log_pictures(logger, {path.stem: (Image.open(path), "") for path in files}, step)
    values: dict[str, Any] = {**headline_scalars(summary), "report": wandb.Html(str(report), inject=False)}
    logger.log_metrics(values, step=step)


def _log_pictures(logger: WandbLogger, pictures: Mapping[str, tuple[Any, str]], step: int) -> None:
    """Pictures by name, with what they show in words, in one row."""
    import wandb

    images: dict[str, Any] = {
        f"figures/{name}": wandb.Image(image, caption=words or None) for name, (image, words) in pictures.items()
    }
    if images:
        logger.log_metrics(images, step=step)


def _log_export(logger: WandbLogger, run: RunDirectory) -> None:
    """The best checkpoint (the last, where none is best) as a model of transformers."""
    import wandb

    best = run.checkpoints / "best.ckpt"
    checkpoint = best if best.is_file() else run.last_checkpoint
    if checkpoint is None:
        return
    artifact = wandb.Artifact(f"export-{logger.experiment.id}", type="model", metadata={"file": checkpoint.name})
    folder = export_model(checkpoint, run.path / "export", run)
    for path in sorted(folder.rglob("*")):  # add_dir would talk on the screen
        if path.is_file():
            artifact.add_file(str(path), name=str(path.relative_to(folder)))
    logger.experiment.log_artifact(artifact, aliases=[checkpoint.stem])


def _wandb_loggers(trainer: pl.Trainer) -> list[WandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
