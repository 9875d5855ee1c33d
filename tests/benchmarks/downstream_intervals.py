"""Do intervals of downstream scores cover? python -m tests.benchmarks.downstream_intervals [--n 400] [--plain]

Simulated answers of 5 to 60 speakers, about 20 clips each: as many of each, unequal (sizes log-normal, standard
deviation .8; worth at least three even speakers, for else clips are drawn), or half of all of one speaker. Speakers
differ (standard deviation .8 in log odds of a right answer, .4 more for each of two models), around an accuracy of .72,
or .92. How often does the 95 % interval of a score hold the score over all speakers there could be, and that of the
difference of two equally good models hold 0? --plain takes percentiles as they are. Words: lexicons in which pairs of
words, or words, too, are alike by themselves.
"""

from __future__ import annotations

import argparse
from functools import cache

import numpy as np
import pytest

from brainlit.downstream import scores
from brainlit.downstream.pairs import WordPairs
from brainlit.downstream.preference import CONTRASTS, _contrasts, _ratio, _scores
from brainlit.downstream.scores import BootstrapConfig, Measure, clip_sums, estimate, even_clusters, score_of

N_LABELS, N_CLIPS, WORDS_PER_CLIP, SPREAD, OWN = 5, 20, 10, 0.8, 0.4
SPEAKERS = (5, 8, 20, 60)


def sizes(kind: str, n_speakers: int, rng: np.random.Generator) -> np.ndarray:
    """Clips of each speaker."""
    if kind == "equal":
        return np.full(n_speakers, N_CLIPS)
    if kind == "half":
        return np.r_[N_CLIPS * (n_speakers - 1), np.full(n_speakers - 1, N_CLIPS)]
    while True:
        found = np.maximum(3, np.round(N_CLIPS * np.exp(rng.normal(0, 0.8, n_speakers)))).astype(np.int64)
        if even_clusters(np.repeat(np.arange(n_speakers), found)) >= 3:
            return found


def answers(
    metric: str, speakers: np.ndarray, rng: np.random.Generator, log_odds: float = 1.1
) -> tuple[np.ndarray, np.ndarray]:
    """What each clip adds to the score of two models, (1, n_clips, n) each; speakers: number of each clip's speaker."""
    n_clips, n_speakers = len(speakers), int(speakers.max()) + 1
    truth = rng.integers(0, N_LABELS, n_clips)
    shared = SPREAD * rng.standard_normal(n_speakers)
    found = []
    for _ in range(2):
        odds = log_odds + (shared + OWN * rng.standard_normal(n_speakers))[speakers]
        if metric == "error_rate":
            wrong = rng.binomial(WORDS_PER_CLIP, 1 / (1 + np.exp(odds)))
            found.append(np.stack([wrong, np.full(n_clips, WORDS_PER_CLIP)], axis=1)[None].astype(float))
            continue
        odds = odds + (np.linspace(-0.7, 0.7, N_LABELS)[truth] if metric == "macro_f1" else 0.0)
        right = rng.random(n_clips) < 1 / (1 + np.exp(-odds))
        said = np.where(right, truth, (truth + rng.integers(1, N_LABELS, n_clips)) % N_LABELS)
        found.append(clip_sums(metric, "single", truth, said, N_LABELS)[None])  # type: ignore[arg-type]
    return found[0], found[1]


@cache
def truth_of(metric: Measure, log_odds: float) -> float:
    """The score over 10,000 speakers."""
    speakers = np.repeat(np.arange(10_000), N_CLIPS)
    one, other = answers(metric, speakers, np.random.default_rng(0), log_odds)
    return float(score_of(metric, (one + other).sum(axis=1))[0])


def missed(
    metric: Measure, kind: str, n_speakers: int, n: int, seed: int, log_odds: float = 1.1, n_boot: int = 500
) -> tuple[np.ndarray, np.ndarray]:
    """Whether the interval of a score misses it, (n,), and whether that of a difference misses 0."""
    found = np.zeros((2, n), dtype=bool)
    truth = truth_of(metric, log_odds)
    for k in range(n):
        rng = np.random.default_rng([seed, n_speakers, k])
        speakers = np.repeat(np.arange(n_speakers), sizes(kind, n_speakers, rng))
        one, other = answers(metric, speakers, rng, log_odds)
        names, bootstrap = [f"s{number:02d}" for number in speakers], BootstrapConfig(n_boot, seed=seed + k)
        score, change = estimate(metric, one, names, bootstrap), estimate(metric, other, names, bootstrap, minus=one)
        found[:, k] = not score.low <= truth <= score.high, not change.low <= 0 <= change.high
    return found[0], found[1]


