"""LeBel et al. 2023: planted responses are found when they happened; what is missing or does not fit is named."""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import yaml

from brainlit.splits import LeakError, make_roles
from brainlit.stories import SourceError, Story
from brainlit.stories import lebel2023_facts as known
from brainlit.stories.lebel2023 import LebelSource, read_words_and_phones
from brainlit.stories.lebel2023_facts import n_rows
from brainlit.stories.readers.scanner_log import read_scanner_log
from brainlit.stories.regions.config import RegionConfig
from brainlit.timebase import fill_missed_triggers
from tests.layouts.lebel2023 import (
    DELAY_S,
    FACTS,
    LOGGED,
    MARKER,
    PHONES,
    REAL_LOGS,
    STORIES,
    TR_S,
    WORDS,
    Lebel,
    write_lebel2023,
)

ROOT = Path(__file__).parents[2]
SHORT = "sweetaspie"  # 157 rows
# train_stories_25 of the released code, which has 24 names
TUNED_IN_THE_PAPER = """
    souls howtodraw alternateithicatom hangtime swimmingwithastronauts eyespy itsabox myfirstdaywiththeyankees legacy
    theclosetthatateeverything haveyoumethimyet thatthingonmyarm undertheinfluence avatar tildeath naked
    fromboyhoodtofatherhood adollshouse odetostepfather adventuresinsayingyes sloth exorcism buck inamoment
"""
SPOKEN_BY_NOBODY = "sp {SP} {NS} {LG} {BR} {LS} br lg ls ns SP BR sentence_start sentence_end SENTENCE_END"
real_facts = pytest.mark.skipif(not REAL_LOGS.is_dir(), reason="the real logs are not here (BRAINLIT_FACTS)")


@pytest.fixture(scope="module")
def lebel(tmp_path_factory: pytest.TempPathFactory) -> Lebel:
    """Seven stories as long as the real ones; shared, so never change it."""
    return write_lebel2023(tmp_path_factory.mktemp("ds003020"))


@pytest.fixture(scope="module")
def two_stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lebel2023(tmp_path_factory.mktemp("small"), stories=(SHORT, "wheretheressmoke"), n_voxels=9).root


@pytest.fixture
def small(two_stories: Path, tmp_path: Path) -> Path:
    """A root of one's own with two stories, to be damaged."""
    return Path(shutil.copytree(two_stories, tmp_path / "ds003020"))


def source_of(root: Path, stories: tuple[str, ...] = STORIES, **more: object) -> LebelSource:
    return LebelSource(str(root), **{"subjects": ["UTS03"], "stories": list(stories), **more})  # type: ignore[arg-type]


def small_source(root: Path, **more: object) -> LebelSource:
    """The two stories of `small`, with roles that need no more (the roles are not what is tested)."""
    source = source_of(root, (*STORIES, SHORT), **more)
    source._stories = (SHORT, "wheretheressmoke")
    return source


@cache
def story_of(root: Path, name: str) -> Story:
    return source_of(root).story(name)


# The clock


def marker_errors_trs(lebel: Lebel, story: str, **clock: object) -> list[float]:
    """How far from its place the response to each marker word is found by the source's own clock, in TRs."""
    source, words = source_of(lebel.root, **clock), story_of(lebel.root, story).words
    response = source.responses("UTS03", story)
    assert response is not None
    values = response.values[:, lebel.kinds == "marker"][:, 0].astype(float)
    timebase = source.timebase(story)
    middles_s = (timebase.tr_starts_s + timebase.tr_ends_s) / 2
    errors = []
    for said_s in words.start_s[[label.lower() == MARKER for label in words.labels]]:
        near = np.abs(middles_s - said_s - DELAY_S) < 9
        rise = np.clip(values[near] - np.median(values), 0.5, None) - 0.5
        errors.append(float((rise @ middles_s[near] / rise.sum() - said_s - DELAY_S) / TR_S))
    return errors


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("clock", [{"clock": "logged"}, {"clock": "nominal"}])
def test_planted_responses_are_found_within_half_a_tr_early_and_late(
    lebel: Lebel, story: str, clock: dict[str, object]
) -> None:
    errors = marker_errors_trs(lebel, story, **clock)
    assert len(errors) == 8
    assert np.abs(errors).max() < 0.25


@pytest.mark.parametrize("story", STORIES)
def test_the_tr_of_the_side_cars_loses_half_a_tr_before_a_story_ends(lebel: Lebel, story: str) -> None:
    errors = marker_errors_trs(lebel, story, clock="nominal", tr_s=2.0)
    assert abs(errors[0]) < 0.25
    assert errors[-1] < -0.5


