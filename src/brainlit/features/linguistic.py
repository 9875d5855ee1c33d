"""What is said, per TR: how fast, which phones alone, in pairs and in threes, and how they are made.

A word, a phone, a pair or a triple belongs to the row of its middle.

The 22 articulatory features are those of de Heer et al. (2017), J Neurosci 37:6539, in the order in which that
laboratory's code lists them: eight places, six manners, voicing, and height and backness of vowels. The table was
written anew from the IPA chart and Ladefoged & Johnson, A Course in Phonetics. Where English leaves a choice:

- vowels are voiced; a diphthong has the features of both its ends;
- R is postalveolar, W both bilabial and velar, L an approximant as well as a lateral;
- ER is a mid central vowel with the constriction of an approximant;
- neither tenseness nor rounding is among the 22, so IH equals IY and UH equals UW.
"""

from __future__ import annotations

import numpy as np

from brainlit.features.per_tr import BIN_S, PerTr, events, in_words, space_per_tr, to_trs
from brainlit.features.phones import (
    PHONE_CLASSES,
    Ngrams,
    PhoneInventory,
    arpabet_phone,
    classify_phones,
    is_arpabet,
    is_pause,
    ngrams,
    one_hot,
)
from brainlit.stories import FeatureSpace, Intervals, Story
from brainlit.stories.base import FloatArray, SourceError
from brainlit.timebase import TimeBase

MIN_PAUSE_S = 0.25
"""Shorter gaps belong to articulation (Goldman-Eisler 1968) and are not counted as pauses."""

_PIECE_S = 0.010


# --- How fast ---


