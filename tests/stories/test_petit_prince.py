"""Le Petit Prince: the published layout becomes stories and responses on one clock; what is missing is named."""

from __future__ import annotations

import gzip
from pathlib import Path
from shutil import copytree
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nilearn.masking import compute_epi_mask

from brainlit.stories.base import SourceError, SubjectLeftOut
from brainlit.stories.petit_prince import STORIES, SUBJECTS, PetitPrinceSource
from brainlit.stories.regions.config import RegionConfig
from tests.layouts.petit_prince import PREPROCESSED, RAW, SOUND_S, PetitPrinceFiles, write_petit_prince
from tests.layouts.volumes import AFFINE, SHAPE, brain, column_of_planted, write_run, write_sound

EN057, EN092 = "sub-EN057", "sub-EN092"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> PetitPrinceFiles:
    """Two listeners, whose runs are numbered differently; not to be changed."""
    return write_petit_prince(tmp_path_factory.mktemp("petit_prince"), (EN057, EN092))


@pytest.fixture(scope="module")
def source(files: PetitPrinceFiles) -> PetitPrinceSource:
    """All nine sections, two listeners."""
    return PetitPrinceSource(str(files.root), subjects=[EN092, EN057])


@pytest.fixture
def small(tmp_path: Path) -> PetitPrinceFiles:
    """One listener and sections 1 and 5, to be damaged."""
    return write_petit_prince(tmp_path, sections=(1, 5))


def _source(files: PetitPrinceFiles, **more: Any) -> PetitPrinceSource:
    return PetitPrinceSource(str(files.root), **{"subjects": [EN057], "stories": ["lpp1", "lpp5"], **more})


def test_nine_sections_and_49_listeners_without_a_file() -> None:
    everything = PetitPrinceSource("nowhere")
    assert everything.story_names() == [f"lpp{k}" for k in range(1, 10)]
    assert len(everything.subject_names()) == 49
    assert {"sub-EN057", "sub-EN115"} <= set(SUBJECTS)
    assert not {"sub-EN060", "sub-EN102", "sub-EN116"} & set(SUBJECTS)
    roles = everything.default_roles()
    assert sorted(name for names in roles.values() for name in names) == list(STORIES)
    assert list(roles) == ["tune", "fit", "choose", "score"]
    assert "once" in everything.facts()["noise ceiling"]
    assert everything.subject_files(EN057) == []


@pytest.mark.parametrize("story", STORIES)
def test_each_section_has_its_published_clock(story: str) -> None:
    section = STORIES.index(story)
    timebase = PetitPrinceSource("nowhere")._timebase(section + 1)
    assert timebase.n_trs == PREPROCESSED[section]
    assert timebase.tr_starts_s[0] == 0.0
    assert 7 <= timebase.end_s - SOUND_S[section] <= 11  # eight seconds after the sound, in whole volumes
    raw = PetitPrinceSource("nowhere", n_dropped_volumes=0)._timebase(section + 1)
    assert raw.n_trs == RAW[section]
    assert raw.tr_starts_s[:5].tolist() == [-8.0, -6.0, -4.0, -2.0, 0.0]


@pytest.mark.parametrize("section", [1, 3, 9])
def test_sound_words_and_response_meet_in_one_row(
    source: PetitPrinceSource, files: PetitPrinceFiles, section: int
) -> None:
    story = source.story(f"lpp{section}")
    click_s = files.click_s(section)
    assert np.abs(story.audio).argmax() / 16_000 == pytest.approx(click_s + 0.05, abs=0.06)
    sheep = story.words.labels.index("sheep")
    assert story.words.start_s[sheep] == click_s
    assert not {"#", ""} & set(story.words.labels)
    assert story.phones is None
    for subject in (EN057, EN092):
        responses = source.responses(subject, story.name)
        assert responses is not None
        coordinates_mm = source.subject(subject).coordinates_mm
        assert coordinates_mm is not None
        peak = int(responses.values[:, column_of_planted(coordinates_mm)].argmax())
        middle_s = story.timebase.tr_starts_s[peak] + 1.0
        assert abs(middle_s - click_s) <= 1.0