@pytest.mark.parametrize("story", STORIES)
def test_rows_start_where_the_scanner_was(lebel: Lebel, story: str) -> None:
    logged, nominal = (source_of(lebel.root, clock=c).timebase(story) for c in ("logged", "nominal"))
    np.testing.assert_allclose(logged.tr_starts_s, lebel.row_starts_s[story], atol=1e-3)
    np.testing.assert_allclose(nominal.tr_starts_s, lebel.row_starts_s[story], atol=0.05)
    assert logged.tr_s == nominal.tr_s == 2.0045
    assert logged.n_trs == story_of(lebel.root, story).timebase.n_trs == n_rows(story)


@real_facts
@pytest.mark.parametrize("story", LOGGED)
def test_the_nominal_clock_agrees_with_every_real_log_to_a_fiftieth_of_a_tr(story: str) -> None:
    log = read_scanner_log(REAL_LOGS / f"{story}.report")
    volumes_s, _ = fill_missed_triggers(log.triggers_s, known.NOMINAL_TR_S)
    true_s = volumes_s[10 : 10 + n_rows(story)] - log.sound_start_s
    nominal = LebelSource("nowhere", stories="84").timebase(story)
    assert np.abs(nominal.tr_starts_s - true_s).max() < 0.02 * known.NOMINAL_TR_S
    assert log.sound_start_s == pytest.approx(known.SOUND_START_S, abs=1e-3)
    assert len(volumes_s) == known.VOLUMES[story] - known.PADDING_VOLUMES


@real_facts
def test_the_measured_tr_is_that_of_the_logs() -> None:
    logs = [fill_missed_triggers(read_scanner_log(REAL_LOGS / f"{s}.report").triggers_s, 2.0045)[0] for s in LOGGED]
    assert np.mean([(log[-1] - log[0]) / (len(log) - 1) for log in logs]) == pytest.approx(
        known.MEASURED_TR_S, abs=2e-5
    )


def test_facts_say_which_clock_and_by_how_much_it_is_off(lebel: Lebel) -> None:
    clock = source_of(lebel.root).facts()["clock"]
    assert "the scanner's log for 6 of 7 stories; nominal for 1 of 7 stories (no log found)" in clock
    assert "tr_s is 2.0045 s; the scanner's logs say 2.00449 s, the BIDS side-cars 2.0 s" in clock
    nominal = source_of(lebel.root, clock="nominal", tr_s=2.0).facts()["clock"]
    assert nominal.startswith("nominal for 7 of 7 stories (as asked for)")
    assert "1.35 s off the logs after 300 volumes" in nominal


def test_a_log_of_another_story_is_refused(small: Path) -> None:
    reports = small / "derivative" / "tr_reports"
    shutil.copy(reports / "wheretheressmoke.report", reports / f"{SHORT}.report")
    with pytest.raises(
        SourceError, match=r"sweetaspie\.report: 306 triggers .* 172 volumes .*respdict\.json counts 177"
    ):
        small_source(small).timebase(SHORT)
    assert small_source(small, clock="nominal").timebase(SHORT).n_trs == 157


