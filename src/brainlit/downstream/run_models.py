"""Evaluate models on tasks in the same way, and keep the results where `result.model_folder` says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from brainlit.backbones import BackboneConfig, SpeechBackbone, load_backbone
from brainlit.downstream.evaluate import evaluate, task_controls, untrained, with_controls
from brainlit.downstream.features import task_features, word_states
from brainlit.downstream.probes import LayerProbeConfig
from brainlit.downstream.recognise import CtcConfig, load_recognition_result, recognise
from brainlit.downstream.result import UNTRAINED, UNTUNED, TaskResult, find_results, load_result, task_path
from brainlit.downstream.task import RecognitionTask, Task
from brainlit.downstream.tasks import WORDS
from brainlit.downstream.words import StoryWords, load_words
from brainlit.tuning.checkpoint import read_content
from brainlit.tuning.module import load_tuned

AnyTask: TypeAlias = Task | RecognitionTask | StoryWords

PRETRAINED = "pretrained"
"""Name as a control of the model before tuning, whose folder is 'untuned'; 'untrained' has one name as both."""
_ORIGIN, _SEED, _EPOCHS = "made_from", "seed", "epochs"


@dataclass(frozen=True)
class Model:
    """A model to evaluate.

    Parameters
    ----------
    name : str
        Its folder: 'untuned', 'tuned', 'untrained' or that of a checkpoint.
    origin : str
        Which weights these are, such as 'last.ckpt, 168 steps'; a result of other weights is never taken for theirs.
    load : callable
        Gives the backbone; called once there is something to evaluate.
    """

    name: str
    origin: str
    load: Callable[[], SpeechBackbone]


def untuned_model(config: BackboneConfig) -> Model:
    """The weights that tuning begins from."""
    how = f", positions {config.positions}" if config.family == "whisper" and config.positions != "truncated" else ""
    return Model(UNTUNED, f"{config.family} {config.named}, seed {config.seed}{how}", lambda: load_backbone(config))


def untrained_model(config: BackboneConfig, seed: int) -> Model:
    """The same architecture with random weights, as a control."""
    return Model(UNTRAINED, f"random weights, seed {seed}", lambda: untrained(load_backbone(config), seed))


def checkpoint_model(path: Path, name: str) -> Model:
    """A checkpoint; only what it says about itself is read now.

    Raises
    ------
    CheckpointError
        If it cannot be read.
    """
    n_steps = read_content(path)["global_step"]
    return Model(name, f"{path.name}, {n_steps} steps", lambda: load_tuned(path).backbone)


@dataclass(frozen=True)
class EvaluationConfig:
    """How all models are evaluated.

    Parameters
    ----------
    probes : LayerProbeConfig
    ctc : CtcConfig
        For recognition.
    seed : int
        Of random features; kept with every result.
    device : str
        For models and probes.
    batch_s : float
        Seconds of sound in a batch, at most.
    """

    probes: LayerProbeConfig = field(default_factory=lambda: LayerProbeConfig(probes=("linear",)))
    ctc: CtcConfig = field(default_factory=CtcConfig)
    seed: int = 0
    device: str = "cpu"
    batch_s: float = 60.0


class Evaluator:
    """Evaluates models in one way; the controls of a task that need no model are made once for all of them."""

    def __init__(self, config: EvaluationConfig, *, progress: bool = True) -> None:
        self.config, self.progress = config, progress
        self._controls: dict[tuple[int, int], dict[str, TaskResult]] = {}

    def evaluate(self, model: Model, folder: Path, tasks: Sequence[AnyTask]) -> None:
        """Evaluate one model: it is loaded once, clips that tasks share are heard once, each result is kept at once.

        Parameters
        ----------
        folder : Path
            Of the model; see `result.model_folder`.
        """
        backbone = model.load()
        made = {**self._made_from(model), **_silence(backbone)}
        how: dict[str, Any] = {"device": self.config.device, "progress": self.progress}
        folder.mkdir(parents=True, exist_ok=True)
        probed = [task for task in tasks if isinstance(task, Task)]
        features = task_features(backbone, probed, batch_s=self.config.batch_s, **how) if probed else {}
        for one in probed:
            result = evaluate(one, features.pop(one.name), self.config.probes, model=model.name, **how)
            result = with_controls(result, self._controls_of(one, backbone.hidden_size))
            replace(result, facts={**result.facts, **made}).save(task_path(folder, one.name))
        for task in tasks:
            if isinstance(task, StoryWords):
                states = word_states(backbone, task, batch_s=self.config.batch_s, **how)
                facts = {**states.facts, "model": model.name, **made}
                replace(states, facts=facts).save(task_path(folder, WORDS))
            elif isinstance(task, RecognitionTask):
                read = recognise(backbone, task, self.config.ctc, model=model.name, **how)
                facts = {**read.facts, **made, _EPOCHS: str(self.config.ctc.epochs)}
                replace(read, facts=facts).save(task_path(folder, task.name, recognition=True))

    def is_done(self, path: Path, model: Model) -> bool:
        """Whether the result of a task is there and need not be made again; see `result.task_path`.

        Raises
        ------
        ValueError
            If it is there, and was made from other weights, with another seed, or without a probe that is asked for.
        """
        if not path.is_file():
            return False
        found, wanted = _kept_facts(path), {**self._made_from(model), _EPOCHS: str(self.config.ctc.epochs)}
        differing = [f"{key} {found[key]}, not {now}" for key, now in wanted.items() if found.get(key, now) != now]
        probes = self.config.probes.probes
        differing += [f"no probe {probe}" for probe in probes if probe not in found.get("probes", probes)]
        if differing:
            raise ValueError(f"{path} is the answer to something else ({'; '.join(differing)}). --again makes it anew.")
        return True

    def _controls_of(self, task: Task, n_features: int) -> dict[str, TaskResult]:
        key, how = (id(task), n_features), self.config
        if key not in self._controls:
            self._controls[key] = task_controls(task, n_features, how.probes, seed=how.seed, device=how.device)
        return self._controls[key]

    def _made_from(self, model: Model) -> dict[str, str]:
        """What is kept with a result to know it by."""
        return {_ORIGIN: model.origin, _SEED: str(self.config.seed)}


def _silence(backbone: SpeechBackbone) -> dict[str, str]:
    """What is added to the clips of families that add silence, for the record."""
    positions, below_s = (backbone.describe().get(name) for name in ("positions", "silence_added_below_s"))
    if positions is None:
        return {}
    added = f"clips shorter than {below_s:g} s with silence after them" if below_s else "clips without silence"
    return {"positions": f"{positions}: {added}"}


def _kept_facts(path: Path) -> Mapping[str, Any]:
    """What a kept result says about how it was made."""
    if path == task_path(path.parent, WORDS):
        return load_words(path).facts
    if path.suffix == ".json":
        return load_recognition_result(path).facts
    result = load_result(path)
    return {**result.facts, "probes": tuple(result.probes)}


def add_model_controls(folders: Mapping[str, Path]) -> None:
    """Add to each result of a run the scores of its untuned and its untrained model as controls, where they are.

    Parameters
    ----------
    folders : mapping of model to its folder
    """
    results = {model: find_results(folder) for model, folder in folders.items()}
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
                replace(result, controls={**result.controls, **new}).save(task_path(folders[model], task))
