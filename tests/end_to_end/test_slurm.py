"""A grid of six runs on a real Slurm of one node: cut short in three ways, its daemon killed, and nothing lost."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import yaml

from brainlit.cli import main
from brainlit.cli.slurm import read_jobs
from brainlit.results.run_directory import RunDirectory
from tests.backbones.conftest import save_mini
from tests.cli.conftest import drawing_nothing
from tests.one_node_slurm import NoSlurmError, OneNodeSlurm, one_node_slurm

ROOT = Path(__file__).parents[2]
PATIENCE_S = 1200
NAMES = [f"{regime}-{seed}" for regime in ("brain", "permuted") for seed in (11, 12, 13)]
STEPS = 12


class Plain(pl.Callback):
    """No figures, and probes of one layer, as long as the process lives."""

    def __init__(self) -> None:
        self.entered = drawing_nothing()
        self.entered.__enter__()


class Held(pl.Callback):
    """Once in each run, in the middle of the third step of its second epoch, wait until told to go on."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: Any) -> None:
        name = Path(trainer.default_root_dir).name
        held = self.folder / f"held-{name}"
        if (trainer.current_epoch, trainer.fit_loop.batch_idx) == (1, 2) and not held.exists():
            held.touch()
            until = time.monotonic() + PATIENCE_S
            while not any((self.folder / go).exists() for go in ("go", f"go-{name}")) and time.monotonic() < until:
                time.sleep(0.05)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OneNodeSlurm]:
    pytest.importorskip("submitit", reason="brainlit submit needs submitit: pip install -e '.[slurm]'")
    try:
        with one_node_slurm(tmp_path / "slurm") as started:
            path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
            for name, value in {**started.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}.items():
                monkeypatch.setenv(name, value)
            yield started
    except NoSlurmError as error:
        pytest.skip(f"no Slurm can be started here: {error}")


def write_axes(folder: Path) -> Path:
    """Two regimes and three seeds of two epochs of six steps, held in the second one."""
    save_mini(folder / "mini")
    callbacks: list[dict[str, Any]] = [
        {"class_path": f"{__name__}.Plain"},
        {"class_path": f"{__name__}.Held", "init_args": {"folder": str(folder)}},
        {"class_path": "brainlit.callbacks.BandedRidgeProbe"},
        {"class_path": "brainlit.callbacks.RunReport"},
    ]
    content = {
        "axes": {"regime": ["brain", "permuted"], "seed": [11, 12, 13]},
        "options": {
            **{"data.source": "tests.toy.ToySource", "data.source.tr_s": 1.0, "data.store_dir": str(folder / "store")},
            **{"data.window.n_trs": 8, "data.batch_size": 2, "data.num_workers": 1},
            **{"model.backbone.weights": str(folder / "mini"), "run.wandb": "off"},
            **{"trainer.max_epochs": 2, "trainer.accelerator": "cpu", "trainer.log_every_n_steps": 1},
            **{"trainer.enable_progress_bar": False, "trainer.callbacks": callbacks},
        },
        "folder": str(folder / "runs" / "grid"),
        "slurm": {"time_min": 30, "cpus_per_task": 1, "array_parallelism": 2},
    }
    (folder / "axes.yaml").write_text(yaml.safe_dump(content))
    return folder / "axes.yaml"


def wait(what: str, is_so: Callable[[], object], folder: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > until:
            logs = [f"{log.name}: {log.read_text()[-1500:]}" for log in sorted((folder / "logs").rglob("*.txt"))]
            queue = subprocess.run(["squeue"], capture_output=True, text=True, check=False).stdout
            pytest.fail("\n".join([f"waited in vain for: {what}", queue, *logs]))
        time.sleep(0.2)


def states(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    capsys.readouterr()
    assert main(["status", str(folder), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {line["run"]: line["state"] for line in lines}


def steps(run: Path) -> list[int]:
    """The steps whose training loss was logged, in the order of the file."""
    with (run / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get("train/loss_step")]


def test_a_grid_survives_signals_requeues_and_the_death_of_a_daemon(
    slurm: OneNodeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = write_axes(tmp_path), tmp_path / "runs" / "grid"

    def held(*names: str) -> None:
        wait(f"{names} to be held", lambda: all((tmp_path / f"held-{name}").exists() for name in names), folder)

    def has_ended() -> bool:
        return not slurm.say("squeue", "--noheader")

    assert main(["submit", str(file)]) == 0
    assert "submitted 6 as job" in capsys.readouterr().out
    jobs = read_jobs(folder)
    held("brain-11", "brain-12")
    assert main(["submit", str(file)]) == 0
    assert capsys.readouterr().out == "0 of 6 runs are finished, 6 wait or run.\n", "none is submitted twice"
    assert states(folder, capsys) == dict(zip(NAMES, ["running"] * 2 + ["waiting"] * 4, strict=True))

    # as the time limit does; of the step, for of the job 22.05 reports failure where tasks of the array still wait
    slurm.say("scancel", "--signal=USR1", f"{jobs['brain-11']}.0")
    slurm.say("scontrol", "requeue", jobs["brain-12"])
    (tmp_path / "go-brain-11").touch()
    held("brain-13", "permuted-11")
    assert {states(folder, capsys)[name] for name in ("brain-11", "brain-12")} <= {"requeued", "running", "finished"}

    slurm.kill_node()
    time.sleep(1)
    slurm.start_node()
    wait("the node", lambda: "mix" in slurm.node_state() or "alloc" in slurm.node_state(), folder)
    slurm.say("scancel", jobs["permuted-11"])
    (tmp_path / "go").touch()
    wait("the end of all jobs", has_ended, folder)
    expected = dict.fromkeys(NAMES, "finished") | {"permuted-11": "stopped"}
    assert states(folder, capsys) == expected, (folder / "logs" / "report.txt").read_text()
    report = (folder / "logs" / "report.txt").read_text()
    assert "5 of 6 runs are finished.\nmissing: permuted-11\n" in report

    assert main(["submit", str(file)]) == 0
    assert "submitted 1 as job" in capsys.readouterr().out
    wait("the end of the last", has_ended, folder)
    assert states(folder, capsys) == dict.fromkeys(NAMES, "finished")
    last = (folder / "logs" / "report.txt").read_text().removeprefix(report)
    assert "6 of 6 runs are finished." in last
    assert "missing" not in last.partition("\n\n")[0]
    assert (folder / "report.html").is_file()

    starts = {name: len(RunDirectory.open(folder / name).status["starts"]) for name in NAMES}
    assert starts == dict.fromkeys(NAMES, 1) | dict.fromkeys(("brain-11", "brain-12", "permuted-11"), 2)
    assert "from hpc_ckpt_1.ckpt" in (folder / "logs" / "brain-11.txt").read_text()
    assert "from last.ckpt" in (folder / "logs" / "brain-12.txt").read_text()
    for name in NAMES:
        assert steps(folder / name) == list(range(STEPS)), name
