"""Scores against scikit-learn, and intervals against resampling by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from brainlit.downstream.scores import BootstrapConfig, _counts, clip_sums, clusters_of, estimate, replicates, score_of
from brainlit.encoding.statistics import Score


def answers(n_clips=60, n_labels=5, kind="single", seed=0):
    rng = np.random.default_rng(seed)
    if kind == "multi":
        return rng.integers(0, 2, (n_clips, n_labels)), rng.integers(0, 2, (n_clips, n_labels))
    truth = rng.integers(0, n_labels, n_clips)
    return truth, np.where(rng.random(n_clips) < 0.5, truth, rng.integers(0, n_labels, n_clips))


def score(metric, kind, truth, predicted, n_labels):
    return float(score_of(metric, clip_sums(metric, kind, truth, predicted, n_labels).sum(0)))


def test_scores_are_those_of_scikit_learn():
    truth, predicted = answers()
    assert score("accuracy", "single", truth, predicted, 5) == pytest.approx(accuracy_score(truth, predicted))
    assert score("macro_f1", "single", truth, predicted, 5) == pytest.approx(
        f1_score(truth, predicted, average="macro")
    )
    # a label that occurs nowhere does not count
    assert score("macro_f1", "single", truth, predicted, 9) == pytest.approx(
        f1_score(truth, predicted, average="macro")
    )
    truth, predicted = answers(kind="multi")
    assert score("macro_f1", "multi", truth, predicted, 5) == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert score("accuracy", "multi", truth, predicted, 5) == pytest.approx((truth == predicted).mean())


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize("speakers", [[""] * 60, [f"s{k % 7}" for k in range(60)]])
def test_replicates_are_scores_of_resampled_clips(metric, speakers):
    pairs = [answers(seed=seed) for seed in (0, 1)]
    truth = pairs[0][0]
    sums = np.stack([clip_sums(metric, "single", truth, predicted, 5) for _, predicted in pairs])
    clusters, _ = clusters_of(speakers)
    bootstrap = BootstrapConfig(n_boot=5, seed=3)
    (counts,) = _counts(int(clusters.max()) + 1, bootstrap)
    slow = []
    for row in counts.astype(int):
        drawn = np.concatenate([np.tile(np.flatnonzero(clusters == c), n) for c, n in enumerate(row)]).astype(int)
        slow.append(np.mean([score(metric, "single", truth[drawn], p[drawn], 5) for _, p in pairs]))
    np.testing.assert_allclose(replicates(metric, sums, clusters, bootstrap), slow)


def test_speakers_are_drawn_as_wholes_where_there_are_enough():
    assert clusters_of(["a", "b", "a"])[1] == "clips"
    assert clusters_of([f"s{k}" for k in range(5)] + [""])[1] == "clips"
    clusters, drawn = clusters_of(["e", "a", "b", "c", "d", "a"])
    assert drawn == "speakers"
    assert clusters.tolist() == [4, 0, 1, 2, 3, 0]


def test_an_interval_is_wider_where_clips_of_a_speaker_go_together():
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(10) < 0.5, 40).astype(float)  # each speaker is all right or all wrong
    sums = np.stack([right, np.ones(400)], axis=1)[None]
    speakers = np.repeat([f"s{k}" for k in range(10)], 40).tolist()
    together, apart = estimate("accuracy", sums, speakers), estimate("accuracy", sums, [""] * 400)
    assert together.n_units["speakers"] == 10
    assert apart.n_units == {"clips": together.n_units["clips"]} == {"clips": 400}
    assert together.high - together.low > 3 * (apart.high - apart.low)
    standard_error = np.sqrt(apart.value * (1 - apart.value) / 400)
    assert apart.high - apart.low == pytest.approx(2 * 1.96 * standard_error, rel=0.15)


def test_the_same_seed_draws_the_same():
    sums = np.stack([np.arange(30.0) % 2, np.ones(30)], axis=1)[None]
    first, again, other = (estimate("accuracy", sums, [""] * 30, BootstrapConfig(seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert isinstance(other, Score)
    assert first != other


def test_draws_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="level 95"):
        BootstrapConfig(level=95)