def test_logs_may_lie_elsewhere_but_must_lie_there(small: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "logs"
    with pytest.raises(FileNotFoundError, match=r"logs does not exist\. Correct tr_reports"):
        small_source(small, tr_reports=str(elsewhere)).timebase(SHORT)
    (small / "derivative" / "tr_reports").rename(elsewhere)
    moved = small_source(small, tr_reports=str(elsewhere))
    assert moved.story_files("wheretheressmoke")[-1] == elsewhere / "wheretheressmoke.report"
    assert len(small_source(small).story_files("wheretheressmoke")) == 2


# Stories


def test_words_and_phones_come_without_marks(lebel: Lebel) -> None:
    for name in STORIES:
        story = story_of(lebel.root, name)
        assert {label.lower() for label in story.words.labels} == {*WORDS, MARKER}
        assert story.phones is not None
        assert set(story.phones.labels) <= set(PHONES)
        said_s = story.words.start_s[[label.lower() == MARKER for label in story.words.labels]]
        np.testing.assert_allclose(said_s, lebel.markers_s[name], atol=1e-6)


def test_the_sound_is_loud_where_words_are(lebel: Lebel) -> None:
    for name in STORIES[:2]:  # stereo at 22.05 kHz, mono at 8 kHz
        story = story_of(lebel.root, name)
        loudness = [np.abs(story.audio[a:b]).mean() for a, b in _edges(story, story.words)]
        gaps = story.words.start_s[1:] - story.words.end_s[:-1] > 0.3
        silence = [np.abs(story.audio[b:d]).mean() for (_, b), (d, _), gap in _neighbours(story, gaps) if gap]
        assert len(silence) > 50
        assert np.median(loudness) > 10 * np.median(silence)


def _edges(story: Story, intervals: object) -> list[tuple[int, int]]:
    samples = story.timebase.samples_at(np.stack([story.words.start_s, story.words.end_s], axis=1))
    return [(int(a), int(b)) for a, b in samples]


def _neighbours(story: Story, gaps: np.ndarray) -> list[tuple[tuple[int, int], tuple[int, int], bool]]:
    edges = _edges(story, story.words)
    return list(zip(edges, edges[1:], gaps.tolist(), strict=False))


def _textgrid(path: Path, phone: list[str], word: list[str], names: tuple[str, str] = ("phone", "word")) -> Path:
    tiers = [(names[0], phone), (names[1], word)]
    body = "".join(
        f'"IntervalTier"\n"{name}"\n0\n{len(labels)}\n{len(labels)}\n'
        + "".join(f'{k}\n{k + 1}\n"{label}"\n' for k, label in enumerate(labels))
        for name, labels in tiers
    )
    path.write_text(f'"ooTextFile"\n"TextGrid"\n0\n9\n<exists>\n2\n{body}')
    return path


def test_every_mark_of_the_card_is_dropped_and_the_word_empty_is_kept(tmp_path: Path) -> None:
    marks = SPOKEN_BY_NOBODY.split()
    path = _textgrid(tmp_path / "x.TextGrid", ["AH0", "sp", "", "HH", "{BR}"], ["empty", *marks, "", " ", "A"])
    words, phones = read_words_and_phones(path)
    assert words.labels == ("empty", "A")
    assert phones.labels == ("AH0", "HH")
    assert words.start_s.tolist() == [0, 18]


def test_tiers_with_each_others_name_are_refused_with_the_cure(tmp_path: Path) -> None:
    path = _textgrid(tmp_path / "x.TextGrid", ["AH0", "HH", "sp"], ["the", "lighthouse"], names=("WORD", "PHONE"))
    with pytest.raises(SourceError, match=r"x\.TextGrid: 0% .* word tier 100%.*exchange the names"):
        read_words_and_phones(path)
    path = _textgrid(path, ["the", "lighthouse"], ["the", "lighthouse"])
    with pytest.raises(SourceError, match="Fetch the file again"):
        read_words_and_phones(path)


def test_a_sound_that_is_cut_off_is_refused(small: Path) -> None:
    import soundfile

    path = small / "stimuli" / f"{SHORT}.wav"
    sound, rate_hz = soundfile.read(path, dtype="int16")
    soundfile.write(path, sound[: 200 * rate_hz], rate_hz)
    with pytest.raises(SourceError, match=r"sweetaspie\.wav lasts 200\.00 s .* rows at 32\d\.\d\d s.*cut off"):
        small_source(small).story(SHORT)


def test_sound_before_the_zero_of_the_textgrid_is_cut(small: Path) -> None:
    whole, cut = small_source(small).story(SHORT), small_source(small, sound_lead_s=0.25).story(SHORT)
    np.testing.assert_array_equal(cut.audio, whole.audio[4000:])
    np.testing.assert_array_equal(cut.words.start_s, whole.words.start_s)


@pytest.mark.parametrize(
    ("file", "ask"),
    [
        (f"stimuli/{SHORT}.wav", lambda s: s.story(SHORT)),
        (f"derivative/TextGrids/{SHORT}.TextGrid", lambda s: s.story(SHORT)),
        (f"derivative/TextGrids/{SHORT}.TextGrid", lambda s: s.phones(SHORT)),
        (f"derivative/preprocessed_data/UTS03/{SHORT}.hf5", lambda s: s.responses("UTS03", SHORT)),
        (f"derivative/preprocessed_data/UTS03/{SHORT}.hf5", lambda s: s.subject("UTS03")),
    ],
)
def test_a_missing_file_is_named_with_the_command_that_fetches_it(small: Path, file: str, ask: object) -> None:
    (small / file).unlink()
    with pytest.raises(FileNotFoundError, match="brainlit data download") as caught:
        ask(small_source(small))  # type: ignore[operator]
    assert str(small / file) in str(caught.value)


# Responses


def test_responses_are_the_published_numbers(lebel: Lebel) -> None:
    source = source_of(lebel.root)
    for story in STORIES:
        response = source.responses("UTS03", story)
        assert response is not None
        assert response.values.dtype == np.float32
        with h5py.File(lebel.root / "derivative/preprocessed_data/UTS03" / f"{story}.hf5") as file:
            np.testing.assert_array_equal(response.values, file["data"][()].astype(np.float32))
        assert np.isnan(response.values[:, lebel.kinds == "nan"]).all()
        assert (response.values[:, lebel.kinds == "constant"] == 0).all()
        assert (response.repeats is None) == (story != "wheretheressmoke")


def test_repeats_are_read_one_by_one_and_zscored(lebel: Lebel) -> None:
    path = lebel.root / "derivative/preprocessed_data/UTS03/wheretheressmoke.hf5"
    response = source_of(lebel.root).responses("UTS03", "wheretheressmoke")
    assert response is not None
    assert response.repeats is not None
    assert len(response.repeats) == 10
    with h5py.File(path) as file:
        raw = file["individual_repeats"][()]
    good = ~np.isin(lebel.kinds, ["nan", "constant"])
    expected = (raw - raw.mean(axis=1, keepdims=True)) / np.where(raw.std(axis=1) > 0, raw.std(axis=1), 1)[:, None]
    for k in (0, 9, -1):
        assert response.repeats[k].shape == response.values.shape
        assert response.repeats[k].dtype == np.float32
        np.testing.assert_allclose(response.repeats[k][:, good], expected[k][:, good], atol=1e-5)
        assert np.isnan(response.repeats[k][:, lebel.kinds == "nan"]).all()
    np.testing.assert_array_equal(np.stack(list(response.repeats))[2:4], np.stack(response.repeats[2:4]))
    with pytest.raises(IndexError):
        response.repeats[10]


def _overwrite(path: Path, **datasets: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"dat": np.zeros((157, 9))}, "holds no dataset 'data'. Did you mean 'dat'"),
        ({"data": np.zeros((9, 157))}, r"shape \(9, 157\), but 'sweetaspie' has 157 rows .*177 volumes"),
        ({"data": np.zeros((172, 9))}, r"shape \(172, 9\)"),
        ({"data": np.zeros(157)}, r"shape \(157,\)"),
        ({"data": np.zeros((157, 9), dtype=np.int64)}, "of type int64; need a matrix of float64"),
        ({"data": np.full((157, 9), np.inf)}, "row 0, column 0 is infinite"),
    ],
)
def test_responses_of_another_shape_or_type_are_refused(
    small: Path, datasets: dict[str, np.ndarray], message: str
) -> None:
    path = small / f"derivative/preprocessed_data/UTS03/{SHORT}.hf5"
    _overwrite(path, **datasets)
    with pytest.raises(SourceError, match=message) as caught:
        small_source(small).responses("UTS03", SHORT)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("repeats", [None, np.zeros((1, 291, 9)), np.zeros((5, 291, 8)), np.zeros((5, 291))])
