"""The cost of the whole paper: operations and seconds against numbers worked out by hand, and what the command says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brainlit.cli import main
from brainlit.cli.paper_cost import (
    GPU_SHARE,
    RECORDED,
    Rates,
    Regime,
    Study,
    forward_operations,
    gpu_rates,
    measured_rates,
    seconds_of,
    training_operations,
)

SMALL = Study(
    families=("wav2vec",),
    n_voxels=(100, 50),
    regimes={"brain": Regime(2), "stimulus": Regime(3, per_subject=False)},
    n_seeds=2,
    n_tune_trs=10,
    n_trs=20,
    window_s=1.0,
    probed_s=2.0,
    n_layers=2,
    n_mixtures=3,
    n_folds=4,
    n_components=10,
    downstream_s=5.0,
)


def test_operations_are_those_worked_out_by_hand() -> None:
    # one second: 32,768,000 + 524,288 x 9,300 in the convolutions; 50 frames x 2 x 84,934,656 weights and
    # 4 x 12 x 50^2 x 768 of attention in the transformer
    assert forward_operations("wav2vec", 1.0) == 4_908_646_400 + 8_493_465_600 + 92_160_000
    assert training_operations("wav2vec", 1.0) == 13_494_272_000 + 2 * 8_585_625_600
    # two seeds: 2 x 2 subjects x 2 epochs of brain, 2 x 3 of stimulus; 10 windows an epoch
    assert SMALL.operations() == {
        "training": 14 * 10 * 30_665_523_200,
        # the pretrained, 4 brain and 2 stimulus models; 20 windows of 2 s, of 27,172,864,000 each
        "features": 7 * 20 * 27_172_864_000,
        # pretrained, 2 x brain, 2 x stimulus for both subjects: 2 x 3 x 4 x (2 x 9,000 + 4 x 100 x 150)
        "probes": 5 * 24 * 78_000,
        "downstream": 7 * 5 * 13_494_272_000,
    }


def test_whisper_encodes_thirty_seconds_for_short_windows_only() -> None:
    assert forward_operations("whisper", 10.0) == forward_operations("whisper", 14.0)
    thirty = 1500 * 2 * 84_934_656 + 4 * 12 * 1500**2 * 768
    assert forward_operations("whisper", 10.0) == thirty
    assert forward_operations("whisper", 18.0) < 0.6 * thirty


def test_seconds_are_operations_over_the_rate_of_their_kind() -> None:
    rates = Rates(training=10.0, forward=5.0, ridge=2.0, source="")
    parts = {"training": 100.0, "features": 100.0, "probes": 100.0, "downstream": 10.0}
    assert seconds_of(parts, rates, 2) == {"training": 5.0, "features": 10.0, "probes": 25.0, "downstream": 1.0}
    assert gpu_rates("H200").ridge == pytest.approx(GPU_SHARE * 67e12)


def bench_file(path: Path, **more: Any) -> Path:
    rows = [
        {"name": "step", "operations": 100e9, "ours_s": 2.0, "size": "full"},
        {"name": "banded", "operations": 90e9, "ours_s": 3.0},
        {"name": "features_per_tr", "ours_s": 4.0, "sizes": {"context s": 16.0}},
    ]
    machine = {"processor": "Some Core", "threads": 2}
    path.write_text(json.dumps({"date": "2026-01-02T03:04", "machine": machine, "rows": rows, **more}))
    return path


def test_rates_come_from_a_file_of_the_suite(tmp_path: Path) -> None:
    found = measured_rates(bench_file(tmp_path / "bench.json"))
    assert (found.training, found.ridge) == (25e9, 15e9), "of one core, where two threads were used"
    assert found.forward == pytest.approx(forward_operations("wav2vec", 18.0) / 4 / 2)
    assert "2026-01-02: Some Core" in found.source


def test_the_command_prints_costs_and_assumptions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--paper"]) == 0
    said = capsys.readouterr().out
    assert "an estimate" in said
    assert "99 trainings, 102 models whose features are taken, 144 probes of one subject" in said
    assert "| one H200 | 8 A100 | 2 cores |" in said
    assert RECORDED.source in said
    assert main(["plan", "--paper", "--seeds", "3", "--bench", str(bench_file(tmp_path / "bench.json"))]) == 0
    said = capsys.readouterr().out
    assert "297 trainings" in said
    assert "Some Core" in said


def test_wrong_uses_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--paper", "-c", "demo"]) == 2
    assert "leave --paper out" in capsys.readouterr().err
    assert main(["plan", "--paper", "--seeds", "0"]) == 2
    assert main(["plan", "--paper", "--bench", str(tmp_path / "none.json")]) == 2
    assert "cannot be read as a file of make bench" in capsys.readouterr().err
    assert main(["plan", "--paper", "--bench", str(bench_file(tmp_path / "b.json", rows=[]))]) == 2
    assert "lacks step, features_per_tr, banded" in capsys.readouterr().err
