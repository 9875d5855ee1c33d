"""Scores of predictions, and how far they would move with other clips or other speakers.

Every score is a function of sums over clips (of hits, of label counts, of wrong words). So clips, or all clips of a
speaker, are added up once, and a bootstrap replicate is a product of draw counts with those sums. A few drawn speakers
scatter too little, so intervals are wider than the percentiles of the replicates; see `widening`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from brainlit.downstream.task import Kind, Metric
from brainlit.encoding.arrays import FloatArray, IntArray
from brainlit.encoding.statistics import Score, percentiles, small_sample_factor

_FEWEST_SPEAKERS = 5
"""With fewer, drawing speakers would give a handful of different samples; then clips are drawn."""
_FEWEST_EVEN_SPEAKERS = 3.0
"""The same for the number of speakers that as many even ones would be worth; see `even_clusters`."""
_REPLICATES_AT_ONCE = 200

Measure = Literal["accuracy", "macro_f1", "error_rate"]
"""A task's metric, or errors per word or letter of a transcript."""

_Scale: TypeAlias = Literal["share", "rate", "difference"]


@dataclass(frozen=True)
class BootstrapConfig:
    """How clips or speakers are drawn.

    Parameters
    ----------
    n_boot : int
    level : float
        Coverage of the interval.
    seed : int
    """

    n_boot: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_boot < 1 or not 0 < self.level < 1:
            raise ValueError(f"n_boot {self.n_boot}, level {self.level}; need at least 1, and a share between 0 and 1.")


def clip_sums(metric: Metric, kind: Kind, truth: IntArray, predicted: IntArray, n_labels: int) -> FloatArray:
    """What each clip adds to a score: (n_clips, 2) for accuracy, (n_clips, 2 x n_labels) for macro_f1.

    Parameters
    ----------
    truth, predicted : int arrays of shape (n_clips,), or (n_clips, n_labels) for kind 'multi'
    """
    if metric == "accuracy":
        right = (truth == predicted).reshape(len(truth), -1).mean(axis=1)
        return np.stack([right, np.ones(len(truth))], axis=1)
    there, found = (_indicators(kind, labels, n_labels) for labels in (truth, predicted))
    return np.concatenate([there * found, (there + found) / 2], axis=1)


def score_of(metric: Measure, sums: FloatArray) -> FloatArray:
    """The score from sums over clips, (..., n) -> (...): what was counted over what there was.

    accuracy is the share of clips that are right; for 'multi' the share of right yes-or-no answers. macro_f1 is the
    mean over labels of 2 hits / (clips that have it + clips that are said to), over labels with any such clip.
    """
    half = sums.shape[-1] // 2
    over = sums[..., half:]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(over > 0, sums[..., :half] / over, np.nan)
    return np.asarray(np.nanmean(ratios, axis=-1) if metric == "macro_f1" else ratios[..., 0])


