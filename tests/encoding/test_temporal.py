"""Haemodynamic bases: against nilearn's responses, a double loop, impulses at known moments, and real listeners."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from nilearn.glm.first_level import hemodynamic_models as nilearn_responses

from brainlit.encoding import HaemodynamicResponse, ProbeConfig, TemporalBand, haemodynamic_rows, parts_of, take_out
from brainlit.encoding.config import BANDS, DEFAULT_TEMPORAL
from brainlit.encoding.temporal import n_delayed
from brainlit.stories.readers.cleaning import drift_basis
from tests.benchmarks.alice_time import measure, table
from tests.benchmarks.temporal_responses import PEAKS_S, followed, nearest, voxel

Array = npt.NDArray[np.float64]
SPM = HaemodynamicResponse()
NILEARN_S = np.linspace(0, 32, 320) - 0.1
"""nilearn's lags for an oversampling of 10 per second: it sets the onset of its densities one step late."""


def unit(values: npt.ArrayLike) -> Array:
    return np.asarray(values) / np.linalg.norm(values)


def test_the_canonical_response_and_its_derivatives_are_those_of_spm() -> None:
    theirs = nilearn_responses.spm_hrf(1.0, oversampling=10, time_length=32.0)
    np.testing.assert_allclose(unit(SPM.at(NILEARN_S)), unit(theirs), atol=1e-4)
    theirs = nilearn_responses.spm_dispersion_derivative(1.0, oversampling=10, time_length=32.0)
    np.testing.assert_allclose(unit(SPM.by_dispersion(NILEARN_S)), unit(theirs), atol=1e-4)
    # nilearn's step in time is 0.1 s, SPM's (and ours) 1 s: a sum of ten of nilearn's steps is one of ours
    theirs = nilearn_responses.spm_time_derivative(1.0, oversampling=10, time_length=32.0)
    np.testing.assert_allclose(unit(SPM.by_onset(NILEARN_S)), unit(np.convolve(theirs, np.ones(10))[:320]), atol=2e-3)


def test_glovers_response_is_a_choice_of_parameters() -> None:
    glover = HaemodynamicResponse(6.0, 12.0, 0.9, 0.9, 1 / 0.48, 32.0)
    theirs = nilearn_responses.glover_hrf(1.0, oversampling=10, time_length=32.0)
    np.testing.assert_allclose(unit(glover.at(NILEARN_S)), unit(theirs), atol=1e-4)


def plain_rows(values: Array, times_s: Array, read_s: Array) -> Array:
    """The sum over events, one read-out and one event at a time."""
    rows = np.zeros((len(read_s), values.shape[1]))
    for row, now_s in enumerate(read_s):
        for value, then_s in zip(values, times_s, strict=True):
            if 0 <= now_s - then_s < SPM.length_s:
                rows[row] += value * float(SPM.at(now_s - then_s))
    return rows


@pytest.mark.parametrize("n_events", [0, 1, 200])
def test_it_is_the_sum_over_events_in_any_order(n_events: int) -> None:
    rng = np.random.default_rng(n_events)
    times_s, values = rng.uniform(-40, 160, n_events), rng.standard_normal((n_events, 3))
    read_s = rng.permutation(np.arange(0, 120, 1.5) + rng.uniform(-0.3, 0.3, 80))
    found = haemodynamic_rows(values, times_s, read_s)["hrf"]
    np.testing.assert_allclose(found, plain_rows(values, times_s, read_s), atol=1e-6)


def test_what_comes_before_the_first_volume_counts() -> None:
    found = haemodynamic_rows([[1.0]], [-4.0], [0.0, 2.0])["hrf"]
    np.testing.assert_allclose(found[:, 0], SPM.at([4.0, 6.0]), rtol=1e-6)
    assert not haemodynamic_rows([[1.0]], [-4.0], [-5.0, 28.0])["hrf"].any()


