"""Hidden states as targets: the shape, variance and masks of responses, and slow obvious references for each step."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainlit.backbones import BackboneConfig, load_backbone
from brainlit.backbones.frames import pool_per_tr
from brainlit.datamodules import (
    LanguageTargetsConfig,
    RepresentationConfig,
    SpeechTargetsConfig,
    StoryDataModule,
    VoxelTargets,
    WindowConfig,
)
from brainlit.datamodules.targets.config import layer_numbers
from brainlit.datamodules.targets.representations import (
    COLUMNS_AT_ONCE,
    LanguageRepresentation,
    SpeechRepresentation,
    fitting_window,
    haemodynamic_matrix,
    projection,
    representation_targets,
    z_scored,
)
from brainlit.demo.haemodynamics import bold_of_events
from brainlit.features import LanguageModel, LanguageModelConfig
from brainlit.store import StoryStore
from brainlit.timebase import TimeBase
from tests.backbones.conftest import save_mini
from tests.datamodules.test_story import data_module, epoch

STORIES = ["toy0", "toy1", "toy4"]
VOXELS = {"sub-A": np.arange(12), "sub-B": np.array([0, 4, 9])}
WINDOW = WindowConfig(n_trs=8, context_s=4.0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Planted:
    """Five features that anyone can compute: two that vary, two copies of them, and a constant."""

    name = "planted"

    def __init__(self) -> None:
        self.n_calls = 0

    def settings(self) -> dict[str, Any]:
        return {"what": "planted"}

    def features(self, store: StoryStore, stories: Sequence[str]) -> Iterator[np.ndarray]:
        self.n_calls += 1
        for story in stories:
            yield planted_features(store, story)


def planted_features(store: StoryStore, story: str) -> np.ndarray:
    rng = np.random.default_rng(list(story.encode()))
    two = 7 * rng.standard_normal((store.n_trs(story), 2)) + 3
    return np.concatenate([two, 2 * two, np.ones((len(two), 1))], axis=1).astype(np.float32)


def targets_of(store: StoryStore, **settings: Any) -> Any:
    voxels = VoxelTargets(store, VOXELS)
    return representation_targets(Planted(), store, STORIES, RepresentationConfig(**settings), voxels)


def test_own_dimension_is_the_standardised_features(toy_store: StoryStore) -> None:
    targets = targets_of(toy_store, dimension="own", haemodynamic=False)
    assert targets.sizes == {"planted": 5}
    for story in STORIES:
        features = planted_features(toy_store, story)
        expected = (features - features.mean(0)) / np.where(features.std(0) > 0, features.std(0), 1)
        np.testing.assert_allclose(targets.rows("planted", story, 0, 40), expected, atol=1e-5)
    assert targets.rows("planted", "toy5", 0, 3) is None


def test_projected_targets_equal_the_slow_way(toy_store: StoryStore) -> None:
    targets = targets_of(toy_store)
    assert targets.sizes == {"sub-A": 12, "sub-B": 3}
    for subject, story in (("sub-A", "toy1"), ("sub-B", "toy4")):
        features = planted_features(toy_store, story)
        slow = np.zeros_like(features, dtype=np.float64)
        for row in range(40):
            for earlier in range(row + 1):
                weight = haemodynamic_matrix(40, 2.0)[row, earlier]
                slow[row] += weight * (features[earlier] - features.mean(0))
        states = z_scored(slow.astype(np.float32))
        projected = states @ projection(5, subject, 0, 0)[:, : targets.sizes[subject]]
        expected = (projected - projected.mean(0)) / projected.std(0)
        np.testing.assert_allclose(targets.rows(subject, story, 4, 9), expected[4:9], atol=1e-4)
    assert targets.rows("sub-B", "toy1", 0, 5) is None  # not heard, as in the responses


def test_variance_is_that_of_one_presentation(toy_store: StoryStore) -> None:
    """toy4 was heard three times: the mean of its responses varies less."""
    targets = targets_of(toy_store)
    for subject in VOXELS:
        for story in ("toy0", "toy4"):
            rows = targets.rows(subject, story, 0, 40)
            responses = toy_store.responses(subject, story, voxels=VOXELS[subject])
            assert responses is not None
            assert rows.shape == responses.shape
            np.testing.assert_allclose(rows.std(0), 1, rtol=1e-3)
            repeats = toy_store.repeats(subject, story)
            each = responses[None] if repeats is None else repeats[:, :, VOXELS[subject]]
            np.testing.assert_allclose(each.std(1), 1, rtol=1e-3)
            np.testing.assert_allclose(rows.mean(0), 0, atol=1e-5)


def test_a_number_of_targets_may_exceed_the_features_and_a_block(toy_store: StoryStore) -> None:
    n_targets = COLUMNS_AT_ONCE + 3
    targets = targets_of(toy_store, dimension=n_targets)
    rows = targets.rows("planted", "toy0", 0, 40)
    assert rows.shape == (40, n_targets)
    np.testing.assert_allclose(rows.std(0), 1, rtol=1e-3)
    fewer = targets_of(toy_store, dimension=7).rows("planted", "toy0", 0, 40)
    np.testing.assert_allclose(rows[:, :7], fewer, atol=1e-5)
    assert np.linalg.matrix_rank(rows.astype(np.float64), tol=1e-2) == 2


def test_seeds_and_subjects_have_projections_of_their_own() -> None:
    first, second = projection(6, "sub-A", 0, 0), projection(6, "sub-B", 0, 0)
    assert not np.allclose(first, second)
    assert not np.allclose(first, projection(6, "sub-A", 0, 1))
    assert not np.allclose(first, projection(6, "sub-A", 1, 0))
    np.testing.assert_array_equal(first, projection(6, "sub-A", 0, 0))
    wide = projection(300, "x", 0, 0)
    np.testing.assert_allclose(wide @ wide.T * 300 / COLUMNS_AT_ONCE, np.eye(300), atol=0.15)


def test_they_are_computed_once_and_travel_to_workers(toy_store: StoryStore) -> None:
    model, voxels = Planted(), VoxelTargets(toy_store, VOXELS)
    first = representation_targets(model, toy_store, STORIES, RepresentationConfig(), voxels)
    again = representation_targets(model, toy_store, STORIES, RepresentationConfig(), voxels)
    assert model.n_calls == 1
    copy = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(copy.rows("sub-A", "toy0", 3, 9), again.rows("sub-A", "toy0", 3, 9))
    representation_targets(model, toy_store, STORIES, RepresentationConfig(dimension=4), voxels)
    assert model.n_calls == 1  # the hidden states are kept for other projections
    with pytest.raises(ValueError, match="no story has a role"):
        representation_targets(model, toy_store, [], RepresentationConfig(), voxels)


def test_the_haemodynamic_matrix_is_the_response_to_events_in_the_middle_of_rows() -> None:
    clock, n_trs = TimeBase.regular(60, 2.0), 60
    values = np.random.default_rng(0).standard_normal((n_trs, 3))
    values -= values.mean(0)
    exact = bold_of_events(values, clock.tr_starts_s + 1.0, clock)[0]
    ours = haemodynamic_matrix(n_trs, 2.0) @ values
    for a, b in zip(exact.T, ours.T, strict=True):
        assert np.corrcoef(a, b)[0, 1] > 0.999
    event = np.zeros((n_trs, 1))
    event[10] = 1
    assert int(np.argmax(haemodynamic_matrix(n_trs, 2.0) @ event)) == 12


def test_language_features_are_the_layers_of_each_word_added_up_per_row(
    toy_store: StoryStore, tmp_path: Path, tiny_text_model: Path
) -> None:
    config = LanguageTargetsConfig(str(tiny_text_model), layers=(1, -1), context_words=6)
    (found,) = LanguageRepresentation(config).features(toy_store, ["toy0"])
    words, clock = toy_store.words("toy0"), toy_store.timebase("toy0")
    states = [
        LanguageModel(LanguageModelConfig(str(tiny_text_model), layer, 6), progress=False).states(words.labels)[0]
        for layer in (1, 2)
    ]
    expected = np.zeros((40, 256))
    for word, middle_s in enumerate(words.middle_s):
        expected[int(middle_s // 2)] += np.concatenate([layer[word] for layer in states])
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert found.shape == (clock.n_trs, 256)


def test_speech_features_are_pooled_from_evaluation_windows(toy_store: StoryStore, tmp_path: Path) -> None:
    save_mini(tmp_path / "mini")
    config = SpeechTargetsConfig(weights=str(tmp_path / "mini"), layers=(0, -1), batch_size=2)
    (found,) = SpeechRepresentation(config, WINDOW).features(toy_store, ["toy1"])
    assert found.shape == (40, 32)
    backbone = load_backbone(BackboneConfig(weights=str(tmp_path / "mini")))
    for first in (0, 16, 32):  # windows of eight rows with 4 s before them, one by one
        audio = torch.zeros(1, 20 * 16_000, dtype=torch.int16)
        start = first * 32_000 - 4 * 16_000
        audio[0] = torch.from_numpy(toy_store.audio("toy1", start, start + 20 * 16_000))
        samples = torch.arange(start, start + 20 * 16_000)[None]
        mask = (samples >= 0) & (samples < toy_store.n_samples("toy1"))
        with torch.no_grad():
            encoded = backbone.encode(audio, mask)
            edges = torch.arange(11).float()[None] * 2
            for k, layer in enumerate((0, 2)):
                states = encoded.hidden_states[layer]
                pooled, _ = pool_per_tr(states, encoded.frame_mask, encoded.frame_times_s, edges)
                ours = found[first : first + 8, 16 * k : 16 * (k + 1)]
                np.testing.assert_allclose(ours, pooled[0, 2:].numpy(), atol=1e-4)


def test_windows_are_cut_to_what_the_speech_model_takes(tmp_path: Path) -> None:
    save_mini(tmp_path / "mini")
    backbone = load_backbone(BackboneConfig(weights=str(tmp_path / "mini")))
    assert fitting_window(WindowConfig(), backbone, 2.0) == WindowConfig()
    backbone.max_samples = 30 * 16_000
    assert fitting_window(WindowConfig(n_trs=16, context_s=8.0), backbone, 2.0).n_trs == 11
    assert fitting_window(WindowConfig(n_trs=4, context_s=8.0), backbone, 2.0).n_trs == 4
    with pytest.raises(ValueError, match=r"longer than the 30 s"):
        fitting_window(WindowConfig(n_trs=4, context_s=29.0), backbone, 2.0)


@pytest.fixture
def tiny_text_model(tmp_path: Path) -> Path:
    """A random language model with the demo's vocabulary."""
    from brainlit.backbones.tiny_text import _random_model, _tokenizer, vocabulary

    words = vocabulary()
    _random_model(len(words), 0).save_pretrained(tmp_path / "text")
    _tokenizer(words).save_pretrained(tmp_path / "text")
    return tmp_path / "text"


