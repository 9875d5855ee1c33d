"""A small run of the whole chain, shared by the tests of the command line."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
Command = Callable[..., list[str]]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The options of a small fit: the toy data set, a random tiny backbone, one epoch, no W&B."""
    folder = tmp_path_factory.mktemp("runs")

    def options(*more: str) -> list[str]:
        return [
            *("-c", str(EXPERIMENTS / "brain_tune.yaml")),
            *("--data.source", "tests.toy.ToySource", "--data.store_dir", str(folder / "store")),
            *("--model.backbone.weights", "random:tiny", "--data.window.n_trs", "8"),
            *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"),
            *("--run.root", str(folder / "runs"), "--run.wandb", "off"),
            *more,
        ]

    return options


@pytest.fixture(autouse=True)
def global_state() -> Iterator[None]:
    """The command line owns its process; a test gives back what it changed."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    level, handlers = logging.root.level, list(logging.root.handlers)
    with warnings.catch_warnings():
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers


@pytest.fixture(scope="session")
def finished_run(small: Command) -> Path:
    """Folder of a small run that has finished; maps of the brain, which take most of its time, are left to others."""
    from brainlit.cli import main
    from brainlit.results import report

    arguments = small("--run.id", "finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "MAX_BRAINS", 0)
        assert main(["fit", *arguments]) == 0
    return Path(arguments[arguments.index("--run.root") + 1]) / "brain_tune" / "finished"


@pytest.fixture(scope="session")
def quick(small: Command, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The options of the smallest fit of the shipped experiment: each toy story is one window; for `undrawn` runs."""
    store = str(tmp_path_factory.mktemp("quick") / "store")

    def options(*more: str) -> list[str]:
        size = ("--data.source.tr_s", "1.0", "--data.window.n_trs", "40", "--data.store_dir", store)
        return small(*size, "--run.resume", "never", *more)

    return options


@contextmanager
def drawing_nothing() -> Iterator[None]:
    """Runs without figures, whose probes look at one layer: what takes most of the time of a small run."""
    from brainlit.callbacks import probe_log
    from brainlit.probing.engine import ProbeEngine
    from brainlit.results import report

    resolve = ProbeEngine.resolve_layers
    with pytest.MonkeyPatch.context() as patch:
        for module in (probe_log, report):
            patch.setattr(module, "draw_figures", lambda *_, **__: ({}, {}))
        patch.setattr(ProbeEngine, "resolve_layers", lambda *given: ([resolve(*given)[1]], resolve(*given)[1]))
        yield


@pytest.fixture
def undrawn() -> Iterator[None]:
    """As `drawing_nothing`."""
    with drawing_nothing():
        yield
