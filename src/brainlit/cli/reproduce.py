"""The verbs that plan many runs: `brainlit reproduce`, `sweep` and `fractions`.

Each says by its options which runs there are and where they lie; `run_many` brings what is missing of them to its
report, and the verb then says what all of them show: the report of a reproduction, the best value of a setting on the
stories that choose, the curve over the hours of tuning data. Finished runs are kept, so the same command goes on where
it stopped.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from brainlit.cli.config_names import named_file, names_in
from brainlit.cli.errors import UsageError
from brainlit.cli.option_hints import SYNONYMS, OwnParser, meant
from brainlit.cli.run_many import Run, check_settings, run_missing, show_commands
from brainlit.guard import file_guard, read_csv
from brainlit.hints import MOST_LISTED, did_you_mean, few

SET_BY_PLANS = (
    *("seed_everything", "data.regime", "data.control.draw"),
    *("run.root", "run.experiment", "run.id", "run.resume"),
)
"""Options of a fit that a plan sets."""
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
LOSS = "val/loss"
SWEEP_SEEDS = [0, 1]
FRACTIONS_SEEDS = [11, 12, 13]
DEMO_SEED_KEY = "data.source.init_args.seed"
FRACTIONS = ["0.1", "0.25", "0.5", "1"]
FRACTION_KEY = "data.tune_fraction"

REPRODUCE_DESCRIPTION = """\
Train and probe every regime on the demo for several seeds, ask each model the downstream tasks, and write the report of
all of them. Runs are runs/<experiment>/<model>-<regime>-<seed>, further permutations end in -draw2 and so on. The same
command again goes on where it stopped: finished runs are kept, one that was cut short goes on from its last checkpoint
(or begins again, if it has none). A run that was made with other settings is refused."""
SWEEP_DESCRIPTION = """\
Train with one setting at several values, each with every seed, and say which value did best on the stories that choose:
by their alignment where a callback of the runs measured it (--trainer.callbacks+=brainlit.callbacks.ChooseCheckpoint),
else by the validation loss. The stories to score are not looked at: a setting chosen by them has seen the answer, and
their scores no longer say what the model does on new stories. For the same reason report other seeds than these."""
FRACTIONS_DESCRIPTION = """\
Tune on growing fractions of the data, each inside the next, with every seed, and draw alignment by hours of tuning data
of all runs of this model in the folder. Runs are runs/<experiment>/<model>-<regime>-<fraction>-<seed>. The same command
again goes on where it stopped; further regimes and fractions join the curve. All seeds hear the stories of one demo,
that of seed 11. Other data than the demo run one at a time unless --jobs says otherwise."""


# --- reproduce ---


def run_reproduce(arguments: Sequence[str]) -> int:
    """Plan, run what is missing, compare; 1 if a job failed."""
    given, further = parse_reproduce(arguments)
    runs = plan_reproduce(given, further)
    report = ["compare", *(str(run.path) for run in runs), "--output", str(_folder(given))]
    status = run_plan(runs, given, report)
    if status is not None:
        return status
    from brainlit.cli.reports import run_compare

    return run_compare(report[1:])


def parse_reproduce(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options with their defaults, and those that are meant for every fit."""
    parser = plan_parser("reproduce", REPRODUCE_DESCRIPTION, FULL["seeds"], FULL["experiment"])
    add = parser.add_argument
    add("--regimes", nargs="+", help=f"files of experiments/regime (default: {_words(FULL['regimes'])})")
    add("--permutations", type=int, help="draws of the permuted control per seed (default: 2)")
    add(
        "--quick",
        action="store_true",
        help="some 20 minutes on 2 cores: experiments/quick.yaml, in reproduce-quick; if not said otherwise seeds"
        f" {_words(QUICK['seeds'])}, one permutation and only {_words(QUICK['regimes'])}",
    )
    given, further = parse_plan(parser, arguments, lambda given: QUICK if given.quick else FULL)
    check_files(model=[given.model], regime=given.regimes)
    given.regimes = sorted(dict.fromkeys(given.regimes), key=lambda regime: regime != PRETRAINED)
    return given, further


def plan_reproduce(given: argparse.Namespace, further: Sequence[str]) -> list[Run]:
    """All runs, seed by seed, the pretrained model first in each."""
    return [
        _reproduce_run(given, seed, regime, draw, further, is_first=(regime, draw) == (given.regimes[0], 1))
        for seed in given.seeds
        for regime in given.regimes
        for draw in range(1, given.permutations + 1 if regime == "permuted" else 2)
    ]


