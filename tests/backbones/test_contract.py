"""What holds for the families that are no kin of wav2vec 2.0: whisper, speecht5 and w2v-bert.

Of wav2vec 2.0 and its kin test_families and test_wav2vec_like have it.
"""

import json

import pytest
import torch
from transformers import AutoModel, AutoModelForSpeechSeq2Seq

from brainlit.backbones import WeightsError
from brainlit.backbones.tiny import PhoneListener, TinyRecipe, learn_phones, make_lesson, phone_inventory
from tests.backbones import test_speecht5, test_wav2vec2_bert, test_whisper
from tests.backbones.conftest import everything, load, sound
from tests.backbones.test_tiny import tone_story

SAVE = {"whisper": test_whisper.save, "speecht5": test_speecht5.save, "w2v-bert": test_wav2vec2_bert.save}
WITH_MASK_EMBEDDING = ["speecht5", "w2v-bert"]


@pytest.fixture(params=SAVE)
def family(request):
    return request.param


@pytest.fixture
def folder(family, tmp_path):
    SAVE[family](tmp_path / "mini")
    return tmp_path / "mini"


@pytest.fixture
def backbone(family, folder):
    return load(folder, family)


def test_a_window_of_nothing_gives_no_nan(backbone):
    audio, mask = sound(), torch.zeros(2, 16_000, dtype=torch.bool)
    mask[1] = True
    encoded = backbone.encode(audio, mask)
    assert not encoded.frame_mask[0].any()
    assert all(states.isfinite().all() for states in encoded.hidden_states)


