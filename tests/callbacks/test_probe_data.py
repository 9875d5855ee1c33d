from __future__ import annotations

import numpy as np
import pytest

from brainlit.callbacks.probe_data import fingerprint, probe_data, score_ceiling
from brainlit.encoding.ceiling import noise_ceiling
from brainlit.encoding.roles import Span
from brainlit.store import StoryStore

FIT = (Span("toy1", 0, 40), Span("toy2", 0, 40))
SCORE = (Span("toy5", 0, 40),)


def test_rows_roles_and_bands_fit_together(toy_store: StoryStore) -> None:
    data = probe_data(toy_store, "sub-A", FIT, SCORE, skip_trs=5)
    assert data.rows.all()
    assert data.groups.tolist() == [0] * 40 + [1] * 40 + [2] * 40
    assert np.array_equal(data.fit, ~data.score)
    assert np.array_equal(data.responses[80:], toy_store.responses("sub-A", "toy5"))
    assert np.array_equal(data.stimulus["low_level"][40:80], toy_store.band("toy2", "low_level"))
    assert list(data.stimulus) == ["low_level", "semantic"]
    assert data.facts["score_stories"] == ["toy5"]


def test_the_low_level_band_comes_in_parts_where_asked(toy_store: StoryStore) -> None:
    whole = probe_data(toy_store, "sub-A", FIT, SCORE, skip_trs=5).stimulus
    parts = probe_data(toy_store, "sub-A", FIT, SCORE, skip_trs=5, sub_bands=True).stimulus
    assert list(parts) == ["low_level/spectral", "semantic"]
    assert np.array_equal(parts["low_level/spectral"], whole["low_level"])


def test_stories_that_a_subject_did_not_hear_are_left_out(toy_store: StoryStore) -> None:
    data = probe_data(toy_store, "sub-B", FIT, SCORE, skip_trs=5)
    assert data.rows.tolist() == [False] * 40 + [True] * 80
    assert data.groups.tolist() == [1] * 40 + [2] * 40
    assert len(data.responses) == len(data.stimulus["semantic"]) == 80
    assert data.facts["fit_spans"] == ["toy2[0:40]"]


@pytest.mark.parametrize(("fit", "score", "role"), [((FIT[0],), SCORE, "fit"), (FIT, (FIT[0],), "score")])
def test_a_subject_without_stories_for_a_role_is_refused(
    fit: tuple[Span, ...], score: tuple[Span, ...], role: str, toy_store: StoryStore
) -> None:
    with pytest.raises(ValueError, match=f"none of the stories to {role}"):
        probe_data(toy_store, "sub-B", fit, score, skip_trs=5)


def test_the_ceiling_comes_from_the_scored_rows_only(toy_store: StoryStore) -> None:
    ceiling, facts = score_ceiling(toy_store, "sub-A", SCORE, skip_trs=5)
    repeats = toy_store.repeats("sub-A", "toy5")
    assert repeats is not None
    np.testing.assert_array_equal(ceiling, noise_ceiling(repeats[:, 5:]).ceiling_r)
    assert facts["n_repeats"] == 3
    assert facts["ceiling_stories"] == ["toy5"]
    assert score_ceiling(toy_store, "sub-A", [Span("toy2", 0, 40)], skip_trs=5) == (None, {"n_repeats": 0})


def test_fingerprints_tell_things_apart() -> None:
    one = fingerprint({"a": 1}, np.zeros(3))
    assert one == fingerprint({"a": 1}, np.zeros(3))
    assert len({one, fingerprint({"a": 2}, np.zeros(3)), fingerprint({"a": 1}, np.ones(3))}) == 3
