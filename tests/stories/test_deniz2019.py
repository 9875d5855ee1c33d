"""Reading and listening to the same stories: what is planted in files of the layout comes back on time."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from brainlit.stories.base import ROLES, SourceError
from brainlit.stories.deniz2019 import STORIES, VOLUMES, DenizSource
from brainlit.stories.regions.config import RegionConfig
from tests.layouts.deniz2019 import N_DRIVEN, N_VOLUMES, TITLES, Planted, write_deniz2019

THREE = ["alternateithicatom", "undertheinfluence", "wheretheressmoke"]
GRIDS = Path("stimuli") / "textgrids" / "stimulus_textgrids"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Planted]:
    """Three stories of one person who heard and read them; not to be changed."""
    root = tmp_path_factory.mktemp("deniz2019")
    return root, write_deniz2019(root, modalities=("listening", "reading"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Two stories of one listener, to be damaged."""
    write_deniz2019(tmp_path, stories=("story_10", "story_11"))
    return tmp_path


def _source(root: Path, **chosen: object) -> DenizSource:
    settings = {"subjects": ["subject01"], "stories": THREE, **chosen}
    return DenizSource(str(root), **settings)  # type: ignore[arg-type]


def _two(root: Path) -> DenizSource:
    return _source(root, stories=THREE[1:])


def test_the_lengths_of_the_scans_are_those_of_the_published_features() -> None:
    assert sum(n - 20 for title, n in VOLUMES.items() if title != "wheretheressmoke") == 3737
    assert VOLUMES["wheretheressmoke"] - 20 == 291
    assert len(set(VOLUMES.values())) == 11  # so the length of a matrix says which story it is
    assert {f"story_{k:02d}": VOLUMES[title] for k, title in enumerate(STORIES, 1)} == N_VOLUMES
    assert all(STORIES[int(number[-2:]) - 1] == title for number, title in TITLES.items())


@pytest.mark.parametrize("modality", ["listening", "reading"])
@pytest.mark.parametrize("story", THREE)
def test_a_planted_response_is_in_the_row_in_which_its_word_is_said(
    shared: tuple[Path, Planted], story: str, modality: str
) -> None:
    root, planted = shared
    source = _source(root, modality=modality)
    heard, responses = source.story(story), source.responses("subject01", story)
    assert responses is not None
    assert responses.values.shape == (VOLUMES[story] - 20, 12)
    assert heard.timebase.n_trs == VOLUMES[story] - 20
    row = int(responses.values[:, :N_DRIVEN].mean(axis=1).argmax())
    assert row == heard.timebase.trs_at([planted.burst_s[story]])[0]
    assert heard.words.labels[-1] == "burst"
    assert heard.timebase.trs_at(heard.words.start_s[-1]) == row
    loudest_s = float(np.abs(heard.audio.astype(float)).argmax()) / heard.timebase.sample_rate_hz
    assert 0 <= loudest_s - planted.burst_s[story] < 0.45


def test_the_first_row_is_the_eleventh_volume(shared: tuple[Path, Planted]) -> None:
    starts_s = _source(shared[0]).story("undertheinfluence").timebase.tr_starts_s
    assert starts_s[0] == pytest.approx(20.045 - 10.023)
    logged_s = [20.018028 - 10.023137, 22.025897 - 10.023137]  # volumes 10 and 11 in the lab's log of this story
    np.testing.assert_allclose(starts_s[:2], logged_s, atol=0.05)


