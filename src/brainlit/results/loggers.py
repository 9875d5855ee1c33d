"""metrics.csv, which a run that goes on continues: no row is lost and none stands twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from brainlit.files import write_csv
from brainlit.guard import read_csv


class _AppendingWriter(ExperimentWriter):
    """Keep the rows that an earlier process wrote, but for steps that are trained again; write the file atomically."""

    def __init__(self, log_dir: str, resumed_step: int | None = None) -> None:
        self._resumed_step = resumed_step
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        path, rows = Path(self.metrics_file_path), []
        if path.exists():
            rows = read_csv(path, "a table of metrics", "Move it away to go on without what was logged before.", "step")
        self._rows: list[dict[str, Any]] = [row for row in rows if not self._comes_again(row)]
        self._earlier = {_content(row) for row in self._rows}

    def _comes_again(self, row: Mapping[str, str]) -> bool:
        return self._resumed_step is not None and comes_again(row, float(row["step"] or 0), self._resumed_step)

    def save(self) -> None:
        """Write all rows; columns are sorted, empty where a row lacks them."""
        if not self.metrics:
            return
        self._rows.extend(row for row in self.metrics if _content(row) not in self._earlier)
        self.metrics = []
        write_csv(Path(self.metrics_file_path), sorted(set().union(*self._rows)), self._rows)


def comes_again(row: Mapping[str, Any], step: float, resumed_step: int) -> bool:
    """Whether a logged row is of a step after the checkpoint that a run goes on from.

    What a step logs has the number of steps before it, and an epoch; a probe between epochs has the number of steps
    before it, and no epoch, and may have come before the checkpoint: it stays, and is not repeated.

    >>> [comes_again(row, 4, 4) for row in ({"train/loss": 0.1, "epoch": 1}, {"probe/r": 0.2})]
    [True, False]
    """
    return step > resumed_step or (step == resumed_step and row.get("epoch") not in ("", None))


def _content(row: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    return frozenset((key, str(value)) for key, value in row.items() if value not in ("", None))


class MetricsLogger(CSVLogger):
    """Lightning's CSV logger writing <save_dir>/metrics.csv; a resumed run continues the file instead of deleting it.

    Parameters
    ----------
    save_dir : path
        The run directory.
    flush_logs_every_n_steps : int
        Rows are on disk after this many steps at the latest.
    resumed_step : int or None
        Optimiser steps behind the checkpoint that the run goes on from: later rows are of steps that are trained again,
        and are dropped. None keeps all rows.
    """

    def __init__(
        self, save_dir: str | Path, flush_logs_every_n_steps: int = 50, resumed_step: int | None = None
    ) -> None:
        super().__init__(save_dir, name="", version="", flush_logs_every_n_steps=flush_logs_every_n_steps)
        self._resumed_step = resumed_step

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer of the rows."""
        if self._experiment is None:
            Path(self.save_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = _AppendingWriter(self.log_dir, self._resumed_step)
        writer: ExperimentWriter = self._experiment  # type: ignore[assignment]
        return writer
