"""Bands of other names than the three, and other numbers of them: four against references that share no code."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations

import numpy as np
import pytest

from brainlit.encoding import ProbeConfig, ProbeResult, partition_variance, run_probe
from brainlit.encoding.estimators import EncodingModel
from brainlit.encoding.probe import NO_LOW_LEVEL

FOUR = ("backbone", "low_level", "context", "word_vectors")
CONFIG = ProbeConfig(
    bands={"low_level": None, "word_vectors": ["glove"], "context": ["language_model"]},
    n_gammas={1: 1, 2: 2, 3: 2},
    alphas=(1.0, 10.0, 100.0, 1000.0),
    delays_trs=(1, 2),
    n_folds=2,
)
GROUPS = np.repeat(np.arange(6), 50)
SCORE = GROUPS >= 4


def every_set(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(names, n) for n in range(1, len(names) + 1)))


def planted() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Four bands, and five voxels of each one's own, all a row later."""
    rng = np.random.default_rng(3)
    bands = {name: rng.standard_normal((GROUPS.size, 3)) for name in FOUR}
    signal = [np.roll(bands[name], 1, axis=0) @ rng.standard_normal((3, 5)) for name in FOUR]
    return bands, np.concatenate(signal, axis=1) + rng.standard_normal((GROUPS.size, 20))


@pytest.fixture(scope="module")
def result() -> ProbeResult:
    bands, Y = planted()
    return run_probe(dict(reversed(bands.items())), Y, GROUPS, ~SCORE, SCORE, CONFIG)


def test_parts_of_four_bands_solve_the_equations_of_their_unions() -> None:
    """R2 of a set of bands is the sum of all parts that any of them is in: 15 equations, solved as they stand."""
    rng = np.random.default_rng(0)
    sets = every_set(FOUR)
    r2 = {"+".join(union): rng.uniform(-0.1, 0.5, 4) for union in sets}
    covered = np.array([[float(bool(set(part) & set(union))) for part in sets] for union in sets])
    expected = np.linalg.solve(covered, np.stack([r2["+".join(union)] for union in sets]))
    found = partition_variance(r2, FOUR)
    assert list(found) == ["&".join(part) for part in sets]
    np.testing.assert_allclose(np.stack(list(found.values())), expected, atol=1e-12)
    np.testing.assert_allclose(sum(found.values()), r2["+".join(FOUR)], atol=1e-12)


def test_four_bands_are_told_apart(result: ProbeResult) -> None:
    assert list(result.r2_by_model) == ["+".join(members) for members in every_set(FOUR)]
    np.testing.assert_allclose(sum(result.partition.values()), result.r2, atol=1e-10)
    np.testing.assert_allclose(sum(result.split.values()), result.r2, atol=1e-4)
    for k, band in enumerate(FOUR):
        own = {part: values[5 * k : 5 * k + 5].mean() for part, values in result.partition.items()}
        assert own[band] > 0.3, own
        assert max(abs(value) for part, value in own.items() if part != band) < 0.1, own
    assert result.impact.keys() == {"residual_lag0", "residual_lags", "banded_ridge"}
    assert NO_LOW_LEVEL not in result.meta["warnings"]


def test_a_model_does_not_depend_on_what_other_bands_there_are(result: ProbeResult) -> None:
    bands, Y = planted()
    fewer = {name: bands[name] for name in ("backbone", "low_level", "context")}
    config = replace(CONFIG, bands={"low_level": None, "context": ["language_model"]})
    three = run_probe(fewer, Y, GROUPS, ~SCORE, SCORE, config)
    assert len(three.r2_by_model) == 7
    for model, values in three.r2_by_model.items():
        np.testing.assert_allclose(result.r2_by_model[model], values, atol=1e-4)


def test_a_probe_without_a_low_level_band_says_what_it_leaves_out() -> None:
    bands, Y = planted()
    config = replace(CONFIG, bands={"context": ["language_model"]})
    given = {name: bands[name] for name in ("backbone", "context")}
    found = run_probe(given, Y[:, :5], GROUPS, ~SCORE, SCORE, config)
    assert NO_LOW_LEVEL in found.meta["warnings"]
    assert (found.impact, found.r_rest) == ({}, {})
    assert list(found.partition) == ["backbone", "context", "backbone&context"]


def test_bands_that_nobody_named_are_refused() -> None:
    bands, Y = planted()
    said = r"need at least one of backbone, low_level, semantic and no other. Others are named in the probe's setting"
    with pytest.raises(ValueError, match=said):
        run_probe(bands, Y, GROUPS, ~SCORE, SCORE, replace(CONFIG, bands=ProbeConfig().bands))
    with pytest.raises(ValueError, match=said):
        EncodingModel().fit(bands, Y, GROUPS)


def test_settings_go_by_the_names_of_the_bands() -> None:
    config = replace(CONFIG, temporal={"context": "fir"}, keep_scale=("word_vectors",))
    assert [config.temporal_of(band) for band in ("context", "word_vectors")] == ["fir", "hrf_derivatives"]
    assert config.keeps_scale("word_vectors")
    assert not config.keeps_scale("context")
    only_fir = {"low_level": "fir", "context": "fir", "word_vectors": "fir"}
    assert replace(config, temporal=only_fir | {"backbone": "fir"}, delays_trs=(1, 2)).purge == 4
    assert replace(config, temporal=only_fir, delays_trs=(1, 2)).purge == 10
    with pytest.raises(
        ValueError, match=r"keep_scale names a band 'semantic' that does not exist.*Known: backbone, co"
    ):
        replace(config, keep_scale=("semantic",))


@pytest.mark.parametrize(
    ("bands", "said"),
    [
        (
            {name: ["x"] for name in "abcde"},
            r"bands has 5 beside the backbone \(a, b, c, d, e\), which makes 63 nested",
        ),
        ({"backbone": ["x"]}, "a band 'backbone'; a name has small letters"),
        ({"joint": ["x"]}, "a band 'joint'"),
        ({"a+b": ["x"]}, r"a band 'a\+b'"),
        ({"context": None}, "bands.context is null.* only low_level and semantic are kinds"),
        ({"context": "glove"}, "bands.context is 'glove'; give a list"),
        ({"context": []}, r"bands.context is \[\]; give a list"),
        ({"a": ["x"], "b": ["y", "x"]}, "the feature space 'x' twice, in a and b"),
        ({"a": ["x", "x"]}, "the feature space 'x' twice, in a and a"),
    ],
)
def test_bands_that_make_no_sense_are_refused(bands: dict[str, list[str] | None], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ProbeConfig(bands=bands)