def _reproduce_run(
    given: argparse.Namespace, seed: int, regime: str, draw: int, further: Sequence[str], is_first: bool
) -> Run:
    path = _folder(given) / (f"{given.model}-{regime}-{seed}" + (f"-draw{draw}" if draw > 1 else ""))
    own = ["--data.control.draw", str(draw)] if draw > 1 else []
    own += ["--trainer.max_epochs", "0"] if regime == PRETRAINED else []
    files = config_files(given.model, regime, further, quick=given.quick)
    fit = fit_arguments(files, seed, path, further, own)
    models = [*(["untuned"] if is_first else []), *(["tuned"] if regime != PRETRAINED else [])]
    return Run(path, regime, seed, fit, tuple(models))


# --- sweep ---


def run_sweep(arguments: Sequence[str]) -> int:
    """Plan, run what is missing, print the table; 1 if a job failed."""
    parser = plan_parser("sweep", SWEEP_DESCRIPTION, SWEEP_SEEDS, "sweep-KEY")
    parser.add_argument("--key", required=True, help="the option to vary, without dashes: model.backbone_lr")
    parser.add_argument("--values", nargs="+", required=True, help="the values that it takes, each with every seed")
    _add_regime(parser)
    given, further = parse_plan(
        parser, arguments, lambda given: {"seeds": SWEEP_SEEDS, "experiment": f"sweep-{given.key}"}
    )
    check_further([f"--{given.key}"], parser)
    check_files(model=[given.model], regime=[given.regime])
    runs = plan_sweep(given, further)
    status = run_plan(runs, given)
    if status is not None:
        return status
    print(sweep_table(given.key, given.values, given.seeds, {(run.kind, run.seed): run.path for run in runs}))
    return 0


def plan_sweep(given: argparse.Namespace, further: Sequence[str]) -> list[Run]:
    """One run per seed and value: <root>/<experiment>/<value>-<seed>.

    Raises
    ------
    UsageError
        If two values make one folder name.
    """
    names = {value: re.sub(r"[^A-Za-z0-9.-]+", "_", value).strip("_.-") for value in given.values}
    if len(set(names.values())) < len(given.values) or not all(names.values()):
        raise UsageError(f"--values {_words(given.values)}: give values that make different folder names.")
    runs = []
    for seed in given.seeds:
        for value in given.values:
            path, own = _folder(given) / f"{names[value]}-{seed}", [f"--{given.key}={value}"]
            files = config_files(given.model, given.regime, [*further, *own])
            runs.append(Run(path, value, seed, fit_arguments(files, seed, path, further, own)))
    return runs


def sweep_table(key: str, values: Sequence[str], seeds: Sequence[int], paths: dict[tuple[str, int], Path]) -> str:
    """Markdown: one line per value, its score of every seed and their mean, and which value is best.

    Raises
    ------
    ValueError
        If a run was neither validated nor scored on stories that choose.
    """
    aligned = {where: found for where, path in paths.items() if (found := _alignment(path)) is not None}
    by = {name for name, _ in aligned.values()}
    if len(aligned) == len(paths) and len(by) == 1:
        name, best_of, what = by.pop(), max, "highest is best"
        scores = {where: value for where, (_, value) in aligned.items()}
    else:
        name, best_of, what = LOSS, min, "lowest is best, if the loss itself was not what was varied"
        scores = {where: _lowest_loss(path) for where, path in paths.items()}
    means = {value: sum(scores[value, seed] for seed in seeds) / len(seeds) for value in values}
    best = best_of(values, key=means.__getitem__)
    lines = [f"| {key} | {' | '.join(f'seed {seed}' for seed in seeds)} | mean |", "|---" * (len(seeds) + 2) + "|"]
    for value in values:
        cells = [*(scores[value, seed] for seed in seeds), means[value]]
        lines.append(f"| {value} | {' | '.join(f'{cell:.4f}' for cell in cells)} |")
    said = f"{name} on the stories that choose, of each run's best epoch ({what}): {key} {best}."
    return "\n".join([*lines, "", said, "The scored stories were not looked at."])


