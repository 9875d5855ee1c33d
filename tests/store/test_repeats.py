"""The mean of several presentations is stored in units of one, however the source scaled it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from brainlit.encoding import ProbeConfig, region_shares
from brainlit.probing.inputs import probe_data
from brainlit.splits import Span
from brainlit.store import StoryStore, build_store
from brainlit.stories import FeatureSpace, Responses, Story, Subject
from tests.toy import DELAY_TRS, ToySource

N_TRS, N_REPEATS, SIGNAL = 400, 5, 0.25
SCORED = SIGNAL / (SIGNAL + (1 - SIGNAL) / N_REPEATS)
"""Share of signal in the variance of the mean of the presentations: what a perfect model explains of it."""
Rescale = Callable[[np.ndarray], np.ndarray]


class Planted(ToySource):
    """24 voxels that follow `level` with a quarter of signal in one presentation; `rescale` is applied to the mean."""

    name = "planted"

    def __init__(self, rescale: Rescale) -> None:
        super().__init__(n_trs=N_TRS, tr_s=0.25, n_repeats=N_REPEATS, everyone_heard_all=True)
        self.rescale = rescale

    def subject_names(self) -> list[str]:
        return ["sub-A"]

    def story_names(self) -> list[str]:
        return ["toy2", "toy3", "toy5"]

    def default_roles(self) -> dict[str, list[str]]:
        return {"tune": [], "fit": ["toy2", "toy3"], "choose": [], "score": ["toy5"]}

    def feature_spaces(self, story: Story) -> list[FeatureSpace]:
        low_level, _ = super().feature_spaces(story)
        meaning = np.random.default_rng(len(story.name)).standard_normal((N_TRS, 1)).astype(np.float32)
        return [low_level, FeatureSpace("word_vectors", "semantic", ("first",), "planted", meaning, 0.9)]

    def subject(self, name: str) -> Subject:
        return Subject(name, 24)

    def responses(self, subject: str, story: str) -> Responses:
        rng = np.random.default_rng([7, *story.encode()])
        level = np.concatenate([np.zeros(DELAY_TRS), self._level(story)[:-DELAY_TRS]])[:, None]
        n_repeats = N_REPEATS if story == "toy5" else 1
        noise = rng.standard_normal((n_repeats, N_TRS, 24))
        each = np.sqrt(SIGNAL) * level / level.std() + np.sqrt(1 - SIGNAL) * noise
        each = ((each - each.mean(1, keepdims=True)) / each.std(1, keepdims=True)).astype(np.float32)
        return Responses(self.rescale(each.mean(axis=0)), each if n_repeats > 1 else None)


def unchanged(mean: np.ndarray) -> np.ndarray:
    return mean


def standardised(mean: np.ndarray) -> np.ndarray:
    return mean / mean.std(axis=0)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoryStore]:
    """The same data from a source that averages, and from one that z-scores the mean again."""
    folder = tmp_path_factory.mktemp("repeats")
    how = {"averaged": unchanged, "standardised": standardised}
    return {name: build_store(Planted(rescale), folder / name, progress=False) for name, rescale in how.items()}


def test_a_mean_that_was_standardised_comes_back_in_units_of_one_presentation(stores: dict[str, StoryStore]) -> None:
    mean = Planted(unchanged).responses("sub-A", "toy5").values
    assert mean.std() < 0.7
    np.testing.assert_array_equal(stores["averaged"].responses("sub-A", "toy5"), mean)
    np.testing.assert_allclose(stores["standardised"].responses("sub-A", "toy5"), mean, rtol=1e-5, atol=1e-6)
    for story in ("toy2", "toy3"):
        given = Planted(standardised).responses("sub-A", story).values
        np.testing.assert_array_equal(stores["standardised"].responses("sub-A", story), given)


@pytest.mark.parametrize("name", ["averaged", "standardised"])
def test_joint_r2_is_the_share_of_signal_in_what_is_scored(stores: dict[str, StoryStore], name: str) -> None:
    spans = [Span(story, 0, N_TRS) for story in ("toy2", "toy3", "toy5")]
    config = ProbeConfig(temporal="fir", delays_trs=(1, 2))
    data = probe_data(stores[name], "sub-A", spans[:2], spans[2:], config)
    found = region_shares(data.stimulus, data.responses, data.groups, data.fit, data.score, config)
    assert found.joint_r2.value == pytest.approx(SCORED, abs=0.06)
    assert found.joint_r2.low < SCORED < found.joint_r2.high


def test_other_scales_and_responses_that_are_no_mean_are_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def noise(mean: np.ndarray) -> np.ndarray:
        return standardised(np.random.default_rng(0).standard_normal(mean.shape).astype(np.float32))

    for name, rescale in {"louder": lambda mean: 3 * mean, "noise": noise}.items():
        with caplog.at_level(logging.WARNING):
            store = build_store(Planted(rescale), tmp_path / name, progress=False)
        np.testing.assert_array_equal(
            store.responses("sub-A", "toy5"), Planted(rescale).responses("sub-A", "toy5").values
        )
        assert ("24 of 24 columns of the responses are z-scored, but no mean" in caplog.text) == (name == "noise")


def test_columns_without_data_stay_without(tmp_path: Path) -> None:
    def holes(mean: np.ndarray) -> np.ndarray:
        values = standardised(mean)
        values[3, 0], values[:, 1] = np.nan, 0.0
        return values

    store = build_store(Planted(holes), tmp_path / "holes", progress=False)
    values = store.responses("sub-A", "toy5")
    assert values is not None
    assert np.isnan(values[3, 0])
    assert not values[:, 1].any()
    np.testing.assert_allclose(
        values[:, 2:].std(axis=0), Planted(unchanged).responses("sub-A", "toy5").values[:, 2:].std(axis=0), rtol=1e-4
    )
