"""Two models on the same clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brainlit.downstream.result import TaskResult
from brainlit.downstream.scores import Draws, FloatArray, clusters_of, interval, replicates, score_of
from brainlit.downstream.task import TEST, Metric


@dataclass(frozen=True)
class Comparison:
    """Score of b minus score of a, on the same clips.

    Parameters
    ----------
    difference, low, high : float
        With its bootstrap percentile interval; both models answer for the same drawn speakers or clips.
    n_clips, n_drawn : int
    drawn : str
        'speakers' or 'clips', as in Estimate.
    only_a, only_b : float
        Clips that only one of the two gets right (for several seeds the mean over them), for kind 'single'; else NaN.
    mcnemar_p : float
        Exact two-sided p-value of McNemar's test that the two are right equally often (1947,
        doi:10.1007/BF02295996); it takes clips as independent. NaN for kind 'multi' and for probes of several seeds.
    """

    difference: float
    low: float
    high: float
    n_clips: int
    n_drawn: int
    drawn: str
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
    draws: Draws | None = None,
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
    how, measure = draws or Draws(), metric or a.metric
    sums = [result.sums(part, probe, layer, measure) for result in (a, b)]
    clusters, drawn = clusters_of(a.speakers[part])
    values = [float(score_of(measure, one.sum(axis=1)).mean()) for one in sums]
    low, high = interval(replicates(measure, sums[1], clusters, how) - replicates(measure, sums[0], clusters, how), how)
    only_a, only_b, p = _discordant(a, b, part, probe, layer)
    n_drawn = int(clusters.max()) + 1
    return Comparison(values[1] - values[0], low, high, len(clusters), n_drawn, drawn, only_a, only_b, p)


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
    if a.kind == "multi":
        return float("nan"), float("nan"), float("nan")
    right_a, right_b = (_right(result, part, probe, layer) for result in (a, b))
    if len(right_a) == len(right_b) == 1:
        only_a, only_b = int((right_a > right_b).sum()), int((right_b > right_a).sum())
        return only_a, only_b, mcnemar_p(only_a, only_b)
    pairs = right_b[None, :] - right_a[:, None]
    return float((pairs < 0).sum(-1).mean()), float((pairs > 0).sum(-1).mean()), float("nan")


def _right(result: TaskResult, part: str, probe: str | None, layer: int | None) -> FloatArray:
    """1 where a clip's answer is right: (n_seeds, n_clips)."""
    return np.asarray(result.predictions(part, probe, layer) == result.truth[part], dtype=np.float64)


def _check_same(a: TaskResult, b: TaskResult, part: str) -> None:
    for what, theirs, ours in (
        ("task", a.task, b.task),
        ("labels", a.labels, b.labels),
        ("metric", a.metric, b.metric),
    ):
        if theirs != ours:
            raise ValueError(f"the two results have different {what}: {theirs!r} and {ours!r}; they cannot be paired.")
    for result in (a, b):
        result.predictions(part)
    if a.clips[part] != b.clips[part] or not np.array_equal(a.truth[part], b.truth[part]):
        raise ValueError(
            f"the two results of {a.task!r} were not made from the same clips of {part!r}, so they cannot be paired;"
            " run both with the same seed and the same version of the data."
        )
