"""Damaged manifests, sounds, transcripts and response files: a right answer, or one error that names the file."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainlit.stories import ManifestSource, SourceError
from brainlit.stories.base import Intervals
from brainlit.stories.readers.audio import read_sound, to_int16
from brainlit.stories.readers.tables import read_table, table_shape
from brainlit.stories.readers.textgrid import read_textgrid
from brainlit.stories.readers.transcripts import WORD_TIERS, read_intervals
from tests.stories.readers.voices import syllables

N_TRS, TR_S = 20, 2.0
fuzz = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Labels with all that can confuse a parser; a byte order mark or a lone carriage return would be no text.
LABELS = st.text(st.characters(codec="utf-8", exclude_characters="\ufeff\r"), max_size=6)
DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)
CUTS = st.one_of(st.just(1.0), st.floats(0, 1))


def _damaged(raw: bytes, damage: list[tuple[float, int]], cut: float) -> bytes:
    changed = bytearray(raw)
    for place, byte in damage:
        changed[int(place * len(changed))] = byte
    return bytes(changed[: round(cut * len(changed))])


def _answer_or_refusal(path: Path, ask: Callable[[], Any]) -> Any:
    """The answer; None if it was refused with an error that names the file."""
    try:
        return ask()
    except (SourceError, FileNotFoundError) as error:
        if str(path) not in str(error):
            raise AssertionError(f"{error} does not name {path}") from error
        return None


# TextGrids


@st.composite
def grids(draw: st.DrawFn) -> list[tuple[str, list[tuple[float, float, str]]]]:
    """Tiers with a name and intervals: some empty, some overlapping."""
    tiers = []
    for name in draw(st.lists(st.sampled_from(["word", "phone", "Words", 'the "x"', "größe"]), min_size=1, max_size=3)):
        starts = sorted(draw(st.lists(st.integers(0, 50), max_size=4)))
        tiers.append((name, [(start / 8, (start + draw(st.integers(0, 20))) / 8, draw(LABELS)) for start in starts]))
    return tiers


def _as_text(tiers: list[tuple[str, list[tuple[float, float, str]]]], short: bool) -> str:
    """As Praat writes them; the short form drops what names the values."""

    def line(key: str, value: Any, indent: int = 0) -> str:
        said = '"' + value.replace('"', '""') + '"' if isinstance(value, str) else repr(value)
        return f"{said}\n" if short else f"{' ' * indent}{key} = {said} \n"

    text = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n' + line("xmin", 0) + line("xmax", 99)
    text += "<exists>\n" if short else "tiers? <exists> \n"
    text += line("size", len(tiers)) + ("" if short else "item []: \n")
    for k, (name, intervals) in enumerate(tiers, 1):
        text += "" if short else f"    item [{k}]:\n"
        text += line("class", "IntervalTier", 8) + line("name", name, 8) + line("xmin", 0, 8) + line("xmax", 99, 8)
        text += line("intervals: size", len(intervals), 8)
        for n, (start, end, label) in enumerate(intervals, 1):
            text += "" if short else f"        intervals [{n}]:\n"
            text += line("xmin", start, 12) + line("xmax", end, 12) + line("text", label, 12)
    return text


ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@settings(fuzz, max_examples=120)
@given(tiers=grids(), short=st.booleans(), encoding=ENCODINGS, line_end=LINE_ENDS)
def test_every_textgrid_that_praat_could_write_is_read(
    tmp_path: Path, tiers: Any, short: bool, encoding: str, line_end: str
) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_bytes(_as_text(tiers, short).replace("\n", line_end).encode(encoding))
    read = read_textgrid(path)
    assert [tier.name for tier in read] == [name for name, _ in tiers]
    for tier, (_, intervals) in zip(read, tiers, strict=True):
        assert tier.intervals.start_s.tolist() == [start for start, _, _ in intervals]
        assert np.allclose(tier.intervals.end_s, [end for _, end, _ in intervals])
        assert list(tier.intervals.labels) == [label for _, _, label in intervals]


@settings(fuzz, max_examples=150)
@given(tiers=grids(), short=st.booleans(), encoding=ENCODINGS, damage=DAMAGE, cut=CUTS)
def test_a_damaged_textgrid_is_read_or_refused(
    tmp_path: Path, tiers: Any, short: bool, encoding: str, damage: Any, cut: float
) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_bytes(_damaged(_as_text(tiers, short).encode(encoding), damage, cut))
    words = _answer_or_refusal(path, lambda: read_intervals(path, None, WORD_TIERS))
    assert words is None or (isinstance(words, Intervals) and len(words) > 0)


# Other transcripts and tables of numbers

TRANSCRIPTS = {
    "a.csv": 'onset,duration,word\n0.5,0.2,the\n0.75,0.25,"big, ""green"""\n1,0.5,frog\n',
    "a.tsv": "onset\tduration\ttrial_type\n0.5\tn/a\tthe\n1\t0.5\tfrog\n",
    "b.csv": "Begin;End;Label;Type\n0.5;0.7;the;words\n0.5;0.6;DH;phones\n1;n/a;frog;words\n",
    "a.json": '{"word_segments": [{"word": "the", "start": 0.5, "end": 0.75}, {"word": "frog"}]}',
    "a.srt": "1\n00:00:00,500 --> 00:00:00,700\nthe\n\n2\n00:00:01,000 --> 00:00:01,200\nfrog\n",
    "a.ctm": ";; x\nfrog 1 0.5 0.2 the 0.9\nfrog 1 1.0 0.5 frog 0.8\n",
}


