"""One finished-looking run with probes, shared by the tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainlit.results.run_directory import RunDirectory
from tests.results.fake_run import fake_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Two subjects, probes at epochs 0, 2 and 4; do not write into it."""
    return fake_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def small_run(tmp_path: Path) -> RunDirectory:
    """One subject without places, probes at epochs 0 and 4; may be written into."""
    return fake_run(tmp_path, subjects=("sub-1",), epochs=(0, 4), places=False)
