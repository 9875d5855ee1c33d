"""`brainlit downstream`: what the models of a run, or any speech model, know besides the brain."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from brainlit.cli.errors import UsageError, quieten
from brainlit.cli.option_hints import OwnParser
from brainlit.downstream.tasks import DEMO, TASKS, WORDS, Needs, TaskEntry, find_task
from brainlit.paths import link, next_command

_DESCRIPTION = """\
Ask speech models what they know besides the brain: probes of every frozen layer on tasks with their controls, and
whether words are alike by meaning or by sound. Of a run, the tuned model (its last checkpoint) and the one it began
from. Answers are kept in RUN/downstream/MODEL/, and what is there is not asked again.
"""
_EXAMPLES = """\
examples:
  brainlit downstream runs/brain_tune/ID
  brainlit downstream runs/brain_tune/ID --task demo/word_category --task words --probes linear mlp
  brainlit downstream --model wav2vec --weights base --task timit/phones --data /path/to/TIMIT
"""


def options_parser() -> OwnParser:
    """All options, and the tasks below them."""
    parser = OwnParser(
        prog="brainlit downstream",
        usage="brainlit downstream RUN [RUN ...] [options]\n"
        "       brainlit downstream --model FAMILY [--weights WEIGHTS] [options]",
        description=_DESCRIPTION,
        epilog=f"{_task_list()}\n\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("runs", nargs="*", type=Path, metavar="RUN", help="folders of runs")
    add("--models", nargs="+", choices=("tuned", "untuned"), help="which models of a run (default: both)")
    add("--checkpoint", action="append", default=[], metavar="FILE", help="a further checkpoint of a run; repeatable")
    add("--model", metavar="FAMILY", help="wav2vec, whisper, ...: a model without a run")
    add(
        "--weights",
        metavar="WEIGHTS",
        help="with --model: tiny (default), a size (base), ORG/NAME@REVISION, a folder",
    )
    add("--store", type=Path, metavar="DIR", help="with --model: the store whose stories to score give the words")
    add(
        "--task", action="append", metavar="NAME", help="a task to ask; repeatable (default: all demo tasks, and words)"
    )
    add("--data", type=Path, metavar="DIR", help="folder of the data set that the tasks named are from")
    add(
        "--probes",
        nargs="+",
        default=["linear"],
        metavar="PROBE",
        help="how states are read: linear, mlp (default: linear, the faster)",
    )
    add("--untrained", action="store_true", help="also ask the same architecture with random weights, as a control")
    add("--again", action="store_true", help="ask again what was answered before")
    add("--epochs", type=int, default=20, metavar="N", help="of CTC fine-tuning (default: 20)")
    add("--batch_s", type=float, default=60.0, metavar="S", help="seconds of sound in a batch (default: 60)")
    add("--device", help="cpu, cuda, ... (default: cuda where there is one)")
    add("--seed", type=int, default=0, help="of the demo's sentences, draws of words, random controls (default: 0)")
    add("--output", type=Path, metavar="DIR", help="write below this folder instead of the run's; for one run or model")
    add("--wandb", choices=("online", "offline", "off"), default="off", help="give W&B the scores (default: off)")
    return parser


_NEEDS: dict[Needs, str] = {
    "nothing": "offline, on speech that espeak-ng makes (pip install espeakng-loader)",
    "stories": "offline, on the run's stories to score; other data than the demo's need nltk with wordnet and cmudict",
    "folder": "with --data, the folder of the published data set (data/downstream.md)",
}


def _task_list() -> str:
    lines = ["tasks:"]
    for needs, words in _NEEDS.items():
        lines += [f"  {words}", *(f"    {one.name:32}{one.question}" for one in TASKS if one.needs == needs)]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Evaluate what has no result yet, print the tables, write scores.csv."""
    given = options_parser().parse_args(list(arguments))
    entries = checked_tasks(given)
    quieten()
    from brainlit.cli.downstream_models import evaluate_missing, make_evaluator, model_without_run, models_of_run
    from brainlit.downstream.result import FOLDER, model_folders
    from brainlit.downstream.run_models import add_model_controls
    from brainlit.downstream.tables import report, write_scores
    from brainlit.files import only_writer

    evaluator = make_evaluator(given)
    groups = [models_of_run(path, given) for path in given.runs] or [model_without_run(given)]
    names = [entry.name for entry in entries]
    with ExitStack() as alone:
        for group in groups:
            alone.enter_context(only_writer(group.root / FOLDER))
        evaluate_missing(groups, entries, given, evaluator)
        for group in groups:
            add_model_controls(model_folders(group.root))
            scores = write_scores(group.root)
            print(f"\n{report(group.root, names)}\n\nScores: {link(scores)}")
            if given.wandb != "off":
                _to_wandb(group.root, scores, given.wandb)
    if len(given.runs) == 1:
        print(next_command("export", given.runs[0]))
    return 0


