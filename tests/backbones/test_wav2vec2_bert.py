"""w2v-BERT 2.0 behind the interface: the published features and states, and nothing from padding."""

import pytest
import torch
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

from brainlit.backbones import WeightsError
from brainlit.backbones.wav2vec2_bert import Wav2Vec2BertBackbone
from tests.backbones.conftest import everything, sound
from tests.backbones.conftest import load as load_family

N_SAMPLES = 16_000
MINI = {
    **Wav2Vec2BertBackbone.tiny_architecture(),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_depthwise_kernel_size": 5,
    "left_max_position_embeddings": 6,
    "right_max_position_embeddings": 2,
    "initializer_range": 0.2,
}


def save(folder, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Wav2Vec2BertModel(Wav2Vec2BertConfig(**{**MINI, **changes})).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "mini")
    return tmp_path / "mini"


def load(folder, **settings):
    return load_family(folder, "w2v-bert", **settings)


def published(clips):
    """Features and mask of clips of any lengths."""
    sounds = [clip.numpy() / 32768 for clip in clips]
    return SeamlessM4TFeatureExtractor()(sounds, sampling_rate=16_000, return_tensors="pt")


@pytest.mark.parametrize("n_samples", [N_SAMPLES, 16_240, 560])
def test_the_published_features(folder, n_samples):
    """The extractor fills an odd last spectrogram frame up; here it is left out."""
    backbone, audio = load(folder), sound(n_samples=n_samples)
    front, theirs = backbone.front_end(audio, everything(audio)), published(audio)
    assert front.frame_mask.all()
    n_frames = int(theirs.attention_mask[0].sum())
    assert front.features.shape == (2, n_frames, 160) == (2, len(front.frame_times_s), backbone.n_features)
    torch.testing.assert_close(front.features, theirs.input_features[:, :n_frames].float(), rtol=0, atol=1e-3)


def test_features_of_a_padded_clip_are_those_of_the_clip(folder):
    backbone, audio = load(folder), sound()
    mask = everything(audio)
    mask[1, 9_000:] = False
    front = backbone.front_end(audio, mask)
    alone = published([audio[1, :9_000]])
    n_frames = int(alone.attention_mask.sum())
    assert front.frame_mask[1].tolist() == [k < n_frames for k in range(front.frame_mask.shape[1])]
    torch.testing.assert_close(front.features[1, :n_frames], alone.input_features[0, :n_frames], rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["relative_key", "relative", "rotary", None])
def test_the_same_hidden_states_as_transformers(tmp_path, kind):
    model = save(tmp_path / "weights", position_embeddings_type=kind)
    backbone, audio = load(tmp_path / "weights"), sound()
    mask = everything(audio)
    mask[1, 9_000:] = False
    with torch.no_grad():
        ours = backbone.encode(audio, mask)
        features = backbone.front_end(audio, mask).features
        theirs = model(features, attention_mask=ours.frame_mask.long(), output_hidden_states=True)
    for mine, reference in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        torch.testing.assert_close(mine[ours.frame_mask], reference[ours.frame_mask], rtol=1e-5, atol=1e-5)
    last = theirs.last_hidden_state[ours.frame_mask]
    torch.testing.assert_close(ours.hidden_states[-1][ours.frame_mask], last, rtol=1e-5, atol=1e-5)


def test_an_impulse_is_heard_by_the_frames_around_it_and_their_times_say_so(folder):
    """Before the bands are standardised over the clip, which every frame takes part in."""
    backbone, audio = load(folder), sound(1, 32_000)
    times_s = backbone.frame_times_s(32_000)
    assert float(times_s[0]) == pytest.approx(280 / 16_000)
    for sample in (1_500, 7_777, 16_000, 30_000):
        louder = audio.clone()
        louder[0, sample] += 2000
        spectra = [backbone.log_mel(x.float() / 32768)[0, : 2 * len(times_s)] for x in (audio, louder)]
        heard = (spectra[0] != spectra[1]).any(1).reshape(-1, 2).any(1).nonzero()[:, 0]
        assert heard.tolist() == [k for k in range(len(times_s)) if k * 320 <= sample < k * 320 + 560]
        assert abs(float(times_s[heard].mean()) - (sample + 0.5) / 16_000) <= 0.01 + 1e-6


def test_too_short_a_window_is_refused(folder):
    with pytest.raises(ValueError, match=r"559 samples.*560"):
        load(folder).front_end(sound(1, 559), everything(sound(1, 559)))


def test_everything_learns_but_the_mask_embedding(folder):
    backbone, audio = load(folder), sound()
    backbone.freeze_feature_encoder()
    backbone.train()
    backbone.encode(audio, everything(audio)).hidden_states[-1].square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is None) == ("masked_spec_embed" in name) == (not parameter.requires_grad), name


def test_adapters_and_other_families_are_refused(tmp_path, mini_folder):
    save(tmp_path / "adapter", add_adapter=True)
    with pytest.raises(ValueError, match="adapter"):
        load(tmp_path / "adapter")
    with pytest.raises(WeightsError, match=r"'wav2vec2'.*'wav2vec2-bert'"):
        load(mini_folder)
