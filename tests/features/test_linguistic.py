from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlit.features import phone_classes, phone_rate, word_length, word_rate
from brainlit.features.linguistic import (
    ARTICULATIONS,
    MIN_PAUSE_S,
    PhoneError,
    articulation,
    articulation_of,
    diphones,
    gaps,
    pauses,
    phones,
    triphones,
)
from brainlit.features.phones import ARPABET, PHONE_CLASSES, arpabet_phone, classify_phones, count_phones, ngrams
from brainlit.timebase import TimeBase
from tests.features.tone import intervals, spoken, tone_story

SAME = {("IH", "IY"), ("UH", "UW")}
PLACES, MANNERS, HEIGHTS = ARTICULATIONS[:8], ARTICULATIONS[8:14], ("low", "mid", "high")


def features_of(phone):
    return {name for name, value in zip(ARTICULATIONS, articulation_of(phone), strict=True) if value}


def test_there_are_22_features_and_each_is_used():
    assert len(set(ARTICULATIONS)) == 22
    assert set.union(*map(features_of, ARPABET)) == set(ARTICULATIONS)


def test_only_the_documented_phones_share_a_row():
    shared = {
        (one, other)
        for k, one in enumerate(ARPABET)
        for other in ARPABET[k + 1 :]
        if features_of(one) == features_of(other)
    }
    assert shared == SAME


@pytest.mark.parametrize(
    ("phone", "expected"),
    [
        ("M", {"bilabial", "nasal", "voiced"}),
        ("T", {"alveolar", "plosive", "unvoiced"}),
        ("NG", {"velar", "nasal", "voiced"}),
        ("DH", {"dental", "fricative", "voiced"}),
        ("CH", {"postalveolar", "affricate", "unvoiced"}),
        ("F", {"labiodental", "fricative", "unvoiced"}),
        ("HH", {"glottal", "fricative", "unvoiced"}),
        ("Y", {"palatal", "approximant", "voiced"}),
        ("IY1", {"high", "front", "voiced"}),
        ("AA0", {"low", "back", "voiced"}),
        ("AY2", {"low", "central", "high", "front", "voiced"}),
        ("sp", set()),
    ],
)
def test_facts_of_phonetics(phone, expected):
    assert features_of(phone) == expected


def test_every_phone_is_either_voiced_or_unvoiced_and_pairs_differ_in_nothing_else():
    assert all(len(features_of(phone) & {"voiced", "unvoiced"}) == 1 for phone in ARPABET)
    for pair in ("B P", "D T", "G K", "JH CH", "V F", "DH TH", "Z S", "ZH SH"):
        voiced, unvoiced = map(features_of, pair.split())
        assert voiced ^ unvoiced == {"voiced", "unvoiced"}, pair
        assert "voiced" in voiced, pair


def test_manner_agrees_with_the_phone_classes():
    named = {"stop": "plosive", "vowel": "high low mid"}
    for phone, row in zip(ARPABET, classify_phones(ARPABET), strict=True):
        name = PHONE_CLASSES[row.argmax()]
        assert features_of(phone) & set(named.get(name, name).split()), phone
        is_consonant = bool(features_of(phone) & set(PLACES))
        assert is_consonant == (name != "vowel"), phone
        assert is_consonant != bool(features_of(phone) & set(HEIGHTS)), phone


def test_features_are_counted_per_row():
    space = articulation(replace(tone_story(0, 1), phones=spoken("M IY sp N OW", 0.9)))
    counts = dict(zip(space.columns, space.values.T.tolist(), strict=True))
    assert counts["nasal"][:3] == [1, 1, 0]
    assert counts["voiced"][:3] == [2, 1, 1]
    assert counts["unvoiced"] == [0] * 6


def test_other_alphabets_are_refused_by_name():
    with pytest.raises(PhoneError, match=r"story 'tone'.*'@', 'D', 'aI'.*not ARPAbet"):
        articulation(replace(tone_story(0, 1), phones=spoken("D @ tS aI")))


def test_every_row_is_binary():
    table = np.stack([articulation_of(phone) for phone in ARPABET])
    assert set(np.unique(table)) == {0, 1}


def story_of(tier):
    return replace(tone_story(0, 1), phones=tier)


