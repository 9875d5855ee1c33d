"""`brainlit downstream`: what the models of a run, or any speech model, know besides the brain."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from brainlit.backbones import BACKBONES, BackboneConfig, load_backbone
from brainlit.cli.errors import UsageError
from brainlit.cli.probe_sources import folder_name
from brainlit.cli.reports import chosen_checkpoint
from brainlit.cli.run_options import CONFIG_FILE
from brainlit.downstream.evaluate import untrained
from brainlit.downstream.result import TUNED, UNTUNED
from brainlit.downstream.run_models import UNTRAINED, Model
from brainlit.downstream.words import StoryWords, story_words
from brainlit.hints import did_you_mean
from brainlit.results.run_directory import RunDirectory, read_json
from brainlit.results.summary import RUN_FILE
from brainlit.splits import Span, parse_span
from brainlit.store import StoryStore
from brainlit.tuning.checkpoint import read_content
from brainlit.tuning.module import load_tuned
from brainlit.tuning.settings import rebuilt

if TYPE_CHECKING:
    from brainlit.downstream.run_models import Asking, Question


# --- downstream_options
# What `brainlit downstream` understands: its tasks, its options, and what is refused before anything is loaded.


WORDS = "words"
DEMO = {
    "demo/phones": "which phones a spoken word has",
    "demo/word_identity": "which of 72 words is said",
    "demo/word_category": "which of eight categories of meaning a word has, on seen and unseen words",
    "demo/sentence_type": "which of four kinds of sentence is said",
    "demo/speaker": "which of eight voices speaks",
}
DATA = {
    "timit/phones": ("timit_phones", "which of 39 phone classes a sentence has"),
    "timit/sentence_type": ("timit_sentence_type", "SA, SI or SX sentence"),
    "timit/sentence_type_without_sa": ("timit_sentence_type_without_sa", "SI or SX sentence"),
    "speech_commands": ("speech_commands", "which of 35 words is said"),
    "crema_d": ("crema_d", "which of six emotions is acted"),
    "slurp": ("slurp", "what a speaker wants of an assistant"),
    "fluent_speech_commands": ("fluent_speech_commands", "which of 31 commands is given"),
}
"""Task -> its name in `downstream.data.TASKS`, and what is asked."""
RECOGNITION = {
    "timit/recognition": ("timit", "what is read, by CTC fine-tuning: WER and CER"),
    "librispeech/recognition": ("librispeech", "the same: train-clean-100, dev-clean, test-clean"),
}
"""Task -> its name in `downstream.data.RECOGNITION`, and what is asked."""
ALL = (*DEMO, WORDS, *DATA, *RECOGNITION)

DESCRIPTION = """\
Ask speech models what they know besides the brain: probes of every frozen layer on tasks with their controls, and
whether words are alike by meaning or by sound. Of a run, the tuned model (its last checkpoint) and the one it began
from. Answers are kept in RUN/downstream/MODEL/, and what is there is not asked again.
"""
EXAMPLES = """\
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
        description=DESCRIPTION,
        epilog=f"{_task_list()}\n\n{EXAMPLES}",
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


def _task_list() -> str:
    groups = {
        "offline, on speech that espeak-ng makes (pip install 'brainlit[demo]')": DEMO,
        "offline, on the run's stories to score; other data than the demo's need nltk with wordnet and cmudict": {
            WORDS: "are words alike by meaning or by sound, layer by layer"
        },
        "with --data, the folder of the published data set (data/downstream.md)": {
            name: words for name, (_, words) in (DATA | RECOGNITION).items()
        },
    }
    lines = ["tasks:"]
    for need, tasks in groups.items():
        lines += [f"  {need}", *(f"    {name:32}{words}" for name, words in tasks.items())]
    return "\n".join(lines)


