"""Finished-looking runs of several seeds and regimes, shared by the tests that only read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainlit.comparison.effects import Evidence
from brainlit.comparison.evidence import read_evidence
from brainlit.comparison.runs import read_finished
from tests.comparison.planted_runs import planted_reproduction
from tests.results.conftest import run, small_run  # noqa: F401


@pytest.fixture(scope="session")
def reproduction(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All regimes of three seeds with planted effects, under runs/reproduce; do not write into it."""
    return planted_reproduction(tmp_path_factory.mktemp("planted") / "runs")


@pytest.fixture(scope="session")
def evidence(reproduction: list[Path]) -> Evidence:
    """What these runs showed."""
    return read_evidence(read_finished(reproduction))