@pytest.mark.parametrize("reference", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clock", ["0.7", "1.5", "2.0", "2.0045", "irregular"])
@pytest.mark.parametrize("basis", ["hrf", "hrf_derivatives"])
def test_an_impulse_is_found_at_its_moment(basis: str, clock: str, reference: float) -> None:
    """Rows of an impulse at an unknown moment, matched with a grid of moments: early and late, to 0.05 s."""
    rng = np.random.default_rng(0)
    tr_s = 1.6 if clock == "irregular" else float(clock)
    starts_s = np.arange(420) * tr_s + (rng.uniform(-0.2, 0.2, 420) if clock == "irregular" else 0.0)
    read_s = starts_s + reference * tr_s
    for first in (3, 400):
        moment_s = starts_s[first] + rng.uniform(0, tr_s)
        rows = haemodynamic_rows([[1.0]], [moment_s], read_s, basis)
        moments_s = moment_s + np.arange(-40, 41) * 0.05
        for name, found in rows.items():
            # one event a column: each column is what an impulse at that moment would have left
            tried = haemodynamic_rows(np.eye(81), moments_s, read_s, basis)[name]
            n_kinds = found.shape[1]
            misfit = sum(np.square(tried[:, k * 81 : (k + 1) * 81] - found[:, [k]]).sum(axis=0) for k in range(n_kinds))
            assert abs(moments_s[int(np.argmin(misfit))] - moment_s) <= 0.05


def test_frames_are_an_integral_whatever_their_rate() -> None:
    read_s = np.arange(20, 100, 2.0)
    rows = []
    for rate_hz in (50.0, 25.0):
        times_s = (np.arange(int(120 * rate_hz)) + 0.5) / rate_hz
        wave = np.sin(2 * np.pi * times_s / 30)[:, None]
        rows.append(haemodynamic_rows(wave, times_s, read_s, durations_s=np.full(times_s.size, 1 / rate_hz))["hrf"])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-3)
    steady = haemodynamic_rows(np.ones((6000, 1)), np.arange(6000) / 50, [100.0], durations_s=0.02)["hrf"]
    assert steady.item() == pytest.approx(1.0, abs=2e-3), "a steady input of 1 is answered by 1"


def test_later_and_wider_responses_are_in_the_span_of_the_derivatives() -> None:
    rng = np.random.default_rng(1)
    times_s, read_s = np.sort(rng.uniform(0, 600, 300)), np.arange(0, 600, 2.0)
    values = np.ones((300, 1))
    rows = haemodynamic_rows(values, times_s, read_s, "hrf_derivatives")
    for other in (HaemodynamicResponse(delay_s=6.6), HaemodynamicResponse(dispersion_s=1.3)):
        target = haemodynamic_rows(values, times_s, read_s, response=other)["hrf"]
        left = []
        for X in (rows["hrf"], np.concatenate(list(rows.values()), axis=1)):
            weights = np.linalg.lstsq(X, target, rcond=None)[0]
            left.append(np.square(target - X @ weights).sum() / np.square(target - target.mean()).sum())
        assert left[1] < 0.1 * left[0]


def test_what_responses_lost_leaves_the_features_story_by_story() -> None:
    rng = np.random.default_rng(2)
    groups, nuisance = np.repeat([7, 3], [150, 90]), [drift_basis(n, 2.0, 128.0) for n in (150, 90)]
    kept = rng.standard_normal((240, 2))
    for story, own in zip((slice(0, 150), slice(150, 240)), nuisance, strict=True):
        kept[story] -= own @ (own.T @ kept[story])
    drifts = np.concatenate([own @ rng.standard_normal((own.shape[1], 2)) * 50 for own in nuisance])
    found = take_out(kept + drifts, groups, nuisance)
    np.testing.assert_allclose(found, kept, atol=1e-4)
    np.testing.assert_allclose(take_out(found, groups, nuisance), found, atol=1e-5)
    twice = [np.column_stack([own, own[:, 1], np.zeros(len(own))]) for own in nuisance]
    np.testing.assert_allclose(take_out(kept + drifts, groups, twice), kept, atol=1e-4)


def test_bad_input_is_said() -> None:
    with pytest.raises(ValueError, match=r"no basis 'hrf_derivative'\. Did you mean 'hrf_derivatives'\\?"):
        haemodynamic_rows([[1.0]], [0.0], [0.0], "hrf_derivative")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"values have shape \(2, 1\), times \(1,\)"):
        haemodynamic_rows([[1.0], [1.0]], [0.0], [0.0])
    with pytest.raises(ValueError, match="times_s hold a value that is not finite"):
        haemodynamic_rows([[1.0]], [np.nan], [0.0])
    with pytest.raises(ValueError, match=r"delay_s is 1\.0 s and its dispersion_s 1\.0 s"):
        HaemodynamicResponse(delay_s=1.0)
    with pytest.raises(ValueError, match="ratio is 0; give a positive number"):
        HaemodynamicResponse(ratio=0)
    with pytest.raises(ValueError, match=r"need one array per story, of \[2, 1\]"):
        take_out(np.ones((3, 1)), [0, 0, 1], [np.ones((3, 1))])


