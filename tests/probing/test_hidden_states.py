from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from brainlit.datamodules import StoryDataModule
from brainlit.encoding.temporal import Temporal
from brainlit.probing.hidden_states import layer_features, n_rows, temporal_layer_features
from brainlit.probing.temporal_rows import TemporalForm
from brainlit.splits import Span
from brainlit.stories import FeatureSpace, Responses, Story
from brainlit.timebase import TimeBase
from tests.callbacks.toy_module import ToyModule, toy_data
from tests.toy import ToySource

Array = npt.NDArray[np.float64]

SPANS = (Span("toy2", 3, 40), Span("toy5", 0, 17))


@pytest.fixture(scope="module")
def data(toy_store_path: Path) -> StoryDataModule:
    module = toy_data(toy_store_path)
    module.prepare_data()
    module.setup()
    return module


def test_rows_are_in_order_and_match_the_sound(data: StoryDataModule) -> None:
    features = layer_features(ToyModule(), data, SPANS, [0, 2], progress=False)
    assert features[0].shape == (n_rows(SPANS), 3) == (54, 3)
    np.testing.assert_allclose(features[2], 3 * features[0], rtol=1e-6)
    for span, start in zip(SPANS, (0, 37), strict=True):
        for row in (0, 9, 10, span.n_trs - 1):
            first = (span.start_tr + row) * 32_000
            sound = data.store.audio(span.story, first, first + 32_000).astype(np.float64)
            assert features[0][start + row, 0] == pytest.approx(np.log1p(np.abs(sound).mean()), rel=1e-4)


def test_the_model_is_in_eval_mode_only_meanwhile(data: StoryDataModule) -> None:
    module = ToyModule()
    module.train()
    module.backbone.frozen.eval()
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    layer_features(module, data, SPANS, [1], progress=False)
    assert torch.rand(()) == expected
    assert module.modes_seen
    assert not any(module.modes_seen)
    assert module.head.training
    assert not module.backbone.frozen.training


def test_a_row_without_states_is_an_error(data: StoryDataModule) -> None:
    class Short:
        story_names = data.story_names

        def evaluation_batches(self, spans: Any, with_targets: bool) -> Iterator[Any]:
            yield from list(data.evaluation_batches(spans, with_targets=with_targets))[:1]

    with pytest.raises(RuntimeError, match="rows have no hidden state"):
        layer_features(ToyModule(), Short(), SPANS, [1], progress=False)


def test_states_that_are_not_finite_are_an_error(data: StoryDataModule) -> None:
    module = ToyModule()
    with torch.no_grad():
        module.backbone.gain[0] = float("nan")
    with pytest.raises(RuntimeError, match="training has diverged"):
        layer_features(module, data, SPANS, [1], progress=False)


def test_layers_count_from_zero(data: StoryDataModule) -> None:
    with pytest.raises(ValueError, match="count them from 0"):
        layer_features(ToyModule(), data, SPANS, [-1], progress=False)


# --- Frames convolved with a haemodynamic response ---


def double_gamma(lag_s: float) -> float:
    """SPM's canonical response, written out: t^5 e^-t / 5! less a sixth of t^15 e^-t / 15!, of unit area."""
    if not 0 <= lag_s < 32:
        return 0.0
    return (lag_s**5 / 120 - lag_s**15 / 1_307_674_368_000 / 6) * float(np.exp(-lag_s)) / (1 - 1 / 6)


def loudness_of_bins(data: StoryDataModule, story: str, bin_s: float) -> Array:
    """What the toy module hears in every bin of a story, bin by bin from the sound."""
    n_samples = round(16_000 * bin_s)
    sound = data.store.audio(story, 0, data.store.n_trs(story) * 32_000).astype(np.float64)
    return np.array([np.log1p(np.abs(piece).mean()) for piece in sound.reshape(-1, n_samples)])


def convolved(values: Array, bin_s: float, read_s: Sequence[float]) -> Array:
    rows = np.zeros(len(read_s))
    for k, moment_s in enumerate(read_s):
        for place, value in enumerate(values):
            rows[k] += value * bin_s * double_gamma(moment_s - (place + 0.5) * bin_s)
    return rows