def estimate(
    metric: Measure,
    sums: FloatArray,
    speakers: Sequence[str],
    bootstrap: BootstrapConfig | None = None,
    *,
    minus: FloatArray | None = None,
) -> Score:
    """A score and its bootstrap interval; the mean over seeds where there are several.

    Its units are what a replicate draws, with replacement, and how many clips that is: {'speakers': 24, 'clips': 192},
    or {'clips': 192} where speakers are unknown or too few (see `clusters_of`): then the interval is for other clips of
    the same speakers only.

    Of a difference the ends are the percentiles of the replicates, taken further from the value by `widening`. Of a
    share p they are Wilson's (1927, JASA 22:209): the scores from which the value is just as far as their own spread
    reaches. The spread is that of the replicates, in proportion to sqrt(p (1 - p)), and reaches `widening` times as far
    as a normal curve; of an error rate it is in proportion to sqrt(p). So the ends stay where a score can be, and a
    score near 1 leaves room for the bad speakers that a few good ones do not show. Where speakers are exactly alike the
    spread is that of the clips. Where all clips are right there is none, and the lower end is the share of perfect
    speakers (or clips) that would still give only perfect ones in 2.5 % (Clopper and Pearson 1934, Biometrika 26:404).

    Parameters
    ----------
    sums : array of shape (n_seeds, n_clips, n)
        What `clip_sums` gives for each seed; (errors, words) of each clip for error_rate.
    speakers : sequence of str, length n_clips
        Drawn as wholes where all are known and there are enough.
    minus : array like sums, optional
        Of another model on the same clips: the score less that model's, both answering for the same drawn clips.
    """
    bootstrap = bootstrap or BootstrapConfig()
    clusters, drawn = clusters_of(speakers)
    value = float(score_of(metric, sums.sum(axis=1)).mean())
    moved = replicates(metric, sums, clusters, bootstrap)
    if minus is not None:
        value -= float(score_of(metric, minus.sum(axis=1)).mean())
        moved = moved - replicates(metric, minus, clusters, bootstrap)
    n_units = {drawn: int(clusters.max()) + 1, "clips": len(clusters)}
    factor = widening(clusters, bootstrap.level)
    scale: _Scale = "difference" if minus is not None else "rate" if metric == "error_rate" else "share"
    n_counted = float(sums[0, :, sums.shape[-1] // 2 :].sum())
    bounds = _ends(value, moved, factor, scale, bootstrap.level, even_clusters(clusters), n_counted)
    return Score(value, bounds=bounds, level=bootstrap.level, n_units=n_units)


def even_clusters(clusters: IntArray) -> float:
    """How many clusters of equal size say as much: (sum of sizes)^2 / sum of squares (Kish 1965, Survey Sampling).

    >>> even_clusters(np.array([0, 0, 1, 1])), round(even_clusters(np.array([0, 0, 0, 0, 1, 2])), 6)
    (2.0, 2.0)
    """
    sizes = np.bincount(clusters).astype(np.float64)
    return float(sizes.sum() ** 2 / np.square(sizes).sum())


def widening(clusters: IntArray, level: float) -> float:
    """How much further from the score the ends of an interval are than the percentiles of replicates of clusters.

    `small_sample_factor` of the number of clusters: sqrt(n / (n - 1)) and Student's t. Percentiles alone cover 81 to 87
    % with 5 to 8 speakers. Where some have more clips than others fewer of them count, hence `even_clusters`.

    Parameters
    ----------
    clusters : int array of shape (n_clips,)
        As `clusters_of` gives them; at least two.
    """
    return small_sample_factor(even_clusters(clusters), level)


def score_row(score: Score) -> dict[str, Any]:
    """The columns of a score in tables and files: value, low, high, n_clips, n_drawn and what was drawn."""
    drawn = drawn_units(score)
    n_units = {"n_clips": score.n_units["clips"], "n_drawn": score.n_units[drawn], "drawn": drawn}
    return {"value": score.value, "low": score.low, "high": score.high, **n_units}


def score_from_row(row: Mapping[str, Any]) -> Score:
    """What `score_row` made a row of."""
    n_units = {row["drawn"]: row["n_drawn"], "clips": row["n_clips"]}
    return Score(row["value"], bounds=(row["low"], row["high"]), n_units=n_units)


def format_score(score: Score, sign: str = "") -> str:
    """Value and interval in words; sign '+' for differences."""
    return f"{score.value:{sign}.3f} [{score.low:{sign}.3f}, {score.high:{sign}.3f}]"


def drawn_units(score: Score) -> str:
    """What replicates of the score drew: 'speakers' or 'clips'."""
    return next(iter(score.n_units))


def clusters_of(speakers: Sequence[str]) -> tuple[IntArray, str]:
    """Number of the cluster of each clip, from 0, and what the clusters are: 'speakers' or 'clips'.

    Speakers where all are known, there are at least 5, and their clips are spread over them as over 3 even ones or more
    (a speaker with most of the clips leaves nothing to draw from).
    """
    names, clusters = np.unique(np.asarray(speakers, dtype=np.str_), return_inverse=True)
    if len(names) >= _FEWEST_SPEAKERS and "" not in names and even_clusters(clusters) >= _FEWEST_EVEN_SPEAKERS:
        return clusters.astype(np.int64), "speakers"
    return np.arange(len(speakers), dtype=np.int64), "clips"


def replicates(metric: Measure, sums: FloatArray, clusters: IntArray, bootstrap: BootstrapConfig) -> FloatArray:
    """The score of each bootstrap sample, mean over seeds: shape (n_boot,). The same draws for the same clusters."""
    n_clusters = int(clusters.max()) + 1
    of_cluster = np.zeros((len(sums), n_clusters, sums.shape[2]))
    for seed, values in enumerate(sums):
        np.add.at(of_cluster[seed], clusters, values)
    parts = [score_of(metric, counts @ of_cluster).mean(axis=0) for counts in _counts(n_clusters, bootstrap)]
    return np.concatenate(parts)


def _ends(
    value: float, moved: FloatArray, factor: float, scale: _Scale, level: float, n_even: float, n_counted: float
) -> tuple[float, float]:
    """Both ends; see `estimate`. Replicates that drew no label are NaN, and do not count."""
    if scale == "difference":
        low, high = (value + factor * (end - value) for end in percentiles(moved, level, method="nearest"))
        return float(low), float(high)
    if np.nanmin(moved) == np.nanmax(moved) == value and value in (0.0, 1.0):
        reach = 1.0 - ((1.0 - level) / 2.0) ** (1.0 / n_even)
        if value == 1.0:
            return 1.0 - reach, 1.0
        return 0.0, reach if scale == "share" else float("nan")  # one clip can have any number of errors
    from scipy.stats import norm

    # (value - p)^2 = c p (1 - p), or c p, has two solutions p: the ends
    own = value * (1.0 - value) if scale == "share" else value
    variance = float(np.nanvar(moved))
    if variance < 1e-12 * own:
        variance = own / n_counted
    c = (factor * float(norm.ppf((1.0 + level) / 2.0))) ** 2 * variance / own
    half = np.sqrt(c * own + c * c / 4.0)
    over = 1.0 + c if scale == "share" else 1.0
    return float((value + c / 2.0 - half) / over), float((value + c / 2.0 + half) / over)


def _counts(n_clusters: int, bootstrap: BootstrapConfig) -> Iterator[FloatArray]:
    """How often each cluster is drawn, some replicates at a time: (n, n_clusters)."""
    rng = np.random.default_rng(bootstrap.seed)
    for first in range(0, bootstrap.n_boot, _REPLICATES_AT_ONCE):
        n_now = min(_REPLICATES_AT_ONCE, bootstrap.n_boot - first)
        chosen = rng.integers(0, n_clusters, size=(n_now, n_clusters)) + n_clusters * np.arange(n_now)[:, None]
        counts = np.bincount(chosen.ravel(), minlength=n_now * n_clusters).astype(np.float64)
        yield counts.reshape(n_now, n_clusters)


def _indicators(kind: Kind, labels: IntArray, n_labels: int) -> FloatArray:
    """0 or 1 for each clip and label: (n_clips, n_labels)."""
    return np.asarray(labels if kind == "multi" else labels[:, None] == np.arange(n_labels), dtype=np.float64)
