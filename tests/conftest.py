"""Fixtures that the tests of all rooms share."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from brainlit.store import StoryStore, build_store
from tests.toy import ToySource

ALICE = Path(os.environ.get("BRAINLIT_ALICE") or Path(__file__).parents[2] / "shared" / "real" / "alice")

settings.register_profile("brainlit", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("brainlit")


SLOW_S = 0.14
"""A test that takes longer, with all its parameters on a core of its own, is slow: `make test-fast` leaves it out."""
SLOW_LIST = Path(__file__).parent / "slow.txt"
"""The slow ones, as file::function; `pytest --write-slow` adds what a whole run finds and drops what is gone."""
SLOW_FIXTURES = {"finished_run"}
"""Fixtures that take much longer than that; whoever uses one is slow."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one option of our own."""
    parser.addoption("--write-slow", action="store_true", help=f"write the tests over {SLOW_S} s into {SLOW_LIST.name}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what is on the list or runs the whole chain: end_to_end/, and whatever needs a slow fixture."""
    slow = set(SLOW_LIST.read_text(encoding="utf-8").split())
    for item in items:
        whole_chain = item.path.parent.name == "end_to_end" or SLOW_FIXTURES & set(getattr(item, "fixturenames", ()))
        if whole_chain or _function(item.nodeid) in slow:
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the list if asked to; a busy machine makes any test slow, so nothing is marked by itself."""
    if not config.getoption("--write-slow"):
        return
    seconds: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        if report.when == "call" and report.nodeid.startswith("tests/") and "end_to_end" not in report.nodeid:
            seconds[_function(report.nodeid)] += report.duration
    known = set(SLOW_LIST.read_text(encoding="utf-8").split()) & set(seconds)
    slow = known | {function for function, total in seconds.items() if total > SLOW_S}
    SLOW_LIST.write_text("\n".join(sorted(slow)) + "\n", encoding="utf-8")


def _function(nodeid: str) -> str:
    return nodeid.partition("[")[0]


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
