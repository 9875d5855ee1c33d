"""Which models `brainlit downstream` asks, the stories that give them words, and what they have no answer to yet."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from brainlit.backbones import BACKBONES, BackboneConfig
from brainlit.cli.errors import UsageError
from brainlit.cli.probe_sources import folder_name
from brainlit.cli.reports import chosen_checkpoint
from brainlit.cli.trust import run_config
from brainlit.downstream.probes import LayerProbeConfig
from brainlit.downstream.recognise import CtcConfig
from brainlit.downstream.result import TUNED, UNTRAINED, UNTUNED, model_folder, task_path
from brainlit.downstream.run_models import (
    AnyTask,
    EvaluationConfig,
    Evaluator,
    Model,
    checkpoint_model,
    untrained_model,
    untuned_model,
)
from brainlit.downstream.tasks import WORDS, TaskEntry, load_tasks
from brainlit.downstream.word_lists import WordListMissingError
from brainlit.downstream.words import StoryWords, story_words
from brainlit.hints import did_you_mean
from brainlit.results.run_directory import RunDirectory, read_json
from brainlit.results.summary import RUN_FILE
from brainlit.splits import Span, parse_span
from brainlit.store import StoreError, StoryStore
from brainlit.tuning.settings import rebuilt

_RUNS = Path("runs") / "downstream"
"""Where the results of models without a run go."""


def make_evaluator(given: argparse.Namespace) -> Evaluator:
    """How models are evaluated: device, probes, fine-tuning."""
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
    config = BackboneConfig(family=given.model, weights=given.weights or "tiny")
    if config.family not in BACKBONES:
        raise UsageError(f"backbone family {config.family!r} is not known. {did_you_mean(config.family, BACKBONES)}")
    words = None if given.store is None else partial(_words_of_store, given.store, given.seed)
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
    run = RunDirectory.open(path)
    said = run_config(run.path)
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
    words = partial(_words_of_run, run, Path(said["data"]["store_dir"]), given.seed)
    return ModelGroup(given.output or run.path, models, words)


def _with_untrained(models: Sequence[Model], config: BackboneConfig, given: argparse.Namespace) -> list[Model]:
    """Before them, where it is wanted, the same architecture with random weights."""
    return [untrained_model(config, given.seed), *models] if given.untrained else list(models)


def _words_of_run(run: RunDirectory, store_dir: Path, seed: int) -> StoryWords:
    """Words of the stories that the run scores, without what it was tuned on."""
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
    store = StoryStore.open(folder)
    return story_words(store, _spans(store, store.default_roles.get("score", [])), seed=seed)


def _spans(store: StoryStore, texts: Sequence[str]) -> list[Span]:
    n_trs_of = {story: store.n_trs(story) for story in store.story_names}
    spans = [parse_span(text, n_trs_of) for text in texts]
    return [span for span in spans if span.story not in store.on_other_clocks]  # the same words once more


# --- The evaluation ---


def evaluate_missing(
    groups: Sequence[ModelGroup], entries: Sequence[TaskEntry], given: argparse.Namespace, evaluator: Evaluator
) -> None:
    """Evaluate every model on what it has no result of; speech is made or read once for all of them."""
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
    folder = model_folder(group.root, model.name)
    paths = {entry.name: task_path(folder, entry.name, entry.recognition) for entry in entries}
    kept = [name for name, path in paths.items() if not again and evaluator.is_done(path, model)]
    if kept:
        print(f"{folder} has {', '.join(kept)}: kept (--again makes them anew)")
    return [name for name in paths if name not in kept]


def _words(group: ModelGroup, by_name: bool) -> StoryWords | None:
    """The words of the stories; where tasks were not named and there are no such words, that is said."""
    if group.words is None:
        return None
    try:
        return group.words()
    except (WordListMissingError, StoreError, FileNotFoundError, ValueError) as error:
        if by_name:
            raise
        print(f"{group.root}: the task words is left out. {error}")
        return None
