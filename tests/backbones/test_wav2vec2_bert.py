"""w2v-BERT 2.0 behind the interface: the published features and states, and nothing from padding."""

import json

import pytest
import torch
from transformers import AutoModel, SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

from brainlit.backbones import WeightsError
from brainlit.backbones.tiny import PhoneListener, TinyRecipe, learn_phones, make_lesson, phone_inventory
from brainlit.backbones.wav2vec2_bert import Wav2Vec2BertBackbone
from tests.backbones.conftest import everything, sound
from tests.backbones.conftest import load as load_family
from tests.backbones.test_tiny import tone_story

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


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_batch_mates_change_nothing_in_real_frames(folder, side):
    backbone = load(folder)
    clip, mate = sound(1, 20 * 320 + 240), sound(1, 30 * 320 + 240, seed=1)
    padded = torch.full_like(mate, 20_000)
    mask = torch.zeros(2, mate.shape[1], dtype=torch.bool)
    place = slice(10 * 320, None) if side == "left" else slice(0, clip.shape[1])
    padded[:, place], mask[0, place], mask[1] = clip, True, True
    with torch.no_grad():
        alone = backbone.encode(clip, everything(clip))
        together = backbone.encode(torch.cat([padded, mate]), mask)
    for mine, reference in zip(together.hidden_states, alone.hidden_states, strict=True):
        torch.testing.assert_close(mine[0, together.frame_mask[0]], reference[0], rtol=1e-3, atol=1e-4)


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


def test_a_window_of_nothing_gives_no_nan(folder):
    audio, mask = sound(), torch.zeros(2, N_SAMPLES, dtype=torch.bool)
    mask[1] = True
    encoded = load(folder).encode(audio, mask)
    assert not encoded.frame_mask[0].any()
    assert all(states.isfinite().all() for states in encoded.hidden_states)


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


def test_frames_can_be_hidden_behind_the_mask_embedding(folder, tmp_path):
    backbone, audio = load(folder), sound()
    front = backbone.front_end(audio, everything(audio))
    hidden_from = torch.zeros_like(front.frame_mask)
    hidden_from[:, 10:20] = True
    changed = torch.where(hidden_from[:, :, None], torch.zeros(()), front.features)
    with torch.no_grad():
        one, other = (backbone.trunk(f, front.frame_mask, hidden_from)[-1] for f in (front.features, changed))
        assert torch.equal(one, other)
        assert not torch.allclose(one, backbone.trunk(front.features, front.frame_mask)[-1])
    save(tmp_path / "without", mask_time_prob=0.0)
    with pytest.raises(ValueError, match="no mask embedding"):
        load(tmp_path / "without").trunk(front.features, front.frame_mask, hidden_from)


def test_train_mode_changes_nothing_unless_a_switch_is_on(folder):
    audio = sound()

    def two_passes(**switches):
        backbone = load(folder, **switches)
        with torch.no_grad():
            quiet = backbone.encode(audio, everything(audio)).hidden_states
            backbone.train()
            noisy = backbone.encode(audio, everything(audio)).hidden_states
        return [float((a - b).abs().max()) for a, b in zip(quiet, noisy, strict=True)]

    torch.manual_seed(0)
    assert max(two_passes()) == 0
    assert two_passes(dropout=0.2)[-1] > 0.01
    assert two_passes(layerdrop=0.99)[0] == 0
    assert two_passes(layerdrop=0.99)[-1] > 0.01
    assert two_passes(spec_augment=True)[0] > 0.01


def test_every_linear_map_of_the_layers_is_called_so_that_adapters_act(folder):
    backbone, audio, called = load(folder), sound(), set()
    linear = {name: module for name, module in backbone.layers.named_modules() if isinstance(module, torch.nn.Linear)}
    for name, module in linear.items():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    backbone.encode(audio, everything(audio))
    assert called == set(linear)
    assert all(sum(name.endswith(target) for name in called) == 2 for target in backbone.lora_targets)


def test_checkpointed_layers_give_the_same_gradients(folder):
    def gradients(checkpointing):
        backbone, audio = load(folder), sound()
        backbone.gradient_checkpointing = checkpointing
        backbone.train()
        backbone.encode(audio, everything(audio)).hidden_states[-1].square().sum().backward()
        return [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None]

    for mine, reference in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(mine, reference)


def test_loaded_by_folder_at_random_and_by_name_and_exported(folder, tmp_path):
    first, again, other = (load(f"random:{folder}", seed=seed).model.feature_projection for seed in (1, 1, 2))
    assert torch.equal(first.projection.weight, again.projection.weight)
    assert not torch.equal(first.projection.weight, other.projection.weight)
    tiny = load("random:tiny")
    assert (tiny.hidden_size, tiny.n_layers, tiny.frame_rate_hz, tiny.max_samples) == (128, 4, 50.0, None)
    backbone = load(folder, dropout=0.1)
    description = backbone.describe()
    assert description["architecture"]["conformer_conv_dropout"] == 0.1
    assert json.loads(json.dumps(description)) == description
    backbone.model.save_pretrained(tmp_path / "export")
    again = AutoModel.from_pretrained(tmp_path / "export").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in backbone.model.state_dict().items())


def test_adapters_and_other_families_are_refused(tmp_path, mini_folder):
    save(tmp_path / "adapter", add_adapter=True)
    with pytest.raises(ValueError, match="adapter"):
        load(tmp_path / "adapter")
    with pytest.raises(WeightsError, match=r"'wav2vec2'.*'wav2vec2-bert'"):
        load(mini_folder)


def test_the_tiny_model_learns_tones_of_a_story_it_never_heard():
    stories = [tone_story(f"t{k}", k) for k in range(3)]
    inventory = phone_inventory(stories)
    *lessons, held_out = (make_lesson(story, inventory) for story in stories)
    listener = PhoneListener(load("random:tiny"), 4, seed=0)
    before = listener.accuracy(held_out, 3.0)["accuracy_all_frames"]
    learn_phones(listener, lessons, TinyRecipe(steps=14, batch_size=2, crop_s=2.0))
    assert listener.accuracy(held_out, 3.0)["accuracy_all_frames"] > max(0.7, before + 0.2)
