from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import torch

from brainlit.results.provenance import collect, git_state, package_versions, store_hashes, write_provenance


def test_versions_name_what_is_there_and_what_is_not() -> None:
    versions = package_versions()
    assert versions["torch"] == torch.__version__
    assert set(versions) >= {"python", "lightning", "himalaya", "numpy"}


def test_git_state_tells_revision_and_changes(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert git_state(tmp_path) == {"revision": "unknown", "dirty": None}
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "one")
    assert git_state(tmp_path) == {"revision": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path)["dirty"] is True


def test_the_store_is_named_by_the_hash_of_its_index(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(json.dumps({"settings": {"seed": 3}}))
    expected = hashlib.sha256((tmp_path / "store.json").read_bytes()).hexdigest()
    assert store_hashes(tmp_path) == {"sha256": expected, "settings": {"seed": 3}}
    assert store_hashes(None) == {"sha256": "unknown"}


def test_all_of_it_is_written_as_json(tmp_path: Path) -> None:
    path = write_provenance(tmp_path, collect(seed=7, note="x"))
    found = json.loads(path.read_text())
    assert (found["seed"], found["note"]) == (7, "x")
    assert {"command", "git", "versions", "machine", "store", "written"} <= set(found)
    assert found["machine"]["torch_threads"] == torch.get_num_threads()
