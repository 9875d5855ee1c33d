"""Rows by the words that they rest on: from stories with known words and times to the records."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from math import exp, factorial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.cli.probe_sources import words_tuned_on
from brainlit.encoding.temporal import HaemodynamicResponse
from brainlit.probing.word_rows import METRICS, HeardWords, has_vector, heard_words, tuning_words, word_rows
from brainlit.results.record import ProbeRecord, find_records, load_record, record_path, table_rows, write_table
from brainlit.results.scores import FITTED_WORDS, SEEN_WORDS, UNFITTED_WORDS, UNSEEN_WORDS
from brainlit.splits import Span
from brainlit.store import StoryStore, build_store
from brainlit.stories import FeatureSpace, Intervals, Story, TimedValues
from tests.benchmarks.unseen_words import mean_r, tell
from tests.callbacks.toy_module import ToyModule, toy_data, toy_probe, toy_trainer
from tests.toy import ToySource

KNOWN = ("river", "stone", "winter", "doctor")
NEW = ("falcon", "harbour", "lantern", "pepper", "violin")
FITTED = (*KNOWN, "falcon", "harbour", "lantern")
AROUND = ("the", "she's", "[noise]", "--", "an")
N_TRS = 40
CANONICAL = HaemodynamicResponse()


class Words(ToySource):
    """The toy stories with other words: 15 to 45 s of toy5 (scored) are of words that no tuning story has."""

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "words": "known, new, known"}

    def story(self, name: str) -> Story:
        rng = np.random.default_rng([*name.encode()])
        start_s = np.sort(rng.uniform(0.0, 2.0 * N_TRS, 100))
        pools = {"toy0": KNOWN, "toy1": KNOWN, "toy2": FITTED, "toy3": FITTED, "toy4": KNOWN}
        labels = []
        for start in start_s:
            pool = pools.get(name, NEW if 15 < start < 45 else KNOWN)
            word = str(rng.choice(AROUND if rng.random() < 0.5 else pool))
            labels.append(word.upper() if name == "toy0" else f"{word}," if rng.random() < 0.1 else word)
        if name == "toy5":
            labels[-15:] = ["Rivers"] * 15
        return replace(super().story(name), words=Intervals(tuple(labels), start_s, rng.uniform(0.1, 0.6, 100)))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words") / "store"
    build_store(Words(), folder, progress=False)
    return folder


@pytest.fixture
def store(path: Path) -> StoryStore:
    return StoryStore.open(path)


def spm(lag_s: float) -> float:
    """The canonical response, by its formula."""
    if not 0 <= lag_s < 32:
        return 0.0
    return (lag_s**5 * exp(-lag_s) / factorial(5) - lag_s**15 * exp(-lag_s) / factorial(15) / 6) * 6 / 5


def slow_rows(store: StoryStore, known: Sequence[str], new: Sequence[str], kind: str, least: float) -> list[bool]:
    """Row by row and word by word; a word has content if it is one of the lists'."""
    words, found = store.words("toy5"), []
    for tr in range(5, N_TRS):
        read_s = 2.0 * tr + 2.0 * store.slice_reference
        weight = {"known": 0.0, "new": 0.0, "neither": 0.0}
        for label, start_s, duration_s in zip(words.labels, words.start_s, words.duration_s, strict=True):
            plain = label.lower().rstrip(",")
            sort = "known" if plain in known else "new" if plain in new else "neither" if plain == "rivers" else None
            if sort is not None:
                weight[sort] += abs(spm(read_s - start_s - duration_s / 2))
        total = sum(weight.values())
        found.append(total >= 0.1 * spm(5.0) and weight[kind] >= least * total)
    return found


SCORED = [Span("toy5", 0, N_TRS)]


def test_rows_rest_on_new_or_known_words_as_counted_one_by_one(store: StoryStore) -> None:
    heard = {role: heard_words(store, [Span(s, 0, N_TRS) for s in stories])
             for role, stories in (("tune", ("toy0", "toy1")), ("fit", ("toy2", "toy3")))}  # fmt: skip
    found = word_rows(store, SCORED, heard, CANONICAL, skip_trs=5)
    new_to_fit = ("pepper", "violin")
    assert found.rows[UNSEEN_WORDS].tolist() == slow_rows(store, KNOWN, NEW, "new", 0.8)
    assert found.rows[SEEN_WORDS].tolist() == slow_rows(store, KNOWN, NEW, "known", 0.9)
    assert found.rows[UNFITTED_WORDS].tolist() == slow_rows(store, FITTED, new_to_fit, "new", 0.8)
    assert found.rows[FITTED_WORDS].tolist() == slow_rows(store, FITTED, new_to_fit, "known", 0.9)
    assert 5 < found.rows[UNSEEN_WORDS].sum() < 20
    assert 5 < found.rows[SEEN_WORDS].sum() < 20
    last = slice(-3, None)
    assert not found.rows[UNSEEN_WORDS][last].any(), "rivers are not new after river"
    assert not found.rows[SEEN_WORDS][last].any(), "and were not heard"
    assert found.n_content_words == len(KNOWN) + len(NEW) + 1
    assert found.n_words == {UNSEEN_WORDS: 5, SEEN_WORDS: 4, UNFITTED_WORDS: 2, FITTED_WORDS: 7}