def inventory_of(*texts, most=100):
    return count_phones([spoken(text) for text in texts], most, most)


def test_phones_are_counted_by_their_middle_and_pauses_are_not():
    assert phone_rate(tone_story(0, 1)).values[:, 0].tolist() == [2, 0, 1, 0, 0, 0]


def test_phone_classes_count_each_class():
    values = phone_classes(tone_story(0, 1)).values
    assert PHONE_CLASSES == ("vowel", "stop", "fricative", "affricate", "nasal", "approximant")
    assert values[:3].tolist() == [[1, 1, 0, 0, 0, 0], [0] * 6, [0, 0, 0, 0, 1, 0]]
    assert not values[3:].any()


def test_an_unknown_phone_alphabet_names_the_story():
    story = replace(tone_story(0, 1), phones=intervals(["θ", "ŋ"], [0, 1]))
    with pytest.raises(PhoneError, match="story 'tone': 2 of 2 phones"):
        phone_classes(story)


@pytest.mark.parametrize("space", [phones, diphones, triphones])
def test_stories_without_phones_are_refused(space):
    with pytest.raises(PhoneError, match="'tone' has no phone times"):
        space(story_of(None), inventory_of("M AA M IY"))


def test_arpabet_has_its_39_phones_without_stress():
    space = phones(tone_story(0, 1), inventory_of("B AH0 N"))
    assert space.columns == ARPABET
    assert len(set(ARPABET)) == 39
    assert {name: count for name, count in zip(ARPABET, space.values.sum(axis=0), strict=True) if count} == {
        "AH": 1,
        "B": 1,
        "N": 1,
    }


def test_finer_symbols_are_folded():
    tier = spoken("dx axr en q hv ux ix el nx wh")
    inventory = count_phones([tier], 5, 5)
    assert inventory.arpabet
    named = [inventory.name(label) for label in tier.labels]
    assert named == ["D", "ER", "N", None, "HH", "UW", "IH", "L", "N", "W"]


def test_another_alphabet_has_the_labels_that_occur():
    inventory = inventory_of("D @ tS _: 'aI", "k @2 aI")
    assert not inventory.arpabet
    assert inventory.phones == ("@", "@2", "D", "aI", "k", "tS")
    values = phones(story_of(spoken("k 'aI _: aI", 1.0)), inventory).values
    assert values[:, 3].tolist() == [1, 1, 0, 0, 0, 0]


def test_diphones_and_triphones_never_cross_pauses_gaps_or_odd_labels():
    tier = intervals(["M", "AA1", "sp", "M", "IY0", "wat?!", "N", "OW1", "T"], [0.1 * k for k in range(9)])
    inventory = count_phones([tier, spoken("M AA M IY N OW T B IH G")], 50, 50)
    runs, middles_s = ngrams(tier, [inventory.name(label) for label in tier.labels], 2)
    assert runs == ["M-AA", "M-IY", "N-OW", "OW-T"]
    np.testing.assert_allclose(middles_s, [0.1, 0.4, 0.7, 0.8])
    assert ngrams(tier, [arpabet_phone(label) for label in tier.labels], 3)[0] == ["N-OW-T"]


def test_a_gap_in_time_is_a_pause_where_its_label_was_dropped():
    tier = intervals(["M", "AA", "M", "IY"], [0.0, 0.1, 0.35, 0.4502])
    assert ngrams(tier, list(tier.labels), 2)[0] == ["M-AA", "M-IY"]


def test_columns_are_the_most_frequent_and_the_source_says_what_they_cover():
    inventory = inventory_of("M AA M AA M IY", "sp M IY sp T UW", most=2)
    assert inventory.diphones.names == ("AA-M", "M-AA")
    assert inventory.diphones.n_kinds == 4
    assert inventory.diphones.share == pytest.approx(4 / 7)
    space = diphones(story_of(spoken("M AA M IY", 1.5)), inventory)
    assert "the 2 most frequent of 4 diphones of all stories (57.1 % of their occurrences)" in space.source
    np.testing.assert_array_equal(space.values[:3], [[0, 1], [1, 0], [0, 0]])


