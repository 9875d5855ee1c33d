"""metrics.csv: the curves of a run, and in words whether it was long enough to learn and how its validations went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainlit.guard import file_guard, read_csv

METRICS_FILE = "metrics.csv"
STILL_FALLING = 0.01
"""A loss that fell by this share of itself in the last epoch, when rates are nearly 0, would have gone on."""
LOSS, LOSS_OF_MEAN = "val/loss", "val/loss_of_mean"


def read_metrics(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Columns of metrics.csv as (step, value) pairs; empty where the file is absent."""
    curves: dict[str, list[tuple[float, float]]] = {}
    if not path.exists():
        return curves
    what, cure = "a table of metrics", "Move it away to have a report without learning curves."
    rows = read_csv(path, what, cure, "step")
    with file_guard(path, what, cure):
        for row in rows:
            for name, text in row.items():
                if name != "step" and text and row.get("step"):
                    curves.setdefault(name, []).append((float(row["step"]), float(text)))
    return curves


@dataclass(frozen=True)
class Validation:
    """One validation.

    Parameters
    ----------
    step : int
        Optimiser steps trained before it, as the loggers count them.
    loss : float
    of_mean : float or None
        The loss of a model that predicts the mean of every target; None where no targets are predicted.
    """

    step: int
    loss: float
    of_mean: float | None


def validations(metrics: Mapping[str, Sequence[tuple[float, float]]]) -> list[Validation]:
    """In the order in which they were made.

    Parameters
    ----------
    metrics : mapping of name to (step, value) pairs
        From `read_metrics`.
    """
    of_mean = dict(metrics.get(LOSS_OF_MEAN, []))
    return [Validation(int(step), loss, of_mean.get(step)) for step, loss in metrics.get(LOSS, [])]


def worse_than_mean_said(found: Sequence[Validation]) -> str:
    """A sentence where the last validation is worse than predicting the mean of every target; else empty."""
    last = found[-1] if found else None
    if last is None or last.of_mean is None or not last.loss > last.of_mean:
        return ""
    return (
        f"Training ended worse than predicting the mean of every target: validation loss {last.loss:.3g}, that of the"
        f" mean {last.of_mean:.3g}."
    )


def learning_warnings(found: Sequence[Validation], facts: Mapping[str, Any]) -> list[str]:
    """What a reader must know about how the model learned.

    Parameters
    ----------
    found : sequence of Validation
    facts : mapping
        Of run.json: `warnings` of the start of the run, such as that it is too short.
    """
    said = list(facts.get("warnings", []))
    if worse := worse_than_mean_said(found):
        lowest = min(one.loss for one in found)
        best = "" if lowest == found[-1].loss else f" The lowest was {lowest:.3g} (checkpoint best)."
        said.append(
            f"{worse}{best} Lower rates (--model.backbone_lr, --model.head_lr), more stories or fewer trained"
            " layers (--model.trainable.first_layer) may help."
        )
    if _still_falls(found):
        said.append(
            f"The validation loss had not stopped falling: {found[-2].loss:.4g} before the last epoch that was"
            f" validated, {found[-1].loss:.4g} after it. More epochs would help: --trainer.max_epochs."
        )
    return said


def _still_falls(found: Sequence[Validation]) -> bool:
    if len(found) < 2 or found[-1].loss > min(one.loss for one in found):
        return False
    before, last = found[-2].loss, found[-1].loss
    return before - last > STILL_FALLING * abs(before)
