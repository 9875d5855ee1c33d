"""Folders that are made once: whole, checked, and made again when damaged."""

import json
import threading
from pathlib import Path

import pytest

from brainlit.backbones.cache import CONTENTS, cached_folder, find_damage, settings_key
from brainlit.places import cache_dir


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))


class Builder:
    """Writes two files and counts."""

    def __init__(self):
        self.n_calls = 0

    def __call__(self, folder):
        self.n_calls += 1
        (folder / "a.txt").write_text("alpha")
        (folder / "deep").mkdir()
        (folder / "deep" / "b.bin").write_bytes(b"beta")


def test_cache_dir_follows_the_environment(tmp_path, monkeypatch):
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("BRAINLIT_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "brainlit"


def test_built_once_per_settings():
    build = Builder()
    first = cached_folder("thing", {"seed": 0, "steps": 3}, build)
    again = cached_folder("thing", {"steps": 3, "seed": 0}, build)
    other = cached_folder("thing", {"steps": 3, "seed": 1}, build)
    assert first == again != other
    assert build.n_calls == 2
    assert (first / "deep" / "b.bin").read_bytes() == b"beta"
    assert json.loads((first / CONTENTS).read_text())["settings"] == {"seed": 0, "steps": 3}


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "a.txt").write_text("alphb"),
        lambda folder: (folder / "a.txt").unlink(),
        lambda folder: (folder / CONTENTS).unlink(),
        lambda folder: (folder / CONTENTS).write_text("{"),
    ],
    ids=["changed", "missing", "no contents", "broken contents"],
)
def test_a_damaged_folder_is_made_again(harm, caplog):
    build = Builder()
    folder = cached_folder("thing", {}, build)
    harm(folder)
    assert find_damage(folder)
    assert cached_folder("thing", {}, build) == folder
    assert build.n_calls == 2
    assert find_damage(folder) is None
    assert "damaged" in caplog.text


def test_a_failing_build_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached_folder("thing", {}, fail)
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_others_wait_for_the_first():
    build = Builder()
    threads = [threading.Thread(target=cached_folder, args=("thing", {}, build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert build.n_calls == 1


def test_keys_do_not_depend_on_order_and_do_on_values():
    assert settings_key({"a": 1, "b": 2}) == settings_key({"b": 2, "a": 1}) != settings_key({"a": 1, "b": 3})
