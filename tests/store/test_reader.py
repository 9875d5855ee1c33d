"""Reading: slices, bands, rows, masks; lazily, per process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from brainlit.store import StoreCorruptError, StoreError, StoryStore, UnknownNameError, build_store
from brainlit.stories import Responses
from tests.toy import DRIVEN_BY, ToySource


class Holes(ToySource):
    """Voxel 0 of sub-A is NaN at one row of toy1, voxel 5 constant in toy3."""

    def responses(self, subject: str, story: str) -> Responses | None:
        responses = super().responses(subject, story)
        if responses is not None and subject == "sub-A":
            if story == "toy1":
                responses.values[2, 0] = np.nan
            if story == "toy3":
                responses.values[:, 5] = 1.0
        return responses


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 10), (-5, 5), (-20, -10), (639_990, 640_010), (10**7, 10**7 + 4), (3, 3)]
)
def test_audio_is_zero_outside_the_story(toy_store: StoryStore, toy_source: ToySource, start: int, stop: int) -> None:
    audio = toy_source.story("toy2").audio
    expected = [int(audio[k]) if 0 <= k < len(audio) else 0 for k in range(start, stop)]
    assert toy_store.audio("toy2", start, stop).tolist() == expected


def test_read_audio_fills_the_covered_part_only(toy_store: StoryStore) -> None:
    out = np.full(10, 7, dtype=np.int16)
    covered = toy_store.read_audio("toy0", -4, out)
    assert covered == slice(4, 10)
    assert out[:4].tolist() == [7] * 4
    np.testing.assert_array_equal(out[4:], toy_store.audio("toy0", 0, 6))


def test_bands_put_the_spaces_of_a_kind_side_by_side(toy_store: StoryStore) -> None:
    low_level, semantic = toy_store.feature_spaces("toy1")
    np.testing.assert_array_equal(toy_store.band("toy1", "low_level"), low_level.values)
    np.testing.assert_array_equal(toy_store.band("toy1", "semantic"), semantic.values)
    assert toy_store.band("toy1", "semantic").dtype == np.float32
    assert toy_store.band_columns("semantic") == ["word_vectors/first", "word_vectors/second", "word_vectors/third"]


def test_responses_are_the_rows_and_columns_asked_for(toy_store: StoryStore, toy_source: ToySource) -> None:
    given = toy_source.responses("sub-A", "toy4")
    assert given is not None
    assert given.repeats is not None
    np.testing.assert_array_equal(toy_store.responses("sub-A", "toy4"), given.values)
    part = toy_store.responses("sub-A", "toy4", 7, 21, np.array([11, 0]))
    np.testing.assert_array_equal(part, given.values[7:21][:, [11, 0]])
    np.testing.assert_array_equal(toy_store.repeats("sub-A", "toy4"), given.repeats)


def test_stories_that_were_not_heard_give_none(toy_store: StoryStore) -> None:
    assert toy_store.responses("sub-B", "toy1") is None
    assert toy_store.repeats("sub-B", "toy1") is None
    assert toy_store.repeats("sub-A", "toy0") is None
    assert toy_store.heard("sub-B") == ["toy0", "toy2", "toy3", "toy4", "toy5"]
    assert [toy_store.n_repeats("sub-B", story) for story in ("toy0", "toy1", "toy4")] == [1, 0, 3]


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 41), (5, 4)])
def test_rows_outside_a_story_are_refused(toy_store: StoryStore, start: int, stop: int) -> None:
    with pytest.raises(IndexError, match="not inside story 'toy0' of 40 TRs"):
        toy_store.responses("sub-A", "toy0", start, stop)


def test_one_row_is_one_read(toy_store_path: Path) -> None:
    import h5py

    with h5py.File(toy_store_path / "subjects" / "sub-A.h5", "r", locking=False) as h5:
        assert h5["responses/toy0"].chunks == (8, 12)
        assert h5["repeats/toy4"].chunks == (1, 40, 12)
    with h5py.File(toy_store_path / "stories" / "toy0.h5", "r", locking=False) as h5:
        assert h5["audio"].chunks is None
        assert h5["audio"].dtype == np.int16
        assert h5["words/labels"].dtype.kind == "S"


def test_subjects_come_back_whole(toy_store: StoryStore, toy_source: ToySource) -> None:
    ours, theirs = toy_store.subject("sub-A"), toy_source.subject("sub-A")
    assert (ours.name, ours.n_voxels) == (theirs.name, theirs.n_voxels)
    assert list(ours.regions) == ["low_level", "semantic"]
    for region in theirs.regions:
        np.testing.assert_array_equal(ours.regions[region], theirs.regions[region])
    np.testing.assert_array_equal(ours.vertices, theirs.vertices)
    np.testing.assert_array_equal(ours.coordinates_mm, theirs.coordinates_mm)
    assert tuple(ours.truth["driven_by"].tolist()) == DRIVEN_BY


def test_voxels_with_holes_are_masked_and_counted(tmp_path: Path) -> None:
    store = build_store(Holes(n_trs=10), tmp_path, progress=False)
    assert np.flatnonzero(~store.good_voxels("sub-A")).tolist() == [0, 5]
    assert store.good_voxels("sub-B").all()
    assert store.index.subjects["sub-A"].n_good_voxels == 10
    responses = store.responses("sub-A", "toy1")
    assert responses is not None
    assert np.isnan(responses).sum() == 1


@pytest.mark.parametrize("method", ["n_trs", "timebase", "words", "feature_spaces"])
def test_unknown_stories_name_the_nearest(toy_store: StoryStore, method: str) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'toy0'"):
        getattr(toy_store, method)("tpy0")


def test_unknown_subjects_name_the_nearest(toy_store: StoryStore) -> None:
    for ask in (toy_store.subject, toy_store.good_voxels, toy_store.heard):
        with pytest.raises(UnknownNameError, match="Did you mean 'sub-B'"):
            ask("subB")
    with pytest.raises(UnknownNameError):
        toy_store.responses("sub-A", "toy77")


def read_in_child(store: StoryStore, queue: multiprocessing.Queue[object]) -> None:
    inherited = list(store._open_files.values())
    audio, rows = store.audio("toy0", 0, 100).tolist(), store.responses("sub-A", "toy0", 3, 5)
    queue.put((audio, rows, [bool(handle) for handle in inherited]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_opens_its_own_files(toy_store: StoryStore, method: str) -> None:
    """The parent's handles are open when the child starts, and still work after it has closed its own."""
    expected = toy_store.audio("toy0", 0, 100).tolist(), toy_store.responses("sub-A", "toy0", 3, 5)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=read_in_child, args=(toy_store, queue))
    child.start()
    audio, rows, inherited_open = queue.get(timeout=60)
    child.join()
    assert child.exitcode == 0
    assert inherited_open == ([False, False] if method == "fork" else [])
    assert audio == expected[0]
    np.testing.assert_array_equal(rows, expected[1])
    assert toy_store.audio("toy0", 0, 100).tolist() == expected[0]


