"""Which of a model's states on the hub, and which folder: by name, in the hub's cache, in folders copied by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from brainlit.backbones import BackboneConfig, SpeechBackbone, WeightsError, load_backbone
from brainlit.backbones.registry import checkpoint_file
from brainlit.cli.errors import explained
from brainlit.features.language_model import LanguageModelError, load_language_model
from brainlit.tuning.front_end_cache import front_end_key
from tests.backbones.conftest import save_mini

MAIN, TAGGED = "a" * 40, "b" * 40


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub's cache on a machine without a network, and an empty folder of weights of our own."""
    monkeypatch.setenv("BRAINLIT_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(hub: Path, commit: str, refs: tuple[str, ...] = (), subfolder: str = "", **changes: Any) -> Path:
    """A state of org/name as the hub's client stores it; each is another model."""
    repository = hub / "models--org--name"
    folder = repository / "snapshots" / commit / subfolder
    save_mini(folder, **changes)
    factor = 1 + int(commit[:2], 16) / 1000 + len(subfolder)
    state = {name: value * factor for name, value in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    for ref in refs:
        (repository / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / ref).write_text(commit)
    return folder


def load(weights: object, **settings: Any) -> SpeechBackbone:
    return load_backbone(BackboneConfig(weights=str(weights), **settings))


def assert_is(backbone: SpeechBackbone, folder: Path) -> None:
    """The numbers are those of the file in a folder."""
    saved, ours = load_file(folder / "model.safetensors"), backbone.model.state_dict()
    assert saved.keys() <= ours.keys()
    assert len(saved) > 40
    for name, value in saved.items():
        assert torch.equal(ours[name], value), name


@pytest.fixture
def states(hub: Path) -> dict[str, Path]:
    """Two states of one model: where main is now, and one with a tag."""
    return {"main": put(hub, MAIN, ("main",)), "tagged": put(hub, TAGGED, ("v1.0", "refs/pr/3"))}


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ({"weights": "org/name"}, "main"),
        ({"weights": "org/name@main"}, "main"),
        ({"weights": "org/name", "revision": "v1.0"}, "tagged"),
        ({"weights": "org/name@v1.0"}, "tagged"),
        ({"weights": "org/name@v1.0", "revision": "v1.0"}, "tagged"),
        ({"weights": f"org/name@{TAGGED}"}, "tagged"),
        ({"weights": "org/name@refs/pr/3"}, "tagged"),
    ],
)
def test_a_revision_is_taken_from_the_hubs_cache(given: dict[str, str], state: str, states: dict[str, Path]) -> None:
    backbone = load_backbone(BackboneConfig(**given))  # type: ignore[arg-type]
    assert_is(backbone, states[state])
    assert backbone.origin["hub_id"] == "org/name"
    assert backbone.origin["commit"] == {"main": MAIN, "tagged": TAGGED}[state]
    asked = given.get("revision") or given["weights"].partition("@")[2] or None
    assert backbone.origin.get("revision") == asked
    assert backbone.describe()["weights"] == ("org/name" if asked is None else f"org/name@{asked}")


def test_the_configuration_and_the_preparation_are_of_the_same_revision(hub: Path) -> None:
    put(hub, MAIN, ("main",))
    tagged = put(hub, TAGGED, ("v1.0",), intermediate_size=24)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    extractor.save_pretrained(tagged)
    found = {name: load(f"org/name{name}") for name in ("", "@v1.0")}
    sizes = {name: backbone.model.config.intermediate_size for name, backbone in found.items()}
    assert sizes == {"": 32, "@v1.0": 24}
    assert {name: backbone.describe()["normalises"] for name, backbone in found.items()} == {"": True, "@v1.0": False}
    assert load("random:org/name@v1.0").model.config.intermediate_size == 24
    assert load("random:org/name", revision="v1.0").model.config.intermediate_size == 24
    assert not load("random:org/name@v1.0").describe()["normalises"]
    assert checkpoint_file(found["@v1.0"], "preprocessor_config.json") == tagged / "preprocessor_config.json"
    assert checkpoint_file(found[""], "preprocessor_config.json") is None


