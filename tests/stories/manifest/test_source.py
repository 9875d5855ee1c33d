"""A manifest becomes a data set; what is wrong with it is said with place, cause and cure."""

from __future__ import annotations

import copy
import json
import tracemalloc
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from brainlit.datamodules.dataset import WindowDataset
from brainlit.datamodules.targets.stored import VoxelTargets
from brainlit.datamodules.windows import Window, WindowConfig
from brainlit.features import FeatureConfig
from brainlit.store import StoryStore, build_store, check_store, describe_store
from brainlit.stories import ManifestSource, ResponseFilter, SubjectLeftOut
from brainlit.stories.manifest.schema import ManifestError
from brainlit.stories.readers.audio import AudioError
from brainlit.stories.readers.cleaning import clean_series, zscore
from brainlit.stories.readers.transcripts import TranscriptError
from tests.layouts.fmriprep import write_fmriprep_run

N_TRS, TR_S, ONSET_S = 40, 1.5, 2.0  # of the fixture
Write = Callable[..., str]


def test_a_story_is_on_the_clock_of_the_manifest(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    story = ManifestSource(write(manifest)).story("frog")
    assert story.timebase.tr_starts_s[[0, 3]].tolist() == [ONSET_S, ONSET_S + 3 * TR_S]
    assert story.timebase.n_trs == N_TRS
    assert story.audio.dtype == np.int16
    assert len(story.audio) == round(16_000 * (ONSET_S + N_TRS * TR_S))
    assert len(story.words) == 80, "every fifth of 100 labels is 'sp'"
    assert ManifestSource(write(manifest)).story_files("frog") == [folder / "frog.wav", folder / "frog.tsv"]


def test_the_chosen_channel_is_read_and_what_was_done_to_it_is_kept(
    folder: Path, manifest: dict[str, Any], write: Write
) -> None:
    """Triggers on the right of one story, floats in units of int16 in the other."""
    n_samples = round(16_000 * (ONSET_S + N_TRS * TR_S))
    speech = np.random.default_rng(1).normal(0, 0.05, n_samples)
    triggers = np.where(np.arange(n_samples) % 24_000 < 160, 0.9, 0)
    soundfile.write(folder / "frog.wav", np.column_stack([speech, triggers]), 16_000)
    soundfile.write(folder / "bear.wav", np.column_stack([speech, speech]) * 32768, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"frog\.wav: channel 0 .*are not one sound.*`channel: left`"):
        ManifestSource(write(manifest)).story("frog")
    manifest["stories"]["frog"] = {"channel": "left"}
    source = ManifestSource(write(manifest))
    frog, bear = source.story("frog"), source.story("bear")
    assert np.abs(frog.audio / 32768 - speech).max() < 1e-4
    assert np.corrcoef(bear.audio, speech)[0, 1] > 0.9999
    assert [note.kind for note in (*frog.sound_notes, *bear.sound_notes)] == ["scaled_sound"]
    build_store(source, folder / "store", progress=False, features=FeatureConfig(low_level=["word_rate"]))
    assert [*describe_store(folder / "store")["sound_notes"]] == ["bear"]
    assert source.settings()["stories"]["frog"]["channel"] == "left", "another channel is another store"


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
    assert source.subject_names() == ["anna", "ben", "carl"]
    with pytest.raises(SubjectLeftOut, match=r"^every column is constant or holds NaN \(see carl_frog\.txt\)$"):
        source.subject("carl")


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
    assert np.allclose(responses.values[:, 0], mean, atol=1e-5)
    assert mean.std() < 0.99, "the mean is not z-scored again"
    assert np.isnan(responses.values[:, 2]).all(), "constant in one repeat"


def test_an_irregular_clock_comes_from_a_table(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    starts = ONSET_S + np.arange(N_TRS) * TR_S
    starts[10:] += 0.01
    np.savetxt(folder / "clock.txt", starts)
    manifest["each_story"] |= {"onset_s": None, "tr_starts": "clock.txt"}
    manifest["each_story"]["silence_after_s"] = 1
    story = ManifestSource(write(manifest)).story("frog")
    assert np.allclose(story.timebase.tr_starts_s, starts)


def test_settings_are_json_without_folders_and_without_who_is_asked_for(
    folder: Path, manifest: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    before = ManifestSource(write(manifest)).settings()
    assert str(tmp_path) not in json.dumps(before)
    asked = manifest | {"subjects": ["anna"], "root": str(folder / "."), "citation": "us"}
    assert ManifestSource(write(asked)).settings() == before
    cleaned = _changed(manifest, "responses.high_pass_s", 200)
    assert ManifestSource(write(cleaned)).settings() != before


def test_names_files_and_facts_need_no_raw_file(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    manifest["responses"]["confounds"] = {"file": "{subject}.tsv", "columns": ["rot_*"]}
    manifest |= {"licence": "CC0", "citation": "Frog et al. (2020)"}
    source = ManifestSource(write(manifest))
    for path in folder.glob("*_*.txt"):
        path.unlink()
    (folder / "frog.wav").unlink()
    assert source.subject_files("ben") == [folder / "ben_frog.txt", folder / "ben.tsv"]
    assert [path.name for path in source.story_files("frog")] == ["frog.wav", "frog.tsv"]
    assert source.facts() == {
        "clock": "frog, bear: TR 1.5 s, row 0 of the file starts at 2 s of the sound",
        "preprocessing": "periods of 128 s and more taken out; confounds regressed out: rot_*; z-scored per story",
        "licence": "CC0",
        "citation": "Frog et al. (2020)",
    }
    assert source.remote() is None
    assert source.left_out() == {}


def test_discarded_rows_move_the_clock(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    whole = ManifestSource(write(manifest)).story("frog").timebase
    manifest["each_story"] |= {"volumes_discarded": 4, "n_trs": 30}
    source = ManifestSource(write(manifest))
    assert source.story("frog").timebase.tr_starts_s.tolist() == whole.tr_starts_s[4:34].tolist()
    responses = source.responses("anna", "frog")
    assert responses is not None
    expected = clean_series(np.loadtxt(folder / "anna_frog.txt")[4:34], TR_S)
    assert np.allclose(responses.values, expected)
    np.savetxt(folder / "anna_frog.txt", np.loadtxt(folder / "anna_frog.txt")[:33])
    with pytest.raises(ManifestError, match=r"anna_frog\.txt has 33 rows; with volumes_discarded 4 there are not 30"):
        ManifestSource(write(manifest)).story("frog")
    with pytest.raises(ManifestError, match=r"has 33 rows, but 'frog' has 30 TRs after 4 that are discarded"):
        source.responses("anna", "frog")


def test_a_table_of_row_starts_is_discarded_with_its_rows(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    starts = ONSET_S + np.arange(N_TRS) * TR_S
    np.savetxt(folder / "clock.txt", starts)
    manifest["each_story"] |= {"onset_s": None, "tr_starts": "clock.txt", "volumes_discarded": 5}
    assert ManifestSource(write(manifest)).story("frog").timebase.tr_starts_s.tolist() == starts[5:].tolist()
    np.savetxt(folder / "clock.txt", starts[::-1])
    with pytest.raises(ManifestError, match=r"clock\.txt: TR 0 starts at"):
        ManifestSource(write(manifest)).story("frog")


def test_an_onset_beyond_all_clocks_is_refused(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    manifest["each_story"]["onset_s"] = 1e17
    with pytest.raises(ManifestError, match=r"manifest\.yaml: stories\.frog: TR 0 starts at"):
        ManifestSource(write(manifest)).story("frog")


def test_preprocessed_responses_are_only_z_scored(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    manifest["responses"]["preprocessed"] = True
    responses = ManifestSource(write(manifest)).responses("anna", "frog")
    raw = np.loadtxt(folder / "anna_frog.txt")
    assert responses is not None
    assert np.allclose(responses.values, (raw - raw.mean(axis=0)) / raw.std(axis=0), atol=1e-5)
    manifest["responses"]["low_pass_s"] = 5
    with pytest.raises(ManifestError, match="low_pass_s is given, but nothing is taken out of preprocessed data"):
        ManifestSource(write(manifest)).story_names()


def test_confounds_are_regressed_out(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    confounds = np.random.default_rng(3).normal(size=(N_TRS, 2))
    rows = ["rot_x\trot_y\tcsf", *(f"{x}\t{y}\t0" for x, y in confounds)]
    (folder / "anna_frog.tsv").write_text("\n".join(rows))
    said = {"file": "{subject}_{story}.tsv", "columns": ["rot_*"]}
    manifest["responses"] |= {"confounds": said, "high_pass_s": 60, "low_pass_s": 4, "zscore": True}
    responses = ManifestSource(write(manifest)).responses("anna", "frog")
    assert responses is not None
    expected = clean_series(np.loadtxt(folder / "anna_frog.txt"), TR_S, 60, 4, confounds)
    assert np.allclose(responses.values, expected, atol=1e-5)
    (folder / "anna_frog.tsv").write_text("\n".join(rows[:-1]))
    with pytest.raises(ManifestError, match=r"anna_frog\.tsv has 39 rows, but .*anna_frog\.txt has 40"):
        ManifestSource(write(manifest)).responses("anna", "frog")


def test_events_of_bids_count_from_the_first_volume(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    lines = ["onset\tduration\ttrial_type\tstim", "0.5\tn/a\tword\thello", "0.7\t1\tbutton\tleft", "3\t1\tword\tworld"]
    (folder / "frog_events.tsv").write_text("\n".join(lines))
    tier = {"file": "{story}_events.tsv", "where": {"trial_type": "word"}}
    manifest["each_story"] |= {"words": tier, "volumes_discarded": 2}
    words = ManifestSource(write(manifest)).story("frog").words
    assert words.labels == ("hello", "world")
    assert words.start_s.tolist() == [ONSET_S + 0.5, ONSET_S + 3], "row 0 of the file, not the first row that is used"
    tier["clock"] = "audio"
    assert ManifestSource(write(manifest)).story("frog").words.start_s.tolist() == [0.5, 3]


def test_words_outside_the_sound_are_on_another_clock(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    (folder / "frog.tsv").write_text("onset\tduration\tword\n1\t1\ta\n63.5\t1\tb\n")
    with pytest.raises(
        TranscriptError, match=r"frog\.tsv: words start from 1\.00 to 63\.50 s .* lasts 62\.00 s.*clock"
    ):
        ManifestSource(write(manifest)).story("frog")


def test_times_in_milliseconds_are_guessed_and_refused(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    """As Whisper writes .tsv: start, end and text, in milliseconds."""
    (folder / "frog.tsv").write_text("start\tend\ttext\n1000\t1500\ta\n48000\t48500\tb\n")
    with pytest.raises(
        TranscriptError, match=r"start from 1000 to 48000, .* 62\.00 s\. Are these milliseconds\?.*onset_ms"
    ):
        ManifestSource(write(manifest)).story("frog")
    (folder / "frog.tsv").write_text("start_ms\tend_ms\ttext\n1000\t1500\ta\n48000\t48500\tb\n")
    assert ManifestSource(write(manifest)).story("frog").words.end_s.tolist() == [1.5, 48.5]


def test_words_without_times_are_counted_in_store_and_check(
    folder: Path, manifest: dict[str, Any], write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    timed = [{"word": f"w{k}", "start": 3 + k, "end": 3.5 + k} for k in range(40)]
    content = {"segments": [], "word_segments": [*timed, {"word": "2014."}]}
    (folder / "frog.json").write_text(json.dumps(content))
    rows = ["onset\tduration\ttrial_type\tword", "n/a\tn/a\tword\tlost", "n/a\tn/a\tpause\tx", "0\tn/a\tword\tgone"]
    (folder / "bear_events.tsv").write_text("\n".join(rows))
    manifest["stories"] = {
        "frog": {"words": "{story}.json"},
        "bear": {"words": {"file": "{story}_events.tsv", "where": {"trial_type": "word"}}},
    }
    manifest["subjects"] = ["anna"]
    source = ManifestSource(write(manifest))
    source.story("frog")
    story = source.story("frog")
    assert story.words.start_s.tolist() == [3.0 + k for k in range(40)]
    assert caplog.text.count("words of frog.json: 1 of 41 without a time ('2014.' first); dropped") == 1
    left_out = {
        "words of frog.json": "1 of 41 without a time ('2014.' first)",
        "words of bear_events.tsv": "1 of 2 without a time ('lost' first)",
    }
    assert source.left_out() == left_out
    assert ManifestSource(source.path.as_posix()).left_out() == left_out, "also where no story was read"
    store = build_store(source, folder / "store", progress=False, features=FeatureConfig(low_level=["envelope"]))
    found = [finding for finding in check_store(store.path, progress=False) if finding.kind == "left_out"]
    assert {finding.where: finding.message.removeprefix("was left out: ") for finding in found} == left_out
    (folder / "bear_events.tsv").unlink()
    assert list(ManifestSource(source.path.as_posix()).left_out()) == ["words of frog.json"]


def test_a_list_of_tiers_is_joined(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    tiers = [("frog A", [(1, 2, "the"), (4, 5, "hops")]), ("frog B", [(1.5, 3, "frog")])]
    text = 'File type = "ooTextFile"\nObject class = "TextGrid"\n0\n62\n<exists>\n2\n'
    for name, words in tiers:
        text += f'"IntervalTier"\n"{name}"\n0\n62\n{len(words)}\n'
        text += "".join(f'{start}\n{end}\n"{word}"\n' for start, end, word in words)
    (folder / "frog.TextGrid").write_text(text)
    manifest["each_story"]["words"] = {"file": "{story}.TextGrid", "tier": ["{story} A", "{story} B"]}
    words = ManifestSource(write(manifest)).story("frog").words
    assert list(zip(words.labels, words.start_s, strict=True)) == [("the", 1), ("frog", 1.5), ("hops", 4)]


def test_swapped_words_and_phones_are_refused(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    (folder / "phones.tsv").write_text("onset\tduration\ttext\n1\t1\ta\n2\t1\tb\n")
    manifest["each_story"]["phones"] = "phones.tsv"
    source = ManifestSource(write(manifest))
    with pytest.raises(TranscriptError, match=r"frog\.tsv: 80 words, but 2 phones"):
        source.story("frog")
    (folder / "frog.wav").unlink()
    phones = source.phones("frog")
    assert phones is not None
    assert phones.labels == ("a", "b"), "phones need no sound"


def test_big_repeats_are_read_when_asked_for(
    folder: Path, manifest: dict[str, Any], write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in (1, 2, 3):
        np.savetxt(folder / f"anna_bear_{k}.txt", np.random.default_rng(k).normal(size=(N_TRS, 3)))
    manifest |= {
        "subjects": {"anna": ["bear"]},
        "stories": {"bear": {"repeats": [1, 2, 3]}},
        "roles": {"score": ["bear"]},
    }
    manifest["responses"]["file"] = "{subject}_{story}_{repeat}.txt"
    whole = ManifestSource(write(manifest)).responses("anna", "bear")
    monkeypatch.setattr("brainlit.stories.manifest.source._BYTES_AT_ONCE", 0)
    lazy = ManifestSource(write(manifest)).responses("anna", "bear")
    assert whole is not None
    assert lazy is not None
    assert isinstance(whole.repeats, np.ndarray)
    assert not isinstance(lazy.repeats, np.ndarray)
    assert np.array_equal(lazy.values, whole.values)
    assert np.array_equal(np.stack(list(lazy.repeats or [])), whole.repeats)


def _changed(manifest: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(manifest)
    *parents, key = place.split(".")
    target = changed
    for parent in parents:
        target = target[parent]
    target[key] = value
    return changed


def test_wrong_data_is_refused_in_words(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    short = _changed(manifest, "each_story.onset_s", 12.0)
    with pytest.raises(ManifestError, match=r"lasts 62\.00 s, but the 40 rows .* end at 72\.00 s.*silence_after_s: 10"):
        ManifestSource(write(short)).story("frog")
    np.savetxt(folder / "anna_frog.txt", np.zeros((3, N_TRS)))
    np.savetxt(folder / "ben_frog.txt", np.random.default_rng(0).normal(size=(N_TRS - 1, 3)))
    with pytest.raises(ManifestError, match=r"ben_frog\.txt has 39 rows, but 'frog' has 3 TRs"):
        ManifestSource(write(manifest)).responses("ben", "frog")
    with pytest.raises(ManifestError, match=r"anna_bear\.txt has 3 columns, but .*anna_frog\.txt has 40"):
        ManifestSource(write(manifest)).subject("anna")
    two = _changed(_changed(manifest, "responses.columns", ["A1", "V1"]), "subjects", {"anna": ["bear"]})
    with pytest.raises(ManifestError, match=r"names 2 columns .* but the tables have 3"):
        ManifestSource(write(two)).subject("anna")
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


def test_drift_that_is_removed_here_is_what_responses_passed(
    folder: Path, manifest: dict[str, Any], write: Write
) -> None:
    source = ManifestSource(write(manifest))
    passed, responses = source.response_filter(), source.responses("anna", "frog")
    assert passed is not None
    assert responses is not None
    filtered = passed.apply(np.loadtxt(folder / "anna_frog.txt"), TR_S)
    assert np.allclose(zscore(filtered), responses.values, atol=1e-4)
    assert source.slice_reference() == 0.5


def test_a_manifest_says_what_was_done_before(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    before = {"preprocessed": True, "response_filter": {"polynomial": 2, "high_pass_s": 100, "trimmed_trs": [4, 0]}}
    manifest["responses"] = {**manifest["responses"], **before, "slice_reference": 0}
    source = ManifestSource(write(manifest))
    expected = ResponseFilter(2, 100, trimmed_trs=(4, 0), source="the manifest")
    assert source.response_filter() == expected
    assert source.slice_reference() == 0.0
    said = json.loads(json.dumps(source.settings()))["responses"]
    assert (said["response_filter"]["trimmed_trs"], said["slice_reference"]) == ([4, 0], 0.0)


@pytest.mark.parametrize("cleaning", [{"preprocessed": True}, {"high_pass_s": None}])
def test_what_nobody_says_is_not_known(
    folder: Path, manifest: dict[str, Any], write: Write, cleaning: dict[str, Any]
) -> None:
    manifest["responses"] = {**manifest["responses"], **cleaning}
    assert ManifestSource(write(manifest)).response_filter() is None


def test_an_array_of_presentations_is_read_and_a_transposed_one_is_known(
    folder: Path, manifest: dict[str, Any], write: Write
) -> None:
    """The sound lasts 62 s, which 40 rows of 1.5 s fit."""
    runs = np.stack([np.loadtxt(folder / "anna_frog.txt"), np.loadtxt(folder / "anna_bear.txt")])
    manifest["subjects"] = {"anna": ["frog"]}
    manifest["responses"] = {"file": "{subject}_{story}.npy", "columns": ["A1", "IFG", "V1"]}
    np.save(folder / "anna_frog.npy", runs)
    source = ManifestSource(write(manifest))
    assert source.story("frog").timebase.n_trs == N_TRS
    responses = source.responses("anna", "frog")
    assert responses is not None
    assert responses.repeats is not None
    assert np.allclose(responses.repeats, [clean_series(run, TR_S) for run in runs], atol=1e-4)
    assert source.subject_files("anna") == [folder / "anna_frog.npy"], "one file, once"
    for turned in (runs.transpose(0, 2, 1), runs.transpose(1, 2, 0), runs[0].T):
        np.save(folder / "anna_frog.npy", turned)
        with pytest.raises(ManifestError, match=r"anna_frog\.npy has 3 rows, .* lasts 62 s, as 40 .*is it tra"):
            ManifestSource(write(manifest)).story("frog")
    manifest["responses"]["transposed"] = True
    source = ManifestSource(write(manifest))
    assert source.story("frog").timebase.n_trs == N_TRS
    responses = source.responses("anna", "frog")
    assert responses is not None
    assert np.allclose(responses.values, clean_series(runs[0], TR_S), atol=1e-4)


def test_rows_are_counted_before_an_array_is_unpacked(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    manifest["responses"] = {"file": "{subject}_{story}.npz"}
    for story, n_rows in (("frog", N_TRS), ("bear", N_TRS + 1)):
        np.savez_compressed(folder / f"anna_{story}.npz", np.zeros((n_rows, 20_000)))
    manifest["subjects"] = ["anna", "ben"]
    (folder / "anna_bear.npz").rename(folder / "ben_frog.npz")
    source = ManifestSource(write(manifest))
    source.story("frog")
    tracemalloc.start()
    with pytest.raises(ManifestError, match=r"ben_frog\.npz has 41 rows, but 'frog' has 40 TRs"):
        source.responses("ben", "frog")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6, "the values take 3 MB"


def test_named_columns_in_another_order_are_refused(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    manifest["responses"] = {"file": "{subject}_{story}.csv"}
    for story, names in (("frog", "A1,IFG,V1"), ("bear", "IFG,A1,V1")):
        rows = np.loadtxt(folder / f"anna_{story}.txt")
        np.savetxt(folder / f"anna_{story}.csv", rows, header=names, delimiter=",", comments="")
    source = ManifestSource(write(manifest))
    source.responses("anna", "frog")
    with pytest.raises(ManifestError, match=r"anna_bear\.csv has as many columns as .*anna_frog\.csv, but others"):
        source.responses("anna", "bear")


def test_subjects_who_began_at_other_times_have_stories_of_their_own(
    folder: Path, manifest: dict[str, Any], write: Write
) -> None:
    manifest["subjects"] = {
        "anna": "all",
        "ben": {"stories": ["frog"], "onset_s": -4.0, "volumes_discarded": 2},
        "carl": {"stories": {"frog": {"onset_s": ONSET_S}, "bear": {"onset_s": 1.0}}},
    }
    manifest["roles"] = {"tune": ["frog[0:20]"], "score": ["bear"]}
    source = ManifestSource(write(manifest))
    assert source.story_names() == ["frog", "frog.ben", "bear", "bear.carl"], "carl's frog is anna's"
    assert source.on_other_clocks() == {"frog.ben": "frog", "bear.carl": "bear"}
    starts_s = {name: source.story(name).timebase.tr_starts_s[0] for name in source.story_names()}
    assert starts_s == {"frog": 2.0, "frog.ben": -1.0, "bear": 2.0, "bear.carl": 1.0}
    assert source.story("frog.ben").timebase.n_trs == N_TRS - 2
    assert np.array_equal(source.story("frog.ben").audio, source.story("frog").audio)
    assert source.responses("ben", "frog") is None
    responses = source.responses("ben", "frog.ben")
    assert responses is not None
    expected = clean_series(np.loadtxt(folder / "ben_frog.txt")[2:], TR_S)
    assert np.allclose(responses.values, expected, equal_nan=True, atol=1e-4)
    assert [path.name for path in source.subject_files("ben")] == ["ben_frog.txt"]
    assert source.facts()["clock"].startswith("frog, bear: TR 1.5 s, row 0 of the file starts at 2 s")
    assert "frog.ben: TR 1.5 s, row 0 of the file starts at -4 s" in source.facts()["clock"]


def test_logs_and_events_of_each_subject_are_found_by_name(
    folder: Path, manifest: dict[str, Any], write: Write
) -> None:
    manifest["subjects"] = ["anna", "ben"]
    manifest["each_story"] |= {"onset_s": None, "tr_starts": "{subject}_{story}_log.txt",
                               "words": "{subject}_{story}_events.tsv", "silence_after_s": 5}  # fmt: skip
    first_s = {"anna": 0.5, "ben": 3.25}
    for (name, start_s), story in product(first_s.items(), ("frog", "bear")):
        np.savetxt(folder / f"{name}_{story}_log.txt", start_s + np.arange(N_TRS) * TR_S)
        (folder / f"{name}_{story}_events.tsv").write_text(f"onset\tduration\ttext\n{10 - start_s}\t1\tword\n")
    source = ManifestSource(write(manifest))
    assert source.story_names() == ["frog", "frog.ben", "bear", "bear.ben"]
    for name, start_s in (("frog", 0.5), ("frog.ben", 3.25)):
        story = source.story(name)
        assert story.timebase.tr_starts_s[:2].tolist() == [start_s, start_s + TR_S]
        assert story.words.start_s.tolist() == [10.0], "one sound, two clocks"
    assert [path.name for path in source.story_files("frog.ben")] == [
        "frog.wav", "ben_frog_events.tsv", "ben_frog_log.txt",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("subjects", "message"),
    [
        ({"ben": {"onset": 1}}, r"subjects: ben: unknown key 'onset'\. Did you mean 'onset_s'"),
        ({"ben": {"stories": {"frog": {"tr_s": 1}}}}, r"stories: frog: unknown key 'tr_s'"),
        ({"ben": {"stories": ["wolf"]}}, "ben heard 'wolf': no such story"),
        ({"ben": {"onset_s": "late"}}, r"stories\.frog, for ben: onset_s is 'late'; need a number"),
    ],
)
def test_what_differs_for_a_subject_is_checked(
    manifest: dict[str, Any], write: Write, subjects: Any, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        ManifestSource(write(manifest | {"subjects": subjects})).story_names()


CLICKS_S, RUN_2_S, BEFORE_S, RUN_TRS = (11.3, 58.2), 31.7, 4.5, (25, 26)
"""Clicks of a sound of 62 s, where in it run 2 begins, how long the scanner ran before each part; rows of the runs."""


def _clicking(folder: Path, manifest: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """A sound with two clicks and a word at each, and responses with an impulse in the volume of each click."""
    sound = np.zeros(62 * 16_000, dtype=np.int16)
    sound[[round(click * 16_000) for click in CLICKS_S]] = 20_000
    soundfile.write(folder / "frog.wav", sound, 16_000)
    rows = [(5, "first"), (11.3, "click"), (31.6, "across"), (40, "second"), (58.2, "clack")]
    lines = [f"{at}\t0.5\t{word}" for at, word in rows]
    (folder / "frog.tsv").write_text("\n".join(["onset\tduration\ttext", *lines]))
    for name, n_trs, first_s, click in zip(("run-1", "run-2"), RUN_TRS, (0, RUN_2_S), CLICKS_S, strict=True):
        values = np.random.default_rng(1).normal(0, 0.01, size=(n_trs, 3))
        values[int((click - first_s + BEFORE_S) / TR_S)] += 5
        np.savetxt(folder / f"anna_frog_{name}.txt", values)
    story = {"onset_s": -BEFORE_S, "silence_after_s": 4, "parts": parts}
    changed = _changed(manifest, "stories", {"frog": story})
    changed["responses"] |= {"file": "{subject}_{story}_{part}.txt", "high_pass_s": None}
    return changed | {"subjects": ["anna"], "roles": {"score": ["frog"]}}


def test_a_story_over_two_runs_is_right_to_the_volume(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    """Each part begins a recording of its own: its first volume 4.5 s before its sound."""
    parts: dict[str, Any] = {"run-1": {}, "run-2": {"sound_start_s": RUN_2_S}}
    source = ManifestSource(write(_clicking(folder, manifest, parts)))
    assert source.story_names() == ["frog.run-1", "frog.run-2"]
    assert source.parts() == dict.fromkeys(source.story_names(), "frog")
    assert source.default_roles() == {"score": ["frog.run-1", "frog.run-2"]}
    clock = "frog.run-2: TR 1.5 s, row 0 of the file starts at -4.5 s of the sound, which is the audio file from 31.7 s"
    assert clock in source.facts()["clock"]
    assert [path.name for path in source.subject_files("anna")] == ["anna_frog_run-1.txt", "anna_frog_run-2.txt"]
    store = build_store(source, folder / "store", progress=False, features=FeatureConfig(low_level=["envelope"]))
    assert store.parts == source.parts()
    words = {name: list(zip(*_words(store, name), strict=True)) for name in store.story_names}
    assert words["frog.run-1"] == [("first", 5.0), ("click", 11.3), ("across", 31.6)]
    assert words["frog.run-2"] == [("second", pytest.approx(8.3)), ("clack", pytest.approx(26.5))]
    for name, click_s, row in (("frog.run-1", 11.3, 10), ("frog.run-2", 26.5, 20)):
        audio = store.audio(name, 0, store.n_samples(name))
        assert np.flatnonzero(audio).tolist() == [round(16_000 * click_s)]
        assert store.timebase(name).tr_starts_s[0] == -BEFORE_S
        (space,) = store.feature_spaces(name)
        assert space.values.max(axis=1).argmax() == row == int((click_s + BEFORE_S) / TR_S)
        responses = store.responses("anna", name, 0, store.n_trs(name))
        assert responses is not None
        assert responses[:, 0].argmax() == row
        targets = VoxelTargets(store, {"anna": np.arange(3)})
        dataset = WindowDataset(store, WindowConfig(n_trs=1, context_s=3.0), targets)
        batch = dataset.read([Window(name, k, k, k + 1) for k in (row - 1, row, row + 1)])
        last = 2 * round(TR_S * 16_000)
        assert [bool(sound[last:].any()) for sound in batch["audio"]] == [False, True, False], "in its own TR"
        assert batch["targets"]["anna"][:, 0, 0].argmax() == 1
    assert store.n_samples("frog.run-1") == round(RUN_2_S * 16_000), "nothing of part 2 is heard in part 1"


def _words(store: StoryStore, name: str) -> tuple[tuple[str, ...], list[float]]:
    words = store.words(name)
    return words.labels, words.start_s.tolist()


def test_two_sounds_of_one_story_need_no_cut(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    changed = _clicking(folder, manifest, {"run-1": {}, "run-2": {"onset_s": -3.0}})
    for name in ("run-1", "run-2"):
        (folder / "frog.wav").with_name(f"frog-{name}.wav").write_bytes((folder / "frog.wav").read_bytes())
        (folder / f"{name}.tsv").write_text((folder / "frog.tsv").read_text())
    changed["each_story"] |= {"audio": "{story}-{part}.wav", "words": "{part}.tsv"}
    source = ManifestSource(write(changed))
    assert [path.name for path in source.story_files("frog.run-2")] == ["frog-run-2.wav", "run-2.tsv"]
    assert source.story("frog.run-2").timebase.tr_starts_s[0] == -3.0
    assert len(source.story("frog.run-2").words) == 5


def test_one_part_may_be_missed_and_begin_at_another_time(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    changed = _clicking(folder, manifest, {"run-1": {}, "run-2": {"sound_start_s": RUN_2_S}})
    for name in ("ben", "carl"):
        (folder / f"{name}_frog_run-1.txt").write_text((folder / "anna_frog_run-1.txt").read_text())
        (folder / f"{name}_frog_run-2.txt").write_text((folder / "anna_frog_run-2.txt").read_text())
    changed["subjects"] = {
        "anna": ["frog"],
        "ben": ["frog.run-1"],
        "carl": {"stories": {"frog.run-2": {"onset_s": -6}}},
    }
    source = ManifestSource(write(changed))
    assert source.story_names() == ["frog.run-1", "frog.run-2", "frog.run-2.carl"]
    assert source.parts() == dict.fromkeys(source.story_names(), "frog")
    assert source.on_other_clocks() == {"frog.run-2.carl": "frog.run-2"}
    assert source.responses("ben", "frog.run-2") is None
    carl = source.responses("carl", "frog.run-2.carl")
    assert carl is not None
    assert carl.values[:, 0].argmax() == 20, "of his own file"
    assert source.story("frog.run-2.carl").timebase.tr_starts_s[0] == -6


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"run-1": {}, "run-2": {}},
            r"parts: all play '\{story\}\.wav', from 0, 0 s\. Say where each begins .*: sound_st",
        ),
        ({"run-1": {"sound_start_s": 9}, "run-2": {}}, r"from 9, 0 s\. Say where each begins in it, in their order"),
        ({"run-1": {}}, r"parts names 1; a story in one run needs no parts"),
        ({"run-1": {}, "run-2": {"sound_stat_s": 3}}, r"unknown key 'sound_stat_s'\. Did you mean 'sound_start_s'"),
        (
            {"run-1": {}, "run-2": {"sound_start_s": 99}},
            r"lasts 62\.00 s, but 'frog\.run-1' is its sound from 0 s to 99 s",
        ),
        ({"run-1": {}, "run-2": {"sound_start_s": 59, "silence_after_s": 40}}, r"nothing begins from 59 to inf s"),
        (
            {"run-1": {}, "run-2": {"sound_start_s": 9, "sound_end_s": 9}},
            r"sound goes from 9 s to 9\.0 s .* before sound_e",
        ),
    ],
)
def test_parts_that_cannot_be_are_refused(
    folder: Path, manifest: dict[str, Any], write: Write, parts: dict[str, Any], message: str
) -> None:
    changed = _clicking(folder, manifest, parts)
    source = ManifestSource(write(changed))
    with pytest.raises((ManifestError, TranscriptError), match=message):
        _ = [source.story(name) for name in source.story_names()]


def test_parts_have_a_place_in_the_responses_and_in_roles(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    changed = _clicking(folder, manifest, {"run-1": {}, "run-2": {"sound_start_s": RUN_2_S}})
    with pytest.raises(ManifestError, match=r"parts have no place in responses\.file .*: put in \{part\}"):
        ManifestSource(write(_changed(changed, "responses.file", "{subject}_{story}.txt"))).story_names()
    with pytest.raises(
        ManifestError, match=r"'frog\[0:9\]': 'frog' was told .* Say which: frog\.run-1\[0:9\], frog\.run-2"
    ):
        ManifestSource(write(_changed(changed, "roles.score", ["frog[0:9]"]))).story_names()
    changed["stories"]["frog.run-1"] = {}
    with pytest.raises(ManifestError, match=r"'frog\.run-1' is a story already"):
        ManifestSource(write(changed)).story_names()


def test_runs_of_fmriprep_are_parts_by_their_names(folder: Path, manifest: dict[str, Any], write: Write) -> None:
    changed = _clicking(folder, manifest, {"run-1": {}, "run-2": {"sound_start_s": RUN_2_S}})
    values = [write_fmriprep_run(folder / "fp", "sub-1", "frog", f"run-{k}", seed=k) for k in (1, 2)]
    changed["responses"] = {"fmriprep": "fp", "space": "MNI152NLin2009cAsym", "high_pass_s": None}
    changed["each_story"]["silence_after_s"] = 60
    del changed["subjects"]
    source = ManifestSource(write(changed))
    assert source.subject_names() == ["sub-1"]
    for name, expected in zip(("frog.run-1", "frog.run-2"), values, strict=True):
        responses = source.responses("sub-1", name)
        assert responses is not None
        assert np.allclose(responses.values, zscore(expected), atol=1e-3)
    write_fmriprep_run(folder / "fp", "sub-2", "frog", "run-1")
    source = ManifestSource(write(changed))
    assert source.subject_names() == ["sub-1", "sub-2"]
    assert source.responses("sub-2", "frog.run-2") is None, "who has one run heard one part"
    assert source.responses("sub-2", "frog.run-1") is not None
    changed["subjects"] = ["sub-2"]
    with pytest.raises(ManifestError, match=r"frog\.run-2: the part 'run-2' means 0 of the runs that sub-2 has: run-1"):
        ManifestSource(write(changed)).responses("sub-2", "frog.run-2")
    changed |= {"subjects": ["sub-1"]}
    del changed["stories"]["frog"]["parts"]
    with pytest.raises(ManifestError, match=r"has 2 runs of 'frog': .* say stories\.frog\.parts"):
        ManifestSource(write(changed)).story("frog")
