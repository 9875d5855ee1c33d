"""A small ds003020 with real lengths and logs is downloaded, prepared, checked, tuned on and probed as users do it."""

from __future__ import annotations

import html
import json
from pathlib import Path

import numpy as np
import pytest

from brainlit.cli import main
from brainlit.encoding.result import ProbeResult
from tests.layouts.lebel2023 import REAL_LOGS, write_lebel2023
from tests.matrix import mini_folder
from tests.stories.local_server import LocalServer

ROOT = Path(__file__).parents[2]
STORIES = ("souls", "naked", "stagefright", "wheretheressmoke")


def test_download_prepare_check_train_and_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted = write_lebel2023(tmp_path / "ds003020", stories=STORIES, noise=0.5)
    published = {str(file.relative_to(tmp_path)): file for file in planted.root.rglob("*") if file.is_file()}
    server = LocalServer({key: file.read_bytes() for key, file in published.items()}, bucket="openneuro.org")
    server.start()
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("BRAINLIT_LEBEL2023", str(tmp_path / "files"))
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))
    configs = [f"experiments/{name}.yaml" for name in ("brain_tune", "model/wav2vec", "data/lebel2023")]
    options = [
        *(part for config in configs for part in ("-c", config)),
        *("--data.subjects", "[UTS03]", "--data.source.init_args.stories", f"[{','.join(STORIES)}]"),
        *("--data.source.init_args.tr_reports", str(planted.root / "derivative" / "tr_reports")),
        *("--data.store_dir", str(tmp_path / "store")),
    ]
    assert main(["data", "prepare", "--download", *options]) == 0
    server.stop()
    fetched = {str(file.relative_to(tmp_path / "files")) for file in (tmp_path / "files").rglob("*.*")}
    assert {"stimuli/souls.wav", "derivative/TextGrids/naked.TextGrid", "derivative/english1000sm.hf5"} <= fetched
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "store").rglob("*.h5")}
    assert main(["data", "prepare", *options]) == 0
    assert {file: file.stat().st_mtime_ns for file in made} == made
    capsys.readouterr()
    assert main(["data", "check", *options, "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert not [finding for finding in findings if finding["level"] != "info"], findings

    mini = f"random:{mini_folder(tmp_path / 'mini')}"  # what it hears has real lengths, so it is smaller than tiny
    small = ("--model.backbone.weights", mini, "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu")
    where = ("--run.root", str(tmp_path / "runs"), "--run.id", "lebel", "--run.wandb", "off")
    assert main(["fit", *options, *small, *where]) == 0
    run = tmp_path / "runs" / "brain_tune" / "lebel"
    page = html.unescape((run / "report.html").read_text(encoding="utf-8"))
    n_logs = sum((REAL_LOGS / f"{story}.report").is_file() for story in STORIES) or 3
    assert f"scanner's log for {n_logs} of 4 stories" in page
    assert "2.0045 s" in page

    result = ProbeResult.load(run / "probes" / "UTS03" / "epoch-000.h5")
    sound, meaning, null = (np.flatnonzero(planted.kinds == kind) for kind in ("sound", "meaning", "null"))
    assert np.median(result.r_by_model["low_level"][sound]) > 0.4
    assert np.median(result.r_by_model["semantic"][meaning]) > 0.4
    assert abs(np.mean(result.r_by_model["backbone+low_level+semantic"][null])) < 0.15
    assert result.n_dropped == 2, "one constant voxel and one with NaN"
    assert result.ceiling is not None
    assert np.nanmedian(result.ceiling[sound]) > np.nanmedian(result.ceiling[null])
