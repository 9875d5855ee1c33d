"""CREMA-D: 91 actors say twelve sentences in six emotions (Cao et al. 2014)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from brainlit.downstream.clip import Clip
from brainlit.downstream.data.files import need_files, need_sound, plain_text, table_rows
from brainlit.downstream.task import Task, make_task
from brainlit.stories import SourceError

WHERE = "github.com/CheyneyComputerScience/CREMA-D (with git-lfs)"
_PEOPLE = "VideoDemographics.csv"
PARTS = {"0": "test", "5": "test", "8": "choose"}
EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
_SENTENCES = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
_DAMAGED = {
    "1064_IEO_DIS_MD": "a minute in which every emotion is played",
    "1064_TIE_SAD_XX": "cut off",
    "1076_MTI_NEU_XX": "nearly empty",
    "1076_MTI_SAD_XX": "without sound",
}
"""Recordings that the authors list as broken."""
_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_(XX?|LO|MD|HI)")


def load(folder: Path) -> Task:
    """Which emotion an actor plays; clips are whole.

    Actors whose number ends in 0 or 5 test, those whose number ends in 8 choose, the others train: 18, 9 and 64
    actors, of whom 11, 4 and 33 are men. The authors publish no split.

    Parameters
    ----------
    folder : Path
        Holds AudioWAV, and VideoDemographics.csv if reports shall say who is in which part.

    Raises
    ------
    FileNotFoundError
        If AudioWAV is missing or empty.
    SourceError
        If a name is not 'ACTOR_SENTENCE_EMOTION_LEVEL.wav', a file is a pointer of git-lfs, or the table of people
        lacks a column.
    """
    examples: dict[str, list[tuple[Clip, str]]] = {"train": [], "choose": [], "test": []}
    broken = []
    for path in need_files(folder / "AudioWAV", "*.wav", "the recordings of CREMA-D", WHERE):
        if path.stem in _DAMAGED:
            broken.append(f"{path.stem} ({_DAMAGED[path.stem]})")
            continue
        actor, sentence, emotion = _read_name(path)
        need_sound(path, "a recording", WHERE)
        clip = Clip(path.stem, path, speaker=actor, text=plain_text(_SENTENCES[sentence]))
        examples[PARTS.get(actor[-1], "train")].append((clip, EMOTIONS[emotion]))
    facts = dict(_FACTS)
    if broken:
        facts["left_out"] = f"{len(broken)} broken recordings: {', '.join(broken)}"
    if (folder / _PEOPLE).is_file():
        facts["speakers"] = _who(folder / _PEOPLE, examples)
    return make_task("crema_d/emotion", "single", examples, facts=facts, speaker_disjoint=True, same_sound="drop")


def _read_name(path: Path) -> tuple[str, str, str]:
    """Actor, sentence and emotion; one published name has the level 'X' where it should be 'XX'."""
    match = _NAME.fullmatch(path.stem)
    if match is None or match[2] not in _SENTENCES or match[3] not in EMOTIONS:
        raise SourceError(
            f"{path}: the name is not 'ACTOR_SENTENCE_EMOTION_LEVEL.wav' with a sentence of {', '.join(_SENTENCES)} and"
            f" an emotion of {', '.join(EMOTIONS)}. Take the file out of the folder."
        )
    return match[1], match[2], match[3]


def _who(path: Path, examples: Mapping[str, list[tuple[Clip, str]]]) -> str:
    """Women and men in each part."""
    rows = table_rows(path, ("ActorID", "Sex"), "who the actors are", WHERE)
    sex_of = {actor: sex.lower() for _, (actor, sex) in rows}
    parts = []
    for part, pairs in examples.items():
        actors = {clip.speaker for clip, _ in pairs}
        counts = Counter(sex_of.get(actor, "unknown") for actor in actors)
        parts.append(f"{part}: {', '.join(f'{count} {sex}' for sex, count in sorted(counts.items())) or 'nobody'}")
    return "; ".join(parts)


_FACTS = {
    "source": "CREMA-D: 7,442 recordings of 91 actors",
    "licence": "Open Database License (ODbL) 1.0, contents DbCL 1.0",
    "citation": "Cao, Cooper, Keutmann, Gur, Nenkova & Verma (2014), CREMA-D: Crowd-sourced emotional multimodal actors"
    " dataset, IEEE Transactions on Affective Computing 5, 377-390, doi:10.1109/TAFFC.2014.2336244",
    "split": "by actor, ours: numbers that end in 0 or 5 test, in 8 choose, the others train",
    "labels": "the emotion that was asked for, not what listeners heard; clips are whole",
    "transcript": "twelve sentences, each said in every emotion, so words tell next to nothing",
}
