"""Files of weights that are no weights: named, with what they are and how to fetch them."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from brainlit.backbones import BackboneConfig, WeightsError, load_backbone
from brainlit.cli.errors import explained
from brainlit.features.language_model import LanguageModelError, load_language_model
from brainlit.features.vectors import VectorFileError, read_word_vectors
from brainlit.weight_files import folder_damage, what_readers_say, without_bars, zip_damage
from tests.backbones.conftest import save_mini

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 377667514\n"
PAGE = b"\n<!DOCTYPE html><html><head><title>503</title></head></html>"
BROKEN = {
    "cut off": (lambda whole: whole[: len(whole) // 2], "cut off"),
    "short by a byte": (lambda whole: whole[:-1], "cut off"),
    "empty": (lambda whole: b"", "is empty"),
    "pointer": (lambda whole: POINTER, "git lfs pull"),
    "web page": (lambda whole: PAGE, "web page"),
    "noise": (lambda whole: bytes(range(1, 200)), "no safetensors file|nothing that torch.save wrote"),
}


@pytest.fixture(params=["model.safetensors", "pytorch_model.bin"])
def weights(request, tmp_path):
    """The weights of a small wav2vec 2.0 in each format."""
    save_mini(tmp_path)
    path = tmp_path / "model.safetensors"
    if request.param != path.name:
        torch.save(load_file(path), tmp_path / request.param)
        path.unlink()
    return tmp_path / request.param


def load(folder):
    return load_backbone(BackboneConfig(weights=str(folder)))


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_with_what_it_is(weights, kind, capsys):
    assert folder_damage(weights.parent) is None
    change, words = BROKEN[kind]
    weights.write_bytes(change(weights.read_bytes()))
    with pytest.raises(WeightsError, match=words) as caught:
        load(weights.parent)
    assert str(weights) in str(caught.value)
    assert "hf download" in str(caught.value)
    assert explained(lambda: load(weights.parent)) == 2
    assert capsys.readouterr().err.startswith("error: could not read the weights")


@pytest.mark.parametrize("kind", ["cut off", "empty", "pointer", "web page"])
def test_a_broken_shard_is_named(tmp_path, kind):
    save_mini(tmp_path).save_pretrained(tmp_path, max_shard_size="10KB")
    (tmp_path / "model.safetensors").unlink()
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    load(tmp_path)
    change, words = BROKEN[kind]
    shard.write_bytes(change(shard.read_bytes()))
    with pytest.raises(WeightsError, match=words) as caught:
        load(tmp_path)
    assert shard.name in str(caught.value)
    shard.unlink()
    with pytest.raises(WeightsError, match=f"1 are missing, first {shard.name}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not settings in JSON|not an index"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b"[1]", "a list, not an object"),
        (b"", "empty"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_settings_that_cannot_be_read_are_named(tmp_path, name, content, words):
    save_mini(tmp_path)
    if name != "config.json":
        (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=words) as caught:
        load(tmp_path)
    assert name in str(caught.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused(tmp_path, number):
    save_mini(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = "encoder.layers.1.attention.q_proj.weight"
    state[name][3, 4] = number
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"1 of 256 numbers of '{name}'"):
        load(tmp_path)


def test_other_shapes_than_the_config_says_are_refused(tmp_path):
    save_mini(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "intermediate_size": 48}))
    with pytest.raises(WeightsError, match=r"\(32,\) in the file and \(48,\) by the config"):
        load(tmp_path)


def test_files_that_run_code_are_refused_and_nothing_advises_it(tmp_path):
    save_mini(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"masked_spec_embed": torch.zeros(16), "sampler": BackboneConfig()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError) as caught:
        load(tmp_path)
    assert "weights_only" not in str(caught.value)
    assert "weights_only" not in what_readers_say(RuntimeError("Weights only load failed. Set weights_only=False"))


@pytest.mark.parametrize("kind", ["cut off", "empty", "pointer", "web page"])
def test_a_text_models_broken_file_is_named(tmp_path, kind):
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=16, n_positions=8)
    transformers.GPT2Model(config).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    change, words = BROKEN[kind]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(LanguageModelError, match=words):
        load_language_model(str(tmp_path))


@pytest.mark.parametrize("name", ["glove.txt", "vectors.bin", "english1000.hf5"])
@pytest.mark.parametrize(
    ("content", "words"), [(b"", "empty|holds no|cannot be read"), (POINTER, "git lfs pull"), (PAGE, "web page")]
)
def test_a_file_of_vectors_that_is_something_else_is_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VectorFileError, match=words):
        read_word_vectors(tmp_path / name)


def test_an_encoder_of_whisper_is_enough(tmp_path, caplog):
    sizes = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
    sizes |= {"decoder_layers": 1, "decoder_attention_heads": 1, "decoder_ffn_dim": 8, "vocab_size": 8}
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
    config = transformers.WhisperConfig(**sizes, **tokens, begin_suppress_tokens=None, num_labels=3)
    model = transformers.WhisperForAudioClassification(config)
    model.save_pretrained(tmp_path)
    config = BackboneConfig(family="whisper", weights=str(tmp_path))
    backbone = load_backbone(config)
    assert backbone.origin["lacks"] == ["decoder"]
    assert "have no decoder" in caplog.text
    for name, parameter in model.encoder.named_parameters():
        assert torch.equal(parameter, backbone.encoder.get_parameter(name))
    state = load_file(tmp_path / "model.safetensors")
    del state["encoder.layers.1.fc1.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lack 1 parameters.*encoder\.layers\.1\.fc1"):
        load_backbone(config)


def test_an_archive_that_contradicts_itself_is_told_in_words(tmp_path: Path) -> None:
    """zipfile raises where it only asks whether this is a zip, if the end says that it spans several disks."""
    torch.save({"a": torch.ones(3)}, tmp_path / "a.ckpt")
    content = bytearray((tmp_path / "a.ckpt").read_bytes())
    locator = content.index(b"PK\x06\x07")  # of the end in 64 bits: its last number is that of the disks
    content[locator + 16] = 2
    (tmp_path / "a.ckpt").write_bytes(content)
    assert "a.ckpt is" in str(zip_damage(tmp_path / "a.ckpt"))


def test_an_entry_that_is_marked_as_a_folder_is_damage(tmp_path: Path) -> None:
    """One bit of the list at the end of a zip, under no checksum: torch reads no tensor there, and says nothing."""
    path = tmp_path / "a.ckpt"
    torch.save({"weight": torch.arange(64.0)}, path)
    assert zip_damage(path) is None
    content = bytearray(path.read_bytes())
    listed = content.rindex(b"/data/0") - 4  # the archive's name begins the entry's, as in a/data/0
    entry = content.rindex(b"PK\x01\x02", 0, listed)
    content[entry + 38] |= 0x10
    path.write_bytes(content)
    assert "data/0 is marked as a folder" in str(zip_damage(path))


def test_an_entry_that_says_it_is_compressed_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"weight": torch.arange(64.0)}, path)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"/data/0"))
    content[entry + 10] |= 0x08  # deflated
    path.write_bytes(content)
    assert "a.ckpt is damaged" in str(zip_damage(path))


def test_no_bar_is_shown_for_what_takes_a_moment(tmp_path, capsys):
    save_mini(tmp_path)
    assert "Writing model shards" in capsys.readouterr().err, "transformers shows bars by itself"
    load(tmp_path)
    with without_bars():
        save_mini(tmp_path)
    assert capsys.readouterr().err == ""
    save_mini(tmp_path)
    assert "Writing model shards" in capsys.readouterr().err, "whoever saves besides has them"
