"""A W&B logger that needs no account, asks no question, and has every row once, however often a run was killed.

W&B writes and sends in its own time. A process that is killed takes with it what was not out yet (offline a file is
written in pieces of 32 kB), and one that goes on from a checkpoint logs again what came after that. So every row is
kept in the run's folder before W&B has it (`RowJournal`). A run that goes on gives W&B the rows that it lacks, and
leaves out those that it has.

Online, W&B says how far it got. Offline, the new process begins its file with all rows so far, and the earlier files
are set aside: there is one to sync, with no flags.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.utilities import _scan_checkpoints
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from brainlit import __version__
from brainlit.files import atomic_path
from brainlit.results.loggers import comes_again
from brainlit.results.run_directory import RunDirectory, git_state
from brainlit.results.wandb_names import MOST_SCALARS, PROBE_EPOCH, run_name, run_tags, wandb_id
from brainlit.results.wandb_session import silence, wandb_mode

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import ModelCheckpoint

_log = logging.getLogger(__name__)

FOLDER, JOURNAL_FILE, SET_ASIDE = "wandb", "rows.jsonl", "earlier"
STEP, ROW = "trainer/global_step", "trainer/row"
"""Lightning's axis, and which row of the journal a row of W&B is."""
PROJECT = "brainlit"
FINISH_TIMEOUT_S = 1800.0
"""W&B's own is none: it waits for a server that has stopped answering for as long as the process lives."""

Row = dict[str, Any]


@dataclass(frozen=True)
class WandbOptions:
    """How a run stands in W&B. What is not given is what W&B's own variable says, else what is said here.

    Parameters
    ----------
    project : str or None
        WANDB_PROJECT, else brainlit.
    entity : str or None
        User or team: WANDB_ENTITY, else the account's own.
    name : str or None
        WANDB_NAME, else family, regime and seed: wav2vec-brain-s0.
    group : str or None
        WANDB_RUN_GROUP, else run.experiment.
    job_type : str or None
        WANDB_JOB_TYPE, else fit.
    notes : str or None
        WANDB_NOTES, else none.
    tags : list of str or None
        WANDB_TAGS (with commas between them), else family, weights, regime, data set and the state of the code.
    log_model : bool or 'all'
        Give W&B best.ckpt, last.ckpt and the exported model at the end; all: checkpoints also whenever one is saved.
    scalars : int
        Most scalars that W&B is given of a probe, its epoch among them; all its numbers are in one table.
    finish_timeout_s : float or None
        Seconds that a run waits at its end until W&B has everything (0: for ever). WANDB_FINISH_TIMEOUT, else 1800.
    """

    project: str | None = None
    entity: str | None = None
    name: str | None = None
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    tags: list[str] | None = None
    log_model: bool | Literal["all"] = False
    scalars: int = MOST_SCALARS
    finish_timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.scalars < 1:
            raise ValueError(f"wandb.scalars is {self.scalars}; give at least 1 (the epoch of the probe is one).")
        if self.finish_timeout_s is not None and self.finish_timeout_s < 0:
            raise ValueError(f"wandb.finish_timeout_s is {self.finish_timeout_s}; give seconds, or 0 to wait for ever.")


def wandb_logger(
    run: RunDirectory,
    config: Mapping[str, Any] | None = None,
    options: WandbOptions | None = None,
    mode: str | None = None,
    resumed_step: int | None = None,
) -> RunLogger | None:
    """The W&B logger of a run; it never prompts.

    Parameters
    ----------
    run : RunDirectory
        W&B's files go to <run>/wandb.
    config : mapping, optional
        The resolved configuration, recorded with the run (offline too).
    options : WandbOptions, optional
    mode : str, optional
        'online' or 'offline', as `wandb_mode` says where not given.
    resumed_step : int, optional
        Optimiser steps behind the checkpoint that the run goes on from; those of its own last one where not given.

    Returns
    -------
    RunLogger, or None where wandb is not installed or the mode is 'disabled'.
    """
    mode, options = mode or wandb_mode(), options or WandbOptions()
    if mode == "disabled":
        return None
    try:
        import wandb  # noqa: F401
    except ModuleNotFoundError:
        _log.info("wandb is not installed: figures and metrics go to %s only.", run.path)
        return None
    settled = settings_of(run, config or {}, options, os.environ)
    run.path.mkdir(parents=True, exist_ok=True)
    return RunLogger(
        run.path,
        resumed_step=run.resumed_step if resumed_step is None else resumed_step,
        scalars=options.scalars,
        save_dir=str(run.path),
        mode=mode,
        log_model=options.log_model,
        settings=_settings(options),
        **settled,
    )


