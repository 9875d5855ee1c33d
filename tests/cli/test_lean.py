"""What commands import: no torch where none is needed, and of Lightning what a command needs that trains nothing.

These count modules and read no clock; `python -m tests.benchmarks.start_up` measures times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from brainlit.cli import lean, main
from tests.comparison.planted_runs import planted_run
from tests.results.fake_run import fake_run

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "lightning", "transformers", "torchaudio", "himalaya", "nilearn", "wandb", "peft", "boto3")
PICTURES = ("matplotlib", "nibabel")
LIGHT_ROOMS = (
    *("stories", "features", "splits", "encoding", "demo", "store", "downstream", "results", "comparison", "probing"),
    *("cli", "doctor"),
)
PRINT_CONFIG = [
    *("fit", "-c", "experiments/brain_tune.yaml", "-c", "experiments/model/wav2vec.yaml"),
    *("-c", "experiments/data/demo.yaml", "--print_config"),
]
MOST_MODULES = 2300
"""After --print_config; there are 1,900 on Linux, and were 3,980 with all that Lightning imports."""

RUN_ALL = """
import contextlib, importlib, io, json, sys
from brainlit.cli import main
imports, commands, named = json.loads(sys.argv[1])
found = {}
for name in imports:
    importlib.import_module(name)
    found["import " + name] = [module for module in named if module in sys.modules]
for command in commands:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main(command)
        except SystemExit as end:
            status = end.code or 0
    found[" ".join(command[:2])] = [f"status {status}"] * bool(status) + [m for m in named if m in sys.modules]
print(json.dumps(found))
"""


def python(code: str, *arguments: str, path: Sequence[Path] = ()) -> str:
    """What a process of its own writes."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, *filter(None, sys.path)]))}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_by(
    imports: Sequence[str], commands: Sequence[Sequence[object]], named: Sequence[str]
) -> dict[str, list[str]]:
    """Which of the named modules there are after each import and command, one after the other in one process."""
    said = json.dumps([list(imports), [list(map(str, command)) for command in commands], list(named)])
    found: dict[str, list[str]] = json.loads(python(RUN_ALL, said).splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A brain run and its permuted one."""
    root = tmp_path_factory.mktemp("lean")
    return [planted_run(root, 11, regime).path for regime in ("brain", "permuted")]


def test_what_needs_no_torch_imports_none(runs: list[Path], toy_store_path: Path, tmp_path: Path) -> None:
    commands = [
        *(["--version"], ["--help"], ["fitt"], ["doctor", "--help"]),
        *([verb, "--help"] for verb in ("init", "data", "downstream", "report", "export", "maps", "compare", "curve")),
        *([verb, "--help"] for verb in ("reproduce", "sweep", "fractions")),
        *([verb, "--help"] for verb in ("fit", "validate", "test", "predict", "probe", "plan")),
        *(["data", action, toy_store_path] for action in ("prepare", "info", "check")),
        ["compare", *runs],
    ]
    found = imported_by([f"brainlit.{room}" for room in LIGHT_ROOMS], commands, (*HEAVY, *PICTURES))
    assert len(found) == len(LIGHT_ROOMS) + len(commands)
    assert {name: what for name, what in found.items() if what} == {"fitt": ["status 2"]}
    run = fake_run(tmp_path, ("sub-1",), epochs=(0, 4), places=False).path
    assert imported_by([], [["report", run]], HEAVY) == {f"report {run}": []}


def test_the_config_is_printed_without_what_only_training_needs(capsys: pytest.CaptureFixture[str]) -> None:
    named = ("torchmetrics", "torch._dynamo", "sympy", "sklearn", *HEAVY[2:], *PICTURES)
    code = (
        "import sys; from brainlit.cli import main\n"
        "try: main()\n"
        f"finally: print(len(sys.modules), *[name for name in {named} if name in sys.modules])"
    )
    *lines, last = python(code, *PRINT_CONFIG).splitlines()
    n_modules, *needless = last.split()
    assert needless == []
    assert 1000 < int(n_modules) < MOST_MODULES
    with pytest.raises(SystemExit):
        main(PRINT_CONFIG)
    assert lines == capsys.readouterr().out.splitlines(), "as with all of Lightning"


@pytest.mark.parametrize(
    ("command", "ends"),
    [
        ("fit -c a.yaml", False),
        ("fit -c a.yaml --print_config=skip_null", True),
        ("fit --data.source.help brainlit.demo.DemoSource", True),
        ("fit --model.help_me 1", False),
        ("test runs/a/b", False),
        ("probe runs/a/b", False),
        ("probe --help", True),
        ("fit --help-all", True),
        ("reproduce --quick", True),
        ("data prepare a.yaml", True),
    ],
)
def test_which_commands_end_without_training(command: str, ends: bool) -> None:
    assert lean.ends_without_training(command.split()) == ends


def test_a_process_that_goes_on_has_all_of_lightning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help-all"])
    capsys.readouterr()
    assert "torchmetrics" in sys.modules
    assert lean._trains


@pytest.mark.parametrize(
    ("content", "spared"),
    [
        ("from torchmetrics import Metric\nfrom torch._dynamo import OptimizedModule", True),
        ("import torchmetrics.deep", False),
        ("from torchmetrics import Metric\nMetric(1).compute()", False),
    ],
)
def test_another_lightning_that_needs_more_is_imported_whole(tmp_path: Path, content: str, spared: bool) -> None:
    for package in ("torch", "torch/_dynamo", "torchmetrics", "lightning", "lightning/pytorch"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "torch/_dynamo/__init__.py").write_text("class OptimizedModule: real = True\n")
    metric = "class Metric:\n    def __init__(self, n=0): self.real = n\n    def compute(self): return self.real\n"
    (tmp_path / "torchmetrics/__init__.py").write_text(metric)
    (tmp_path / "torchmetrics/deep.py").touch()
    (tmp_path / "lightning/pytorch/cli.py").write_text(content)
    code = (
        "import sys; from brainlit.cli import lean; lean.expect(['data']); lean.import_lightning();"
        "import lightning.pytorch.cli; print('torchmetrics' in sys.modules);"
        "import torchmetrics, torch; from torch import _dynamo;"
        "print(torchmetrics.Metric(2).compute(), _dynamo.OptimizedModule.real)"
    )
    assert python(code, path=[tmp_path]).split() == [str(not spared), "2", "True"]
