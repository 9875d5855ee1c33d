"""No flipped bit of a store is used; stores of before are read; those that somebody sent lead nowhere."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from brainlit.files import write_json
from brainlit.store import StoreCorruptError, StoreError, StoryStore, build_store
from brainlit.store.sound import BLOCK_SAMPLES
from tests.flips import flip_each
from tests.toy import ToySource


@pytest.fixture(scope="module")
def small_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose files are small, so that flips hit all of their parts; not to be changed."""
    path = tmp_path_factory.mktemp("small") / "store"
    build_store(ToySource(n_trs=6), path, progress=False).close()
    return path


@pytest.fixture
def path(small_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_path, tmp_path / "store"))


def everything(path: Path, story: str = "toy4", subject: str = "sub-A") -> object:
    """All that a store gives of one story and one subject, as plain values."""
    store = StoryStore.open(path)
    try:
        clock, words, phones = store.timebase(story), store.words(story), store.phones(story)
        who, rows, repeats = store.subject(subject), store.responses(subject, story), store.repeats(subject, story)
        assert phones is not None
        assert rows is not None
        assert repeats is not None
        arrays = [clock.tr_starts_s, words.start_s, words.duration_s, phones.start_s, phones.duration_s, rows, repeats]
        arrays += [store.audio(story, 0, store.n_samples(story)), store.good_voxels(subject), *who.regions.values()]
        arrays += [who.vertices, who.coordinates_mm, *who.truth.values()]
        spaces = store.feature_spaces(story)
        texts = [clock.tr_s, clock.sample_rate_hz, words.labels, phones.labels, who.n_voxels, list(who.regions)]
        texts += [(space.name, space.kind, space.columns, space.source, space.coverage) for space in spaces]
        return [repr(store.index), texts, [values.tobytes() for values in map(np.asarray, arrays)],
                [space.values.tobytes() for space in spaces]]  # fmt: skip
    finally:
        store.close()


@pytest.mark.parametrize("file", ["stories/toy4.h5", "subjects/sub-A.h5", "store.json"])
def test_no_flipped_bit_is_used(path: Path, file: str) -> None:
    outcome = flip_each(path / file, lambda: everything(path), n=60)
    assert outcome.silent == []
    assert len(outcome.refused) > 25
    for error in outcome.refused:
        assert isinstance(error, StoreError)
        assert str(path / file) in str(error)


def test_sound_is_checked_where_it_is_read(path: Path) -> None:
    """Blocks that nobody reads are not checked, so that a window costs what it holds."""
    expected = everything(path)
    with h5py.File(path / "stories/toy4.h5", "r") as h5:
        place, n_samples = h5["audio"].id.get_offset() + 2 * (BLOCK_SAMPLES + 5), len(h5["audio"])
    assert n_samples > 2 * BLOCK_SAMPLES
    whole = bytearray((path / "stories/toy4.h5").read_bytes())
    whole[place] ^= 1
    (path / "stories/toy4.h5").write_bytes(whole)
    store = StoryStore.open(path)
    store.audio("toy4", 0, BLOCK_SAMPLES)
    store.audio("toy4", 2 * BLOCK_SAMPLES, n_samples)
    with pytest.raises(StoreCorruptError, match=rf"samples {BLOCK_SAMPLES}\.\.{2 * BLOCK_SAMPLES - 1} of the audio"):
        store.audio("toy4", BLOCK_SAMPLES - 1, BLOCK_SAMPLES + 1)
    whole[place] ^= 1
    (path / "stories/toy4.h5").write_bytes(whole)
    assert everything(path) == expected


# --- Stores of before


def to_version_4(path: Path) -> None:
    """Make a store what it was before checksums: without those of the sound and of the index."""
    index = json.loads((path / "store.json").read_text())
    for entry in [*index["stories"].values(), *index["subjects"].values()]:
        file = path / entry["file"]
        with h5py.File(file, "r") as old, h5py.File(path / "new.h5", "w") as new:
            new.attrs.update({name: value for name, value in old.attrs.items() if not name.endswith(".crc32")})
            for name in old:
                old.copy(name, new)
            new.attrs["schema_version"] = 4
            if "audio_crc32" in new:
                del new["audio_crc32"]
        (path / "new.h5").rename(file)
        entry["n_bytes"] = file.stat().st_size
    del index["brainlit_checksum"]
    (path / "store.json").write_text(json.dumps(index | {"schema_version": 4}))


