"""`brainlit dashboard [RUN...]`: a workspace and a report in W&B that show what runs of a project log."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from brainlit.cli.errors import UsageError
from brainlit.cli.option_hints import OwnParser
from brainlit.cli.run_options import read_config

if TYPE_CHECKING:
    from brainlit.results.dashboard import Section

DESCRIPTION = """\
Make a workspace and a report of a W&B project: the five results, regimes side by side, layers by regions, training, and
figures. Panels name what runs log: those of the folders RUN or, where none is given, those of the project on the
server. It needs a login at W&B and the extra dashboard; --dry-run needs neither, and prints the sections and panels as
JSON. Every call makes new ones, and changes no run."""
PROJECT = "brainlit"
MOST_RUNS = 50
"""Runs of the project that are asked what they log, the newest first."""


def run_dashboard(arguments: Sequence[str]) -> int:
    """Make both, and print where they are; or print the plan."""
    parser = OwnParser(
        prog="brainlit dashboard", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", type=Path, help="folders of runs that W&B has")
    parser.add_argument("--project", help="of W&B (default: WANDB_PROJECT, else that of the first RUN, else brainlit)")
    parser.add_argument(
        "--entity", help="user or team (default: WANDB_ENTITY, else that of the first RUN, else your own)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be made of the folders RUN")
    given = parser.parse_args(list(arguments))
    if given.dry_run and not given.runs:
        raise UsageError("--dry-run asks no server, so it needs runs: brainlit dashboard --dry-run runs/brain_tune/ID")
    recorded = (read_config(given.runs[0]).get("wandb") or {}) if given.runs else {}
    project = given.project or os.environ.get("WANDB_PROJECT") or recorded.get("project") or PROJECT
    entity = given.entity or os.environ.get("WANDB_ENTITY") or recorded.get("entity")
    if given.dry_run:
        plan = [asdict(one) for one in _sections(given.runs, entity, project)]
        print(json.dumps({"project": project, "entity": entity, "sections": plan}, indent=2))
        return 0
    _require_login()
    from brainlit.results.dashboard import report_of, workspace_of
    from brainlit.results.wandb_session import silence

    with silence():
        entity = _entity(entity)
        sections = _sections(given.runs, entity, project)
        for name, made in (("Workspace", workspace_of), ("Report", report_of)):
            print(f"{name}: {made(sections, entity, project).save().url}")
    return 0


def _sections(folders: Sequence[Path], entity: str | None, project: str) -> list[Section]:
    """The plan of these runs, or of the project where there are none.

    Raises
    ------
    UsageError
        If there is nothing to show.
    """
    keys = _keys(folders, entity, project)
    from brainlit.results.dashboard import plan_dashboard

    sections = plan_dashboard(keys)
    if not sections:
        where = ", ".join(map(str, folders)) or f"the project {entity}/{project}"
        raise UsageError(
            f"W&B has nothing of {where} that a panel could show: no run logged there under brainlit's names. Runs with"
            " --run.wandb off log nothing; --project and --entity say where others are."
        )
    return sections


def _require_login() -> None:
    """See that this machine has what is needed, before W&B is asked.

    Raises
    ------
    UsageError
        If it has not, with the cure.
    """
    try:
        import wandb_workspaces  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError(
            "brainlit dashboard makes pages by wandb-workspaces (the extra dashboard), which is not installed: pip"
            " install wandb-workspaces. --dry-run needs none."
        ) from None
    from brainlit.results.wandb_session import is_logged_in

    if not is_logged_in(os.environ):
        raise UsageError(
            "there is no login at W&B on this machine: set WANDB_API_KEY, or say wandb login. --dry-run needs none, and"
            " shows what would be made."
        )


def _entity(asked: str | None) -> str:
    """The user or team: who was asked for, else the login's own.

    Raises
    ------
    UsageError
        If W&B does not say.
    """
    import wandb

    try:
        entity = asked or wandb.Api().default_entity
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise UsageError(f"W&B does not answer, or does not know this login: {error}") from None
    if not entity:
        raise UsageError("W&B says no user or team for this login. Give --entity, or set WANDB_ENTITY.")
    return str(entity)


def _keys(folders: Sequence[Path], entity: str | None, project: str) -> set[str]:
    """What is logged: by the runs of these folders, else by the newest runs of the project."""
    if folders:
        from brainlit.results.dashboard import logged_keys

        return logged_keys(folders)
    import wandb

    try:
        runs = wandb.Api().runs(f"{entity}/{project}", order="-created_at", per_page=MOST_RUNS)
        return {key for run in islice(runs, MOST_RUNS) for key in run.summary.keys()}  # noqa: SIM118 - is no mapping
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise UsageError(
            f"W&B has no project {entity}/{project} for this login ({error}). --project and --entity say which one;"
            " folders of runs as arguments make pages before the first run is there."
        ) from None
