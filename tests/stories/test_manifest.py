"""A manifest becomes a data set; what is wrong with it is said with place, cause and cure."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.stories import ManifestSource
from brainlit.stories.manifest_schema import ManifestError

N_TRS, TR_S, ONSET_S = 40, 1.5, 2.0  # of the fixture
Write = Callable[..., str]


def test_a_story_is_on_the_clock_of_the_manifest(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    story = ManifestSource(write(manifest)).story("frog")
    assert story.timebase.tr_starts_s[[0, 3]].tolist() == [ONSET_S, ONSET_S + 3 * TR_S]
    assert story.timebase.n_trs == N_TRS
    assert story.audio.dtype == np.int16
    assert len(story.audio) == round(16_000 * (ONSET_S + N_TRS * TR_S))
    assert len(story.words) == 80, "every fifth of 100 labels is 'sp'"
    assert set(story.sources) == {"frog.wav", "frog.tsv"}


def test_responses_lose_drift_and_level_and_keep_the_rest(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    source = ManifestSource(write(manifest))
    responses = source.responses("anna", "frog")
    assert responses is not None
    assert responses.values.dtype == np.float32
    assert np.allclose(responses.values.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(responses.values.std(axis=0), 1, atol=1e-5)
    raw = np.loadtxt(folder / "anna_frog.txt")
    wiggles = raw - np.linspace(0, 30, N_TRS)[:, None]
    assert np.corrcoef(responses.values[:, 0], wiggles[:, 0])[0, 1] > 0.8
    assert np.corrcoef(responses.values[:, 0], raw[:, 0])[0, 1] < 0.3, "most of the raw signal is drift"


def test_who_did_not_hear_a_story_has_no_responses(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    assert ManifestSource(write(manifest)).responses("ben", "bear") is None


def test_a_column_without_data_is_masked_and_said(
    folder: Path, manifest: dict[str, Any], write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    responses = ManifestSource(write(manifest)).responses("ben", "frog")
    assert responses is not None
    assert np.isnan(responses.values).all(axis=0).tolist() == [False, False, True]
    assert np.isfinite(responses.values[:, :2]).all()
    assert "1 of 3 columns hold no data" in caplog.text


def test_a_subject_without_data_is_left_out_with_the_reason(
    folder: Path, manifest: dict[str, Any], write: Write
) -> None:
    source = ManifestSource(write(manifest))
    assert source.subject_names() == ["anna", "ben"]
    assert source.left_out() == {"carl": "every column is constant or holds NaN (see carl_frog.txt)"}


def test_named_columns_are_regions(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    subject = ManifestSource(write(manifest)).subject("anna")
    assert {name: mask.tolist() for name, mask in subject.regions.items()} == {
        "A1": [True, False, False],
        "IFG": [False, True, False],
        "V1": [False, False, True],
    }
    manifest["responses"]["regions"] = {"sensory": ["A1", "V1"]}
    subject = ManifestSource(write(manifest)).subject("anna")
    assert subject.regions["sensory"].tolist() == [True, False, True]


def test_repeats_are_kept_and_averaged(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    for repeat, source in (("1", "anna"), ("2", "ben")):
        table = np.nan_to_num(np.loadtxt(folder / f"{source}_bear.txt"), nan=1.0)
        np.savetxt(folder / f"anna_bear_{repeat}.txt", table)
        np.savetxt(folder / f"anna_frog_{repeat}.txt", table)
    manifest["subjects"] = ["anna"]
    manifest["each_story"]["repeats"] = ["1", "2"]
    manifest["responses"]["file"] = "{subject}_{story}_{repeat}.txt"
    responses = ManifestSource(write(manifest)).responses("anna", "bear")
    assert responses is not None
    assert responses.repeats is not None
    assert responses.repeats.shape == (2, N_TRS, 3)
    mean = responses.repeats[:, :, 0].mean(axis=0)
    assert np.allclose(responses.values[:, 0], (mean - mean.mean()) / mean.std(), atol=1e-5)
    assert np.isnan(responses.values[:, 2]).all(), "constant in one repeat"


def test_an_irregular_clock_comes_from_a_table(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    starts = ONSET_S + np.arange(N_TRS) * TR_S
    starts[10:] += 0.01
    np.savetxt(folder / "clock.txt", starts)
    manifest["each_story"] |= {"onset_s": None, "tr_starts": "clock.txt"}
    manifest["each_story"]["silence_after_s"] = 1
    story = ManifestSource(write(manifest)).story("frog")
    assert np.allclose(story.timebase.tr_starts_s, starts)


def test_features_cover_the_rows_and_words_have_vectors(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    (folder / "vectors.txt").write_text("word 1.0 2.0\n")
    source = ManifestSource(write(manifest | {"word_vectors": "vectors.txt"}))
    spaces = {space.name: space for space in source.feature_spaces(source.story("frog"))}
    assert set(spaces) == {"log_mel", "envelope", "word_rate", "word_length", "word_vectors"}
    assert all(len(space.values) == N_TRS for space in spaces.values())
    assert spaces["word_rate"].values.sum() == 80
    assert spaces["word_vectors"].kind == "semantic"
    assert spaces["word_vectors"].values.sum(axis=0).tolist() == [80.0, 160.0]


def test_settings_are_json_without_machine_paths_and_see_a_changed_file(
    folder: Path, manifest: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    path = write(manifest)
    before = ManifestSource(path).settings()
    assert str(tmp_path) not in json.dumps(before)
    assert ManifestSource(path).settings() == before
    (folder / "ben_frog.txt").write_text((folder / "ben_frog.txt").read_text().replace("nan", "1.5", 1))
    assert ManifestSource(path).settings() != before


def _changed(manifest: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(manifest)
    *parents, key = place.split(".")
    target = changed
    for parent in parents:
        target = target[parent]
    target[key] = value
    return changed


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("subject", ["anna"], r"unknown key 'subject'\. Did you mean 'subjects'\?"),
        ("each_story.onset", 2.0, r"each_story: unknown key 'onset'\. Did you mean 'onset_s'"),
        ("responses.collumns", ["a"], r"responses: unknown key 'collumns'\. Did you mean 'columns'\?"),
        ("roles.train", ["frog"], r"roles: unknown key 'train'\. .*Known: choose, fit, score, tune"),
        ("each_story.tr_s", "two", r"tr_s is 'two'; need a number"),
        ("each_story.tr_s", None, r"stories\.frog: 'tr_s' is missing"),
        ("each_story.onset_s", None, r"give onset_s .* or tr_starts"),
        ("each_story.words", {"file": "a.TextGrid", "teir": "word"}, r"unknown key 'teir'\. Did you mean 'tier'\?"),
        ("subjects.ben", ["frogg"], r"ben heard 'frogg': no such story\. Did you mean 'frog'\?"),
        ("responses.columns", "A1", r"columns is 'A1'; need a list"),
        ("name", None, r"'name' is missing"),
    ],
)
def test_a_wrong_manifest_is_refused_in_words(
    folder: Path, manifest: dict[str, Any], write: Write, place: str, value: Any, message: str
) -> None:
    source = ManifestSource(write(_changed(manifest, place, value)))
    with pytest.raises(ManifestError, match=message):
        source.story_names()


def test_wrong_data_is_refused_in_words(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    short = _changed(manifest, "each_story.onset_s", 12.0)
    with pytest.raises(ManifestError, match=r"lasts 62\.00 s, but the 40 rows .* end at 72\.00 s.*silence_after_s: 10"):
        ManifestSource(write(short)).story("frog")
    np.savetxt(folder / "anna_frog.txt", np.zeros((3, N_TRS)))
    np.savetxt(folder / "ben_frog.txt", np.random.default_rng(0).normal(size=(N_TRS - 1, 3)))
    with pytest.raises(ManifestError, match=r"ben_frog\.txt has 39 rows, but 'frog' has 3 TRs"):
        ManifestSource(write(manifest)).responses("ben", "frog")
    with pytest.raises(ManifestError, match=r"names 3 columns .* but the tables have 40"):
        ManifestSource(write(manifest)).subject("anna")
    with pytest.raises(ManifestError, match=r"no placeholder; known: \{story\}"):
        ManifestSource(write(_changed(manifest, "each_story.audio", "{sub}.wav"))).story("frog")
    (folder / "bear.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"bear\.tsv does not exist"):
        ManifestSource(write(manifest)).story("bear")


def test_unknown_names_have_hints(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    source = ManifestSource(write(manifest))
    with pytest.raises(ManifestError, match="Did you mean 'frog'"):
        source.story("Frog")
    with pytest.raises(ManifestError, match="Did you mean 'anna'"):
        source.subject("ana")
    with pytest.raises(FileNotFoundError, match=r"Did you mean '.*manifest\.yaml'"):
        ManifestSource(str(folder / "manifst.yaml")).story_names()


def test_a_root_from_the_environment(
    folder: Path, manifest: dict[str, Any], write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "elsewhere").mkdir()
    path = write(manifest | {"root": "${oc.env:SMALL_DATA}"}, folder / "elsewhere")
    with pytest.raises(ManifestError, match="Set the variable"):
        ManifestSource(path).story_names()
    monkeypatch.setenv("SMALL_DATA", str(folder))
    assert len(ManifestSource(path).story("bear").words) == 80


def test_it_is_cheap_to_construct() -> None:
    assert ManifestSource("no/such/manifest.yaml").name == "such"