@pytest.fixture(params=["language_model", "large_speech_model"])
def regime(request: pytest.FixtureRequest, tmp_path: Path, tiny_text_model: Path) -> dict[str, Any]:
    """Settings of the data module for either regime."""
    save_mini(tmp_path / "mini")
    return {
        "regime": request.param,
        "language_model": LanguageTargetsConfig(str(tiny_text_model)),
        "speech_model": SpeechTargetsConfig(weights=str(tmp_path / "mini")),
    }


def test_a_representation_is_matched_to_brain(toy_store_path: Path, regime: dict[str, Any]) -> None:
    """Windows, steps, masks, sizes and variance are the same; tuning, validation and test predict the same thing."""
    brain, other = data_module(toy_store_path), data_module(toy_store_path, **regime)
    assert other.target_sizes == brain.target_sizes
    for kind in ("train", "val", "test"):
        ours, theirs = (loaded(module, kind) for module in (brain, other))
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a["audio"], b["audio"])
            for subject in a["targets"]:
                assert torch.equal(a["target_mask"][subject], b["target_mask"][subject])
                assert not torch.equal(a["targets"][subject], b["targets"][subject])
    rows = torch.cat([batch["targets"]["sub-A"][batch["row_mask"]] for batch in loaded(other, "val")])
    torch.testing.assert_close(rows.var(0, unbiased=False), torch.ones(12), rtol=1e-3, atol=1e-3)
    probed = [next(module.evaluation_batches(module.roles.spans("fit"))) for module in (brain, other)]
    assert torch.equal(probed[0]["targets"]["sub-A"], probed[1]["targets"]["sub-A"])
    with pytest.raises(ValueError, match="are no responses, so they have no noise ceiling"):
        _ = other.target_ceilings
    assert other.describe()["targets"]["model"]["layers"] == "all"


