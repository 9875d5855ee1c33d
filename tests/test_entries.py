from __future__ import annotations

import errno
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from brainlit import entries as module
from brainlit.entries import BYTES_PER_GB, SharedEntries
from brainlit.files import CONTENTS, FullDiskError

LARGE, TWO_GB = b"x" * 4000, 10_000 / BYTES_PER_GB
"""Of entries with so much in them, two have room."""
ONE, OTHER = {"weights": "aa", "layers": [1, 2]}, {"weights": "ab", "layers": [1, 2]}


def kept(shared: SharedEntries, settings: dict[str, object], folder: Path, content: bytes = b"x" * 400) -> Path | None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "source.h5").write_bytes(content)
    return shared.keep(settings, {"A.h5": folder / "source.h5"}, {"made_in": "here"})


def aged(path: Path | None, seconds: float) -> Path:
    assert path is not None
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_what_is_kept_is_found_by_its_settings_alone(tmp_path: Path) -> None:
    shared, goal = SharedEntries(tmp_path / "cache", 1.0), tmp_path / "run" / "sub-A" / "epoch-000.h5"
    assert shared.fetch(ONE, {"A.h5": goal}) is None
    entry = kept(shared, ONE, tmp_path, b"numbers")
    assert shared.fetch(OTHER, {"A.h5": goal}) is None
    assert not goal.exists()
    assert shared.fetch(dict(reversed(ONE.items())), {"A.h5": goal}) == entry
    assert goal.read_bytes() == b"numbers"
    assert [path.name for path in goal.parent.iterdir()] == ["epoch-000.h5"]
    assert [path.name for path in shared.folder.iterdir()] == [entry.name if entry else ""]


