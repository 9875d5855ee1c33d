"""Which phones are spoken, per TR: how many, of which class, which ones, in pairs and in threes.

A phone (a pair, a triple) belongs to the row of its middle. All spaces here need phone times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from brainlit.features.config import PerTr
from brainlit.features.inventory import Ngrams, PhoneInventory, ngrams
from brainlit.features.per_tr import in_words, to_trs
from brainlit.features.phones import PHONE_CLASSES, classify_phones, is_pause
from brainlit.stories import FeatureSpace, Intervals, Story
from brainlit.stories.base import SourceError

FloatArray = npt.NDArray[np.float64]


class PhoneError(SourceError):
    """Phones that a space needs and that are not there, or are in another alphabet."""


def phone_rate(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """Number of phones in each TR, pauses not counted.

    Raises
    ------
    PhoneError
        If the story has no phone times.
    """
    phones = phones_of(story)
    sounding_s = phones.middle_s[np.asarray([not is_pause(label) for label in phones.labels], dtype=bool)]
    values = to_trs(np.ones((len(sounding_s), 1)), sounding_s, story.timebase, "sum", per_tr)
    return FeatureSpace("phone_rate", "low_level", ("phone_rate",), f"phones, {in_words('sum', per_tr)}", values)


def phone_classes(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """Number of vowels, stops, fricatives, affricates, nasals and approximants in each TR.

    Raises
    ------
    PhoneError
        If the story has no phone times, or its phones are in no alphabet known here.
    """
    phones = phones_of(story)
    values = to_trs(phone_class_table(story), phones.middle_s, story.timebase, "sum", per_tr)
    source = f"vowels and consonants by manner, {in_words('sum', per_tr)}"
    return FeatureSpace("phone_classes", "low_level", PHONE_CLASSES, source, values)


def phones(story: Story, inventory: PhoneInventory, per_tr: PerTr = "mean") -> FeatureSpace:
    """Number of times each phone of the alphabet is spoken in each TR.

    Raises
    ------
    PhoneError
        If the story has no phone times.
    """
    spoken = phones_of(story)
    names = [inventory.name(label) or "" for label in spoken.labels]
    alphabet = "39 phones of ARPAbet without stress" if inventory.arpabet else "labels of the phone tiers"
    return FeatureSpace(
        name="phones",
        kind="low_level",
        columns=inventory.phones,
        source=f"occurrences of each of the {alphabet}, {in_words('sum', per_tr)}",
        values=to_trs(one_hot(names, inventory.phones), spoken.middle_s, story.timebase, "sum", per_tr),
    )


def diphones(story: Story, inventory: PhoneInventory, per_tr: PerTr = "mean") -> FeatureSpace:
    """Number of times each frequent pair of neighbouring phones is spoken in each TR; never across a pause.

    Raises
    ------
    PhoneError
        If the story has no phone times, or no phone of any story follows another.
    """
    return _ngram_space(story, inventory, "diphones", inventory.diphones, per_tr)


def triphones(story: Story, inventory: PhoneInventory, per_tr: PerTr = "mean") -> FeatureSpace:
    """Number of times each frequent run of three phones is spoken in each TR; never across a pause.

    Raises
    ------
    PhoneError
        If the story has no phone times, or no three phones of any story follow each other.
    """
    return _ngram_space(story, inventory, "triphones", inventory.triphones, per_tr)


def phone_class_table(story: Story) -> FloatArray:
    """One row per phone of the story, one column per class of `PHONE_CLASSES`: 1 where it belongs, 0 elsewhere."""
    try:
        return classify_phones(phones_of(story).labels)
    except ValueError as error:
        raise PhoneError(f"story {story.name!r}: {error}") from error


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


def one_hot(names: Sequence[str], columns: Sequence[str]) -> FloatArray:
    """One row per name with a 1 in its column; a row of zeros for a name without one."""
    column_of = {name: column for column, name in enumerate(columns)}
    known = [(row, column_of[name]) for row, name in enumerate(names) if name in column_of]
    table = np.zeros((len(names), len(columns)))
    for row, column in known:
        table[row, column] = 1
    return table


def _ngram_space(story: Story, inventory: PhoneInventory, name: str, vocabulary: Ngrams, per_tr: PerTr) -> FeatureSpace:
    spoken = phones_of(story)
    size = 2 if name == "diphones" else 3
    if not vocabulary.names:
        raise PhoneError(
            f"no story has {name}: no {size} phones follow each other without a gap. Check that the phone tiers hold"
            f" durations, or leave {name} out."
        )
    runs, middles_s = ngrams(spoken, [inventory.name(label) for label in spoken.labels], size)
    return FeatureSpace(
        name=name,
        kind="low_level",
        columns=vocabulary.names,
        source=f"occurrences of the {len(vocabulary.names)} most frequent of {vocabulary.n_kinds} {name} of all"
        f" stories ({100 * vocabulary.share:.1f} % of their occurrences), never across a pause,"
        f" {in_words('sum', per_tr)}",
        values=to_trs(one_hot(runs, vocabulary.names), middles_s, story.timebase, "sum", per_tr),
    )
