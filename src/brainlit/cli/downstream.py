"""`brainlit downstream`: what the models of a run, or any speech model, know besides the brain."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from brainlit.cli.errors import UsageError
from brainlit.downstream.tasks import DEMO, TASKS, WORDS, Needs, TaskEntry, find_task

if TYPE_CHECKING:
    from brainlit.backbones import BackboneConfig
    from brainlit.downstream.run_models import AnyTask, Evaluator, Model
    from brainlit.downstream.words import StoryWords
    from brainlit.results.run_directory import RunDirectory
    from brainlit.splits import Span
    from brainlit.store import StoryStore

_RUNS = Path("runs") / "downstream"
"""Where the results of models without a run go."""

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


def options_parser() -> argparse.ArgumentParser:
    """All options, and the tasks below them."""
    parser = argparse.ArgumentParser(
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
    add("--weights", metavar="WEIGHTS", help="with --model: tiny (default), a size such as base, a hub id, a folder")
    add("--store", type=Path, metavar="DIR", help="with --model: the store whose stories to score give the words")
    add("--task", action="append", metavar="NAME", help="repeatable (default: all demo tasks, and words)")
    add("--data", type=Path, metavar="DIR", help="folder of the data set that the tasks named are from")
    add("--probes", nargs="+", default=["linear"], metavar="PROBE", help="linear, mlp (default: linear, the faster)")
    add("--untrained", action="store_true", help="also ask the same architecture with random weights, as a control")
    add("--again", action="store_true", help="ask again what was answered before")
    add("--epochs", type=int, default=20, metavar="N", help="of CTC fine-tuning (default: 20)")
    add("--batch_s", type=float, default=60.0, metavar="S", help="seconds of sound in a batch (default: 60)")
    add("--device", help="cpu, cuda, ... (default: cuda where there is one)")
    add("--seed", type=int, default=0, help="of the demo's sentences, draws of words, random controls (default: 0)")
    add("--output", type=Path, metavar="DIR", help="write below this folder instead of the run's; for one run or model")
    return parser


_NEEDS: dict[Needs, str] = {
    "nothing": "offline, on speech that espeak-ng makes (pip install 'brainlit[demo]')",
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
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("httpx", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from brainlit.downstream.result import model_folders
    from brainlit.downstream.run_models import add_model_controls
    from brainlit.downstream.tables import report, write_scores

    evaluator = _evaluator(given)
    groups = [models_of_run(path, given) for path in given.runs] or [model_without_run(given)]
    _evaluate(groups, entries, given, evaluator)
    names = [entry.name for entry in entries]
    for group in groups:
        add_model_controls(model_folders(group.root))
        print(f"\n{report(group.root, names)}\n\nScores: {write_scores(group.root)}")
    return 0


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
    _check_data(given.data, [entry for entry in entries if entry.needs == "folder"])
    return entries


def _check_data(folder: Path | None, entries: Sequence[TaskEntry]) -> None:
    sets = sorted({entry.data_set for entry in entries})
    if len(sets) > 1:
        raise UsageError(f"the tasks are from {' and '.join(sets)}, and --data is one folder: ask one after the other.")
    if sets and folder is None:
        raise UsageError(
            f"{entries[0].name} needs --data, the folder of the data set; data/downstream.md says where it is from."
        )
    if folder is not None and not sets:
        raise UsageError("--data is given, and no task that needs it: name some with --task, such as timit/phones.")
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"--data {folder} is no folder.")


def _evaluator(given: argparse.Namespace) -> Evaluator:
    """How models are evaluated: device, probes, fine-tuning."""
    import torch

    from brainlit.downstream.probes import LayerProbeConfig
    from brainlit.downstream.recognise import CtcConfig
    from brainlit.downstream.run_models import EvaluationConfig, Evaluator

    if not given.batch_s > 0:
        raise UsageError(f"--batch_s is {given.batch_s}; a batch needs some sound.")
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    ctc = CtcConfig(epochs=given.epochs, batch_s=given.batch_s)
    return Evaluator(
        EvaluationConfig(LayerProbeConfig(probes=tuple(given.probes)), ctc, given.seed, device, given.batch_s)
    )


# --- Which models, and the stories that give words ---


@dataclass(frozen=True)
class ModelGroup:
    """The models of one run, or one model without a run; results go below `root`."""

    root: Path
    models: Sequence[Model]
    words: Callable[[], StoryWords] | None


def model_without_run(given: argparse.Namespace) -> ModelGroup:
    """A model without a run: --model, --weights, --store."""
    from brainlit.backbones import BACKBONES, BackboneConfig
    from brainlit.cli.probe_sources import folder_name
    from brainlit.downstream.run_models import untuned_model
    from brainlit.hints import did_you_mean

    config = BackboneConfig(family=given.model, weights=given.weights or "tiny")
    if config.family not in BACKBONES:
        raise UsageError(f"backbone family {config.family!r} is not known. {did_you_mean(config.family, BACKBONES)}")
    store, seed = given.store, given.seed
    words = None if store is None else lambda: _words_of_store(store, seed)
    models = _with_untrained([untuned_model(config)], config, given)
    return ModelGroup(given.output or _RUNS / folder_name(config), models, words)


def models_of_run(path: Path, given: argparse.Namespace) -> ModelGroup:
    """The models of a run that were asked for.

    Raises
    ------
    FileNotFoundError
        If the folder is no run's, or a checkpoint is not there.
    CheckpointError
        If a checkpoint cannot be read.
    UsageError
        If no model is left, or two would have one name.
    """
    import yaml

    from brainlit.backbones import BackboneConfig
    from brainlit.cli.reports import chosen_checkpoint
    from brainlit.cli.run_options import CONFIG_FILE
    from brainlit.downstream.result import TUNED, UNTRAINED, UNTUNED
    from brainlit.downstream.run_models import checkpoint_model, untuned_model
    from brainlit.results.run_directory import RunDirectory
    from brainlit.tuning.settings import rebuilt

    run = RunDirectory.open(path)
    if not (run.path / CONFIG_FILE).is_file():
        raise FileNotFoundError(f"{run.path} has no {CONFIG_FILE}: its model is not known. Ask for it with --model.")
    said = yaml.safe_load((run.path / CONFIG_FILE).read_text(encoding="utf-8"))
    config = rebuilt(BackboneConfig, said["model"]["backbone"])
    wanted = given.models or [UNTUNED, TUNED]
    if said["data"].get("regime") == "pretrained" and TUNED in wanted:
        print(f"{run.path} is a pretrained run: it has no tuned model; the untuned one can be asked")
        wanted = [name for name in wanted if name != TUNED]
    models = [untuned_model(config)] if UNTUNED in wanted else []
    models += [checkpoint_model(chosen_checkpoint(run, "last"), TUNED)] if TUNED in wanted else []
    files = [chosen_checkpoint(run, name) for name in given.checkpoint]
    models = _with_untrained([*models, *(checkpoint_model(file, file.stem) for file in files)], config, given)
    names = [model.name for model in models]
    if not set(names) - {UNTRAINED}:
        raise UsageError(f"no model is left to ask of {run.path}; leave out --models.")
    taken = [file for file in files if names.count(file.stem) > 1 or file.stem in (UNTRAINED, UNTUNED, TUNED)]
    if taken:
        raise UsageError(f"{taken[0]} would be called {taken[0].stem!r}, as another model is; rename the file.")
    store_dir, seed = Path(said["data"]["store_dir"]), given.seed
    return ModelGroup(given.output or run.path, models, lambda: _words_of_run(run, store_dir, seed))


def _with_untrained(models: Sequence[Model], config: BackboneConfig, given: argparse.Namespace) -> list[Model]:
    """Before them, where it is wanted, the same architecture with random weights."""
    from brainlit.downstream.run_models import untrained_model

    return [untrained_model(config, given.seed), *models] if given.untrained else list(models)


def _words_of_run(run: RunDirectory, store_dir: Path, seed: int) -> StoryWords:
    """Words of the stories that the run scores, without what it was tuned on.

    Raises
    ------
    FileNotFoundError
        If the run does not say which these are.
    UsageError
        If its store was made again since.
    """
    from brainlit.downstream.words import story_words
    from brainlit.results.run_directory import read_json
    from brainlit.results.summary import RUN_FILE
    from brainlit.store import StoryStore

    path = run.path / RUN_FILE
    said = read_json(path).get("data_module", {}) if path.is_file() else {}
    if not said.get("roles", {}).get("score"):
        raise FileNotFoundError(f"{path} does not say which stories are scored; leave out the task words.")
    store = StoryStore.open(store_dir)
    if store.fingerprint != said["store_fingerprint"]:
        raise UsageError(f"{store_dir} is not the store that {run.path} was trained on; put that one there again.")
    return story_words(store, *(_spans(store, said["roles"].get(role, [])) for role in ("score", "tune")), seed=seed)


def _words_of_store(folder: Path, seed: int) -> StoryWords:
    """Words of the stories that the store's data set scores by default."""
    from brainlit.downstream.words import story_words
    from brainlit.store import StoryStore

    store = StoryStore.open(folder)
    return story_words(store, _spans(store, store.default_roles.get("score", [])), seed=seed)