@settings(fuzz, max_examples=120)
@given(name=st.sampled_from(sorted(TRANSCRIPTS)), encoding=ENCODINGS, damage=DAMAGE, cut=CUTS)
def test_a_damaged_transcript_is_read_or_refused(
    tmp_path: Path, name: str, encoding: str, damage: Any, cut: float
) -> None:
    path = tmp_path / name
    path.write_bytes(_damaged(TRANSCRIPTS[name].encode(encoding), damage, cut))
    words = _answer_or_refusal(path, lambda: read_intervals(path, None, WORD_TIERS))
    assert words is None or len(words) > 0


TABLES = ["a.npy", "a.npz", "a.h5", "a.hf5", "a.csv", "a.tsv", "a.txt"]


def _write_table(path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(6, 3))
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, values)
    elif path.suffix in (".h5", ".hf5"):
        with h5py.File(path, "w") as file:
            file.create_dataset("run/data", data=values, compression="gzip" if path.suffix == ".hf5" else None)
    else:
        separator = {".csv": ",", ".tsv": "\t", ".txt": "  "}[path.suffix]
        path.write_text("\n".join(separator.join(f"{cell:.4f}" for cell in row) for row in values))


@settings(fuzz, max_examples=200)
@given(name=st.sampled_from(TABLES), damage=DAMAGE, cut=CUTS)
def test_a_damaged_table_is_read_or_refused(tmp_path: Path, name: str, damage: Any, cut: float) -> None:
    path = tmp_path / name
    _write_table(path)
    raw = path.read_bytes()
    front = [(place * min(1, 160 / len(raw)), byte) if byte % 2 else (place, byte) for place, byte in damage]
    path.write_bytes(_damaged(raw, front, cut))
    table = _answer_or_refusal(path, lambda: read_table(path))
    assert table is None or (table.values.ndim == 2 and table.values.dtype == np.float64)
    if table is not None:
        assert table_shape(path)[0] == len(table.values)
    else:
        _answer_or_refusal(path, lambda: table_shape(path)[0])


# Sounds

SOUND = np.rint(syllables(1, 0.6) * 32767) / 32768
SOUNDS: dict[str, dict[str, Any]] = {
    "a.wav": {"format": "WAV"},
    "a.float.wav": {"format": "WAV", "subtype": "FLOAT"},
    "a.rf64.wav": {"format": "RF64"},
    "a.aiff": {"format": "AIFF"},
    "a.au": {"format": "AU"},
    "a.flac": {"format": "FLAC"},
    "a.ogg": {"format": "OGG"},
    "a.mp3": {"format": "MP3"},
}
CHECKED = ("a.flac", "a.ogg")
"""Their samples have checksums."""
SAID_TWICE = ("a.wav", "a.float.wav", "a.rf64.wav")
"""Their headers say length and rate twice. Other headers do not, so that other bytes there can be another sound."""


@cache
def _sound_file(name: str) -> tuple[bytes, npt.NDArray[np.int16]]:
    """A sound file, and the samples that are read of it."""
    with tempfile.TemporaryDirectory() as folder:  # libsndfile does not always read MP3 from memory
        path = Path(folder) / name
        soundfile.write(path, SOUND, 16_000, **SOUNDS[name])
        decoded = soundfile.read(path)[0]
        assert len(decoded) == len(SOUND)
        return path.read_bytes(), to_int16(decoded.astype(np.float32))


@settings(fuzz, max_examples=250)
@given(name=st.sampled_from(sorted(SOUNDS)), damage=DAMAGE, at_the_front=st.booleans(), cut=CUTS)
def test_a_damaged_sound_is_read_whole_or_refused(
    tmp_path: Path, name: str, damage: Any, at_the_front: bool, cut: float
) -> None:
    raw, samples = _sound_file(name)
    path = tmp_path / name
    front = [(place * 120 / len(raw), byte) for place, byte in damage] if at_the_front else damage
    path.write_bytes(_damaged(raw, front, cut))
    sound = _answer_or_refusal(path, lambda: read_sound(path))
    if sound is not None and cut < 1:
        assert raw[len(path.read_bytes()) :].strip(b"\0") == b"" or len(sound.samples) >= len(samples)
    if sound is not None and "open_length" not in {note.kind for note in sound.notes}:
        if name in CHECKED:
            assert np.array_equal(sound.samples, samples)
        elif name in SAID_TWICE:
            assert len(sound.samples) == len(samples), "nothing is missing, and the rate is as it was"


