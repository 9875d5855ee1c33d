"""Where weights come from, and what is said when they cannot be had."""

import json

import pytest
import torch

from brainlit.backbones import BackboneConfig, WeightsError, load_backbone


def load(weights, **settings):
    return load_backbone(BackboneConfig(weights=str(weights), **settings))


def numbers(backbone):
    return torch.cat([parameter.detach().flatten() for parameter in backbone.parameters()])


def rewrite_weights(folder, change):
    """Save the state dict again after a change to its keys, in the older format."""
    from safetensors.torch import load_file

    state = change(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")


def test_unknown_family_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'wav2vec'"):
        load_backbone(BackboneConfig(family="wav2vec2"))


@pytest.mark.parametrize(("setting", "value"), [("dropout", 1.0), ("layerdrop", -0.1)])
def test_impossible_probabilities_are_refused(setting, value):
    with pytest.raises(ValueError, match=setting):
        BackboneConfig(**{setting: value})


def test_no_weights_are_refused():
    with pytest.raises(ValueError, match="empty"):
        BackboneConfig(weights="")


@pytest.mark.parametrize("weights", ["/nowhere/model", "./nowhere", "~/no/such/model", "a/b/c"])
def test_a_missing_folder_is_said_to_be_missing(weights):
    with pytest.raises(WeightsError, match="no such folder"):
        load(weights)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"no config\.json"):
        load(tmp_path)


def test_an_unreachable_hub_is_reported_with_the_cure(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"no-one/no-such-model.*hf download"):
        load("no-one/no-such-model")


def test_another_familys_checkpoint_is_refused(mini_folder):
    settings = json.loads((mini_folder / "config.json").read_text())
    (mini_folder / "config.json").write_text(json.dumps({**settings, "model_type": "hubert"}))
    with pytest.raises(WeightsError, match=r"'hubert'.*'wav2vec2'"):
        load(mini_folder)


def test_missing_parameters_are_refused_not_made_up(mini_folder):
    rewrite_weights(mini_folder, lambda state: {k: v for k, v in state.items() if "layers.1.attention" not in k})
    with pytest.raises(WeightsError, match=r"lack 8 parameters.*layers\.1\.attention.*random:"):
        load(mini_folder)


def test_missing_weights_file_is_reported(mini_folder):
    (mini_folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"could not read the weights in .*mini"):
        load(mini_folder)


def test_unreadable_settings_are_reported(mini_folder):
    (mini_folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"could not read the weights in .*mini"):
        load(mini_folder)


def test_old_weight_norm_keys_load_to_the_same_numbers(mini_folder):
    new = numbers(load(mini_folder))
    old_names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}

    def rename(state):
        for now, then in old_names.items():
            assert any(now in key for key in state)
            state = {key.replace(now, then): value for key, value in state.items()}
        return state

    rewrite_weights(mini_folder, rename)
    torch.testing.assert_close(numbers(load(mini_folder)), new, rtol=0, atol=0)


def test_half_precision_checkpoints_become_fp32(mini_folder):
    rewrite_weights(mini_folder, lambda state: {key: value.half() for key, value in state.items()})
    assert {parameter.dtype for parameter in load(mini_folder).parameters()} == {torch.float32}


def test_random_weights_only_by_name_and_by_seed(mini_folder):
    pretrained = numbers(load(mini_folder))
    first, again, other = (numbers(load(f"random:{mini_folder}", seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first, pretrained)
    assert torch.equal(numbers(load(mini_folder, seed=5)), pretrained)


def test_random_architectures_by_name():
    tiny = load("random:tiny")
    assert (tiny.hidden_size, tiny.n_layers, tiny.frame_rate_hz) == (128, 4, 25.0)
    assert tiny.describe()["origin"] == {"kind": "random", "seed": 0}


def test_loading_leaves_the_random_state_alone(mini_folder):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    load(mini_folder)
    load(f"random:{mini_folder}")
    assert torch.equal(torch.rand(3), expected)
