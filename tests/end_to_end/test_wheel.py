"""The package as a stranger gets it: built, installed in an environment of its own, used in an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from brainlit.shipped import shipped_files

ROOT = Path(__file__).parents[2]
NOT_COPIED = {".git", ".venv", ".hypothesis", "build", "dist", "runs", "wandb", "data/store", "data/cache"}
TINY = {"n_tune": 1, "n_choose": 1, "n_fit": 1, "n_score": 1, "story_minutes": 1.5, "n_subjects": 1, "n_voxels": 40}
NAMES = ("brain_tune", "data/demo", "model/wav2vec")
"""What -c demo -c wav2vec merges."""


def run(*command: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder, with nothing of this repository in the environment."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "BRAINLIT_DEBUG")}
    said = [str(part) for part in command]
    return subprocess.run(said, cwd=cwd, env={**kept, **variables}, capture_output=True, text=True, check=False)


def checked(*command: object, cwd: Path, **variables: str) -> str:
    done = run(*command, cwd=cwd, **variables)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def _not_copied(folder: str, names: list[str]) -> list[str]:
    """What git ignores; of the data sets' own folders everything but the manifests."""
    below = Path(folder).relative_to(ROOT)
    made = ("__pycache__", "_cache", ".egg-info")
    return [name for name in names if str(below / name) in NOT_COPIED or name.endswith(made) or name == "files"]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution of a copy of this repository, and the wheel that is built from it and nothing else."""
    folder = tmp_path_factory.mktemp("dist")
    clone = shutil.copytree(ROOT, folder / "clone", ignore=_not_copied)
    for left in ("data/store/demo-0/store.json", "data/alice/files/alice.yaml", "runs/a/b/config.yaml"):
        (clone / left).parent.mkdir(parents=True)
        (clone / left).write_text("{}")
    build = "import sys; from setuptools import build_meta; print(getattr(build_meta, 'build_' + sys.argv[1])('..'))"
    sdist = folder / checked(sys.executable, "-c", build, "sdist", cwd=clone).split()[-1]
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    wheel = checked(sys.executable, "-c", build, "wheel", cwd=source).split()[-1]
    return sdist, folder / "unpacked" / wheel


@pytest.fixture(scope="module")
def python(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel in it, which sees what is installed here but for brainlit."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    install = ("-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", distributions[1])
    checked(sys.executable, *install, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    # A folder in a .pth file joins sys.path, and its own .pth files, such as an editable brainlit's, are not read.
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "an empty folder"
    folder.mkdir()
    return folder


def test_both_hold_what_they_should(distributions: tuple[Path, Path]) -> None:
    sdist, wheel = distributions
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if not archive.getmember(name).isdir()}
    made = {"PKG-INFO", "setup.cfg"}
    names = {name for name in names - made if ".egg-info/" not in name}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    shipped = {f"brainlit/_shipped/{path}" for path in shipped_files(ROOT)}
    modules = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "brainlit").rglob("*.py")}
    assert {name for name in in_wheel if name.startswith("brainlit/_shipped/")} == shipped
    assert {name for name in in_wheel if name.endswith(".py")} == modules
    others = {name for name in in_wheel - shipped - modules if ".dist-info/" not in name}
    assert others == {
        "brainlit/py.typed",
        *(f"brainlit/results/templates/{path.name}" for path in ROOT.glob("src/brainlit/results/templates/*")),
    }
    if (ROOT / ".git").exists():
        tracked = checked("git", "ls-files", cwd=ROOT).splitlines()
        further = checked("git", "ls-files", "--others", "--exclude-standard", cwd=ROOT).splitlines()
        here = {name for name in tracked if (ROOT / name).is_file()}
        assert here <= names <= {*here, *further}


def test_the_wheel_says_who_it_is(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[1]) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        said = archive.read(name).decode().split("\n\n")[0].splitlines()
    assert [line.rpartition(" ")[2] for line in said if "Python :: 3." in line] == ["3.11", "3.12", "3.13"]
    assert any(line.startswith("Project-URL: ") for line in said)
    assert "Provides-Extra: demo" in said
    readme = (ROOT / "README.md").read_text()
    assert "```\npip install '.[demo]'\nbrainlit fit -c demo -c wav2vec\n```" in readme
    assert f"pip install '{distributions[1].name}[demo]'" in readme


def test_the_demo_runs_from_an_empty_folder(python: Path, here: Path) -> None:
    where = checked(python, "-c", "import brainlit; print(brainlit.__file__)", cwd=here)
    assert Path(where.strip()).is_relative_to(python.parents[1])
    brainlit = python.with_name("brainlit")

    mistyped = run(brainlit, "fit", "-c", "dmo", "-c", "wav2vec", cwd=here)
    assert mistyped.returncode == 2
    assert "Did you mean 'demo'?" in mistyped.stderr
    assert not list(here.iterdir()), "nothing was written"

    options = [part for key, value in TINY.items() for part in (f"--data.source.init_args.{key}", value)]
    small = ["--model.backbone.weights", "random:tiny", "--trainer.max_epochs", "1", "--run.wandb", "off"]
    report = {"class_path": "brainlit.callbacks.RunReport"}
    small += ["--trainer.callbacks", json.dumps([report]), "--run.id", "first"]
    checked(brainlit, "fit", "-c", "demo", "-c", "wav2vec", *options, *small, cwd=here, BRAINLIT_CACHE=str(here / "c"))
    facts = json.loads((here / "runs" / "brain_tune" / "first" / "run.json").read_text())
    assert facts["config_files"] == [f"experiments/{name}.yaml (came with brainlit)" for name in NAMES]
    assert facts["regime"] == "brain"
    assert facts["steps"] == 1

    said = checked(brainlit, "init", cwd=here)
    assert said.splitlines()[-1] == "Next: brainlit fit -c demo -c wav2vec"
    printed = checked(brainlit, "fit", "-c", "demo", "-c", "wav2vec", "--print_config", cwd=here)
    assert printed.splitlines()[0] == f"# merged: {', '.join(f'experiments/{name}.yaml' for name in NAMES)}"
    assert yaml.safe_load(printed)["data"]["source"]["init_args"]["n_tune"] == 12
