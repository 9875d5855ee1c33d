"""Probes of all layers of one model on one task, two models beside each other, and what a score is worth.

Layer and regularisation are chosen on 'choose' and nowhere else. Two models are compared on the same clips, which are
drawn together. Controls say what guessing gives, reading instead of listening, features of nothing, and a model that
learned nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from brainlit.backbones import SpeechBackbone, load_backbone
from brainlit.downstream.clip import Clip
from brainlit.downstream.features import LayerFeatures
from brainlit.downstream.probes import PROBES, LayerData, LayerProbeConfig, ProbePredictions, standardised
from brainlit.downstream.result import ProbeOutcome, TaskResult
from brainlit.downstream.scores import BootstrapConfig, clip_sums, estimate, score_of
from brainlit.downstream.task import CHOOSE, TEST, TRAIN, Metric, Task
from brainlit.encoding.arrays import Float32Array, IntArray
from brainlit.encoding.statistics import Score
from brainlit.tuning.objectives.ctc import plain


def evaluate(
    task: Task,
    features: Mapping[str, LayerFeatures],
    config: LayerProbeConfig | None = None,
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
    how = config or LayerProbeConfig()
    layers = _checked(task, features)
    fitted: dict[str, list[ProbePredictions]] = {probe: [] for probe in how.probes}
    for layer in tqdm(layers, desc=f"{task.name}: layers", disable=not progress, leave=False):
        of_layer = {part: np.asarray(features[part][layer], dtype=np.float32) for part in task.parts}
        values = standardised(of_layer) if standardise else of_layer
        data = LayerData(values, task.targets, task.kind, len(task.labels))
        for probe, done in fitted.items():
            done.append(PROBES[probe](data, how, device))
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


def _choose(task: Task, fitted: list[ProbePredictions]) -> ProbeOutcome:
    """The best setting of each layer and the best layer, both by the score on 'choose'."""
    scores = np.asarray([[_choose_score(task, seeds) for seeds in one.predictions[CHOOSE]] for one in fitted])
    best = list(zip(fitted, scores.argmax(axis=1), strict=True))
    return ProbeOutcome(
        chosen=int(scores.max(axis=1).argmax()),
        choose_scores=scores.max(axis=1),
        settings=np.asarray([one.settings[k] for one, k in best]),
        predictions={part: np.stack([one.predictions[part][k] for one, k in best]) for part in task.test_parts},
    )


def _choose_score(task: Task, predictions: IntArray) -> float:
    """Score of one setting on 'choose', mean over seeds."""
    sums = [
        clip_sums(task.metric, task.kind, task.targets[CHOOSE], one, len(task.labels)).sum(axis=0)
        for one in predictions
    ]
    return float(score_of(task.metric, np.stack(sums)).mean())


def _checked(task: Task, features: Mapping[str, LayerFeatures]) -> tuple[int, ...]:
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


# --- Two models on the same clips ---


@dataclass(frozen=True)
class Comparison:
    """Score of b minus score of a, on the same clips.

    Parameters
    ----------
    difference : Score
        With its bootstrap interval and units as `estimate` gives them; both models answer for the same
        drawn speakers or clips.
    only_a, only_b : float
        Clips that only one of the two gets right (for several seeds the mean over them), for kind 'single'; else NaN.
    mcnemar_p : float
        Exact two-sided p-value of McNemar's test that the two are right equally often (1947,
        doi:10.1007/BF02295996); it takes clips as independent. NaN for kind 'multi' and for probes of several seeds.
    """

    difference: Score
    only_a: float
    only_b: float
    mcnemar_p: float


def compare(
    a: TaskResult,
    b: TaskResult,
    part: str = TEST,
    *,
    probe: str | None = None,
    layer: int | None = None,
    metric: Metric | None = None,
    bootstrap: BootstrapConfig | None = None,
) -> Comparison:
    """How much better b is than a.

    Parameters
    ----------
    probe : str, optional
        None: each result's linear probe, or its first.
    layer : int, optional
        None: each model at the layer that was chosen for it on 'choose'.

    Raises
    ------
    ValueError
        If the two did not answer the same questions about the same clips.
    """
    _check_same(a, b, part)
    measure = metric or a.metric
    sums = [result.sums(part, probe, layer, measure) for result in (a, b)]
    difference = estimate(measure, sums[1], a.speakers[part], bootstrap, minus=sums[0])
    return Comparison(difference, *_discordant(a, b, part, probe, layer))


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test from the clips that only one of two gets right.

    >>> mcnemar_p(1, 6)
    0.125
    """
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _discordant(
    a: TaskResult, b: TaskResult, part: str, probe: str | None, layer: int | None
) -> tuple[float, float, float]:
    """Clips that only a gets right, that only b does, and the p-value; see Comparison."""
    if a.kind == "multi":
        return float("nan"), float("nan"), float("nan")
    # 1 where a clip's answer is right: (n_seeds, n_clips)
    right_a, right_b = (
        (result.predictions(part, probe, layer) == result.truth[part]).astype(np.float64) for result in (a, b)
    )
    if len(right_a) == len(right_b) == 1:
        only_a, only_b = int((right_a > right_b).sum()), int((right_b > right_a).sum())
        return only_a, only_b, mcnemar_p(only_a, only_b)
    pairs = right_b[None, :] - right_a[:, None]
    return float((pairs < 0).sum(-1).mean()), float((pairs > 0).sum(-1).mean()), float("nan")


