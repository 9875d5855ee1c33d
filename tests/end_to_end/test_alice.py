"""Ten real listeners, by the same command as everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brainlit.cli import main
from tests.matrix import mini_folder

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("alice")
def test_real_listeners_run_to_a_report_that_claims_no_more_than_they_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    configs = [f"experiments/{name}.yaml" for name in ("brain_tune", "model/wav2vec", "data/alice")]
    arguments = [
        *(part for config in configs for part in ("-c", config)),
        *("--data.store_dir", str(tmp_path / "store"), "--run.root", str(tmp_path), "--run.id", "alice"),
        *("--model.backbone.weights", f"random:{mini_folder(tmp_path / 'mini')}", "--trainer.max_epochs", "1"),
        *("--trainer.accelerator", "cpu"),
        *("--run.wandb", "off"),
    ]
    assert main(["fit", *arguments]) == 0
    run = tmp_path / "brain_tune" / "alice"
    summary = json.loads((run / "summary.json").read_text())
    regions = {row["region"] for row in summary["scores"]}
    assert regions == {"LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG", "all voxels"}
    assert len(summary["probe"]["subjects"]) == 10
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "s33: every column is constant or holds NaN (see s33.txt)" in page
    limits = " ".join(summary["limits"])
    assert "One held-out story" in limits
    assert "no noise ceiling" in limits
    assert not any("semantic" in row["metric"] for row in summary["scores"]), "no word vectors, no semantic band"
