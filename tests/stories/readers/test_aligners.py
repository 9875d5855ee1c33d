"""JSON and subtitles of recognisers and aligners: every word with a time, and those without counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.stories.readers.transcripts import PHONE_TIERS, WORD_TIERS, TranscriptError, read_intervals

SPOKEN = [("The", 0.5, 0.7), ("frog", 0.75, 1.25), ("hops", 2.0, 2.5)]
TIMED = [{"word": word, "start": a, "end": b, "score": 0.9} for word, a, b in SPOKEN]
LOST = {"word": "2014."}
SEGMENTS = [{"start": 0.5, "end": 2.5, "text": " The frog hops", "words": TIMED}]
OFF_SCRIPT = {"case": "not-found-in-transcript", "alignedWord": "<unk>", "start": 5, "end": 6, "phones": []}
GENTLE = [
    {
        "alignedWord": word.lower(), "word": word, "case": "success", "start": a, "end": b, "startOffset": 7,
        "endOffset": 9, "phones": [{"phone": "dh_B", "duration": 0.1}, {"phone": "ah_E", "duration": 0.05}],
    }
    for word, a, b in SPOKEN
]  # fmt: skip
FORMS: dict[str, Any] = {
    "whisperx": {"segments": SEGMENTS, "word_segments": TIMED, "language": "en"},
    "whisperx, words alone": {"segments": [], "word_segments": TIMED},
    "openai-whisper": {"text": "x", "segments": [{**SEGMENTS[0], "words": [
        {"word": f" {word}", "start": a, "end": b, "probability": 1} for word, a, b in SPOKEN]}], "language": "en"},
    "the API": {"text": "x", "words": TIMED, "segments": [{"text": "The frog hops", "start": 0.5, "end": 2.5}]},
    "faster-whisper": SEGMENTS,
    "a list of words": TIMED,
    "whisper-timestamped": {"segments": [{"words": [{"text": w, "start": a, "end": b} for w, a, b in SPOKEN]}]},
    "vosk": {"result": [{"conf": 1, "word": w, "start": a, "end": b} for w, a, b in SPOKEN], "text": "the frog hops"},
    "gentle": {"transcript": "The frog hops", "words": [*GENTLE, OFF_SCRIPT]},
    "milliseconds": [{"word": w, "start_ms": 1000 * a, "end_ms": 1000 * b} for w, a, b in SPOKEN],
    "mfa": {"start": 0, "end": 3, "tiers": {
        "words": {"type": "interval", "entries": [[0, 0.5, ""], *([a, b, w] for w, a, b in SPOKEN)]},
        "phones": {"type": "interval", "entries": [[0.5, 0.6, "DH"], [0.6, 0.7, "AH0"]]}}},
}  # fmt: skip


def _write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("form", sorted(FORMS))
def test_words_are_read_from_every_form(tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    words = read_intervals(_write(tmp_path / "a.json", FORMS[form]), None, WORD_TIERS)
    assert words.labels == ("The", "frog", "hops")
    assert np.allclose(words.start_s, [0.5, 0.75, 2.0])
    assert np.allclose(words.end_s, [0.7, 1.25, 2.5])
    assert caplog.text == ""


def _with_lost(form: str) -> Any:
    """The form with a word that was not found."""
    if form == "segment":
        return [*SEGMENTS, {"start": 3, "end": 4, "text": "2014.", "words": []}]
    if form == "segments":
        return {"segments": [{"words": [*TIMED, LOST]}], "word_segments": [*TIMED, LOST]}
    null = [*TIMED, {"word": "2014.", "start": None, "end": float("nan")}]
    gentle = {"words": [*GENTLE, {"case": "not-found-in-audio", "word": "2014.", "startOffset": 1, "endOffset": 3}]}
    return {"word_segments": {"word_segments": [*TIMED, LOST]}, "null": null, "gentle": gentle}[form]


@pytest.mark.parametrize("form", ["segment", "segments", "word_segments", "null", "gentle"])
def test_words_without_times_are_dropped_and_counted(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    words = read_intervals(_write(tmp_path / "a.json", _with_lost(form)), None, WORD_TIERS)
    assert words.labels == ("The", "frog", "hops")
    assert "a.json: 1 of 4 without a time ('2014.' first); dropped" in caplog.text


def test_phones_of_gentle_follow_each_other_and_those_of_mfa_are_a_tier(tmp_path: Path) -> None:
    phones = read_intervals(_write(tmp_path / "a.json", FORMS["gentle"]), None, PHONE_TIERS)
    assert phones.labels == ("DH", "AH") * 3
    assert np.allclose(phones.start_s, [0.5, 0.6, 0.75, 0.85, 2.0, 2.1])
    assert np.allclose(phones.duration_s, [0.1, 0.05] * 3)
    assert read_intervals(_write(tmp_path / "b.json", FORMS["mfa"]), None, PHONE_TIERS).labels == ("DH", "AH0")
    two = {f"{name} - words": {"entries": [[a, b, word]]} for name, (word, a, b) in zip("xy", SPOKEN, strict=False)}
    path = _write(tmp_path / "c.json", {"tiers": two})
    assert read_intervals(path, ["y - words", "x - words"], WORD_TIERS).labels == ("The", "frog")
    with pytest.raises(TranscriptError, match="'The' has no phones"):
        read_intervals(_write(tmp_path / "d.json", FORMS["whisperx"]), None, PHONE_TIERS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"segments": [{"start": 0, "end": 2, "text": "The frog hops"}]}, "only its segments have times"),
        ([{"start": 0, "end": 2, "text": "The frog hops"}], "no list of words with times is in it .*word_timestamps"),
        ({"results": {"items": []}}, r"no list of words with times is in it \(results\)"),
        ("The frog hops", "no list of words"),
        ({"words": ["The", "frog"]}, "word 0 is The; need a record with word, start and end"),
        ({"words": [{"start": 1, "end": 2}]}, "word 0 is .*; need a record with word"),
        ({"words": [{"word": "a", "start": "soon"}]}, "word 0: start is 'soon'; need a number of seconds"),
        ({"words": [{"word": "a", "start": True, "end": 2}]}, "start is True; need a number"),
        ({"words": [{"word": "a", "start": 2, "end": 1}]}, "'a' ends at 1 s, before it starts at 2 s"),
        ({"words": [LOST]}, r"no label remains .* 1 of 1 without a time"),
        ({"tiers": {"words": {"entries": [[1, 2]]}}}, r"tier 'words' needs 'entries', each \[start, end, label\]"),
    ],
)
def test_what_has_no_words_with_times_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(TranscriptError, match=message):
        read_intervals(_write(tmp_path / "a.json", content), None, WORD_TIERS)


@pytest.mark.parametrize("text", ['{"words": [', "[" * 100_000, "", "\0"])
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(TranscriptError, match=r"a\.json is no JSON: .* Was it cut off"):
        read_intervals(tmp_path / "a.json", None, WORD_TIERS)
    with pytest.raises(TranscriptError, match="has no tiers, but tier is words"):
        read_intervals(_write(tmp_path / "b.json", FORMS["whisperx"]), "words", WORD_TIERS)


SRT = "1\n00:00:00,500 --> 00:00:00,700\n<i>The</i>\n\n2\n00:00:00,750 --> 00:00:01,250\nfrog\n\n"
VTT = "WEBVTT\n\nNOTE one word each\n\n00:00.500 --> 00:00.700 align:start\nThe\n\n00:00.750 --> 00:01.250\nfrog\n"


@pytest.mark.parametrize(("name", "text"), [("a.srt", SRT), ("a.vtt", VTT)])
def test_subtitles_of_one_word_each_are_read_and_others_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    words = read_intervals(tmp_path / name, None, WORD_TIERS)
    assert words.labels == ("The", "frog")
    assert words.start_s.tolist() == [0.5, 0.75]
    assert words.end_s.tolist() == [0.7, 1.25]
    (tmp_path / name).write_text(text.replace("frog", "frog hops"))
    with pytest.raises(TranscriptError, match=r"line \d+: the cue 'frog hops' holds 2 words\. Words need times of the"):
        read_intervals(tmp_path / name, None, WORD_TIERS)
    (tmp_path / name).write_text("WEBVTT\n")
    with pytest.raises(TranscriptError, match="holds no cue"):
        read_intervals(tmp_path / name, None, WORD_TIERS)
