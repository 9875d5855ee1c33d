"""SpeechT5's encoder behind the interface: transformers' numbers, the prenet included, and nothing from padding."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
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


def test_a_checkpoint_for_synthesis_is_refused_for_its_encoder_reads_text(tmp_path):
    save(tmp_path / "tts", SpeechT5ForTextToSpeech)
    words = r"SpeechT5ForTextToSpeech, whose encoder reads text: no part of it hears speech.*microsoft/speecht5_asr"
    with pytest.raises(WeightsError, match=words):
        load(tmp_path / "tts")
    settings = json.loads((tmp_path / "tts" / "config.json").read_text())
    del settings["architectures"]
    (tmp_path / "tts" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=r"has instead: .*speecht5\.encoder\.prenet\.embed_tokens\.weight"):
        load(tmp_path / "tts")
    settings["architectures"] = ["SpeechT5Model"]
    (tmp_path / "tts" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=r"are a SpeechT5Model.*SpeechT5ForSpeechToText.*microsoft/speecht5_asr"):
        load(tmp_path / "tts")


def test_the_encoder_of_voice_conversion_hears_as_its_own_model_does(tmp_path, caplog):
    whole = save(tmp_path / "vc", SpeechT5ForSpeechToSpeech)
    backbone, audio = load(tmp_path / "vc"), sound()
    assert backbone.origin["lacks"] == ["speecht5.decoder.prenet", "text_decoder_postnet"]
    assert "have no speecht5.decoder.prenet and text_decoder_postnet" in caplog.text
    for name, parameter in whole.speecht5.encoder.named_parameters():
        assert torch.equal(parameter, backbone.model.speecht5.encoder.get_parameter(name)), name
    with torch.no_grad():
        inputs = {"input_values": audio / 32768, "attention_mask": torch.ones_like(audio, dtype=torch.long)}
        expected = whole.speecht5.encoder(**inputs).last_hidden_state
        found = backbone.encode(audio, everything(audio)).hidden_states[-1]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_what_is_tied_to_the_words_of_the_decoder_is_not_missing(folder, caplog):
    assert not any(name.startswith("text_decoder_postnet") for name in load_file(folder / "model.safetensors"))
    backbone = load(folder)
    words = backbone.model.speecht5.decoder.prenet.embed_tokens.weight
    assert backbone.model.text_decoder_postnet.lm_head.weight is words
    assert "lacks" not in backbone.origin
    assert "is missing" not in caplog.text


def test_an_asr_checkpoint_that_lacks_a_layer_of_its_decoder_is_refused(folder):
    state = load_file(folder / "model.safetensors")
    del state["speecht5.decoder.wrapped_decoder.layers.0.feed_forward.output_dense.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lack 1 parameters.*wrapped_decoder\.layers\.0"):
        load(folder)


def test_an_export_opens_without_prenet_by_automodel(folder, tmp_path):
    load(folder).model.save_pretrained(tmp_path / "export")
    assert not any("prenet" in name for name in AutoModel.from_pretrained(tmp_path / "export").state_dict())
