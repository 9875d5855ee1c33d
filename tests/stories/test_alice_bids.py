"""Alice in whole volumes: the published layout becomes a story and responses on one clock; what is missing is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.stories.alice_bids import NOT_PREPROCESSED, SUBJECTS, AliceSource
from brainlit.stories.base import SourceError, SubjectLeftOut
from tests.layouts.alice_bids import CLICK_S, SOUND, WORDS, AliceFiles, write_alice_bids, write_events
from tests.layouts.volumes import column_of_planted, write_run, write_sound

PLAIN = {"tune": (0, 124), "choose": (138, 162), "fit": (176, 274), "score": (288, 362)}
"""Roles of the plain files of the same recordings (data/alice/manifest.yaml); they lack the first ten volumes."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> AliceFiles:
    """Two listeners; not to be changed."""
    return write_alice_bids(tmp_path_factory.mktemp("alice"), ("sub-18", "sub-22"))


@pytest.fixture
def small(tmp_path: Path) -> AliceFiles:
    """One listener, to be damaged."""
    return write_alice_bids(tmp_path)


def _source(files: AliceFiles, **more: Any) -> AliceSource:
    return AliceSource(str(files.root), **{"subjects": list(files.subjects), **more})


def test_23_listeners_and_one_story_without_a_file() -> None:
    source = AliceSource("nowhere")
    assert source.story_names() == ["alice"]
    assert len(source.subject_names()) == len(SUBJECTS) == 23
    assert list(source.left_out()) == list(NOT_PREPROCESSED) == ["sub-38", "sub-46", "sub-52"]
    assert "once" in source.facts()["noise ceiling"]
    assert AliceSource("nowhere", run="own/{subject}.nii.gz", subjects=["sub-38"]).subject_names() == ["sub-38"]


def test_roles_are_the_stretches_of_the_plain_files() -> None:
    spans = {role: (f"alice[{first + 10}:{stop + 10}]",) for role, (first, stop) in PLAIN.items()}
    assert {role: tuple(names) for role, names in AliceSource("nowhere").default_roles().items()} == spans
    assert AliceSource("nowhere", onset_s=4.0).default_roles() == {}
    assert AliceSource("nowhere", n_trs=300).default_roles() == {}


def test_sound_words_and_responses_meet_in_one_row(files: AliceFiles) -> None:
    source = _source(files)
    story = source.story("alice")
    assert story.timebase.n_trs == 372
    assert story.timebase.tr_starts_s[[0, 10]].tolist() == [0.0, 20.0]
    assert np.abs(story.audio).argmax() / 16_000 == pytest.approx(CLICK_S + 0.05, abs=0.06)
    assert story.words.start_s[story.words.labels.index("rabbit")] == CLICK_S
    assert "" not in story.words.labels
    for name in files.subjects:
        subject, responses = source.subject(name), source.responses(name, "alice")
        assert responses is not None
        assert responses.values.shape == (372, subject.n_voxels)
        np.testing.assert_allclose(responses.values.std(axis=0), 1, atol=1e-4)
        assert subject.coordinates_mm is not None
        peak = int(responses.values[:, column_of_planted(subject.coordinates_mm)].argmax())
        assert abs(story.timebase.tr_starts_s[peak] + 1.0 - CLICK_S) <= 1.0


def test_rows_after_the_story_are_left_out(small: AliceFiles) -> None:
    write_run(small.run("sub-18"), 374, 150, seed=0)
    responses = _source(small).responses("sub-18", "alice")
    assert responses is not None
    assert len(responses.values) == 372


def test_a_short_run_leaves_the_subject_out(small: AliceFiles) -> None:
    write_run(small.run("sub-18"), 370, 150, seed=0)
    with pytest.raises(SubjectLeftOut, match=r"sub-18.* has 370 volumes; the story needs 372"):
        _source(small).subject("sub-18")


def test_a_sound_that_started_late_leaves_the_subject_out_unless_the_clock_says_so(small: AliceFiles) -> None:
    write_events(small.events("sub-18"), 3.2)
    with pytest.raises(SubjectLeftOut, match=r"sub-18.*started 3\.2 s into the scan; .* at -?0 s"):
        _source(small).subject("sub-18")
    assert _source(small, onset_s=-3.2).subject("sub-18").n_voxels > 0


