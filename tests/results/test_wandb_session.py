from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from brainlit.results.wandb_session import SILENT, silence, wandb_mode


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "k" * 40}, "online"),
        ({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "online"}, "online"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
    ],
)
def test_wandb_mode_without_netrc(environ: dict[str, str], expected: str, tmp_path: Path) -> None:
    assert wandb_mode({"HOME": str(tmp_path), **environ}) == expected


@pytest.mark.parametrize(
    ("line", "base_url", "expected"),
    [
        ("machine api.wandb.ai login user password x\n", None, "online"),
        ("machine elsewhere.org login user password x\n", None, "offline"),
        ("machine wandb.lab.org login user password x\n", "https://wandb.lab.org", "online"),
        ("machine api.wandb.ai login user password x\n", "https://wandb.lab.org", "offline"),
        ("this is no netrc file\n", None, "offline"),
    ],
)
def test_wandb_mode_reads_netrc(line: str, base_url: str | None, expected: str, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(line)
    (tmp_path / ".netrc").chmod(0o600)
    environ = {"HOME": str(tmp_path), **({"WANDB_BASE_URL": base_url} if base_url else {})}
    assert wandb_mode(environ) == expected


# --- Silence ---


@pytest.mark.parametrize("said", [None, "false"])
def test_the_variable_is_as_it_was_afterwards(said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SILENT, raising=False)
    if said is not None:
        monkeypatch.setenv(SILENT, said)
    with silence(), silence():
        assert os.environ[SILENT] == (said or "true")
    assert os.environ.get(SILENT) == said
    with pytest.raises(ZeroDivisionError), silence():
        _ = 1 / 0
    assert os.environ.get(SILENT) == said


def test_a_run_says_nothing_and_the_users_own_run_after_it_speaks(tmp_path: Path) -> None:
    """In a process of its own: W&B reads its settings once. Its file of settings makes it speak, too."""
    code = """
import os, sys
from pathlib import Path

import wandb

from brainlit.results.run_directory import RunDirectory
from brainlit.results.wandb_logger import log_folder, wandb_logger

run = RunDirectory.create(Path(sys.argv[1]), "brain_tune", "one")
before = dict(os.environ)
logger = wandb_logger(run)
logger.log_metrics({"val/loss": 0.5}, step=0)
logger.finalize("success")
logger.experiment.finish()
log_folder(run, "probe", {"probe/x": 1.0}, {}, "offline")
after = dict(os.environ)
assert {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)} <= {"WANDB_SERVICE"}, after
print("the user's own", file=sys.stderr)
wandb.init(mode="offline", dir=sys.argv[1]).finish()
"""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    settings = tmp_path / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nbase_url = https://wandb.lab.org\n")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**environ, "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = (done.stdout + done.stderr).split("the user's own")
    assert "wandb:" not in ours
    assert "wandb: Tracking run" in theirs