def word_rate(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """Number of words in each TR."""
    ones = np.ones((len(story.words), 1))
    return space_per_tr(story, "word_rate", ["word_rate"], "words", ones, story.words.middle_s, "sum", per_tr)


def word_length(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """Mean number of letters of the words of each TR; 0 where there are none."""
    words, name = story.words, "word_length"
    letters = np.asarray([sum(character.isalpha() for character in word) for word in words.labels]).reshape(-1, 1)
    source = "letters of each word"
    return space_per_tr(story, name, [name], source, letters, words.middle_s, "mean", per_tr, rate="events")


def pauses(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """Seconds without a word, and number of pauses (a quarter of a second or longer) that begin.

    The time before the first and after the last word is no pause, so rows outside the story are 0.
    """
    starts_s, ends_s = gaps(story.words)
    pieces_s, middles_s = _pieces(starts_s, ends_s, story.timebase)
    begun_s = starts_s[ends_s - starts_s >= MIN_PAUSE_S]
    seconds = to_trs(pieces_s[:, None], middles_s, story.timebase, "sum", per_tr)
    begun = to_trs(np.ones((len(begun_s), 1)), begun_s, story.timebase, "sum", per_tr)
    coarse_s, coarse_middles_s = _pieces(starts_s, ends_s, story.timebase, BIN_S)
    own_rate = np.zeros((len(coarse_s) + len(begun_s), 2))  # seconds that pass and pauses that begin: both add up
    own_rate[: len(coarse_s), 0], own_rate[len(coarse_s) :, 1] = coarse_s, 1
    return FeatureSpace(
        name="pauses",
        kind="low_level",
        columns=("seconds_without_word", "pauses_begun"),
        source=f"seconds between words, and pauses of at least {MIN_PAUSE_S} s begun, {in_words('sum', per_tr)}",
        values=np.concatenate([seconds, begun], axis=1),
        timed=events(own_rate, np.concatenate([coarse_middles_s, begun_s])),
    )


def gaps(words: Intervals) -> tuple[FloatArray, FloatArray]:
    """Start and end of every stretch without a word between the first and the last word, shapes (n_gaps,)."""
    covered_s = np.maximum.accumulate(words.end_s)[:-1]  # words may overlap: the latest end so far counts
    empty = words.start_s[1:] > covered_s
    return covered_s[empty], words.start_s[1:][empty]


def _pieces(
    starts_s: FloatArray, ends_s: FloatArray, timebase: TimeBase, piece_s: float = _PIECE_S
) -> tuple[FloatArray, FloatArray]:
    """The gaps in pieces of at most piece_s, none across the edge of a row: duration and middle, shapes (n_pieces,)."""
    if not len(starts_s):
        return np.zeros(0), np.zeros(0)
    grid_s = np.arange(starts_s[0], ends_s[-1], piece_s)
    edges_s = np.unique(np.concatenate([starts_s, ends_s, timebase.tr_edges_s(0, timebase.n_trs), grid_s]))
    middles_s = (edges_s[1:] + edges_s[:-1]) / 2
    # More gaps have begun than ended: the piece lies in one.
    inside = np.searchsorted(starts_s, middles_s) > np.searchsorted(ends_s, middles_s)
    return np.diff(edges_s)[inside], middles_s[inside]


def phone_rate(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """Number of phones in each TR, pauses not counted. Raises as `phones_of`."""
    phones = phones_of(story)
    sounding_s = phones.middle_s[np.asarray([not is_pause(label) for label in phones.labels], dtype=bool)]
    ones = np.ones((len(sounding_s), 1))
    return space_per_tr(story, "phone_rate", ["phone_rate"], "phones", ones, sounding_s, "sum", per_tr)


# --- Which phones ---


class PhoneError(SourceError):
    """Phones that a space needs and that are not there, or are in another alphabet."""


def phones(story: Story, inventory: PhoneInventory, per_tr: PerTr = "mean") -> FeatureSpace:
    """Number of times each phone of the alphabet is spoken in each TR. Raises as `phones_of`."""
    spoken = phones_of(story)
    names = [inventory.name(label) or "" for label in spoken.labels]
    alphabet = "39 phones of ARPAbet without stress" if inventory.arpabet else "labels of the phone tiers"
    source, table = f"occurrences of each of the {alphabet}", one_hot(names, inventory.phones)
    return space_per_tr(story, "phones", inventory.phones, source, table, spoken.middle_s, "sum", per_tr)


def diphones(story: Story, inventory: PhoneInventory, per_tr: PerTr = "mean") -> FeatureSpace:
    """Number of times each frequent pair of neighbouring phones is spoken in each TR; never across a pause.

    Raises
    ------
    PhoneError
        If the story has no phone times, or no phone of any story follows another.
    """
    return _ngram_space(story, inventory, "diphones", inventory.diphones, per_tr)


def triphones(story: Story, inventory: PhoneInventory, per_tr: PerTr = "mean") -> FeatureSpace:
    """Number of times each frequent run of three phones is spoken in each TR; rules and errors as in `diphones`."""
    return _ngram_space(story, inventory, "triphones", inventory.triphones, per_tr)


def phones_of(story: Story) -> Intervals:
    """The phones of a story.

    Raises
    ------
    PhoneError
        If it has none.
    """
    if story.phones is None:
        raise PhoneError(
            f"story {story.name!r} has no phone times; give its source a phone tier or leave this space out."
        )
    return story.phones


def _ngram_space(story: Story, inventory: PhoneInventory, name: str, vocabulary: Ngrams, per_tr: PerTr) -> FeatureSpace:
    spoken = phones_of(story)
    size = 2 if name == "diphones" else 3
    if not vocabulary.names:
        raise PhoneError(
            f"no story has {name}: no {size} phones follow each other without a gap. Check that the phone tiers hold"
            f" durations, or leave {name} out."
        )
    runs, middles_s = ngrams(spoken, [inventory.name(label) for label in spoken.labels], size)
    source = (
        f"occurrences of the {len(vocabulary.names)} most frequent of {vocabulary.n_kinds} {name} of all"
        f" stories ({100 * vocabulary.share:.1f} % of their occurrences), never across a pause"
    )
    table = one_hot(runs, vocabulary.names)
    return space_per_tr(story, name, vocabulary.names, source, table, middles_s, "sum", per_tr)


# --- How phones are made ---


def phone_classes(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """Number of vowels, stops, fricatives, affricates, nasals and approximants in each TR.

    Raises as `phones_of`, and a PhoneError where the phones are in no alphabet known here.
    """
    source, table, times_s = "vowels and consonants by manner", phone_class_table(story), phones_of(story).middle_s
    return space_per_tr(story, "phone_classes", PHONE_CLASSES, source, table, times_s, "sum", per_tr)


def phone_class_table(story: Story) -> FloatArray:
    """One row per phone of the story, one column per class of `PHONE_CLASSES`: 1 where it belongs, 0 elsewhere."""
    try:
        return classify_phones(phones_of(story).labels)
    except ValueError as error:
        raise PhoneError(f"story {story.name!r}: {error}") from error


def articulation(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """Number of phones in each TR that are bilabial, nasal, voiced, ...: 22 columns.

    Raises as `phones_of`, and a PhoneError where the phones are not ARPAbet.
    """
    phones = phones_of(story)
    if not is_arpabet(phones.labels):
        raise PhoneError(
            f"story {story.name!r}: its phones ({', '.join(map(repr, sorted(set(phones.labels))[:5]))}, ...) are not"
            " ARPAbet, for which articulation is defined. Convert the phone tiers, or choose phone_classes or phones."
        )
    table = np.stack([articulation_of(label) for label in phones.labels])
    source = "22 articulatory features of each phone (de Heer et al. 2017)"
    return space_per_tr(story, "articulation", ARTICULATIONS, source, table, phones.middle_s, "sum", per_tr)


def articulation_of(label: str) -> FloatArray:
    """The features of one ARPAbet label, shape (22,): 1 where it has one; all 0 for pauses and unknown labels."""
    made_by = _MADE_BY.get(arpabet_phone(label) or "", "").split()
    return np.asarray([feature in made_by for feature in ARTICULATIONS], dtype=np.float64)


ARTICULATIONS = (
    *("bilabial", "postalveolar", "alveolar", "dental", "labiodental", "velar", "glottal", "palatal"),
    *("plosive", "affricate", "fricative", "nasal", "lateral", "approximant"),
    *("voiced", "unvoiced", "low", "mid", "high", "front", "central", "back"),
)

_MADE_BY = {
    "P": "bilabial plosive unvoiced",
    "B": "bilabial plosive voiced",
    "T": "alveolar plosive unvoiced",
    "D": "alveolar plosive voiced",
    "K": "velar plosive unvoiced",
    "G": "velar plosive voiced",
    "CH": "postalveolar affricate unvoiced",
    "JH": "postalveolar affricate voiced",
    "F": "labiodental fricative unvoiced",
    "V": "labiodental fricative voiced",
    "TH": "dental fricative unvoiced",
    "DH": "dental fricative voiced",
    "S": "alveolar fricative unvoiced",
    "Z": "alveolar fricative voiced",
    "SH": "postalveolar fricative unvoiced",
    "ZH": "postalveolar fricative voiced",
    "HH": "glottal fricative unvoiced",
    "M": "bilabial nasal voiced",
    "N": "alveolar nasal voiced",
    "NG": "velar nasal voiced",
    "L": "alveolar lateral approximant voiced",
    "R": "postalveolar approximant voiced",
    "W": "bilabial velar approximant voiced",
    "Y": "palatal approximant voiced",
    "IY": "high front voiced",
    "IH": "high front voiced",
    "EH": "mid front voiced",
    "AE": "low front voiced",
    "AH": "mid central voiced",
    "ER": "mid central approximant voiced",
    "AA": "low back voiced",
    "AO": "mid back voiced",
    "UH": "high back voiced",
    "UW": "high back voiced",
    "EY": "mid high front voiced",
    "AY": "low central high front voiced",
    "AW": "low central high back voiced",
    "OY": "mid back high front voiced",
    "OW": "mid high back voiced",
}