def lexicon(n_words: int, n_pairs: tuple[int, int, int], rng: np.random.Generator) -> WordPairs:
    """Pairs of words by lot, n_pairs of each kind."""
    index = np.stack(np.triu_indices(n_words, 1), axis=1)
    chosen = index[rng.permutation(len(index))[: sum(n_pairs)]]
    kind = np.repeat(np.arange(3), n_pairs)
    words = tuple(f"w{k:03d}" for k in range(n_words))
    return WordPairs(words, chosen[:, 0], chosen[:, 1], kind, np.zeros(len(kind)), "planted", {})


def words_missed(n_words: int, n_pairs: tuple[int, int, int], word_sd: float, n: int, seed: int) -> dict[str, float]:
    """Rate at which intervals of the contrasts and the ratio miss the truth; every layer is a lexicon's cosines."""
    rng = np.random.default_rng([seed, n_words])
    wrong: dict[str, list[float]] = {name: [] for name in (*CONTRASTS, "ratio")}
    bootstrap = BootstrapConfig(n_boot=500, seed=seed)
    for _ in range(10):
        pairs = lexicon(n_words, n_pairs, rng)
        word = word_sd * rng.standard_normal((n_words, n // 10))
        table = np.asarray([0.2, 0.4, 0.0])[pairs.kind][:, None] + word[pairs.first] + word[pairs.second]
        table = table + 0.2 * rng.standard_normal(table.shape)
        estimates, replicates = _contrasts(table, pairs, bootstrap)
        for k, one in enumerate(_scores(estimates, replicates, bootstrap)):
            for name, right in zip(CONTRASTS, (0.2, 0.4, -0.2), strict=True):
                wrong[name].append(not one[name].low <= right <= one[name].high)
            ratio = _ratio(estimates[:, k], replicates[:, :, k], bootstrap)
            if one["phonetic"].low > 0 and ratio is not None:
                wrong["ratio"].append(not ratio.low <= 0.5 <= ratio.high)
    return {name: float(np.mean(values)) for name, values in wrong.items()}


def main() -> None:
    """Print coverage, a row for each metric and way in which clips are spread over speakers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=400, help="data sets of each number")
    parser.add_argument("--seed", type=int, default=40_000)
    parser.add_argument("--plain", action="store_true", help="percentiles, not widened")
    given = parser.parse_args()
    with pytest.MonkeyPatch.context() as patch:
        if given.plain:
            patch.setattr(scores, "_ends", lambda value, moved, *_: tuple(scores.percentiles(moved, 0.95)))
        table(given.n, given.seed)
    if not given.plain:
        words_table(given.n, given.seed)


def table(n: int, seed: int) -> None:
    """Scores and differences over speakers."""
    print(f"| 95 % intervals of {n} data sets cover | " + " | ".join(f"{k} speakers" for k in SPEAKERS) + " |")
    print("|---|" + "---|" * len(SPEAKERS))
    metrics: tuple[Measure, ...] = ("accuracy", "macro_f1", "error_rate")
    cells = [(metric, str(metric), kind, 1.1) for metric in metrics for kind in ("equal", "unequal")]
    cells += [("accuracy", "accuracy", "half", 1.1)]
    cells += [("accuracy", "accuracy near 1", kind, 2.8) for kind in ("equal", "unequal")]
    cells += [("error_rate", "error_rate near 0", kind, 2.8) for kind in ("equal", "unequal")]
    for metric, name, kind, log_odds in cells:
        both = [[100 * (1 - m.mean()) for m in missed(metric, kind, k, n, seed, log_odds)] for k in SPEAKERS]
        for what, which in (("score", 0), ("difference", 1)):
            rates = " | ".join(f"{one[which]:.1f} %" for one in both)
            print(f"| {name}, {what}, {kind} | {rates} |", flush=True)


def words_table(n: int, seed: int) -> None:
    """Contrasts and their ratio over words."""
    print(f"\n| over words, {n} lexicons | " + " | ".join((*CONTRASTS, "ratio")) + " |")
    print("|---|" + "---|" * (len(CONTRASTS) + 1))
    for n_words, n_pairs in ((16, (12, 8, 60)), (32, (24, 12, 200)), (96, (60, 32, 500))):
        for word_sd in (0.0, 0.1):
            rates = words_missed(n_words, n_pairs, word_sd, n, seed)
            cells = " | ".join(f"{100 * (1 - rate):.1f} %" for rate in rates.values())
            differ = "pairs differ" if word_sd == 0 else "words differ, too"
            print(f"| {n_words} words, {n_pairs[1]} near-homophones, {differ} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
