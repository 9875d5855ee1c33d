"""Adapters that peft saved: the numbers of its own merge, and what cannot be merged is refused in words."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from brainlit.backbones import BackboneConfig, SpeechBackbone, WeightsError, load_backbone
from brainlit.backbones.registry import checkpoint_file
from brainlit.cli.errors import explained
from tests.backbones.conftest import save_mini

ATTENTION = ["q_proj", "v_proj"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    save_mini(tmp_path / "base")
    return tmp_path / "base"


def draw(wrapped: nn.Module) -> None:
    """Everything that trains becomes something else than it began as."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad or "lora_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def adapted(base: Path, folder: Path, with_head: bool = False, **settings: Any) -> dict[str, Tensor]:
    """An adapter of a base in a folder, and the parameters of the bare model as peft merges it."""
    kind = transformers.Wav2Vec2ForCTC if with_head else transformers.Wav2Vec2Model
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind.from_pretrained(base)
        wrapped = peft.get_peft_model(model, peft.LoraConfig(**{"r": 2, "target_modules": ATTENTION, **settings}))
    draw(wrapped)
    wrapped.save_pretrained(folder)
    merged = wrapped.merge_and_unload()
    bare = merged.wav2vec2 if with_head else merged
    return {name: value.detach().clone() for name, value in bare.state_dict().items()}


def load(folder: Path | str, **settings: Any) -> SpeechBackbone:
    return load_backbone(BackboneConfig(weights=str(folder), **settings))


def assert_holds(backbone: SpeechBackbone, expected: dict[str, Tensor]) -> None:
    ours = backbone.model.state_dict()
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_alpha": 5},
        {"lora_alpha": 16, "use_rslora": True},
        {"r": 3, "rank_pattern": {"layers.1.attention.q_proj": 5}, "alpha_pattern": {"v_proj": 32}},
        {"target_modules": ["q_proj", "intermediate_dense", "projection"], "bias": "all"},
        {"modules_to_save": ["feature_projection"]},
        {"lora_bias": True},
        {"fan_in_fan_out": True},
        {"init_lora_weights": "gaussian"},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
    ],
    ids=lambda settings: "-".join(settings),
)
@pytest.mark.parametrize("with_head", [False, True])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_the_numbers_are_those_of_pefts_own_merge(
    base: Path, tmp_path: Path, settings: dict[str, Any], with_head: bool
) -> None:
    expected = adapted(base, tmp_path / "adapter", with_head, **settings)
    before = load(base).model.state_dict()
    assert any(not torch.equal(before[name], value) for name, value in expected.items())
    assert_holds(load(tmp_path / "adapter"), expected)