def test_a_branch_that_moves_on_leaves_a_loaded_model_its_files(hub: Path, states: dict[str, Path]) -> None:
    backbone = load("org/name")
    put(hub, "c" * 40, ("main",))
    found = checkpoint_file(backbone, "model.safetensors")
    assert found is not None
    assert found.parent == states["main"]


def test_front_ends_of_revisions_are_kept_apart(states: dict[str, Path]) -> None:
    keys = []
    for revision in ("main", "v1.0", TAGGED):
        backbone = load("org/name", revision=revision)
        backbone.freeze_feature_encoder()
        keys.append(front_end_key(backbone))
    assert keys[0] != keys[1] == keys[2]


@pytest.mark.parametrize("in_hub", [True, False])
def test_a_subfolder_holds_another_model(hub: Path, tmp_path: Path, in_hub: bool) -> None:
    top = put(hub, MAIN, ("main",))
    inside = put(hub, MAIN, subfolder="runs/checkpoint-500")
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(inside)
    weights = "org/name" if in_hub else top
    backbone = load(weights, subfolder="runs/checkpoint-500")
    assert_is(backbone, inside)
    assert not backbone.describe()["normalises"]
    assert backbone.origin["subfolder"] == "runs/checkpoint-500"
    assert backbone.origin.get("commit") == (MAIN if in_hub else None)
    assert backbone.describe()["weights"] == f"{weights}, subfolder runs/checkpoint-500"
    assert_is(load(weights), top)
    found = checkpoint_file(backbone, "preprocessor_config.json")
    assert found is not None
    assert found == inside / "preprocessor_config.json"


def test_shards_and_half_precision_are_read_from_a_revision(hub: Path) -> None:
    folder = put(hub, TAGGED, ("v1.0",))
    model = transformers.Wav2Vec2Model.from_pretrained(folder).half()
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="10KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    backbone = load("org/name@v1.0")
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    for name, value in model.state_dict().items():
        assert torch.equal(backbone.model.state_dict()[name], value.float()), name


# Folders copied by hand


def test_a_folder_with_the_revision_in_its_name_comes_first(states: dict[str, Path], tmp_path: Path) -> None:
    own = tmp_path / "weights" / "org" / "name@v1.0"
    save_mini(own)
    backbone = load("org/name@v1.0")
    assert_is(backbone, own)
    assert backbone.origin == {"kind": "pretrained", "hub_id": "org/name", "revision": "v1.0"}
    assert_is(load("org/name"), states["main"])


def test_a_folder_of_another_revision_is_not_taken(hub: Path, tmp_path: Path) -> None:
    plain = tmp_path / "weights" / "org" / "name"
    save_mini(plain)
    with pytest.raises(WeightsError) as caught:
        load("org/name@v1.0")
    assert f"{plain} is there, and nothing in it says that it is of revision 'v1.0'" in str(caught.value)
    command = f"`hf download org/name --revision v1.0 --local-dir {tmp_path / 'weights' / 'org' / 'name@v1.0'}`"
    assert command in str(caught.value)
    note = plain / ".cache" / "huggingface" / "download" / "config.json.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{TAGGED}\netag\n1700000000.0\n")
    assert_is(load(f"org/name@{TAGGED}"), plain)
    plain.rename(plain.with_name(f"name@{MAIN}"))
    with pytest.raises(WeightsError, match=f"was downloaded from the commit {TAGGED}, and not from the one in its"):
        load("org/name", revision=MAIN)


# What is refused


