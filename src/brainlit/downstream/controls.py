"""What a score is worth: guessing, reading instead of listening, features of nothing, a model that learned nothing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from brainlit.backbones import SpeechBackbone, load_backbone
from brainlit.downstream.clip import Clip
from brainlit.downstream.compare import compare
from brainlit.downstream.evaluate import evaluate, task_result
from brainlit.downstream.features import Features, Float32Array
from brainlit.downstream.probes import ProbeConfig
from brainlit.downstream.result import ProbeOutcome, TaskResult
from brainlit.downstream.scores import Draws
from brainlit.downstream.task import TRAIN, IntArray, Task
from brainlit.tuning.objectives.characters import plain

MAJORITY, TRANSCRIPT, RANDOM = "majority", "transcript", "random_features"
READER_STRENGTHS = (0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6)
"""Counts of words are not standardised, hence weaker ones than for features."""


def task_controls(
    task: Task,
    n_features: int,
    config: ProbeConfig | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, TaskResult]:
    """The controls that need no model: once per task, for all models.

    Parameters
    ----------
    n_features : int
        Features of the random control; those of the models.

    Returns
    -------
    dict of name to TaskResult
        'majority': the commonest label of train. 'transcript': the linear probe on the words of the clips' texts, as a
        bag; missing where a clip has no text. 'random_features': the linear probe on noise.
    """
    how = replace(config or ProbeConfig(), probes=("linear",))
    found = {MAJORITY: majority(task), RANDOM: random_features(task, n_features, how, seed=seed, device=device)}
    if all(clip.text.strip() for part in task.parts for clip in task.clips[part]):
        found[TRANSCRIPT] = transcript_only(task, how, device=device)
    return found


def majority(task: Task) -> TaskResult:
    """The commonest label of train for every clip; for kind 'multi' the labels that most of its clips have."""
    train = task.targets[TRAIN]
    if task.kind == "single":
        answer = np.bincount(train, minlength=len(task.labels)).argmax().astype(np.int64)
    else:
        answer = (train.mean(axis=0) > 0.5).astype(np.int64)
    predictions: dict[str, IntArray] = {
        part: np.broadcast_to(answer, (1, 1, *task.targets[part].shape)).copy() for part in task.test_parts
    }
    nothing = np.full(1, np.nan)
    return task_result(task, MAJORITY, (0,), {MAJORITY: ProbeOutcome(0, nothing, nothing, predictions)})


def transcript_only(task: Task, config: ProbeConfig | None = None, *, device: torch.device | str = "cpu") -> TaskResult:
    """The linear probe on which words are said: 1 for each word of train that a clip's text has, order left out.

    A tree over bags of words solves Fluent Speech Commands, so that its intents are no evidence of semantics (Choi et
    al. 2024, arXiv 2406.08619); so it is with any task that this control solves. The result's fact 'known_words/PART'
    is the share of clips of a part with a word that train knows.
    """
    how = replace(config or ProbeConfig(), probes=("linear",), strengths=READER_STRENGTHS)
    vocabulary = {
        word: k for k, word in enumerate(sorted({word for clip in task.clips[TRAIN] for word in _words(clip)}))
    }
    bags = {part: _bags(task.clips[part], vocabulary) for part in task.parts}
    result = evaluate(
        task,
        {part: {0: values} for part, values in bags.items()},
        how,
        model=TRANSCRIPT,
        standardise=False,
        device=device,
        progress=False,
    )
    known = {f"known_words/{part}": f"{bags[part].any(axis=1).mean():.4f}" for part in task.test_parts}
    return replace(result, facts={**result.facts, **known})


def random_features(
    task: Task,
    n_features: int,
    config: ProbeConfig | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> TaskResult:
    """The linear probe on Gaussian noise that knows nothing of the clips: chance, with all that choosing does to it."""
    how = replace(config or ProbeConfig(), probes=("linear",))
    rng = np.random.default_rng(np.random.SeedSequence([seed, n_features]))
    features: dict[str, Features] = {
        part: {0: rng.standard_normal((len(task.clips[part]), n_features), dtype=np.float32)} for part in task.parts
    }
    return evaluate(task, features, how, model=RANDOM, device=device, progress=False)


def untrained(backbone: SpeechBackbone, seed: int = 0) -> SpeechBackbone:
    """A backbone of the same architecture with random weights: what architecture and sound give by themselves."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(backbone.architecture()))
        found = load_backbone(replace(backbone.config, weights=f"random:{folder}", seed=seed))
    found.restore_description(replace(found.config, weights=f"random:{backbone.config.weights}"), found.origin)
    return found


def with_controls(result: TaskResult, controls: Mapping[str, TaskResult], draws: Draws | None = None) -> TaskResult:
    """The result with the scores of its controls, and with what they say about it as warnings.

    Parameters
    ----------
    controls : mapping of name to TaskResult
        Of `task_controls`, and others on the same task: 'untrained', 'pretrained'.
    """
    scores = {
        name: {part: control.score(part, draws=draws) for part in result.parts} for name, control in controls.items()
    }
    reader = controls.get(TRANSCRIPT)
    said = [_verdict(result, reader, part, draws) for part in result.parts] if reader else [_NO_TEXT]
    return replace(result, controls=scores, warnings=(*result.warnings, *said))


_NO_TEXT = (
    "there is no transcript of the clips, so it is not known what their words alone would give; the score is no"
    " evidence for semantics."
)


def _verdict(result: TaskResult, reader: TaskResult, part: str, draws: Draws | None) -> str:
    """What the transcript-only control says about the best probe on a part."""
    if float(reader.facts[f"known_words/{part}"]) == 0:
        return f"{part}: train has none of the words of this part, so the transcript-only control is blind here."
    probe = max(result.probes, key=lambda name: result.score(part, name, draws=Draws(n_boot=1)).value)
    score, read = result.score(part, probe, draws=draws), reader.score(part, draws=draws)
    values = (
        f"{part}: {result.metric} {score.value:.3f} ({probe}), and {read.value:.3f} from the words of the transcript"
    )
    above = compare(reader, _only(result, probe), part, draws=draws)
    if above.low > 0:
        return f"{values}. What lies above that is not in which words are said: their sound or order, or the voice."
    if above.difference > 0:
        return f"{values}. The difference may be chance, so the score is no evidence for semantics."
    return f"{values}. Words by themselves reach this score, so it is no evidence for semantics."


def _only(result: TaskResult, probe: str) -> TaskResult:
    return replace(result, probes={probe: result.probes[probe]})


def _words(clip: Clip) -> list[str]:
    return plain(clip.text).split()


def _bags(clips: Sequence[Clip], vocabulary: Mapping[str, int]) -> Float32Array:
    """1 for each known word of a clip: (n_clips, n_words)."""
    bags = np.zeros((len(clips), len(vocabulary)), dtype=np.float32)
    for row, clip in zip(bags, clips, strict=True):
        row[[vocabulary[word] for word in _words(clip) if word in vocabulary]] = 1
    return bags
