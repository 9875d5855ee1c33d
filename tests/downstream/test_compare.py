"""Two models on the same clips: what they share cancels."""

from dataclasses import replace

import numpy as np
import pytest

from brainlit.downstream.compare import compare, mcnemar_p
from brainlit.downstream.evaluate import task_result
from brainlit.downstream.result import ProbeOutcome
from brainlit.downstream.scores import estimate
from tests.downstream.planted import planted_task


def answered(task, right, n_seeds=1):
    """A result whose clips are right where it is said: `right` is (n_seeds, n_clips)."""
    truth = task.targets["test"]
    said = np.where(np.atleast_2d(right), truth, (truth + 1) % len(task.labels))
    outcome = ProbeOutcome(0, np.zeros(1), np.zeros(1), {"test": said[None]})
    return task_result(task, "model", (0,), {"linear": outcome})


@pytest.fixture
def task():
    return planted_task(sizes={"train": 20, "choose": 20, "test": 200})


def test_pairing_makes_the_interval_narrower(task):
    rng = np.random.default_rng(0)
    easy = rng.random(200) < 0.6
    a = answered(task, easy)
    b = answered(task, easy | (rng.random(200) < 0.15))
    found = compare(a, b)
    alone = [estimate("accuracy", result.sums("test"), [""] * 200) for result in (a, b)]
    assert found.difference == pytest.approx(alone[1].value - alone[0].value)
    assert 0 < found.low < found.difference < found.high
    assert found.high - found.low < 0.7 * (alone[0].high - alone[0].low)
    assert found.only_a == 0
    assert found.only_b == pytest.approx(200 * found.difference)
    assert found.mcnemar_p == mcnemar_p(0, int(found.only_b)) < 0.01


def test_the_same_model_twice_shows_no_difference(task):
    a = answered(task, np.arange(200) % 3 == 0)
    found = compare(a, a)
    assert (found.difference, found.low, found.high, found.mcnemar_p) == (0, 0, 0, 1)


def test_turned_round_it_changes_its_sign(task):
    rng = np.random.default_rng(1)
    a, b = answered(task, rng.random(200) < 0.5), answered(task, rng.random(200) < 0.6)
    there, back = compare(a, b), compare(b, a)
    assert (there.difference, there.low) == pytest.approx((-back.difference, -back.high))
    assert (there.only_a, there.mcnemar_p) == (back.only_b, back.mcnemar_p)


def test_mcnemar_is_a_coin_toss_over_the_clips_that_only_one_gets_right():
    from math import comb

    exact = 2 * sum(comb(9, k) for k in range(3)) / 2**9
    assert mcnemar_p(2, 7) == pytest.approx(exact)
    assert mcnemar_p(0, 0) == 1


def test_several_seeds_are_compared_by_their_means(task):
    rng = np.random.default_rng(2)
    right_a, right_b = rng.random((3, 200)) < 0.5, rng.random((2, 200)) < 0.6
    found = compare(answered(task, right_a), answered(task, right_b))
    assert found.difference == pytest.approx(right_b.mean() - right_a.mean())
    assert found.only_b == pytest.approx(np.mean([(b & ~a).sum() for a in right_a for b in right_b]))
    assert np.isnan(found.mcnemar_p)


def test_what_cannot_be_paired_is_refused(task):
    a = answered(task, np.ones(200, dtype=bool))
    with pytest.raises(ValueError, match="not made from the same clips of 'test'"):
        compare(a, replace(a, clips={"test": tuple(reversed(a.clips["test"]))}))
    with pytest.raises(ValueError, match="different task"):
        compare(a, replace(a, task="other"))
    with pytest.raises(ValueError, match="no test part"):
        compare(a, a, "test_new")
