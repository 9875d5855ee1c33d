"""What a look-up of words wins on new words, and intervals there: `python -m tests.benchmarks.unseen_words`.

Stories of scenes about one of eight categories, 96 words with vectors around their category's, of which a quarter is in
no tuning story; in a share of the scenes (`new_scenes`) only these are said. Twelve voxels follow the words' vectors
through a haemodynamic response of SPM's form, written anew here. A look-up predicts the true response to the words that
it knows and that to other words in place of new ones. The first table has its noise-free r on rows that rest on new
words, by how much of the weight new words have there; the second how often 95 % intervals of r, and of a paired
difference of two predictions, hold the truth, with blocks drawn as for all rows and with blocks left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy.stats import gamma

from brainlit.encoding.bootstrap import block_weights, region_replicates
from brainlit.encoding.row_sets import row_set_scores
from brainlit.encoding.statistics import Score, small_sample_factor
from brainlit.encoding.temporal import HaemodynamicResponse
from brainlit.probing import word_rows
from brainlit.probing.word_rows import HeardWords, WordRows
from brainlit.results.scores import SEEN_WORDS, UNSEEN_WORDS
from brainlit.splits import Span
from brainlit.store import StoryStore
from brainlit.stories import Intervals
from brainlit.timebase import TimeBase

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

N_CATEGORIES, N_PER_CATEGORY, N_NEW, N_DIMENSIONS, N_VOXELS = 8, 12, 3, 24, 12
SECONDS_PER_WORD, SCENE_S, STRAY, SKIP_TRS = 1.3, (14.0, 26.0), 0.1, 5
REPORTED_FROM = 10_000
"""Seeds of the tables; everything was chosen on seeds below 2,000."""
CELLS = ((4, 105, 0.35), (4, 105, 0.2), (1, 300, 0.35), (2, 200, 0.25), (8, 200, 0.25))
"""Stories, rows of each, share of scenes of new words."""

_rng = np.random.default_rng(4)
WORDS = [[f"word{c}x{k:02d}" for k in range(N_PER_CATEGORY)] for c in range(N_CATEGORIES)]
NEW = frozenset(word for words in WORDS for word in words[:N_NEW])
ALL = [word for words in WORDS for word in words]
_table = np.repeat(_rng.standard_normal((N_CATEGORIES, N_DIMENSIONS)), N_PER_CATEGORY, axis=0)
_table = _table + 0.4 * _rng.standard_normal(_table.shape)
VECTORS = dict(zip(ALL, _table - _table.mean(axis=0), strict=True))
TUNING = _rng.standard_normal((N_DIMENSIONS, N_VOXELS)) / 3
"""How strongly each voxel follows each dimension; the same in all data sets, so that they have one truth."""
_LAGS_S = np.arange(0.0, 32.0, 0.05)
RESPONSE = (gamma.pdf(_LAGS_S, 6) - gamma.pdf(_LAGS_S, 16) / 6) / (1 - 1 / 6)


@dataclass(frozen=True, eq=False)
class Told:
    """Stories as they were told and answered: words with times, what voxels and a look-up make of them, noise-free."""

    words: Mapping[str, Intervals]
    signal: Array
    look_up: Array
    groups: npt.NDArray[np.int64]
    n_trs: int

    @property
    def store(self) -> StoryStore:
        """What `word_rows` asks of a store."""
        clock = TimeBase.regular(self.n_trs, 2.0)
        answers = SimpleNamespace(
            words=lambda story: self.words[story],
            timebase=lambda story: clock,
            feature_spaces=lambda story: [],
            slice_reference=1.0,
        )
        return cast(StoryStore, answers)

    def sets(self, least_new: float = word_rows.LEAST_NEW) -> WordRows:
        """The probe's sets of rows, with a threshold of one's own."""
        kept, word_rows.LEAST_NEW = word_rows.LEAST_NEW, least_new
        try:
            spans = [Span(story, 0, self.n_trs) for story in self.words]
            heard = {"tune": HeardWords.of(word for word in ALL if word not in NEW)}
            return word_rows.word_rows(self.store, spans, heard, HaemodynamicResponse(), SKIP_TRS)
        finally:
            word_rows.LEAST_NEW = kept


def tell(seed: int, n_stories: int, n_trs: int, new_scenes: float) -> Told:
    """Stories of one data set; rows after the first SKIP_TRS of each."""
    rng = np.random.default_rng(seed)
    instead = {word: str(rng.choice(ALL)) if word in NEW else word for word in ALL}
    words, signals, look_ups = {}, [], []
    for k in range(n_stories):
        labels, times_s = _story(rng, 2.0 * n_trs, new_scenes)
        words[f"story{k}"] = Intervals(tuple(labels), times_s - 0.2, np.full(len(labels), 0.4))
        lags = 2.0 * np.arange(1, n_trs + 1)[:, None] - times_s[None, :]
        h = np.where((lags >= 0) & (lags < 31.9), RESPONSE[np.clip(lags / 0.05, 0, len(RESPONSE) - 1).astype(int)], 0.0)
        for names, rows in ((labels, signals), ([instead[word] for word in labels], look_ups)):
            rows.append((h @ np.stack([VECTORS[word] for word in names]) @ TUNING)[SKIP_TRS:])
    groups = np.repeat(np.arange(n_stories), n_trs - SKIP_TRS)
    return Told(words, np.concatenate(signals), np.concatenate(look_ups), groups, n_trs)


def _story(rng: np.random.Generator, n_seconds: float, new_scenes: float) -> tuple[list[str], Array]:
    labels: list[str] = []
    times: list[float] = []
    now_s, topic = 0.5, -1
    while now_s < n_seconds:
        topic = int(rng.choice([k for k in range(N_CATEGORIES) if k != topic]))
        end_s, is_new = now_s + rng.uniform(*SCENE_S), rng.random() < new_scenes
        known = sorted(NEW) if is_new else ALL
        own = [word for word in WORDS[topic] if word in NEW or not is_new]
        while now_s < end_s:
            labels.append(str(rng.choice(known if rng.random() < STRAY else own)))
            times.append(now_s)
            now_s += rng.exponential(SECONDS_PER_WORD)
    return labels, np.array(times)


def noise(rng: np.random.Generator, groups: npt.NDArray[np.int64], coefficient: float = 0.5) -> Array:
    """AR(1) of unit variance in every story, (n_rows, N_VOXELS)."""
    values = rng.standard_normal((len(groups), N_VOXELS))
    for k in range(1, len(groups)):
        if groups[k] == groups[k - 1]:
            values[k] = coefficient * values[k - 1] + np.sqrt(1 - coefficient**2) * values[k]
    return values


def centred(values: Array, groups: npt.NDArray[np.int64]) -> Array:
    """Without each story's mean."""
    return np.concatenate([values[groups == k] - values[groups == k].mean(axis=0) for k in np.unique(groups)])