def test_a_revision_that_is_not_here_is_said_with_how_to_fetch_it(states: dict[str, Path]) -> None:
    with pytest.raises(WeightsError, match=r"could not get weights 'org/name@v2' .*--revision v2 --local-dir"):
        load("org/name@v2")
    with pytest.raises(WeightsError, match=r"could not get weights 'org/name, subfolder none'"):
        load("org/name", subfolder="none")


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    save_mini(folder)
    for given in ({"weights": str(folder), "revision": "main"}, {"weights": f"{folder}@main"}):
        with pytest.raises(WeightsError, match=r"mine, and revision 'main' is asked for: a folder has no revision"):
            load(**given)
    folder.rename(tmp_path / "mine@home")
    assert_is(load(tmp_path / "mine@home"), tmp_path / "mine@home")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"weights": "org/name@v1.0", "revision": "main"}, r"name the revision 'v1\.0', and .* revision says 'main'"),
        ({"weights": "random:org/name@v1.0", "revision": "main"}, r"'v1\.0', and .*'main'; give one of the two"),
        ({"weights": "org/name@"}, "'' is no revision"),
        ({"weights": "org/name", "revision": "../../etc"}, "is no revision; give a branch, a tag or a commit"),
        ({"weights": "org/name", "subfolder": "../other"}, r"subfolder '\.\./other' is no folder inside"),
        ({"weights": "org/name", "subfolder": "/etc"}, "subfolder '/etc' is no folder inside"),
        ({"weights": "tiny", "revision": "main"}, "'tiny' are made on this machine and have no revision 'main'"),
        ({"weights": "tiny@main"}, "'tiny' are made on this machine and have no revision 'main'"),
        ({"weights": "random:tiny", "revision": "main"}, "'tiny' are made on this machine and have no revision"),
        ({"weights": "tiny", "subfolder": "a"}, "'tiny' are made on this machine and have no subfolder 'a'"),
    ],
)
def test_what_contradicts_itself_is_refused(given: dict[str, str], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        load(**given)


def test_a_subfolder_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    save_mini(tmp_path / "mine" / "checkpoint-500")
    with pytest.raises(WeightsError, match=r"has no subfolder 'checkpoint-50'; it has checkpoint-500"):
        load(tmp_path / "mine", subfolder="checkpoint-50")
    assert load(tmp_path / "mine", subfolder="checkpoint-500").hidden_size == 16


def test_a_size_takes_a_revision_too(hub: Path, states: dict[str, Path]) -> None:
    (hub / "models--org--name").rename(hub / "models--facebook--wav2vec2-base")
    moved = hub / "models--facebook--wav2vec2-base" / "snapshots" / TAGGED
    backbone = load("base@v1.0")
    assert_is(backbone, moved)
    assert backbone.origin["hub_id"] == "facebook/wav2vec2-base"
    assert load("random:base@v1.0").hidden_size == 16


def test_on_the_command_line_it_is_one_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    save_mini(tmp_path / "mine")
    assert explained(lambda: load(f"{tmp_path / 'mine'}@main")) == 2
    assert "a folder has no revision" in capsys.readouterr().err


# Text models


def test_a_text_model_has_revisions_too(hub: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?", pad_token="?")
    numbers = {}
    for commit, ref in ((MAIN, "main"), (TAGGED, "v1.0")):
        folder = hub / "models--org--text" / "snapshots" / commit
        config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=3, n_positions=8)
        with torch.random.fork_rng():
            torch.manual_seed(len(ref))
            model = transformers.GPT2Model(config)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (hub / "models--org--text" / "refs").mkdir(exist_ok=True)
        (hub / "models--org--text" / "refs" / ref).write_text(commit)
        numbers[ref] = model.wte.weight.detach().numpy()
    for name, ref in (("org/text", "main"), ("org/text@main", "main"), ("org/text@v1.0", "v1.0")):
        _, found = load_language_model(name)
        np.testing.assert_array_equal(found.wte.weight.detach().cpu().numpy(), numbers[ref])
    with pytest.raises(LanguageModelError, match=r"hf download org/text --revision v2 --local-dir models/text"):
        load_language_model("org/text@v2")
    (tmp_path / "folder").mkdir()
    with pytest.raises(LanguageModelError, match="there is no such folder"):
        load_language_model(f"{tmp_path / 'folder'}@main")


def test_the_origin_is_plain_json(states: dict[str, Path]) -> None:
    description = load("org/name@v1.0").describe()
    assert json.loads(json.dumps(description)) == description
