"""What a probe shows while the run goes on: scalars in the loggers, pictures in W&B, one line on the screen."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import WandbLogger

from brainlit.results.group import group_keys, group_score, of_tables
from brainlit.results.record import COLUMNS, ProbeRecord, find_records, table_rows
from brainlit.results.report import draw_figures
from brainlit.results.run_directory import RunDirectory
from brainlit.results.scores import ALL_VOXELS
from brainlit.results.summary import build_summary

log = logging.getLogger(__name__)

LOGGED = ("r_backbone", "r_joint", "r2_backbone", "r_over_ceiling", "ceiling", "low_level_share")


def scalars(records: Sequence[ProbeRecord], name: str | None = None) -> dict[str, float]:
    """probe/<region>/layer-<k>/<metric>: finite values of the main metrics, of all subjects together.

    Those of a held-out data set are called probe/<name>/<region>/layer-<k>/<metric>.
    """
    values: dict[str, float] = {}
    tables = {record.subject: record.table for record in records}
    for region, layer, metric in group_keys(tables.values()):
        found = group_score(metric, of_tables(tables, region, layer)) if metric in LOGGED else None
        if found is not None and math.isfinite(found.score.value):
            values[f"{_prefix(name)}/{region.replace(' ', '_')}/layer-{layer}/{metric}"] = found.score.value
    return values


def log_scores(trainer: pl.Trainer, records: Sequence[ProbeRecord], name: str | None = None) -> None:
    """Give the scalars to every logger at the current step, and the whole table to W&B."""
    values, step = scalars(records, name), trainer.global_step
    for logger in trainer.loggers:
        logger.log_metrics(values, step=step)
        logger.save()
    for logger in _wandb_loggers(trainer):
        data = [[row[column] for column in COLUMNS] for row in table_rows(records)]
        logger.log_table(f"{_prefix(name)}/table-epoch-{records[0].epoch:03d}", columns=list(COLUMNS), data=data)


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
            for name, figure in figures.items():
                image: Any = Image.open(io.BytesIO(figure.png))
                logger.log_image(f"figures/{name}", [image], caption=[figure.alt])
    except Exception:
        log.warning("the figures of the probe could not be drawn or sent; the numbers are safe:", exc_info=True)


def summary_line(
    records: Sequence[ProbeRecord], headline_region: str | None, reread: bool = False, name: str | None = None
) -> str:
    """One line: alignment of the region of interest with its interval, and the low-level share."""
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
    how = "read from the run directory" if reread else f"{seconds:.0f} s"
    words = first.facts.get("thinned_words")
    how += f", thinned to {words}" if words else ""
    return (
        f"probe {f'of {name} ' if name else ''}{first.stage} (epoch {first.epoch}), {region}, layer {first.layer},"
        f" {len(records)} subject{'s' if len(records) > 1 else ''}: {', '.join(parts)} ({how})"
    )


def _prefix(name: str | None) -> str:
    return "probe" if name is None else f"probe/{name}"


def _wandb_loggers(trainer: pl.Trainer) -> Iterable[WandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