def test_a_pickled_store_opens_nothing_until_asked(toy_store: StoryStore) -> None:
    toy_store.audio("toy0", 0, 10)
    copy = pickle.loads(pickle.dumps(toy_store))
    assert not copy._open_files
    np.testing.assert_array_equal(copy.audio("toy0", 0, 10), toy_store.audio("toy0", 0, 10))


def test_many_stories_do_not_keep_many_files_open(toy_store: StoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brainlit.store.reader._MAX_OPEN_FILES", 2)
    first = toy_store.audio("toy0", 0, 5)
    for story in toy_store.story_names:
        toy_store.audio(story, 0, 5)
    assert len(toy_store._open_files) == 2
    np.testing.assert_array_equal(toy_store.audio("toy0", 0, 5), first)
    toy_store.close()
    assert not toy_store._open_files


def test_a_file_broken_after_opening_is_named(toy_store_path: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_store_path, tmp_path / "s")
    store = StoryStore.open(tmp_path / "s")
    size = (tmp_path / "s" / "stories" / "toy1.h5").stat().st_size
    (tmp_path / "s" / "stories" / "toy1.h5").write_bytes(os.urandom(size))
    with pytest.raises(StoreCorruptError, match=r"toy1\.h5 cannot be read .* Delete this file"):
        store.words("toy1")


def test_a_file_cut_short_while_open_is_named(toy_store_path: Path, tmp_path: Path) -> None:
    """Silence must not stand in for sound that is gone."""
    shutil.copytree(toy_store_path, tmp_path / "s")
    store = StoryStore.open(tmp_path / "s")
    n_samples = store.n_samples("toy1")
    store.audio("toy1", 0, 10)
    os.truncate(tmp_path / "s" / "stories" / "toy1.h5", n_samples)
    with pytest.raises(
        StoreCorruptError, match=r"toy1\.h5 cannot be read \(the file ends at byte \d+, inside the audio"
    ):
        store.audio("toy1", 0, n_samples)


def test_missing_files_and_stores_are_named(toy_store_path: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_store_path, tmp_path / "s")
    (tmp_path / "s" / "stories" / "toy1.h5").unlink()
    with pytest.raises(StoreCorruptError, match=r"toy1\.h5 is missing"):
        StoryStore.open(tmp_path / "s")
    with pytest.raises(StoreError, match="no finished store"):
        StoryStore.open(tmp_path / "nowhere")