def mean_r(observed: Array, predicted: Array, groups: npt.NDArray[np.int64]) -> float:
    """Mean over voxels of r, each story centred."""
    o, p = centred(observed, groups), centred(predicted, groups)
    return float(((o * p).sum(axis=0) / np.sqrt((o * o).sum(axis=0) * (p * p).sum(axis=0))).mean())


# --- What a look-up wins ---


def look_up_table(n: int, seed: int = REPORTED_FROM) -> Iterator[str]:
    """By the share of new scenes and the least share of the weight: rows, and noise-free r of the look-up."""
    heads = (
        "scenes of new words",
        "rows",
        "least share of their weight",
        "r of the look-up",
        "all rows",
        "known words",
    )
    yield f"| {' | '.join(heads)} |"
    yield "|---|---|---|---|---|---|"
    for new_scenes in (0.35, 0.2, 0.1):
        told = [tell(seed + k, 4, 105, new_scenes) for k in range(n)]
        for least in (0.5, 0.65, 0.8, 0.9):
            numbers = np.array([_look_up(one, least) for one in told])
            rows, *r = np.nanmean(numbers, axis=0)
            error = np.nanstd(numbers[:, 1]) / np.sqrt(n)
            yield f"| {new_scenes:.0%} | {rows:.0f} | {least} | {r[0]:.3f} +- {error:.3f} | {r[1]:.3f} | {r[2]:.3f} |"


def _look_up(told: Told, least: float) -> tuple[float, ...]:
    sets = told.sets(least).rows
    masks = (sets[UNSEEN_WORDS], np.ones(len(told.groups), dtype=bool), sets[SEEN_WORDS])
    r = [mean_r(told.signal[m], told.look_up[m], told.groups[m]) if m.sum() > 10 else np.nan for m in masks]
    return float(masks[0].sum()), *r


