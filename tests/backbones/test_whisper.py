"""Whisper behind the interface: transformers' numbers, padded or not, and nothing from padding."""

from pathlib import Path

import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from brainlit.backbones import BackboneConfig
from brainlit.backbones.frames import pool_window
from brainlit.backbones.whisper import WhisperBackbone
from tests.backbones.conftest import everything, sound
from tests.backbones.conftest import load as load_family

LIMIT = 48_000
"""Samples that the test's model hears: 3 s, 150 frames."""
MINI = {
    **WhisperBackbone.tiny_architecture(),
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "max_source_positions": 150,
    "init_std": 0.2,
}


def save(folder, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WhisperModel(WhisperConfig(**{**MINI, **changes})).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture
def folder(tmp_path) -> Path:
    save(tmp_path / "mini")
    return tmp_path / "mini"


def load(folder, positions="truncated", **settings):
    return load_family(folder, "whisper", positions=positions, **settings)


def published(model, audio, seconds):
    """All hidden states of transformers' encoder, padded to so many seconds by the published extractor."""
    extractor = WhisperFeatureExtractor(chunk_length=seconds, feature_size=model.config.num_mel_bins)
    features = extractor([clip.numpy() / 32768 for clip in audio], sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        return model.encoder(features.input_features, output_hidden_states=True).hidden_states


def test_shapes_names_and_mode(folder):
    backbone = load(folder)
    audio = sound()
    encoded = backbone.encode(audio, everything(audio))
    assert (backbone.hidden_size, backbone.n_features, backbone.n_layers) == (16, 16, 2)
    assert (backbone.frame_rate_hz, backbone.sample_rate_hz, backbone.max_samples) == (50.0, 16_000, LIMIT)
    assert [states.shape for states in encoded.hidden_states] == [(2, 50, 16)] * 3
    assert encoded.frame_mask.all()
    assert encoded.frame_times_s.tolist() == pytest.approx([0.02 * k for k in range(50)])
    assert not any(module.training for module in backbone.modules())


@pytest.mark.parametrize("changes", [{}, {"num_mel_bins": 128}])
def test_padded_is_the_published_encoder_on_padded_sound(tmp_path, changes):
    model = save(tmp_path / "weights", **changes)
    backbone, audio = load(tmp_path / "weights", positions="padded"), sound()
    with torch.no_grad():
        encoded = backbone.encode(audio, everything(audio))
    for mine, reference in zip(encoded.hidden_states, published(model, audio, 3), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5)
    assert encoded.frame_mask.sum(1).tolist() == [50, 50]
    assert encoded.frame_mask[:, :50].all()
    assert len(encoded.frame_times_s) == len(backbone.frame_times_s(16_000)) == 150


@pytest.mark.parametrize("n_samples", [16_000, 32_000])
def test_truncated_is_a_published_encoder_that_ends_where_the_window_does(folder, n_samples):
    """So the last frames hear nothing but the window."""
    seconds = n_samples // 16_000
    shorter = WhisperModel(WhisperConfig(**{**MINI, "max_source_positions": 50 * seconds})).eval()
    backbone, audio = load(folder), sound(n_samples=n_samples)
    state = backbone.model.state_dict()
    state["encoder.embed_positions.weight"] = state["encoder.embed_positions.weight"][: 50 * seconds]
    shorter.load_state_dict(state)
    with torch.no_grad():
        encoded = backbone.encode(audio, everything(audio))
    for mine, reference in zip(encoded.hidden_states, published(shorter, audio, seconds), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5)


def test_both_modes_agree_where_the_window_is_as_long_as_the_model_hears(folder):
    audio = sound(n_samples=LIMIT)
    with torch.no_grad():
        both = [load(folder, positions=p).encode(audio, everything(audio)) for p in ("padded", "truncated")]
    for mine, reference in zip(both[0].hidden_states, both[1].hidden_states, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5)
    assert both[0].frame_mask.all()
    assert both[1].frame_mask.all()


@pytest.mark.parametrize("n_samples", [16_000, 16_159, 16_160, 16_320, 400, LIMIT])
def test_frame_count_is_that_of_the_convolutions(folder, n_samples):
    backbone, audio = load(folder), sound(1, n_samples)
    front = backbone.front_end(audio, everything(audio))
    n_frames = int(backbone.model._get_feat_extract_output_lengths(torch.tensor(n_samples // 160)))
    assert front.features.shape[1] == front.frame_mask.shape[1] == len(front.frame_times_s) == n_frames
    assert front.frame_mask.all()


@pytest.mark.parametrize("positions", ["truncated", "padded"])
@pytest.mark.parametrize(("first", "last"), [(0, 16_000), (5_000, 16_000), (0, 9_001), (3_333, 12_345), (8_000, 8_000)])
def test_real_frames_against_a_slow_loop(folder, positions, first, last):
    audio, mask = sound(1), torch.zeros(1, 16_000, dtype=torch.bool)
    mask[0, first:last] = True
    frame_mask = load(folder, positions=positions).front_end(audio, mask).frame_mask[0]
    expected = [bool(mask[0, max(0, k * 320 - 520) : k * 320 + 520].all()) for k in range(50)]
    assert frame_mask[:50].tolist() == expected
    assert not frame_mask[50:].any()


def test_what_is_kept_of_the_front_end_depends_on_the_padding(folder):
    settings = {load(folder, positions=p).front_end_settings() for p in ("padded", "truncated")}
    assert len(settings) == 2


def test_an_impulse_is_heard_by_the_frames_around_it_and_their_times_say_so(folder):
    """In noise, where an impulse in silence would move the floor of the whole spectrogram."""
    backbone, audio = load(folder), sound(1, 32_000)
    times_s = backbone.frame_times_s(32_000)
    with torch.no_grad():
        before = backbone.front_end(audio, everything(audio)).features
        for sample in (1_500, 7_777, 16_000, 30_000):
            louder = audio.clone()
            louder[0, sample] += 2000
            change = (backbone.front_end(louder, everything(audio)).features - before).abs().amax(2)[0]
            heard = (change > 0).nonzero()[:, 0]
            assert heard.tolist() == [k for k in range(100) if abs(sample - 320 * k) < 520]
            assert abs(float(times_s[heard].mean()) - sample / 16_000) <= 0.01 + 1e-6


@pytest.mark.parametrize(
    ("n_samples", "like"),
    [(8_000, "padded"), (LIMIT // 2 - 1, "padded"), (LIMIT // 2, "truncated"), (40_000, "truncated")],
)
def test_auto_adds_silence_to_what_is_shorter_than_half_of_what_it_hears(folder, n_samples, like):
    audio = sound(n_samples=n_samples)
    auto, one = (load(folder, positions=p).encode(audio, everything(audio)) for p in ("auto", like))
    for ours, theirs in zip(auto.hidden_states, one.hidden_states, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(auto.frame_mask, one.frame_mask)
    assert torch.equal(auto.frame_times_s, one.frame_times_s)
    backbone = load(folder, positions="auto")
    assert backbone.encoded_samples(n_samples) == (LIMIT if like == "padded" else n_samples)
    assert (backbone.describe()["positions"], backbone.describe()["silence_added_below_s"]) == ("auto", 1.5)


def test_auto_is_the_default_and_of_whisper_alone(folder):
    assert BackboneConfig(family="whisper").positions == "auto"
    assert load_family(folder, "whisper").silence_added_below_s == 1.5
    assert [load(folder, positions=p).silence_added_below_s for p in ("truncated", "padded")] == [0.0, 3.0]


@pytest.mark.parametrize("positions", ["truncated", "padded"])
def test_what_padding_holds_and_batch_mates_change_nothing(folder, positions):
    backbone, audio = load(folder, positions=positions), sound()
    mask = everything(audio)
    mask[0, :3_000], mask[0, 12_000:] = False, False
    other = torch.where(mask, audio, torch.tensor(30_000, dtype=torch.int16))
    with torch.no_grad():
        together, dirty = backbone.encode(audio, mask), backbone.encode(other, mask)
        alone = backbone.encode(audio[:1], mask[:1])
    for mine, same, reference in zip(together.hidden_states, dirty.hidden_states, alone.hidden_states, strict=True):
        assert torch.equal(mine, same)
        torch.testing.assert_close(mine[:1], reference, rtol=1e-4, atol=1e-5)
    pooled, heard = pool_window(together.hidden_states[-1], together.frame_mask)
    assert heard.all()
    real = together.hidden_states[-1][0, together.frame_mask[0]]
    torch.testing.assert_close(pooled[0, 0], real.mean(0))


def test_truncated_does_not_attend_to_padding(folder):
    backbone, audio = load(folder), sound()
    features = backbone.front_end(audio, everything(audio)).features
    frame_mask = torch.ones(2, 50, dtype=torch.bool)
    frame_mask[:, 30:] = False
    with torch.no_grad():
        one = backbone.trunk(features, frame_mask)[-1]
        other = backbone.trunk(torch.where(frame_mask[:, :, None], features, 5.0), frame_mask)[-1]
        shorter = backbone.trunk(features[:, :30], frame_mask[:, :30])[-1]
    torch.testing.assert_close(one[:, :30], other[:, :30])
    torch.testing.assert_close(one[:, :30], shorter, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", ["truncated", "padded"])
def test_windows_that_do_not_fit_are_refused_with_the_cure(folder, positions):
    backbone = load(folder, positions=positions)
    too_long = sound(1, LIMIT + 8_000)
    with pytest.raises(ValueError, match=r"3\.5 s long.*at most 3 s.*--data\.window\.n_trs.*--data\.window\.context_s"):
        backbone.front_end(too_long, everything(too_long))
    with pytest.raises(ValueError, match=r"399 samples.*400"):
        backbone.front_end(sound(1, 399), everything(sound(1, 399)))


def test_nothing_can_be_hidden(folder):
    backbone, audio = load(folder), sound()
    front = backbone.front_end(audio, everything(audio))
    with pytest.raises(ValueError, match="no mask embedding"):
        backbone.trunk(front.features, front.frame_mask, hidden_from=front.frame_mask)


def test_the_decoder_is_frozen_and_rests_while_the_encoder_learns(folder):
    backbone, audio = load(folder), sound()
    backbone.train()
    assert backbone.model.encoder.training
    assert not any(module.training for module in backbone.model.decoder.modules())
    backbone.encode(audio, everything(audio)).hidden_states[-1].square().sum().backward()
    for name, parameter in backbone.model.named_parameters():
        idle = name.startswith("decoder.") or "embed_positions" in name
        assert (parameter.grad is None) == idle == (not parameter.requires_grad), name
    described = backbone.describe()
    assert described["n_parameters"] > described["n_parameters_encoder"] > 0
    assert all(layer in set(backbone.model.encoder.modules()) for layer in backbone.layers)


def test_frozen_convolutions_get_no_gradient_and_the_trunk_does(folder):
    backbone, audio = load(folder), sound()
    backbone.freeze_feature_encoder()
    assert not backbone.front_end(audio, everything(audio)).features.requires_grad
    backbone.encode(audio, everything(audio)).hidden_states[-1].square().sum().backward()
    for name, parameter in backbone.encoder.named_parameters():
        idle = name.startswith(("conv1", "conv2", "embed_positions"))
        assert (parameter.grad is None) == idle == (not parameter.requires_grad), name


def test_padding_is_whispers_alone():
    with pytest.raises(ValueError, match=r"only whisper pads.*'wav2vec'"):
        BackboneConfig(positions="padded")
    with pytest.raises(ValueError, match="'cut'"):
        BackboneConfig(family="whisper", positions="cut")