def test_a_store_of_before_is_read_and_said_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = everything(path)
    to_version_4(path)
    with caplog.at_level(logging.WARNING):
        assert everything(path)[1:] == expected[1:]  # type: ignore[index]
        assert everything(path)[1:] == expected[1:]  # type: ignore[index]
    (said,) = [record.message for record in caplog.records if "before checksums" in record.message]
    assert str(path) in said


def test_a_store_of_before_is_the_same_store(path: Path) -> None:
    """Neither refused nor made anew; what it grows by does not make it one that is checked."""
    fingerprint = StoryStore.open(path).fingerprint
    to_version_4(path)
    times = {file: file.stat().st_mtime_ns for file in path.rglob("*.h5")}
    store = build_store(ToySource(n_trs=6), path, progress=False)
    assert store.fingerprint == fingerprint
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*.h5")} == times
    assert store.index.schema_version == 4


# --- Stores that somebody sent


@pytest.mark.parametrize("place", ["/etc/passwd", "../store/stories/toy4.h5", "stories/toy3.h5", "stories/../x.h5", ""])
def test_an_index_that_leads_elsewhere_is_refused(path: Path, place: str) -> None:
    index = json.loads((path / "store.json").read_text())
    index["stories"]["toy4"]["file"] = place
    write_json(path / "store.json", index)
    with pytest.raises(StoreCorruptError, match=r"says that story 'toy4' lies in .*, not in 'stories/toy4\.h5'"):
        StoryStore.open(path)


@pytest.mark.parametrize("name", ["../toy4", "/tmp/x", "a b", ""])
def test_an_index_with_an_odd_name_is_refused(path: Path, name: str) -> None:
    index = json.loads((path / "store.json").read_text())
    index["subjects"][name] = {**index["subjects"].pop("sub-A"), "file": f"subjects/{name}.h5"}
    write_json(path / "store.json", index)
    with pytest.raises(StoreError, match=f"subject name {name!r}: use letters"):
        StoryStore.open(path)


def _external(h5: Any, secret: Path) -> None:
    del h5["responses/toy4"]
    h5["responses"].create_dataset("toy4", (6, 12), np.float32, external=[(str(secret), 0, 4 * 72)])


def _linked(h5: Any, secret: Path) -> None:
    del h5["responses/toy4"]
    h5["responses/toy4"] = h5py.ExternalLink(str(secret), "/values")


@pytest.mark.parametrize("lead", [_external, _linked])
def test_a_store_that_reads_other_files_is_refused(path: Path, lead: Callable[[Any, Path], None]) -> None:
    (path.parent / "secret").write_bytes(bytes(4 * 72))
    with h5py.File(path / "subjects/sub-A.h5", "r+") as h5:
        lead(h5, path.parent / "secret")
    index = json.loads((path / "store.json").read_text())
    index["subjects"]["sub-A"]["n_bytes"] = (path / "subjects/sub-A.h5").stat().st_size
    write_json(path / "store.json", index)
    with pytest.raises(StoreCorruptError, match=r"sub-A\.h5 cannot be read \(.*'responses/toy4'"):
        StoryStore.open(path).responses("sub-A", "toy4")


def test_damage_leaves_other_threads_free(path: Path) -> None:
    """Whoever keeps the error, as a report does, must not keep HDF5 from all other threads."""
    with h5py.File(path / "subjects/sub-A.h5", "r") as h5:
        place = h5["truth/driven_by"].id.get_chunk_info(0).byte_offset
    whole = bytearray((path / "subjects/sub-A.h5").read_bytes())
    whole[place] ^= 1
    (path / "subjects/sub-A.h5").write_bytes(whole)
    with pytest.raises(StoreCorruptError) as caught:
        StoryStore.open(path).subject("sub-A")
    with ThreadPoolExecutor(max_workers=1) as thread:
        other = thread.submit(lambda: StoryStore.open(path).good_voxels("sub-A"))
        assert other.result(timeout=20).all()
    assert "sub-A.h5" in str(caught.value)
