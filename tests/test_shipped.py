"""The files that travel with brainlit: which they are, and where they are found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brainlit import shipped

ROOT = Path(__file__).parents[1]


def test_all_experiments_and_what_they_name_travel() -> None:
    files = shipped.shipped_files(ROOT)
    yaml = {path.relative_to(ROOT) for path in (ROOT / "experiments").rglob("*.yaml")}
    assert {path for path in files if path.parts[0] == "experiments"} == {*yaml, Path("experiments/README.md")}
    texts = [(ROOT / path).read_text() for path in yaml]
    manifests = {Path(name) for text in texts for name in re.findall(r"path: ([\w/.-]+\.yaml)", text)}
    assert manifests == {path for path in files if path.name == "manifest.yaml"} == {Path("data/alice/manifest.yaml")}
    assert Path("data/lebel2023.md") in files


def test_what_a_clone_holds_besides_stays_at_home(tmp_path: Path) -> None:
    for name in ("experiments/data/a.yaml", "experiments/notes.txt", "data/store/x/store.json", "data/b/files/c.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert shipped.shipped_files(tmp_path) == [Path("experiments/data/a.yaml")]


def test_a_file_that_is_here_comes_first_and_others_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest, own = Path("data/alice/manifest.yaml"), ROOT / "data/alice/manifest.yaml"
    assert shipped.here_or_shipped(manifest) == own
    assert shipped.here_or_shipped(Path("./experiments/data/demo.yaml")) == ROOT / "experiments/data/demo.yaml"
    for other in ("alice/manifest.yaml", "experiments", "pyproject.toml", "../experiments/quick.yaml", "/data/demo.md"):
        assert shipped.here_or_shipped(Path(other)) == Path(other)
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    assert shipped.here_or_shipped(manifest) == manifest


def test_a_wheel_brings_files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (shipped.is_installed(), shipped.shipped_root()) == (False, ROOT)
    monkeypatch.setattr(shipped, "PACKAGED", tmp_path)
    assert (shipped.is_installed(), shipped.shipped_root()) == (True, tmp_path)
