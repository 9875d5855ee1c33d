from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from brainlit.encoding.temporal import Temporal, haemodynamic_rows
from brainlit.features import FeatureConfig
from brainlit.probing.temporal_rows import TemporalForm, held_rows, read_times_s, stimulus_rows, with_what_precedes
from brainlit.splits import Span
from brainlit.store import StoryStore, build_store
from brainlit.stories import FeatureSpace, Story
from brainlit.stories.base import TimedValues
from brainlit.stories.response_filter import ResponseFilter
from brainlit.timebase import TimeBase
from tests.probing.test_hidden_states import double_gamma
from tests.toy import ToySource

Array = npt.NDArray[np.float64]
STARTS_S = np.cumsum([0.0, *(1.5 + 0.1 * np.sin(np.arange(39)))]) + 0.3


class Spoken(ToySource):
    """The toy stories on a clock that is not regular, with spaces of the words; rows are acquired at their ends."""

    def story(self, name: str) -> Story:
        return replace(super().story(name), timebase=TimeBase(STARTS_S, 1.5))

    def feature_spaces(self, story: Story) -> list[FeatureSpace]:
        return [space for space in super().feature_spaces(story) if space.kind == "semantic"]

    def slice_reference(self) -> float:
        return 1.0

    def response_filter(self) -> ResponseFilter | None:
        return ResponseFilter(polynomial=1, source="a line")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StoryStore:
    features = FeatureConfig(low_level=["word_rate", "envelope"])
    return build_store(Spoken(n_trs=40), tmp_path_factory.mktemp("spoken") / "store", progress=False, features=features)


def convolved(values: Sequence[float], times_s: Sequence[float], read_s: Sequence[float], width_s: float) -> Array:
    return np.array(
        [sum(v * width_s * double_gamma(r - t) for v, t in zip(values, times_s, strict=True)) for r in read_s]
    )


def test_rows_are_read_where_slice_timing_refers_to(store: StoryStore) -> None:
    np.testing.assert_allclose(read_times_s(store, "toy2")[:-1], STARTS_S[1:])


def test_words_count_at_their_own_times(store: StoryStore) -> None:
    spans = [Span("toy2", 5, 30), Span("toy5", 0, 40)]
    band = stimulus_rows(store, spans, ["word_rate", "envelope"], TemporalForm("hrf_derivatives"))
    assert {part: rows.shape for part, rows in band.parts.items()} == {"hrf": (65, 2), "derivatives": (65, 4)}
    words = store.words("toy2")
    expected = convolved(np.ones(len(words)), words.middle_s, read_times_s(store, "toy2"), 1.0)
    np.testing.assert_allclose(band.parts["hrf"][:25, 0], expected[5:30], atol=1e-5)


def test_sound_is_preceded_by_silence(store: StoryStore) -> None:
    timed = store.timed("toy2", "envelope")
    assert timed is not None
    assert timed.duration_s == pytest.approx(0.1)
    expected = convolved(timed.values[:, 0], timed.times_s, read_times_s(store, "toy2"), 0.1)
    band = stimulus_rows(store, [Span("toy2", 0, 40)], ["envelope"], TemporalForm("hrf"))
    np.testing.assert_allclose(band.parts["hrf"][:, 0], expected, atol=1e-5)


def test_what_is_known_per_tr_is_held_over_it(store: StoryStore) -> None:
    assert store.timed("toy2", "word_vectors") is None
    per_tr = store.band("toy2", "semantic")
    fine = np.repeat(per_tr - per_tr.mean(axis=0), 50, axis=0)[:, 0]
    edges_s = np.concatenate([STARTS_S, [STARTS_S[-1] + 1.5]])
    widths_s = np.repeat(np.diff(edges_s) / 50, 50)
    middles_s = np.concatenate([np.linspace(a, b, 101)[1::2] for a, b in pairwise(edges_s)])
    expected = convolved(fine * widths_s, middles_s, read_times_s(store, "toy2"), 1.0)
    band = stimulus_rows(store, [Span("toy2", 0, 40)], ["word_vectors"], TemporalForm("auto"))
    assert np.corrcoef(band.parts["hrf"][:, 0], expected)[0, 1] > 0.98
    np.testing.assert_allclose(band.parts["fir"][1:, :3], (per_tr - per_tr.mean(axis=0))[:-1], atol=1e-6)
    own = held_rows(per_tr, store, [Span("toy2", 0, 40)], TemporalForm("auto"))
    np.testing.assert_allclose(own.parts["hrf"], band.parts["hrf"], atol=1e-6)


def without_line(rows: Array) -> Array:
    design = np.column_stack([np.ones(len(rows)), np.arange(float(len(rows)))])
    return np.asarray(rows - design @ np.linalg.lstsq(design, rows, rcond=None)[0])


@pytest.mark.parametrize("temporal", ["fir", "hrf_derivatives", "auto"])
def test_features_pass_what_the_responses_passed(temporal: Temporal, store: StoryStore) -> None:
    spaces, whole = ["word_rate", "envelope"], [Span("toy2", 0, 40)]
    given = stimulus_rows(store, whole, spaces, TemporalForm(temporal))
    passed = stimulus_rows(store, whole, spaces, TemporalForm(temporal, matched_filter=True))
    stretch = stimulus_rows(store, [Span("toy2", 12, 30)], spaces, TemporalForm(temporal, matched_filter=True))
    for part, rows in given.parts.items():
        np.testing.assert_allclose(passed.parts[part], without_line(rows), atol=1e-5)
        np.testing.assert_array_equal(stretch.parts[part], passed.parts[part][12:30])


def test_delays_reach_back_over_the_start_of_a_span(store: StoryStore) -> None:
    form = TemporalForm("auto", delays_trs=(1, 3))
    band = stimulus_rows(store, [Span("toy2", 10, 20)], ["word_vectors"], form)
    per_tr = store.band("toy2", "semantic") - store.band("toy2", "semantic").mean(axis=0)
    np.testing.assert_allclose(band.parts["fir"][:, :3], per_tr[9:19], atol=1e-6)
    np.testing.assert_allclose(band.parts["fir"][:, 3:], per_tr[7:17], atol=1e-6)
    assert band.is_delayed


def test_means_per_tr_are_left_to_the_ridge(store: StoryStore, toy_store: StoryStore) -> None:
    assert TemporalForm("fir").is_plain(store)
    assert TemporalForm("fir", matched_filter=True).is_plain(toy_store), "nothing is known that they should pass"
    assert not TemporalForm("fir", matched_filter=True).is_plain(store)
    assert not TemporalForm("hrf").is_plain(toy_store)


@pytest.mark.parametrize("duration_s", [None, 0.5])
def test_a_mean_that_precedes_makes_no_onset(duration_s: float | None) -> None:
    times_s = np.arange(0.25, 300.0, 0.5)
    steady = TimedValues(np.full((600, 1), 3.0), times_s, duration_s)
    widths_s = None if duration_s is None else np.full(600, duration_s)
    read_s = np.arange(1.0, 250.0)
    silence = with_what_precedes(steady, "silence", 32.0)
    assert silence is steady
    onset = haemodynamic_rows(steady.values, times_s, read_s, durations_s=widths_s)["hrf"]
    assert np.ptp(onset) > 2.0
    mean = with_what_precedes(steady, "mean", 32.0)
    rows = haemodynamic_rows(mean.values, mean.times_s, read_s, durations_s=widths_s)["hrf"]
    assert np.ptp(rows) < 0.1 * np.ptp(onset)
