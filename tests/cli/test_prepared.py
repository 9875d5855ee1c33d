"""The memory of prepared stores: right as long as nothing changed, silent as soon as anything did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import brainlit
from brainlit.cli.prepared import known_store, remember_store
from brainlit.features import FeatureConfig
from brainlit.store import build_store
from tests.store.test_sources import OnDisk

Change = Callable[[Path, pytest.MonkeyPatch], object]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TOY_ROOT", "here")
    (tmp_path / "data.yaml").write_text("root: ${oc.env:TOY_ROOT}")
    (tmp_path / "vectors.txt").write_text("a 1 2")
    source = OnDisk(tmp_path / "raw")
    build_store(source, tmp_path / "store", progress=False).close()
    features = FeatureConfig(vectors=str(tmp_path / "vectors.txt"))
    return SimpleNamespace(source=source, features=features, store_dir=str(tmp_path / "store"))


def command(folder: Path) -> list[str]:
    return ["-c", str(folder / "data.yaml"), "--data.subjects", "[sub-A]"]


def test_a_command_that_was_never_run_is_not_known(tmp_path: Path, data: Any) -> None:
    assert known_store(command(tmp_path)) is None


def test_the_same_command_is_known_and_no_other(tmp_path: Path, data: Any) -> None:
    remember_store(command(tmp_path), data)
    assert known_store(command(tmp_path)) == tmp_path / "store"
    assert known_store([*command(tmp_path), "--data.seed", "3"]) is None
    assert known_store([f"--config={tmp_path / 'data.yaml'}"]) is None


CHANGES: dict[str, Change] = {
    "a config file": lambda folder, patch: (folder / "data.yaml").write_text("root: there"),
    "the environment": lambda folder, patch: patch.setenv("TOY_ROOT", "there"),
    "a source file": lambda folder, patch: (folder / "raw" / "toy3").write_text("changed"),
    "a source file is gone": lambda folder, patch: (folder / "raw" / "sub-B").unlink(),
    "a new file beside the sources": lambda folder, patch: (folder / "raw" / "toy3.report").write_text("log"),
    "the file of word vectors": lambda folder, patch: (folder / "vectors.txt").write_text("b 1 2"),
    "a file of the store": lambda folder, patch: (folder / "store" / "stories" / "toy0.h5").unlink(),
    "the whole store": lambda folder, patch: (folder / "store" / "store.json").unlink(),
    "the software": lambda folder, patch: patch.setattr(brainlit, "__version__", "99"),
    "the folder": lambda folder, patch: patch.chdir(folder),
    "the memory itself": lambda folder, patch: next((folder / "cache" / "prepared").iterdir()).write_text("{"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_takes_the_long_way(tmp_path: Path, data: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remember_store(command(tmp_path), data)
    CHANGES[what](tmp_path, monkeypatch)
    assert known_store(command(tmp_path)) is None
