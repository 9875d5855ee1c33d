"""Probes of all layers of one model on one task; layer and regularisation are chosen on 'choose' and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from brainlit.downstream.features import Features
from brainlit.downstream.probes import PROBES, Fitted, ProbeConfig, Problem, standardised
from brainlit.downstream.result import ProbeOutcome, TaskResult
from brainlit.downstream.scores import clip_sums, score_of
from brainlit.downstream.task import CHOOSE, TRAIN, IntArray, Task


def evaluate(
    task: Task,
    features: Mapping[str, Features],
    config: ProbeConfig | None = None,
    *,
    model: str = "",
    standardise: bool = True,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> TaskResult:
    """Fit every probe on every layer; score the test parts.

    The probe is fitted on 'train', its regularisation and then the layer are those with the best score on 'choose'
    (ties: the stronger, the lower). The test parts decide nothing; their curve over layers is kept beside the score of
    the chosen one.

    Parameters
    ----------
    features : mapping of part to mapping of layer to float32 array of shape (n_clips, n_features)
        As `task_features` gives them.
    model : str
        Name of the model, for tables.
    standardise : bool
        Give each feature the mean 0 and the variance 1 that it has in train.
    device : torch.device or str
        Where probes are fitted.

    Raises
    ------
    ValueError
        If features do not fit the task, or are not finite.
    """
    how = config or ProbeConfig()
    layers = _checked(task, features)
    fitted: dict[str, list[Fitted]] = {probe: [] for probe in how.probes}
    for layer in tqdm(layers, desc=f"{task.name}: layers", disable=not progress, leave=False):
        of_layer = {part: np.asarray(features[part][layer], dtype=np.float32) for part in task.parts}
        problem = Problem(
            standardised(of_layer) if standardise else of_layer, task.targets, task.kind, len(task.labels)
        )
        for probe, done in fitted.items():
            done.append(PROBES[probe](problem, how, device))
    return task_result(task, model, layers, {probe: _choose(task, done) for probe, done in fitted.items()})


def task_result(task: Task, model: str, layers: tuple[int, ...], probes: Mapping[str, ProbeOutcome]) -> TaskResult:
    """A result with what the task says about its test parts."""
    parts = task.test_parts
    return TaskResult(
        task=task.name,
        model=model,
        kind=task.kind,
        metric=task.metric,
        labels=task.labels,
        layers=layers,
        truth={part: task.targets[part] for part in parts},
        clips={part: tuple(clip.name for clip in task.clips[part]) for part in parts},
        speakers={part: _speakers(task, part) for part in parts},
        probes=probes,
        facts=task.facts,
    )


def _speakers(task: Task, part: str) -> tuple[str, ...]:
    """Who speaks, for intervals; nobody where the speaker is the answer: drawing speakers would draw labels."""
    names = tuple(clip.speaker for clip in task.clips[part])
    if task.kind == "single" and names == tuple(task.labels[k] for k in task.targets[part]):
        return ("",) * len(names)
    return names


def _choose(task: Task, fitted: list[Fitted]) -> ProbeOutcome:
    """The best setting of each layer and the best layer, both by the score on 'choose'."""
    scores = np.stack([_choose_scores(task, one.predictions[CHOOSE]) for one in fitted])
    best = scores.argmax(axis=1)
    return ProbeOutcome(
        chosen=int(scores.max(axis=1).argmax()),
        choose_scores=scores.max(axis=1),
        settings=np.asarray([one.settings[k] for one, k in zip(fitted, best, strict=True)]),
        predictions={
            part: np.stack([one.predictions[part][k] for one, k in zip(fitted, best, strict=True)])
            for part in task.test_parts
        },
    )


def _choose_scores(task: Task, predictions: IntArray) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Score of each setting on 'choose', mean over seeds: (n_settings,)."""
    truth, n_labels = task.targets[CHOOSE], len(task.labels)
    scores = [
        np.mean(
            [score_of(task.metric, clip_sums(task.metric, task.kind, truth, one, n_labels).sum(0)) for one in seeds]
        )
        for seeds in predictions
    ]
    return np.asarray(scores, dtype=np.float64)


def _checked(task: Task, features: Mapping[str, Features]) -> tuple[int, ...]:
    """The layers, the same in all parts."""
    layers = tuple(sorted(features.get(TRAIN, {})))
    for part in task.parts:
        if part not in features or tuple(sorted(features[part])) != layers or not layers:
            raise ValueError(
                f"task {task.name!r} has features of layers {layers} in train but not in its part {part!r}."
            )
        for layer in layers:
            values = features[part][layer]
            if values.ndim != 2 or len(values) != len(task.clips[part]):
                raise ValueError(
                    f"task {task.name!r}, part {part!r}, layer {layer}: features have shape {values.shape} for"
                    f" {len(task.clips[part])} clips; need (n_clips, n_features)."
                )
            if not np.isfinite(values).all():
                raise ValueError(f"task {task.name!r}, part {part!r}, layer {layer}: features hold NaN or infinity.")
    return layers