@pytest.mark.usefixtures("alice")
def test_real_listeners_follow_words_through_the_response_and_only_on_time() -> None:
    scores = measure(None, None)
    r = {way: by_region.mean() for way, by_region in scores["word_rate"].items()}
    assert r["hrf, filtered"] > r["fir"] + 0.03
    assert r["hrf, filtered"] > 0.35
    assert r["auto, filtered"] > max(r["hrf, filtered"], r["hrf_derivatives, filtered"]) - 0.015
    assert r["hrf, filtered, 3 TRs late"] < 0
    page = (Path(__file__).parents[2] / "docs" / "time.md").read_text(encoding="utf-8")
    for line in table(scores).splitlines():
        assert line in page, "docs/time.md is not what python -m tests.benchmarks.alice_time says today"


def test_derivatives_follow_responses_that_neither_delays_nor_the_canonical_one_can() -> None:
    for peak_s in PEAKS_S.values():
        share = {name: followed(voxel(peak_s), fit) for name, fit in nearest(voxel(peak_s)).items()}
        assert share["hrf_derivatives"] > 0.99
        assert max(share["hrf"], share["fir"]) < 0.96


def test_the_example_of_the_page_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "time.md").read_text(encoding="utf-8")
    found: dict[str, object] = {}
    exec(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[0], found)
    assert np.shape(found["X"]) == (300, 3)


# --- Bands in several temporal forms ---


def test_a_band_in_several_forms_stands_for_an_array_of_rows() -> None:
    band = TemporalBand({"fir": np.ones((5, 2)), "hrf": np.arange(10.0).reshape(5, 2)})
    assert (len(band), band.shape, list(band.parts)) == (5, (5, 4), ["hrf", "fir"])
    assert (n_delayed(band, (1, 2, 3)), n_delayed(band.parts["fir"], (1, 2, 3))) == (2 + 6, 6)
    np.testing.assert_array_equal(band[np.array([3, 1])].parts["hrf"], [[6, 7], [2, 3]])
    assert band[1:].shape == (4, 4)
    assert band.is_open
    with pytest.raises(ValueError, match="weights of the parts hrf, fir are not chosen yet"):
        band.prior.get("hrf")
    weighed = TemporalBand(band.parts, {"hrf": 3, "fir": 1})
    assert weighed.prior == {"hrf": 0.75, "fir": 0.25}
    assert list(TemporalBand(band.parts, {"hrf": 2}).used_parts().parts) == ["hrf"]
    assert [list(parts_of(name)) for name in ("fir", "hrf")] == [["fir"], ["hrf"]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: parts_of("hfr"), "Did you mean 'hrf'?"),
        (lambda: TemporalBand({"derivative": np.ones((3, 1))}), "Did you mean 'derivatives'?"),
        (lambda: TemporalBand({}), "same rows in all"),
        (lambda: TemporalBand({"hrf": np.ones(3)}), "same rows in all"),
        (lambda: TemporalBand({"hrf": np.ones((3, 1)), "fir": np.ones((4, 1))}), "same rows in all"),
        (lambda: TemporalBand({"hrf": np.ones((3, 1))}, {"hrf": -1.0}), "none negative"),
        (lambda: TemporalBand({"hrf": np.ones((3, 1))}, {"fir": 1.0}), "for the parts hrf"),
        (lambda: ProbeConfig(temporal="hrv"), "Did you mean 'hrf'?"),  # type: ignore[arg-type]
        (lambda: ProbeConfig(temporal={"low_level": "ato"}), "Did you mean 'auto'?"),  # type: ignore[dict-item]
        (lambda: ProbeConfig(bin_s=2.0), "bin_s is 2.0"),
    ],
)
def test_forms_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_the_purge_covers_what_the_response_reaches_back() -> None:
    assert ProbeConfig(temporal="fir").purge == ProbeConfig(temporal=dict.fromkeys(BANDS, "fir")).purge == 8
    convolving = (ProbeConfig(), ProbeConfig(temporal="hrf"), ProbeConfig(temporal={"semantic": "fir"}))
    assert [config.purge for config in convolving] == [10, 10, 10]
    assert ProbeConfig(temporal="hrf", delays_trs=(6,)).purge == 12
    assert ProbeConfig(temporal="hrf", purge_trs=3).purge == 3
    mixed = ProbeConfig(temporal={"low_level": "hrf"})
    assert [mixed.temporal_of(name) for name in ("low_level", "low_level/rates", "backbone")] == [
        *("hrf", "hrf"),
        DEFAULT_TEMPORAL,
    ]