# --- Do intervals cover? ---


def answers(seed: int, told: Told) -> tuple[Array, Array, Array]:
    """Noisy responses, and two predictions: one of meaning with errors, and a worse one that shares its errors."""
    rng = np.random.default_rng([seed, 1])
    own = 1.5 * noise(rng, told.groups)
    better = told.signal + own
    worse = 0.5 * told.signal + own + 0.7 * noise(rng, told.groups)
    return told.signal + 1.5 * noise(rng, told.groups), better, worse


def coverage_table(n: int, seed: int = REPORTED_FROM, cells: Sequence[tuple[int, int, float]] = CELLS) -> Iterator[str]:
    """By cell: how often intervals hold the truth, and how many of the data sets have enough rows."""
    heads = ("stories, TRs, scenes of new words", "data sets, rows", "interval", "r covered, width", "difference")
    yield f"| {' | '.join(heads)} |"
    yield "|---|---|---|---|---|"
    for cell in cells:
        found, truth, n_rows = coverage(n, seed, cell)
        for way, intervals in found.items():
            low, high = intervals[:, 0], intervals[:, 1]
            inside = ((low < truth) & (truth < high)).mean(axis=0)
            r, difference = (
                f"{100 * c:.1f} %, {w:.3f}" for c, w in zip(inside, (high - low).mean(axis=0), strict=True)
            )
            where = f"{cell[0]}, {cell[1]}, {cell[2]:.0%} | {len(intervals)} of {n}, {n_rows:.0f}"
            yield f"| {where} | {way} | {r} | {difference} |"


def coverage(n: int, seed: int, cell: tuple[int, int, float]) -> tuple[dict[str, Array], Array, float]:
    """Intervals of r and of the difference by way, (n_sets, 2, 2); their truth, from all data sets together; rows."""
    region = {"": np.ones(N_VOXELS, dtype=bool)}
    ways: dict[str, list[Any]] = {"blocks drawn as for all rows": [], "blocks left out": []}
    sums, n_rows = np.zeros((5, N_VOXELS)), []
    for k in range(n):
        told = tell(seed + k, *cell)
        rows, arrays, groups = told.sets().rows[UNSEEN_WORDS], answers(seed + k, told), told.groups
        if not rows.any():
            continue
        o, a, b = (centred(values[rows], groups[rows]) for values in arrays)
        sums += np.stack([(x * y).sum(axis=0) for x, y in ((o, o), (a, a), (b, b), (o, a), (o, b))])
        pair = [row_set_scores(arrays[0], p, groups, rows, region, seed=k).get("") for p in arrays[1:]]
        if pair[0] is None or pair[1] is None or pair[0].interval is None:
            continue
        n_rows.append(int(rows.sum()))
        drawn = [_drawn(arrays[0], p, groups, rows, k) for p in arrays[1:]]
        for way, (one, other) in zip(ways.values(), (drawn, cast(list[Score], pair)), strict=True):
            way.append(np.array([[s.low, s.high] for s in (one, one - other)]).T)
    better, worse = ((sums[k] / np.sqrt(sums[0] * sums[k - 2])).mean() for k in (3, 4))
    truth = np.array([better, better - worse])
    return {way: np.array(intervals) for way, intervals in ways.items()}, truth, float(np.mean(n_rows))


def _drawn(observed: Array, predicted: Array, groups: npt.NDArray[np.int64], rows: Mask, seed: int) -> Score:
    """Blocks that hold such rows, drawn within stories and widened for their number: the way of all rows."""
    block_of_row, weights = block_weights(groups, 20, 1000, seed)
    present, inside = np.unique(block_of_row[rows], return_inverse=True)
    blocks = (inside.astype(np.int64), weights[:, present])
    region = {"": np.ones(N_VOXELS, dtype=bool)}
    draws = region_replicates(observed[rows], predicted[rows], groups[rows], region, blocks)[""][0]
    n_stories = len(np.unique(groups[rows]))
    stretch = small_sample_factor(len(present), n_strata=n_stories) if len(present) > n_stories else None
    return Score(mean_r(observed[rows], predicted[rows], groups[rows]), draws).stretched(stretch)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=400, help="data sets per cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=REPORTED_FROM)
    given = parser.parse_args()
    for table in (look_up_table, coverage_table):
        for line in table(given.n, given.seed):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
