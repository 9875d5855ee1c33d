"""Families of convolutions over the waveform: the same numbers as transformers, and nothing from padding."""

import json

import pytest
import torch
from torch.nn import functional
from transformers import Data2VecAudioConfig, Data2VecAudioModel, Wav2Vec2Config, Wav2Vec2Model

from brainlit.backbones.frames import normalise_clips
from brainlit.backbones.wav2vec_like import Wav2vecBackbone, can_run, strided_conv
from tests.backbones.conftest import MINI, OF_FAMILY, everything, load, save_mini, sound

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


def test_a_full_size_checkpoint_loads_the_same_way(tmp_path):
    Wav2Vec2Model(Wav2Vec2Config()).save_pretrained(tmp_path / "base")
    backbone = load(tmp_path / "base")
    audio = sound(1)
    with torch.no_grad():
        encoded = backbone.encode(audio, everything(audio))
    assert (backbone.n_layers, backbone.hidden_size, backbone.frame_rate_hz) == (12, 768, 50.0)
    assert [states.shape for states in encoded.hidden_states] == [(1, 49, 768)] * 13
    assert not backbone.uses_attention_mask


# --- data2vec
# data2vec: what is peculiar to it among the convolutional families.


def test_padding_flows_into_real_frames_in_transformers_and_not_here(tmp_path):
    model = save_mini(tmp_path / "weights", "data2vec", num_conv_pos_embeddings=3)
    backbone = load(tmp_path / "weights", "data2vec")
    audio, mask = sound(), torch.ones(2, 16_000, dtype=torch.bool)
    mask[1, 10_000:] = False
    with torch.no_grad():
        ours = backbone.encode(audio, mask)
        alone = backbone.encode(audio[1:, :10_000], everything(audio[1:, :10_000])).hidden_states
        padded = model(normalise_clips(audio, mask), attention_mask=mask.long(), output_hidden_states=True)
        theirs = model(normalise_clips(audio, mask)[1:, :10_000], output_hidden_states=True)
    real = ours.frame_mask[1]
    for mine, clip, reference in zip(ours.hidden_states, alone, theirs.hidden_states, strict=True):
        torch.testing.assert_close(clip[0], reference[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mine[1, real], reference[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(padded.hidden_states[0][1, real], theirs.hidden_states[0][0], atol=1e-3)


def test_settings_that_only_its_kin_know_change_nothing(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {**MINI, **OF_FAMILY["data2vec"]}
        del settings["feat_extract_norm"]
        plain = Data2VecAudioModel(Data2VecAudioConfig(**settings)).eval()
    plain.save_pretrained(tmp_path / "plain")
    plain.config.feat_extract_norm, plain.config.do_stable_layer_norm = "group", True
    plain.save_pretrained(tmp_path / "said")
    audio = sound()
    with torch.no_grad():
        states = [
            load(tmp_path / name, "data2vec").encode(audio, everything(audio))[0][-1] for name in ("plain", "said")
        ]
    torch.testing.assert_close(states[0], states[1], rtol=1e-5, atol=1e-5)
    assert load(tmp_path / "said", "data2vec").describe()["attention_mask"]


# --- hubert
# HuBERT: what is peculiar to it among the convolutional families.


def test_without_a_norm_before_the_projection_as_distilhubert(tmp_path):
    model = save_mini(tmp_path / "weights", "hubert", feat_proj_layer_norm=False, feat_extract_norm="group")
    backbone = load(tmp_path / "weights", "hubert")
    audio = sound(1).float()
    audio = (audio - audio.mean()) / audio.std(unbiased=False)
    with torch.no_grad():
        ours = backbone.encode(audio, everything(audio)).hidden_states[-1]
        theirs = model(audio).last_hidden_state
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_batch_norm_uses_its_own_statistics_in_train_mode(tmp_path):
    save_mini(tmp_path / "weights", "hubert", conv_pos_batch_norm=True, feat_extract_norm="group")
    backbone = load(tmp_path / "weights", "hubert").train()
    norm = backbone.encoder.pos_conv_embed.batch_norm
    assert backbone.training
    assert not norm.training
    before = norm.running_mean.clone()
    two, one = sound(), sound()[:1]
    together = backbone.encode(two, everything(two)).hidden_states[-1]
    alone = backbone.encode(one, everything(one)).hidden_states[-1]
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(norm.running_mean, before)


# --- strided
# Convolution as matrix products is convolution.


@pytest.mark.parametrize("n_in", [1, 3])
@pytest.mark.parametrize(("kernel", "stride"), [(8, 4), (4, 4), (6, 2), (20, 10)])
@pytest.mark.parametrize("n_times", [40, 41, 63])
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_conv1d_with_its_gradients(n_in, kernel, stride, n_times, with_bias):
    generator = torch.Generator().manual_seed(kernel)
    signal = torch.randn(2, n_times, n_in, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(5, n_in, kernel, dtype=torch.float64, generator=generator, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, generator=generator) if with_bias else None
    ours = strided_conv(signal, weight, bias, stride)
    reference = functional.conv1d(signal.transpose(1, 2), weight, bias, stride).transpose(1, 2)
    torch.testing.assert_close(ours, reference)
    for mine, theirs in zip(
        torch.autograd.grad(ours.square().sum(), (signal, weight)),
        torch.autograd.grad(reference.square().sum(), (signal, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_only_layer_normalised_kernels_that_are_multiples_of_their_stride():
    assert can_run(Wav2Vec2Config(**Wav2vecBackbone.tiny_architecture()))
    assert not can_run(Wav2Vec2Config())
    assert not can_run(Wav2Vec2Config(feat_extract_norm="layer"))


# --- unispeech_sat
# UniSpeech-SAT: what is peculiar to it among the convolutional families.


def test_it_always_has_a_mask_embedding(tmp_path):
    save_mini(tmp_path / "weights", "unispeech-sat", mask_time_prob=0.0)
    save_mini(tmp_path / "hubert", "hubert", mask_time_prob=0.0)
    assert load(tmp_path / "weights", "unispeech-sat").mask_embedding is not None
    assert load(tmp_path / "hubert", "hubert").mask_embedding is None
