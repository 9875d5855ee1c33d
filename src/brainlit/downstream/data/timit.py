"""TIMIT: 630 people read ten sentences each, with phones marked by hand (LDC93S1; Garofolo et al. 1993).

Sound is NIST SPHERE or RIFF, names are in upper or lower case, and copies carry 'SA1.WAV.wav' beside 'SA1.WAV'; all
of these are read. data/downstream.md says what was verified.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from brainlit.downstream.clip import Clip
from brainlit.downstream.data import files
from brainlit.downstream.task import RecognitionTask, Task, make_recognition_task, make_task
from brainlit.hints import did_you_mean
from brainlit.stories import SourceError
from brainlit.stories.readers.tables import read_lines

WHERE = "the Linguistic Data Consortium (LDC93S1)"
_CORE = """
    mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0 mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0
    mnjm0 fdhc0 mjln0 mpam0 fmld0
"""
CORE_SPEAKERS = tuple(sorted(_CORE.split()))
"""The 24 speakers of the core test set: two men and a woman of each of eight dialect regions."""
_DEV = """
    faks0 fdac1 fjem0 mgwt0 mjar0 mmdb1 mmdm2 mpdf0 fcmh0 fkms0 mbdg0 mbwm0 mcsh0 fadg0 fdms0 fedw0 mgjf0 mglb0 mrtk0
    mtaa0 mtdt0 mthc0 mwjg0 fnmr0 frew0 fsem0 mbns0 mmjr0 mdls0 mdlf0 mdvc0 mers0 fmah0 fdrw0 mrcs0 mrjm4 fcal1 mmwh0
    fjsj0 majc0 mjsw0 mreb0 fgjd0 fjmg0 mroa0 mteb0 mjfc0 mrjr0 fmml0 mrws1
"""
DEVELOPMENT_SPEAKERS = tuple(sorted(_DEV.split()))
"""The 50 speakers of TEST, none of the core, on whom recognisers are usually developed."""

TestSet = Literal["core", "full"]
_UNPACKED = ("TIMIT", "timit", "timit/TIMIT", "timit/timit", "TIMIT/TIMIT", "data")
_SENTENCE = re.compile(r"(s[aix]\d+)\.(wav|phn|txt|wrd|wav\.wav)", re.IGNORECASE)


@dataclass(frozen=True)
class _Utterance:
    """One sentence of one speaker; `files` has the names of the speaker's folder in lower case."""

    split: str
    dialect: str
    speaker: str
    sentence: str
    folder: Path
    files: Mapping[str, Path]

    def file(self, suffix: str) -> Path:
        """Where the file of this suffix is, or would be."""
        name = f"{self.sentence}.{suffix}"
        return self.files.get(name, self.folder / name.upper())


def load_phones(folder: Path, test: TestSet = "core", with_sa: bool = False) -> Task:
    """Which of 39 classes of phones a sentence holds; several labels per clip.

    Parameters
    ----------
    folder : Path
        Holds TRAIN and TEST, itself or in 'TIMIT', 'timit/timit' or 'data'.
    test : {core, full}
        'core': the 24 core speakers, and the 50 usual development speakers of TEST choose; the other 94 are left out.
        'full': all 168 speakers of TEST, and every tenth speaker of TRAIN (by region and name) chooses.
    with_sa : bool
        Keep the two SA sentences, which everybody reads, in training and in test.

    Raises
    ------
    FileNotFoundError
        If a folder, a sound or a transcription is missing.
    SourceError
        If a line of a transcription is damaged or has an unknown symbol, or a sound is compressed.
    """
    parts, facts = _parts(folder, test, with_sa)
    examples = {part: [(clip, _phones_of(said)) for said, clip in pairs] for part, pairs in parts.items()}
    facts["labels"] = "61 symbols folded into 39 classes (Lee & Hon 1989); 'sil' is in every sentence, so its F1 is 1"
    return make_task("timit/phones", "multi", examples, facts=facts, speaker_disjoint=True, same_sound="drop")


def load_sentence_type(folder: Path, test: TestSet = "core", with_sa: bool = True) -> Task:
    """Which kind of sentence is read: SX (phonetically compact), SI (diverse) or SA (dialect).

    The SA sentences are the same two for everybody, so with them the task is in part to recognise two sentences;
    with_sa=False asks only SX or SI. Parameters and errors as in `load_phones`.
    """
    parts, facts = _parts(folder, test, with_sa)
    examples = {part: [(clip, said.sentence[:2].upper()) for said, clip in pairs] for part, pairs in parts.items()}
    name = "timit/sentence_type" if with_sa else "timit/sentence_type_without_sa"
    return make_task(name, "single", examples, facts=facts, speaker_disjoint=True, same_sound="drop")


