from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from brainlit.encoding import ProbeConfig
from brainlit.encoding.ceiling import ceiling_of_rows, noise_ceiling
from brainlit.encoding.temporal import Temporal, as_band
from brainlit.probing.inputs import borrowed_state, probe_data, score_ceiling, settings_hash
from brainlit.splits import Span
from brainlit.store import StoryStore, build_store
from tests.toy import TwoMeanings

FIT = (Span("toy1", 0, 40), Span("toy2", 0, 40))
SCORE = (Span("toy5", 0, 40),)
PER_TR = ProbeConfig(temporal="fir")


def test_rows_roles_and_bands_fit_together(toy_store: StoryStore) -> None:
    data = probe_data(toy_store, "sub-A", FIT, SCORE, PER_TR)
    assert data.rows.all()
    assert data.groups.tolist() == [0] * 40 + [1] * 40 + [2] * 40
    assert np.array_equal(data.fit, ~data.score)
    assert np.array_equal(data.responses[80:], toy_store.responses("sub-A", "toy5"))
    assert np.array_equal(data.stimulus["low_level"][40:80], toy_store.band("toy2", "low_level"))
    assert list(data.stimulus) == ["low_level", "semantic"]
    assert data.facts["score_stories"] == ["toy5"]


def test_the_low_level_band_comes_in_parts_where_asked(toy_store: StoryStore) -> None:
    whole = probe_data(toy_store, "sub-A", FIT, SCORE, PER_TR).stimulus
    parts = probe_data(toy_store, "sub-A", FIT, SCORE, replace(PER_TR, sub_bands=True)).stimulus
    assert list(parts) == ["low_level/spectral", "semantic"]
    assert np.array_equal(parts["low_level/spectral"], whole["low_level"])


def test_stories_that_a_subject_did_not_hear_are_left_out(toy_store: StoryStore) -> None:
    data = probe_data(toy_store, "sub-B", FIT, SCORE)
    assert data.rows.tolist() == [False] * 40 + [True] * 80
    assert data.groups.tolist() == [1] * 40 + [2] * 40
    assert len(data.responses) == len(data.stimulus["semantic"]) == 80
    assert data.facts["fit_spans"] == ["toy2[0:40]"]


@pytest.mark.parametrize(("fit", "score", "role"), [((FIT[0],), SCORE, "fit"), (FIT, (FIT[0],), "score")])
def test_a_subject_without_stories_for_a_role_is_refused(
    fit: tuple[Span, ...], score: tuple[Span, ...], role: str, toy_store: StoryStore
) -> None:
    with pytest.raises(ValueError, match=f"none of the stories to {role}"):
        probe_data(toy_store, "sub-B", fit, score)


def test_the_ceiling_comes_from_the_scored_rows_only(toy_store: StoryStore) -> None:
    signal, facts = score_ceiling(toy_store, "sub-A", SCORE, skip_trs=5)
    repeats = toy_store.repeats("sub-A", "toy5")
    assert repeats is not None
    assert signal is not None
    np.testing.assert_allclose(ceiling_of_rows(signal), noise_ceiling(repeats[:, 5:]).ceiling_r, rtol=1e-5)
    assert facts["n_repeats"] == facts["most_repeats"] == 3
    assert facts["ceiling_stories"] == ["toy5"]
    assert facts["ceiling_carried_to"] == []
    assert score_ceiling(toy_store, "sub-A", [Span("toy2", 0, 40)], skip_trs=5) == (None, {"n_repeats": 0})