def test_the_numbers_are_those_of_the_formula(base: Path, tmp_path: Path) -> None:
    """W + B A alpha / rank, without peft: matrices written by hand."""
    folder, name = tmp_path / "adapter", "encoder.layers.0.feed_forward.intermediate_dense"
    generator = torch.Generator().manual_seed(2)
    down, up = torch.randn(4, 16, generator=generator), torch.randn(32, 4, generator=generator)
    for scaled, scale in ((False, 10 / 4), (True, 10 / math.sqrt(4))):
        write_adapter(folder, base, {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, use_rslora=scaled)
        plain, merged = load(base).model.get_parameter(f"{name}.weight"), load(folder)
        change = merged.model.get_parameter(f"{name}.weight") - plain
        expected = torch.einsum("or,ri->oi", up.double(), down.double()) * scale
        torch.testing.assert_close(change.double(), expected, rtol=0, atol=1e-5)
        assert torch.equal(merged.model.get_parameter(f"{name}.bias"), load(base).model.get_parameter(f"{name}.bias"))


def write_adapter(folder: Path, base: Path | str | None, tensors: dict[str, Tensor], **settings: Any) -> None:
    """As peft writes it, with what is given."""
    folder.mkdir(exist_ok=True)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 10, "base_model_name_or_path": base and str(base), **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(
        {f"base_model.model.{key}": value for key, value in tensors.items()}, folder / "adapter_model.safetensors"
    )


@pytest.mark.parametrize("form", ["bin", "half", "parallel", "older"])
def test_the_forms_in_which_adapters_come(base: Path, tmp_path: Path, form: str) -> None:
    folder = tmp_path / "adapter"
    expected = adapted(base, folder, with_head=True)
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    if form == "half":
        state = {key: value.half() for key, value in state.items()}
    if form == "parallel":
        state = {key.replace("base_model.model.", "base_model.model.module."): value for key, value in state.items()}
    if form == "older":
        state = {key.replace(".weight", ".default.weight"): value for key, value in state.items()}
    path.unlink()
    if form == "bin":
        torch.save(state, folder / "adapter_model.bin")
    else:
        save_file(state, path)
    backbone = load(folder)
    if form == "half":
        ours = backbone.model.state_dict()
        for name, value in expected.items():
            torch.testing.assert_close(ours[name], value, rtol=0, atol=2e-3)
        assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    else:
        assert_holds(backbone, expected)


def test_the_record_says_base_and_adapter(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    adapted(base, tmp_path / "adapter", with_head=True, modules_to_save=["lm_head"], lora_alpha=8)
    backbone = load(tmp_path / "adapter")
    found = backbone.origin["adapter"]
    assert (found["name"], found["rank"], found["alpha"], found["linear_maps"]) == ("adapter", 2, 8, 4)
    assert len(found["sha256"]) == 64
    assert backbone.describe()["weights"] == str(tmp_path / "adapter")
    assert json.loads(json.dumps(backbone.describe())) == backbone.describe()
    assert "what the adapter has for lm_head.bias, lm_head.weight is left out" in caplog.text
    assert "LoRA merged into 4 linear maps" in caplog.text


def test_the_base_may_be_said_where_the_adapter_does_not_know_it(base: Path, tmp_path: Path) -> None:
    expected = adapted(base, tmp_path / "adapter")
    moved = base.rename(tmp_path / "moved")
    with pytest.raises(WeightsError, match=r"changes '.*base', and that is not here: .*--model\.backbone\.adapter"):
        load(tmp_path / "adapter")
    backbone = load(tmp_path / "adapter", adapter_base=str(moved))
    assert_holds(backbone, expected)
    assert backbone.describe()["weights"] == f"{tmp_path / 'adapter'}, adapter of {moved}"
    write_adapter(tmp_path / "unsaid", None, {})
    with pytest.raises(WeightsError, match=r"does not say which model it changes .*adapter_base"):
        load(tmp_path / "unsaid")
    with pytest.raises(WeightsError, match="are no adapter; leave it out"):
        load(moved, adapter_base=str(moved))
    with pytest.raises(WeightsError, match="which is an adapter itself"):
        load(tmp_path / "adapter", adapter_base=str(tmp_path / "adapter"))


def test_an_adapter_and_its_base_are_found_in_the_hubs_cache(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("BRAINLIT_WEIGHTS", str(tmp_path / "weights"))
    places = {"org/base": ("a" * 40, "v1"), "lab/adapter": ("b" * 40, "v2")}
    folders = {}
    for hub_id, (commit, ref) in places.items():
        repository = tmp_path / "hub" / f"models--{hub_id.replace('/', '--')}"
        folders[hub_id] = repository / "snapshots" / commit
        folders[hub_id].parent.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / ref).write_text(commit)
    expected = adapted(base, folders["lab/adapter"])
    settings = json.loads((folders["lab/adapter"] / "adapter_config.json").read_text())
    settings |= {"base_model_name_or_path": "org/base", "revision": "v1"}
    (folders["lab/adapter"] / "adapter_config.json").write_text(json.dumps(settings))
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folders["lab/adapter"])
    base.rename(folders["org/base"])
    backbone = load("lab/adapter@v2")
    assert_holds(backbone, expected)
    assert not backbone.describe()["normalises"], "as the adapter was trained"
    origin = backbone.origin
    assert (origin["hub_id"], origin["revision"], origin["commit"]) == ("org/base", "v1", "a" * 40)
    assert (origin["adapter"]["name"], origin["adapter"]["revision"]) == ("lab/adapter", "v2")
    assert origin["adapter"]["commit"] == "b" * 40
    found = checkpoint_file(backbone, "preprocessor_config.json")
    assert found is not None
    assert found.parent == folders["lab/adapter"]


@pytest.mark.parametrize("there", [True, False])
def test_the_hub_is_asked_for_an_adapter_where_it_has_no_model(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """A hub that answers, with files that come when they are asked for by name."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("BRAINLIT_WEIGHTS", str(tmp_path / "weights"))
    for module in ("weights", "registry", "preparation"):
        monkeypatch.setattr(f"brainlit.backbones.{module}.why_unreachable", lambda: None)
    expected = adapted(base, tmp_path / "published")
    snapshot = tmp_path / "hub" / "models--lab--adapter" / "snapshots" / ("b" * 40)
    asked = []

    def answer(hub_id: str, name: str, revision: str | None = None) -> str:
        asked.append((hub_id, name, revision))
        if not there:
            raise OSError("404")
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes((tmp_path / "published" / name).read_bytes())
        (snapshot.parent.parent / "refs").mkdir(exist_ok=True)
        (snapshot.parent.parent / "refs" / "v2").write_text("b" * 40)
        return str(snapshot / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", answer)
    if there:
        assert_holds(load("lab/adapter@v2"), expected)
        assert asked == [("lab/adapter", f"adapter_{name}", "v2") for name in ("config.json", "model.safetensors")]
    else:
        with pytest.raises(WeightsError, match="could not get weights 'lab/adapter@v2' from the model hub"):
            load("lab/adapter@v2")


# What is refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "IA3"}, "is IA3, and LoRA alone can be merged here"),
        ({"peft_type": "ADALORA"}, "is ADALORA"),
        ({"peft_type": None}, "is None"),
        ({"use_dora": True}, "is DoRA"),
        ({"layer_replication": [[0, 2]]}, "LoRA on replicated layers"),
        ({"target_parameters": ["w"]}, "LoRA on parameters outside of linear maps"),
        ({"alora_invocation_tokens": [1]}, "activated LoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "LoRA that began from changed base weights .*pissa_niter_4"),
    ],
)
def test_other_kinds_are_refused_in_words(base: Path, tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    write_adapter(tmp_path / "adapter", base, {}, **settings)
    with pytest.raises(WeightsError, match=words) as caught:
        load(tmp_path / "adapter")
    assert "merge_and_unload" in str(caught.value)
    assert explained(lambda: load(tmp_path / "adapter")) == 2


Q = "encoder.layers.0.attention.q_proj"
ONE, TWO = torch.ones(4, 16), torch.ones(16, 4)


@pytest.mark.parametrize(
    ("tensors", "settings", "words"),
    [
        ({}, {}, "changes no linear map of Wav2Vec2Model; it has no matrices"),
        ({f"{Q}.lora_A.weight": ONE}, {}, r"has A\.weight alone, of A and B"),
        (
            {f"{Q}.lora_A.weight": ONE, f"{Q}.lora_B.weight": torch.ones(8, 4)},
            {},
            r"a change of \(8, 16\), .*\(16, 16\)",
        ),
        ({f"{Q}.lora_A.weight": ONE, f"{Q}.lora_B.weight": TWO}, {"r": 8}, "matrices of rank 4 .* says rank 8"),
        (
            {"encoder.layers.7.fc.lora_A.weight": ONE, "encoder.layers.7.fc.lora_B.weight": TWO},
            {},
            "'encoder.layers.7.fc' is no part of Wav2Vec2Model of this size",
        ),
        (
            {"classifier.lora_A.weight": ONE, "classifier.lora_B.weight": TWO},
            {},
            "changes no linear map of Wav2Vec2Model; it has classifier",
        ),
        (
            {"encoder.layer_norm.lora_A.weight": ONE, "encoder.layer_norm.lora_B.weight": TWO},
            {},
            "changes a LayerNorm, and linear maps alone",
        ),
        ({f"{Q}.lora_magnitude_vector": torch.ones(16)}, {}, "is no matrix of a linear map"),
        ({"encoder.layer_norm.weight": torch.ones(3)}, {}, r"has shape \(3,\), the model's \(16,\)"),
    ],
)
def test_what_fits_nothing_is_refused(
    base: Path, tmp_path: Path, tensors: dict[str, Tensor], settings: dict[str, Any], words: str
) -> None:
    write_adapter(tmp_path / "adapter", base, tensors, **settings)
    with pytest.raises(WeightsError, match=words):
        load(tmp_path / "adapter")


def test_files_that_are_missing_or_damaged_are_named(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    adapted(base, folder)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(WeightsError, match=r"adapter_model\.safetensors is cut off"):
        load(folder)
    path.unlink()
    with pytest.raises(WeightsError, match=r"has adapter_config\.json and neither adapter_model\.safetensors nor"):
        load(folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"adapter_config\.json is not settings in JSON"):
        load(folder)


def test_a_whole_model_beside_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    """transformers would put the adapter into the model, unmerged and untold."""
    adapted(base, tmp_path / "adapter")
    for path in (tmp_path / "adapter").iterdir():
        path.rename(base / path.name)
    with pytest.raises(WeightsError, match=r"holds a whole model and an adapter .*Move the adapter's files away"):
        load(base)


def test_numbers_that_are_none_are_refused(base: Path, tmp_path: Path) -> None:
    tensors = {f"{Q}.lora_A.weight": ONE * float("nan"), f"{Q}.lora_B.weight": TWO}
    write_adapter(tmp_path / "adapter", base, tensors)
    with pytest.raises(WeightsError, match="are NaN or infinite"):
        load(tmp_path / "adapter")
