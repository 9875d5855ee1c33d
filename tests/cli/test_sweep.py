"""One setting at several values: the plan, and a table that knows only the stories that choose. Nothing is trained."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from brainlit.cli import main, sweep
from brainlit.cli.training import parsed

ROOT = Path(__file__).parents[2]
SWEEP = ["sweep", "--key", "model.backbone_lr", "--values", "1e-3", "2e-3"]


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_every_value_meets_every_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, "--root", str(tmp_path), "--dry-run", "--trainer.max_epochs", "3"]) == 0
    *commands, count = capsys.readouterr().out.splitlines()
    fits = [shlex.split(command)[1:] for command in commands]
    assert [fit[fit.index("--run.id") + 1] for fit in fits] == ["1e-3-0", "2e-3-0", "1e-3-1", "2e-3-1"]
    config = parsed("fit", fits[3][1:]).resolved
    assert (config["model"]["backbone_lr"], config["seed_everything"]) == (2e-3, 1)
    assert (config["run"]["experiment"], config["trainer"]["max_epochs"]) == ("sweep-model.backbone_lr", 3)
    assert count == "0 of 4 runs are finished."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--key", "model.backbone_lrr", "--values", "1"], "Did you mean --model.backbone_lr?"),
        (["--key", "model.layer", "--values", "[-1]", "1"], "give values that make different folder names"),
        (["--key", "model.layer", "--values", "1", "--regime", "brian"], "Did you mean 'brain'?"),
        (["--key", "model.layer", "--values", "1", "--quick"], "there is no option '--quick'"),
        (["--key", "run.id", "--values", "1"], "--run.id is set for each run"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", *arguments, "--root", str(tmp_path), "--dry-run"]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def paths(tmp_path: Path) -> dict[tuple[str, int], Path]:
    """Four runs; by their loss 2e-3 is best, by their alignment 1e-3."""
    found = {}
    for value, losses in {"1e-3": (0.8, 0.7), "2e-3": (0.6, 0.5)}.items():
        for seed, loss in enumerate(losses):
            found[value, seed] = folder = tmp_path / f"{value}-{seed}"
            folder.mkdir()
            rows = ["epoch,test/r,val/loss", f"0,,{loss}", f"1,,{loss + 0.1}", "1,0.9,"]
            (folder / "metrics.csv").write_text("\n".join(rows))
    return found


def test_values_are_compared_by_the_loss_of_the_best_epoch(paths: dict[tuple[str, int], Path]) -> None:
    lines = sweep.table("model.backbone_lr", ["1e-3", "2e-3"], [0, 1], paths).splitlines()
    assert lines[2:4] == ["| 1e-3 | 0.8000 | 0.7000 | 0.7500 |", "| 2e-3 | 0.6000 | 0.5000 | 0.5500 |"]
    assert lines[-2].startswith("val/loss on the stories that choose")
    assert lines[-2].endswith("model.backbone_lr 2e-3.")
    assert lines[-1] == "The scored stories were not looked at."


def test_alignment_on_stories_that_choose_goes_before_the_loss(paths: dict[tuple[str, int], Path]) -> None:
    for (value, seed), path in paths.items():
        if (value, seed) == ("2e-3", 1):
            assert "val/loss on" in sweep.table("lr", ["1e-3", "2e-3"], [0, 1], paths), "not all runs have it yet"
        chosen = {"by": "choose/semantic/r", "value": 0.5 if value == "1e-3" else 0.4}
        (path / "chosen.json").write_text(json.dumps(chosen))
    lines = sweep.table("lr", ["1e-3", "2e-3"], [0, 1], paths).splitlines()
    assert lines[2] == "| 1e-3 | 0.5000 | 0.5000 | 0.5000 |"
    assert lines[-2].startswith("choose/semantic/r on the stories that choose")
    assert lines[-2].endswith("(highest is best): lr 1e-3.")


def test_a_run_without_validation_is_refused(paths: dict[tuple[str, int], Path]) -> None:
    (paths["1e-3", 0] / "metrics.csv").write_text("epoch,test/r\n1,0.9\n")
    with pytest.raises(ValueError, match="has no val/loss: give the role 'choose' a story"):
        sweep.table("lr", ["1e-3", "2e-3"], [0, 1], paths)
