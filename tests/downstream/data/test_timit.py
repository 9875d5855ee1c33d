"""TIMIT: both splits keep speakers apart, phones are folded, every form of the sound is read, and losses are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from brainlit.downstream.data import timit
from brainlit.downstream.data.timit import CLASS_OF, CLASSES
from brainlit.downstream.task import Task
from brainlit.stories import SourceError
from tests.layouts.speech import samples
from tests.layouts.timit import (
    CORE,
    DEVELOPMENT,
    N_SAMPLES,
    OTHERS,
    SYMBOLS,
    TRAIN,
    sphere_header,
    write_sentence,
    write_timit,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus in capitals; not to be changed."""
    root = tmp_path_factory.mktemp("timit")
    write_timit(root)
    return root


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Ten speakers of TRAIN and two of TEST, to be damaged; only for test='full'."""
    for k, speaker in enumerate((*TRAIN[:10], *CORE[:2])):
        home = tmp_path / ("TRAIN" if k < 10 else "TEST") / "DR1" / speaker.upper()
        home.mkdir(parents=True)
        write_sentence(home, f"{'SX' if k % 2 else 'SI'}7", "Words", ["b", "ax-h"])
    return tmp_path


def _speakers(task: Task) -> dict[str, set[str]]:
    return {part: {clip.speaker for clip in clips} for part, clips in task.clips.items()}


def test_the_core_test_set_and_the_development_speakers(root: Path) -> None:
    task = timit.load_phones(root)
    assert _speakers(task) == {"train": set(TRAIN), "choose": set(DEVELOPMENT), "test": set(CORE)}
    assert len(CORE) == 24
    assert len(DEVELOPMENT) == 50
    assert task.facts["left_out"].startswith(f"4 sentences of {len(OTHERS)} other speakers of TEST; 94 SA sentences")


def test_the_full_test_set_takes_every_tenth_speaker_of_train_to_choose(root: Path) -> None:
    people = _speakers(timit.load_sentence_type(root, test="full"))
    in_order = [speaker for region in range(8) for speaker in sorted(TRAIN[region::8])]
    assert people["choose"] == {in_order[9], in_order[19]}
    assert people["train"] == set(TRAIN) - people["choose"]
    assert people["test"] == {*CORE, *DEVELOPMENT, *OTHERS}


def test_phones_of_a_sentence_are_folded_into_39_classes(root: Path) -> None:
    task = timit.load_phones(root)
    assert (task.kind, task.metric, task.labels) == ("multi", "macro_f1", CLASSES)
    number = TRAIN.index("fdaw0")
    (k,) = (k for k, clip in enumerate(task.clips["train"]) if clip.speaker == "fdaw0")
    said = {task.labels[j] for j in np.flatnonzero(task.targets["train"][k])}
    assert SYMBOLS[4 * number : 4 * number + 4] == ["t", "k", "dx", "q"]
    assert said == {"t", "k", "dx", "sil"}
    assert (task.targets["test"][:, task.labels.index("sil")] == 1).all()


def test_sentence_types_with_and_without_the_sentences_that_everybody_reads(root: Path) -> None:
    three, two = timit.load_sentence_type(root), timit.load_sentence_type(root, with_sa=False)
    assert three.labels == ("SA", "SI", "SX")
    assert two.labels == ("SI", "SX")
    assert {clip.text for clip in three.clips["test"]} > {"she had your dark suit in greasy wash water all year"}
    assert three.facts["words heard in train"] == "choose: 50 of 100, test: 24 of 48"
    assert two.facts["words heard in train"] == "choose: 0 of 50, test: 0 of 24"
    assert two.labels[two.targets["test"][0]].lower() == two.clips["test"][0].name.split("/")[-1][:2]


def test_recognition_has_the_words_in_letters(root: Path) -> None:
    task = timit.load_recognition(root)
    assert {clip.text for clip in task.clips["test"]} == {"a test one isn't it"}
    assert task.alphabet == " 'aeinorst"


def test_sphere_sound_is_read_sample_by_sample(root: Path) -> None:
    clip = timit.load_phones(root).clips["train"][0]
    assert clip.sound().tolist() == samples("/".join(clip.name.split("/")[-2:])).tolist()


@pytest.mark.parametrize(("upper", "riff_twins", "below"), [(False, False, "timit/timit"), (True, True, "data")])
def test_lower_case_and_copies_with_riff_sound(tmp_path: Path, upper: bool, riff_twins: bool, below: str) -> None:
    write_timit(tmp_path / below, upper, riff_twins)
    task = timit.load_phones(tmp_path)
    assert _speakers(task)["test"] == set(CORE)
    clip = task.clips["test"][0]
    assert clip.sound().tolist() == samples("/".join(clip.name.split("/")[-2:])).tolist()


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("TRAIN", r"is no folder: the TRAIN speakers of TIMIT; get it from the Linguistic Data Consortium"),
        ("TEST", r"is no folder: the TEST speakers of TIMIT"),
        ("TRAIN/DR1/FDAW0/SX7.WAV", r"SX7\.WAV does not exist: the sound of sx7 by fdaw0"),
        ("TRAIN/DR1/FDAW0/SX7.PHN", r"SX7\.PHN does not exist: the phones of sx7 by fdaw0"),
        ("TRAIN/DR1/FDAW0/SX7.TXT", r"SX7\.TXT does not exist: the words of sx7 by fdaw0"),
        ("TEST/DR1", r"TEST holds no DR\*/SPEAKER/S\*\.WAV"),
    ],
)
def test_what_is_missing_is_named(small: Path, lost: str, message: str) -> None:
    path = small / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        timit.load_phones(small, test="full")


def test_a_speaker_of_the_core_who_is_missing_is_named(small: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder of the speaker fadg0 \(72 missing\).*test='full'"):
        timit.load_phones(small)
    with pytest.raises(FileNotFoundError, match="nowhere is no folder: TIMIT"):
        timit.load_phones(small / "nowhere")


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        ("PHN", "0 40 h#\n40 80 axx\n", r"SX7\.PHN, line 2: 'axx' is none of TIMIT's 61 symbols\. Did you mean 'ax'"),
        ("PHN", "0 40 h#\n40 ax\n", r"SX7\.PHN, line 2: '40 ax' is not 'first_sample last_sample symbol'"),
        ("TXT", "Words without samples", r"SX7\.TXT, line 1: .* is not 'first_sample last_sample words'"),
        ("TXT", "", r"SX7\.TXT, line 1: '' is not"),
    ],
)
def test_a_damaged_transcription_is_refused_with_its_line(small: Path, suffix: str, text: str, message: str) -> None:
    (small / "TRAIN" / "DR1" / "FDAW0" / f"SX7.{suffix}").write_text(text)
    with pytest.raises(SourceError, match=message):
        timit.load_phones(small, test="full")


def test_compressed_sound_is_refused_with_what_to_do(small: Path) -> None:
    path = small / "TEST" / "DR1" / CORE[0].upper() / "SI7.WAV"
    path.write_bytes(sphere_header("pcm,embedded-shorten-v2.00") + bytes(2 * N_SAMPLES))
    with pytest.raises(SourceError, match=r"SI7\.WAV is a SPHERE file compressed by shorten.*sph2pipe"):
        timit.load_phones(small, test="full")


def test_an_unknown_test_set_is_refused(small: Path) -> None:
    with pytest.raises(ValueError, match="test is 'half'"):
        timit.load_phones(small, test="half")  # type: ignore[arg-type]


# --- The folding of TIMIT's symbols, against the table of Lee & Hon (1989) typed from its usual printing ---


MERGED = """
    aa:aa,ao  ah:ah,ax,ax-h  er:er,axr  hh:hh,hv  ih:ih,ix  l:l,el  m:m,em  n:n,en,nx  ng:ng,eng  sh:sh,zh  uw:uw,ux
    sil:pcl,tcl,kcl,bcl,dcl,gcl,h#,pau,epi
"""
"""Reduced classes as printed; every other symbol but q is a class of its own."""


def test_every_one_of_61_symbols_has_its_class() -> None:
    assert len(SYMBOLS) == len(set(SYMBOLS)) == 61
    assert set(CLASS_OF) == set(SYMBOLS)


def test_39_classes_as_printed() -> None:
    groups = {line.split(":")[0]: line.split(":")[1].split(",") for line in MERGED.split()}
    expected = {symbol: name for name, symbols in groups.items() for symbol in symbols}
    expected |= {symbol: symbol for symbol in SYMBOLS if symbol not in expected and symbol != "q"}
    assert {symbol: name for symbol, name in CLASS_OF.items() if name} == expected
    assert CLASS_OF["q"] is None
    assert len(CLASSES) == 39
    assert list(CLASSES) == sorted(set(expected.values()))
