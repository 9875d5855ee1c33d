"""`brainlit submit AXES.yaml`: all cells of a file of axes, as a Slurm array or side by side on this machine.

The plan is the one of `reproduce`, `sweep` and `fractions`: what is missing is started, finished runs are kept, and the
same command goes on where it stopped. The comparison of what has finished comes last, and says what is missing.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from brainlit.cli import slurm
from brainlit.cli.axes import Axes, read_axes, wandb_sweep
from brainlit.cli.errors import UsageError, explained
from brainlit.cli.option_hints import OwnParser
from brainlit.cli.run_many import BRAINLIT, LOGS, check_settings, run_missing, show_commands
from brainlit.cli.yaml_names import dump_yaml
from brainlit.files import only_writer, write_bytes

AXES_FILE = "axes.yaml"
"""In the folder of the runs: the file by which they were started last."""
DESCRIPTION = """\
Train every combination of the values in a file of axes (subjects, models, regimes, seeds, any option), one run each:
as an array of Slurm jobs, with --local as jobs on this machine, or as a sweep of W&B. The same command again starts
what is missing: finished runs are kept, by their record, and so is what waits or runs in the queue. When all jobs have
ended, one more compares the runs and says which are missing. brainlit status FILE shows where they are."""
EPILOG = """\
examples:
  brainlit submit experiments/grids/demo.yaml --dry-run
  brainlit submit experiments/grids/demo.yaml --local --jobs 2
  brainlit submit grid.yaml
  brainlit submit grid.yaml --wandb-sweep > sweep.yaml

docs/cluster.md describes the file.

exit status: 0 submitted, or all finished; 1 a run failed or is missing; 2 wrong use.
"""


def run_submit(arguments: Sequence[str]) -> int:
    """Do what the options say; returns the exit status."""
    given, words = _parsed(arguments)
    axes = read_axes(given.axes)
    if given.cell:
        return _run_cell(axes, words)
    if given.wandb_sweep:
        from brainlit.results.wandb_logger import PROJECT

        print(dump_yaml(wandb_sweep(axes, PROJECT)), end="")
        return 0
    if given.report:
        return compare(axes)
    check_settings(axes.runs)
    if given.dry_run:
        return show_commands(axes.runs, _report_command(axes.path))
    if given.local:
        with only_writer(axes.folder / AXES_FILE):
            _keep(axes)
            is_done = run_missing(axes.runs, axes.folder, given.jobs)
        return max(compare(axes), 0 if is_done else 1)
    return submit(axes)


def submit(axes: Axes) -> int:
    """Submit the cells that are neither finished nor queued, and the comparison behind them.

    Raises
    ------
    SlurmError
        If there is no Slurm here, or it refuses.
    """
    with only_writer(axes.folder / AXES_FILE):
        queue, known = slurm.queued(), slurm.read_jobs(axes.folder)
        queued = {cell.name: job for cell in axes.cells if (job := known.get(cell.name, "")) in queue}
        missing = {cell.name: cell.run.todo for cell in axes.cells if cell.run.todo and cell.name not in queued}
        n_finished = sum(not run.todo for run in axes.runs)
        print(f"{n_finished} of {len(axes.cells)} runs are finished, {len(queued)} wait or run.")
        if missing:
            _keep(axes)
            if queue.get(report := known.get(slurm.REPORT, "")) == "PENDING":
                slurm.cancel(report)  # another will wait for these, too
            jobs = slurm.submit_cells(axes.folder, missing, axes.slurm)
            known = {**known, **jobs}
            slurm.write_jobs(axes.folder, known)  # whatever becomes of the comparison
            after, command = [*jobs.values(), *queued.values()], _report_command(axes.folder / AXES_FILE)
            report = slurm.submit_report(axes.folder, command, axes.slurm, after)
            slurm.write_jobs(axes.folder, {**known, slurm.REPORT: report})
            array = after[0].partition("_")[0]
            print(
                f"submitted {len(missing)} as job {array}, the comparison behind them as {report}."
                f" Logs: {axes.folder / LOGS}\nbrainlit status {axes.path} shows where they are."
            )
    return 0 if missing or queued else compare(axes)


def compare(axes: Axes) -> int:
    """Compare what has finished and say what is missing; 1 where anything is.

    Runs that differ along other axes than model, regime and seed are compared apart, each group in a folder of its own.
    """
    from brainlit.cli.reports import run_compare

    missing = [cell.name for cell in axes.cells if not cell.run.is_finished]
    print(f"{len(axes.cells) - len(missing)} of {len(axes.cells)} runs are finished.")
    if missing:
        print(f"missing: {', '.join(missing)}\nThe same command goes on where it stopped: brainlit submit {axes.path}")
    status = 1 if missing else 0
    for name, cells in axes.groups().items():
        finished = [str(cell.run.path) for cell in cells if cell.name not in missing]
        if name:
            print(f"\n{name}: {len(finished)} of {len(cells)} runs")
        if finished:
            folder = axes.folder / f"compared-{name}" if name else axes.folder
            words = [*finished, "--output", str(folder)]
            status = max(status, explained(partial(run_compare, words)))
    return status


def _parsed(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = OwnParser(
        prog="brainlit submit",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("axes", type=Path, metavar="AXES.yaml", help="file of the axes that runs differ along")
    add("--local", action="store_true", help="on this machine, without Slurm")
    add(
        "--jobs", type=int, help="with --local: jobs at a time (default: one per core; each has its share of the cores)"
    )
    add("--dry-run", action="store_true", help="print the commands and how many runs are finished")
    add("--report", action="store_true", help="only compare what has finished, and say what is missing")
    add("--wandb-sweep", action="store_true", help="print a sweep over the same runs, for wandb sweep")
    add(
        "--cell",
        action="store_true",
        help="train the one run that --AXIS=VALUE of every axis says, as agents of W&B do",
    )
    given, words = parser.parse_known_args(list(arguments))
    if words and not given.cell:
        parser.error(f"unrecognized arguments: {' '.join(words)}")
    if given.jobs is not None and (given.jobs < 1 or not given.local):
        raise UsageError(
            f"--jobs {given.jobs} goes with --local, and is at least 1. In Slurm: array_parallelism in the file."
        )
    modes = ("local", "dry_run", "report", "wandb_sweep", "cell")
    chosen = [f"--{mode.replace('_', '-')}" for mode in modes if getattr(given, mode)]
    if len(chosen) > 1 and chosen != ["--local", "--dry-run"]:
        raise UsageError(f"{' and '.join(chosen)} do not go together. Give one of them.")
    return given, words


def _run_cell(axes: Axes, words: Sequence[str]) -> int:
    """Turn this process into the command of a cell, unless that is finished."""
    cell = axes.cell_of(words)
    if cell.run.todo:
        print(shlex.join(["brainlit", *cell.run.todo]), flush=True)
        os.execv(BRAINLIT[0], [*BRAINLIT, *cell.run.todo])
    print(f"{cell.run.path} has finished.")
    return 0


def _report_command(path: Path) -> list[str]:
    return ["submit", str(path), "--report"]


def _keep(axes: Axes) -> None:
    """A copy of the file beside the runs, which what waits in the queue reads."""
    copy = axes.folder / AXES_FILE
    if not (copy.exists() and copy.samefile(axes.path)):
        write_bytes(copy, axes.path.read_bytes())
