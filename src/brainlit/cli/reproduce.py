"""`brainlit reproduce`: every regime on the demo over several seeds, what each run knows besides, and the report."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from brainlit.cli.plan import (
    Run,
    base_files,
    check_further,
    check_known,
    check_numbers,
    check_settings,
    run_missing,
    show_commands,
    split_further,
)

PRETRAINED = "pretrained"
FULL: dict[str, Any] = {
    "seeds": [11, 12, 13, 14, 15],
    "regimes": [PRETRAINED, "brain", "permuted", "stimulus", "language_model"],
    "permutations": 2,
    "experiment": "reproduce",
}
QUICK = FULL | {
    "seeds": [11, 12],
    "regimes": [PRETRAINED, "brain", "permuted"],
    "permutations": 1,
    "experiment": "reproduce-quick",
}

DESCRIPTION = """\
Train and probe every regime on the demo for several seeds, ask each model the downstream tasks, and write the report of
all of them. Runs are runs/<experiment>/<model>-<regime>-<seed>, further permutations end in -draw2 and so on. The same
command again goes on where it stopped: finished runs are kept, one that was cut short goes on from its last checkpoint
(or begins again, if it has none). A run that was made with other settings is refused."""


def main(arguments: Sequence[str]) -> int:
    """Plan, run what is missing, compare; 1 if a job failed."""
    given, further = parsed_arguments(arguments)
    runs = planned_runs(given, further)
    check_settings(runs)
    folder = Path(given.root) / given.experiment
    report = ["compare", *(str(run.path) for run in runs), "--output", str(folder)]
    if given.dry_run:
        return show_commands(runs, report)
    if not run_missing(runs, folder, given.jobs):
        return 1
    from brainlit.cli.compare import main as compare

    return compare(report[1:])


def parsed_arguments(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options with their defaults, and those that are meant for every fit.

    Raises
    ------
    UsageError
        If an option is neither ours nor one of a fit, or a value cannot be.
    """
    parser = _parser()
    ours, after = split_further(arguments)
    given, unknown = parser.parse_known_args(ours)
    further = [*unknown, *after]
    for name, value in (QUICK if given.quick else FULL).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    check_further(further, parser)
    check_numbers(given)
    check_known({"model": [given.model], "regime": given.regimes})
    given.regimes = sorted(dict.fromkeys(given.regimes), key=lambda regime: regime != PRETRAINED)
    return given, further


def planned_runs(given: argparse.Namespace, further: Sequence[str]) -> list[Run]:
    """All runs, seed by seed, the pretrained model first in each."""
    return [
        _run(given, seed, regime, draw, further, is_first=(regime, draw) == (given.regimes[0], 1))
        for seed in given.seeds
        for regime in given.regimes
        for draw in range(1, given.permutations + 1 if regime == "permuted" else 2)
    ]


def _run(given: argparse.Namespace, seed: int, regime: str, draw: int, further: Sequence[str], is_first: bool) -> Run:
    name = f"{given.model}-{regime}-{seed}" + (f"-draw{draw}" if draw > 1 else "")
    files = base_files(given.model, regime, given.quick)
    fit = ["fit", *files, "--seed_everything", str(seed)]
    fit += ["--run.root", given.root, "--run.experiment", given.experiment, "--run.id", name]
    fit += ["--data.control.draw", str(draw)] if draw > 1 else []
    fit += [*further, *(["--trainer.max_epochs", "0"] if regime == PRETRAINED else [])]
    models = [*(["untuned"] if is_first else []), *(["tuned"] if regime != PRETRAINED else [])]
    return Run(Path(given.root) / given.experiment / name, regime, seed, tuple(fit), tuple(models))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="brainlit reproduce",
        description=DESCRIPTION,
        epilog="Dotted options (--trainer.max_epochs 3), and all that follow --, are handed to every fit.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", default="wav2vec", help="a file of experiments/model (default: %(default)s)")
    add("--seeds", nargs="+", type=int, help=f"default: {_words(FULL['seeds'])}")
    add("--regimes", nargs="+", help=f"files of experiments/regime (default: {_words(FULL['regimes'])})")
    add("--permutations", type=int, help="draws of the permuted control per seed (default: 2)")
    add("--jobs", type=int, help="jobs at a time (default: one per core; each has its share of the cores)")
    add("--experiment", help="folder of the runs (default: reproduce)")
    add("--root", default="runs", help="folder of all experiments (default: %(default)s)")
    add(
        "--quick",
        action="store_true",
        help="ten minutes on 2 cores: experiments/quick.yaml, in reproduce-quick; if not said otherwise seeds"
        f" {_words(QUICK['seeds'])}, one permutation and only {_words(QUICK['regimes'])}",
    )
    add("--dry-run", action="store_true", help="print the commands and how many runs are finished")
    return parser


def _words(values: Iterable[object]) -> str:
    return " ".join(map(str, values))
