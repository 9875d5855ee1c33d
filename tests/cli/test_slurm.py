"""What is said to Slurm, with stand-ins for its commands that write down what they are given."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from brainlit.cli import slurm
from brainlit.cli.slurm import SlurmError, check_settings, report_settings, sbatch_settings

Programs = Callable[[Mapping[str, str]], Path]
SBATCH = """
echo "$@" >> {folder}/calls
n=$(wc -l < {folder}/calls)
cp "$1" {folder}/script$n
echo Submitted batch job $((40 + n))
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Put shell scripts in place of Slurm's commands; returns where they write."""

    def put(scripts: Mapping[str, str]) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name, script in scripts.items():
            (folder / name).write_text("#!/bin/sh\n" + script.format(folder=folder))
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
        return folder

    return put


def flags(script: str) -> dict[str, str]:
    """What the lines #SBATCH of a script ask for."""
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH --")]
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines}


def test_cells_are_one_array_that_is_told_of_its_end_and_begins_again(tmp_path: Path, programs: Programs) -> None:
    pytest.importorskip("submitit", reason="make installs it, with the extra slurm")
    said = programs({"sbatch": SBATCH, "srun": ""})
    settings = {"partition": "gpu", "time_min": 90, "cpus_per_task": 4, "mem_gb": 1.5, "gpus_per_node": 1}
    settings |= {"array_parallelism": 2, "setup": ["module load cuda"], "more": {"reservation": "us"}}
    jobs = slurm.submit_cells(tmp_path / "grid", {name: ["fit", name] for name in "abc"}, settings)
    assert jobs == {"a": "41_0", "b": "41_1", "c": "41_2"}
    script = (said / "script1").read_text()
    asked = flags(script)
    expected = {"array": "0-2%2", "partition": "gpu", "time": "90", "cpus-per-task": "4", "mem": "1536M"}
    expected |= {"gpus-per-node": "1", "signal": "USR1@120", "requeue": "", "reservation": "us", "job-name": "grid"}
    assert {key: asked[key] for key in expected} == expected
    assert "module load cuda" in script
    assert " --cpus-per-task=4 " in script.splitlines()[-1], "of the step, too"

    assert slurm.submit_report(tmp_path / "grid", ["submit"], settings, [*jobs.values(), "7_3"]) == "42"
    last = flags((said / "script2").read_text())
    assert last["dependency"] == "afterany:41:7"
    assert not {"array", "gpus-per-node"} & last.keys()


def test_what_sbatch_says_is_told(tmp_path: Path, programs: Programs) -> None:
    pytest.importorskip("submitit", reason="make installs it, with the extra slurm")
    programs({"sbatch": "echo sbatch: error: invalid partition specified >&2; exit 1", "srun": ""})
    with pytest.raises(SlurmError, match="sbatch refuses: sbatch: error: invalid partition"):
        slurm.submit_cells(tmp_path, {"a": ["fit"]}, {})


def test_without_submitit_the_cure_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SlurmError, match=r"through submitit.*pip install submitit\. --local needs none"):
        slurm.submit_cells(tmp_path, {"a": ["fit"]}, {})


def test_without_slurm_it_says_where_to_go(programs: Programs) -> None:
    programs({})
    if os.path.exists("/usr/bin/squeue"):  # noqa: PTH110
        pytest.skip("there is a squeue here")
    with pytest.raises(SlurmError, match=r"there is no squeue here: .* or say --local"):
        slurm.queued()


def test_the_queue_is_read_task_by_task(programs: Programs) -> None:
    programs({"squeue": 'echo "$@" > {folder}/asked; echo "41_0 RUNNING"; echo "41_1 PENDING"'})
    assert slurm.queued() == {"41_0": "RUNNING", "41_1": "PENDING"}
    programs({"squeue": "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1"})
    with pytest.raises(SlurmError, match="squeue does not answer: slurm_load_jobs error: Unable to contact"):
        slurm.queued()


def test_how_jobs_ended_is_asked_of_the_accounts_then_of_the_queue(programs: Programs) -> None:
    sacct = 'echo "41_0 CANCELLED by 1000"; echo "41_1 OUT_OF_MEMORY"; echo "9 FAILED"'
    squeue = 'echo "41_0 TIMEOUT"'
    programs({"sacct": sacct, "squeue": squeue})
    assert slurm.ended(["41_0", "41_1"]) == {"41_0": "CANCELLED", "41_1": "OUT_OF_MEMORY"}
    programs({"sacct": "echo Slurm accounting storage is disabled >&2; exit 1"})
    assert slurm.ended(["41_0", "41_1"]) == {"41_0": "TIMEOUT"}
    programs({"squeue": "exit 1"})
    assert slurm.ended(["41_0"]) == {}


def test_jobs_are_remembered(tmp_path: Path) -> None:
    assert slurm.read_jobs(tmp_path) == {}
    slurm.write_jobs(tmp_path, {"a": "41_0", "report": "42"})
    assert slurm.read_jobs(tmp_path) == {"a": "41_0", "report": "42"}


def test_a_job_becomes_the_command_and_ignores_signals_until_that_listens(tmp_path: Path) -> None:
    """The command only says what it was given, its process, and what it does with the signal."""
    log = tmp_path / "logs" / "a.txt"
    tell = "import os, signal, sys; print(sys.argv[1:], os.getpid(), signal.getsignal(10) == signal.SIG_IGN)"
    code = (
        "import os, sys; from brainlit.cli import slurm\n"
        f"slurm.BRAINLIT = (sys.executable, '-c', {tell!r})\n"
        f"print(os.getpid(), flush=True); slurm.become(['fit', '--seed=1'], {str(log)!r})"
    )
    environ = {**os.environ, "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "2", "SLURM_RESTART_COUNT": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    head, said = log.read_text().splitlines()
    assert head.startswith("--- ")
    assert "Slurm job 41_2, requeued 1 times on " in head
    assert said == f"['fit', '--seed=1'] {done.stdout.strip()} True"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"time": 5}, "time: there is no such setting. Did you mean 'time_min'?"),
        ({"time_min": "1:00"}, "time_min is '1:00'; give a number above 0."),
        ({"cpus_per_task": 1.5}, "cpus_per_task is 1.5; give a whole number above 0."),
        ({"nodes": True}, "nodes is True; give a whole number above 0."),
        ({"mem_gb": 0}, "mem_gb is 0; give a number above 0."),
        ({"setup": "module load cuda"}, "setup is 'module load cuda'; give a list."),
        ({"partition": 3}, "partition is 3; give a text."),
        ({"more": ["a"]}, "more is ['a']; give a mapping."),
        ({"gpus_per_node": "a100:2", "time_min": 0.5, "more": {"a": 1}}, ""),
    ],
)
def test_settings_are_looked_at(settings: Mapping[str, Any], problem: str) -> None:
    assert check_settings(settings).partition(" Known")[0] == problem


def test_little_is_asked_for_by_itself() -> None:
    asked = sbatch_settings({}, "grid")
    assert (asked["time"], asked["additional_parameters"]) == (24 * 60, {"signal": "USR1@120", "requeue": True})
    assert "srun_args" not in asked
    assert "nodes" not in report_settings({"nodes": 2, "gres": "gpu:1"}, "grid-report", ["1"])
