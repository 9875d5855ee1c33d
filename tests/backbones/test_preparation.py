"""Sound is prepared as the feature extractor beside the weights says; the numbers are those of transformers."""

import json

import pytest
import torch
import transformers

from brainlit.backbones import BackboneConfig, WeightsError, load_backbone
from brainlit.backbones.base import SOUND_KEY
from brainlit.results.export import feature_extractor
from tests.backbones.conftest import CONVOLUTIONAL, everything, load, save_mini

WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_layers": 1,
    "decoder_attention_heads": 1,
    "decoder_ffn_dim": 1,
    "vocab_size": 8,
    "max_target_positions": 1,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 0,
    "begin_suppress_tokens": None,
    "num_mel_bins": 12,
}
BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_depthwise_kernel_size": 3,
}
SPEECHT5 = {
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_layers": 1,
    "decoder_attention_heads": 1,
    "decoder_ffn_dim": 1,
    "max_text_positions": 1,
    "feat_extract_norm": "group",
}


def write_extractor(folder, kind, **said):
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_extractor_type": kind, **said}))


def waveform_folder(folder, family="wav2vec", norm="layer", **said):
    model = save_mini(folder, family, feat_extract_norm=norm)
    write_extractor(folder, "Wav2Vec2FeatureExtractor", **said)
    return model


def clip(rms, n_samples=16_000):
    """Noise with an offset, in whole steps of int16."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n_samples, generator=generator) * rms + rms / 2
    return (noise * 32768).round().to(torch.int16)


def theirs(folder, encoder, audio, **options):
    """Hidden states of transformers, with the folder's own extractor."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor((audio.float() / 32768).numpy(), sampling_rate=16_000, return_tensors="pt", **options)
    with torch.no_grad():
        return encoder(**inputs, output_hidden_states=True).hidden_states


def ours(backbone, audio):
    with torch.no_grad():
        return backbone.encode(audio[None], everything(audio[None])).hidden_states


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rms", [0.1, 0.002])
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("family", CONVOLUTIONAL)
def test_waveform_models_hear_what_their_extractor_gives(tmp_path, family, norm, normalised, rms):
    model = waveform_folder(tmp_path, family, norm, do_normalize=normalised)
    assert_same(ours(load(tmp_path, family), clip(rms)), theirs(tmp_path, model, clip(rms)))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("norm", ["layer", "group"])
def test_padding_is_attended_to_as_the_extractor_says(tmp_path, norm, masked):
    model = waveform_folder(tmp_path, "wav2vec", norm, do_normalize=False, return_attention_mask=masked)
    backbone = load(tmp_path)
    audio, heard = clip(0.1), 9_000
    mask = torch.arange(len(audio)) < heard
    with torch.no_grad():
        encoded = backbone.encode(audio[None], mask[None])
    expected = theirs(tmp_path, model, audio[:heard], padding="max_length", max_length=len(audio))
    real = encoded.frame_mask[0]
    for one, other in zip(encoded.hidden_states, expected, strict=True):
        torch.testing.assert_close(one[0, real], other[0, real], rtol=0, atol=1e-4)
    assert backbone.uses_attention_mask is masked


@pytest.mark.parametrize("rms", [0.1, 0.002])
@pytest.mark.parametrize(
    ("said", "positions"), [({}, 100), ({"n_fft": 512, "hop_length": 200}, 80), ({"chunk_length": 3}, 150)]
)
def test_whisper_hears_the_spectrogram_that_its_extractor_makes(tmp_path, said, positions, rms):
    model = transformers.WhisperModel(transformers.WhisperConfig(**WHISPER, max_source_positions=positions)).eval()
    model.save_pretrained(tmp_path)
    settings = {"feature_size": 12, "chunk_length": 2, "return_attention_mask": False, **said}
    write_extractor(tmp_path, "WhisperFeatureExtractor", **settings)
    backbone = load(tmp_path, "whisper", positions="padded")
    assert_same(ours(backbone, clip(rms)), theirs(tmp_path, model.encoder, clip(rms)))
    assert backbone.frame_times_s(16_000)[1] == pytest.approx(2 * said.get("hop_length", 160) / 16_000)


