"""SpeechT5's encoder behind the interface: transformers' numbers, the prenet included, and nothing from padding."""

import pytest
import torch
from transformers import (
    AutoModel,
    SpeechT5Config,
    SpeechT5FeatureExtractor,
    SpeechT5ForSpeechToSpeech,
    SpeechT5ForSpeechToText,
    SpeechT5ForTextToSpeech,
)

from brainlit.backbones import WeightsError
from brainlit.backbones.speecht5 import SpeechT5Backbone
from tests.backbones.conftest import MINI as WAV2VEC_MINI
from tests.backbones.conftest import everything, sound
from tests.backbones.conftest import load as load_family

N_SAMPLES = 16_000
MINI = {
    **SpeechT5Backbone.tiny_architecture(),
    **{name: value for name, value in WAV2VEC_MINI.items() if name.startswith(("conv_", "num_conv_pos_"))},
    "hidden_size": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "encoder_max_relative_position": 12,
    "max_speech_positions": 100,
    "num_mel_bins": 4,
    "speech_decoder_prenet_units": 4,
    "speech_decoder_postnet_units": 4,
    "speaker_embedding_dim": 4,
    "initializer_range": 0.2,
}


def save(folder, model_class=SpeechT5ForSpeechToText, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(SpeechT5Config(**{**MINI, **changes})).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "mini")
    return tmp_path / "mini"


def load(folder, **settings):
    return load_family(folder, "speecht5", **settings)


def test_shapes_names_and_mode(folder):
    backbone, audio = load(folder), sound()
    encoded = backbone.encode(audio, everything(audio))
    assert (backbone.hidden_size, backbone.n_features, backbone.n_layers) == (16, 16, 2)
    assert (backbone.frame_rate_hz, backbone.max_samples) == (50.0, 100 * 320 + 340 - 1)
    assert [states.shape for states in encoded.hidden_states] == [(2, 49, 16)] * 3
    assert encoded.frame_mask.all()
    assert not any(module.training for module in backbone.modules())


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("as_floats", [False, True])
def test_the_same_hidden_states_as_transformers(tmp_path, norm, as_floats):
    model = save(tmp_path / "weights", feat_extract_norm=norm)
    backbone, audio = load(tmp_path / "weights"), sound()
    inputs = SpeechT5FeatureExtractor()(
        [clip.numpy() / 32768 for clip in audio], sampling_rate=16_000, return_tensors="pt"
    )
    with torch.no_grad():
        ours = backbone.encode(audio.float() / 32768 if as_floats else audio, everything(audio)).hidden_states
        theirs = model.speecht5.encoder(
            inputs.input_values.float(),
            attention_mask=inputs.attention_mask,
            output_hidden_states=True,
            return_dict=True,
        )
    for mine, reference in zip(ours, theirs.hidden_states, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[-1], theirs.last_hidden_state, rtol=1e-5, atol=1e-5)


def test_windows_longer_than_its_positions_are_refused_with_the_cure(folder):
    backbone = load(folder)
    longest = sound(1, backbone.max_samples)
    assert backbone.front_end(longest, everything(longest)).features.shape[1] == 100
    too_long = sound(1, backbone.max_samples + 1)
    with pytest.raises(ValueError, match=r"at most 2\.0 s.*--data\.window\.n_trs.*--data\.window\.context_s"):
        backbone.front_end(too_long, everything(too_long))


@pytest.mark.parametrize("frozen", [False, True])
def test_the_decoder_is_frozen_and_rests_while_the_encoder_learns(folder, frozen):
    backbone, audio = load(folder), sound()
    if frozen:
        backbone.freeze_feature_encoder()
    backbone.train()
    assert backbone.prenet.training
    assert not any(module.training for module in backbone.model.speecht5.decoder.modules())
    backbone.encode(audio, everything(audio)).hidden_states[-1].square().sum().backward()
    for name, parameter in backbone.model.named_parameters():
        idle = not name.startswith("speecht5.encoder.") or "masked_spec" in name or (frozen and "feature_enc" in name)
        assert (parameter.grad is None) == idle == (not parameter.requires_grad), name
    described = backbone.describe()
    assert described["n_parameters"] > described["n_parameters_encoder"] > 0
    assert described["attention_mask"]


@pytest.mark.parametrize("other", [SpeechT5ForTextToSpeech, SpeechT5ForSpeechToSpeech])
def test_checkpoints_for_other_tasks_are_refused(tmp_path, other):
    save(tmp_path / "other", other)
    with pytest.raises(WeightsError, match=rf"{other.__name__}.*SpeechT5ForSpeechToText.*microsoft/speecht5_asr"):
        load(tmp_path / "other")


def test_an_export_opens_without_prenet_by_automodel(folder, tmp_path):
    load(folder).model.save_pretrained(tmp_path / "export")
    assert not any("prenet" in name for name in AutoModel.from_pretrained(tmp_path / "export").state_dict())