def _lowest_loss(run: Path) -> float:
    """The validation loss of a run's best epoch.

    Raises
    ------
    ValueError
        If it was never validated.
    """
    from brainlit.results.metrics import METRICS_FILE

    path = run / METRICS_FILE
    rows = read_csv(path, "a table of metrics", "Delete the run's folder and give the command again.", "epoch")
    with file_guard(path, "a table of metrics", "Delete the run's folder and give the command again."):
        losses = [float(row[LOSS]) for row in rows if row.get(LOSS)]
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


# --- fractions ---


def run_fractions(arguments: Sequence[str]) -> int:
    """Plan, run what is missing, draw the curve of this model's runs in the folder; 1 if a job failed."""
    parser = plan_parser("fractions", FRACTIONS_DESCRIPTION, FRACTIONS_SEEDS, "fractions")
    add = parser.add_argument
    add("--fractions", nargs="+", default=FRACTIONS, help=f"of the data to tune on (default: {_words(FRACTIONS)})")
    add("--data", default="demo", help="a file of experiments/data (default: %(default)s)")
    add("--preset", default="", help="a file of experiments/paper")
    _add_regime(parser)
    given, further = parse_plan(
        parser, arguments, lambda _: {"seeds": FRACTIONS_SEEDS, "experiment": "fractions"}, sets=[FRACTION_KEY]
    )
    presets = [given.preset] if given.preset else []
    check_files(model=[given.model], regime=[given.regime], data=[given.data], paper=presets)
    if given.data != "demo":
        given.jobs = given.jobs or 1  # a model of a published size may fill the machine
    status = run_plan(plan_fractions(given, further), given)
    if status is not None:
        return status
    from brainlit.cli.reports import run_curve

    finished = sorted(report.parent for report in _folder(given).glob(f"{given.model}-*/report.html"))
    return run_curve(["--output", str(_folder(given) / given.model), *map(str, finished)])


def plan_fractions(given: argparse.Namespace, further: Sequence[str]) -> list[Run]:
    """One run per seed and fraction: <root>/<experiment>/<model>-<regime>-<fraction>-<seed>.

    Raises
    ------
    UsageError
        If a fraction comes twice, or is none.
    """
    if len({_fraction(text) for text in given.fractions}) < len(given.fractions):
        raise UsageError(f"--fractions {_words(given.fractions)}: give different ones.")
    files = config_files(given.model, given.regime, further, data=given.data, preset=given.preset)
    if given.data == "demo":  # the points of a curve share stories and listeners, which the demo makes by its seed
        further = [f"--{DEMO_SEED_KEY}", str(FRACTIONS_SEEDS[0]), *further]
    return [
        Run(path, fraction, seed, fit_arguments(files, seed, path, further, [f"--{FRACTION_KEY}", fraction]))
        for seed in given.seeds
        for fraction in given.fractions
        for path in [_folder(given) / f"{given.model}-{given.regime}-{fraction}-{seed}"]
    ]


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise UsageError(f"--fractions names {text!r}; give numbers above 0, up to 1.")
    return value


# --- What all plans share ---


def plan_parser(verb: str, description: str, seeds: Sequence[int], experiment: str) -> OwnParser:
    """The options that all plans have; seeds and experiment only say in words what the defaults are."""
    parser = OwnParser(
        prog=f"brainlit {verb}",
        description=description,
        epilog="Dotted options (--trainer.max_epochs 3), and all that follow --, are handed to every fit.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", default="wav2vec", help="a file of experiments/model (default: %(default)s)")
    add("--seeds", nargs="+", type=int, help=f"default: {_words(seeds)}")
    add("--jobs", type=int, help="jobs at a time (default: one per core; each has its share of the cores)")
    add("--experiment", help=f"folder of the runs (default: {experiment})")
    add("--root", default="runs", help="folder of all experiments (default: %(default)s)")
    add("--dry-run", action="store_true", help="print the commands and how many runs are finished")
    return parser


