"""Whom `brainlit downstream` asks: the models of a run, or a model without one; and the stories that give words."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from brainlit.backbones import BACKBONES, BackboneConfig, load_backbone
from brainlit.cli.errors import UsageError
from brainlit.cli.export import chosen_checkpoint
from brainlit.cli.probe_sources import folder_name
from brainlit.cli.run_options import CONFIG_FILE
from brainlit.downstream.controls import untrained
from brainlit.downstream.run_files import TUNED, UNTUNED
from brainlit.downstream.run_models import UNTRAINED, Model
from brainlit.downstream.story_words import StoryWords, story_words
from brainlit.encoding.roles import Span, parse_span
from brainlit.hints import did_you_mean
from brainlit.results.run_directory import RunDirectory, read_json
from brainlit.results.summary import RUN_FILE
from brainlit.store import StoryStore
from brainlit.tuning.checkpoint import load_tuned, read_content
from brainlit.tuning.settings import rebuilt

RUNS = Path("runs") / "downstream"
"""Where the answers of models without a run go."""


@dataclass(frozen=True)
class Asked:
    """The models of one run, or one model without a run; answers go below `root`."""

    root: Path
    models: Sequence[Model]
    words: Callable[[], StoryWords] | None


def of_model(given: argparse.Namespace) -> Asked:
    """A model without a run: --model, --weights, --store."""
    config = BackboneConfig(family=given.model, weights=given.weights or "tiny")
    if config.family not in BACKBONES:
        raise UsageError(f"backbone family {config.family!r} is not known. {did_you_mean(config.family, BACKBONES)}")
    store, seed = given.store, given.seed
    words = None if store is None else lambda: _words_of_store(store, seed)
    return Asked(given.output or RUNS / folder_name(config), _with_untrained([_untuned(config)], config, given), words)


def of_run(path: Path, given: argparse.Namespace) -> Asked:
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
    if not (run.path / CONFIG_FILE).is_file():
        raise FileNotFoundError(f"{run.path} has no {CONFIG_FILE}: its model is not known. Ask for it with --model.")
    said = yaml.safe_load((run.path / CONFIG_FILE).read_text(encoding="utf-8"))
    config = rebuilt(BackboneConfig, said["model"]["backbone"])
    asked = given.models or [UNTUNED, TUNED]
    if said["data"].get("regime") == "pretrained" and TUNED in asked:
        print(f"{run.path} is a pretrained run: it has no tuned model; the untuned one can be asked")
        asked = [name for name in asked if name != TUNED]
    models = [_untuned(config)] if UNTUNED in asked else []
    models += [_tuned(chosen_checkpoint(run, "last"), TUNED)] if TUNED in asked else []
    files = [chosen_checkpoint(run, name) for name in given.checkpoint]
    models = _with_untrained([*models, *(_tuned(file, file.stem) for file in files)], config, given)
    names = [model.name for model in models]
    if not set(names) - {UNTRAINED}:
        raise UsageError(f"no model is left to ask of {run.path}; leave out --models.")
    taken = [file for file in files if names.count(file.stem) > 1 or file.stem in (UNTRAINED, UNTUNED, TUNED)]
    if taken:
        raise UsageError(f"{taken[0]} would be called {taken[0].stem!r}, as another model is; rename the file.")
    store_dir, seed = Path(said["data"]["store_dir"]), given.seed
    return Asked(given.output or run.path, models, lambda: _words_of_run(run, store_dir, seed))


def _untuned(config: BackboneConfig) -> Model:
    return Model(UNTUNED, f"{config.family} {config.weights}, seed {config.seed}", lambda: load_backbone(config))


def _with_untrained(models: Sequence[Model], config: BackboneConfig, given: argparse.Namespace) -> list[Model]:
    """Before them, where it is wanted, the same architecture with random weights."""
    seed = given.seed
    random = Model(UNTRAINED, f"random weights, seed {seed}", lambda: untrained(load_backbone(config), seed))
    return [random, *models] if given.untrained else list(models)


def _tuned(path: Path, name: str) -> Model:
    """A checkpoint; only what it says about itself is read now."""
    content = read_content(path)
    return Model(name, f"{path.name}, {content['global_step']} steps", lambda: load_tuned(path).backbone)


def _words_of_run(run: RunDirectory, store_dir: Path, seed: int) -> StoryWords:
    """Words of the stories that the run scores, without what it was tuned on.

    Raises
    ------
    FileNotFoundError
        If the run does not say which these are.
    UsageError
        If its store was made again since.
    """
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
    return [parse_span(text, n_trs_of) for text in texts]
