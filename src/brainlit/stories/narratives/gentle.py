"""Words and phones of a sound, as gentle aligned them (https://github.com/strob/gentle)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.stories.base import Intervals, SourceError


def read_gentle(path: Path) -> tuple[Intervals, Intervals]:
    """Words and phones of an `align.json`; times in seconds of the sound.

    Words that were not found in the sound have no times and are dropped. Phones come as ARPAbet without stress
    ('ah_I' is 'AH'); a word that is not in gentle's dictionary has the phone 'oov', which is dropped.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    SourceError
        If it is no alignment, or no word was found.
    """
    said = read_json(path)
    try:
        found = sorted((one for one in said["words"] if one["case"] == "success"), key=lambda one: float(one["start"]))
        words = _intervals([(str(one["word"]), float(one["start"]), float(one["end"])) for one in found])
        phones = _intervals(sorted((phone for one in found for phone in _phones(one)), key=lambda phone: phone[1]))
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{path} is no alignment by gentle: {type(error).__name__}: {error}. Each of 'words' needs a 'case', and"
            " if that is 'success', word, start, end and phones."
        ) from error
    if not len(words):
        raise SourceError(f"{path}: no word has a time. Fetch it again.")
    return words, phones


def _phones(word: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Label, start and end of each phone: they follow each other from the start of the word."""
    ends_s = float(word["start"]) + np.cumsum([0.0, *(float(one["duration"]) for one in word["phones"])])
    labels = [str(one["phone"]).split("_")[0].upper() for one in word["phones"]]
    spans = zip(labels, ends_s[:-1].tolist(), ends_s[1:].tolist(), strict=True)
    return [span for span in spans if span[0] not in ("OOV", "SIL")]


def _intervals(spans: Sequence[tuple[str, float, float]]) -> Intervals:
    start_s, end_s = (np.array([span[k] for span in spans], dtype=np.float64) for k in (1, 2))
    if not (np.isfinite(start_s).all() and np.isfinite(end_s).all()):
        raise ValueError("a time is not finite")
    return Intervals(tuple(span[0] for span in spans), start_s, end_s - start_s)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; a missing or damaged file is an error that names it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Check root, and that the story was downloaded.")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SourceError(f"{path} is no JSON: {error}. Was it cut off while copying? Fetch it again.") from error
    if not isinstance(said, dict):
        raise SourceError(f"{path} holds a {type(said).__name__}; need an object. Fetch it again.")
    return said