def test_the_test_story_needs_its_repeats(small: Path, repeats: np.ndarray | None) -> None:
    path = small / "derivative/preprocessed_data/UTS03/wheretheressmoke.hf5"
    _overwrite(path, data=np.zeros((291, 9)), **({} if repeats is None else {"individual_repeats": repeats}))
    with pytest.raises(SourceError, match="individual_repeats") as caught:
        small_source(small).responses("UTS03", "wheretheressmoke")
    assert str(path) in str(caught.value)


def test_columns_must_agree_between_stories_and_with_the_mask(small: Path) -> None:
    source = small_source(small)
    assert source.subject("UTS03").n_voxels == 9
    path = small / f"derivative/preprocessed_data/UTS03/{SHORT}.hf5"
    _overwrite(path, data=np.zeros((157, 7)))
    with pytest.raises(SourceError, match=r"smoke\.hf5 has 9 columns, .*sweetaspie\.hf5 has 7; .*fetch both again"):
        source.subject("UTS03")
    source._stories = (SHORT,)
    with pytest.raises(SourceError, match=r"mask_thick\.nii\.gz has 9 voxels, the responses of UTS03 have 7 columns"):
        source.subject("UTS03")
    source._mask_file("UTS03").unlink()
    assert source.subject("UTS03").coordinates_mm is None


