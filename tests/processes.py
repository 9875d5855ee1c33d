"""The command line in a process of its own, as a user starts it, without importing everything again each time."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRELOADED = ["brainlit.cli.training", "brainlit.callbacks", "brainlit.downstream", "tests.toy"]


def start(arguments: Sequence[str], log: Path, environ: Mapping[str, str] | None = None) -> ForkServerProcess:
    """Start `brainlit ARGUMENTS` in the project's folder, its output in a file; forked from what imported already.

    Parameters
    ----------
    environ : mapping, optional
        Variables of the process besides ours.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_command, args=(list(arguments), log, dict(environ or {})))
    process.start()
    return process


def _command(arguments: list[str], log: Path, environ: dict[str, str]) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    from brainlit.cli import main

    os.environ.update(environ)
    rank_zero_only.rank = int(environ.get("LOCAL_RANK", 0))  # else that of when Lightning was imported
    os.chdir(ROOT)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main(arguments))
