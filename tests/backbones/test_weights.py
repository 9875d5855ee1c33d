"""Where weights come from, and what is said when they cannot be had."""

import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
import transformers
from filelock import FileLock
from safetensors.torch import load_file, save_file

from brainlit.backbones import BackboneConfig, WeightsError, load_backbone
from brainlit.backbones.addresses import Address
from brainlit.backbones.weights import cached_folder, fetch, settings_key
from brainlit.files import CONTENTS, contents_damage, temporary_beside
from brainlit.paths import cache_dir
from tests.backbones.conftest import save_mini


def load(weights, **settings):
    return load_backbone(BackboneConfig(weights=str(weights), **settings))


@pytest.fixture(autouse=True)
def weights_dir(monkeypatch, tmp_path):
    """Our own folder of weights, and an empty cache of the hub's."""
    monkeypatch.setenv("BRAINLIT_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    return tmp_path / "weights"


def numbers(backbone):
    return torch.cat([parameter.detach().flatten() for parameter in backbone.parameters()])


def rewrite_weights(folder, change, old_format=True):
    """Save the state dict again after a change to its keys, by default in the older format."""
    state = change(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    if old_format:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


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


def test_a_file_is_no_folder(mini_folder):
    with pytest.raises(WeightsError, match=r"are a file, and a folder is needed: .*brainlit export"):
        load(mini_folder / "model.safetensors")


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"no config\.json"):
        load(tmp_path)


def test_an_unreachable_hub_is_reported_with_the_cure(monkeypatch, weights_dir):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError) as caught:
        load("base")
    folder = weights_dir / "facebook" / "wav2vec2-base"
    message = str(caught.value)
    assert "HF_HUB_OFFLINE" in message
    assert f"`hf download facebook/wav2vec2-base --local-dir {folder}`" in message
    assert all(f in message for f in ("config.json", "model.safetensors", "preprocessor_config.json"))


@pytest.mark.parametrize("through_proxy", [False, True])
def test_without_a_network_it_fails_at_once(monkeypatch, through_proxy):
    """The hub's client would try six times, with pauses."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    if through_proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.invalid")
    else:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1 cannot be reached.*hf download no-one/no-such-model"):
        load("no-one/no-such-model")
    assert time.monotonic() - started < 5


def test_a_hub_that_answers_is_asked(monkeypatch):
    asked = []

    def get(local_files_only):
        asked.append(local_files_only)
        raise OSError("no such model\non the hub")

    monkeypatch.setattr("brainlit.backbones.weights.why_unreachable", lambda: None)
    with pytest.raises(WeightsError, match="a/b' from the model hub: no such model They"):
        fetch(Address("a/b"), get)
    assert asked == [True, False]


def test_the_local_folder_comes_before_the_hub(weights_dir):
    folder = weights_dir / "facebook" / "wav2vec2-base"
    save_mini(folder)
    note = folder / ".cache" / "huggingface" / "download" / "config.json.metadata"
    backbone = load("base")
    assert backbone.hidden_size == 16
    assert backbone.origin == {"kind": "pretrained", "hub_id": "facebook/wav2vec2-base"}
    note.parent.mkdir(parents=True)
    note.write_text("abc123\netag\n1700000000.0\n")
    assert load("facebook/wav2vec2-base").origin["commit"] == "abc123"


def test_by_default_the_local_folder_is_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("BRAINLIT_WEIGHTS")
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))
    save_mini(tmp_path / "cache" / "weights" / "org" / "name")
    assert load("org/name").hidden_size == 16
    assert load("random:org/name").hidden_size == 16


def test_the_hubs_cache_is_used_without_asking_the_hub(monkeypatch, tmp_path):
    stored = tmp_path / "hub" / "models--org--name"
    save_mini(stored / "snapshots" / ("0" * 40))
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("brainlit.backbones.weights.why_unreachable", lambda: pytest.fail("the hub was asked"))
    backbone = load("org/name")
    assert backbone.origin == {"kind": "pretrained", "hub_id": "org/name", "commit": "0" * 40}


def test_a_local_folder_that_is_not_whole_is_reported(weights_dir):
    save_mini(weights_dir / "org" / "name")
    (weights_dir / "org" / "name" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"could not read the weights in .*org/name.*It needs config\.json"):
        load("org/name")


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


@pytest.mark.parametrize("old_format", [True, False], ids=["bin", "safetensors"])
@pytest.mark.parametrize("family", ["wav2vec", "hubert", "wavlm", "unispeech-sat"])
def test_old_weight_norm_keys_load_to_the_same_numbers(tmp_path, family, old_format):
    """As saved before torch 2 (transformers #26796, #31633): they once loaded as random numbers."""
    folder = tmp_path / "mini"
    save_mini(folder, family)
    backbone = load(folder, family=family)
    new, positions = numbers(backbone), backbone.encoder.pos_conv_embed.conv.weight
    old_names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}

    def rename(state):
        for now, then in old_names.items():
            assert any(now in key for key in state)
            state = {key.replace(now, then): value for key, value in state.items()}
        return state

    rewrite_weights(folder, rename, old_format)
    again = load(folder, family=family)
    torch.testing.assert_close(numbers(again), new, rtol=0, atol=0)
    torch.testing.assert_close(again.encoder.pos_conv_embed.conv.weight, positions, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("family", "saved_as"),
    [
        ("wav2vec", "Wav2Vec2ForPreTraining"),
        ("wav2vec", "Wav2Vec2ForCTC"),
        ("hubert", "HubertForCTC"),
        ("wavlm", "WavLMForCTC"),
        ("data2vec", "Data2VecAudioForCTC"),
        ("unispeech-sat", "UniSpeechSatForPreTraining"),
    ],
)
def test_checkpoints_with_a_head_load_without_it(tmp_path, family, saved_as):
    model = save_mini(tmp_path / "bare", family)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        whole = getattr(transformers, saved_as)(model.config)
    whole.base_model.load_state_dict(model.state_dict())
    whole.save_pretrained(tmp_path / "whole")
    bare, headless = (load(tmp_path / name, family=family) for name in ("bare", "whole"))
    torch.testing.assert_close(numbers(headless), numbers(bare), rtol=0, atol=0)


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
    large = load("random:tiny-large")
    assert (large.hidden_size, large.n_layers) == (256, 6)
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


