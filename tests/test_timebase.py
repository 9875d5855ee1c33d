"""The one clock: what is planted at TR k is found at TR k, early and late, on regular and on logged clocks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlit.timebase import SAMPLE_RATE_HZ, TimeBase, fill_missed_triggers

LOGS = Path(__file__).parents[2] / "shared" / "facts" / "lebel2023_tr_reports"
TRS_S = (1.5, 2.0, 2.0045)


def jittered(seed: int, n_trs: int = 420, tr_s: float = 2.0, mean_tr_s: float = 2.0045) -> TimeBase:
    """A clock like a scanner's log: intervals of 2.0045 s on average, each a few milliseconds off."""
    intervals_s = mean_tr_s + np.random.default_rng(seed).uniform(-0.015, 0.006, n_trs - 1)
    return TimeBase(np.concatenate([[10.02], 10.02 + np.cumsum(intervals_s)]), tr_s)


clocks = st.one_of(
    st.builds(
        TimeBase.regular,
        st.integers(401, 450),
        st.sampled_from(TRS_S),
        st.floats(-20, 20, allow_nan=False),
    ),
    st.builds(jittered, st.integers(0, 1000)),
)


@given(clock=clocks, k=st.integers(0, 400), place=st.floats(0.001, 0.999))
def test_impulse_planted_in_a_tr_is_found_there(clock: TimeBase, k: int, place: float) -> None:
    time_s = clock.tr_starts_s[k] + place * (clock.tr_ends_s[k] - clock.tr_starts_s[k])
    impulse = clock.average_per_tr([[1.0]], [time_s])
    assert np.flatnonzero(impulse[:, 0]).tolist() == [k]
    assert clock.trs_at(time_s) == k


@pytest.mark.parametrize("tr_s", TRS_S)
@pytest.mark.parametrize("k", [0, 1, 223, 400, 449])
def test_impulse_in_the_sound_falls_into_the_window_of_its_tr_only(tr_s: float, k: int) -> None:
    """Through samples: a click in the middle of TR k lies in that TR's window and in no neighbour's."""
    clock = TimeBase.regular(450, tr_s, onset_s=0.3)
    click = int(clock.samples_at((clock.tr_starts_s[k] + clock.tr_ends_s[k]) / 2))
    hearing = [row for row in range(450) if (w := clock.window_samples(row, 1))[0] <= click < w[1]]
    assert hearing == [k]
    start, stop = clock.window_samples(k, 1)
    assert abs((click - start) - (stop - start) / 2) <= 1


@given(clock=clocks, k=st.integers(0, 400))
def test_row_boundaries_belong_to_the_later_row(clock: TimeBase, k: int) -> None:
    assert clock.trs_at(clock.tr_starts_s[k]) == k
    assert clock.trs_at(np.nextafter(clock.tr_starts_s[k], -np.inf)) == k - 1
    assert clock.trs_at(clock.end_s) == -1


@given(
    clock=clocks,
    n_trs=st.integers(1, 30),
    context_s=st.floats(0, 20),
    shift_s=st.floats(-5, 5),
    rows=st.lists(st.integers(-10, 450), min_size=2, max_size=10),
)
def test_windows_have_one_length(
    clock: TimeBase, n_trs: int, context_s: float, shift_s: float, rows: list[int]
) -> None:
    for row in rows:
        start, stop = clock.window_samples(row, n_trs, context_s, shift_s)
        assert stop - start == clock.window_length(n_trs, context_s)


@given(clock=clocks, row=st.integers(-10, 450), n_trs=st.integers(1, 30), shift_s=st.floats(-5, 5))
def test_windows_end_with_their_last_row_to_half_a_sample(
    clock: TimeBase, row: int, n_trs: int, shift_s: float
) -> None:
    end_s = clock.tr_edges_s(row, n_trs)[-1] + shift_s
    _, stop = clock.window_samples(row, n_trs, 8.0, shift_s)
    assert abs(stop / SAMPLE_RATE_HZ - end_s) <= 0.5 / SAMPLE_RATE_HZ + 1e-9


def test_neighbouring_windows_touch_without_drift() -> None:
    """400 windows of one TR of 2.0045 s: no gap or overlap above one sample anywhere, none that adds up."""
    clock = TimeBase.regular(400, 2.0045)
    edges = np.array([clock.window_samples(k, 1) for k in range(400)])
    assert np.abs(edges[1:, 0] - edges[:-1, 1]).max() <= 1
    assert edges[-1, 1] == round(400 * 2.0045 * SAMPLE_RATE_HZ)


@given(clock=clocks, times_s=st.lists(st.floats(-50, 1000), max_size=40))
def test_rows_by_search_equal_a_loop(clock: TimeBase, times_s: list[float]) -> None:
    starts_s, ends_s = clock.tr_starts_s, clock.tr_ends_s
    for time_s, row in zip(times_s, clock.trs_at(times_s), strict=True):
        inside = [k for k in range(clock.n_trs) if starts_s[k] <= time_s < ends_s[k]]
        assert row == (inside[0] if inside else -1)


@given(samples=st.lists(st.integers(-(10**7), 10**8), min_size=1))
def test_samples_and_their_times_are_inverse(samples: list[int]) -> None:
    clock = TimeBase.regular(2, 2.0)
    assert clock.samples_at(clock.times_of_samples_s(samples)).tolist() == samples


