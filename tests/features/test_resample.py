import numpy as np
import pytest

from brainlit.features import lanczos_matrix, lanczos_resample


def explicit_loop(values, old_s, new_s, window, cutoff_hz):
    """The textbook sum, one sample at a time."""
    out = np.zeros((len(new_s), values.shape[1]))
    for i, new in enumerate(new_s):
        for j, old in enumerate(old_s):
            t = 2 * cutoff_hz * (new - old)
            if abs(t) < 1e-12:
                weight = 1.0
            elif abs(t) < window:
                weight = window * np.sin(np.pi * t) * np.sin(np.pi * t / window) / (np.pi * t) ** 2
            else:
                weight = 0.0
            out[i] += weight * values[j]
    return out


@pytest.mark.parametrize("tr_s", [1.5, 2.0, 2.0045])
def test_equals_the_explicit_double_loop(tr_s):
    rng = np.random.default_rng(0)
    old_s, new_s = np.sort(rng.uniform(0, 60, 150)), 1.0 + np.arange(20) * tr_s
    values = rng.standard_normal((150, 3))
    expected = explicit_loop(values, old_s, new_s, 3, 1 / (2 * tr_s))
    np.testing.assert_allclose(lanczos_resample(values, old_s, new_s), expected, atol=1e-12)


def test_blocks_do_not_change_the_result_and_an_impulse_lands_where_it_was():
    tr_s, k = 2.0045, 400
    new_s = np.arange(600) * tr_s
    resampled = lanczos_resample(np.ones((1, 1)), [k * tr_s], new_s)
    assert resampled.argmax() == k
    np.testing.assert_allclose(np.delete(resampled, k), 0, atol=1e-9)


def test_window_and_cutoff_change_the_kernel():
    old_s, new_s = np.arange(0, 40, 0.1), np.arange(0, 40, 2.0)
    wide = lanczos_matrix(old_s, new_s, window=3)
    assert ((wide != 0).sum(axis=1) > (lanczos_matrix(old_s, new_s, window=1) != 0).sum(axis=1)).all()
    assert not np.allclose(wide, lanczos_matrix(old_s, new_s, cutoff_hz=0.125))


@pytest.mark.parametrize(
    ("new_s", "options", "message"),
    [
        ([1.0], {}, "pass cutoff_hz"),
        ([1.0, 2.0], {"cutoff_hz": 0.0}, "must be a positive frequency"),
        ([2.0, 1.0], {}, "must be a positive frequency"),
        ([1.0, 2.0], {"window": 0}, "at least one lobe"),
        ([[1.0, 2.0]], {}, "one-dimensional"),
    ],
)
def test_bad_settings_are_refused(new_s, options, message):
    with pytest.raises(ValueError, match=message):
        lanczos_matrix([0.0, 1.0], new_s, **options)


def test_values_and_times_must_agree():
    with pytest.raises(ValueError, match="for 3 times"):
        lanczos_resample(np.ones((2, 1)), [0.0, 1.0, 2.0], [0.0, 1.0])
