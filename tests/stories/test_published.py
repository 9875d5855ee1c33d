"""What every published data set says of how its responses were filtered, before a file is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from brainlit.stories import ResponseFilter, StorySource
from brainlit.stories.alice_bids import AliceSource
from brainlit.stories.deniz2019 import DenizSource
from brainlit.stories.lebel2023 import LebelSource
from brainlit.stories.lebel2023_facts import TEST_STORY, VOLUMES, n_rows
from brainlit.stories.narratives import NarrativesSource
from brainlit.stories.petit_prince import PetitPrinceSource

CONFOUNDS: dict[str, Any] = {"confounds": "{subject}.tsv", "confound_names": ["trans_*", "cosine*"]}


@pytest.mark.parametrize(
    ("source", "polynomial", "high_pass_s"),
    [
        (AliceSource("nowhere"), 1, 128.0),
        (AliceSource("nowhere", high_pass_s=90.0), 1, 90.0),
        (PetitPrinceSource("nowhere"), 1, 128.0),
        (PetitPrinceSource("nowhere", high_pass_s=None, **CONFOUNDS), 0, 128.0),
        (PetitPrinceSource("nowhere", high_pass_s=200.0, **CONFOUNDS), 1, 128.0),
        (DenizSource("nowhere", high_pass_s=120.0), 1, 120.0),
        (NarrativesSource("nowhere"), 2, 128.0),
    ],
)
def test_trend_and_cosines_are_stated(source: StorySource, polynomial: int, high_pass_s: float) -> None:
    passed = source.response_filter()
    assert passed is not None
    assert (passed.polynomial, passed.high_pass_s, passed.savgol) == (polynomial, high_pass_s, None)
    assert passed.trimmed_trs == (0, 0)
    assert passed.standardised
    assert ResponseFilter.from_json(json.loads(json.dumps(passed.to_json()))) == passed
    assert source.slice_reference() == 0.5


@pytest.mark.parametrize(
    "source", [AliceSource("nowhere", high_pass_s=None), PetitPrinceSource("nowhere", high_pass_s=None),
               DenizSource("nowhere")]
)  # fmt: skip
def test_what_others_removed_in_an_unknown_way_is_not_known(source: StorySource) -> None:
    assert source.response_filter() is None


def test_lebel_subtract_a_smoother_from_whole_scans() -> None:
    passed = LebelSource("nowhere").response_filter()
    assert passed.savgol == (120.0, 2)
    assert passed.high_pass_s is None
    before, after = passed.trimmed_trs
    assert (before, after) == (10, 5)
    assert before + n_rows(TEST_STORY) + after == VOLUMES[TEST_STORY] - 5  # five of those counted were never acquired


def test_confounds_of_single_subjects_are_said_to_stay() -> None:
    for source in (NarrativesSource("nowhere"), AliceSource("nowhere", **CONFOUNDS)):
        passed = source.response_filter()
        assert passed is not None
        assert "each subject's own" in passed.in_words