def _to_wandb(root: Path, scores: Path, mode: Literal["online", "offline"]) -> None:
    """The scores of the chosen layers, and all of them as a table, as a run of their own."""
    from brainlit.guard import read_csv
    from brainlit.results.run_directory import RunDirectory
    from brainlit.results.wandb_logger import log_folder

    rows = read_csv(scores, "a table of scores", "Run the command again.", "value")
    values: dict[str, float] = {}
    for row in rows:
        if row["value"] and (row.get("chosen") == "True" or not row.get("probe")):  # recognition has no probes
            place = "/".join(row[part] for part in ("task", "model", "part", "metric"))
            values.setdefault(f"downstream/{place}", float(row["value"]))
    names = {"name": f"{root.resolve().name}-downstream", "group": root.resolve().parent.name}
    log_folder(RunDirectory(root), "downstream", values, {"downstream/table": rows}, mode, None, None, **names)


# --- What is asked for ---


def checked_tasks(given: argparse.Namespace) -> list[TaskEntry]:
    """The tasks, each once; refuses what cannot be meant, before anything is loaded.

    Raises
    ------
    UsageError
        If nothing or too much is named, or a task lacks its data.
    ValueError
        If a task is unknown.
    """
    if bool(given.runs) == (given.model is not None):
        raise UsageError("name the folders of runs, or --model FAMILY: one of the two.")
    of_run = {"--models": given.models, "--checkpoint": given.checkpoint}
    of_model = {"--weights": given.weights, "--store": given.store}
    for option, value in (of_model if given.runs else of_run).items():
        if value:
            raise UsageError(f"{option} is for {'--model, not for runs' if given.runs else 'runs, not for --model'}.")
    if given.output is not None and len(given.runs) > 1:
        raise UsageError(f"--output is for one run, and {len(given.runs)} are named.")
    with_stories = bool(given.runs) or given.store is not None
    offline = [one.name for one in TASKS if one.data_set == DEMO or (one.name == WORDS and with_stories)]
    entries = [find_task(name) for name in dict.fromkeys(given.task or offline)]
    if not with_stories and any(entry.needs == "stories" for entry in entries):
        raise UsageError("the task words needs stories: give --store DIR, or a run, which has its own.")
    published = [entry for entry in entries if entry.needs == "folder"]
    sets = sorted({entry.data_set for entry in published})
    if len(sets) > 1:
        raise UsageError(f"the tasks are from {' and '.join(sets)}, and --data is one folder: ask one after the other.")
    if sets and given.data is None:
        raise UsageError(
            f"{published[0].name} needs --data, the folder of the data set; data/downstream.md says where it is from."
        )
    if given.data is not None and not sets:
        raise UsageError("--data is given, and no task that needs it: name some with --task, such as timit/phones.")
    if given.data is not None and not given.data.is_dir():
        raise FileNotFoundError(f"--data {given.data} is no folder.")
    return entries