# Manifests


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set: one story, and one in two parts."""
    folder = tmp_path_factory.mktemp("fuzz")
    for story in ("frog", "bear"):
        soundfile.write(folder / f"{story}.wav", np.zeros(round(1000 * N_TRS * TR_S)), 1000)
        (folder / f"{story}.csv").write_text(TRANSCRIPTS["a.csv"])
    for name in ("anna_frog_1", "anna_bear_1", "anna_bear_2"):
        np.savetxt(folder / f"{name}.txt", np.random.default_rng(0).normal(size=(N_TRS, 2)))
    np.savetxt(folder / "clock.txt", np.arange(N_TRS) * TR_S)
    lines = ["csf", *("0.5" if k % 2 else "1" for k in range(N_TRS))]
    (folder / "confounds.tsv").write_text("\n".join(lines))
    return folder


MANIFEST: dict[str, Any] = {
    "name": "fuzz",
    "root": ".",
    "licence": "CC0",
    "each_story": {"audio": "{story}.wav", "words": {"file": "{story}.csv"}, "tr_s": TR_S, "onset_s": 0},
    "stories": {
        "frog": {"repeats": ["1"], "n_trs": 15, "volumes_discarded": 2, "silence_after_s": 1, "sound_end_s": 39.5},
        "bear": {"parts": {"1": {}, "2": {"sound_start_s": 0.6}}, "silence_after_s": 40},
    },
    "subjects": {"anna": ["frog", "bear"]},
    "responses": {
        "file": "{subject}_{story}_{repeat}{part}.txt",
        "columns": ["A1", "IFG"],
        "regions": {"all": ["A1", "IFG"]},
        "high_pass_s": 30,
        "low_pass_s": 3,
        "confounds": {"file": "confounds.tsv", "columns": ["c*"]},
    },
    "roles": {"score": ["frog[0:10]"]},
    "not_words": ["um"],
}


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [place for key in keys for place in [(*path, key), *_places(value[key], (*path, key))]]


ODD_TEXT = st.sampled_from(
    ["", "\0", "x" * 300, "~", "~no-one/x", "a/../..", "{", "{story", "{subject}", "{0}", "{story.x}", "${", "1_0"]
) | st.sampled_from(["all", "${oc.env:NOTHING}", "frog[5:2]", "2020-13-45", "clock.txt"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ODD_TEXT | st.sampled_from([10**400, -1, 0, 1e-300]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(ODD_TEXT, inner, max_size=2),
    max_leaves=3,
)


@settings(fuzz, max_examples=300)
@given(draws=st.data(), n=st.integers(1, 2))
def test_a_damaged_manifest_is_used_or_refused(data_folder: Path, draws: st.DataObject, n: int) -> None:
    said = copy.deepcopy(MANIFEST)
    for _ in range(n):
        *parents, key = draws.draw(st.sampled_from(_places(said)))
        target: Any = said
        for parent in parents:
            target = target[parent]
        target[key] = draws.draw(VALUES)
    path = data_folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(said))
    _answer_or_refusal_of_a_source(path)


@settings(fuzz, max_examples=150)
@given(damage=DAMAGE, cut=CUTS)
def test_a_manifest_with_damaged_bytes_is_used_or_refused(data_folder: Path, damage: Any, cut: float) -> None:
    path = data_folder / "manifest.yaml"
    path.write_bytes(_damaged(yaml.safe_dump(MANIFEST).encode(), damage, cut))
    _answer_or_refusal_of_a_source(path)


def test_the_manifest_without_damage_is_used(data_folder: Path) -> None:
    path = data_folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(MANIFEST))
    assert _everything(ManifestSource(str(path))) == 3


def _answer_or_refusal_of_a_source(path: Path) -> None:
    """Errors name a file of the data set: the manifest, or what it points to."""
    try:
        _everything(ManifestSource(str(path)))
    except (SourceError, FileNotFoundError) as error:
        if not any(part in str(error) for part in (str(path.parent), "every column is constant")):
            raise AssertionError(f"{error} names no file") from error


def _everything(source: ManifestSource) -> int:
    """Ask a source for all it has; returns how many responses there were."""
    source.settings(), source.facts(), source.default_roles()
    n_responses = 0
    for story in source.story_names():
        source.story_files(story)
        source.story(story)
    for subject in source.subject_names():
        source.subject_files(subject)
        source.subject(subject)
        n_responses += sum(source.responses(subject, story) is not None for story in source.story_names())
    return n_responses