def _spans(store: StoryStore, texts: Sequence[str]) -> list[Span]:
    from brainlit.splits import parse_span

    n_trs_of = {story: store.n_trs(story) for story in store.story_names}
    return [parse_span(text, n_trs_of) for text in texts]


# --- The evaluation ---


def _evaluate(
    groups: Sequence[ModelGroup], entries: Sequence[TaskEntry], given: argparse.Namespace, evaluator: Evaluator
) -> None:
    """Evaluate every model on what it has no result of; speech is made or read once for all of them."""
    from brainlit.downstream.result import model_folder
    from brainlit.downstream.tasks import load_tasks

    missing = [
        (group, model, _without_result(group, model, entries, given.again, evaluator))
        for group in groups
        for model in group.models
    ]
    words = {group.root: _words(group, given.task is not None) for group, _, names in missing if WORDS in names}
    wanted = {name for _, _, names in missing for name in names}
    labelled = [entry.name for entry in entries if entry.name in wanted and entry.needs != "stories"]
    made = load_tasks(labelled, given.data, seed=given.seed)
    for group, model, names in missing:
        spoken = words.get(group.root) if WORDS in names else None
        tasks: list[AnyTask] = [made[name] for name in names if name != WORDS]
        tasks += [] if spoken is None else [spoken]
        if tasks:
            print(f"{group.root}: {model.name} ({model.origin}), {len(tasks)} tasks")
            evaluator.evaluate(model, model_folder(group.root, model.name), tasks)


def _without_result(
    group: ModelGroup, model: Model, entries: Sequence[TaskEntry], again: bool, evaluator: Evaluator
) -> list[str]:
    """The tasks that the model has no result of; says what is kept."""
    from brainlit.downstream.result import model_folder, task_path

    folder = model_folder(group.root, model.name)
    paths = {entry.name: task_path(folder, entry.name, entry.recognition) for entry in entries}
    kept = [name for name, path in paths.items() if not again and evaluator.is_done(path, model)]
    if kept:
        print(f"{folder} has {', '.join(kept)}: kept (--again makes them anew)")
    return [name for name in paths if name not in kept]


def _words(group: ModelGroup, by_name: bool) -> StoryWords | None:
    """The words of the stories; where tasks were not named and there are no such words, that is said."""
    from brainlit.downstream.word_lists import WordListMissingError
    from brainlit.store import StoreError

    if group.words is None:
        return None
    try:
        return group.words()
    except (WordListMissingError, StoreError, FileNotFoundError, ValueError) as error:
        if by_name:
            raise
        print(f"{group.root}: the task words is left out. {error}")
        return None