@pytest.mark.parametrize("name", ["A.h5", CONTENTS])
@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])
def test_a_damaged_entry_is_said_and_never_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, how: str
) -> None:
    shared, goal = SharedEntries(tmp_path / "cache", 1.0), tmp_path / "goal.h5"
    entry = kept(shared, ONE, tmp_path, bytes(range(200)))
    assert entry is not None
    raw = bytearray((entry / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    damaged = {"flipped": bytes(raw), "cut": bytes(raw[:-9])}
    if how == "missing":
        (entry / name).unlink()
    else:
        (entry / name).write_bytes(damaged[how])
    with caplog.at_level(logging.WARNING):
        assert shared.fetch(ONE, {"A.h5": goal}) is None
    assert f"{entry} is damaged" in caplog.text
    assert "computed again" in caplog.text
    assert not goal.exists()
    assert kept(shared, ONE, tmp_path) == entry, "it can be made anew"
    assert shared.fetch(ONE, {"A.h5": goal}) == entry


def test_an_entry_that_names_other_files_or_settings_is_not_taken(tmp_path: Path) -> None:
    shared, goal = SharedEntries(tmp_path / "cache", 1.0), tmp_path / "goal.h5"
    entry = kept(shared, ONE, tmp_path)
    assert shared.fetch(ONE, {"A.h5": goal, "B.h5": tmp_path / "b.h5"}) is None
    entry = kept(shared, ONE, tmp_path)
    assert entry is not None
    entry.rename(shared.path(OTHER))
    assert shared.fetch(OTHER, {"A.h5": goal}) is None
    assert not goal.exists()


def test_a_disk_that_does_not_answer_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared = SharedEntries(tmp_path / "cache", 1.0)
    entry = kept(shared, ONE, tmp_path)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(module.shutil, "copyfile", broken)
    assert shared.fetch(ONE, {"A.h5": tmp_path / "goal.h5"}) is None
    assert "cannot be read" in caplog.text
    assert entry is not None
    assert (entry / "A.h5").is_file()


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    shared = SharedEntries(tmp_path / "cache", TWO_GB)
    settings = [{"number": number} for number in range(3)]
    first, second = (aged(kept(shared, settings[k], tmp_path, LARGE), 100 - 50 * k) for k in range(2))
    assert shared.fetch(settings[0], {"A.h5": tmp_path / "goal.h5"}) == first
    third = kept(shared, settings[2], tmp_path, LARGE)
    assert third is not None
    sizes = [sum(file.stat().st_size for file in path.iterdir()) for path in shared.folder.iterdir() if path.is_dir()]
    assert sum(sizes) <= shared.max_gb * BYTES_PER_GB
    assert first.is_dir(), "it was read last"
    assert third.is_dir()
    assert not second.exists()


def test_what_is_larger_than_the_budget_is_not_kept(tmp_path: Path) -> None:
    shared = SharedEntries(tmp_path / "cache", 300 / BYTES_PER_GB)
    assert kept(shared, ONE, tmp_path) is None
    assert not shared.folder.exists()


def test_leftovers_of_killed_writers_go_after_a_day(tmp_path: Path) -> None:
    shared = SharedEntries(tmp_path / "cache", 1.0)
    old, young = (shared.folder / f".{'0' * 20}.{digit * 12}.tmp" for digit in "ab")
    for folder in (old, young):
        folder.mkdir(parents=True)
    aged(old, module.LEFT_BEHIND_S + 60)
    kept(shared, ONE, tmp_path)
    assert not old.exists()
    assert young.is_dir()


def test_the_first_writer_of_two_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shared = SharedEntries(tmp_path / "cache", 1.0)
    entry = kept(shared, ONE, tmp_path, b"first")
    assert kept(shared, ONE, tmp_path, b"second") == entry
    assert entry is not None
    assert (entry / "A.h5").read_bytes() == b"first"
    assert list(shared.folder.iterdir()) == [entry]
    assert not caplog.records


def test_a_full_disk_is_said_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, n_bytes: int) -> None:
        raise FullDiskError(path, n_bytes, 0)

    monkeypatch.setattr(module, "require_space", full)
    assert kept(SharedEntries(tmp_path / "cache", 1.0), ONE, tmp_path) is None
    assert "cannot keep" in caplog.text


def test_readers_get_all_or_nothing_while_others_write_and_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "to_disk", lambda _: None)
    monkeypatch.setattr("brainlit.files.to_disk", lambda _: None)
    settings = [{"number": number} for number in range(3)]

    def work(worker: int) -> int:
        shared, n_found = SharedEntries(tmp_path / "cache", TWO_GB), 0
        for step in range(30):
            number = (worker + step) % 3
            content, goal = bytes([number]) * len(LARGE), tmp_path / f"goal-{worker}.h5"
            if shared.fetch(settings[number], {"A.h5": goal}) is None:
                kept(shared, settings[number], tmp_path / str(worker), content)
            else:
                n_found += 1
                assert goal.read_bytes() == content
        return n_found

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(work, range(3))) > 0
    assert "damaged" not in caplog.text
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.endswith(".tmp")]


def test_who_wants_the_same_waits_for_who_makes_it(tmp_path: Path) -> None:
    begun, found = threading.Event(), list[Path | None]()

    def second() -> None:
        begun.wait()
        shared = SharedEntries(tmp_path / "cache", 1.0)
        with shared.alone(ONE, "another makes it"):
            found.append(shared.fetch(ONE, {"A.h5": tmp_path / "goal.h5"}))

    waiting, shared = threading.Thread(target=second), SharedEntries(tmp_path / "cache", 1.0)
    waiting.start()
    with shared.alone(ONE, "another makes it"):
        begun.set()
        waiting.join(0.1)
        assert waiting.is_alive()
        with shared.alone(OTHER, "nobody does"):
            entry = kept(shared, ONE, tmp_path)
    waiting.join()
    assert found == [entry]


def test_without_locks_each_makes_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_here(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(module, "waiting_lock", none_here)
    shared = SharedEntries(tmp_path / "cache", 1.0)
    with shared.alone(ONE, "another makes it"):
        assert kept(shared, ONE, tmp_path) is not None
