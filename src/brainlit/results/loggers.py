"""Loggers that need no account, ask no question and survive a resume."""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from brainlit.files import write_csv
from brainlit.guard import read_csv

_log = logging.getLogger(__name__)


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
        """Whether a row is of a step after the checkpoint.

        What a step logs has the number of steps before it, and an epoch; a probe between epochs has the number of steps
        before it, and no epoch, and may have come before the checkpoint: it stays, and is not repeated.
        """
        if self._resumed_step is None:
            return False
        step = float(row["step"] or 0)
        return step > self._resumed_step or (step == self._resumed_step and bool(row.get("epoch")))

    def save(self) -> None:
        """Write all rows; columns are sorted, empty where a row lacks them."""
        if not self.metrics:
            return
        self._rows.extend(row for row in self.metrics if _content(row) not in self._earlier)
        self.metrics = []
        write_csv(Path(self.metrics_file_path), sorted(set().union(*self._rows)), self._rows)


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


def wandb_mode(environ: Mapping[str, str] | None = None) -> str:
    """'online' where the user is logged in, else 'offline'; WANDB_MODE decides where it is set. Asks nothing.

    Logged in means: WANDB_API_KEY is set, or the netrc file names the W&B host (WANDB_BASE_URL, api.wandb.ai).
    """
    env = os.environ if environ is None else environ
    if env.get("WANDB_MODE"):
        return "offline" if env["WANDB_MODE"] == "dryrun" else env["WANDB_MODE"]
    if env.get("WANDB_API_KEY") or _netrc_names_wandb(env):
        return "online"
    return "offline"


def wandb_logger(
    save_dir: str | os.PathLike[str],
    project: str = "brainlit",
    name: str | None = None,
    run_id: str | None = None,
    config: Mapping[str, Any] | None = None,
    tags: list[str] | None = None,
) -> WandbLogger | None:
    """A W&B logger that never prompts: offline unless the user is logged in or WANDB_MODE says otherwise.

    Parameters
    ----------
    save_dir : path
        The run directory; the run's files go to <save_dir>/wandb.
    run_id : str, optional
        Recorded as the W&B id, so that a resumed run continues the same W&B run where it is online.
    config : mapping, optional
        The resolved configuration, recorded with the run (offline too).

    Returns
    -------
    WandbLogger, or None where wandb is not installed or WANDB_MODE is 'disabled'.
    """
    mode = wandb_mode()
    if mode == "disabled":
        return None
    try:
        import wandb
    except ModuleNotFoundError:
        _log.info("wandb is not installed: figures and metrics go to %s only.", save_dir)
        return None
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        name=name or run_id,
        save_dir=str(save_dir),
        project=project,
        id=run_id,
        mode=mode,
        resume="allow" if mode == "online" else None,
        config={**(config or {}), "run_id": run_id},
        tags=tags,
        settings=wandb.Settings(silent=True, console="off", disable_git=True),
    )


def _netrc_names_wandb(env: Mapping[str, str]) -> bool:
    home = Path(env.get("HOME") or Path.home())
    host = urlsplit(env.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    for path in [Path(env["NETRC"])] if env.get("NETRC") else [home / ".netrc", home / "_netrc"]:
        if path.is_file():
            try:
                return netrc.netrc(str(path)).authenticators(host) is not None
            except (netrc.NetrcParseError, OSError) as error:
                _log.warning("cannot read %s (%s); W&B runs offline. Set WANDB_MODE=online to override.", path, error)
    return False
