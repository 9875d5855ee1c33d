"""Warm up and decay by optimiser step."""

import pytest

from brainlit.tuning.schedule import warmup_linear_decay


@pytest.mark.parametrize("n_steps", [1, 2, 7, 132, 10_000])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_shape(n_steps, fraction):
    factors = [warmup_linear_decay(step, n_steps, fraction) for step in range(n_steps)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert warmup_linear_decay(n_steps, n_steps, fraction) == pytest.approx(0, abs=1e-9) or fraction == 1.0 == n_steps


def test_ends_near_zero_and_starts_above_it():
    """The published schedule of pitfall 19 ended at a factor of 0.988; another started an epoch at 0."""
    assert warmup_linear_decay(131, 132, 0.1) < 0.01
    assert warmup_linear_decay(0, 132, 0.1) == pytest.approx(1 / 13)
    assert warmup_linear_decay(12, 132, 0.1) == 1.0
    assert warmup_linear_decay(0, 132, 0.0) > 0.99
