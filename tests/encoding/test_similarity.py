from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from brainlit.encoding.similarity import linear_cka, massive_dimensions, relative_change, standardised


def noise(seed: int, n_rows: int, n_features: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n_rows, n_features))


def slow_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """trace(K H L H), by its definition."""
    n = len(x)
    h = np.eye(n) - np.ones((n, n)) / n
    return float(np.trace(x @ x.T @ h @ y @ y.T @ h))


def slow_unbiased_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """A U-statistic: the mean over all ordered quadruples of different rows of K_ij (L_ij + L_qr - 2 L_iq)."""
    k, m = x @ x.T, y @ y.T
    terms = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in permutations(range(len(x)), 4)]
    return float(np.mean(terms))


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("n_x", "n_y"), [(3, 4), (12, 3), (12, 15)])
def test_equals_the_definition_with_more_or_fewer_rows_than_features(n_x: int, n_y: int, debiased: bool) -> None:
    x = noise(0, 8, n_x) + 2.0
    y = noise(1, 8, n_y) + 3 * x[:, :1]
    hsic = slow_unbiased_hsic if debiased else slow_hsic
    assert linear_cka(x, y, debiased) == pytest.approx(hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)))
    assert linear_cka(y, x, debiased) == pytest.approx(linear_cka(x, y, debiased))


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("n_rows", [200, 20])
def test_rotations_scalings_and_shifts_change_nothing_but_stretching_does(n_rows: int, debiased: bool) -> None:
    x, y = noise(2, n_rows, 40), noise(3, n_rows, 40)
    y[:, :10] += x[:, :10]
    rotation = np.linalg.qr(noise(4, 40, 40))[0]
    assert linear_cka(x, x @ rotation, debiased) == pytest.approx(1.0)
    moved = 1e-6 * (x @ rotation) + noise(5, 1, 40)
    assert linear_cka(moved, y, debiased) == pytest.approx(linear_cka(x, y, debiased), rel=1e-6)
    stretched = x * np.linspace(0.1, 10, 40)
    assert linear_cka(x, stretched, debiased) < 0.95


def test_independent_noise_looks_alike_in_few_rows_unless_debiased() -> None:
    values = {
        debiased: np.mean([linear_cka(noise(2 * k, 30, 100), noise(2 * k + 1, 30, 100), debiased) for k in range(20)])
        for debiased in (False, True)
    }
    assert values[False] > 0.6
    assert abs(values[True]) < 0.05


def test_features_that_do_not_vary_have_no_similarity() -> None:
    x = noise(6, 10, 3)
    for debiased in (False, True):
        assert np.isnan(linear_cka(x, np.full((10, 2), 0.1), debiased))
        assert np.isnan(linear_cka(np.zeros((10, 1)), x, debiased))


def test_relative_change_is_of_the_whole_array() -> None:
    x = noise(7, 10, 3)
    assert relative_change(x, 1.25 * x) == pytest.approx(0.25)
    assert relative_change(x, x) == 0
    assert np.isnan(relative_change(0 * x, x))


def test_what_cannot_be_compared_is_refused() -> None:
    x = noise(8, 6, 3)
    with pytest.raises(ValueError, match="6 rows and y 5"):
        linear_cka(x, x[1:])
    with pytest.raises(ValueError, match="at least 4"):
        linear_cka(x[:3], x[:3], debiased=True)
    with pytest.raises(ValueError, match=r"shape \(6,\)"):
        linear_cka(x[:, 0], x)
    with pytest.raises(ValueError, match="NaN or infinite"):
        linear_cka(np.where(x > 0, x, np.nan), x)
    with pytest.raises(ValueError, match="same rows and features"):
        relative_change(x, x[:, 1:])


def planted(seed: int, massive: int | None = 7) -> np.ndarray:
    """States of 300 rows and 64 dimensions of unlike sizes around means of their own, one of them massive."""
    rng = np.random.default_rng(seed)
    sizes, means = np.linspace(0.5, 2.0, 64), np.linspace(-3.0, 3.0, 64)
    if massive is not None:
        sizes[massive], means[massive] = 300.0, 900.0
    return means + sizes * rng.standard_normal((300, 64))


def test_a_massive_dimension_hides_a_change_of_all_others_from_plain_cka_and_not_in_units_of_sds() -> None:
    before, other = planted(0), planted(1)
    after = other.copy()
    after[:, 7] = before[:, 7]  # all dimensions are others now, but for the massive one
    assert linear_cka(before, after, debiased=True) > 0.999
    assert relative_change(before, after) < 0.02
    both = standardised(before), standardised(after, before)
    assert abs(linear_cka(*both, debiased=True)) < 0.05
    assert relative_change(*both) == pytest.approx(np.sqrt(2 * 63 / 64), rel=0.05)


def test_a_massive_dimension_that_alone_changes_is_one_of_many() -> None:
    before = planted(0)
    after = before.copy()
    after[:, 7] = planted(1)[:, 7]
    assert linear_cka(before, after, debiased=True) < 0.05
    both = standardised(before), standardised(after, before)
    assert linear_cka(*both, debiased=True) > 0.95
    assert relative_change(*both) == pytest.approx(np.sqrt(2 / 64), rel=0.1)


def test_massive_dimensions_are_counted_and_ordinary_ones_never() -> None:
    assert np.flatnonzero(massive_dimensions(planted(0))).tolist() == [7]
    assert not massive_dimensions(planted(0, massive=None)).any()
    assert not massive_dimensions(np.zeros((10, 64))).any()
    assert not massive_dimensions(noise(0, 20, 2) * [1, 100]).any()


def test_units_are_those_of_the_other_states_and_what_hardly_varies_does_not_blow_up() -> None:
    before = planted(0)
    by_hand = (planted(1) - before.mean(axis=0)) / before.std(axis=0)
    np.testing.assert_allclose(standardised(planted(1), before), by_hand)
    before[:, 3] = 5.0
    moved = standardised(before + 0.1, before)
    assert np.abs(moved[:, 3]).max() == pytest.approx(0.1 / (0.1 * np.median(np.delete(before.std(axis=0), 3))))
    assert not standardised(np.ones((5, 3))).any()
    with pytest.raises(ValueError, match="need the same ones"):
        standardised(before, before[:, 1:])