def test_a_story_heard_once_counts_with_the_noise_of_one_presentation(toy_store: StoryStore) -> None:
    signal, facts = score_ceiling(toy_store, "sub-A", (Span("toy2", 0, 40), *SCORE), skip_trs=5)
    repeats, once = toy_store.repeats("sub-A", "toy5"), toy_store.responses("sub-A", "toy2", 5)
    assert repeats is not None
    assert once is not None
    assert signal is not None
    wanted = noise_ceiling([once[None], repeats[:, 5:]]).ceiling_r
    np.testing.assert_allclose(ceiling_of_rows(signal), wanted, rtol=1e-5)
    assert wanted[:8].mean() < noise_ceiling(repeats[:, 5:]).ceiling_r[:8].mean() - 0.02
    assert facts["ceiling_stories"] == ["toy5"]
    assert facts["ceiling_carried_to"] == ["toy2"]


def test_hashes_tell_things_apart() -> None:
    one = settings_hash({"a": 1}, np.zeros(3))
    assert one == settings_hash({"a": 1}, np.zeros(3))
    assert len({one, settings_hash({"a": 2}, np.zeros(3)), settings_hash({"a": 1}, np.ones(3))}) == 3


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def seed() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)


def disturb(model: nn.Sequential) -> None:
    draw()
    model.train()
    model[1].eval()


@pytest.mark.parametrize("fails", [False, True])
def test_random_states_and_every_modules_own_mode_come_back(fails: bool) -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[2].eval()
    modes = [part.training for part in model.modules()]
    seed()
    expected = draw()
    seed()
    try:
        with borrowed_state(model):
            disturb(model)
            if fails:
                raise KeyError("inside")
    except KeyError:
        assert fails
    assert draw() == expected
    assert [part.training for part in model.modules()] == modes


def test_threads_come_back() -> None:
    before = torch.get_num_threads()
    with borrowed_state(nn.Linear(1, 1)):
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before


@pytest.fixture(scope="module")
def two_meanings(tmp_path_factory: pytest.TempPathFactory) -> StoryStore:
    path = tmp_path_factory.mktemp("two") / "store"
    build_store(TwoMeanings(), path, progress=False)
    return StoryStore.open(path)


OWN = {"vectors": ["glove"], "low_level": None, "context": ["context"]}


@pytest.mark.parametrize("temporal", ["fir", "hrf"])
def test_bands_hold_the_spaces_that_the_settings_list(temporal: Temporal, two_meanings: StoryStore) -> None:
    config = ProbeConfig(temporal=temporal, bands=OWN)
    stimulus = probe_data(two_meanings, "sub-A", FIT, SCORE, config).stimulus
    assert {name: X.shape for name, X in stimulus.items()} == {
        "vectors": (120, 1), "low_level": (120, 2), "context": (120, 2),
    }  # fmt: skip
    together = probe_data(two_meanings, "sub-A", FIT, SCORE, ProbeConfig(temporal=temporal)).stimulus["semantic"]
    for part, whole in as_band(together).parts.items():
        apart = [as_band(stimulus[name]).parts[part] for name in ("vectors", "context")]
        assert np.array_equal(np.concatenate(apart, axis=1), whole)
    mixed = ProbeConfig(temporal=temporal, bands={"both": ["context", "envelope"]}, sub_bands=True)
    assert probe_data(two_meanings, "sub-A", FIT, SCORE, mixed).stimulus["both"].shape == (120, 4)


def test_spaces_that_a_store_does_not_hold_or_two_bands_share_are_refused(two_meanings: StoryStore) -> None:
    unknown = ProbeConfig(bands={"vectors": ["glov"]})
    said = (
        r"probe.bands.vectors names the feature space 'glov', which the store .*store does not hold. Did you mean"
        r" 'glove'\? Known: context, envelope, glove. Name one of these, or add it to the data"
    )
    with pytest.raises(ValueError, match=said):
        probe_data(two_meanings, "sub-A", FIT, SCORE, unknown)
    twice = ProbeConfig(bands={"vectors": ["glove"], "semantic": None})
    with pytest.raises(
        ValueError, match=r"the feature space 'glove' in two bands, vectors and semantic, .* list those"
    ):
        probe_data(two_meanings, "sub-A", FIT, SCORE, twice)