@pytest.mark.parametrize("rms", [0.1, 0.002])
@pytest.mark.parametrize(("stride", "n_mels"), [(2, 80), (1, 40), (3, 20)])
def test_w2v_bert_stacks_as_its_extractor_says(tmp_path, stride, n_mels, rms):
    config = transformers.Wav2Vec2BertConfig(**BERT, feature_projection_input_dim=stride * n_mels)
    model = transformers.Wav2Vec2BertModel(config).eval()
    model.save_pretrained(tmp_path)
    said = {"stride": stride, "num_mel_bins": n_mels, "feature_size": n_mels, "padding_value": 1}
    write_extractor(tmp_path, "SeamlessM4TFeatureExtractor", **said)
    expected = theirs(tmp_path, model, clip(rms), return_attention_mask=False)  # of stride 1 its mask is empty
    assert_same(ours(load(tmp_path, "w2v-bert"), clip(rms)), expected)


@pytest.mark.parametrize("rms", [0.1, 0.002])
@pytest.mark.parametrize("normalised", [True, False])
def test_speecht5_hears_what_its_extractor_gives(tmp_path, normalised, rms):
    model = save_mini(tmp_path, "speecht5", **SPEECHT5)
    write_extractor(tmp_path, "SpeechT5FeatureExtractor", do_normalize=normalised)
    encoder = model.speecht5.encoder
    assert_same(ours(load(tmp_path, "speecht5"), clip(rms)), theirs(tmp_path, encoder, clip(rms)))


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"sampling_rate": 8000}, "8000 Hz"),
        ({"feature_size": 2}, "feature_size is 2"),
        ({"padding_value": -1.0}, "padding_value"),
        ({"do_normalize": "false"}, "do_normalize"),
        ({"feature_extractor_type": "WhisperFeatureExtractor"}, "it is a WhisperFeatureExtractor"),
    ],
)
def test_what_cannot_be_honoured_is_refused(tmp_path, said, named):
    waveform_folder(tmp_path)
    write_extractor(tmp_path, said.pop("feature_extractor_type", "Wav2Vec2FeatureExtractor"), **said)
    for weights in (str(tmp_path), f"random:{tmp_path}"):
        with pytest.raises(WeightsError, match=named):
            load_backbone(BackboneConfig(weights=weights))


@pytest.mark.parametrize("said", [{"feature_size": 80}, {"chunk_length": 30}, {"dither": 0.1}, {"sampling_rate": 8000}])
def test_a_spectrogram_that_does_not_fit_whisper_is_refused(tmp_path, said):
    model = transformers.WhisperModel(transformers.WhisperConfig(**WHISPER, max_source_positions=100))
    model.save_pretrained(tmp_path)
    write_extractor(tmp_path, "WhisperFeatureExtractor", **{"feature_size": 12, "chunk_length": 2, **said})
    with pytest.raises(WeightsError, match="does not fit"):
        load(tmp_path, "whisper")


def test_an_extractor_that_is_no_json_is_refused(tmp_path):
    waveform_folder(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json cannot be read"):
        load(tmp_path)


def test_an_extractor_inside_a_processor_is_read(tmp_path):
    waveform_folder(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    nested = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": False}
    (tmp_path / "processor_config.json").write_text(json.dumps({"feature_extractor": nested}))
    assert not load(tmp_path).normalises


def test_without_an_extractor_the_usual_way_is_taken_and_said(tmp_path, caplog):
    save_mini(tmp_path)
    assert load(tmp_path).normalises
    assert "no preprocessor_config.json" in caplog.text
    assert "normalised" in caplog.text


def test_what_was_said_travels_with_the_architecture(tmp_path):
    waveform_folder(tmp_path, do_normalize=False)
    backbone = load(tmp_path)
    assert backbone.architecture()[SOUND_KEY] == {"do_normalize": False}
    assert not feature_extractor(backbone).do_normalize
    assert not load_backbone(BackboneConfig(weights=f"random:{tmp_path}")).normalises
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "config.json").write_text(json.dumps(backbone.architecture()))
    assert not load_backbone(BackboneConfig(weights=f"random:{tmp_path / 'alone'}")).normalises


def test_the_usual_way_leaves_no_trace(tmp_path):
    """So that checkpoints of before are those of the same architecture."""
    waveform_folder(tmp_path, do_normalize=True, return_attention_mask=True)
    assert SOUND_KEY not in load(tmp_path).architecture()