@pytest.mark.parametrize("bin_s", [0.1, 0.5])
def test_bins_are_convolved_at_their_own_times(bin_s: float, data: StoryDataModule) -> None:
    form = TemporalForm("hrf", bin_s=bin_s)
    whole = [Span("toy2", 0, 40), Span("toy5", 0, 40)]
    found = temporal_layer_features(ToyModule(), data, whole, [0, 2], form, progress=False)
    assert list(found[0].parts) == ["hrf"]
    for story, rows in zip(("toy2", "toy5"), (slice(0, 40), slice(40, 80)), strict=True):
        heard = loudness_of_bins(data, story, bin_s)
        expected = convolved(heard - heard.mean(), bin_s, 2.0 * np.arange(40) + 1.0)
        np.testing.assert_allclose(found[0].parts["hrf"][rows, 0], expected, atol=2e-3)
        np.testing.assert_allclose(found[2].parts["hrf"][rows, 0], 3 * expected, atol=6e-3)


def test_the_whole_story_is_heard_whatever_is_asked_for(data: StoryDataModule) -> None:
    form = TemporalForm("hrf")
    whole = temporal_layer_features(ToyModule(), data, [Span("toy2", 0, 40)], [1], form, progress=False)[1]
    asked = [Span("toy2", 20, 30), Span("toy2", 32, 40)]
    parts = temporal_layer_features(ToyModule(), data, asked, [1], form, progress=False)[1].parts["hrf"]
    np.testing.assert_array_equal(parts, whole.parts["hrf"][[*range(20, 30), *range(32, 40)]])


def test_sound_before_the_first_row_counts(tmp_path: Path) -> None:
    class Early(ToySource):
        """The first four rows of the toy stories were cut off."""

        def story(self, name: str) -> Story:
            return replace(super().story(name), timebase=TimeBase.regular(36, 2.0, onset_s=8.0))

        def responses(self, subject: str, story: str) -> Responses | None:
            found = super().responses(subject, story)
            return None if found is None else Responses(found.values[4:])

        def feature_spaces(self, story: Story) -> list[FeatureSpace]:
            return [replace(space, values=space.values[4:]) for space in super().feature_spaces(story)]

    cut = toy_data(tmp_path / "store", source=Early())
    cut.prepare_data()
    cut.setup()
    band = temporal_layer_features(ToyModule(), cut, [Span("toy2", 0, 36)], [0], TemporalForm("hrf"), progress=False)[0]
    sound = cut.store.audio("toy2", 0, 80 * 16_000).astype(np.float64)
    heard = np.array([np.log1p(np.abs(piece).mean()) for piece in sound.reshape(-1, 1600)])
    expected = convolved(heard - heard.mean(), 0.1, 9.0 + 2.0 * np.arange(36))
    np.testing.assert_allclose(band.parts["hrf"][:, 0], expected, atol=2e-3)


@pytest.mark.parametrize("temporal", ["hrf_derivatives", "auto"])
def test_every_part_of_a_choice_is_there(temporal: Temporal, data: StoryDataModule) -> None:
    span = [Span("toy2", 0, 40)]
    band = temporal_layer_features(ToyModule(), data, span, [1], TemporalForm(temporal), progress=False)[1]
    widths = {"hrf": 3, "derivatives": 6, "fir": 12}
    assert {part: rows.shape for part, rows in band.parts.items()} == {p: (40, widths[p]) for p in band.parts}
    if temporal == "auto":
        per_tr = layer_features(ToyModule(), data, span, [1], progress=False)[1]
        # log of a mean against the mean of logs: near, and in step
        assert np.corrcoef(band.parts["fir"][1:, 0], per_tr[:-1, 0])[0, 1] > 0.99


def test_silence_counts_as_the_mean(tmp_path: Path) -> None:
    class Late(ToySource):
        """The scanner runs ten seconds before the sound, which is steady."""

        def story(self, name: str) -> Story:
            story = super().story(name)
            steady = np.full_like(story.audio, 1000 + int(name[-1]))  # each its own, or they count as one story
            return replace(story, audio=steady, timebase=TimeBase.regular(self.n_trs, self.tr_s, onset_s=-10.0))

    class Deaf(ToyModule):
        """As a backbone does, it gives 0 for bins without sound."""

        def pooled_states(self, batch: dict[str, Any], layers: Sequence[int]) -> torch.Tensor:
            states = super().pooled_states(batch, layers)
            return states * (states[:1, :, :, :1] > 0)

    late = toy_data(tmp_path / "store", source=Late())
    late.prepare_data()
    late.setup()
    band = temporal_layer_features(Deaf(), late, [Span("toy2", 0, 40)], [0], TemporalForm("hrf"), progress=False)[0]
    np.testing.assert_allclose(band.parts["hrf"][:, 0], 0.0, atol=1e-3)
