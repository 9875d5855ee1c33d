"""What is exported is what was tuned, loads without brainlit, and replaces nothing that it should not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from brainlit.backbones import BackboneConfig, SpeechBackbone
from brainlit.backbones.frames import normalise_clips
from brainlit.backbones.lora import LoraConfig
from brainlit.results import export
from brainlit.results.export import ExportError, export_model, feature_extractor
from brainlit.results.run_directory import RunDirectory
from brainlit.tuning import BrainTuning, CheckpointError, load_tuned
from tests.backbones.conftest import save_mini
from tests.tuning.conftest import FakeData

QUIET: dict[str, Any] = {
    "max_steps": 1,
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
}
GROUP_NORM = {"feat_extract_norm": "group", "conv_bias": False}


def tuned(folder: Path, lora: LoraConfig | None = None, **architecture: Any) -> Path:
    """The checkpoint of a mini model after a step; what it started from is gone."""
    save_mini(folder / "start", **architecture)
    trainer = pl.Trainer(**QUIET, default_root_dir=folder)
    module = BrainTuning(
        backbone=BackboneConfig(weights=str(folder / "start")),
        lora=lora or LoraConfig(),
        backbone_lr=0.1,
        warmup_fraction=0,
    )
    trainer.fit(module, datamodule=FakeData())
    trainer.save_checkpoint(folder / "last.ckpt")
    (folder / "start").rename(folder / "elsewhere")
    return folder / "last.ckpt"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a mini model with layer normalisation; do not write beside it."""
    return tuned(tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export."""
    return export_model(checkpoint, tmp_path_factory.mktemp("exported") / "model")


def sounds() -> tuple[Tensor, Tensor]:
    """Two clips of noise, the second one shorter."""
    audio = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(1)) * 3000
    mask = torch.ones(audio.shape, dtype=torch.bool)
    mask[1, 12_000:] = False
    return (audio * mask).to(torch.int16), mask


def assert_hears_the_same(folder: Path, backbone: SpeechBackbone, inputs: Any) -> None:
    """The exported model's hidden states of these inputs are the backbone's, where there is sound."""
    from transformers import AutoModel

    audio, mask = sounds()
    with torch.no_grad():
        expected = backbone.encode(audio, mask)
        found = AutoModel.from_pretrained(folder).eval()(**inputs, output_hidden_states=True).hidden_states
    assert len(found) == len(expected.hidden_states) == 3
    for ours, theirs in zip(expected.hidden_states, found, strict=True):
        torch.testing.assert_close(theirs[expected.frame_mask], ours[expected.frame_mask], rtol=0, atol=1e-5)


def test_the_exported_model_hears_as_the_tuned_one(checkpoint: Path, exported: Path) -> None:
    from transformers import AutoFeatureExtractor

    clips = [clip[there].numpy().astype("float64") for clip, there in zip(*sounds(), strict=True)]
    extractor = AutoFeatureExtractor.from_pretrained(exported)
    inputs = extractor(clips, sampling_rate=16_000, padding=True, return_tensors="pt")
    assert "attention_mask" in inputs
    assert_hears_the_same(exported, load_tuned(checkpoint).backbone, inputs)


def test_a_revision_and_an_adapter_are_said_in_card_and_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import peft
    import transformers

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("BRAINLIT_WEIGHTS", str(tmp_path / "weights"))
    repository = tmp_path / "hub" / "models--org--name"
    save_mini(repository / "snapshots" / ("a" * 40) / "deep")
    (repository / "refs").mkdir()
    (repository / "refs" / "v1.0").write_text("a" * 40)
    model = transformers.Wav2Vec2Model.from_pretrained(repository / "snapshots" / ("a" * 40) / "deep")
    adapter = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    adapter.save_pretrained(tmp_path / "mine")
    known = {"revision": "v1.0", "commit": "a" * 40}
    cases = {
        "plain": (BackboneConfig(weights="org/name@v1.0", subfolder="deep"), {**known, "subfolder": "deep"}),
        "adapted": (
            BackboneConfig(weights=str(tmp_path / "mine"), adapter_base="org/top@v1.0"),
            known,
        ),
    }
    top = tmp_path / "hub" / "models--org--top"
    save_mini(top / "snapshots" / ("a" * 40))
    (top / "refs").mkdir()
    (top / "refs" / "v1.0").write_text("a" * 40)
    for name, (config, expected) in cases.items():
        module = BrainTuning(backbone=config)
        trainer = pl.Trainer(**QUIET, default_root_dir=tmp_path)
        trainer.fit(module, datamodule=FakeData())
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
        assert load_tuned(tmp_path / f"{name}.ckpt").backbone.origin == module.backbone.origin
        folder = export_model(tmp_path / f"{name}.ckpt", tmp_path / f"model-{name}")
        said = json.loads((folder / "config.json").read_text())["brainlit"]
        assert {key: said[f"base_{key}"] for key in expected} == expected
        card = (folder / "README.md").read_text()
        hub_id = "org/name" if name == "plain" else "org/top"
        assert f"base_model: {hub_id}" in card
        assert f"{hub_id}, revision {'a' * 40} (v1.0)" in card
        assert ("subfolder deep" in card) == (name == "plain")
        assert ("with the LoRA adapter mine" in card) == (name == "adapted")
        assert said.get("base_adapter", {}).get("name") == (None if name == "plain" else "mine")
        assert str(tmp_path) not in card + json.dumps(said)


def test_so_does_one_with_lora_which_is_merged(tmp_path: Path) -> None:
    path = tuned(tmp_path, lora=LoraConfig(rank=2))
    folder = export_model(path, tmp_path / "model")
    audio, mask = sounds()
    frames = {"input_values": normalise_clips(audio, mask), "attention_mask": mask.long()}
    assert_hears_the_same(folder, load_tuned(path).backbone, frames)
    plain = load_file(tmp_path / "elsewhere" / "model.safetensors")
    merged = load_file(folder / "model.safetensors")
    assert merged.keys() == plain.keys()
    changed = {name.split(".")[-2] for name in plain if not torch.equal(plain[name], merged[name])}
    assert changed == {"q_proj", "k_proj", "v_proj", "out_proj"}


def test_so_does_one_with_group_normalisation_clip_by_clip(tmp_path: Path) -> None:
    from transformers import AutoFeatureExtractor

    path = tuned(tmp_path, **GROUP_NORM)
    folder = export_model(path, tmp_path / "model")
    audio, mask = sounds()
    normal = normalise_clips(audio, mask)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    short = extractor(audio[1][mask[1]].numpy().astype("float64"), sampling_rate=16_000, return_tensors="pt")
    assert "attention_mask" not in short
    torch.testing.assert_close(short.input_values[0], normal[1][mask[1]], rtol=0, atol=1e-4)
    assert_hears_the_same(folder, load_tuned(path).backbone, {"input_values": normal})
    assert "one clip at a time" in (folder / "README.md").read_text()


def test_the_cards_snippet_runs_where_brainlit_is_not(exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == {
        "README.md",
        "config.json",
        "contents.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    (snippet,) = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    code = f"import sys; sys.modules['brainlit'] = None\n{snippet}\nprint(len(states), *states[-1].shape)"
    done = subprocess.run([sys.executable, "-c", code], cwd=exported, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[:2] == ["3", "1"]


def test_config_json_says_where_the_weights_come_from(exported: Path, checkpoint: Path) -> None:
    from transformers import AutoConfig

    said = AutoConfig.from_pretrained(exported).brainlit
    assert (said["step"], said["layer"], said["run"]) == (1, 2, None)
    assert len(said["checkpoint_sha256"]) == 64
    assert str(checkpoint.parent) not in (exported / "config.json").read_text() + (exported / "README.md").read_text()


def test_an_export_can_be_tuned_again(exported: Path) -> None:
    again = BrainTuning(backbone=BackboneConfig(weights=str(exported)))
    assert again.backbone.n_layers == 2


def test_only_an_export_of_the_same_checkpoint_is_written_again(checkpoint: Path, tmp_path: Path) -> None:
    folder = export_model(checkpoint, tmp_path / "model")
    (folder / "README.md").write_text("mine")
    export_model(checkpoint, folder)
    assert (folder / "README.md").read_text().startswith("---\n")

    other = tmp_path / "other.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "global_step": 7}, other)
    with pytest.raises(ExportError, match=r"another checkpoint \(run None, step 1\).*--overwrite"):
        export_model(other, folder)
    export_model(other, folder, overwrite=True)
    assert json.loads((folder / "config.json").read_text())["brainlit"]["step"] == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "other.ckpt"], "nothing is left behind"


def test_a_folder_with_other_things_is_never_touched(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ExportError, match="something else than an export"):
            export_model(checkpoint, tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_export_that_fails_leaves_nothing(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(export, "model_card", full)
    with pytest.raises(OSError, match="disk full"):
        export_model(checkpoint, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_wrong_checkpoints_and_places_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        export_model(tmp_path / "no.ckpt", tmp_path / "model")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="not written by BrainTuning"):
        export_model(tmp_path / "other.ckpt", tmp_path / "model")
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="cannot write to"):
        export_model(checkpoint, tmp_path / "file" / "model")


def test_the_run_of_a_checkpoint_is_found(checkpoint: Path, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "brain_tune", "one")
    (run.checkpoints / "last.ckpt").write_bytes(checkpoint.read_bytes())
    folder = export_model(run.checkpoints / "last.ckpt", tmp_path / "model")
    assert json.loads((folder / "config.json").read_text())["brainlit"]["run"] == "brain_tune/one"
    assert "The run had not finished" in (folder / "README.md").read_text()
    run.release()


class Listening(SpeechBackbone):
    """A backbone of another kind, as far as its feature extractor is concerned."""

    family = "whisper"
    sample_rate_hz = 16_000

    def __init__(self, weights: str = "openai/whisper-base", **settings: Any) -> None:
        from types import SimpleNamespace

        torch.nn.Module.__init__(self)
        self.model: Any = SimpleNamespace(config=SimpleNamespace(**settings))
        self.config, self.origin = BackboneConfig(weights=weights), {"kind": "pretrained"}


Listening.__abstractmethods__ = frozenset()


def test_every_kind_of_model_gets_its_extractor(tmp_path: Path) -> None:
    whisper = feature_extractor(Listening(model_type="whisper", num_mel_bins=128, max_source_positions=1500))
    assert (whisper.feature_size, whisper.nb_max_frames) == (128, 3000)
    speech = feature_extractor(Listening(model_type="speecht5"))
    assert (type(speech).__name__, speech.do_normalize) == ("SpeechT5FeatureExtractor", False)
    assert feature_extractor(Listening(model_type="wav2vec2-bert")).num_mel_bins == 80
    assert feature_extractor(Listening(model_type="wavlm")).do_normalize
    whisper.hop_length = 100
    whisper.save_pretrained(tmp_path)
    assert feature_extractor(Listening(str(tmp_path), model_type="whisper")).hop_length == 100, "the original's own"


def test_an_export_may_be_read_as_the_umask_says(checkpoint: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = export_model(checkpoint, tmp_path / "model")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}
    assert folder.stat().st_mode & 0o777 == 0o750
