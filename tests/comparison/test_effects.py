from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from brainlit.comparison.effects import Key, SeedEvidence, over_seeds
from brainlit.encoding.difference_tests import equivalence_paired
from brainlit.encoding.statistics import Score

KEY, WORDS = Key("r_backbone", "region"), Key("difference", "words")


def test_the_interval_over_seeds_is_that_of_a_t_test() -> None:
    values = [0.14, 0.19, 0.17, 0.11, 0.2]
    mean = over_seeds([Score(value) for value in values], shared=False)
    expected = t.interval(0.95, 4, np.mean(values), np.std(values, ddof=1) / np.sqrt(5))
    assert mean.interval == pytest.approx(expected)
    one_sided = equivalence_paired(values, (-1, 1), alpha=0.025)
    assert [mean.value, mean.low, mean.high] == pytest.approx(
        [float(end) for end in (one_sided.estimate, one_sided.low, one_sided.high)]
    )


def test_one_seed_has_no_interval() -> None:
    mean = over_seeds([Score(0.3, bounds=(0.2, 0.4))], shared=False)
    assert (mean.value, mean.interval) == (0.3, None)


def test_seeds_that_agree_by_chance_do_not_make_the_interval_narrower_than_their_own() -> None:
    close = [Score(0.304, bounds=(0.20, 0.40)), Score(0.306, bounds=(0.25, 0.37))]
    mean = over_seeds(close, shared=False)
    assert (mean.value, mean.low, mean.high) == pytest.approx(
        (0.305, *(0.305 + np.array([-1, 1]) * np.hypot(0.1, 0.06) / 2))
    )
    without = over_seeds([close[0], Score(0.306)], shared=False)
    assert without.high - without.low == pytest.approx(2 * 12.7062 * 0.001, rel=1e-4)


def test_a_difference_is_paired_replicate_by_replicate() -> None:
    noise = np.random.default_rng(0).standard_normal(200)
    states = {
        "brain": ({KEY: {"a": Score(0.5, 0.5 + noise)}},),
        "pretrained": ({KEY: {"a": Score(0.3, 0.3 + noise)}},),
    }
    seed = SeedEvidence("m", 1, states)
    own, change = seed.value("brain", KEY), seed.difference("brain", "pretrained", KEY)
    assert own is not None
    assert change is not None
    assert own.high - own.low > 3
    assert (change.value, change.low, change.high) == pytest.approx((0.2, 0.2, 0.2))


def test_subjects_that_lack_one_of_the_two_do_not_count() -> None:
    after, before = {"a": Score(0.5), "b": Score(0.9), "c": Score(0.4)}, {"a": Score(0.3), "c": Score(0.3)}
    seed = SeedEvidence("m", 1, {"brain": ({KEY: after},), "pretrained": ({KEY: before},)})
    change = seed.difference("brain", "pretrained", KEY)
    assert change is not None
    assert change.value == pytest.approx(0.15)
    assert change.interval is None


def test_permutations_are_averaged_and_kept() -> None:
    permuted = tuple({KEY: {"a": Score(value)}} for value in (0.30, 0.34))
    seed = SeedEvidence("m", 1, {"brain": ({KEY: {"a": Score(0.5)}},), "permuted": permuted})
    change = seed.difference("brain", "permuted", KEY)
    assert change is not None
    assert change.value == pytest.approx(0.18)
    assert [one.value for one in seed.differences("brain", "permuted", KEY)] == pytest.approx([0.2, 0.16])
    own = seed.value("permuted", KEY)
    assert own is not None
    assert (own.value, own.interval) == (pytest.approx(0.32), None)
    assert [one.value for one in seed.values("permuted", KEY)] == [0.30, 0.34]


def test_changes_of_words_have_their_own_interval() -> None:
    changes = tuple({WORDS: Score(value, bounds=(value - 0.1, value + 0.2))} for value in (0.3, 0.5))
    states = {"brain": ({WORDS: {"": Score(9.0)}},), "permuted": ({WORDS: {"": Score(1.0)}},)}
    seed = SeedEvidence("m", 1, states, {("brain", "permuted"): changes})
    change = seed.difference("brain", "permuted", WORDS)
    assert change is not None
    assert (change.value, change.interval) == (pytest.approx(0.4), pytest.approx((0.3, 0.6)))
    assert [one.value for one in seed.differences("brain", "permuted", WORDS)] == [0.3, 0.5]


def test_what_is_not_there_is_none_and_not_zero() -> None:
    undefined = {"brain": ({KEY: {"a": Score(float("nan"))}},), "pretrained": ({KEY: {"b": Score(0.1)}},)}
    seed = SeedEvidence("m", 1, undefined)
    assert seed.value("brain", KEY) is None
    assert seed.value("stimulus", KEY) is None
    assert seed.difference("brain", "pretrained", KEY) is None
    assert seed.difference("brain", "stimulus", KEY) is None
    assert seed.layers("r_backbone", "region") == []
