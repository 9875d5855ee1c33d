"""Weights whose parameters a wrapper renamed load to the same numbers; missing ones are never made up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from brainlit.backbones import BackboneConfig, SpeechBackbone, WeightsError, load_backbone
from brainlit.backbones.state_dicts import Renaming, find_renaming, unwrapped
from tests.backbones.conftest import save_mini

State = dict[str, Tensor]
OLD = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


def load(folder: Path, family: str = "wav2vec") -> SpeechBackbone:
    return load_backbone(BackboneConfig(family=family, weights=str(folder)))


def rewrite(folder: Path, change: Callable[[State], Any], form: str = "safetensors") -> State:
    """Save a folder's weights again after a change, in one of the forms; returns what they were."""
    path = folder / "model.safetensors"
    state = load_file(path)
    path.unlink()
    changed = change(state)
    if form == "safetensors":
        save_file({name: value.contiguous() for name, value in changed.items()}, path, metadata={"format": "pt"})
    elif form == "shards":
        parts = [dict(list(changed.items())[k::2]) for k in range(2)]
        for k, part in enumerate(parts):
            torch.save(part, folder / f"pytorch_model-{k + 1}.bin")
        index = {name: f"pytorch_model-{k + 1}.bin" for k, part in enumerate(parts) for name in part}
        text = '{"metadata": {}, "weight_map": ' + str(index).replace("'", '"') + "}"
        (folder / "pytorch_model.bin.index.json").write_text(text)
    else:
        torch.save(changed, folder / "pytorch_model.bin")
    return state


def assert_holds(backbone: SpeechBackbone, state: State) -> None:
    ours = backbone.model.state_dict()
    assert state.keys() == ours.keys()
    for name, value in state.items():
        assert torch.equal(ours[name], value), name


def begin(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("form", ["safetensors", "bin", "shards"])
@pytest.mark.parametrize("prefix", ["module.", "base_model.model.wav2vec2."])
def test_a_beginning_is_left_out(mini_folder: Path, prefix: str, form: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    state = rewrite(mini_folder, begin(prefix), form)
    backbone = load(mini_folder)
    assert_holds(backbone, state)
    assert backbone.origin["prefix"] == prefix
    assert f"names of parameters were read without '{prefix}'" in caplog.text


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.",
        "module._orig_mod.",
        "wav2vec2.",
        "wav2vec.",
        "model.wav2vec2.",
        "model.",
        "encoder.",
        "hubert.",
        "a.b.",
    ],
)
def test_any_one_beginning_is_left_out(mini_folder: Path, prefix: str) -> None:
    assert_holds(load(mini_folder), rewrite(mini_folder, begin(prefix)))


def test_a_model_with_a_head_that_ran_in_parallel(tmp_path: Path) -> None:
    """Names as torch's own DataParallel makes them."""
    model = save_mini(tmp_path)
    whole = transformers.Wav2Vec2ForCTC(model.config)
    whole.wav2vec2.load_state_dict(model.state_dict())
    wrapped = nn.DataParallel(whole)
    assert "module.wav2vec2.masked_spec_embed" in wrapped.state_dict()
    (tmp_path / "model.safetensors").unlink()
    torch.save(wrapped.state_dict(), tmp_path / "pytorch_model.bin")
    assert_holds(load(tmp_path), model.state_dict())


def test_parts_that_were_compiled_alone_are_seen_through(mini_folder: Path) -> None:
    def change(state: State) -> State:
        found = {name.replace("layers.", "layers._orig_mod."): value for name, value in state.items()}
        return {name.replace("fc", "_checkpoint_wrapped_module.fc"): value for name, value in found.items()}

    state = rewrite(mini_folder, change)
    backbone = load(mini_folder)
    assert_holds(backbone, state)
    assert "prefix" not in backbone.origin


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("inside", ["state_dict", "model_state_dict", "model"])
def test_what_lightning_saves_is_opened(mini_folder: Path, inside: str, old: bool) -> None:
    """Weights beside epochs and settings, of torch before 2 too."""

    def change(state: State) -> dict[str, Any]:
        for now, then in OLD.items() if old else ():
            state = {name.replace(now, then): value for name, value in state.items()}
        return {"epoch": 3, "hyper_parameters": {"lr": 1e-4}, inside: begin("backbone.")(state)}

    state = rewrite(mini_folder, change, "bin")
    assert_holds(load(mini_folder), state)


