"""Every file under experiments/ builds what it describes, and says why it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainlit.cli.training import BrainlitCLI

ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "experiments").rglob("*.yaml"))
BASE = Path("experiments/brain_tune.yaml")
DEFAULTS = {"model": Path("experiments/model/wav2vec.yaml"), "data": Path("experiments/data/demo.yaml")}


def test_none_is_forgotten() -> None:
    assert [str(path) for path in FILES] == [
        "experiments/brain_tune.yaml",
        "experiments/data/alice.yaml",
        "experiments/data/alice_bids.yaml",
        "experiments/data/demo.yaml",
        "experiments/data/deniz2019.yaml",
        "experiments/data/lebel2023.yaml",
        "experiments/data/narratives.yaml",
        "experiments/data/petit_prince.yaml",
        "experiments/model/wav2vec.yaml",
    ]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_it_builds(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    chosen = {BASE: None, **dict.fromkeys((DEFAULTS | {path.parent.name: path}).values())}
    options = [part for file in chosen for part in ("-c", str(file))]
    small = ["--model.backbone.weights", "random:tiny", "--run.root", str(tmp_path), "--run.wandb", "off"]
    cli = BrainlitCLI("fit", [*options, *small])
    assert cli.run is not None
    cli.run.release()
    assert cli.model.backbone.family == "wav2vec"
    assert cli.datamodule.source.default_roles()["tune"]
    assert cli.trainer.max_epochs == 8
    assert (cli.run.path / "config.yaml").is_file()


@pytest.mark.parametrize("path", FILES, ids=str)
def test_its_head_says_question_command_cost_and_result(path: Path) -> None:
    head = [line for line in (ROOT / path).read_text().splitlines() if line.startswith("#")]
    for word in ("# Question:", "# Command:", "# Cost:", "# Result:"):
        assert any(line.startswith(word) for line in head), word
