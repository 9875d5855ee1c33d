"""Building: whole or absent, resumable, refused with a cure where the parts do not fit."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from brainlit.files import FullDiskError
from brainlit.store import StoreCorruptError, StoreError, StoreSettingsError, StoryStore, build_store
from brainlit.stories import FeatureSpace, Intervals, Responses, Story, Subject
from brainlit.timebase import TimeBase
from tests.toy import ToySource

ROOT = Path(__file__).parents[2]


class Counting(ToySource):
    """Counts what it is asked for."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.asked: list[str] = []

    def story(self, name: str) -> Story:
        self.asked.append(name)
        return super().story(name)

    def subject(self, name: str) -> Subject:
        self.asked.append(name)
        return super().subject(name)


def small(**settings: Any) -> Counting:
    return Counting(n_trs=6, **settings)


def files_of(path: Path) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())


FINISHED = sorted(
    [".build.lock", "store.json", *(f"stories/toy{k}.h5" for k in range(6)), "subjects/sub-A.h5", "subjects/sub-B.h5"]
)


def test_a_build_holds_what_the_source_gave(toy_store: StoryStore, toy_source: ToySource) -> None:
    for name in toy_source.story_names():
        story = toy_source.story(name)
        np.testing.assert_array_equal(toy_store.audio(name, 0, len(story.audio)), story.audio)
        np.testing.assert_array_equal(toy_store.timebase(name).tr_starts_s, story.timebase.tr_starts_s)
        for ours, theirs in ((toy_store.words(name), story.words), (toy_store.phones(name), story.phones)):
            assert ours is not None
            assert theirs is not None
            assert ours.labels == theirs.labels
            np.testing.assert_array_equal(ours.start_s, theirs.start_s)
            np.testing.assert_array_equal(ours.duration_s, theirs.duration_s)
        for ours_space, theirs_space in zip(
            toy_store.feature_spaces(name), toy_source.feature_spaces(story), strict=True
        ):
            for attribute in ("name", "kind", "columns", "source", "coverage"):
                assert getattr(ours_space, attribute) == getattr(theirs_space, attribute)
            np.testing.assert_array_equal(ours_space.values, theirs_space.values)
    assert toy_store.left_out == toy_source.left_out()
    assert toy_store.default_roles == toy_source.default_roles()


