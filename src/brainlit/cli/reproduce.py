"""`brainlit reproduce`: every regime on the demo over several seeds, what each run knows besides, and the report."""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from brainlit.cli.errors import UsageError
from brainlit.cli.run_many import (
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


def run_reproduce(arguments: Sequence[str]) -> int:
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
    from brainlit.cli.reports import run_compare

    return run_compare(report[1:])


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


# --- sweep
# `brainlit sweep`: one setting at several values, compared on the stories that choose, never on scored ones.


LOSS = "val/loss"

SWEEP_DESCRIPTION = """\
Train with one setting at several values, each with every seed, and say which value did best on the stories that choose:
by their alignment where a callback of the runs measured it (--trainer.callbacks+=brainlit.callbacks.ChooseCheckpoint),
else by the validation loss. The stories to score are not looked at: a setting chosen by them has seen the answer, and
their scores no longer say what the model does on new stories. For the same reason report other seeds than these."""


def run_sweep(arguments: Sequence[str]) -> int:
    """Plan, run what is missing, print the table; 1 if a job failed."""
    ours, after = split_further(arguments)
    parser = _sweep_parser()
    given, unknown = parser.parse_known_args(ours)
    further = [*unknown, *after]
    check_further(further, parser)
    check_further([f"--{given.key}"], parser)
    check_numbers(given)
    check_known({"model": [given.model], "regime": [given.regime]})
    runs = planned_sweep(given, further)
    check_settings(runs)
    folder = runs[0].path.parent
    if given.dry_run:
        return show_commands(runs)
    if not run_missing(runs, folder, given.jobs):
        return 1
    print(table(given.key, given.values, given.seeds, {(run.kind, run.seed): run.path for run in runs}))
    return 0


def planned_sweep(given: argparse.Namespace, further: Sequence[str]) -> list[Run]:
    """One run per seed and value: <root>/<experiment>/<value>-<seed>.

    Raises
    ------
    UsageError
        If two values make one folder name.
    """
    names = {value: re.sub(r"[^A-Za-z0-9.-]+", "_", value).strip("_.-") for value in given.values}
    if len(set(names.values())) < len(given.values) or not all(names.values()):
        raise UsageError(f"--values {' '.join(given.values)}: give values that make different folder names.")
    folder = Path(given.root) / (given.experiment or f"sweep-{given.key}")
    runs = []
    for seed in given.seeds:
        for value in given.values:
            name = f"{names[value]}-{seed}"
            where = ["--run.root", given.root, "--run.experiment", folder.name, "--run.id", name]
            own = ["--seed_everything", str(seed), *where, *further, f"--{given.key}={value}"]
            fit = ("fit", *base_files(given.model, given.regime), *own)
            runs.append(Run(folder / name, value, seed, fit, models=()))
    return runs


def table(key: str, values: Sequence[str], seeds: Sequence[int], paths: dict[tuple[str, int], Path]) -> str:
    """Markdown: one line per value, its score of every seed and their mean, and which value is best.

    Raises
    ------
    ValueError
        If a run was neither validated nor scored on stories that choose.
    """
    aligned = {where: found for where, path in paths.items() if (found := _alignment(path)) is not None}
    by = {name for name, _ in aligned.values()}
    with_alignment = len(aligned) == len(paths) and len(by) == 1
    name = by.pop() if with_alignment else LOSS
    scores = {where: aligned[where][1] if with_alignment else lowest_loss(path) for where, path in paths.items()}
    means = {value: sum(scores[value, seed] for seed in seeds) / len(seeds) for value in values}
    best = (max if with_alignment else min)(values, key=means.__getitem__)
    lines = [
        f"| {key} | {' | '.join(f'seed {seed}' for seed in seeds)} | mean |",
        "|---" * (len(seeds) + 2) + "|",
        *(
            f"| {value} | {' | '.join(f'{scores[value, seed]:.4f}' for seed in seeds)} | {means[value]:.4f} |"
            for value in values
        ),
    ]
    what = "highest is best" if with_alignment else "lowest is best, if the loss itself was not what was varied"
    return "\n".join(
        [
            *lines,
            "",
            f"{name} on the stories that choose, of each run's best epoch ({what}): {key} {best}.",
            "The scored stories were not looked at.",
        ]
    )


def lowest_loss(run: Path) -> float:
    """The validation loss of a run's best epoch.

    Raises
    ------
    ValueError
        If it was never validated.
    """
    from brainlit.results.loggers import METRICS_FILE

    with (run / METRICS_FILE).open(newline="", encoding="utf-8") as file:
        losses = [float(row[LOSS]) for row in csv.DictReader(file) if row.get(LOSS)]
    if not losses:
        raise ValueError(f"{run} has no {LOSS}: give the role 'choose' a story, or take a regime that trains.")
    return min(losses)


def _alignment(run: Path) -> tuple[str, float] | None:
    """What ChooseCheckpoint went by, and its highest value; None where it did not run."""
    from brainlit.results.run_directory import read_json
    from brainlit.results.summary import CHOSEN_FILE

    path = run / CHOSEN_FILE
    if not path.is_file():
        return None
    chosen = read_json(path)
    return str(chosen["by"]), float(chosen["value"])


def _sweep_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="brainlit sweep",
        description=SWEEP_DESCRIPTION,
        epilog="Dotted options (--trainer.max_epochs 3), and all that follow --, are handed to every fit.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--key", required=True, help="the option to vary, without dashes: model.backbone_lr")
    add("--values", nargs="+", required=True)
    add("--seeds", nargs="+", type=int, default=[0, 1], help="default: 0 1")
    add("--model", default="wav2vec", help="a file of experiments/model (default: %(default)s)")
    add("--regime", default="brain", help="a file of experiments/regime (default: %(default)s)")
    add("--jobs", type=int, help="jobs at a time (default: one per core; each has its share of the cores)")
    add("--experiment", help="folder of the runs (default: sweep-KEY)")
    add("--root", default="runs", help="folder of all experiments (default: %(default)s)")
    add("--dry-run", action="store_true", help="print the commands and how many runs are finished")
    return parser