def test_spans_of_a_story_come_one_after_the_other_without_their_first_rows(store: StoryStore) -> None:
    heard = {"tune": HeardWords.of(KNOWN)}
    whole = word_rows(store, SCORED, heard, CANONICAL, skip_trs=0).rows[UNSEEN_WORDS]
    parts = word_rows(store, [Span("toy5", 4, 18), Span("toy5", 20, 22)], heard, CANONICAL, skip_trs=5)
    np.testing.assert_array_equal(parts.rows[UNSEEN_WORDS], whole[9:18])
    assert not word_rows(store, SCORED, {"tune": None}, CANONICAL, skip_trs=5).rows


def test_without_words_in_reach_a_row_belongs_nowhere(store: StoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Intervals(("falcon",), np.array([9.75]), np.array([0.5]))
    monkeypatch.setattr(StoryStore, "words", lambda self, story: one)
    rows = word_rows(store, SCORED, {"tune": HeardWords.of(KNOWN)}, CANONICAL, skip_trs=0).rows
    lags_s = 2.0 * np.arange(N_TRS) + 2.0 * store.slice_reference - 10.0
    assert rows[UNSEEN_WORDS].tolist() == [abs(spm(lag)) >= 0.1 * spm(5.0) for lag in lags_s]
    assert 4 <= rows[UNSEEN_WORDS].sum() <= 8
    assert not rows[SEEN_WORDS].any()


def test_words_of_a_span_are_those_that_sound_in_it_or_in_what_windows_reach_over(store: StoryStore) -> None:
    words = store.words("toy5")
    for span, reach_trs, (start_s, stop_s) in (
        (Span("toy5", 10, 12), 0, (20.0, 24.0)),
        (Span("toy5", 10, 12), 3, (14.0, 30.0)),
        (Span("toy5", 2, 12), 3, (-1.0, 30.0)),
        (Span("toy5", 10, 40), 0, (20.0, 99.0)),
    ):
        expected = set()
        for k, label in enumerate(words.labels):
            if words.start_s[k] < stop_s and words.start_s[k] + words.duration_s[k] > start_s:
                expected.add(label.lower().strip(",-"))
        found = heard_words(store, [span], reach_trs)
        assert found is not None
        assert found.forms == expected - {"", "[noise]"}
    assert heard_words(store, []) is None


def test_an_inflection_of_a_heard_word_is_neither_new_nor_heard() -> None:
    heard = HeardWords.of(["Walked", "berries", "the", "should"])
    assert heard.has("walked")
    for form in ("walks", "walking", "berry"):
        assert not heard.has(form)
        assert not heard.lacks(form)
    assert heard.lacks("horse")
    assert heard.lacks("shoulder")
    assert not heard.lacks("should")


def test_words_have_vectors_where_a_space_of_words_is_not_zero(
    store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert has_vector(store, "toy5") is None, "the toy's vectors are known per TR only"
    words = Intervals(("river", "falcon", "stone"), np.array([1.0, 1.1, 3.0]), np.array([2.0, 0.2, 0.2]))
    values = np.array([[0.0, 0.0], [0.0, 2.0], [1.0, 0.0]], dtype=np.float32)  # falcon's middle comes first
    space = FeatureSpace("v", "semantic", ("a", "b"), "planted", np.zeros((N_TRS, 2), dtype=np.float32))
    timed = TimedValues(values, np.array([1.2, 2.0, 3.1]))
    monkeypatch.setattr(StoryStore, "words", lambda self, story: words)
    monkeypatch.setattr(StoryStore, "feature_spaces", lambda self, story: [space])
    monkeypatch.setattr(StoryStore, "timed", lambda self, story, name: timed)
    found = has_vector(store, "toy5")
    assert found is not None
    assert found.tolist() == [True, False, True]
    monkeypatch.setattr(StoryStore, "timed", lambda self, story, name: TimedValues(values, timed.times_s + 1.0))
    assert has_vector(store, "toy5") is None, "events of something else"


def test_a_look_up_of_words_is_right_on_known_words_and_knows_nothing_of_new_ones() -> None:
    found = []
    for seed in range(20_000, 20_030):
        told = tell(seed, 4, 105, 0.35)
        sets, half = told.sets().rows, told.sets(0.5).rows[UNSEEN_WORDS]
        masks = [sets[UNSEEN_WORDS], sets[SEEN_WORDS], np.ones(len(half), dtype=bool), half & ~sets[UNSEEN_WORDS]]
        found.append([mean_r(told.signal[m], told.look_up[m], told.groups[m]) for m in masks])
        assert min(m.sum() for m in masks) > 5
    (new, known, overall, between), error = np.mean(found, axis=0), np.std(found, axis=0)[0] / np.sqrt(30)
    assert abs(new) < 2.5 * error < 0.1
    assert known > 0.95
    assert overall > 0.4
    assert between > 0.2, "half of the weight from new words is not enough"


# --- In the probe ---


def measured(path: Path, folder: Path, block_trs: int = 2) -> list[ProbeRecord]:
    data = toy_data(path, Words())
    data.prepare_data()
    data.setup()
    engine = toy_probe(block_trs=block_trs, layers=[1]).engine
    return engine.measure(ToyModule(), data, ["sub-A", "sub-B"], folder)


def test_records_have_the_numbers_of_every_region_with_their_rows(path: Path, tmp_path: Path) -> None:
    records = measured(path, tmp_path)
    for record in (*records, load_record(record_path(tmp_path, "sub-A", 0))):
        regions = {row.region for row in record.table.rows if row.metric == "r_backbone"}
        for metric in (UNSEEN_WORDS, SEEN_WORDS, FITTED_WORDS):
            rows = [row for row in record.table.rows if row.metric == metric]
            assert {row.region for row in rows} == regions
            assert {row.layer for row in rows} == {record.layer}, "the compared one"
            assert metric == SEEN_WORDS or all(row.score.interval is not None for row in rows)
        words = record.facts["words"]
        assert words["n_words"][UNSEEN_WORDS] == 5
        assert words["n_content_words"] == 10
        by_metric = {row["metric"]: row["n_trs"] for row in table_rows([record])}
        assert by_metric[UNSEEN_WORDS] == words["n_trs"][UNSEEN_WORDS] < by_metric["r_backbone"] == 35
    file = write_table(records, tmp_path / "table.csv")
    with file.open() as lines:
        written = [row for row in csv.DictReader(lines) if row["metric"] == UNSEEN_WORDS]
    assert len(written) == 2 * len(regions)
    assert {row["n_trs"] for row in written} == {str(words["n_trs"][UNSEEN_WORDS])}


def test_too_few_rows_have_no_number_and_are_counted(path: Path, tmp_path: Path) -> None:
    for record in measured(path, tmp_path, block_trs=20):
        assert not [row for row in record.table.rows if row.metric.endswith("_words")]
        assert record.facts["words"]["least_trs"] == 60
        assert set(record.facts["words"]["n_trs"]) == {metric for pair in METRICS.values() for metric in pair}


def test_the_callback_knows_what_was_tuned_on_also_for_data_of_its_own(path: Path, tmp_path: Path) -> None:
    own = toy_data(path, Words(), roles={"fit": ["toy2", "toy3"], "score": ["toy5"]}, allow=["tune and fit"])
    probes = [toy_probe(block_trs=2, layers=[1]), toy_probe(block_trs=2, layers=[1], data=own, name="own")]
    toy_trainer(tmp_path, *probes, epochs=0).fit(ToyModule(), toy_data(path, Words()))
    main, other = (find_records(tmp_path / where)[0].facts["words"] for where in ("probes", "probes/own"))
    assert main == other
    assert main["n_words"][UNSEEN_WORDS] == 5


def test_a_command_takes_the_words_of_the_spans_that_a_checkpoint_names(path: Path) -> None:
    data = toy_data(path, Words())
    data.only_probe()
    data.setup()
    assert tuning_words(data) is None, "the role is not used"
    known = words_tuned_on(data, data.not_tuned_on)
    assert known is not None
    assert known.forms > set(KNOWN)
    assert not known.forms & set(NEW)
    part = words_tuned_on(data, ["toy5[0:8]"])
    assert part is not None
    assert part.forms & set(NEW)
    assert words_tuned_on(data, []) is None
    assert words_tuned_on(data, ["elsewhere"]) is None
