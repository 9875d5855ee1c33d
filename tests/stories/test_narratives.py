"""Forced alignments by gentle: every word with a time, phones one after the other, damage by name."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlit.stories.base import ROLES, SourceError, SubjectLeftOut
from brainlit.stories.narratives import (
    EXCLUDED,
    NOT_OFFERED,
    TASKS,
    NarrativesSource,
    excluded_runs,
    listeners,
    read_gentle,
    runs,
)
from brainlit.stories.regions.config import RegionConfig
from tests.layouts.narratives import N_DRIVEN, Planted, write_areas, write_hemisphere, write_narratives

FOUND = {"case": "success", "word": "Ram", "alignedWord": "ram", "start": 2.0, "end": 2.5,
         "phones": [{"phone": "r_B", "duration": 0.1}, {"phone": "ae_I", "duration": 0.25},
                    {"phone": "m_E", "duration": 0.15}]}  # fmt: skip
MISSED = {"case": "not-found-in-audio", "word": "The"}
UNKNOWN = {"case": "success", "word": "Fordham", "alignedWord": "<unk>", "start": 1.0, "end": 1.4,
           "phones": [{"phone": "oov_S", "duration": 0.4}]}  # fmt: skip


def _write(folder: Path, *words: object) -> Path:
    path = folder / "align.json"
    path.write_text(json.dumps({"transcript": "", "words": words}))
    return path


def test_words_with_a_time_and_their_phones(tmp_path: Path) -> None:
    words, phones = read_gentle(_write(tmp_path, MISSED, FOUND, UNKNOWN))
    assert words.labels == ("Fordham", "Ram")
    assert words.start_s.tolist() == [1.0, 2.0]
    assert words.end_s.tolist() == pytest.approx([1.4, 2.5])
    assert phones.labels == ("R", "AE", "M")
    assert phones.start_s.tolist() == pytest.approx([2.0, 2.1, 2.35])
    assert phones.end_s[-1] == pytest.approx(2.5)


def test_an_alignment_without_any_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"align\.json: no word has a time"):
        read_gentle(_write(tmp_path, MISSED))


@pytest.mark.parametrize("left_out", ["case", "word", "start", "end", "phones"])
def test_a_word_without_a_part_is_refused(tmp_path: Path, left_out: str) -> None:
    damaged = {key: value for key, value in FOUND.items() if key != left_out}
    with pytest.raises(SourceError, match=rf"no alignment by gentle: KeyError: '{left_out}'"):
        read_gentle(_write(tmp_path, damaged))


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", '{"words": 3}', '{"text": []}', '{"words": [3]}', '{"words": null}']
)
def test_what_is_no_alignment_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "align.json"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"align\.json"):
        read_gentle(path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cut=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_file_is_read_or_refused_but_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, cut: int, byte: int
) -> None:
    path = _write(tmp_path_factory.mktemp("gentle"), FOUND, MISSED, UNKNOWN)
    raw = bytearray(path.read_bytes())
    raw[cut % len(raw)] = byte
    path.write_bytes(bytes(raw))
    try:
        n_words = len(read_gentle(path)[0])
    except SourceError:
        n_words = 0
    assert n_words <= 2


# --- source
# The Narratives collection: what is planted in files of its layout comes back at the right time and place.


AREAS = "derivatives/afni-nosmooth/tpl-fsaverage6/tpl-fsaverage6_hemi-{hemi}_desc-MMP_dseg.label.gii"
LEFT_GIFTI = "derivatives/afni-nosmooth/sub-127/func/sub-127_task-black_space-fsaverage6_hemi-L_desc-clean.func.gii"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Planted]:
    """Two stories of two listeners; not to be changed."""
    root = tmp_path_factory.mktemp("narratives")
    write_areas(root)
    return root, write_narratives(root)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """One story of one listener, to be damaged."""
    write_narratives(tmp_path, stories=("black",), runs=("sub-127",))
    return tmp_path


def _source(root: Path, **chosen: object) -> NarrativesSource:
    settings = {"stories": ["black", "bronx"], "subjects": ["sub-127", "sub-265"], **chosen}
    return NarrativesSource(str(root), **settings)  # type: ignore[arg-type]


def _one(root: Path) -> NarrativesSource:
    return _source(root, stories=["black"], subjects=["sub-127"])


def test_the_rosters_are_those_of_the_paper_and_of_public_code() -> None:
    everyone = {subject for story in TASKS for subject in listeners(story)}
    assert len(everyone) == 328  # 345 without the 17 who took part in schema only
    assert len({s for s in everyone if any(runs(s, story) for story in TASKS)}) == 321
    heard = {"tunnel": 23, "lucy": 16, "pieman": 82, "prettymouth": 40, "slumlord": 18, "notthefallintact": 56,
             "merlin": 36, "sherlock": 36, "shapessocial": 59, "shapesphysical": 59, "21styear": 25,
             "black": 47}  # fmt: skip
    assert {story: len(listeners(story)) for story in heard} == heard
    groups = [set(listeners(f"milkyway{version}")) for version in ("original", "vodka", "synonyms")]
    assert [len(group) for group in groups] == [18, 18, 17]
    assert len(set.union(*groups)) == 53


def test_pieman_has_86_usable_scans_of_75_people() -> None:
    usable = [runs(subject, "pieman") for subject in listeners("pieman")]
    assert sum(map(len, usable)) == 86
    assert sum(1 for one in usable if one) == 75
    assert runs("sub-002", "pieman") == ["sub-002_task-pieman_run-1", "sub-002_task-pieman_run-2"]
    assert runs("sub-013", "pieman") == ["sub-013_task-pieman_run-1"]
    assert runs("sub-001", "pieman") == []


def test_excluded_runs_are_named_as_in_the_list_of_the_authors() -> None:
    assert sum(len(said) for said in EXCLUDED.values()) == 24
    assert excluded_runs("pieman")[:3] == [
        f"sub-{k}_task-pieman_run-{n}" for k, n in (("001", 1), ("001", 2), ("013", 2))
    ]
    assert excluded_runs("lucy") == ["sub-053_task-lucy", "sub-065_task-lucy"]
    assert excluded_runs("black") == []


def test_no_task_needs_more_volumes_than_the_shortest_scan_has() -> None:
    scans = {"merlin": 613, "sherlock": 724, "shapesphysical": 309, "shapessocial": 309, "slumlord": 1205,
             "reach": 1205, "pieman": 300, "21styear": 2249}  # fmt: skip
    for story, n_volumes in scans.items():
        assert TASKS[story].onset_trs + TASKS[story].duration_trs <= n_volumes


@pytest.mark.parametrize("story", ["black", "bronx"])
def test_a_planted_response_is_in_the_row_in_which_its_word_is_said(shared: tuple[Path, Planted], story: str) -> None:
    root, planted = shared
    source = _source(root)
    heard, responses = source.story(story), source.responses("sub-265", story)
    assert responses is not None
    assert responses.repeats is None
    assert responses.values.shape == (planted.n_trs, 20484)
    row = int(np.nanmean(responses.values, axis=1).argmax())
    assert row == heard.timebase.trs_at([planted.burst_s[story]])[0]
    (k,) = [k for k, label in enumerate(heard.words.labels) if label == "Burst"]
    assert heard.timebase.trs_at(heard.words.start_s[k]) == row
    loudest_s = float(np.abs(heard.audio.astype(float)).argmax()) / heard.timebase.sample_rate_hz
    assert abs(loudest_s - heard.words.middle_s[k]) < 0.2


@pytest.mark.parametrize("story", ["slumlord", "reach", "pieman"])
def test_the_clock_holds_for_scans_with_music_and_with_two_stories(tmp_path: Path, story: str) -> None:
    stories = ["pieman"] if story == "pieman" else ["slumlord", "reach"]
    listener = "sub-067" if story == "pieman" else "sub-016"
    planted = write_narratives(tmp_path, stories=stories, runs=(listener,), n_trs=30)
    source = _source(tmp_path, stories=stories, subjects=[listener])
    heard, responses = source.story(story), source.responses(listener, story)
    assert responses is not None
    row = int(np.nanmean(responses.values, axis=1).argmax())
    assert row == heard.timebase.trs_at([planted.burst_s[story]])[0]
    assert heard.words.labels.count("Burst") == 1  # not that of the other story in the same sound
    assert heard.words.start_s[0] < heard.timebase.tr_starts_s[0] + 2
    assert heard.words.end_s[-1] > heard.timebase.end_s - 3


def test_rows_are_z_scored_over_the_story_and_vertices_without_data_are_nan(shared: tuple[Path, Planted]) -> None:
    values = _source(shared[0]).responses("sub-127", "black").values  # type: ignore[union-attr]
    held = np.flatnonzero(np.isfinite(values).all(axis=0))
    assert held.tolist() == [*range(N_DRIVEN), *range(10242, 10242 + N_DRIVEN)]
    np.testing.assert_allclose(values[:, held].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(values[:, held].std(axis=0), 1, atol=1e-5)
    raw = np.stack([array.data for array in nib.load(shared[0] / LEFT_GIFTI).darrays])[8:48, 3]  # type: ignore[attr-defined]
    np.testing.assert_allclose(values[:, 3], (raw - raw.mean()) / raw.std(), atol=1e-4)


def test_fsaverage6_is_what_is_published_and_fsaverage5_its_first_vertices(shared: tuple[Path, Planted]) -> None:
    fine = _source(shared[0], space="fsaverage6")
    assert fine.subject("sub-127").n_voxels == 81924
    assert fine.subject("sub-127").vertices is None
    coarse = _source(shared[0])
    vertices = coarse.subject("sub-127").vertices
    assert vertices is not None
    np.testing.assert_array_equal(vertices, np.arange(20484))
    both = [one.responses("sub-127", "black").values for one in (coarse, fine)]  # type: ignore[union-attr]
    np.testing.assert_array_equal(both[0], both[1][:, [*range(10242), *range(40962, 40962 + 10242)]])


def test_the_areas_that_the_collection_ships_are_regions(shared: tuple[Path, Planted]) -> None:
    source = _source(shared[0], regions=RegionConfig(file=AREAS, downsample=True))
    regions = source.subject("sub-127").regions
    assert np.flatnonzero(regions["A1"]).tolist() == [0, 1, 2, 3, 10242, 10243, 10244, 10245]
    assert np.flatnonzero(regions["4 right"]).tolist() == [10246, 10247, 10248, 10249]
    assert shared[0] / AREAS.format(hemi="R") in source.subject_files("sub-127")


def test_two_runs_are_repeats_and_an_excluded_run_is_not(tmp_path: Path) -> None:
    stems = ("sub-002_run-1", "sub-002_run-2", "sub-013_run-1")
    write_narratives(tmp_path, stories=("pieman",), runs=stems, n_trs=30)
    source = _source(tmp_path, stories=["pieman"], subjects=["sub-002", "sub-013"])
    twice, once = (source.responses(name, "pieman") for name in ("sub-002", "sub-013"))
    assert twice is not None
    assert twice.repeats is not None
    assert once is not None
    assert once.repeats is None
    first, second = twice.repeats
    mean = (first[:, 0].astype(float) + second[:, 0]) / 2
    np.testing.assert_allclose(twice.values[:, 0], mean, atol=1e-5)
    assert mean.std() < 0.99, "the mean is not z-scored again"
    assert not np.array_equal(first[:, 0], second[:, 0])
    assert source.left_out()["sub-013_task-pieman_run-2"].startswith("excluded by the authors")
    assert "sub-014_task-pieman_run-2" not in source.left_out()


def test_a_listener_with_nothing_but_excluded_runs_is_left_out_by_name() -> None:
    source = _source(Path("nowhere"), stories=["lucy"], subjects=["sub-053", "sub-022"])
    with pytest.raises(SubjectLeftOut, match="sub-053: the authors exclude every run of lucy"):
        source.subject("sub-053")
    assert source.responses("sub-053", "lucy") is None
    assert source.subject_files("sub-053") == []
    assert "sub-053" not in _source(Path("nowhere"), stories=["lucy"], subjects=None).subject_names()


def test_a_story_that_was_not_heard_has_no_responses() -> None:
    source = _source(Path("nowhere"), stories=["tunnel", "lucy"], subjects=["sub-025"])
    assert source.responses("sub-025", "lucy") is None


def test_words_are_those_of_the_table_of_gentle(shared: tuple[Path, Planted]) -> None:
    root, planted = shared
    with (root / "stimuli" / "gentle" / "black" / "align.csv").open(newline="") as file:
        rows = [row for row in csv.reader(file) if row[2] and float(row[2]) < planted.n_trs * 1.5]
    words = _source(root).story("black").words
    assert words.labels == tuple(row[0] for row in rows)
    np.testing.assert_allclose(words.start_s, [float(row[2]) for row in rows])
    np.testing.assert_allclose(words.end_s, [float(row[3]) for row in rows])
    phones = _source(root).phones("black")
    assert phones is not None
    assert set(phones.labels) == {"P", "AY"}
    np.testing.assert_allclose(phones.duration_s[:2], [0.05, 0.15])


def test_what_needs_no_file_works_without_any() -> None:
    source = NarrativesSource("nowhere")
    assert source.story_names() == ["black", "bronx", "forgot", "piemanpni"]
    assert len(source.subject_names()) == 47
    assert json.loads(json.dumps(source.settings())) == source.settings()
    assert "nowhere" not in json.dumps(source.settings())
    assert source.settings() == NarrativesSource("elsewhere", subjects=["sub-127"]).settings()
    assert source.settings() != NarrativesSource("nowhere", space="fsaverage6").settings()
    assert source.default_roles() == {"tune": ["forgot"], "fit": ["black"], "choose": ["piemanpni"], "score": ["bronx"]}
    assert {"clock", "licence", "citation", "preprocessing"} <= set(source.facts())
    assert [path.name for path in source.story_files("black")] == ["black_audio.wav", "align.json"]
    assert len(source.subject_files("sub-127")) == 8
    assert set(source.left_out()) == set(NOT_OFFERED)


def test_reports_say_which_listeners_did_not_come_to_a_story_alike() -> None:
    assert "listeners" not in NarrativesSource("nowhere").facts()
    said = NarrativesSource("nowhere", stories=["sherlock", "lucy"]).facts()
    assert said["listeners"] == "sherlock: half of the listeners had seen the film"
    assert "for lucy to about one TR" in said["clock"]


def test_versions_of_one_text_share_a_role() -> None:
    assert len({TASKS[story].role for story in ("pieman", "piemanpni")}) == 1
    assert len({task.role for task in TASKS.values() if task.task == "milkyway"}) == 1
    roles = NarrativesSource("nowhere", stories=list(TASKS)).default_roles()
    assert sorted(name for role in ROLES for name in roles[role]) == sorted(TASKS)


def test_the_download_asks_for_exactly_the_files_that_are_read(shared: tuple[Path, Planted]) -> None:
    remote = _source(shared[0], regions=RegionConfig(file=AREAS, downsample=True)).remote()
    assert remote.url == "s3://fcp-indi/data/Projects/narratives"
    assert len(remote.paths) == len(set(remote.paths)) == 4 + 8 + 2
    assert all((shared[0] / path).is_file() for path in remote.paths)
    assert not any("sub-053" in path for path in NarrativesSource("x", stories=["lucy"]).remote().paths)


@pytest.mark.parametrize(
    ("file", "method"),
    [
        ("stimuli/black_audio.wav", "story"),
        ("stimuli/gentle/black/align.json", "story"),
        ("stimuli/gentle/black/align.json", "phones"),
        (LEFT_GIFTI, "responses"),
        (LEFT_GIFTI.replace("hemi-L", "hemi-R"), "responses"),
    ],
)
def test_a_missing_file_is_named(own: Path, file: str, method: str) -> None:
    (own / file).unlink()
    source = _one(own)
    asked = {"story": ("black",), "phones": ("black",), "responses": ("sub-127", "black")}[method]
    with pytest.raises(FileNotFoundError, match=Path(file).name.replace(".", r"\.")):
        getattr(source, method)(*asked)


def test_missing_areas_are_named(own: Path) -> None:
    source = _source(own, stories=["black"], subjects=["sub-127"], regions=RegionConfig(file=AREAS, downsample=True))
    with pytest.raises(FileNotFoundError, match=r"hemi-L_desc-MMP_dseg\.label\.gii"):
        source.subject("sub-127")


def test_without_the_table_of_events_the_published_rows_count(own: Path) -> None:
    (own / "code" / "event_meta.json").unlink()
    with pytest.raises(SourceError, match=r"black_audio\.wav lasts .* is told until 799\.50 s"):
        _one(own).story("black")
    with pytest.raises(SourceError, match="is told in volumes 8 to 540"):
        _one(own).responses("sub-127", "black")


@pytest.mark.parametrize("event", [{}, {"onset": 8}, {"onset": 8.5, "duration": 40}, {"onset": 8, "duration": 0}, 3])
def test_a_damaged_table_of_events_is_refused(own: Path, event: object) -> None:
    (own / "code" / "event_meta.json").write_text(json.dumps({"black": {"black": event}}))
    with pytest.raises(SourceError, match=r"event_meta\.json: 'black', 'black' has .* remove it"):
        _one(own).story("black")


def test_a_sound_that_was_cut_off_is_refused(own: Path) -> None:
    sound = own / "stimuli" / "black_audio.wav"
    planted_s = 40 * 1.5
    import soundfile

    samples, rate_hz = soundfile.read(sound)
    soundfile.write(sound, samples[: int(rate_hz * (planted_s - 5))], rate_hz)
    with pytest.raises(SourceError, match=r"lasts 55\.00 s, but 'black' is told until 60\.00 s of it"):
        _one(own).story("black")


def test_a_run_that_is_too_short_or_on_another_surface_is_refused(own: Path) -> None:
    rng = np.random.default_rng(1)
    files = [own / LEFT_GIFTI.replace("hemi-L", f"hemi-{hemi}") for hemi in "LR"]
    for file in files:
        write_hemisphere(file, 47, [30], rng)
    with pytest.raises(SourceError, match="has 47 volumes, but 'black' is told in volumes 8 to 47"):
        _one(own).responses("sub-127", "black")
    for file in files:
        write_hemisphere(file, 50, [30], rng, n_vertices=10242)
    with pytest.raises(SourceError, match=r"have \(10242, 10242\) vertices; fsaverage6 has 40962"):
        _one(own).responses("sub-127", "black")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0.0\t60.0\tstory\tblack_audio.wav", r"begins at 0\.0 s of the scan, in all published runs at 12\.0 s"),
        ("12.0\t60.0\tstory\tbronx_audio.wav", "no row with a number as onset names black_audio"),
        ("soon\t60.0\tstory\tblack_audio.wav", "no row with a number as onset names black_audio"),
    ],
)
def test_events_that_disagree_with_the_clock_are_refused(own: Path, line: str, message: str) -> None:
    events = own / "sub-127" / "func" / "sub-127_task-black_events.tsv"
    events.write_text(f"onset\tduration\ttrial_type\tstim_file\n{line}\n")
    with pytest.raises(SourceError, match=message):
        _one(own).responses("sub-127", "black")
    events.unlink()  # they are not needed
    assert _one(own).responses("sub-127", "black") is not None


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"stories": ["blakc"]}, "there is no story 'blakc'. Did you mean 'black'"),
        ({"stories": ["schema"]}, "'schema' is not offered: its runs mix films with stories"),
        ({"subjects": ["sub-128"]}, "there is no listener of black, bronx called 'sub-128'"),
        ({"space": "fsaverage7"}, "there is no space 'fsaverage7'. Did you mean 'fsaverage"),
        ({"derivative": "afni"}, "there is no derivative 'afni'"),
    ],
)
def test_a_wrong_setting_is_refused_at_once(chosen: dict[str, object], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        _source(Path("nowhere"), **chosen)


def test_a_story_or_listener_that_was_not_asked_for_is_refused() -> None:
    source = _source(Path("nowhere"))
    with pytest.raises(SourceError, match="there is no story 'forgot'"):
        source.story("forgot")
    with pytest.raises(SourceError, match="there is no subject 'sub-272'"):
        source.subject("sub-272")