def test_all_columns_together_count_every_triphone():
    text = "M AA T IY sp K AE T S AH N D"
    space = triphones(story_of(spoken(text)), inventory_of(text))
    assert space.values.sum() == 2 + 5
    assert space.columns[0] == "AA-T-IY"


def test_tiers_without_durations_have_no_diphones_and_say_why():
    points = intervals(["M", "AA"], [0.0, 0.1], 0.0)
    inventory = count_phones([points], 5, 5)
    assert inventory.diphones.share == 1
    with pytest.raises(PhoneError, match=r"no story has diphones.*durations"):
        diphones(story_of(points), inventory)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["M", "AA1", "sp", "?!", "IY0"]), st.booleans()), max_size=30))
def test_runs_equal_an_explicit_search(tier_and_gaps):
    labels = [label for label, _ in tier_and_gaps]
    waits_s = [0.1 + 0.2 * gap for _, gap in tier_and_gaps]
    tier = intervals(labels, np.cumsum(waits_s))
    expected = []
    for k in range(len(labels) - 1):
        both = [arpabet_phone(label) for label in labels[k : k + 2]]
        if None not in both and not tier_and_gaps[k + 1][1]:
            expected.append("-".join(both))
    runs, middles_s = ngrams(tier, [arpabet_phone(label) for label in labels], 2)
    assert runs == expected
    assert len(middles_s) == len(runs)


def test_words_are_counted_by_their_middle():
    story = tone_story(0, 1)
    assert word_rate(story).values[:, 0].tolist() == [1, 2, 0, 0, 0, 0]
    assert word_length(story).values[:, 0].tolist() == [1, 4, 0, 0, 0, 0]
    at_edge = replace(story, words=intervals(["x", "y"], [1.9, 1.97], duration_s=0.1))
    assert word_rate(at_edge).values[:2, 0].tolist() == [1, 1]


def test_pauses_are_shared_out_between_rows_and_begin_in_one():
    words = intervals(["one", "two", "three", "four"], [0.5, 3.0, 3.6, 9.0], [0.5, 0.5, 0.4, 1.0])
    space = pauses(replace(tone_story(0, 1), words=words))
    assert space.columns == ("seconds_without_word", "pauses_begun")
    np.testing.assert_allclose(space.values[:, 0], [1.0, 1.0 + 0.1, 2.0, 2.0, 1.0, 0.0], atol=1e-6)
    assert space.values[:, 1].tolist() == [1, 0, 1, 0, 0, 0]


def test_pauses_equal_an_explicit_loop_on_an_irregular_clock():
    rng = np.random.default_rng(0)
    start_s = np.sort(rng.uniform(0, 20, 40))
    words = intervals(["w"] * 40, start_s, rng.uniform(0.1, 0.9, 40))
    clock = TimeBase(np.cumsum(rng.uniform(1.3, 1.7, 12)), 1.5)
    silent_s, begun, heard_until = np.zeros(12), np.zeros(12), words.end_s[0]
    for start, end in zip(words.start_s[1:], words.end_s[1:], strict=True):
        if start > heard_until:
            silent_s += np.maximum(np.minimum(start, clock.tr_ends_s) - np.maximum(heard_until, clock.tr_starts_s), 0)
            begun += (
                (clock.tr_starts_s <= heard_until)
                & (heard_until < clock.tr_ends_s)
                & (start - heard_until >= MIN_PAUSE_S)
            )
        heard_until = max(heard_until, end)
    space = pauses(replace(tone_story(0, 1), words=words, timebase=clock))
    assert silent_s.sum() > 1
    np.testing.assert_allclose(space.values, np.column_stack([silent_s, begun]), atol=1e-5)


@pytest.mark.parametrize("n_words", [0, 1])
def test_without_two_words_there_is_no_pause(n_words):
    story = replace(tone_story(0, 1), words=intervals(["x"] * n_words, [1.0] * n_words))
    assert not pauses(story).values.any()
    assert not pauses(story, per_tr="lanczos").values.any()


def test_overlapping_words_leave_no_gap():
    words = intervals(["long", "short", "next"], [0.0, 0.1, 1.0], [1.0, 0.2, 0.5])
    assert gaps(words)[0].tolist() == []