def test_half_precision_under_a_beginning_becomes_fp32(mini_folder: Path) -> None:
    state = rewrite(mini_folder, lambda state: {f"module.{name}": value.half() for name, value in state.items()})
    assert_holds(load(mini_folder), {name: value.half().float() for name, value in state.items()})


def test_heads_beside_the_model_are_left_where_they_are(mini_folder: Path) -> None:
    state = rewrite(
        mini_folder, lambda state: {**begin("model.wav2vec2.")(state), "model.lm_head.weight": torch.zeros(3, 16)}
    )
    assert_holds(load(mini_folder), state)


def test_an_encoder_that_was_saved_alone_is_enough(tmp_path: Path) -> None:
    """Whisper's encoder by itself says `layers`, where the model says `encoder.layers`."""
    sizes = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "vocab_size": 8}
    sizes |= {"decoder_layers": 1, "decoder_attention_heads": 1, "decoder_ffn_dim": 8}
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
    model = transformers.WhisperModel(transformers.WhisperConfig(**sizes, **tokens, begin_suppress_tokens=None))
    model.encoder.save_pretrained(tmp_path)
    assert "layers.0.fc1.weight" in load_file(tmp_path / "model.safetensors")
    backbone = load(tmp_path, "whisper")
    assert backbone.origin["lacks"] == ["decoder"]
    for name, parameter in model.encoder.named_parameters():
        assert torch.equal(parameter, backbone.encoder.get_parameter(name)), name


# What is refused


def test_too_few_parameters_are_refused_with_numbers_and_names(mini_folder: Path) -> None:
    def change(state: State) -> State:
        kept = {f"module.{name}": value for name, value in state.items() if "encoder.layers.1" not in name}
        return {**kept, "module.classifier.weight": torch.zeros(2)}

    state = rewrite(mini_folder, change)
    n_all = len(state) - ("masked_spec_embed" in state)
    with pytest.raises(WeightsError) as caught:
        load(mini_folder)
    message = str(caught.value)
    assert f"{n_all - 16} of the {n_all} parameters are in the file (under 'module.')" in message
    assert "missing: encoder.layers.1.attention.k_proj.bias" in message
    assert "and 13 more" in message
    assert "what it has instead: module.classifier.weight" in message
    assert "random:" in message


def test_another_models_names_are_refused(mini_folder: Path) -> None:
    rewrite(mini_folder, lambda state: {f"block{k}.w": value for k, value in enumerate(state.values())})
    with pytest.raises(WeightsError, match=r"0 of the \d+ parameters are in the file; missing: encoder.*block0\.w"):
        load(mini_folder)


def test_a_file_of_several_models_is_refused(mini_folder: Path) -> None:
    rewrite(mini_folder, lambda state: begin("student.")(state) | {f"teacher.{k}": v + 1 for k, v in state.items()})
    with pytest.raises(WeightsError, match=r"hold 2 such models, under student\., teacher\."):
        load(mini_folder)


def test_a_model_with_an_adapter_inside_is_refused(tmp_path: Path) -> None:
    import peft

    model = save_mini(tmp_path)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    save_file(dict(wrapped.state_dict()), tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"hold a LoRA adapter that is not merged .*merge_and_unload\(\)"):
        load(tmp_path)


# Names


def test_renamings_by_hand() -> None:
    needed = ["encoder.layers.0.fc.weight", "norm.bias"]
    names = [f"m.{name}" for name in needed]
    assert find_renaming(names, needed, "w") == Renaming(removed="m.")
    assert find_renaming([*names, "head.bias"], needed, "w") == Renaming(removed="m.")
    assert find_renaming(names[:1], needed, "w") is None
    assert find_renaming(needed, needed, "w") == Renaming()
    assert find_renaming(["layers.0.fc.weight"], needed[:1], "w") == Renaming(added="encoder.")
    renaming = find_renaming([f"_orig_mod.{name}" for name in names], needed, "w")
    assert renaming == Renaming(removed="m.", wrapped=("_orig_mod",))
    assert renaming is not None
    assert [renaming("m._orig_mod.norm.bias"), renaming("head.bias")] == ["norm.bias", None]
    assert str(renaming) == "without 'm.' and '_orig_mod'"
    assert unwrapped("a._fsdp_wrapped_module.b") == "a.b"