def load_sentence_type_without_sa(folder: Path, test: TestSet = "core") -> Task:
    """Which kind of sentence is read, SX or SI: the sentences that are not the same two for everybody."""
    return load_sentence_type(folder, test, with_sa=False)


def load_recognition(folder: Path, test: TestSet = "core", with_sa: bool = False) -> RecognitionTask:
    """What is read, in letters (.TXT). Parameters and errors as in `load_phones`."""
    parts, facts = _parts(folder, test, with_sa)
    clips = {part: [clip for _, clip in pairs] for part, pairs in parts.items()}
    return make_recognition_task("timit/recognition", clips, facts)


def _parts(
    folder: Path, test: TestSet, with_sa: bool
) -> tuple[dict[str, list[tuple[_Utterance, Clip]]], dict[str, str]]:
    """Utterances with their clips by part, and the facts."""
    files.require_option("test", test, ("core", "full"))
    root = files.inside(files.need_folder(folder, "TIMIT", WHERE), "train", *_UNPACKED)
    train, held_out = _utterances(root, "train"), _utterances(root, "test")
    said, split, left_out = _core_split(root, train, held_out) if test == "core" else _full_split(train, held_out)
    n_sa = sum(one.sentence.startswith("sa") for part in said.values() for one in part)
    if not with_sa:
        said = {part: [one for one in found if not one.sentence.startswith("sa")] for part, found in said.items()}
        left_out.append(f"{n_sa} SA sentences, which are the same two in every part")
    parts = {part: [(one, _clip(one)) for one in found] for part, found in said.items()}
    texts = {part: [clip.text for _, clip in pairs] for part, pairs in parts.items()}
    facts = {**_FACTS, "split": split, "words heard in train": files.heard_before(texts)}
    return parts, {**facts, "left_out": "; ".join(left_out)} if left_out else facts


_Split = tuple[dict[str, list[_Utterance]], str, list[str]]
"""Utterances by part, how they were parted, and what was left out."""


def _core_split(root: Path, train: Sequence[_Utterance], held_out: Sequence[_Utterance]) -> _Split:
    """Train, 50 development and 24 core speakers; the other speakers of TEST are left out."""
    there = {one.speaker for one in held_out}
    missing = sorted({*CORE_SPEAKERS, *DEVELOPMENT_SPEAKERS} - there)
    if missing:
        raise FileNotFoundError(
            f"{files.any_case(root, 'test')} has no folder of the speaker {missing[0]} ({len(missing)} missing), who is"
            f" in the core test set or among the development speakers; get it from {WHERE}, or ask for test='full'."
        )
    parts = {
        "train": list(train),
        "choose": [one for one in held_out if one.speaker in DEVELOPMENT_SPEAKERS],
        "test": [one for one in held_out if one.speaker in CORE_SPEAKERS],
    }
    others = [one for one in held_out if one.speaker not in {*CORE_SPEAKERS, *DEVELOPMENT_SPEAKERS}]
    left_out = [f"{len(others)} sentences of {len({one.speaker for one in others})} other speakers of TEST"]
    return parts, "TRAIN trains, 50 development speakers of TEST choose, the 24 core speakers test", left_out


def _full_split(train: Sequence[_Utterance], held_out: Sequence[_Utterance]) -> _Split:
    """Nine of ten speakers of TRAIN train, the tenth chooses, all of TEST test."""
    speakers = list(dict.fromkeys(one.speaker for one in train))
    tenth = set(speakers[9::10])
    parts = {
        "train": [one for one in train if one.speaker not in tenth],
        "choose": [one for one in train if one.speaker in tenth],
        "test": list(held_out),
    }
    return parts, "every tenth speaker of TRAIN (by region and name) chooses, the others train, all of TEST tests", []