def _settings(options: WandbOptions) -> Any:
    """A run that says nothing on the screen, and does not wait for ever at its end."""
    import wandb

    limit_s: Any = options.finish_timeout_s
    if limit_s is None:
        limit_s = os.environ.get("WANDB_FINISH_TIMEOUT") or FINISH_TIMEOUT_S
    return wandb.Settings(silent=True, finish_timeout=limit_s, finish_timeout_raises=True)


def log_folder(
    run: RunDirectory,
    job_type: str,
    numbers: Mapping[str, float],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    mode: Literal["online", "offline"],
    options: WandbOptions | None = None,
    page: Path | None = None,
    **own: Any,
) -> None:
    """Give W&B what a command that does not train has written into a folder, as a run of its own.

    Whatever goes wrong is logged: all of it is on disk.

    Parameters
    ----------
    run : RunDirectory
        The folder; W&B's files go to <folder>/wandb.
    job_type : str
        probe or downstream.
    numbers : mapping
        The most telling first; at most `options.scalars` are given.
    tables : mapping of key to rows
    mode : 'online' or 'offline'
    page : Path, optional
        Of the report.
    own : name, group
        Where neither an option nor a variable says so.
    """
    options = options or WandbOptions()
    settled = settings_of(run, {}, options, os.environ, job_type=job_type, tags=[job_type], **own)
    if "WANDB_RUN_ID" not in os.environ:
        settled["id"] = f"{settled['id']}-{job_type}"  # beside the run that trained
    try:
        import wandb

        given: dict[str, Any] = dict(list(numbers.items())[: options.scalars])
        for key, rows in tables.items():
            columns: list[Any] = list(dict.fromkeys(column for one in rows for column in one))
            given[key] = wandb.Table(columns=columns, data=[[one.get(column) for column in columns] for one in rows])
        if page is not None:
            given["report"] = wandb.Html(str(page), inject=False)
        settings = _settings(options)
        with silence(), wandb.init(dir=str(run.path), mode=mode, resume="allow", settings=settings, **settled) as one:
            one.log(given)
    except Exception:  # noqa: BLE001 - it is given to W&B besides
        _log.warning("W&B could not be given what is in %s:", run.path, exc_info=True)


def settings_of(
    run: RunDirectory, config: Mapping[str, Any], options: WandbOptions, environ: Mapping[str, str], **ours: Any
) -> dict[str, Any]:
    """What W&B is told about a run: an option that was given, else W&B's own variable, else our own.

    In a sweep the id is the agent's (WANDB_RUN_ID), who waits for it. `ours` are other defaults than those of a fit.
    """
    code = git_state()
    own: dict[str, Any] = {
        "project": PROJECT,
        "entity": None,
        "name": run_name(config),
        "group": run.experiment,
        "job_type": "fit",
        "notes": None,
        "tags": run_tags(config, code),
        **ours,
    }
    settled: dict[str, Any] = {}
    for key, default in own.items():
        given, variable = getattr(options, key), environ.get(f"WANDB_{'RUN_GROUP' if key == 'group' else key.upper()}")
        said = [tag.strip() for tag in variable.split(",") if tag.strip()] if variable and key == "tags" else variable
        settled[key] = given if given is not None else said or default
    about = {"run_id": run.run_id, "experiment": run.experiment, "brainlit": {"version": __version__, **code}}
    return {**settled, "id": environ.get("WANDB_RUN_ID") or wandb_id(run), "config": {**config, **about}}