def test_responses_are_zscored_within_one_mask_for_all_runs(source: PetitPrinceSource) -> None:
    subject = source.subject(EN057)
    for name, n_trs in zip(STORIES, PREPROCESSED, strict=True):
        responses = source.responses(EN057, name)
        assert responses is not None
        assert responses.repeats is None
        assert responses.values.dtype == np.float32
        assert responses.values.shape == (n_trs, subject.n_voxels)
        np.testing.assert_allclose(responses.values.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(responses.values.std(axis=0), 1, atol=1e-4)


def test_the_mask_is_what_nilearn_keeps_in_every_run(source: PetitPrinceSource, files: PetitPrinceFiles) -> None:
    wanted = np.ones(SHAPE, dtype=bool)
    for section in range(1, 10):
        wanted &= np.asarray(compute_epi_mask(str(files.run(EN057, section))).dataobj) > 0
    subject = source.subject(EN057)
    assert subject.coordinates_mm is not None
    voxels = np.rint((subject.coordinates_mm - AFFINE[:3, 3]) / 2).astype(int)
    np.testing.assert_array_equal(voxels, np.argwhere(wanted))
    assert brain()[tuple(voxels.T)].all()


def test_a_given_mask_and_an_atlas(small: PetitPrinceFiles) -> None:
    new_image: Any = nib.Nifti1Image
    nib.save(new_image(brain().astype(np.uint8), AFFINE), small.root / "mask.nii.gz")
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[:4], labels[4:] = 1, 2
    nib.save(new_image(labels, AFFINE), small.root / "atlas.nii.gz")
    (small.root / "atlas.tsv").write_text("index\tname\n1\tfront\n2\tback\n")
    regions = RegionConfig(file="atlas.nii.gz", names="atlas.tsv")
    source = _source(small, mask="mask.nii.gz", regions=regions)
    subject = source.subject(EN057)
    assert subject.n_voxels == brain().sum()
    np.testing.assert_array_equal(subject.regions["front"], np.argwhere(brain())[:, 0] < 4)
    assert {path.name for path in source.subject_files(EN057)} >= {"mask.nii.gz", "atlas.nii.gz", "atlas.tsv"}
    assert source.settings()["mask"] == "mask.nii.gz"


def test_confounds_are_regressed_out(small: PetitPrinceFiles) -> None:
    rng = np.random.default_rng(0)
    tables = {}
    for section, run in ((1, "15"), (5, "19")):
        tables[section] = rng.normal(size=(PREPROCESSED[section - 1], 2))
        rows = ["trans_x\trot_z", *("\t".join(map(str, row)) for row in tables[section])]
        (small.root / f"{EN057}_run-{run}.tsv").write_text("\n".join(rows))
    source = _source(small, confounds="{subject}_run-{run}.tsv", confound_names=["trans_*"])
    responses = source.responses(EN057, "lpp5")
    assert responses is not None
    assert np.abs(tables[5][:, 0] @ responses.values).max() < 0.02 * np.abs(tables[5][:, 1] @ responses.values).max()
    (small.root / f"{EN057}_run-19.tsv").write_text("trans_x\n" + "0.5\n" * 269)
    with pytest.raises(SourceError, match=r"run-19.tsv has 269 rows, but .*run-19.*265 volumes"):
        source.responses(EN057, "lpp5")


def test_own_runs_from_the_first_raw_volume_on(small: PetitPrinceFiles) -> None:
    """What fMRIPrep makes of the raw runs: all volumes, so the sound starts in row 4."""
    for run, section in (("2", 1), ("10", 5)):
        path = small.root / "fmriprep" / f"{EN057}_task-lppEN_run-{run}_desc-preproc_bold.nii.gz"
        write_run(path, RAW[section - 1], int((small.click_s(section) + 8) / 2), seed=section)
    pattern = "fmriprep/{subject}_task-lppEN_run-*_desc-preproc_bold.nii.gz"
    source = _source(small, runs=pattern, n_dropped_volumes=0)
    story, responses, subject = source.story("lpp5"), source.responses(EN057, "lpp5"), source.subject(EN057)
    assert responses is not None
    assert subject.coordinates_mm is not None
    peak = int(responses.values[:, column_of_planted(subject.coordinates_mm)].argmax())
    assert abs(story.timebase.tr_starts_s[peak] + 1.0 - small.click_s(5)) <= 1.0
    assert all("derivatives" not in path for path in source.remote().paths)


def test_settings_say_how_and_not_where_or_who(files: PetitPrinceFiles) -> None:
    one = PetitPrinceSource(str(files.root), subjects=[EN057])
    other = PetitPrinceSource("elsewhere", subjects=[EN092])
    assert one.settings() == other.settings()
    assert "compute_epi_mask" in one.settings()["mask"]
    changed = ({"high_pass_s": 100.0}, {"mask": "m.nii"}, {"stories": ["lpp2"]}, {"n_dropped_volumes": 0})
    for change in changed:
        assert PetitPrinceSource(str(files.root), **change).settings() != one.settings()  # type: ignore[arg-type]


def test_only_what_was_asked_for_is_downloaded_and_hashed(files: PetitPrinceFiles) -> None:
    source = PetitPrinceSource(str(files.root), subjects=[EN057], stories=["lpp2"])
    remote = source.remote()
    assert remote.url == "s3://openneuro.org/ds003643"
    assert remote.paths == (
        "annotation/EN/lppEN_word_information.csv",
        "stimuli/task-lppEN_section-2.wav",
        "derivatives/sub-EN057/func/sub-EN057_task-lppEN_run-*_space-MNIColin27_desc-preproc_bold.nii.gz",
    )
    assert source.subject_files(EN057) == [files.run(EN057, 2)]
    everything = PetitPrinceSource(str(files.root)).subject_files(EN057)
    assert everything == [files.run(EN057, section) for section in range(1, 10)]
    assert all(path.is_file() for path in source.story_files("lpp2"))
    assert source.default_roles() == {"tune": ["lpp2"]}


@pytest.mark.parametrize(
    ("missing", "asking"),
    [
        ("stimuli/task-lppEN_section-5.wav", "story"),
        ("annotation/EN/lppEN_word_information.csv", "story"),
        (f"derivatives/{EN057}/func/{EN057}_task-lppEN_run-19_space-MNIColin27_desc-preproc_bold.nii.gz", "subject"),
    ],
)
def test_a_missing_file_is_named(small: PetitPrinceFiles, missing: str, asking: str) -> None:
    (small.root / missing).unlink()
    source = _source(small)
    named = r"1 of 9 runs are there; that of lpp5 \(265 volumes\) is missing" if asking == "subject" else missing
    with pytest.raises(FileNotFoundError, match=named):
        source.story("lpp5") if asking == "story" else source.subject(EN057)


def test_a_missing_mask_and_table_of_confounds_are_named(small: PetitPrinceFiles) -> None:
    with pytest.raises(FileNotFoundError, match=r"no-mask\.nii"):
        _source(small, mask="no-mask.nii").subject(EN057)
    with pytest.raises(FileNotFoundError, match=r"sub-EN057_15\.tsv"):
        _source(small, confounds="{subject}_{run}.tsv", confound_names=["csf"]).responses(EN057, "lpp1")


def test_runs_that_are_no_section_leave_the_subject_out(small: PetitPrinceFiles) -> None:
    write_run(small.run(EN057, 5), 264, 50, seed=0)
    with pytest.raises(SubjectLeftOut, match=r"run-19.* has 264 volumes; the nine sections have 282, 298"):
        _source(small).subject(EN057)
    write_run(small.run(EN057, 5), 282, 50, seed=0)
    with pytest.raises(SubjectLeftOut, match=r"run-15.* and .*run-19.* both have the 282 volumes of lpp1"):
        _source(small).subject(EN057)


def test_a_run_that_was_cut_off_is_named(small: PetitPrinceFiles) -> None:
    path = small.run(EN057, 5)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(SourceError, match=r"run-19.*cut off"):
        _source(small).subject(EN057)


@pytest.mark.filterwarnings("ignore:Computed an empty mask")
def test_a_run_without_brain_or_on_another_grid_is_named(small: PetitPrinceFiles) -> None:
    new_image: Any = nib.Nifti1Image
    image = nib.load(small.run(EN057, 5))
    values = np.asarray(image.dataobj)  # type: ignore[attr-defined]
    nib.save(new_image(values[:, :-1], AFFINE), small.run(EN057, 5))
    with pytest.raises(SourceError, match=r"run-19.* lies on another grid than .*run-15"):
        _source(small).subject(EN057)
    nib.save(new_image(np.zeros_like(values), AFFINE), small.run(EN057, 5))
    with pytest.raises(SubjectLeftOut, match=r"run-19.* the same value everywhere"):
        _source(small).subject(EN057)
    elsewhere = np.full_like(values, 5)
    elsewhere[:, :, 8:] = 1000
    nib.save(new_image(elsewhere, AFFINE), small.run(EN057, 5))
    with pytest.raises(SubjectLeftOut, match=r"no voxel is in the brain in all runs .*run-15.*run-19"):
        _source(small).subject(EN057)


def test_another_repetition_time_in_the_header_is_refused(small: PetitPrinceFiles) -> None:
    write_run(small.run(EN057, 5), PREPROCESSED[4], 50, seed=0, header_tr_s=1.5)
    with pytest.raises(SourceError, match=r"run-19.* 1\.5 s per volume, but it is 2 s"):
        _source(small).responses(EN057, "lpp5")


def test_the_sound_of_another_section_is_refused(small: PetitPrinceFiles) -> None:
    write_sound(small.root / "stimuli/task-lppEN_section-5.wav", SOUND_S[3], 100.0, seed=0)
    with pytest.raises(SourceError, match=r"section-5\.wav lasts 598\.2 s, but section 5 lasts 522\.2 s"):
        _source(small).story("lpp5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((",section", ",part"), r"line 1: there is no column 'section'"),
        (("onset,offset", "begin,offset"), r"line 1: there is no column 'onset'"),
        ((",word7,word7,7.0,", ",word7,word7,soon,"), r"line 9: 'word7' goes from 'soon' to '7.5'"),
        ((",7.0,7.5,", ",7.0,6.5,"), r"line 9: 'word7' goes from '7.0' to '6.5'"),
        ((",7.0,7.5,", ",7.0,700.5,"), r"the last word of section 1 ends at 700.5 s"),
    ],
)
def test_a_wrong_table_of_words_is_named(small: PetitPrinceFiles, change: tuple[str, str], message: str) -> None:
    path = small.root / "annotation/EN/lppEN_word_information.csv"
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(SourceError, match=rf"lppEN_word_information\.csv.*{message}"):
        _source(small).story("lpp1")


