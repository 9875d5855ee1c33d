from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from brainlit.features import FeatureConfig
from brainlit.probing.temporal_rows import TemporalForm, held_rows, read_times_s, row_filters, stimulus_rows
from brainlit.splits import Span
from brainlit.store import StoryStore, build_store
from brainlit.stories import FeatureSpace, Story
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


def test_sound_counts_as_its_mean_before_it_begins(store: StoryStore) -> None:
    timed = store.timed("toy2", "envelope")
    assert timed is not None
    assert timed.duration_s == pytest.approx(0.1)
    loud = timed.values[:, 0] - timed.values[:, 0].mean()
    expected = convolved(loud, timed.times_s, read_times_s(store, "toy2"), 0.1)
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
    np.testing.assert_array_equal(band.parts["fir"], per_tr)
    own = held_rows(per_tr, store, [Span("toy2", 0, 40)], TemporalForm("auto"))
    np.testing.assert_array_equal(own.parts["hrf"], band.parts["hrf"])


def test_features_pass_what_the_responses_passed(store: StoryStore, toy_store: StoryStore) -> None:
    spans = [Span("toy2", 0, 40), Span("toy5", 10, 40)]
    filters = row_filters(store, spans)
    line = np.arange(40.0)[:, None]
    wave = np.sin(np.arange(40.0))[:, None]
    design = np.column_stack([np.ones(30), np.arange(30.0)])
    left = wave[10:] - design @ np.linalg.lstsq(design, wave[10:], rcond=None)[0]
    np.testing.assert_allclose(filters[0](line), 0.0, atol=1e-9)
    np.testing.assert_allclose(filters[1](wave[10:] + line[10:]), left, atol=1e-9)
    assert row_filters(toy_store, [Span("toy2", 0, 40)]) == {}
