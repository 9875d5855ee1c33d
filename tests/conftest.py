"""Fixtures that the tests of all rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from brainlit.store import StoryStore, build_store
from tests.toy import ToySource

ALICE = Path(os.environ.get("BRAINLIT_ALICE") or Path(__file__).parents[2] / "shared" / "real" / "alice")

settings.register_profile("brainlit", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("brainlit")


SLOW_S = 2.0
"""A test that takes longer, on a core of its own, is marked slow; what is marked, `make test-fast` leaves out."""
SLOW_FIXTURES = {"finished_run"}
"""Fixtures that take longer than that; whoever uses one is slow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what runs the whole chain: all of end_to_end/, and whatever needs a slow fixture."""
    for item in items:
        if item.path.parent.name == "end_to_end" or SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that should be marked; only a line, for a busy machine makes any test slow."""
    passed = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
    for report in passed:
        if report.duration > SLOW_S and "slow" not in report.keywords:
            terminalreporter.write_line(f"{report.nodeid} took {report.duration:.1f} s: mark it slow or make it faster")


@pytest.fixture(scope="session")
def toy_source() -> ToySource:
    """The toy data set with its default settings."""
    return ToySource()


@pytest.fixture(scope="session")
def toy_store_path(toy_source: ToySource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished store of the toy data set; shared, so never change it."""
    path = tmp_path_factory.mktemp("toy") / "store"
    build_store(toy_source, path, progress=False)
    return path


@pytest.fixture
def toy_store(toy_store_path: Path) -> StoryStore:
    """The toy store, opened anew for each test."""
    return StoryStore.open(toy_store_path)


@pytest.fixture
def alice(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the real recordings, which are not part of the project."""
    if not (ALICE / "alice.flac").is_file():
        pytest.skip("the Alice recordings are not part of the project; set BRAINLIT_ALICE to their folder")
    monkeypatch.setenv("BRAINLIT_ALICE", str(ALICE))
    return ALICE