def parse_plan(
    parser: OwnParser,
    arguments: Sequence[str],
    defaults: Callable[[argparse.Namespace], Mapping[str, Any]],
    sets: Sequence[str] = (),
) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and those that are meant for every fit: what our parser does not know, and all that follows --.

    Parameters
    ----------
    defaults : callable
        Options as far as they are given -> what the others are.
    sets : sequence of str
        Options of a fit that this plan sets besides those that all set.

    Raises
    ------
    UsageError
        If an option is neither ours nor could be one of a fit, is one that the plan sets, or has a value that cannot
        be.
    """
    cut = list(arguments).index("--") if "--" in arguments else len(arguments)
    given, unknown = parser.parse_known_args(list(arguments[:cut]))
    further = [*unknown, *arguments[cut + 1 :]]
    for name, value in defaults(given).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    check_further(further, parser, sets)
    _check_numbers(given)
    return given, further


def run_plan(runs: Sequence[Run], given: argparse.Namespace, *last: Sequence[str]) -> int | None:
    """Bring the runs to their reports; the exit status if the verb ends here (a dry run, a failure), else None.

    Parameters
    ----------
    last : sequences of str
        Commands that a dry run shows behind those of the runs.
    """
    check_settings(runs)
    if given.dry_run:
        return show_commands(runs, *last)
    return None if run_missing(runs, _folder(given), given.jobs) else 1


def config_files(
    model: str, regime: str, further: Sequence[str], *, data: str = "demo", quick: bool = False, preset: str = ""
) -> list[str]:
    """The config files of a run as options, in the order in which `make train` merges them.

    As there, published weights among the further options get few stories of the demo.
    """
    names = ["brain_tune", f"data/{data}", f"model/{model}", *(["quick"] if quick else [])]
    names += ["published_demo"] if data == "demo" and not _are_tiny(further) else []
    names += [f"regime/{regime}", *([f"paper/{preset}"] if preset else [])]
    return [part for name in names for part in ("-c", str(named_file(name)))]


def _are_tiny(further: Sequence[str]) -> bool:
    """Whether the weights are those of a tiny model, as they are where nothing is said."""
    said = [text.partition("=")[2] or following for text, following in pairwise([*further, ""]) if _is_weights(text)]
    return not said or said[-1].removeprefix("random:").startswith("tiny")


def _is_weights(text: str) -> bool:
    return text.partition("=")[0] == "--model.backbone.weights"


def fit_arguments(
    files: Sequence[str], seed: int, path: Path, further: Sequence[str], own: Sequence[str] = ()
) -> tuple[str, ...]:
    """Arguments of brainlit for the fit of the run <root>/<experiment>/<id>; the plan's own options come last."""
    where = ["--run.root", str(path.parents[1]), "--run.experiment", path.parent.name, "--run.id", path.name]
    return ("fit", *files, "--seed_everything", str(seed), *where, *further, *own)


def check_further(further: Sequence[str], parser: OwnParser, sets: Sequence[str] = ()) -> None:
    """Refuse, by a UsageError, what is no option of a fit, and what the plan sets."""
    own = [option[2:] for action in parser._actions for option in action.option_strings]
    if further and not further[0].startswith("-"):
        raise UsageError(f"{further[0]!r} belongs to no option; {parser.prog} --help says which there are.")
    of_fit = {key for keys in SYNONYMS.values() for key in keys if "." in key}.difference(SET_BY_PLANS, sets)
    for option in (word for word in further if re.match(r"--?[A-Za-z]", word)):
        name = option.lstrip("-").partition("=")[0]
        if name in (*SET_BY_PLANS, *sets):
            raise UsageError(f"--{name} is set for each run; {parser.prog} --help says by which options.")
        if "." not in name and name not in ("c", "config"):
            known = [*own, *of_fit]
            listed = f"Known: {few(sorted(own), MOST_LISTED)}."
            raise UsageError(" ".join([f"there is no option {option!r}.", *meant(name, known, "--"), listed]))


def _check_numbers(given: argparse.Namespace) -> None:
    """Refuse, by a UsageError, seeds that come twice or are negative, and counts below 1."""
    if len(set(given.seeds)) < len(given.seeds) or min(given.seeds) < 0:
        raise UsageError(f"--seeds {_words(given.seeds)}: give different numbers from 0 on.")
    for name in ("permutations", "jobs"):
        value = getattr(given, name, None)
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; give at least 1.")


def check_files(**chosen: Sequence[str]) -> None:
    """Refuse names that have no file in their folder below experiments/, neither here nor among brainlit's own."""
    for folder, names in chosen.items():
        known = names_in(folder)
        for name in names:
            if name not in known:
                raise UsageError(f"there is no {folder} {name!r}. {did_you_mean(name, known)}")


def _add_regime(parser: OwnParser) -> None:
    parser.add_argument("--regime", default="brain", help="a file of experiments/regime (default: %(default)s)")


def _folder(given: argparse.Namespace) -> Path:
    return Path(given.root, given.experiment)


def _words(values: Iterable[object]) -> str:
    """The values with spaces between them."""
    return " ".join(map(str, values))