@given(clock=clocks, first=st.integers(-20, 440), n_trs=st.integers(0, 40))
def test_edges_inside_are_the_log_and_outside_go_on_at_tr_s(clock: TimeBase, first: int, n_trs: int) -> None:
    edges_s = clock.tr_edges_s(first, n_trs)
    assert len(edges_s) == n_trs + 1
    for k, edge_s in enumerate(edges_s, start=first):
        if k < 0:
            expected = clock.tr_starts_s[0] + k * clock.tr_s
        elif k < clock.n_trs:
            expected = clock.tr_starts_s[k]
        else:
            expected = clock.tr_starts_s[-1] + (k - clock.n_trs + 1) * clock.tr_s
        assert edge_s == pytest.approx(expected, abs=1e-9)


def test_sums_means_and_counts_equal_a_loop() -> None:
    clock = jittered(3, n_trs=50)
    rng = np.random.default_rng(0)
    times_s, values = rng.uniform(0, 130, 300), rng.standard_normal((300, 3))
    rows = clock.trs_at(times_s)
    for k in range(50):
        here = values[rows == k]
        np.testing.assert_allclose(clock.sum_per_tr(values, times_s)[k], here.sum(axis=0), atol=1e-12)
        np.testing.assert_allclose(clock.average_per_tr(values, times_s)[k], here.sum(axis=0) / max(len(here), 1))
        assert clock.count_per_tr(times_s)[k] == len(here)


@pytest.mark.parametrize(
    ("starts_s", "tr_s", "message"),
    [
        ([0.0, 2.0, 6.0], 2.0, "TR 1 starts at 2.0000 s and TR 2 at 6.0000 s"),
        ([0.0, 2.0, 1.9], 2.0, "missing, doubled or out of order"),
        ([0.0, 2.0, 2.0], 2.0, "missing, doubled or out of order"),
        ([0.0, np.nan], 2.0, "finite"),
        ([], 2.0, "non-empty"),
        ([[0.0], [2.0]], 2.0, r"shape \(2, 1\)"),
        ([0.0, 2.0], 0.0, "tr_s is 0.0"),
        ([0.0, 2.0], np.nan, "tr_s is nan"),
    ],
)
def test_impossible_clocks_are_refused(starts_s: list[float], tr_s: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimeBase(np.array(starts_s), tr_s)


def test_impossible_questions_are_refused() -> None:
    clock = TimeBase.regular(10, 2.0)
    with pytest.raises(ValueError, match="sample_rate_hz is 0"):
        TimeBase.regular(10, 2.0, sample_rate_hz=0)
    with pytest.raises(ValueError, match="3 times"):
        clock.average_per_tr([[1.0], [2.0]], [0.0, 1.0, 2.0])


def test_the_clock_cannot_be_changed_by_its_maker() -> None:
    starts_s = np.arange(5) * 2.0
    clock = TimeBase(starts_s, 2.0)
    starts_s[0] = 99.0
    assert clock.tr_starts_s[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        clock.tr_starts_s[0] = 1.0


def test_missed_triggers_are_filled_and_named() -> None:
    full_s = jittered(5, n_trs=100).tr_starts_s
    filled_s, missed = fill_missed_triggers(np.delete(full_s, [30, 60, 61]), 2.0045)
    assert missed.tolist() == [30, 60, 61]
    assert np.abs(filled_s - full_s).max() < 0.02
    kept = np.setdiff1d(np.arange(100), missed)
    np.testing.assert_array_equal(filled_s[kept], full_s[kept])


def test_gaps_that_are_no_whole_trs_stay_and_are_refused() -> None:
    filled_s, missed = fill_missed_triggers([0.0, 2.0, 5.2, 7.2], 2.0)
    assert missed.size == 0
    with pytest.raises(ValueError, match="fill_missed_triggers"):
        TimeBase(filled_s, 2.0)


def read_log(path: Path) -> tuple[TimeBase, int]:
    """A scanner's report (seconds and label in each line) as a clock, and how many triggers it lacks."""
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    sound_s = next(float(time_s) for time_s, label in lines if label == "sound-start")
    triggers_s = [float(time_s) - sound_s for time_s, label in lines if label.endswith("trigger")]
    filled_s, missed = fill_missed_triggers(triggers_s, 2.0)
    return TimeBase(filled_s, 2.0), len(missed)


@pytest.mark.skipif(not LOGS.is_dir(), reason=f"the scanner logs are not at {LOGS}")
def test_real_scanner_logs_hold_their_windows_to_the_end() -> None:
    logs = sorted(LOGS.glob("*.report"))
    assert len(logs) == 13
    n_missed = {}
    for log in logs:
        clock, n_missed[log.stem] = read_log(log)
        assert 2.004 < np.diff(clock.tr_starts_s).mean() < 2.005
        windows = [clock.window_samples(k, 1, 8.0) for k in range(clock.n_trs)]
        assert {stop - start for start, stop in windows} == {160_000}
        middles_s = (clock.tr_starts_s + clock.tr_ends_s) / 2
        assert clock.trs_at(middles_s).tolist() == list(range(clock.n_trs))
    assert {story: n for story, n in n_missed.items() if n} == {"naked": 1}


@pytest.mark.skipif(not LOGS.is_dir(), reason=f"the scanner logs are not at {LOGS}")
def test_real_logs_have_the_published_number_of_volumes() -> None:
    """respdict.json counts five volumes of padding that the logs do not have."""
    published = json.loads((LOGS.parent / "lebel2023_respdict.json").read_text())
    for log in LOGS.glob("*.report"):
        assert read_log(log)[0].n_trs == published[log.stem] - 5