def test_a_table_without_the_words_of_a_section_or_of_other_bytes_is_named(small: PetitPrinceFiles) -> None:
    path = small.root / "annotation/EN/lppEN_word_information.csv"
    path.write_text("word,onset,offset,section\nsheep,1.0,1.5,2\nbaobab,1.0,1.5,many\n")
    with pytest.raises(SourceError, match=r"no word remains"):
        _source(small).story("lpp1")
    path.write_bytes(gzip.compress(b"word,onset"))
    with pytest.raises(SourceError, match=r"word_information\.csv.*UTF-8"):
        _source(small).story("lpp1")


def test_names_that_are_not_known_are_refused_with_a_hint(files: PetitPrinceFiles) -> None:
    with pytest.raises(SourceError, match=r"no subject 'EN057'. Did you mean 'sub-EN057'"):
        PetitPrinceSource(str(files.root), subjects=["EN057"])
    with pytest.raises(SourceError, match=r"no story 'lpp10'"):
        PetitPrinceSource(str(files.root), stories=["lpp10"])
    with pytest.raises(SourceError, match=r"n_dropped_volumes is -1"):
        PetitPrinceSource(str(files.root), n_dropped_volumes=-1)
    with pytest.raises(SourceError, match=r"give both or none"):
        PetitPrinceSource(str(files.root), confounds="{subject}.tsv")
    with pytest.raises(SourceError, match=r"no subject 'sub-EN092'"):
        _source(files).subject(EN092)
    with pytest.raises(SourceError, match=r"no story 'lpp3'"):
        _source(files).story("lpp3")


def test_cheap_answers_stay_when_the_raw_files_are_gone(files: PetitPrinceFiles, tmp_path: Path) -> None:
    copytree(files.root / "annotation", tmp_path / "annotation")
    source = PetitPrinceSource(str(tmp_path), subjects=[EN057])
    assert source.settings() == PetitPrinceSource(str(files.root)).settings()
    assert source.default_roles()["score"] == ["lpp9"]
    assert len(source.story_files("lpp1")) == 2
    assert "clock" in source.facts()
