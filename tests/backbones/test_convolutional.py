"""Families of convolutions over the waveform: the same numbers as transformers, and nothing from padding."""

import json

import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

from brainlit.backbones.frames import normalise_clips
from tests.backbones.conftest import everything, load, save_mini, sound

N_SAMPLES = 16_000


def test_shapes_names_and_mode(family, family_folder):
    backbone = load(family_folder, family)
    audio = sound()
    encoded = backbone.encode(audio, everything(audio))
    assert (backbone.hidden_size, backbone.n_layers, backbone.frame_rate_hz, backbone.sample_rate_hz) == (
        16,
        2,
        50.0,
        16_000,
    )
    assert len(encoded.hidden_states) == 3
    assert all(states.shape == (2, 49, 16) for states in encoded.hidden_states)
    assert encoded.frame_mask.shape == (2, 49)
    assert encoded.frame_mask.all()
    torch.testing.assert_close(encoded.frame_times_s, backbone.frame_times_s(N_SAMPLES))
    assert not any(module.training for module in backbone.modules())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"do_stable_layer_norm": True},
        {"feat_extract_norm": "group"},
        {"feat_extract_norm": "group", "do_stable_layer_norm": True},
        {"conv_kernel": [40, 17], "conv_bias": True},
        {"conv_bias": True},
    ],
    ids=["layer norm", "stable", "group norm", "group norm, stable", "odd kernel", "bias"],
)
def test_the_same_hidden_states_as_transformers(tmp_path, family, changes):
    model = save_mini(tmp_path / "weights", family, **changes)
    backbone = load(tmp_path / "weights", family)
    audio = sound()
    x = audio.float() / 32768
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-7).sqrt()
    with torch.no_grad():
        ours = backbone.encode(audio, everything(audio)).hidden_states
        theirs = model(x, output_hidden_states=True)
    for mine, reference in zip(ours[:-1], theirs.hidden_states[:-1], strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[-1], theirs.last_hidden_state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stable", [False, True])
def test_right_padding_as_transformers_with_an_attention_mask(tmp_path, family, stable):
    if family == "data2vec":
        pytest.skip("transformers lets data2vec's padding into real frames; see test_data2vec")
    model = save_mini(tmp_path / "weights", family, do_stable_layer_norm=stable)
    backbone = load(tmp_path / "weights", family)
    audio, mask = sound(), torch.ones(2, N_SAMPLES, dtype=torch.bool)
    mask[1, 10_000:] = False
    audio[~mask] = 0
    with torch.no_grad():
        ours = backbone.encode(audio, mask)
        theirs = model(normalise_clips(audio, mask), attention_mask=mask.long(), output_hidden_states=True)
    real = ours.frame_mask
    for mine, reference in zip(ours.hidden_states[:-1], theirs.hidden_states[:-1], strict=True):
        torch.testing.assert_close(mine[real], reference[real], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.hidden_states[-1][real], theirs.last_hidden_state[real], rtol=1e-5, atol=1e-5)
    assert int(real[1].sum()) == int(model._get_feat_extract_output_lengths(torch.tensor(10_000)))


def test_group_norm_checkpoints_run_on_padding_as_they_were_trained(tmp_path, family):
    if family == "data2vec":
        pytest.skip("data2vec has no group norm")
    model = save_mini(tmp_path / "weights", family, feat_extract_norm="group")
    audio, mask = sound(), torch.ones(2, N_SAMPLES, dtype=torch.bool)
    mask[1, 10_000:] = False
    with torch.no_grad():
        ours = load(tmp_path / "weights", family).encode(audio, mask)
        theirs = model(normalise_clips(audio, mask)).last_hidden_state
    torch.testing.assert_close(ours.hidden_states[-1], theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_batch_mates_change_nothing_in_real_frames(family, family_folder, side):
    backbone = load(family_folder, family)
    hop = backbone.frames.hop_samples
    clip = sound(1, 20 * hop)
    pad, mate = 10 * hop, sound(1, 30 * hop, seed=1)
    padded = torch.zeros(1, 30 * hop, dtype=torch.int16)
    mask = torch.zeros(2, 30 * hop, dtype=torch.bool)
    place = slice(pad, None) if side == "left" else slice(0, 20 * hop)
    padded[:, place], mask[0, place], mask[1] = clip, True, True
    with torch.no_grad():
        alone = backbone.encode(clip, everything(clip))
        together = backbone.encode(torch.cat([padded, mate]), mask)
    real = together.frame_mask[0]
    for mine, reference in zip(together.hidden_states, alone.hidden_states, strict=True):
        torch.testing.assert_close(mine[0, real], reference[0], rtol=1e-3, atol=1e-4)
    shift_s = pad / 16_000 if side == "left" else 0.0
    torch.testing.assert_close(together.frame_times_s[real], alone.frame_times_s + shift_s)


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_each_clip_is_normalised_by_itself(tmp_path, family, norm):
    save_mini(tmp_path / "weights", family, feat_extract_norm=norm)
    backbone = load(tmp_path / "weights", family)
    quiet = sound(1).float() / 327_680
    loud_mate = torch.cat([quiet * 8 + 0.1, sound(1, seed=1).float() / 32_768])
    with torch.no_grad():
        alone = backbone.encode(quiet, everything(quiet)).hidden_states
        together = backbone.encode(loud_mate, everything(loud_mate)).hidden_states
    for mine, reference in zip(together, alone, strict=True):
        torch.testing.assert_close(mine[:1], reference, rtol=1e-3, atol=2e-4)


def test_a_window_of_nothing_gives_no_nan(family, family_folder):
    backbone = load(family_folder, family)
    audio, mask = sound(), torch.zeros(2, N_SAMPLES, dtype=torch.bool)
    mask[1] = True
    encoded = backbone.encode(audio, mask)
    assert not encoded.frame_mask[0].any()
    assert all(states.isfinite().all() for states in encoded.hidden_states)


def test_group_norm_checkpoints_get_no_attention_mask(tmp_path):
    save_mini(tmp_path / "group", feat_extract_norm="group")
    save_mini(tmp_path / "layer")
    flags = [load(tmp_path / n).describe()["attention_mask"] for n in ("group", "layer")]
    assert flags == [False, True]


def test_frozen_convolutions_get_no_gradient_and_the_trunk_does(family, family_folder):
    backbone = load(family_folder, family)
    backbone.freeze_feature_encoder()
    audio = sound()
    assert not backbone.conv_features(audio.float()).requires_grad
    backbone.encode(audio, everything(audio)).hidden_states[-1].square().sum().backward()
    for name, parameter in backbone.model.named_parameters():
        if name.startswith("feature_extractor"):
            assert parameter.grad is None
            assert not parameter.requires_grad
        elif parameter.requires_grad:
            assert parameter.grad is not None, name
    assert backbone.describe()["feature_encoder_frozen"]


def test_without_freezing_the_convolutions_learn(family, family_folder):
    backbone = load(family_folder, family)
    audio = sound()
    backbone.encode(audio, everything(audio)).hidden_states[-1].square().sum().backward()
    assert next(backbone.model.feature_extractor.parameters()).grad is not None


def test_train_mode_changes_nothing_unless_a_switch_is_on(family, family_folder):
    audio = sound()

    def two_passes(**switches):
        backbone = load(family_folder, family, **switches)
        with torch.no_grad():
            quiet = backbone.encode(audio, everything(audio)).hidden_states
            backbone.train()
            noisy = backbone.encode(audio, everything(audio)).hidden_states
        assert len(noisy) == len(quiet)
        return [float((a - b).abs().max()) for a, b in zip(quiet, noisy, strict=True)]

    torch.manual_seed(0)
    assert max(two_passes()) == 0
    assert two_passes(dropout=0.2)[-1] > 0.01
    assert two_passes(layerdrop=0.99)[0] == 0
    assert two_passes(layerdrop=0.99)[-1] > 0.01
    assert two_passes(spec_augment=True)[0] > 0.01


def test_switches_are_described(family, family_folder):
    description = load(family_folder, family, dropout=0.1, spec_augment=True).describe()
    assert description["dropout"] == 0.1
    assert description["spec_augment"] is True
    assert description["layerdrop"] == 0.0
    assert description["mode"] == "eval"
    assert description["architecture"]["hidden_dropout"] == 0.1
    assert json.loads(json.dumps(description)) == description


def test_adapters_are_refused(tmp_path):
    save_mini(tmp_path / "adapter", add_adapter=True)
    with pytest.raises(ValueError, match="adapter"):
        load(tmp_path / "adapter")


def test_runs_under_bf16_autocast(family, family_folder):
    backbone = load(family_folder, family)
    audio = sound()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        low = backbone.encode(audio, everything(audio)).hidden_states[-1]
    with torch.no_grad():
        full = backbone.encode(audio, everything(audio)).hidden_states[-1]
    assert (low.float() - full).norm() / full.norm() < 0.05


@pytest.mark.slow
def test_a_full_size_checkpoint_loads_the_same_way(tmp_path):
    Wav2Vec2Model(Wav2Vec2Config()).save_pretrained(tmp_path / "base")
    backbone = load(tmp_path / "base")
    audio = sound(1)
    with torch.no_grad():
        encoded = backbone.encode(audio, everything(audio))
    assert (backbone.n_layers, backbone.hidden_size, backbone.frame_rate_hz) == (12, 768, 50.0)
    assert [states.shape for states in encoded.hidden_states] == [(1, 49, 768)] * 13
    assert not backbone.uses_attention_mask
