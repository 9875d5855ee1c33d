"""Words and phones of LeBel et al. 2023: TextGrids with a word and a phone tier, in ARPAbet with stress digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brainlit.stories.base import Intervals, SourceError
from brainlit.stories.lebel2023.facts import ARPABET, NOT_WORDS
from brainlit.stories.readers.transcripts import PHONE_TIERS, WORD_TIERS, read_intervals


def read_words_and_phones(path: Path) -> tuple[Intervals, Intervals]:
    """Words and phones of a story without the marks for silence and noise; seconds of sound.

    The tiers are called word and phone, in either case. Whether they are what they are called is seen from their
    labels; they are not exchanged silently, for then something else in the file may be wrong too.

    Raises
    ------
    SourceError
        If the phone tier does not hold ARPAbet phones (the message says so if the word tier does).
    TranscriptError, TextGridError
        If a tier is missing or empty, or the file is damaged.
    """
    words = read_intervals(path, None, WORD_TIERS, NOT_WORDS)
    phones = read_intervals(path, None, PHONE_TIERS, NOT_WORDS)
    in_phones, in_words = _arpabet_share(phones.labels), _arpabet_share(words.labels)
    if in_phones < 0.5:
        swapped = in_words > 0.5
        cure = "The two tiers have each other's name: exchange the names" if swapped else "Fetch the file again"
        raise SourceError(
            f"{path}: {in_phones:.0%} of the labels of the phone tier are ARPAbet phones, of the word tier"
            f" {in_words:.0%}; the first is {phones.labels[0]!r}, in the word tier {words.labels[0]!r}. {cure}."
        )
    return words, phones


def _arpabet_share(labels: Sequence[str]) -> float:
    return sum(label.rstrip("012").upper() in ARPABET for label in labels) / len(labels)
