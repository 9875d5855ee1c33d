"""What W&B has of a run that was killed and went on: its file is read back."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from brainlit.results.dashboard import logged_keys, plan_dashboard
from brainlit.results.record import COLUMNS
from brainlit.results.run_directory import RunDirectory
from brainlit.results.wandb_logger import ROW, STEP
from brainlit.results.wandb_names import MOST_SCALARS, PROBE_EPOCH, headline_scalars, wandb_id
from tests.one_node_slurm import free_port
from tests.wandb_files import OfflineRun, read_offline
from tests.wandb_server import API_KEY, wandb_server

ROOT = Path(__file__).parents[2]
OF_WANDB = {"_step", "_runtime", "_timestamp"}
ELSEWHERE = {
    "probe/<name>/<stage>/<region>/layer-<k>/<measure>",
    "probe/<name>/table",
    "curve/<region>/layer-<k>",
    "drift/<measure>/layer-<k>",
}
"""Keys of the page that need a callback which this run has not."""
OPENWANDB = os.environ.get("OPENWANDB") or shutil.which("openwandb")
OPENWANDB_KEY = "local" + 40 * "0"
"""What `openwandb serve` gives its first user."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A small fit, killed after its third step, and gone on with by the same command; without account or home."""
    folder = tmp_path_factory.mktemp("wandb")
    environ = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environ |= {"HOME": str(folder), "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    for expected in (-signal.SIGKILL, 0):
        done = subprocess.run(
            [sys.executable, "-m", "tests.end_to_end.wandb_worker", str(folder)],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == expected, done.stderr[-4000:]
        for noise in ("wandb:", "layers were not sharded"):  # W&B says and asks nothing, transformers nothing needless
            assert noise not in done.stdout + done.stderr
    return RunDirectory.open(folder / "runs" / "brain_tune" / "one")


@pytest.fixture(scope="module")
def found(run: RunDirectory) -> OfflineRun:
    """The one file that `wandb sync <run>/wandb` takes."""
    (path,) = {path.resolve() for path in (run.path / "wandb").glob("*/*.wandb")}
    assert len(list((run.path / "wandb" / "earlier").iterdir())) == 1, "that of the process that was killed"
    return read_offline(path)


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """The scalars of a row that are not W&B's own."""
    return {key: value for key, value in row.items() if isinstance(value, (int, float)) and key not in OF_WANDB}


def test_every_step_is_there_once_and_none_is_lacking(run: RunDirectory, found: OfflineRun) -> None:
    steps = [row[STEP] for row in found.rows if "train/loss_step" in row]
    assert steps == [0, 1, 2, 3]
    assert [row["_step"] for row in found.rows] == list(range(len(found.rows)))
    counted = [row[ROW] for row in found.rows if ROW in row]
    assert counted == list(range(len(counted)))
    scalars = [(row[STEP], key) for row in found.rows for key in numbers(row) if key not in (STEP, ROW, "epoch")]
    assert len(scalars) == len(set(scalars))
    with (run.path / "metrics.csv").open(newline="") as file:
        kept = list(csv.DictReader(file))
    expected = {
        (int(float(row["step"])), key, float(value))
        for row in kept
        for key, value in row.items()
        if value and key not in ("step", "epoch") and not key.startswith("probe/")
    }
    ours = {(row[STEP], key, value) for row in found.rows for key, value in numbers(row).items()}
    assert len(expected) == 4 * 3 + 2 * 3, "loss and two rates a step; one training and two validation losses an epoch"
    assert expected <= ours


def sync(run: RunDirectory, url: str, key: str, home: Path) -> None:
    """Give a server what is in the run's folder; `wandb sync` leaves a mark in it, so it is a copy."""
    shutil.copytree(run.path / "wandb", home / "wandb", symlinks=True)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environ |= {"HOME": str(home), "WANDB_BASE_URL": url, "WANDB_API_KEY": key}
    command = [sys.executable, "-m", "wandb", "sync", str(home / "wandb")]
    done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_one_command_gives_a_server_all_rows_once(run: RunDirectory, found: OfflineRun, tmp_path: Path) -> None:
    with wandb_server() as server:
        sync(run, server.url, API_KEY, tmp_path)
    (served,) = server.runs.values()
    assert list(server.runs) == [wandb_id(run)]
    assert [numbers(row) for row in served.rows()] == [numbers(row) for row in found.rows]


@pytest.mark.skipif(
    OPENWANDB is None,
    reason="openwandb, a W&B server, is not here. Its licence forbids commercial use, so nothing of ours installs it:"
    " set OPENWANDB to its command",
)
def test_openwandb_has_every_step_once(run: RunDirectory, found: OfflineRun, tmp_path: Path) -> None:
    """Only what was recorded offline: it answers W&B's client that a run which goes on is new."""
    port = free_port()
    url, own = f"http://127.0.0.1:{port}", {"HOME": str(tmp_path), "OPENWANDB_DATA_DIR": str(tmp_path / "data")}
    command = [str(OPENWANDB), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=log)
    try:
        ends = time.monotonic() + 60
        while "startup complete" not in (tmp_path / "log").read_text():
            assert time.monotonic() < ends
            time.sleep(0.2)
        sync(run, url, OPENWANDB_KEY, tmp_path)
        with urllib.request.urlopen(f"{url}/api/v2/runs/{wandb_id(run)}/metrics") as answer:
            of_key = json.load(answer)["metrics_by_key"]
    finally:
        server.terminate()
        server.wait(30)
    assert [one["value"] for one in of_key[ROW]] == list(range(len(of_key[ROW])))
    for key in ("train/loss_step", "val/loss", STEP):
        expected = [(row["_step"], row[key]) for row in found.rows if key in row]
        assert [(one["step"], one["value"]) for one in of_key[key]] == expected


def test_the_run_says_what_it_is(run: RunDirectory, found: OfflineRun) -> None:
    about = found.run
    assert about.run_id == wandb_id(run)
    assert (about.display_name, about.run_group, about.job_type) == (
        "wav2vec-random-tiny-brain-s0",
        "brain_tune",
        "fit",
    )
    assert about.project == "brainlit"
    assert list(about.tags)[:4] == ["wav2vec", "random-tiny", "brain", "toy"]
    assert found.config["data"]["regime"] == "brain"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    if commit.returncode == 0:
        assert about.git.commit == commit.stdout.strip()
        assert found.config["brainlit"]["revision"] == commit.stdout.strip()
        assert found.config["brainlit"]["dirty"] in (True, False)
    assert "Report: " in found.console, "W&B keeps the console"


def test_a_probe_is_a_few_scalars_over_epochs_and_one_table(run: RunDirectory, found: OfflineRun) -> None:
    probes = [row for row in found.rows if PROBE_EPOCH in row]
    assert [(row[STEP], row[PROBE_EPOCH]) for row in probes] == [(0, 0), (2, 1), (4, 2)]
    for row, stage in zip(probes, ("before", "during", "after"), strict=True):
        keys = {key for key in numbers(row) if key.startswith("probe/")}
        assert 10 < len(keys) <= MOST_SCALARS
        assert f"probe/{stage}/semantic/layer-4/r_backbone" in keys
        assert all(key.startswith((f"probe/{stage}/", PROBE_EPOCH)) for key in keys)
        assert {found.axes[key] for key in keys - {PROBE_EPOCH}} == {PROBE_EPOCH}
    tables = [row["probe/table"] for row in found.rows if "probe/table" in row]
    (folder,) = {path.parent.parent for path in (run.path / "wandb").glob("*/files/media") if not path.is_symlink()} - {
        run.path / "wandb" / "latest-run"
    }
    for table, epoch in zip(tables, (0, 1, 2), strict=True):
        kept = json.loads((folder / "files" / table["path"]).read_text())
        assert kept["columns"] == list(COLUMNS)
        with (run.path / "probes" / f"epoch-{epoch:03d}.csv").open(newline="") as file:
            expected = list(csv.DictReader(file))
        assert [str(row[COLUMNS.index("metric")]) for row in kept["data"]] == [row["metric"] for row in expected]
        values = [row[COLUMNS.index("value")] for row in kept["data"]]
        assert values == pytest.approx([float(row["value"]) for row in expected])


def test_the_headline_is_in_the_summary(run: RunDirectory, found: OfflineRun) -> None:
    expected = headline_scalars(json.loads((run.path / "summary.json").read_text()))
    assert expected
    assert {key: found.summary[key] for key in found.summary if key.startswith("headline/")} == expected


def test_figures_maps_and_the_page_are_media(found: OfflineRun) -> None:
    kinds = {key: value["_type"] for row in found.rows for key, value in row.items() if isinstance(value, dict)}
    assert kinds == {
        "probe/table": "table-file",
        "figures/alignment": "image-file",
        "figures/brain-sub-A": "image-file",
        "report": "html-file",
    }
    shown = [(row[STEP], key) for row in found.rows for key in row if key.startswith("figures/")]
    assert len(shown) == len(set(shown))


def test_the_model_is_an_artifact_with_aliases(run: RunDirectory, found: OfflineRun) -> None:
    models = {(name, *sorted(aliases)): files for name, kind, aliases, files in found.artifacts if kind == "model"}
    own = wandb_id(run)
    assert sorted(models) == [
        (f"export-{own}", "best", "latest"),
        (f"model-{own}", "best", "latest"),
        (f"model-{own}", "last", "latest"),
    ], "W&B adds latest"
    assert models[f"model-{own}", "best", "latest"] == ["model.ckpt"]
    assert "model.safetensors" in models[f"export-{own}", "best", "latest"]


def test_the_page_on_wandb_lists_all_that_is_logged(found: OfflineRun) -> None:
    text = (ROOT / "docs" / "wandb.md").read_text(encoding="utf-8").split("## What is logged")[1].split("\n## ")[0]
    patterns = [
        name for row in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE) for name in re.findall(r"`(.+?)`", row)
    ]
    described = [
        re.compile(re.sub(r"<\w+>", r"[^/]+", re.escape(name).replace(r"\<", "<").replace(r"\>", ">")))
        for name in patterns
    ]
    logged = {key for row in found.rows for key in row} - OF_WANDB
    unknown = {key for key in logged if sum(pattern.fullmatch(key) is not None for pattern in described) != 1}
    assert not unknown
    silent = {
        name for name, one in zip(patterns, described, strict=True) if not any(one.fullmatch(key) for key in logged)
    }
    assert silent == ELSEWHERE


def test_a_dashboard_names_what_this_run_logs(run: RunDirectory, found: OfflineRun) -> None:
    logged = {key for row in found.rows for key in row} - OF_WANDB
    assert logged_keys([run.path]) == logged - {ROW}
    sections = {section.title: section.panels for section in plan_dashboard(logged)}
    assert list(sections) == [
        "Five results",
        "Regimes side by side",
        "Layers by regions",
        "Training",
        "Figures and reports",
    ]
    named = {key for panels in sections.values() for panel in panels for key in panel.keys}
    assert named <= logged
    assert {key for key in logged if key.startswith("headline/") and "difference" in key} <= named
    assert {key for key in logged if re.fullmatch(r"probe/(before|after)/.+/r_backbone", key)} <= named
    assert {"val/loss", "train/loss_epoch", "probe/table", "figures/alignment", "report"} <= named