def test_columns_follow_pycortex_z_slowest_x_fastest(small: Path) -> None:
    source = small_source(small)
    mask = np.zeros((3, 2, 4), dtype=np.uint8)
    voxels = [(0, 0, 0), (2, 0, 0), (0, 1, 0), (1, 0, 1), (0, 0, 2), (2, 0, 2), (1, 1, 2), (0, 0, 3), (2, 1, 3)]
    mask[tuple(np.array(voxels[::-1]).T)] = 1
    nib.save(nib.Nifti1Image(mask, np.diag([2.0, 3.0, 4.0, 1.0])), source._mask_file("UTS03"))
    found = source.subject("UTS03").coordinates_mm
    np.testing.assert_allclose(found, np.array(voxels) * [2.0, 3.0, 4.0])


def test_regions_come_from_files_below_the_root(small: Path) -> None:
    mask = np.arange(9) < 4
    np.savez(small / "UTS03_regions.npz", AC=mask, Broca=~mask)
    source = small_source(small, regions=RegionConfig(file="{subject}_regions.npz"))
    np.testing.assert_array_equal(source.subject("UTS03").regions["AC"], mask)
    assert small / "UTS03_regions.npz" in source.subject_files("UTS03")
    assert source.settings()["regions"]["file"] == "{subject}_regions.npz"


def test_a_story_that_a_subject_did_not_hear_is_none(small: Path) -> None:
    everyone = LebelSource(str(small), subjects=["UTS04", "UTS05", "UTS09"], stories="84")
    assert everyone.responses("UTS04", "life") is None
    assert everyone.responses("UTS05", SHORT) is None
    assert everyone.responses("UTS09", SHORT) is None, "which stories UTS09 heard is told by its files"
    assert everyone.left_out()["UTS05: 57 of 84 stories"].startswith("no responses to breakingupintheageofgoogle")
    with pytest.raises(FileNotFoundError, match=r"UTS05/souls\.hf5"):
        everyone.responses("UTS05", "souls")
    with pytest.raises(FileNotFoundError, match="UTS09 holds none of the 84 stories"):
        everyone.subject("UTS09")


# Names, roles, settings


@real_facts
def test_volumes_are_those_of_respdict() -> None:
    assert json.loads((FACTS / "lebel2023_respdict.json").read_text()) == known.VOLUMES
    assert len(known.VOLUMES) == 84
    assert sum(known.VOLUMES.values()) == 29_768


def test_27_stories_for_everyone_and_the_24_of_the_paper() -> None:
    source = LebelSource("nowhere")
    assert len(source.story_names()) == len(set(source.story_names())) == 27
    assert set(source.story_names()) == {*known.STORIES_84[:25], "wheretheressmoke", "fromboyhoodtofatherhood"}
    assert source.subject_names() == [f"UTS0{k}" for k in range(1, 9)]
    roles = source.default_roles()
    assert sorted(roles["tune"]) == sorted(TUNED_IN_THE_PAPER.split())
    assert roles["fit"] == roles["tune"]
    assert len(roles["tune"]) == 24
    assert roles["choose"] == ["stagefright", "life"]
    assert roles["score"] == ["wheretheressmoke"]
    everything = LebelSource("nowhere", stories=84)
    assert len(everything.story_names()) == 84
    assert len(everything.default_roles()["tune"]) == 81