def test_nothing_but_the_store_is_left(tmp_path: Path) -> None:
    build_store(small(), tmp_path / "s", progress=False)
    assert files_of(tmp_path / "s") == FINISHED


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second, other = (
        build_store(small(seed=seed), tmp_path / folder, progress=False).hashes
        for seed, folder in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert first == second
    assert all(first[file] != other[file] for file in first)


def test_a_finished_store_is_only_opened(tmp_path: Path) -> None:
    build_store(small(), tmp_path, progress=False)
    again = small()
    build_store(again, tmp_path, progress=False)
    assert again.asked == []


def test_one_missing_file_is_made_anew_alone(tmp_path: Path) -> None:
    before = build_store(small(), tmp_path, progress=False).hashes
    (tmp_path / "stories" / "toy3.h5").unlink()
    source = small()
    assert build_store(source, tmp_path, progress=False).hashes == before
    assert source.asked == ["toy3"]


def test_other_settings_are_refused_with_both_values(tmp_path: Path) -> None:
    build_store(small(seed=0), tmp_path, progress=False)
    with pytest.raises(StoreSettingsError, match="seed=0, but seed=5") as caught:
        build_store(small(seed=5), tmp_path, progress=False)
    assert (caught.value.key, caught.value.stored, caught.value.asked) == ("seed", 0, 5)
    assert StoryStore.open(tmp_path).settings["seed"] == 0


def test_a_truncated_file_is_refused_with_its_name(tmp_path: Path) -> None:
    build_store(small(), tmp_path, progress=False)
    file = tmp_path / "subjects" / "sub-A.h5"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(StoreCorruptError, match=r"sub-A\.h5 has \d+ bytes, it was written with") as caught:
        build_store(small(), tmp_path, progress=False)
    assert caught.value.file == file
    file.unlink()
    build_store(small(), tmp_path, progress=False)


SLOW_BUILD = """
import sys, time
from tests.toy import ToySource
import brainlit.store.files as files

write = files._write_intervals
def slow_write(h5, name, intervals):
    print(h5.filename.split("/")[-1].split(".")[1], flush=True)  # asking the file itself would change its bytes
    write(h5, name, intervals)
    time.sleep(0.15)
files._write_intervals = slow_write

from brainlit.store import build_store
build_store(ToySource(n_trs=6), sys.argv[1], progress=False)
"""


@pytest.mark.parametrize("kill_at", ["toy0", "toy3"])
def test_a_killed_build_goes_on_where_it_was(tmp_path: Path, kill_at: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != kill_at:
        assert process.poll() is None
    while not list((tmp_path / "s" / "stories").glob(".*.tmp.h5")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    left = files_of(tmp_path / "s")
    done = [f"toy{k}" for k in range(int(kill_at[-1]))]
    assert [Path(file).stem for file in left if file.endswith(".h5") and ".tmp" not in file] == done
    assert any(".tmp" in file for file in left)
    with pytest.raises(StoreError, match="no finished store"):
        StoryStore.open(tmp_path / "s")

    source = small()
    resumed = build_store(source, tmp_path / "s", progress=False)
    assert source.asked == [name for name in [*source.story_names(), *source.subject_names()] if name not in done]
    assert files_of(tmp_path / "s") == FINISHED
    assert resumed.hashes == build_store(small(), tmp_path / "fresh", progress=False).hashes


def test_stories_are_read_one_ahead_and_one_at_a_time(tmp_path: Path) -> None:
    class Watched(Counting):
        reading = 0

        def story(self, name: str) -> Story:
            self.reading += 1
            assert self.reading == 1, "a source is asked for one thing at a time"
            time.sleep(0.01)
            story = super().story(name)
            self.reading -= 1
            return story

        def phones(self, story: str) -> Intervals | None:
            return self.story(story).phones

    build_store(Watched(n_trs=6), tmp_path / "s", progress=False)
    same = build_store(small(), tmp_path / "plain", progress=False).hashes
    assert StoryStore.open(tmp_path / "s").hashes == same


def test_an_error_in_a_story_that_is_read_ahead_comes_in_its_turn(tmp_path: Path) -> None:
    class Broken(Counting):
        def story(self, name: str) -> Story:
            if name == "toy2":
                raise ValueError("toy2.wav is cut off")
            return super().story(name)

    with pytest.raises(ValueError, match=r"toy2\.wav is cut off"):
        build_store(Broken(n_trs=6), tmp_path, progress=False)
    assert files_of(tmp_path) == [".build.lock", "stories/toy0.h5", "stories/toy1.h5"]


def test_leftovers_of_other_settings_are_made_anew(tmp_path: Path) -> None:
    build_store(small(seed=1), tmp_path, progress=False)
    (tmp_path / "store.json").unlink()
    shutil.copy(tmp_path / "stories" / "toy0.h5", tmp_path / "stories" / "gone.h5")
    source = small(seed=2)
    build_store(source, tmp_path, progress=False)
    assert source.asked == [*source.story_names(), *source.subject_names()]
    assert files_of(tmp_path) == FINISHED


def test_an_unreadable_leftover_is_made_anew(tmp_path: Path) -> None:
    build_store(small(), tmp_path, progress=False)
    (tmp_path / "store.json").unlink()
    os.truncate(tmp_path / "stories" / "toy2.h5", 100)
    source = small()
    build_store(source, tmp_path, progress=False)
    assert source.asked == ["toy2"]


def test_files_of_others_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "stories").mkdir()
    with h5py.File(tmp_path / "stories" / "mine.h5", "w") as h5:
        h5["precious"] = np.arange(3)
    with pytest.raises(StoreError, match=r"mine\.h5 is not a file of a store"):
        build_store(small(), tmp_path, progress=False)
    assert (tmp_path / "stories" / "mine.h5").exists()


def test_two_builds_at_once_make_one_store(tmp_path: Path) -> None:
    sources = [small(), small()]
    threads = [threading.Thread(target=build_store, args=(source, tmp_path, False)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(source.asked) for source in sources) == [0, 8]


def test_two_processes_at_once_make_one_store(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-c", SLOW_BUILD, str(tmp_path / "s")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    written = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    each_story_has_words_and_phones = [f"toy{k}" for k in range(6) for _ in range(2)]
    assert sorted(written) == [[], each_story_has_words_and_phones], "one process wrote all, the other waited"
    assert files_of(tmp_path / "s") == FINISHED


def test_a_full_disk_leaves_finished_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_asked = 0

    def full_at_third(descriptor: int, start: int, length: int) -> None:
        nonlocal n_asked
        n_asked += 1
        if n_asked == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full_at_third)
    with pytest.raises(FullDiskError, match=r"no space for toy2\.h5: it needs about \d"):
        build_store(small(), tmp_path, progress=False)
    assert files_of(tmp_path) == [".build.lock", "stories/toy0.h5", "stories/toy1.h5"]
    source = small()
    build_store(source, tmp_path, progress=False)
    assert source.asked[0] == "toy2"


class Odd(ToySource):
    """A toy source with one part replaced."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(n_trs=6)
        self.changes = changes

    def story_names(self) -> list[str]:
        return self.changes.get("story_names", ["toy0", "toy1"])

    def story(self, name: str) -> Story:
        change = self.changes.get("story", {})
        return replace(super().story(name), **(change if name == "toy1" else {}))

    def feature_spaces(self, story: Story) -> list[FeatureSpace]:
        spaces = super().feature_spaces(story)
        return self.changes.get("spaces", spaces) if story.name == "toy1" else spaces

    def subject(self, name: str) -> Subject:
        return replace(super().subject(name), **self.changes.get("subject", {}))

    def responses(self, subject: str, story: str) -> Responses | None:
        return self.changes.get("responses", super().responses(subject, story))


def space(n_trs: int = 6, name: str = "envelope", columns: tuple[str, ...] = ("level", "unrelated")) -> FeatureSpace:
    return FeatureSpace(name, "low_level", columns, "test", np.zeros((n_trs, len(columns)), dtype=np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"story_names": []}, "holds no stories"),
        ({"story_names": ["toy0", "Toy0"]}, "are one name"),
        (
            {"story": {"audio": np.ones(16_000 * 9, dtype=np.int16), "timebase": TimeBase.regular(6, 2.0, 60.0)}},
            r"'toy1' lasts 9\.00 s, but its 6 TRs of 2\.0 s end at 72\.00 s: the last one starts 61\.0 s after",
        ),
        (
            {"story": {"audio": np.zeros((160_000, 2), dtype=np.int16)}},
            r"int16 of shape \(160000, 2\); need int16, mono",
        ),
        ({"story": {"audio": np.zeros(200_000, dtype=np.float32)}}, "float32 of shape"),
        ({"story": {"timebase": TimeBase.regular(6, 2.0, sample_rate_hz=8000)}}, "at 8000 Hz; resample"),
        ({"story": {"timebase": TimeBase.regular(6, 1.5)}}, "stories differ in tr_s"),
        ({"story": {"name": "other"}}, "gave story 'other' when asked for 'toy1'"),
        ({"spaces": [space(n_trs=5)]}, "'envelope' of story 'toy1' has 5 rows for 6 TRs"),
        ({"spaces": [space()]}, r"'toy1' has \['envelope'\]"),
        ({"subject": {"n_voxels": 11, "regions": {}, "truth": {}, "coordinates_mm": None}}, "vertices of subject"),
        ({"subject": {"regions": {"a/b": np.ones(12, dtype=bool)}}}, "use no slash"),
        ({"subject": {"truth": {"x": np.array([{}] * 12)}}}, "need numbers or text"),
        ({"responses": Responses(np.zeros((5, 12), dtype=np.float32))}, r"shape \(5, 12\), but the story has 6 TRs"),
        ({"responses": Responses(np.zeros((6, 11), dtype=np.float32))}, "the subject 12 voxels"),
        (
            {"responses": Responses(np.zeros((6, 12), np.float32), np.zeros((1, 6, 12), np.float32))},
            "has 1 repeats; need at least two",
        ),
        ({"responses": None}, "'sub-A' heard none of the stories"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        build_store(Odd(**changes), tmp_path, progress=False)
    assert not (tmp_path / "store.json").exists()


def test_spaces_with_other_columns_are_refused(tmp_path: Path) -> None:
    spaces = [space(columns=("level", "other")), space(name="word_vectors", columns=("first", "second", "third"))]
    with pytest.raises(StoreError, match=r"'envelope' is low_level with 2 columns in story 'toy0'"):
        build_store(Odd(spaces=spaces), tmp_path, progress=False)


def test_sound_may_end_inside_the_last_tr(tmp_path: Path) -> None:
    store = build_store(Odd(story={"audio": np.ones(16_000 * 11, dtype=np.int16)}), tmp_path, progress=False)
    assert store.n_samples("toy1") == 176_000