# --- cache
# Folders that are made once: whole, checked, and made again when damaged.


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))


class Builder:
    """Writes two files and counts."""

    def __init__(self):
        self.n_calls = 0

    def __call__(self, folder):
        self.n_calls += 1
        (folder / "a.txt").write_text("alpha")
        (folder / "deep").mkdir()
        (folder / "deep" / "b.bin").write_bytes(b"beta")


def test_cache_dir_follows_the_environment(tmp_path, monkeypatch):
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("BRAINLIT_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "brainlit"


def test_built_once_per_settings():
    build = Builder()
    first = cached_folder("thing", {"seed": 0, "steps": 3}, build)
    again = cached_folder("thing", {"steps": 3, "seed": 0}, build)
    other = cached_folder("thing", {"steps": 3, "seed": 1}, build)
    assert first == again != other
    assert build.n_calls == 2
    assert (first / "deep" / "b.bin").read_bytes() == b"beta"
    assert json.loads((first / CONTENTS).read_text())["settings"] == {"seed": 0, "steps": 3}


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "a.txt").write_text("alphb"),
        lambda folder: (folder / "a.txt").unlink(),
        lambda folder: (folder / CONTENTS).unlink(),
        lambda folder: (folder / CONTENTS).write_text("{"),
    ],
    ids=["changed", "missing", "no contents", "broken contents"],
)
def test_a_damaged_folder_is_made_again(harm, caplog):
    build = Builder()
    folder = cached_folder("thing", {}, build)
    harm(folder)
    assert contents_damage(folder)
    assert cached_folder("thing", {}, build) == folder
    assert build.n_calls == 2
    assert contents_damage(folder) is None
    assert "damaged" in caplog.text


def test_a_failing_build_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached_folder("thing", {}, fail)
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o027, 0o077])
def test_who_may_read_the_folder_may_read_its_files(umask):
    """safetensors makes its files private, as tempfile does."""

    def build(folder):
        (folder / "deep").mkdir()
        save_file({"a": torch.zeros(2)}, folder / "deep" / "model.safetensors")
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as private:
            assert Path(private.name).stat().st_mode & 0o777 == 0o600

    before = os.umask(umask)
    try:
        folder = cached_folder("thing", {"umask": umask}, build)
    finally:
        os.umask(before)
    paths = [folder, *folder.rglob("*")]
    assert len(paths) == 5
    for path in paths:
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_a_cache_that_may_only_be_read_is_read(monkeypatch):
    build = Builder()
    folder = cached_folder("thing", {}, build)

    def refuse(lock, *args, **options):
        raise PermissionError(13, "Permission denied", lock.lock_file)

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert cached_folder("thing", {}, build) == folder
    (folder / "a.txt").write_text("other")
    with pytest.raises(PermissionError):
        cached_folder("thing", {}, build)
    assert build.n_calls == 1


def test_others_wait_for_the_first():
    build = Builder()
    threads = [threading.Thread(target=cached_folder, args=("thing", {}, build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert build.n_calls == 1


def test_keys_do_not_depend_on_order_and_do_on_values():
    assert settings_key({"a": 1, "b": 2}) == settings_key({"b": 2, "a": 1}) != settings_key({"a": 1, "b": 3})


def test_what_a_killed_process_began_is_removed_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process is building now stays, and so does what is none of ours."""
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path))
    killed, building, others = (
        temporary_beside(tmp_path / "tiny-0a1b"),
        temporary_beside(tmp_path / "targets-99ff"),
        tmp_path / ".mine-x",
    )
    for folder in (killed, building, others):
        folder.mkdir()
        (folder / "half").write_text("half")
    (tmp_path / "tiny-0a1b.lock").touch()
    with FileLock(tmp_path / "targets-99ff.lock", thread_local=False):
        folder = cached_folder("tiny", {"seed": 1}, lambda new: (new / "whole").write_text("whole"))
        assert [killed.exists(), building.exists(), others.exists()] == [False, True, True]
    assert (folder / "whole").read_text() == "whole"
    cached_folder("tiny", {"seed": 1}, lambda new: None)
    assert not building.exists()