def test_a_representation_of_its_own_size_has_its_own_name(toy_store_path: Path, regime: dict[str, Any]) -> None:
    own = RepresentationConfig(dimension="own")
    module = data_module(toy_store_path, **regime, representation=own, subject_steps="sequential")
    name, size = regime["regime"], {"language_model": 3 * 128, "large_speech_model": 3 * 16}[regime["regime"]]
    assert module.target_sizes == {name: size}
    batches = epoch(module)
    assert len(batches) == len(epoch(data_module(toy_store_path)))  # one step per batch: there are no subjects
    assert all(torch.equal(batch["target_mask"][name], batch["row_mask"]) for batch in batches)


def loaded(module: StoryDataModule, kind: str) -> list[Any]:
    if kind == "train":
        return epoch(module)
    return list(module.val_dataloader() if kind == "val" else module.test_dataloader())


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (RepresentationConfig, {"dimension": "voxel"}, "representation.dimension is 'voxel'"),
        (RepresentationConfig, {"dimension": 0}, "representation.dimension is 0"),
        (LanguageTargetsConfig, {"weights": ""}, "language_model.weights is empty"),
        (LanguageTargetsConfig, {"layers": ()}, r"language_model.layers is \(\)"),
        (LanguageTargetsConfig, {"layers": "some"}, "language_model.layers is 'some'"),
        (LanguageTargetsConfig, {"context_words": -1}, "context_words is -1"),
        (LanguageTargetsConfig, {"per_tr": "max"}, "per_tr is 'max'"),
        (SpeechTargetsConfig, {"layers": ()}, r"speech_model.layers is \(\)"),
        (SpeechTargetsConfig, {"batch_size": 0}, "speech_model.batch_size is 0"),
    ],
)
def test_impossible_settings_are_refused(config: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_layers_are_counted_from_either_end() -> None:
    assert layer_numbers("m", "all", 2) == [0, 1, 2]
    assert layer_numbers("m", (-1, 0), 2) == [2, 0]
    with pytest.raises(ValueError, match=r"m\.layers holds 3, but the model has the hidden states 0"):
        layer_numbers("m", (3,), 2)
    with pytest.raises(ValueError, match="names a hidden state twice"):
        layer_numbers("m", (2, -1), 2)


def test_targets_of_another_state_of_the_hub_are_other_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("BRAINLIT_WEIGHTS", str(tmp_path / "weights"))
    repository = tmp_path / "hub" / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    for commit in ("a" * 40, "b" * 40):
        save_mini(repository / "snapshots" / commit)
    found = []
    for ref, commit in (("main", "a" * 40), ("v1", "b" * 40), ("main", "b" * 40)):
        (repository / "refs" / ref).write_text(commit)
        weights = "org/name" if ref == "main" else f"org/name@{ref}"
        found.append(SpeechRepresentation(SpeechTargetsConfig(weights=weights), WINDOW).settings()["weights"])
    assert found[0] == {"name": "org/name", "commit": "a" * 40}
    assert found[1] == {"name": "org/name@v1", "commit": "b" * 40}
    assert found[2] == {"name": "org/name", "commit": "b" * 40}, "the branch has moved on"
    unknown = SpeechRepresentation(SpeechTargetsConfig(weights="org/other"), WINDOW).settings()["weights"]
    assert unknown == {"name": "org/other"}, "not at hand, and targets of before may be"
