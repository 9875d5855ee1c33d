import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainlit.features import LOW_LEVEL, SEMANTIC, STANDARD, SUB_BANDS, low_level_spaces, sub_band_columns
from brainlit.features.phones import count_phones
from tests.features.tone import spoken, tone_story

PAGE = Path(__file__).parents[2] / "docs" / "features.md"
PHONES = spoken("M AA sp M IY T B AE K", 1.0)


def compute(name, per_tr="mean", **changes):
    story = replace(tone_story(0, 12, tr_s=1.5, n_trs=9), **{"phones": PHONES, **changes})
    return LOW_LEVEL[name].compute(story, count_phones([PHONES], 50, 50), per_tr)


@pytest.mark.parametrize("name", LOW_LEVEL)
@pytest.mark.parametrize("per_tr", ["mean", "lanczos"])
def test_every_space_has_its_name_a_row_per_volume_and_a_source(name, per_tr):
    space = compute(name, per_tr)
    assert (space.name, space.kind, space.coverage) == (name, "low_level", 1.0)
    assert space.values.shape == (9, len(space.columns))
    assert len(set(space.columns)) == len(space.columns)
    assert ("Lanczos" in space.source) == (per_tr == "lanczos")
    assert space.values.any()


@pytest.mark.parametrize("name", LOW_LEVEL)
def test_spaces_that_need_phones_say_so(name):
    if LOW_LEVEL[name].needs_phones:
        with pytest.raises(ValueError, match="'tone' has no phone times"):
            compute(name, phones=None)
    else:
        np.testing.assert_array_equal(compute(name, phones=None).values, compute(name).values)


def test_stories_without_phones_have_four_standard_spaces():
    story = replace(tone_story(0, 1), phones=None)
    names = [space.name for space in low_level_spaces(story)]
    assert names == ["log_mel", "envelope", "word_rate", "word_length"]
    assert [space.name for space in low_level_spaces(tone_story(0, 1))] == list(STANDARD)
    assert (*names, "phone_rate", "phone_classes") == STANDARD


def test_the_page_names_exactly_the_spaces_and_says_which_need_phones():
    rows = re.findall(r"^\| `(\w+)`(.*)\|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [name for name, _ in rows] == [*LOW_LEVEL, *SEMANTIC]
    for name, row in rows:
        needs_phones = name in LOW_LEVEL and LOW_LEVEL[name].needs_phones
        assert row.split("|")[-1].strip() == ("yes" if needs_phones else "no"), name
        assert ("low_level" in row) == (name in LOW_LEVEL), name
        assert ("**" in row) == (name in STANDARD), name


def test_every_space_has_a_sub_band_and_columns_are_found_by_it() -> None:
    assert {space.sub_band for space in LOW_LEVEL.values()} == set(SUB_BANDS) - {"other"}
    columns = ["envelope/envelope", "phone_rate/phone_rate", "phones/AA", "articulation/nasal", "own/x", "mfcc/mfcc_00"]
    found = sub_band_columns(columns)
    assert found == {"spectral": [0, 5], "articulatory": [3], "phonemic": [2], "rates": [1], "other": [4]}
    assert list(found) == list(SUB_BANDS)
    assert sub_band_columns([]) == {}