def checked_tasks(given: argparse.Namespace) -> list[str]:
    """The tasks, each once; refuses what cannot be meant.

    Raises
    ------
    UsageError
        If nothing or too much is named, a task is unknown, or the data of a task are.
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
    names = list(dict.fromkeys(given.task or [*DEMO, *([WORDS] if given.runs or given.store else [])]))
    for name in names:
        if name not in ALL:
            raise UsageError(f"there is no task {name!r}. {did_you_mean(name, ALL)}")
    if WORDS in names and not given.runs and given.store is None:
        raise UsageError("the task words needs stories: give --store DIR, or a run, which has its own.")
    _check_data(given.data, [name for name in names if name in DATA or name in RECOGNITION])
    return names


def _check_data(folder: Path | None, names: Sequence[str]) -> None:
    sets = sorted({name.partition("/")[0] for name in names})
    if len(sets) > 1:
        raise UsageError(f"the tasks are from {' and '.join(sets)}, and --data is one folder: ask one after the other.")
    if sets and folder is None:
        raise UsageError(
            f"{names[0]} needs --data, the folder of the data set; data/downstream.md says where it is from."
        )
    if folder is not None and not sets:
        raise UsageError("--data is given, and no task that needs it: name some with --task, such as timit/phones.")
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"--data {folder} is no folder.")


def asking(given: argparse.Namespace) -> Asking:
    """How models are asked: device, probes, fine-tuning."""
    import torch

    from brainlit.downstream.probes import ProbeConfig
    from brainlit.downstream.recognise import CtcConfig
    from brainlit.downstream.run_models import Asking

    if not given.batch_s > 0:
        raise UsageError(f"--batch_s is {given.batch_s}; a batch needs some sound.")
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    ctc = CtcConfig(epochs=given.epochs, batch_s=given.batch_s)
    return Asking(ProbeConfig(probes=tuple(given.probes)), ctc, given.seed, device, given.batch_s)


# --- downstream_sources
# Whom `brainlit downstream` asks: the models of a run, or a model without one; and the stories that give words.


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


def main(arguments: Sequence[str]) -> int:
    """Ask what has no answer yet, print the tables, write scores.csv."""
    given = options_parser().parse_args(list(arguments))
    names = checked_tasks(given)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("httpx", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from brainlit.downstream.run_models import folders_of, set_beside
    from brainlit.downstream.tables import report, write_scores

    how = asking(given)
    everybody = [of_run(path, given) for path in given.runs] or [of_model(given)]
    _answer(everybody, names, given, how)
    for asked in everybody:
        set_beside(folders_of(asked.root))
        print(f"\n{report(asked.root, names)}\n\nScores: {write_scores(asked.root)}")
    return 0


def _answer(everybody: Sequence[Asked], names: Sequence[str], given: argparse.Namespace, how: Asking) -> None:
    """Ask every model what it has not answered; speech is made or read once for all of them."""
    from brainlit.downstream.result import model_folder
    from brainlit.downstream.run_models import ask

    open_ = [
        (asked, one, _unanswered(asked, one, names, given.again, how)) for asked in everybody for one in asked.models
    ]
    words = {asked.root: _words(asked, given.task is not None) for asked, _, missing in open_ if WORDS in missing}
    tasks = _tasks([name for name in names if any(name in missing for _, _, missing in open_)], given)
    for asked, model, missing in open_:
        spoken = words.get(asked.root) if WORDS in missing else None
        questions: list[Question] = [tasks[name] for name in missing if name != WORDS]
        questions += [] if spoken is None else [spoken]
        if questions:
            print(f"{asked.root}: {model.name} ({model.origin}), {len(questions)} tasks")
            ask(model, model_folder(asked.root, model.name), questions, how)


def _unanswered(asked: Asked, model: Model, names: Sequence[str], again: bool, how: Asking) -> list[str]:
    """The tasks that the model has not answered; says what is kept."""
    from brainlit.downstream.result import WORDS_FILE, model_folder
    from brainlit.downstream.run_models import answer_path, is_answered

    folder = model_folder(asked.root, model.name)
    paths = {name: answer_path(folder, name, name in RECOGNITION) for name in names}
    paths[WORDS] = folder / WORDS_FILE
    kept = [name for name in names if not again and is_answered(paths[name], model, how)]
    if kept:
        print(f"{folder} has {', '.join(kept)}: kept (--again makes them anew)")
    return [name for name in names if name not in kept]


def _words(asked: Asked, by_name: bool) -> StoryWords | None:
    """The words of the stories; where tasks were not named and there are no such words, that is said."""
    from brainlit.downstream.word_lists import WordListMissingError
    from brainlit.store import StoreError

    if asked.words is None:
        return None
    try:
        return asked.words()
    except (WordListMissingError, StoreError, FileNotFoundError, ValueError) as error:
        if by_name:
            raise
        print(f"{asked.root}: the task words is left out. {error}")
        return None


def _tasks(names: Sequence[str], given: argparse.Namespace) -> dict[str, Any]:
    """The tasks, called as they were asked for."""
    from brainlit.downstream import data
    from brainlit.downstream.demo_tasks import demo_tasks

    found: dict[str, Any] = dict(demo_tasks([name for name in names if name in DEMO], seed=given.seed))
    for name in names:
        if name in DATA:
            found[name] = replace(data.TASKS[DATA[name][0]](given.data), name=name)
        elif name in RECOGNITION:
            found[name] = replace(data.RECOGNITION[RECOGNITION[name][0]](given.data), name=name)
    return found
