"""Each clip has the vector that it has alone; padding is never heard; modes and random states stay."""

import numpy as np
import pytest
import torch

from brainlit.backbones import BackboneConfig, load_backbone
from brainlit.downstream.clip import Clip
from brainlit.downstream.features import clip_features, task_features
from brainlit.downstream.task import make_task
from tests.backbones.conftest import load, save_mini
from tests.backbones.test_whisper import save as save_whisper

LENGTHS = (3000, 5100, 3000, 8123, 2990, 5100)


def noise(n_samples, seed):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(n_samples) * rng.integers(500, 5000)).astype(np.int16)


@pytest.fixture(scope="module")
def clips():
    return [Clip(f"clip {k}", noise(n_samples, k)) for k, n_samples in enumerate(LENGTHS)]


@pytest.fixture(scope="module", params=["layer", "group", "whisper", "whisper padded"])
def backbone(request, tmp_path_factory):
    """Two kinds of normalisation in the convolutions, of which one hears padding; and Whisper with and without its."""
    folder = tmp_path_factory.mktemp("mini")
    if request.param.startswith("whisper"):
        save_whisper(folder)
        return load(folder, "whisper", positions="padded" if "padded" in request.param else "truncated")
    save_mini(folder, feat_extract_norm=request.param)
    return load(folder)


def by_hand(backbone, clip, n_samples):
    """Mean over the real frames of a clip, all layers, one clip and one frame at a time."""
    audio = torch.from_numpy(clip.sound()[:n_samples].copy())[None]
    with torch.no_grad():
        encoded = backbone.encode(audio, torch.ones_like(audio, dtype=torch.bool))
    real = [k for k, heard in enumerate(encoded.frame_mask[0].tolist()) if heard]
    return [np.mean([states[0, k].numpy() for k in real], axis=0) for states in encoded.hidden_states]


def test_a_clip_has_the_same_vector_alone_and_in_any_batch(backbone, clips):
    together = clip_features(backbone, clips, progress=False)
    turned = clip_features(backbone, clips[::-1], batch_s=0.2, progress=False)
    assert list(together) == [0, 1, 2]
    for layer, values in together.items():
        assert values.dtype == np.float32
        assert values.shape == (len(clips), backbone.hidden_size)
        np.testing.assert_allclose(turned[layer][::-1], values, atol=1e-5)
    for k, clip in enumerate(clips):
        alone = clip_features(backbone, [clip], progress=False)
        np.testing.assert_allclose([alone[layer][0] for layer in alone], [v[k] for v in together.values()], atol=1e-5)
    assert not np.allclose(together[2][0], together[2][2], atol=1e-3)  # two clips of one length


def test_it_is_the_mean_over_whole_frames_and_nothing_else(backbone, clips):
    found = np.stack(list(clip_features(backbone, clips[2:4], progress=False).values()), axis=1)
    for clip, values in zip(clips[2:4], found, strict=True):
        n_samples = len(clip.sound())
        n_frames = int(backbone.frame_mask(torch.ones(1, n_samples, dtype=torch.bool)).sum())
        fewest = next(
            n for n in range(n_samples - 400, n_samples + 1)
            if int(backbone.frame_mask(torch.ones(1, n, dtype=torch.bool)).sum()) == n_frames
        )  # fmt: skip
        np.testing.assert_allclose(values, by_hand(backbone, clip, fewest), atol=1e-5)


@pytest.fixture
def mini(tmp_path):
    save_mini(tmp_path / "mini")
    return load(tmp_path / "mini")


def test_modes_and_random_states_come_back(mini, clips):
    mini.train()
    mini.model.encoder.eval()
    before = {name: module.training for name, module in mini.named_modules()}
    drawn = torch.get_rng_state()
    clip_features(mini, clips[:1], progress=False)
    with pytest.raises(ValueError, match="too"):
        clip_features(mini, [Clip("too short", noise(100, 0))], progress=False)
    assert {name: module.training for name, module in mini.named_modules()} == before
    assert torch.equal(torch.get_rng_state(), drawn)


def test_it_is_heard_in_eval_mode(tmp_path, clips):
    save_mini(tmp_path / "mini")
    quiet = clip_features(load(tmp_path / "mini"), clips[:2], progress=False)
    dropping = load_backbone(BackboneConfig(weights=str(tmp_path / "mini"), dropout=0.5)).train()
    np.testing.assert_array_equal(clip_features(dropping, clips[:2], progress=False)[2], quiet[2])


def test_what_is_too_short_is_refused_and_what_is_too_long_is_cut(mini, clips, caplog):
    with pytest.raises(ValueError, match=r"clip 'tick' is 6 ms long, less than one frame of wav2vec"):
        clip_features(mini, [clips[0], Clip("tick", noise(100, 0))], progress=False)
    cut = clip_features(mini, clips, [2], max_clip_s=0.2, progress=False)
    assert "3 clips are longer than 0.2 s" in caplog.text
    first = clip_features(mini, [Clip("first", clips[3].sound()[:3200])], [2], progress=False)
    np.testing.assert_allclose(cut[2][3], first[2][0], atol=1e-6)


@pytest.mark.parametrize("layers", [[3], [-1], []])
def test_layers_that_are_not_there_are_refused(mini, clips, layers):
    with pytest.raises(ValueError, match=r"give 'all' or some of 0 \(the input of the first layer\) to 2"):
        clip_features(mini, clips[:1], layers)


def test_a_diverged_model_is_said_to_be_one(mini, clips):
    mini.model.encoder.layers[1].feed_forward.output_dense.weight.data[:] = float("nan")
    with pytest.raises(RuntimeError, match="'clip 0' hold NaN"):
        clip_features(mini, clips[:1], progress=False)


def test_tasks_that_share_clips_hear_them_once(mini, clips, monkeypatch):
    parts = dict(zip(("train", "choose", "test"), (clips[0:2], clips[2:4], clips[4:6]), strict=True))
    tasks = [
        make_task(name, "single", {part: list(zip(own, labels, strict=True)) for part, own in parts.items()})
        for name, labels in (("one", "ab"), ("two", "dc"))
    ]
    heard = []
    whole = mini.encode
    monkeypatch.setattr(mini, "encode", lambda audio, mask: heard.append(len(audio)) or whole(audio, mask))
    found = task_features(mini, tasks, [1], progress=False)
    assert sum(heard) == len(clips)
    expected = clip_features(mini, clips, [1], progress=False)[1]
    for name in ("one", "two"):
        np.testing.assert_array_equal(np.concatenate([found[name][part][1] for part in parts]), expected)


def test_silence_that_is_added_counts_as_sound_of_a_batch(tmp_path, clips, monkeypatch):
    save_whisper(tmp_path / "mini")
    backbone = load(tmp_path / "mini", "whisper")
    sizes, encode = [], backbone.encode
    monkeypatch.setattr(backbone, "encode", lambda audio, mask: sizes.append(len(audio)) or encode(audio, mask))
    clip_features(backbone, clips[:1] * 5, batch_s=6.0, progress=False)
    assert sizes == [2, 2, 1], "two of 3 s each, as they are encoded"