def test_trimmed_rows_do_not_count_and_empty_voxels_are_nan(shared: tuple[Path, Planted]) -> None:
    values = _source(shared[0]).responses("subject01", "undertheinfluence").values  # type: ignore[union-attr]
    assert np.isnan(values[:, 10:]).all()
    np.testing.assert_allclose(values[:, :10].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(values[:, :10].std(axis=0), 1, atol=1e-5)
    with h5py.File(shared[0] / "responses" / "subject01_listening_fmri_data_trn.hdf") as file:
        raw = file["story_10"][10:-10, 0]
    np.testing.assert_allclose(values[:, 0], (raw - raw.mean()) / raw.std(), atol=1e-5)


def test_the_test_story_comes_with_its_two_presentations(shared: tuple[Path, Planted]) -> None:
    source = _source(shared[0])
    responses = source.responses("subject01", "wheretheressmoke")
    assert responses is not None
    assert responses.repeats is not None
    first, second = responses.repeats
    mean = (first[:, 1].astype(float) + second[:, 1]) / 2
    np.testing.assert_allclose(responses.values[:, 1], mean, atol=1e-5)
    assert mean.std() < 0.99, "the mean is not z-scored again"
    assert not np.array_equal(first[:, 1], second[:, 1])
    assert source.responses("subject01", "alternateithicatom").repeats is None  # type: ignore[union-attr]


def test_readers_are_other_data_and_the_report_says_that_they_heard_nothing(shared: tuple[Path, Planted]) -> None:
    listening, reading = (_source(shared[0], modality=one) for one in ("listening", "reading"))
    values = [one.responses("subject01", "alternateithicatom").values for one in (listening, reading)]  # type: ignore[union-attr]
    assert not np.allclose(values[0][:, 0], values[1][:, 0])
    assert "the sound was not heard" in reading.facts()["modality"]
    assert "not heard" not in listening.facts()["modality"]
    assert reading.settings() != listening.settings()


def test_drift_is_removed_only_when_asked(shared: tuple[Path, Planted], tmp_path: Path) -> None:
    write_deniz2019(tmp_path, stories=("story_10", "story_11"))
    slow = np.cos(np.linspace(0, np.pi, 324))
    with h5py.File(tmp_path / "responses" / "subject01_listening_fmri_data_trn.hdf", "r+") as file:
        file["story_10"][:, 9] += 20 * slow
    kept, removed = (_source(tmp_path, stories=THREE[1:], high_pass_s=one) for one in (None, 120.0))
    values = [one.responses("subject01", "undertheinfluence").values[:, 9] for one in (kept, removed)]  # type: ignore[union-attr]
    r = [abs(float(np.corrcoef(one, slow[10:-10])[0, 1])) for one in values]
    assert r[0] > 0.99
    assert r[1] < 0.05


def test_words_and_phones_without_marks(shared: tuple[Path, Planted]) -> None:
    source = _source(shared[0])
    story, phones = source.story("undertheinfluence"), source.phones("undertheinfluence")
    assert set(story.words.labels) == {"today", "burst"}
    assert phones is not None
    assert phones.labels == ("B",)
    assert story.phones is not None
    assert story.phones.labels == phones.labels


def test_regions_are_those_that_the_authors_drew(shared: tuple[Path, Planted]) -> None:
    subject = _source(shared[0]).subject("subject01")
    assert subject.n_voxels == 12
    assert {name: np.flatnonzero(mask).tolist() for name, mask in subject.regions.items()} == {
        "AC": [0, 1, 2], "Broca": [3, 4], "V1": [8, 9],
    }  # fmt: skip
    assert subject.vertices is None


def test_other_regions_may_be_named(own: Path) -> None:
    np.savez(own / "mine.npz", left=np.arange(12) < 6)
    (own / "mappers" / "subject01_mappers.hdf").unlink()
    source = _source(own, stories=THREE[1:], regions=RegionConfig(file="mine.npz", sides=False))
    assert source.subject("subject01").regions["left"].sum() == 6
    assert own / "mine.npz" in source.subject_files("subject01")


def test_what_needs_no_file_works_without_any() -> None:
    source = DenizSource("nowhere")
    assert list(source.story_names()) == list(VOLUMES)
    assert source.subject_names()[0] == "subject01"
    assert len(source.subject_names()) == 9
    assert json.loads(json.dumps(source.settings())) == source.settings()
    assert "nowhere" not in json.dumps(source.settings())
    assert source.settings() == DenizSource("elsewhere", subjects=["subject03"]).settings()
    roles = source.default_roles()
    assert sorted(name for role in ROLES for name in roles[role]) == sorted(VOLUMES)
    assert roles["score"] == ["wheretheressmoke"]
    assert {"clock", "licence", "citation", "preprocessing", "modality"} <= set(source.facts())
    assert len(source.subject_files("subject01")) == 3
    assert source.left_out() == {}


def test_the_download_asks_for_exactly_the_files_that_are_read(shared: tuple[Path, Planted]) -> None:
    remote = _source(shared[0]).remote()
    assert remote is not None
    assert remote.url.startswith("https://gin.g-node.org/denizenslab/")
    assert len(remote.paths) == len(set(remote.paths)) == 2 * 3 + 3
    assert all((shared[0] / path).is_file() for path in remote.paths)
    assert not any("reading_fmri" in path for path in remote.paths)


@pytest.mark.parametrize(
    ("file", "method"),
    [
        ("stimuli/story_10.wav", "story"),
        (str(GRIDS / "undertheinfluence.TextGrid"), "story"),
        (str(GRIDS / "undertheinfluence.TextGrid"), "phones"),
        ("responses/subject01_listening_fmri_data_trn.hdf", "responses"),
        ("responses/subject01_listening_fmri_data_trn.hdf", "subject"),
        ("mappers/subject01_mappers.hdf", "subject"),
    ],
)
def test_a_missing_file_is_named(own: Path, file: str, method: str) -> None:
    (own / file).unlink()
    asked = {"responses": ("subject01", "undertheinfluence"), "subject": ("subject01",)}
    with pytest.raises(FileNotFoundError, match=Path(file).name.replace(".", r"\.")):
        getattr(_two(own), method)(*asked.get(method, ("undertheinfluence",)))


def test_the_file_of_the_test_story_is_another_one(own: Path) -> None:
    (own / "responses" / "subject01_listening_fmri_data_val.hdf").unlink()
    assert _two(own).responses("subject01", "undertheinfluence") is not None
    with pytest.raises(FileNotFoundError, match=r"_val\.hdf"):
        _two(own).responses("subject01", "wheretheressmoke")


def test_a_story_of_another_length_is_refused_and_named(own: Path) -> None:
    with h5py.File(own / "responses" / "subject01_listening_fmri_data_trn.hdf", "r+") as file:
        del file["story_10"]
        file["story_10"] = np.zeros((363, 12))
    with pytest.raises(SourceError, match=r"story_10 has shape \(363, 12\); .* 324 volumes.*'alternateithicatom'"):
        _two(own).responses("subject01", "undertheinfluence")


def test_one_presentation_of_the_test_story_is_refused(own: Path) -> None:
    with h5py.File(own / "responses" / "subject01_listening_fmri_data_val.hdf", "r+") as file:
        first = file["story_11"][0]
        del file["story_11"]
        file["story_11"] = first
    with pytest.raises(SourceError, match=r"\(311, 12\); .* 311 volumes, in two presentations"):
        _two(own).responses("subject01", "wheretheressmoke")


def test_a_story_that_the_file_lacks_is_refused(own: Path) -> None:
    with pytest.raises(SourceError, match=r"_trn\.hdf holds no 'story_01'\. Did you mean 'story_10'"):
        _source(own).responses("subject01", "alternateithicatom")


@pytest.mark.parametrize("content", [b"/annex/objects/MD5-s9--ab\n", b"", b"\x89HDF\r\n\x1a\n" + bytes(40)])
def test_a_pointer_or_a_damaged_file_is_refused_with_a_cure(own: Path, content: bytes) -> None:
    (own / "responses" / "subject01_listening_fmri_data_trn.hdf").write_bytes(content)
    with pytest.raises(SourceError, match=r"_trn\.hdf cannot be read as HDF5.*git-annex"):
        _two(own).responses("subject01", "undertheinfluence")


def test_a_mapper_of_another_subject_or_without_regions_is_refused(own: Path) -> None:
    path = own / "mappers" / "subject01_mappers.hdf"
    with h5py.File(path, "w") as file:
        file["roi_mask_AC"] = np.ones(13)
    with pytest.raises(SourceError, match=r"roi_mask_AC has shape \(13,\), but the responses have 12 voxels"):
        _two(own).subject("subject01")
    with h5py.File(path, "w") as file:
        file["flatmap_mask"] = np.ones((4, 5))
    with pytest.raises(SourceError, match="holds no roi_mask_<name>"):
        _two(own).subject("subject01")


def test_the_sound_of_a_shorter_story_is_refused(own: Path) -> None:
    (own / "stimuli" / "story_11.wav").replace(own / "stimuli" / "story_10.wav")
    with pytest.raises(SourceError, match=r"story_10\.wav lasts .* but the rows of 'undertheinfluence' end at"):
        _two(own).story("undertheinfluence")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"subjects": ["subject1"]}, "there is no subject 'subject1'. Did you mean 'subject01'"),
        ({"subjects": []}, "no subject is asked for"),
        ({"stories": ["story_01"]}, "there is no story 'story_01'. Known: alternateithicatom"),
        ({"modality": "hearing"}, "there is no modality 'hearing'. Did you mean"),
        ({"high_pass_s": 0.0}, r"high_pass_s is 0\.0"),
    ],
)
def test_a_wrong_setting_is_refused_at_once(chosen: dict[str, object], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        _source(Path("nowhere"), **chosen)


def test_a_story_or_subject_that_was_not_asked_for_is_refused() -> None:
    source = _source(Path("nowhere"))
    with pytest.raises(SourceError, match="there is no story 'naked'"):
        source.story("naked")
    with pytest.raises(SourceError, match="there is no subject 'subject02'"):
        source.subject("subject02")