class RowJournal:
    """The rows that W&B was given, one JSON object a line, on disk before W&B has them.

    Parameters
    ----------
    path : Path
        The file; made with the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Row]:
        """All rows; a last one that was being written when the process was killed is none."""
        rows: list[Row] = []
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    break
                rows.append(row)
        return rows

    def rewrite(self, rows: Sequence[Row]) -> None:
        """Put other rows in their place, all or none."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(map(_line, rows)), encoding="utf-8")

    def append(self, row: Row) -> None:
        """Add one row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))


class RunLogger(WandbLogger):
    """Lightning's W&B logger, in whose run every row stands once, also after the process was killed.

    Rows that are given to `experiment.log` past this logger are not kept: log with `self.log` or `log_metrics`.

    Parameters
    ----------
    run_path : Path
        The run directory.
    resumed_step : int or None
        Optimiser steps behind the checkpoint that the run goes on from: later rows are logged again. None in a new run.
    scalars : int
        Most scalars that callbacks give of a probe.
    init : keyword arguments
        Of `WandbLogger`.
    """

    def __init__(
        self, run_path: Path, resumed_step: int | None = None, scalars: int = MOST_SCALARS, **init: Any
    ) -> None:
        super().__init__(**init)
        self._wandb_init.pop("anonymous", None)  # Lightning gives it always, and W&B warns of it
        self.scalars, self._resumed_step = scalars, resumed_step
        self._folder = Path(run_path) / FOLDER
        self._journal = RowJournal(self._folder / JOURNAL_FILE)
        self._n_rows = 0
        self._standing: set[tuple[Any, ...]] = set()
        self._defined: set[str] = set()
        self._silence = ExitStack()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_silence": ExitStack()}  # of this process

    @property
    def log_model(self) -> bool:
        """Whether W&B is to have checkpoints and the exported model."""
        return bool(self._log_model)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, which has the rows of earlier processes."""
        is_new = self._experiment is None and getattr(self, "_attach_id", None) is None  # not that of a process before
        if not is_new:
            return super().experiment
        self._silence.enter_context(silence())
        run = self._begin()
        atexit.register(self._finish, run)  # before W&B's own, which would say nothing
        self._go_on(run)
        return run

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Give W&B the checkpoints that are left, if they were asked for."""
        with self._silence:
            super().finalize(status)

    def _begin(self) -> Any:
        """The W&B run: on disk, where the server does not answer."""
        import wandb

        try:
            return super().experiment
        except wandb.errors.CommError as error:
            if self._wandb_init.get("mode") != "online":
                raise
            _log.warning(
                "W&B does not answer, so the run is recorded offline; later, `wandb sync %s` gives it to W&B. Why: %s",
                self._folder,
                error,
            )
            self._wandb_init["mode"] = "offline"
            wandb.teardown()  # which still has a run of this id
            return super().experiment

    def _finish(self, run: Any) -> None:
        """End the run: wait until W&B has everything, but not for ever."""
        try:
            with silence():
                run.finish()
        except TimeoutError:
            _log.warning(
                "W&B did not take all of this run in %g s, the longest that a run waits at its end"
                " (wandb.finish_timeout_s). `wandb sync --include-online %s` gives it the rest.",
                run.settings.finish_timeout,
                run.settings.sync_dir,
            )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log one row, unless W&B has it from an earlier process."""
        row = dict(metrics) if step is None else {**metrics, STEP: step}
        run, kept = self.experiment, _plain(row)
        if _identity(row) in self._standing:
            return
        if kept.keys() - {STEP}:
            self._journal.append(kept)
            row[ROW] = self._n_rows
            self._n_rows += 1
        self._send(run, row)

    def _go_on(self, run: Any) -> None:
        """Give a W&B run that goes on what it lacks of the rows so far, and say where it is seen."""
        if not run.offline:
            rank_zero_info(f"W&B: {run.url}")
        earlier = self._journal.read()
        n_there = 0 if run.offline else min(len(earlier), int(run.summary.get(ROW, -1)) + 1)
        there, more = earlier[:n_there], [row for row in earlier[n_there:] if not self._comes_again(row)]
        self._set_aside(run)
        self._journal.rewrite([*there, *more])
        for k, row in enumerate(more):
            self._send(run, {**_with_tables(row), ROW: n_there + k})
        self._standing = {_identity(row) for row in (*there, *more) if STEP in row}
        self._n_rows = n_there + len(more)

    def _comes_again(self, row: Row) -> bool:
        return self._resumed_step is not None and STEP in row and comes_again(row, row[STEP], self._resumed_step)

    def _set_aside(self, run: Any) -> None:
        """Earlier offline files hold nothing that this run has not, and must not be synced beside it."""
        for folder in sorted(self._folder.glob("offline-run-*")):
            if folder.name != Path(run.settings.sync_dir).name:
                (self._folder / SET_ASIDE).mkdir(exist_ok=True)
                folder.rename(self._folder / SET_ASIDE / folder.name)

    def _send(self, run: Any, row: Row) -> None:
        for key in row.keys() - self._defined:
            self._defined.add(key)
            if key == ROW:
                run.define_metric(ROW, hidden=True)
            elif key not in (STEP, PROBE_EPOCH):  # of names with a slash, Lightning's "*" defines none
                run.define_metric(key, step_metric=PROBE_EPOCH if key.startswith("probe/") else STEP)
        with _survives(", ".join(sorted(row.keys() - {STEP, ROW}))):
            run.log(row)

    def _scan_and_log_checkpoints(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Every checkpoint is a version of one artifact, whose alias is the name of its file: best, last."""
        import wandb

        for time, path, score, _ in _scan_checkpoints(checkpoint_callback, self._logged_model_time):
            about = {"file": Path(path).name, "step": checkpoint_callback._last_global_step_saved}
            if checkpoint_callback.monitor is not None:
                about[checkpoint_callback.monitor] = float(score)
            artifact = wandb.Artifact(f"model-{self.experiment.id}", type="model", metadata=about)
            artifact.add_file(path, name="model.ckpt")
            # ValueError: an answer that W&B's client cannot read; OSError: a lost connection
            with _survives(Path(path).name, ValueError, OSError):
                self.experiment.log_artifact(artifact, aliases=[Path(path).stem])
            self._logged_model_time[path] = time


def _line(row: Row) -> str:
    return json.dumps(row, default=lambda value: value.item()) + "\n"  # numpy's numbers


@contextmanager
def _survives(what: str, *others: type[Exception]) -> Iterator[None]:
    """What W&B does not take costs the run nothing: for tables and artifacts it asks its server, which may be slow.

    W&B's own errors are caught, and others that are named.
    """
    import wandb

    caught: tuple[type[Exception], ...] = (wandb.errors.Error, *others)
    try:
        yield
    except caught as error:
        _log.warning("W&B did not take %s; the run goes on, and has it in its folder: %s", what, error)


def _plain(row: Row) -> Row:
    """What can be given to W&B again: numbers, words and tables, no pictures."""
    kept: Row = {}
    for key, value in row.items():
        if isinstance(value, (bool, int, float, str)):
            kept[key] = value
        elif hasattr(value, "columns") and hasattr(value, "data"):
            kept[key] = {"columns": list(value.columns), "data": list(value.data)}
        elif hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
            kept[key] = value.item()
    return kept


def _with_tables(row: Row) -> Row:
    import wandb

    return {key: wandb.Table(**value) if isinstance(value, dict) else value for key, value in row.items()}


def _identity(row: Row) -> tuple[Any, ...]:
    """Which row it is: its step and what it holds. A run that goes on computes the same numbers again."""
    return (row.get(STEP), *sorted(row.keys() - {STEP}))
