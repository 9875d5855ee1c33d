from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from brainlit.comparison.effects import Key, SeedEvidence, mean_over_seeds, over_seeds, over_subjects, share_data
from brainlit.encoding.difference_tests import equivalence_paired
from brainlit.encoding.statistics import Score
from tests.benchmarks.shared_seeds import Cell, measure

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


# --- Seeds that share listeners and stories ---


def test_what_seeds_share_does_not_shrink_with_their_number() -> None:
    scores = [Score(value, bounds=(value - 0.1, value + 0.1)) for value in (0.3, 0.31, 0.29, 0.3, 0.3)]
    mean = over_seeds(scores, shared=True)
    over = 2.776445 * np.std([0.3, 0.31, 0.29, 0.3, 0.3], ddof=1) / np.sqrt(5)
    assert mean.interval == pytest.approx((0.3 - np.hypot(0.1, over), 0.3 + np.hypot(0.1, over)), rel=1e-6)
    assert mean.n_units == {"seeds": 5}


def test_subjects_count_from_two_up_and_each_once() -> None:
    scores = [Score(value, bounds=(value - 0.1, value + 0.1)) for value in (0.3, 0.3)]
    people = [{"a": 0.2, "b": 0.3, "c": 0.4}, {"a": 0.2, "b": 0.3, "c": 0.4}]
    mean = over_seeds(scores, people, shared=True)
    half = np.hypot(0.1, 4.302653 * 0.1 / np.sqrt(3))
    assert mean.high == pytest.approx(0.3 + half)
    assert mean.n_units == {"seeds": 2, "subjects": 3}
    alone = over_seeds(scores, [{"a": 0.2}, {"a": 0.4}], shared=True)
    assert alone.high == pytest.approx(0.4)
    nameless = over_seeds(scores, [{"": 0.2}, {"": 0.4}], shared=True)
    assert (nameless.high, nameless.n_units) == (pytest.approx(0.4), {"seeds": 2})
    assert over_seeds(scores, people, shared=False).high == pytest.approx(0.3 + 0.1 / np.sqrt(2))


def test_without_every_seeds_own_interval_there_is_none_where_they_share() -> None:
    scores = [Score(0.3, bounds=(0.2, 0.4)), Score(0.31)]
    assert over_seeds(scores, shared=True).interval is None
    assert over_seeds(scores, shared=False).interval is not None
    assert over_seeds(scores[:1], shared=True).interval is None


def test_seeds_share_what_is_not_known_to_be_their_own() -> None:
    def seeds(*data: dict[str, str]) -> list[SeedEvidence]:
        return [SeedEvidence("m", k, {}, data=own) for k, own in enumerate(data)]

    task = Key("demo/phones", "test")
    own = seeds({"probe": "x", "demo/phones test": "c"}, {"probe": "y", "demo/phones test": "c"})
    assert not share_data(own, KEY)
    assert share_data(own, task), "the same clips, though listeners are others"
    assert share_data(own, WORDS), "nothing is known about words"
    assert share_data(seeds({"probe": "x"}, {"probe": "x"}), KEY)
    assert share_data(seeds({"probe": "x"}, {"probe": "y"}, {"probe": "x"}), KEY)
    assert share_data(seeds({"probe": "x"}, {}), KEY)
    assert not share_data(seeds({}), KEY), "one seed shares with nobody"


def test_a_mean_over_seeds_knows_its_people_and_its_data() -> None:
    def seed(k: int, data: str) -> SeedEvidence:
        noise = 0.01 * np.random.default_rng(k).standard_normal(1000)
        after = {name: Score(0.4 + more, 0.4 + more + noise) for name, more in (("a", 0.0), ("b", 0.1))}
        before = {name: Score(0.3, np.full(1000, 0.3)) for name in after}
        states = {"brain": ({KEY: after}, {KEY: after}), "pretrained": ({KEY: before},)}
        return SeedEvidence("m", k, states, data={"probe": data})

    shared = mean_over_seeds([seed(1, "x"), seed(2, "x")], KEY, "brain", "pretrained")
    own = mean_over_seeds([seed(1, "x"), seed(2, "y")], KEY, "brain", "pretrained")
    assert shared is not None
    assert own is not None
    assert shared.value == own.value == pytest.approx(0.15)
    assert seed(1, "x").people("brain", "pretrained", KEY) == pytest.approx({"a": 0.1, "b": 0.2})
    assert shared.high - shared.value == pytest.approx(np.hypot(12.7062 * 0.05, 0.0196), rel=0.02)
    assert own.high - own.value == pytest.approx(0.0196 / np.sqrt(2), rel=0.1)
    assert mean_over_seeds([seed(1, "x")], KEY, "stimulus") is None


def test_a_mean_over_subjects_joins_time_and_people() -> None:
    found = [Score(value, bounds=(value - 0.1, value + 0.2)) for value in (0.2, 0.3, 0.4)]
    mean, people = over_subjects(found), 4.302653 * 0.1 / np.sqrt(3)
    assert (mean.low, mean.high) == pytest.approx((0.3 - np.hypot(0.1, people), 0.3 + np.hypot(0.2, people)))
    assert over_subjects(found[:1]).interval == pytest.approx((0.1, 0.4))
    assert over_subjects([found[0], Score(0.1)]).interval is None


@pytest.mark.parametrize("n_subjects", [1, 2, 8])
@pytest.mark.parametrize("sizes", [(0.5, 1.0, 0.5), (0.2, 1.0, 3.0), (2.0, 0.3, 1.0)])
def test_a_true_null_is_seldom_beyond_0(n_subjects: int, sizes: tuple[float, float, float]) -> None:
    """Normal errors of a mean over seeds, time and people of so many standard errors; both sides count, so 5 %."""
    rng, n = np.random.default_rng(3), 1500
    over_seed, over_time, over_people = sizes
    luck = over_seed * np.sqrt(5) * rng.standard_normal((n, 5))
    taste = over_people * np.sqrt(n_subjects) * rng.standard_normal((n, n_subjects)) * (n_subjects > 1)
    time, beyond, naive = over_time * rng.standard_normal(n), 0, 0
    for k in range(n):
        values = luck[k] + time[k] + taste[k].mean()
        scores = [Score(v, bounds=(v - 1.96 * over_time, v + 1.96 * over_time)) for v in values]
        people = [{f"{s}": float(luck[k, e] + time[k] + taste[k, s]) for s in range(n_subjects)} for e in range(5)]
        low, high = over_seeds(scores, people, shared=True).interval or (0, 0)
        beyond += low > 0 or high < 0
        low, high = over_seeds(scores, people, shared=False).interval or (0, 0)
        naive += low > 0 or high < 0
    assert beyond / n <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n)
    assert naive > beyond


def test_real_looking_seeds_keep_the_level_and_did_not_before() -> None:
    """A small form of the benchmark; its table has 200 data sets per row."""
    before, now = np.array(list(measure(Cell(True, 1, 0.9, taste=0.0), 60, first_seed=1_000))).mean(axis=0) / 2
    assert now <= 0.06
    assert before > 0.06