def _utterances(root: Path, split: str) -> list[_Utterance]:
    """All sentences of TRAIN or TEST, by region, speaker and name."""
    top = files.need_folder(files.any_case(root, split), f"the {split.upper()} speakers of TIMIT", WHERE)
    found = []
    for region in _folders(top, "dr"):
        for home in _folders(region):
            own = {path.name.lower(): path for path in home.iterdir()}
            sentences = sorted({match[1] for match in map(_SENTENCE.fullmatch, own) if match})
            place = (split, region.name.lower(), home.name.lower())
            found += [_Utterance(*place, sentence, home, own) for sentence in sentences]
    if not found:
        raise FileNotFoundError(f"{top} holds no DR*/SPEAKER/S*.WAV: the sentences of TIMIT; get it from {WHERE}.")
    return found


def _folders(folder: Path, start: str = "") -> list[Path]:
    found = [path for path in folder.iterdir() if path.is_dir() and path.name.lower().startswith(start)]
    return sorted(found, key=lambda path: path.name.lower())


def _clip(said: _Utterance) -> Clip:
    what = f"the sound of {said.sentence} by {said.speaker}"
    only_twin = f"{said.sentence}.wav" not in said.files and f"{said.sentence}.wav.wav" in said.files
    path = said.file("wav.wav" if only_twin else "wav")
    name = f"{said.split}/{said.dialect}/{said.speaker}/{said.sentence}"
    return Clip(name, files.need_sound(path, what, WHERE), speaker=said.speaker, text=_text_of(said))


def _text_of(said: _Utterance) -> str:
    """The sentence; the file holds one line, 'first_sample last_sample words'."""
    path = files.need_file(said.file("txt"), f"the words of {said.sentence} by {said.speaker}", WHERE)
    line = next(iter(read_lines(path, SourceError)), "")
    match = re.fullmatch(r"\s*\d+\s+\d+\s+(.*\S)\s*", line)
    if match is None:
        raise SourceError(f"{path}, line 1: {line!r} is not 'first_sample last_sample words'. Copy the file again.")
    return files.plain_text(match[1])


def _phones_of(said: _Utterance) -> list[str]:
    """Classes of the sentence's phones; the file holds a line 'first_sample last_sample symbol' per phone."""
    path, found = said.file("phn"), set()
    for number, line in files.numbered_lines(path, f"the phones of {said.sentence} by {said.speaker}", WHERE):
        match = re.fullmatch(r"\d+\s+\d+\s+(\S+)", line)
        if match is None:
            raise SourceError(
                f"{path}, line {number}: {line!r} is not 'first_sample last_sample symbol'. Copy the file again."
            )
        if match[1].lower() not in CLASS_OF:
            raise SourceError(
                f"{path}, line {number}: {match[1]!r} is none of TIMIT's 61 symbols. {did_you_mean(match[1], CLASS_OF)}"
            )
        found.add(CLASS_OF[match[1].lower()])
    return sorted(name for name in found if name is not None)


# --- Phones: 61 symbols of the transcription, folded into 39 classes ---

_FOLDED = {
    **{"ao": "aa", "ax": "ah", "ax-h": "ah", "axr": "er", "hv": "hh", "ix": "ih", "ux": "uw", "zh": "sh"},
    **{"el": "l", "em": "m", "en": "n", "nx": "n", "eng": "ng"},
    **dict.fromkeys(("bcl", "dcl", "gcl", "pcl", "tcl", "kcl", "epi", "pau", "h#"), "sil"),
}
_AS_THEY_ARE = """
    aa ae ah aw ay b ch d dh dx eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z
"""
_GLOTTAL_STOP = "q"  # no phoneme of English: left out, as Lee & Hon do

CLASS_OF: dict[str, str | None] = {**{name: name for name in _AS_THEY_ARE.split()}, **_FOLDED, _GLOTTAL_STOP: None}
"""Class of each of the 61 symbols, None for the glottal stop.

Lee & Hon (1989), Speaker-independent phone recognition using hidden Markov models, IEEE Transactions on Acoustics,
Speech and Signal Processing 37, 1641-1648: 61 symbols are folded into 48 for training and these into 39 for scoring.
Both steps at once here; closures, pauses and the silence around an utterance become one class, "sil".
"""

CLASSES = tuple(sorted({name for name in CLASS_OF.values() if name is not None}))
"""The 39 classes in alphabetical order."""

_FACTS = {
    "source": "TIMIT, LDC93S1: 6300 sentences of 630 speakers",
    "licence": "LDC user agreement (bought, not redistributable)",
    "citation": "Garofolo, Lamel, Fisher, Fiscus, Pallett, Dahlgren & Zue (1993), TIMIT acoustic-phonetic continuous"
    " speech corpus, Linguistic Data Consortium, doi:10.35111/17gk-bn40",
}
