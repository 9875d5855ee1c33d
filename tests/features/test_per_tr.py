import numpy as np
import pytest

from brainlit.features import lanczos_matrix, lanczos_resample
from brainlit.features.per_tr import binned_frames, events, in_words, to_trs
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


# --- Their own rate ---


def bins_loop(values, hop_s, bin_s=0.1):
    """Frame by frame into the bin that holds the frame's middle; an empty part of the last bin counts as 0."""
    start_s, end_s = -hop_s / 2, (len(values) - 0.5) * hop_s
    bins = [[] for _ in range(int(np.ceil((end_s - start_s) / bin_s - 1e-9)))]
    for k, value in enumerate(values):
        bins[int((k * hop_s - start_s) // bin_s)].append(value)
    means = [np.mean(inside, axis=0) for inside in bins]
    means[-1] = means[-1] * (end_s - start_s - bin_s * (len(bins) - 1)) / bin_s
    return np.array(means), start_s + (np.arange(len(bins)) + 0.5) * bin_s


@pytest.mark.parametrize("n_frames", [1, 7, 10, 11, 60, 1201, 12_345])
def test_frames_are_kept_as_means_of_a_tenth_of_a_second(n_frames):
    frames = np.random.default_rng(0).standard_normal((n_frames, 2)).astype(np.float32)
    if n_frames == 1:
        assert len(binned_frames(frames, [0.0]).values) == 1
        return
    timed = binned_frames(frames, np.arange(n_frames) * 0.01)
    values, times_s = bins_loop(frames, 0.01)
    np.testing.assert_allclose(timed.values, values, atol=1e-6)
    np.testing.assert_allclose(timed.times_s, times_s, atol=1e-9)
    assert timed.duration_s == 0.1
    assert timed.values.dtype == np.float32
    np.testing.assert_allclose(timed.values.sum(axis=0) * 0.1, frames.sum(axis=0) * 0.01, atol=1e-4)


@pytest.mark.parametrize("hop_s", [0.010023, 0.02, 0.03])
def test_frames_that_do_not_divide_a_bin_are_still_means(hop_s):
    times_s = np.arange(500) * hop_s
    timed = binned_frames(np.column_stack([np.ones(500), times_s]), times_s)
    np.testing.assert_allclose(timed.values[:-1, 0], 1, atol=1e-6)
    np.testing.assert_allclose(timed.values[:-1, 1], timed.times_s[:-1], atol=hop_s)


def test_frames_as_long_as_a_bin_stay_as_they_are():
    timed = binned_frames(np.arange(5.0)[:, None], np.arange(5) * 0.5 + 0.25)
    assert timed.values.ravel().tolist() == [0, 1, 2, 3, 4]
    assert timed.duration_s == 0.5
    assert timed.times_s.tolist() == [0.25, 0.75, 1.25, 1.75, 2.25]
    assert binned_frames(np.zeros((0, 3)), []).values.shape == (0, 3)


def test_events_stand_in_the_order_of_their_times():
    timed = events([[1], [2], [3]], [2.0, 1.0, 2.0])
    assert timed.times_s.tolist() == [1.0, 2.0, 2.0]
    assert timed.values.ravel().tolist() == [2, 1, 3]
    assert timed.duration_s is None
