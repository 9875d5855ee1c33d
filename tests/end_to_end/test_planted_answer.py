"""The demo's planted answer comes back through the probe: shares of low-level features and of meaning."""

from __future__ import annotations

import numpy as np
import pytest

from brainlit.demo import DemoSource
from brainlit.encoding import ProbeConfig, ProbeResult, run_probe

N_FIT, N_FIT_NOISY, N_SCORE = 22, 12, 6
CONFIG = ProbeConfig(low_level_impact=False)


@pytest.fixture(scope="module")
def source() -> DemoSource:
    return DemoSource(
        seed=41, n_tune=0, n_choose=0, n_fit=N_FIT, n_score=N_SCORE, story_minutes=2.5, n_subjects=1, n_voxels=150
    )


@pytest.fixture(scope="module")
def bands(source: DemoSource) -> dict[str, list[np.ndarray]]:
    """Per story: low-level and semantic features."""
    found: dict[str, list[np.ndarray]] = {"low_level": [], "semantic": []}
    for name in source.story_names():
        spaces = source.feature_spaces(source.story(name))
        for kind, stories in found.items():
            stories.append(np.hstack([space.values for space in spaces if space.kind == kind]))
    return found


def _probe(bands: dict[str, list[np.ndarray]], responses: list[np.ndarray], n_fit: int) -> ProbeResult:
    """Fit on the first n_fit stories, score on the last N_SCORE."""
    stories = [*range(n_fit), *range(N_FIT, N_FIT + N_SCORE)]
    groups = np.concatenate([np.full(len(responses[k]), k) for k in stories])
    Xs = {kind: np.vstack([values[k] for k in stories]) for kind, values in bands.items()}
    Y = np.vstack([responses[k] for k in stories])
    return run_probe(Xs, Y, groups, groups < N_FIT, groups >= N_FIT, CONFIG)


@pytest.fixture(scope="module")
def measured(source: DemoSource, bands: dict[str, list[np.ndarray]]) -> ProbeResult:
    """From noisy responses to twelve stories."""
    noisy = [source.responses("subject_01", name).values for name in source.story_names()]
    return _probe(bands, noisy, N_FIT_NOISY)


@pytest.fixture(scope="module")
def truth(source: DemoSource, bands: dict[str, list[np.ndarray]]) -> ProbeResult:
    """The same partition of noise-free signals, fitted on as many stories as there are."""
    clean = [source.noise_free("subject_01", name) for name in source.story_names()]
    return _probe(bands, clean, N_FIT)


@pytest.mark.parametrize("kind", [1, 2], ids=["auditory", "semantic"])
def test_shares_of_the_joint_variance_are_those_planted(
    source: DemoSource, measured: ProbeResult, truth: ProbeResult, kind: int
) -> None:
    voxels = source.subject("subject_01").truth["kind"] == kind

    def shares(result: ProbeResult) -> np.ndarray:
        return np.array([result.split[band][voxels].mean() for band in ("low_level", "semantic")]) / (
            result.r2[voxels].mean()
        )

    assert np.abs(shares(measured) - shares(truth)).max() < 0.1
    planted = source.subject("subject_01").truth["semantic_fraction"][voxels].mean()
    assert abs(shares(truth)[1] - planted) < 0.1, "the truth itself is near what the recipe mixed"


@pytest.mark.parametrize("kind", [0, 1, 3, 4, 5], ids=["null", "auditory", "modulation", "attention", "arousal"])
def test_voxels_without_meaning_show_none_beyond_chance(source: DemoSource, measured: ProbeResult, kind: int) -> None:
    voxels = source.subject("subject_01").truth["kind"] == kind
    unique = measured.partition["semantic"][voxels]
    standard_error = unique.std() / np.sqrt(voxels.sum())
    assert unique.mean() < 3 * standard_error + 0.001
    semantic = source.subject("subject_01").truth["kind"] == 2
    assert measured.partition["semantic"][semantic].mean() > 20 * max(unique.mean(), 0.005)