def _check_same(a: TaskResult, b: TaskResult, part: str) -> None:
    for what in ("task", "labels", "metric"):
        theirs, ours = getattr(a, what), getattr(b, what)
        if theirs != ours:
            raise ValueError(f"the two results have different {what}: {theirs!r} and {ours!r}; they cannot be paired.")
    for result in (a, b):
        result.predictions(part)  # refuses a part that it does not have
    if a.clips[part] != b.clips[part] or not np.array_equal(a.truth[part], b.truth[part]):
        raise ValueError(
            f"the two results of {a.task!r} were not made from the same clips of {part!r}, so they cannot be paired;"
            " run both with the same seed and the same version of the data."
        )


# --- Controls: guessing, reading instead of listening, features of nothing, a model that learned nothing ---


_MAJORITY, _TRANSCRIPT, _RANDOM = "majority", "transcript", "random_features"
_READER_STRENGTHS = (0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6)
"""Counts of words are not standardised, hence weaker ones than for features."""


def task_controls(
    task: Task,
    n_features: int,
    config: LayerProbeConfig | None = None,
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
    noise = random_features(task, n_features, config, seed=seed, device=device)
    found = {_MAJORITY: majority(task), _RANDOM: noise}
    if all(clip.text.strip() for part in task.parts for clip in task.clips[part]):
        found[_TRANSCRIPT] = transcript_only(task, config, device=device)
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
    return task_result(task, _MAJORITY, (0,), {_MAJORITY: ProbeOutcome(0, nothing, nothing, predictions)})


def transcript_only(
    task: Task, config: LayerProbeConfig | None = None, *, device: torch.device | str = "cpu"
) -> TaskResult:
    """The linear probe on which words are said: 1 for each word of train that a clip's text has, order left out.

    A tree over bags of words solves Fluent Speech Commands, so that its intents are no evidence of semantics (Choi et
    al. 2024, arXiv 2406.08619); so it is with any task that this control solves. The result's fact 'known_words/PART'
    is the share of clips of a part with a word that train knows.
    """
    how = replace(config or LayerProbeConfig(), probes=("linear",), strengths=_READER_STRENGTHS)
    words = sorted({word for clip in task.clips[TRAIN] for word in plain(clip.text).split()})
    bags = {part: _bags(task.clips[part], words) for part in task.parts}
    features = {part: {0: values} for part, values in bags.items()}
    result = evaluate(task, features, how, model=_TRANSCRIPT, standardise=False, device=device, progress=False)
    known = {f"known_words/{part}": f"{bags[part].any(axis=1).mean():.4f}" for part in task.test_parts}
    return replace(result, facts={**result.facts, **known})


def random_features(
    task: Task,
    n_features: int,
    config: LayerProbeConfig | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> TaskResult:
    """The linear probe on Gaussian noise that knows nothing of the clips: chance, with all that choosing does to it."""
    how = replace(config or LayerProbeConfig(), probes=("linear",))
    rng = np.random.default_rng(np.random.SeedSequence([seed, n_features]))
    features: dict[str, LayerFeatures] = {
        part: {0: rng.standard_normal((len(task.clips[part]), n_features), dtype=np.float32)} for part in task.parts
    }
    return evaluate(task, features, how, model=_RANDOM, device=device, progress=False)


def untrained(backbone: SpeechBackbone, seed: int = 0) -> SpeechBackbone:
    """A backbone of the same architecture with random weights: what architecture and sound give by themselves."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(backbone.architecture()))
        found = load_backbone(replace(backbone.config.random_like(folder), seed=seed))
    asked = replace(backbone.config, weights=f"random:{backbone.config.weights}", seed=seed)
    found.restore_description(asked, found.origin)
    return found


def with_controls(
    result: TaskResult, controls: Mapping[str, TaskResult], bootstrap: BootstrapConfig | None = None
) -> TaskResult:
    """The result with the scores of its controls, and with what they say about it as warnings.

    Parameters
    ----------
    controls : mapping of name to TaskResult
        Of `task_controls`, and others on the same task: 'untrained', 'pretrained'.
    """
    scores = {
        name: {part: control.score(part, bootstrap=bootstrap) for part in result.parts}
        for name, control in controls.items()
    }
    reader = controls.get(_TRANSCRIPT)
    said = [_verdict(result, reader, part, bootstrap) for part in result.parts] if reader else [_NO_TEXT]
    return replace(result, controls=scores, warnings=(*result.warnings, *said))


_NO_TEXT = (
    "there is no transcript of the clips, so it is not known what their words alone would give; the score is no"
    " evidence for semantics."
)


def _verdict(result: TaskResult, reader: TaskResult, part: str, bootstrap: BootstrapConfig | None) -> str:
    """What the transcript-only control says about the best probe on a part."""
    if float(reader.facts[f"known_words/{part}"]) == 0:
        return f"{part}: train has none of the words of this part, so the transcript-only control is blind here."
    probe = max(result.probes, key=lambda name: result.score(part, name, bootstrap=BootstrapConfig(n_boot=1)).value)
    score, read = result.score(part, probe, bootstrap=bootstrap), reader.score(part, bootstrap=bootstrap)
    values = (
        f"{part}: {result.metric} {score.value:.3f} ({probe}), and {read.value:.3f} from the words of the transcript"
    )
    only_it = replace(result, probes={probe: result.probes[probe]})
    above = compare(reader, only_it, part, bootstrap=bootstrap)
    if above.difference.low > 0:
        return f"{values}. What lies above that is not in which words are said: their sound or order, or the voice."
    if above.difference.value > 0:
        return f"{values}. The difference may be chance, so the score is no evidence for semantics."
    return f"{values}. Words by themselves reach this score, so it is no evidence for semantics."


def _bags(clips: Sequence[Clip], words: Sequence[str]) -> Float32Array:
    """1 for each of these words that a clip has: (n_clips, n_words)."""
    place = {word: k for k, word in enumerate(words)}
    bags = np.zeros((len(clips), len(words)), dtype=np.float32)
    for row, clip in zip(bags, clips, strict=True):
        row[[place[word] for word in plain(clip.text).split() if word in place]] = 1
    return bags
