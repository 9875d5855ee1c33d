"""Ask models the same questions in the same way, and keep the answers where `run_files` looks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from brainlit.backbones import SpeechBackbone
from brainlit.downstream.evaluate import evaluate, task_controls, with_controls
from brainlit.downstream.features import task_features
from brainlit.downstream.probes import ProbeConfig
from brainlit.downstream.recognise import CtcConfig, RecognitionResult, load_recognition_result, recognise
from brainlit.downstream.result import (
    FOLDER,
    TUNED,
    UNTUNED,
    WORDS_FILE,
    TaskResult,
    find_results,
    load_result,
    load_words,
    task_path,
)
from brainlit.downstream.task import RecognitionTask, Task
from brainlit.downstream.words import StoryWords, hear

Question: TypeAlias = Task | RecognitionTask | StoryWords

UNTRAINED = "untrained"
"""The folder of the same architecture with random weights, and its name as a control."""
PRETRAINED = "pretrained"
"""Name as a control of the model before tuning, whose folder is 'untuned'."""
ORIGIN, SEED, EPOCHS = "made_from", "seed", "epochs"


@dataclass(frozen=True)
class Model:
    """A model to ask.

    Parameters
    ----------
    name : str
        Its folder: 'untuned', 'tuned', 'untrained' or that of a checkpoint.
    origin : str
        Which weights these are, such as 'last.ckpt, 168 steps'; a result of other weights is never taken for theirs.
    load : callable
        Gives the backbone; called once there is something to ask.
    """

    name: str
    origin: str
    load: Callable[[], SpeechBackbone]


@dataclass(frozen=True, eq=False)
class Asking:
    """How all models are asked.

    Parameters
    ----------
    probes : ProbeConfig
    ctc : CtcConfig
        For recognition.
    seed : int
        Of random features; kept with every result.
    device : str
        For models and probes.
    batch_s : float
        Seconds of sound in a batch, at most.
    """

    probes: ProbeConfig = field(default_factory=lambda: ProbeConfig(probes=("linear",)))
    ctc: CtcConfig = field(default_factory=CtcConfig)
    seed: int = 0
    device: str = "cpu"
    batch_s: float = 60.0
    _controls: dict[tuple[int, int], dict[str, TaskResult]] = field(default_factory=dict, repr=False)

    def controls(self, task: Task, n_features: int) -> dict[str, TaskResult]:
        """The controls that need no model, made when a task is first asked."""
        key = (id(task), n_features)
        if key not in self._controls:
            self._controls[key] = task_controls(task, n_features, self.probes, seed=self.seed, device=self.device)
        return self._controls[key]


def answer_path(folder: Path, task: str, recognition: bool = False) -> Path:
    """The file of an answer in a model's folder; those of recognition are JSON."""
    path = task_path(folder, task)
    return path.with_suffix(".json") if recognition else path


def is_answered(path: Path, model: Model, how: Asking) -> bool:
    """Whether an answer is there that need not be made again.

    Raises
    ------
    ValueError
        If it is there, and was made from other weights, with another seed, or without a probe that is asked for.
    """
    if not path.is_file():
        return False
    found, asked = _made(path), {**_how_made(model, how), EPOCHS: str(how.ctc.epochs)}
    differing = [f"{key} {found[key]}, not {value}" for key, value in asked.items() if found.get(key, value) != value]
    missing = [probe for probe in how.probes.probes if probe not in found.get("probes", how.probes.probes)]
    differing += [f"no probe {probe}" for probe in missing]
    if differing:
        raise ValueError(f"{path} is the answer to something else ({'; '.join(differing)}). --again makes it anew.")
    return True


def ask(model: Model, folder: Path, questions: Sequence[Question], how: Asking, *, progress: bool = True) -> None:
    """Ask one model; it is loaded once, clips that tasks share are heard once, and each answer is kept at once.

    Parameters
    ----------
    folder : Path
        Of the model; see `run_files.model_folder`.
    """
    backbone = model.load()
    made = _how_made(model, how)
    folder.mkdir(parents=True, exist_ok=True)
    heard: dict[str, Any] = {"batch_s": how.batch_s, "device": how.device, "progress": progress}
    tasks = [one for one in questions if isinstance(one, Task)]
    features = task_features(backbone, tasks, **heard) if tasks else {}
    for task in tasks:
        given = features.pop(task.name)
        result = evaluate(task, given, how.probes, model=model.name, device=how.device, progress=progress)
        result = with_controls(result, how.controls(task, backbone.hidden_size))
        replace(result, facts={**result.facts, **made}).save(answer_path(folder, task.name))
    for one in questions:
        if isinstance(one, StoryWords):
            states = hear(backbone, one, **heard)
            replace(states, facts={**states.facts, "model": model.name, **made}).save(folder / WORDS_FILE)
        elif isinstance(one, RecognitionTask):
            read = recognise(backbone, one, how.ctc, model=model.name, device=how.device, progress=progress)
            made_by = {**made, EPOCHS: str(how.ctc.epochs)}
            replace(read, facts={**read.facts, **made_by}).save(answer_path(folder, one.name, recognition=True))


def set_beside(run: Mapping[str, Path]) -> None:
    """Add to each result of a run the scores of its untuned and its untrained model as controls, where they are.

    Parameters
    ----------
    run : mapping of model to its folder
    """
    results = {model: find_results(folder) for model, folder in run.items()}
    for model, tasks in results.items():
        others = {UNTRAINED: UNTRAINED, PRETRAINED: UNTUNED} if model != UNTRAINED else {}
        for task, result in tasks.items():
            found = {control: results.get(name, {}).get(task) for control, name in others.items() if name != model}
            new = {
                control: {part: other.score(part) for part in result.parts}
                for control, other in found.items()
                if other is not None and other.clips == result.clips
            }
            if {**result.controls, **new} != result.controls:
                replace(result, controls={**result.controls, **new}).save(task_path(run[model], task))


def folders_of(root: Path) -> dict[str, Path]:
    """The folders of a run's models by name: untrained, untuned, tuned, then checkpoints in alphabetical order."""
    first = (UNTRAINED, UNTUNED, TUNED)
    names = [path.name for path in sorted((root / FOLDER).glob("*")) if path.is_dir()]
    return {name: root / FOLDER / name for name in sorted(names, key=lambda name: [name != one for one in first])}


def find_recognition(folder: Path) -> dict[str, RecognitionResult]:
    """What one model wrote down, by task; none where the folder is missing."""
    return {result.task: result for result in map(load_recognition_result, sorted(folder.glob("*.json")))}


def _how_made(model: Model, how: Asking) -> dict[str, str]:
    """What is kept with an answer to know it by."""
    return {ORIGIN: model.origin, SEED: str(how.seed)}


def _made(path: Path) -> dict[str, Any]:
    """What a kept answer says about how it was made."""
    if path.name == WORDS_FILE:
        return dict(load_words(path).facts)
    if path.suffix == ".json":
        return dict(load_recognition_result(path).facts)
    result = load_result(path)
    return {**result.facts, "probes": tuple(result.probes)}
