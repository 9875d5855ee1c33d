"""A group says how many people it is, on the page and on the screen."""

from __future__ import annotations

from brainlit.results.members import agreement_said
from brainlit.results.probe_words import voxels_said
from brainlit.results.region_table import region_table
from brainlit.results.report import _subject_words

FOUND = {"n_members": 3, "mean_r": 0.2, "least_r": 0.1, "most_r": 0.3}
GROUP = {"members": {"one": ["a", "b", "c"]}, "between_members": {"all voxels": FOUND}, "n_repeats": 3}
SAID = "group: r of each with the mean of the others 0.200 (0.100 to 0.300 over 3 people), mean over all voxels"


def test_agreement_is_said_of_groups_alone() -> None:
    assert agreement_said({"group": GROUP, "p1": {}}, "all voxels") == SAID
    of_region = {**GROUP, "between_members": {"semantic": FOUND}}
    assert agreement_said({"group": of_region}, "semantic") == SAID.replace("all voxels", "the voxels of semantic")
    assert agreement_said({"group": GROUP}, "nowhere") is None
    assert agreement_said({"p1": {"n_repeats": 5}}, "all voxels") is None


def test_people_stand_where_repeats_would() -> None:
    facts = {"n_used": 6, "n_voxels": 8}
    assert (
        voxels_said("group", {**GROUP, **facts}) == "group: 6 of 8 (0 dropped as constant or missing), mean of 3 people"
    )
    assert voxels_said("p1", {"n_repeats": 3, **facts}).endswith(", 3 repeats")
    held_out = {"probe": {"subjects": {"group": {**GROUP, "tuned_on": False}, "p1": {}}}}
    assert _subject_words(held_out, "group") == "group (mean of 3 people, not tuned on)"
    assert _subject_words(held_out, "p1") == "p1"


def test_the_screen_names_them_too() -> None:
    probe = {"subjects": {"group": GROUP, "p1": {}}, "layer": 2, "score_spans": ["one"], "fit_spans": ["two"]}
    text = region_table({"probe": probe, "scores": [], "formulas": {}, "headline_region": "all voxels"})
    assert "mean over the subjects counted above, of group (mean of 3 people), p1; layer 2" in text
    assert SAID in text