def test_splits_pass_the_guard_against_leaks_as_they_say() -> None:
    n_trs_of = {story: n_rows(story) for story in known.STORIES_27}
    paper, ceiling, disjoint = (
        LebelSource("nowhere", split=split).default_roles()  # type: ignore[arg-type]
        for split in ("paper", "held_out_ceiling", "disjoint")
    )
    with pytest.raises(LeakError, match="tune"):
        make_roles(paper, n_trs_of, purge_trs=15)
    make_roles(paper, n_trs_of, purge_trs=15, allow=["tune and fit"])
    held = make_roles(ceiling, n_trs_of, purge_trs=15, allow=["tune and fit"])
    assert held.n_trs("score") == 138
    assert held.spans("choose")[-1].n_trs == 138
    with pytest.raises(LeakError, match="15 TRs apart"):
        make_roles(ceiling, n_trs_of, purge_trs=16, allow=["tune and fit"])
    halves = make_roles(disjoint, n_trs_of, purge_trs=15)
    assert len(halves.stories("tune")) == len(halves.stories("fit")) == 12


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stories": ["souls"]}, "no story to choose under split 'paper'. Add stagefright or life"),
        ({"stories": ["souls", "life"]}, "no story to score .* Add wheretheressmoke"),
        ({"stories": ["life", "wheretheressmoke"]}, "no story to tune"),
        ({"stories": ["souls", "life", "wheretheressmoke"], "split": "disjoint"}, "no story to fit"),
        ({"stories": ["souls", "life", "wheretheressmoke"], "subjects": ["UTS04"]}, "UTS04 heard none .*choose"),
        ({"stories": ["soulz", "life", "wheretheressmoke"]}, "there is no story 'soulz'. Did you mean 'souls'"),
        ({"stories": ["souls", "souls"]}, "'souls' is asked for twice"),
        ({"stories": ["auditory_localizer"]}, "localiser and no story"),
        ({"stories": "26"}, "say '27', '84' or a list"),
        ({"stories": []}, "no story is asked for"),
        ({"subjects": ["UTS3"]}, "there is no subject 'UTS3'. Did you mean 'UTS03'"),
        ({"split": "papers"}, "there is no split 'papers'. Did you mean 'paper'"),
        ({"clock": "log"}, "there is no clock 'log'. Did you mean 'logged'"),
        ({"tr_s": 2004.5}, "tr_s is 2004.5; volumes took 2.0045 s"),
        ({"sound_lead_s": -1.0}, "sound_lead_s is -1.0"),
    ],
)
def test_wrong_settings_are_refused_with_the_cure(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        LebelSource("nowhere", **wrong)  # type: ignore[arg-type]


def test_unknown_names_are_refused(lebel: Lebel) -> None:
    source = source_of(lebel.root)
    with pytest.raises(SourceError, match="Did you mean 'avatar'"):
        source.story("avatr")
    with pytest.raises(SourceError, match=r"there is no subject 'UTS04'\. Did you mean 'UTS03'"):
        source.subject("UTS04")


def test_what_a_store_asks_on_opening_needs_no_file(tmp_path: Path) -> None:
    here, there = LebelSource(str(tmp_path / "a"), subjects=["UTS03"]), LebelSource("/elsewhere", subjects=["UTS01"])
    assert here.settings() == there.settings() == json.loads(json.dumps(here.settings()))
    assert "elsewhere" not in json.dumps(there.settings()) + json.dumps(there.facts())
    assert LebelSource("x", clock="nominal").settings() != here.settings() != LebelSource("x", stories=84).settings()
    assert here.default_roles()
    assert not here.left_out()
    assert "treasureisland" in there.facts()["subjects"]
    assert [path.name for path in here.story_files("souls")] == ["souls.wav", "souls.TextGrid"]
    assert len(here.subject_files("UTS03")) == 27


def test_remote_names_exactly_what_is_asked_for() -> None:
    source = LebelSource("data", subjects=["UTS04"], stories=["souls", "life", "stagefright", "wheretheressmoke"])
    remote = source.remote()
    assert (remote.url, remote.root, remote.licence) == ("s3://openneuro.org/ds003020", Path("data"), "CC0")
    assert sorted(remote.paths) == sorted(
        [
            "derivative/respdict.json",
            "derivative/english1000sm.hf5",
            *(f"stimuli/{story}.wav" for story in source.story_names()),
            *(f"derivative/TextGrids/{story}.TextGrid" for story in source.story_names()),
            *(f"derivative/preprocessed_data/UTS04/{s}.hf5" for s in ("souls", "stagefright", "wheretheressmoke")),
            "derivative/pycortex-db/UTS04/transforms/UTS04_auto/mask_thick.nii.gz",
        ]
    )
    drawn = LebelSource("data", subjects=["UTS03"], regions=RegionConfig(pycortex="derivative/pycortex-db"))
    assert "derivative/pycortex-db/UTS03/overlays.svg" in drawn.remote().paths


def test_the_experiment_names_this_source_and_its_settings() -> None:
    text = (ROOT / "experiments" / "data" / "lebel2023.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)["data"]
    assert data["source"]["class_path"] == "brainlit.stories.lebel2023.LebelSource"
    arguments = {**data["source"]["init_args"], "root": "x", "subjects": data["subjects"]}
    assert LebelSource(**arguments).default_roles()["score"] == ["wheretheressmoke"]
    assert data["allow"] == ["tune and fit"]
    assert all(re.match("# ", line) for line in text.splitlines()[:4])
