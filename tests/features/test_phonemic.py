from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlit.features import phone_classes, phone_rate
from brainlit.features.inventory import count_phones, ngrams
from brainlit.features.phonemic import PhoneError, diphones, phones, triphones
from brainlit.features.phones import ARPABET, PHONE_CLASSES, arpabet_phone
from tests.features.tone import intervals, spoken, tone_story


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
