"""Checkpoints say what they are, resume where they stopped, and load without what they started from."""

import shutil
import zipfile

import pytest
import torch

from brainlit.backbones import BackboneConfig
from brainlit.results.run_directory import checkpoint_step
from brainlit.tuning import BrainTuning, CheckpointError, HeadConfig, PoolingConfig, load_tuned
from brainlit.tuning.checkpoint import AtomicCheckpointIO, read_content
from tests.backbones.conftest import MINI
from tests.tuning.conftest import FakeData


@pytest.fixture
def trained(make_module, make_trainer, tmp_path):
    """A module after an epoch, and its checkpoint."""
    module, trainer = make_module(), make_trainer(max_epochs=1)
    trainer.fit(module, datamodule=FakeData())
    trainer.save_checkpoint(tmp_path / "tuned.ckpt")
    return module.eval(), tmp_path / "tuned.ckpt"


def same_predictions(one, other):
    batch = FakeData().batch()
    with torch.no_grad():
        return torch.equal(one.eval()(batch)["S2"], other.eval()(batch)["S2"])


def test_load_from_checkpoint_gives_the_same_predictions(trained):
    module, path = trained
    assert same_predictions(BrainTuning.load_from_checkpoint(path, weights_only=True), module)


def test_load_tuned_needs_nothing_but_the_file(trained, mini_folder, tmp_path):
    module, path = trained
    aside = tmp_path / "aside"
    shutil.move(mini_folder, aside)
    try:
        loaded = load_tuned(path)
    finally:
        shutil.move(aside, mini_folder)
    assert same_predictions(loaded, module)
    assert not loaded.training
    assert loaded.backbone.describe() == module.backbone.describe()
    assert dict(loaded.hparams) == dict(module.hparams)


def test_a_loaded_model_is_tested_as_it_was(trained, make_trainer):
    module, path = trained
    (before,) = make_trainer().test(module, datamodule=FakeData(), verbose=False)
    (after,) = make_trainer().test(load_tuned(path), datamodule=FakeData(), verbose=False)
    assert after == before


def test_resuming_keeps_the_measured_pools(trained, make_module, make_trainer):
    module, path = trained
    resumed = make_module()
    make_trainer(max_epochs=2).fit(resumed, datamodule=FakeData(), ckpt_path=path)
    assert torch.equal(resumed.head.pool_mean, module.head.pool_mean)
    assert not torch.equal(resumed.head.linear.weight, module.head.linear.weight)


def test_another_backbone_is_refused(trained, make_trainer, tmp_path):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    Wav2Vec2Model(Wav2Vec2Config(**{**MINI, "num_hidden_layers": 3})).save_pretrained(tmp_path / "three")
    other = BrainTuning(backbone=BackboneConfig(weights=str(tmp_path / "three")))
    with pytest.raises(CheckpointError, match=r"n_layers is 2, here it is 3"):
        make_trainer().fit(other, datamodule=FakeData(), ckpt_path=trained[1])


@pytest.mark.parametrize(
    ("setting", "value"),
    [("pooling", PoolingConfig(over="window")), ("head", HeadConfig(delays_trs=(1, 2))), ("layer", 1)],
)
def test_another_readout_is_refused(trained, make_module, make_trainer, setting, value):
    data = FakeData(n_trs=1) if setting == "pooling" else FakeData()
    with pytest.raises(CheckpointError, match=setting):
        make_trainer().fit(make_module(**{setting: value}), datamodule=data, ckpt_path=trained[1])


def test_other_voxels_are_refused(trained, make_module, make_trainer):
    data = FakeData()
    data.target_sizes = {"S1": 3, "S2": 6}
    with pytest.raises(CheckpointError, match="target voxels"):
        make_trainer().fit(make_module(), datamodule=data, ckpt_path=trained[1])
    with pytest.raises(ValueError, match=r"predicts 5 voxels.*the data have 6"):
        make_trainer().test(load_tuned(trained[1]), datamodule=data)


def test_other_starting_weights_of_the_same_shape_are_said(trained, make_trainer, mini_folder, caplog):
    other = BrainTuning(backbone=BackboneConfig(weights=f"random:{mini_folder}"))
    make_trainer(max_epochs=2).fit(other, datamodule=FakeData(), ckpt_path=trained[1])
    assert "random:" in caplog.text


def test_a_checkpoint_of_something_else_is_refused(tmp_path, trained):
    torch.save({"state_dict": {}, "hyper_parameters": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="not written by BrainTuning"):
        load_tuned(tmp_path / "other.ckpt")


@pytest.mark.parametrize("place", [0.02, 0.3, 0.5, 0.7, 0.9])
def test_a_checkpoint_with_a_flipped_bit_is_refused(trained, tmp_path, place):
    path = tmp_path / "damaged.ckpt"
    raw = bytearray(trained[1].read_bytes())
    with zipfile.ZipFile(trained[1]) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    # the numbers end where the directory of the zip says that the next entry begins, and are longer than its header
    raw[largest.header_offset + 200 + int(place * (largest.file_size - 200))] ^= 16
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"damaged\.ckpt is damaged: .*checksum"):
        load_tuned(path)
    with pytest.raises(CheckpointError, match="is damaged"):
        AtomicCheckpointIO().load_checkpoint(path)
    assert checkpoint_step(path) is None


@pytest.mark.parametrize(("content", "words"), [(b"", "empty"), (b"PK\x03\x04", "cut off"), (b"<html>", "web page")])
def test_what_is_no_checkpoint_is_said(tmp_path, content, words):
    (tmp_path / "a.ckpt").write_bytes(content)
    for read in (load_tuned, read_content):
        with pytest.raises(CheckpointError, match=words):
            read(tmp_path / "a.ckpt")


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "deep" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weights": torch.arange(3)}, path)
    assert torch.equal(AtomicCheckpointIO().load_checkpoint(path)["weights"], torch.arange(3))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_that_fails_halfway_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def half(_, file):
        file.write_bytes(b"half a checkpoint")
        raise OSError("the disk went away")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="went away"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
