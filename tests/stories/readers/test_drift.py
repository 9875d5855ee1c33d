"""What counts as slow, and z-scores."""

from __future__ import annotations

import numpy as np

from brainlit.stories.readers.drift import drift_basis, zscore

TR_S, N_TRS = 2.0, 300


def test_the_basis_is_orthonormal_and_holds_what_is_slow() -> None:
    basis = drift_basis(N_TRS, TR_S, 128.0)
    assert basis.shape == (N_TRS, 1 + 9 + 1), "constant, cosines with periods 1200 / k >= 128 s, line"
    assert np.allclose(basis.T @ basis, np.eye(11), atol=1e-10)
    cosines = np.cos(np.pi * np.outer(np.arange(N_TRS) + 0.5, np.arange(10)) / N_TRS)
    wanted = np.column_stack([cosines, np.arange(N_TRS)])
    assert np.allclose(basis @ (basis.T @ wanted), wanted)


def test_columns_without_data_have_no_z_scores() -> None:
    rng = np.random.default_rng(1)
    values = np.column_stack([rng.normal(100, 3, N_TRS), np.full(N_TRS, 7.1), rng.normal(size=N_TRS)])
    values[4, 2] = np.nan
    scored = zscore(values)
    assert np.isnan(scored).all(axis=0).tolist() == [False, True, True]
    assert np.allclose([scored[:, 0].mean(), scored[:, 0].std()], [0, 1])
