"""Scanner logs: the real ones say what is known of them, and a damaged one is refused by line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainlit.stories.base import SourceError
from brainlit.stories.readers.scanner_log import read_scanner_log
from brainlit.timebase import fill_missed_triggers
from tests.layouts.lebel2023 import LOGGED, REAL_LOGS, VOLUMES, write_log

N_VOLUMES = 60
GOOD = "0.000000 init-trigger\n1.990000 trigger\n3.994000 trigger\n4.100000 sound-start\n6.002000 trigger\n"
STOP = "5.000000 sound-stop\n"

real_logs = pytest.mark.skipif(not REAL_LOGS.is_dir(), reason="the real logs are not here (BRAINLIT_FACTS)")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "story.report"


@real_logs
@pytest.mark.parametrize("story", LOGGED)
def test_real_logs_have_a_trigger_per_volume_and_one_mean_tr(story: str) -> None:
    log = read_scanner_log(REAL_LOGS / f"{story}.report")
    filled_s, missed = fill_missed_triggers(log.triggers_s, tr_s=2.0045)
    assert len(filled_s) == VOLUMES[story] - 5
    assert len(missed) == (1 if story == "naked" else 0)
    assert (filled_s[-1] - filled_s[0]) / (len(filled_s) - 1) == pytest.approx(2.0045, abs=2e-4)
    assert log.sound_start_s == pytest.approx(10.023, abs=1e-3)
    assert log.sound_stop_s - log.sound_start_s > 590
    assert log.labels[0] == "init-trigger"
    assert log.labels[-1] == "sound-stop"
    assert log.labels.count("trigger") == len(log.triggers_s) - 1


def test_reads_what_is_written(report: Path) -> None:
    report.write_bytes((GOOD + STOP).replace("\n", "\r\n").encode() + b"\n \n")
    log = read_scanner_log(report)
    assert log.triggers_s.tolist() == [0.0, 1.99, 3.994, 6.002]
    assert (log.sound_start_s, log.sound_stop_s) == (4.1, 5.0)
    assert log.labels == ("init-trigger", "trigger", "trigger", "sound-start", "trigger", "sound-stop")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "init-trigger|sound-start"),
        (GOOD, 5, "ends without sound-stop; was it cut off"),
        (GOOD.replace("4.100000 sound-start\n", "") + STOP, 5, "without sound-start"),
        (GOOD.replace("init-", "") + STOP, 6, "without init-trigger"),
        ("0.0 init-trigger\n0.1 sound-start\n0.2 sound-stop\n", 3, "without a trigger"),
        (GOOD + "7.900000 trigger\n" + GOOD.splitlines()[1] + "\n" + STOP, 7, "1.99 s follows 7.9 s of line 6"),
        (GOOD + "6.002000 trigger\n" + STOP, 6, "6.002 s follows 6.002 s of line 5"),
        (GOOD + "9.200000 trigger\n" + STOP, 6, "3.198 s after the trigger of line 5.*no whole number"),
        (GOOD + "8.000000 trigge\n" + STOP, 6, "Did you mean 'trigger'"),
        (GOOD + "8,000000 trigger\n" + STOP, 6, "is not 'seconds label'"),
        (GOOD + "-8.0 trigger\n" + STOP, 6, "is not 'seconds label'"),
        (GOOD + "nan trigger\n" + STOP, 6, "is not 'seconds label'"),
        (GOOD + "8.0\n" + STOP, 6, "is not 'seconds label'"),
        (GOOD + "7.0 sound-start\n" + STOP, 6, "second time; the first is in line 4"),
        (GOOD + "1.0 sound-stop\n", 4, "it must begin among them"),
        (GOOD + "8.000000 trigg\xe9r\n" + STOP, 6, "0xe9 is no text"),
        (
            "0.0 trigger\n" + GOOD.replace("0.000000", "0.500000") + STOP,
            2,
            "init-trigger comes after the trigger of line 1",
        ),
    ],
)
def test_what_is_not_understood_is_an_error_with_file_and_line(report: Path, text: str, line: int, words: str) -> None:
    report.write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError, match=words) as caught:
        read_scanner_log(report)
    assert str(caught.value).startswith(f"{report}, line {line}: ")
    assert "nominal clock" in str(caught.value)


def test_missing_log_is_named(report: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"story\.report"):
        read_scanner_log(report)


def _original(tmp: Path) -> Path:
    real = REAL_LOGS / "souls.report"
    if real.is_file():
        return real
    made = tmp / "made.report"
    write_log(made, N_VOLUMES, np.random.default_rng(0))
    return made


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_gives_the_right_times_or_one_error_with_file_and_line(data: st.DataObject, tmp_path: Path) -> None:
    original = _original(tmp_path)
    raw = original.read_bytes()
    truth = read_scanner_log(original)
    report = tmp_path / "damaged.report"
    report.write_bytes(_damaged(data, raw))
    try:
        log = read_scanner_log(report)
    except SourceError as error:
        problem = str(error)
    else:
        problem = None
    if problem is not None:
        assert re.match(rf"{re.escape(str(report))}, line \d+: ", problem)
        return
    filled_s, _ = fill_missed_triggers(log.triggers_s, tr_s=2.0045)
    true_s, _ = fill_missed_triggers(truth.triggers_s, tr_s=2.0045)
    assert np.abs(filled_s - true_s[: len(filled_s)]).max() < 0.5, "a trigger is at most a quarter of a TR off"
    assert np.searchsorted(true_s, log.sound_start_s) == np.searchsorted(true_s, truth.sound_start_s)


def _damaged(data: st.DataObject, raw: bytes) -> bytes:
    kind = data.draw(st.sampled_from(["cut", "flip", "drop", "double", "swap", "insert"]))
    place = data.draw(st.integers(0, len(raw) - 1))
    if kind == "cut":
        return raw[:place]
    if kind == "flip":
        return raw[:place] + bytes([raw[place] ^ (1 << data.draw(st.integers(0, 7)))]) + raw[place + 1 :]
    if kind == "insert":
        return raw[:place] + data.draw(st.binary(min_size=1, max_size=6)) + raw[place:]
    lines = raw.splitlines(keepends=True)
    k = data.draw(st.integers(0, len(lines) - 2))
    if kind == "drop":
        return b"".join(lines[:k] + lines[k + 1 :])
    if kind == "double":
        return b"".join([*lines[: k + 1], *lines[k:]])
    return b"".join([*lines[:k], lines[k + 1], lines[k], *lines[k + 2 :]])
