"""SpeechT5's encoder behind the interface: transformers' numbers, the prenet included, and nothing from padding."""

import json

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSpeechSeq2Seq,
    SpeechT5Config,
    SpeechT5FeatureExtractor,
    SpeechT5ForSpeechToSpeech,
    SpeechT5ForSpeechToText,
    SpeechT5ForTextToSpeech,
)

from brainlit.backbones import WeightsError
from brainlit.backbones.speecht5 import SpeechT5Backbone
from brainlit.backbones.tiny import PhoneListener, TinyRecipe, learn_phones, make_lesson, phone_inventory
from tests.backbones.conftest import MINI as WAV2VEC_MINI
from tests.backbones.conftest import everything, sound
from tests.backbones.conftest import load as load_family
from tests.backbones.test_tiny import tone_story

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


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_batch_mates_change_nothing_in_real_frames(folder, side):
    """Positions are counted from the first real frame, so this holds on both sides."""
    backbone = load(folder)
    hop = backbone.frames.hop_samples
    clip, mate = sound(1, 20 * hop), sound(1, 30 * hop, seed=1)
    padded = torch.full((1, 30 * hop), 20_000, dtype=torch.int16)
    mask = torch.zeros(2, 30 * hop, dtype=torch.bool)
    place = slice(10 * hop, None) if side == "left" else slice(0, 20 * hop)
    padded[:, place], mask[0, place], mask[1] = clip, True, True
    with torch.no_grad():
        alone = backbone.encode(clip, everything(clip))
        together = backbone.encode(torch.cat([padded, mate]), mask)
    for mine, reference in zip(together.hidden_states, alone.hidden_states, strict=True):
        torch.testing.assert_close(mine[0, together.frame_mask[0]], reference[0], rtol=1e-3, atol=1e-4)


def test_a_window_of_nothing_gives_no_nan(folder):
    audio, mask = sound(), torch.zeros(2, N_SAMPLES, dtype=torch.bool)
    mask[1] = True
    encoded = load(folder).encode(audio, mask)
    assert not encoded.frame_mask[0].any()
    assert all(states.isfinite().all() for states in encoded.hidden_states)


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


def test_switches_are_described_under_its_own_names(folder):
    description = load(folder, dropout=0.15, layerdrop=0.2, spec_augment=True).describe()
    settings = description["architecture"]
    names = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "encoder_layerdrop")
    assert [settings[name] for name in names] == [0.15] * 4 + [0.2]
    assert "layerdrop" not in settings
    assert json.loads(json.dumps(description)) == description


def test_random_weights_by_seed_and_by_name(folder):
    first, again, other = (load(f"random:{folder}", seed=seed).prenet.feature_projection for seed in (1, 1, 2))
    assert torch.equal(first.projection.weight, again.projection.weight)
    assert not torch.equal(first.projection.weight, other.projection.weight)
    tiny = load("random:tiny")
    assert (tiny.hidden_size, tiny.n_layers, tiny.frame_rate_hz, tiny.strided) == (128, 4, 25.0, True)
    assert tiny.describe()["n_parameters_encoder"] < 1.2e6


@pytest.mark.parametrize("other", [SpeechT5ForTextToSpeech, SpeechT5ForSpeechToSpeech])
def test_checkpoints_for_other_tasks_are_refused(tmp_path, other):
    save(tmp_path / "other", other)
    with pytest.raises(WeightsError, match=rf"{other.__name__}.*SpeechT5ForSpeechToText.*microsoft/speecht5_asr"):
        load(tmp_path / "other")


def test_another_familys_checkpoint_is_refused(mini_folder):
    with pytest.raises(WeightsError, match=r"'wav2vec2'.*'speecht5'"):
        load(mini_folder)


def test_an_export_opens_whole_by_its_auto_class_and_without_prenet_by_automodel(folder, tmp_path):
    backbone = load(folder)
    backbone.model.save_pretrained(tmp_path / "export")
    assert backbone.auto_class == "AutoModelForSpeechSeq2Seq"
    again = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "export")
    assert isinstance(again, SpeechT5ForSpeechToText)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, backbone.model.state_dict()[name]), name
    assert not any("prenet" in name for name in AutoModel.from_pretrained(tmp_path / "export").state_dict())


def test_runs_under_bf16_autocast(folder):
    backbone, audio = load(folder), sound()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        low = backbone.encode(audio, everything(audio)).hidden_states[-1]
    with torch.no_grad():
        full = backbone.encode(audio, everything(audio)).hidden_states[-1]
    assert (low.float() - full).norm() / full.norm() < 0.05


def test_the_tiny_model_learns_tones_of_a_story_it_never_heard():
    stories = [tone_story(f"t{k}", k) for k in range(3)]
    inventory = phone_inventory(stories)
    *lessons, held_out = (make_lesson(story, inventory) for story in stories)
    listener = PhoneListener(load("random:tiny"), 4, seed=0)
    before = listener.accuracy(held_out, 3.0)["accuracy_all_frames"]
    learn_phones(listener, lessons, TinyRecipe(steps=14, batch_size=2, crop_s=2.0))
    assert listener.accuracy(held_out, 3.0)["accuracy_all_frames"] > max(0.7, before + 0.2)