@pytest.mark.parametrize("family", WITH_MASK_EMBEDDING, indirect=True)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_batch_mates_change_nothing_in_real_frames(backbone, side):
    """Positions are counted from the first real frame or relative, so this holds on both sides."""
    hop, rest = 320, 240 if backbone.family == "w2v-bert" else 0
    clip, mate = sound(1, 20 * hop + rest), sound(1, 30 * hop + rest, seed=1)
    padded = torch.full_like(mate, 20_000)
    mask = torch.zeros(2, mate.shape[1], dtype=torch.bool)
    place = slice(10 * hop, None) if side == "left" else slice(0, clip.shape[1])
    padded[:, place], mask[0, place], mask[1] = clip, True, True
    with torch.no_grad():
        alone = backbone.encode(clip, everything(clip))
        together = backbone.encode(torch.cat([padded, mate]), mask)
    assert backbone.frames.hop_samples == hop
    for mine, reference in zip(together.hidden_states, alone.hidden_states, strict=True):
        torch.testing.assert_close(mine[0, together.frame_mask[0]], reference[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", WITH_MASK_EMBEDDING, indirect=True)
def test_frames_can_be_hidden_behind_the_mask_embedding(family, backbone, tmp_path):
    audio = sound()
    front = backbone.front_end(audio, everything(audio))
    hidden_from = torch.zeros_like(front.frame_mask)
    hidden_from[:, 10:20] = True
    changed = torch.where(hidden_from[:, :, None], torch.zeros(()), front.features)
    with torch.no_grad():
        one, other = (backbone.trunk(f, front.frame_mask, hidden_from)[-1] for f in (front.features, changed))
        assert torch.equal(one, other)
        assert not torch.allclose(one, backbone.trunk(front.features, front.frame_mask)[-1])
    SAVE[family](tmp_path / "without", mask_time_prob=0.0)
    with pytest.raises(ValueError, match="no mask embedding"):
        load(tmp_path / "without", family).trunk(front.features, front.frame_mask, hidden_from)


def test_train_mode_changes_nothing_unless_a_switch_is_on(family, folder):
    audio = sound()

    def two_passes(**switches):
        backbone = load(folder, family, **switches)
        with torch.no_grad():
            front = backbone.front_end(audio, everything(audio))
            quiet = backbone.trunk(front.features, front.frame_mask)
            backbone.train()
            assert torch.equal(backbone.front_end(audio, everything(audio)).features, front.features)
            noisy = backbone.trunk(front.features, front.frame_mask)
        return [float((a - b).abs().max()) for a, b in zip(quiet, noisy, strict=True)]

    torch.manual_seed(0)
    assert max(two_passes()) == 0
    assert two_passes(dropout=0.2)[-1] > 0.01
    assert two_passes(layerdrop=0.99)[0] == 0
    assert two_passes(layerdrop=0.99)[-1] > 0.01
    assert two_passes(spec_augment=True)[0] > 0.01


def test_every_linear_map_of_the_layers_is_called_so_that_adapters_act(backbone):
    audio, called = sound(), set()
    linear = {name: module for name, module in backbone.layers.named_modules() if isinstance(module, torch.nn.Linear)}
    for name, module in linear.items():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    backbone.encode(audio, everything(audio))
    assert called == set(linear)
    assert all(sum(name.endswith(target) for name in called) == 2 for target in backbone.lora_targets)


def test_checkpointed_layers_give_the_same_gradients(family, folder):
    def gradients(checkpointing):
        backbone, audio = load(folder, family), sound()
        backbone.gradient_checkpointing = checkpointing
        backbone.train()
        backbone.encode(audio, everything(audio)).hidden_states[-1].square().sum().backward()
        return [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None]

    for mine, reference in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("family", ["whisper", "speecht5"], indirect=True)
def test_runs_under_bf16_autocast(backbone):
    audio = sound()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        low = backbone.encode(audio, everything(audio)).hidden_states[-1]
    with torch.no_grad():
        full = backbone.encode(audio, everything(audio)).hidden_states[-1]
    assert (low.float() - full).norm() / full.norm() < 0.05


@pytest.mark.parametrize(
    ("family", "settings", "architecture"),
    [
        (
            "whisper",
            {"dropout": 0.1, "layerdrop": 0.2, "spec_augment": True, "positions": "padded"},
            {
                "dropout": 0.1,
                "attention_dropout": 0.1,
                "activation_dropout": 0.1,
                "encoder_layerdrop": 0.2,
                "apply_spec_augment": True,
            },
        ),
        (
            "speecht5",
            {"dropout": 0.15, "layerdrop": 0.2, "spec_augment": True},
            {
                "hidden_dropout": 0.15,
                "attention_dropout": 0.15,
                "activation_dropout": 0.15,
                "feat_proj_dropout": 0.15,
                "encoder_layerdrop": 0.2,
            },
        ),
        ("w2v-bert", {"dropout": 0.1}, {"conformer_conv_dropout": 0.1}),
    ],
    indirect=["family"],
)
def test_switches_are_described_under_the_familys_names(family, folder, settings, architecture):
    description = load(folder, family, **settings).describe()
    found = description["architecture"]
    assert {name: found[name] for name in architecture} == architecture
    assert family == "w2v-bert" or "layerdrop" not in found
    assert description.get("positions") == settings.get("positions")
    assert json.loads(json.dumps(description)) == description


@pytest.mark.parametrize(
    ("family", "inside", "frame_rate_hz", "max_samples"),
    [
        ("whisper", "encoder.conv1", 50.0, 480_000),
        ("speecht5", "speecht5.encoder.prenet.feature_projection.projection", 25.0, None),
        ("w2v-bert", "feature_projection.projection", 50.0, None),
    ],
    indirect=["family"],
)
def test_random_weights_by_seed_and_by_name(family, folder, inside, frame_rate_hz, max_samples):
    loaded = [load(f"random:{folder}", family, seed=seed).model for seed in (1, 1, 2)]
    first, again, other = (model.get_submodule(inside).weight for model in loaded)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    tiny = load("random:tiny", family)
    assert (tiny.hidden_size, tiny.n_layers, tiny.frame_rate_hz) == (128, 4, frame_rate_hz)
    if family == "speecht5":
        assert tiny.strided
    else:
        assert tiny.max_samples == max_samples
    if family != "w2v-bert":
        assert tiny.describe()["n_parameters_encoder"] < 1.2e6


@pytest.mark.parametrize(
    ("family", "model_type"),
    [("whisper", "whisper"), ("speecht5", "speecht5"), ("w2v-bert", "wav2vec2-bert")],
    indirect=["family"],
)
@pytest.mark.parametrize("other", ["moonshine", "wav2vec2"])
def test_another_familys_checkpoint_is_refused(family, folder, model_type, other):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "model_type": other}))
    with pytest.raises(WeightsError, match=rf"'{other}'.*'{model_type}'"):
        load(folder, family)


def test_saved_it_opens_as_the_whole_model(family, backbone, tmp_path):
    backbone.model.save_pretrained(tmp_path / "export")
    auto_class = AutoModelForSpeechSeq2Seq if family == "speecht5" else AutoModel
    assert getattr(backbone, "auto_class", "AutoModel") == auto_class.__name__
    again = auto_class.from_pretrained(tmp_path / "export")
    assert isinstance(again, type(backbone.model))
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, backbone.model.state_dict()[name]), name
    assert set(again.state_dict()) == set(backbone.model.state_dict())


def test_the_tiny_model_learns_tones_of_a_story_it_never_heard(family):
    stories = [tone_story(f"t{k}", k) for k in range(3)]
    inventory = phone_inventory(stories)
    *lessons, held_out = (make_lesson(story, inventory) for story in stories)
    listener = PhoneListener(load("random:tiny", family, positions="truncated"), 4, seed=0)
    before = listener.accuracy(held_out, 3.0)["accuracy_all_frames"]
    learn_phones(listener, lessons, TinyRecipe(steps=14, batch_size=2, crop_s=2.0))
    assert listener.accuracy(held_out, 3.0)["accuracy_all_frames"] > max(0.7, before + 0.2)