def test_events_may_be_missing_but_not_damaged(small: AliceFiles, caplog: pytest.LogCaptureFixture) -> None:
    small.events("sub-18").write_text("onset\tduration\nsoon\t748\n")
    with pytest.raises(SourceError, match=r"sub-18_task-alice_events\.tsv, line 2: .*'onset'"):
        _source(small).subject("sub-18")
    small.events("sub-18").unlink()
    assert _source(small).subject("sub-18").n_voxels > 0
    assert "taken for granted" in caplog.text
    assert small.events("sub-18") not in _source(small).subject_files("sub-18")


@pytest.mark.parametrize("missing", [SOUND, WORDS])
def test_a_missing_file_of_the_story_is_named(small: AliceFiles, missing: str) -> None:
    (small.root / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        _source(small).story("alice")


def test_a_missing_run_or_mask_is_named(small: AliceFiles) -> None:
    with pytest.raises(FileNotFoundError, match=r"no-mask\.nii"):
        _source(small, mask="no-mask.nii").subject("sub-18")
    small.run("sub-18").unlink()
    for ask in (_source(small).subject, lambda name: _source(small).responses(name, "alice")):
        with pytest.raises(FileNotFoundError, match=r"sub-18_task-alice_bold_preprocessed\.nii\.gz"):
            ask("sub-18")


def test_a_sound_that_ends_early_and_words_after_it_are_refused(small: AliceFiles) -> None:
    write_sound(small.root / SOUND, 700.0, CLICK_S, seed=0)
    with pytest.raises(SourceError, match=r"lasts 700\.0 s, but the rows end at 744\.0 s"):
        _source(small).story("alice")
    with pytest.raises(SourceError, match=r"annotations\.tsv: the last word ends at 743\.9 s, after the 700\.0 s"):
        _source(small, n_trs=340).story("alice")


def test_words_from_a_textgrid(small: AliceFiles) -> None:
    (small.root / "alice.TextGrid").write_text(
        'File type = "ooTextFile"\nObject class = "TextGrid"\n0\n748\n<exists>\n1\n"IntervalTier"\n"word"\n0\n748\n2\n'
        '0\n20\n"sp"\n20\n20.5\n"Alice"\n'
    )
    assert _source(small, words="alice.TextGrid").story("alice").words.labels == ("Alice",)
    with pytest.raises(FileNotFoundError, match=r"other\.TextGrid"):
        _source(small, words="other.TextGrid").story("alice")


def test_only_what_was_asked_for_is_downloaded_and_hashed(files: AliceFiles) -> None:
    source = _source(files, subjects=["sub-18"])
    assert source.remote().url == "s3://openneuro.org/ds002322"
    assert source.remote().paths == (
        "stimuli/DownTheRabbitHoleFinal_mono_exp120_NR16_pad.wav",
        "code/annotations.tsv",
        "derivatives/sub-18/sub-18_task-alice_bold_preprocessed.nii.gz",
        "sub-18/sub-18_task-alice_events.tsv",
    )
    assert source.subject_files("sub-18") == [files.run("sub-18"), files.events("sub-18")]
    assert all(path.is_file() for path in source.story_files("alice"))


def test_settings_say_how_and_not_where_or_who(files: AliceFiles) -> None:
    settings = _source(files).settings()
    assert settings == AliceSource("elsewhere").settings()
    for change in ({"onset_s": 1.0}, {"n_trs": 340}, {"high_pass_s": None}, {"mask": "m.nii"}, {"words": "w.tsv"}):
        assert AliceSource("elsewhere", **change).settings() != settings  # type: ignore[arg-type]


def test_names_that_are_not_known_are_refused_with_a_hint(files: AliceFiles) -> None:
    with pytest.raises(SourceError, match=r"there is no subject 'sub18'. Did you mean 'sub-18'"):
        AliceSource("nowhere", subjects=["sub18"])
    with pytest.raises(SourceError, match=r"'sub-38' was not preprocessed by the authors"):
        AliceSource("nowhere", subjects=["sub-38"])
    with pytest.raises(SourceError, match=r"no story 'alise'. Did you mean 'alice'"):
        _source(files).story("alise")
    with pytest.raises(SourceError, match=r"no subject 'sub-53'"):
        _source(files).subject("sub-53")
    with pytest.raises(SourceError, match=r"n_trs is 1"):
        AliceSource("nowhere", n_trs=1)
