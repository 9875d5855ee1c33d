"""Cleaning equals one explicit regression; confounds come from the table that fMRIPrep writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.stories.readers.cleaning import CleaningError, clean_series, drift_basis, read_confounds, zscore

TR_S, N_TRS = 2.0, 200
Array = np.ndarray[Any, Any]


def _values(n_columns: int = 4, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return 1000 + rng.normal(size=(N_TRS, n_columns)).cumsum(axis=0)


def _explicit(values: Array, design: Array) -> Array:
    """z-scores of what least squares on a constant and the design leaves."""
    design = np.column_stack([np.ones(N_TRS), design])
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return (rest - rest.mean(axis=0)) / rest.std(axis=0)


def _cosines(ks: Any) -> Array:
    return np.cos(np.pi * np.outer(np.arange(N_TRS) + 0.5, ks) / N_TRS)


@pytest.mark.parametrize(("period_s", "kept"), [(1200, False), (300, False), (60, True), (20, True)])
def test_what_is_slower_than_the_limit_goes_and_the_rest_stays(period_s: float, kept: bool) -> None:
    wave = np.sin(2 * np.pi * TR_S * np.arange(600) / period_s)
    beside = np.cos(np.pi * np.arange(600))  # the fastest there is, far from the wave
    r_before = np.corrcoef(wave + beside, wave)[0, 1]
    r = np.corrcoef(clean_series((wave + beside)[:, None], TR_S, 128.0)[:, 0], wave)[0, 1]
    assert r < 0.2 * r_before if not kept else r > 0.95 * r_before


def test_without_limits_and_confounds_columns_are_only_z_scored() -> None:
    assert np.allclose(clean_series(_values(), TR_S, None), zscore(_values()), atol=1e-4)


def test_a_recording_too_short_for_a_cosine_loses_its_trend() -> None:
    wiggle = np.array([1.0, -1] * 10)
    cleaned = clean_series((5 * np.arange(20) + wiggle)[:, None], TR_S, 128.0)[:, 0]
    assert np.corrcoef(cleaned, wiggle)[0, 1] > 0.98


def test_drift_noise_and_confounds_go_in_one_regression() -> None:
    confounds = np.column_stack([_values(2, seed=1), np.full(N_TRS, 3.0)])
    slow, fast = _cosines(range(1, 7)), _cosines(range(81, N_TRS))  # 2 * 200 * 2 s / 128 s = 6.25; / 10 s = 80
    design = np.column_stack([slow, np.arange(N_TRS), confounds[:, :2], fast])
    cleaned = clean_series(_values(), TR_S, 128.0, low_pass_s=10.0, confounds=confounds)
    assert cleaned.dtype == np.float32
    assert np.allclose(cleaned, _explicit(_values(), design), atol=1e-4)
    only = clean_series(_values(), TR_S, None, confounds=confounds)
    assert np.allclose(only, _explicit(_values(), confounds[:, :2]), atol=1e-4)


def test_it_agrees_with_nilearn() -> None:
    from nilearn.signal import clean as nilearn_clean

    confounds = np.random.default_rng(1).normal(size=(N_TRS, 3))
    theirs = nilearn_clean(
        _values(), confounds=confounds, standardize="zscore_sample", filter="cosine", high_pass=1 / 128, t_r=TR_S
    )
    ours = clean_series(_values(), TR_S, 128.0, confounds=confounds)
    assert np.allclose(ours, theirs * np.sqrt(N_TRS / (N_TRS - 1)), atol=1e-4)


@pytest.mark.parametrize(("period_s", "kept"), [(300, False), (40, True), (6, False)])
def test_a_band_is_kept(period_s: float, kept: bool) -> None:
    wave = np.sin(2 * np.pi * TR_S * np.arange(N_TRS) / period_s)
    noise = np.random.default_rng(0).normal(0, 0.3, size=N_TRS)
    cleaned = clean_series((wave + noise)[:, None], TR_S, 128.0, low_pass_s=10.0)[:, 0]
    r = np.corrcoef(cleaned, wave)[0, 1]
    assert r > 0.8 if kept else abs(r) < 0.1


def test_limits_beyond_all_cosines_are_no_trouble() -> None:
    assert np.allclose(clean_series(_values(), TR_S, 1e300, 1e-300), clean_series(_values(), TR_S, 1e6), atol=1e-5)
    with pytest.raises(CleaningError, match="take all of 200 rows out"):
        clean_series(_values(), TR_S, 1e-300)


def test_columns_without_data_come_back_as_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.column_stack([_values(3), np.full(N_TRS, 7.1), np.arange(N_TRS) * 0.3, _values(1, seed=2) * 2])
    values[5, 1], values[7, 2] = np.nan, np.inf
    whole = clean_series(values, TR_S)
    assert np.isnan(whole).all(axis=0).tolist() == [False, True, True, True, True, False]
    assert np.isfinite(whole[:, [0, 5]]).all()
    monkeypatch.setattr("brainlit.stories.readers.cleaning._COLUMNS_AT_ONCE", 1)
    assert np.allclose(clean_series(values, TR_S), whole, atol=1e-6, equal_nan=True)
    assert np.isnan(clean_series(np.full((N_TRS, 2), np.nan), TR_S)).all()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(CleaningError, match=r"confounds have shape \(199, 4\).*need 200 finite rows"):
        clean_series(_values(), TR_S, confounds=_values()[1:])
    with pytest.raises(CleaningError, match=r"together take all of 200 rows out\. Use fewer"):
        clean_series(_values(), TR_S, low_pass_s=200.0)


CONFOUNDS = "trans_x\trot_x\ttrans_x_derivative1\tcsf\n1\t0.1\tn/a\t5\n2\t0.2\t1\t6\n3\t0.3\t1\t7.5\n"


def test_confounds_are_chosen_by_name_and_pattern(tmp_path: Path) -> None:
    path = tmp_path / "confounds.tsv"
    path.write_text(CONFOUNDS)
    expected = [[5, 1, 0], [6, 2, 1], [7.5, 3, 1]]
    assert read_confounds(path, ["csf", "trans_*", "trans_x"]).tolist() == expected, "once each, derivative begins at 0"
    path.write_bytes(b"\xef\xbb\xbf" + CONFOUNDS.replace("\n", "\r\n").encode())
    assert read_confounds(path, ["csf", "trans_*"]).tolist() == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("csf", "cfs", r"confounds\.tsv has no column 'csf'\. Did you mean 'cfs'"),
        ("\t6\n", "\tn/a\n", r"line 3: csf is 'n/a'; need a number"),
        ("\t6\n", "\tsix\n", r"line 3: csf is 'six'"),
        ("\t6\n", "\n", r"line 3: 3 columns, but 4 in the lines before"),
        (CONFOUNDS, "", "no table with a header"),
        ("trans_x\t", "tr\udce4ns_x\t", r"is not UTF-8 at byte 2"),
    ],
)
def test_a_wrong_table_of_confounds_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "confounds.tsv"
    path.write_text(CONFOUNDS.replace(old, new, 1), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(CleaningError, match=message):
        read_confounds(path, ["csf"])
    with pytest.raises(FileNotFoundError):
        read_confounds(tmp_path / "none.tsv", ["csf"])


# --- drift
# What counts as slow, and z-scores.


TR_S_drift, N_TRS_drift = 2.0, 300


def test_the_basis_is_orthonormal_and_holds_what_is_slow() -> None:
    basis = drift_basis(N_TRS_drift, TR_S_drift, 128.0)
    assert basis.shape == (N_TRS_drift, 1 + 9 + 1), "constant, cosines with periods 1200 / k >= 128 s, line"
    assert np.allclose(basis.T @ basis, np.eye(11), atol=1e-10)
    cosines = np.cos(np.pi * np.outer(np.arange(N_TRS_drift) + 0.5, np.arange(10)) / N_TRS_drift)
    wanted = np.column_stack([cosines, np.arange(N_TRS_drift)])
    assert np.allclose(basis @ (basis.T @ wanted), wanted)


def test_columns_without_data_have_no_z_scores() -> None:
    rng = np.random.default_rng(1)
    values = np.column_stack([rng.normal(100, 3, N_TRS_drift), np.full(N_TRS_drift, 7.1), rng.normal(size=N_TRS_drift)])
    values[4, 2] = np.nan
    scored = zscore(values)
    assert np.isnan(scored).all(axis=0).tolist() == [False, True, True]
    assert np.allclose([scored[:, 0].mean(), scored[:, 0].std()], [0, 1])
