import numpy as np
import pytest

from brainlit.features.per_tr import in_words, to_trs
from brainlit.timebase import TimeBase

IRREGULAR = TimeBase(np.cumsum([0.3, 1.4, 1.6, 1.5, 1.7, 1.3, 1.5, 1.45]), 1.5)
CLOCKS = [TimeBase.regular(12, 2.0045, -3.0), IRREGULAR, TimeBase.regular(1, 2.0)]


def lanczos_loop(values, times_s, clock):
    """The textbook sum, one value at a time."""
    out = np.zeros((clock.n_trs, values.shape[1]))
    for row, (start, end) in enumerate(zip(clock.tr_starts_s, clock.tr_ends_s, strict=True)):
        for value, time in zip(values, times_s, strict=True):
            t = ((start + end) / 2 - time) / clock.tr_s
            if abs(t) < 1e-12:
                out[row] += value
            elif abs(t) < 3:
                out[row] += value * 3 * np.sin(np.pi * t) * np.sin(np.pi * t / 3) / (np.pi * t) ** 2
    return out


def mean_loop(values, times_s, clock, combine):
    out = np.zeros((clock.n_trs, values.shape[1]))
    for row, (start, end) in enumerate(zip(clock.tr_starts_s, clock.tr_ends_s, strict=True)):
        inside = values[(times_s >= start) & (times_s < end)]
        if len(inside):
            out[row] = inside.mean(axis=0) if combine == "mean" else inside.sum(axis=0)
    return out


@pytest.mark.parametrize("clock", CLOCKS, ids=["regular", "irregular", "one row"])
@pytest.mark.parametrize("combine", ["mean", "sum"])
def test_both_ways_equal_an_explicit_loop(clock, combine):
    rng = np.random.default_rng(0)
    times_s, values = rng.uniform(-2, 20, 150), rng.standard_normal((150, 3))
    lanczos = to_trs(values, times_s, clock, combine, "lanczos")
    np.testing.assert_allclose(lanczos, lanczos_loop(values, times_s, clock), atol=1e-5)
    np.testing.assert_allclose(
        to_trs(values, times_s, clock, combine), mean_loop(values, times_s, clock, combine), atol=1e-5
    )
    assert lanczos.dtype == np.float32


def test_lanczos_passes_on_what_is_slow_and_removes_what_is_fast():
    clock, times_s = TimeBase.regular(100, 2.0), np.arange(0, 200, 0.01)
    slow, fast = np.sin(2 * np.pi * 0.05 * times_s), np.sin(2 * np.pi * 0.7 * times_s)
    rows = to_trs(np.column_stack([slow, fast]), times_s, clock, "mean", "lanczos")[5:-5] / 200
    middles_s = np.arange(100)[5:-5] * 2.0 + 1.0
    np.testing.assert_allclose(rows[:, 0], np.sin(2 * np.pi * 0.05 * middles_s), atol=0.03)
    np.testing.assert_allclose(rows[:, 1], 0, atol=0.02)


def test_no_events_give_zeros():
    for per_tr in ("mean", "lanczos"):
        assert not to_trs(np.zeros((0, 2)), [], IRREGULAR, "sum", per_tr).any()


def test_the_source_says_which():
    assert in_words("mean", "lanczos") == in_words("sum", "lanczos")
    assert "Lanczos" in in_words("sum", "lanczos")
