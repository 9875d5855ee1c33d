"""HuBERT: what is peculiar to it among the convolutional families."""

import torch

from tests.backbones.conftest import everything, load, save_mini, sound


def test_without_a_norm_before_the_projection_as_distilhubert(tmp_path):
    model = save_mini(tmp_path / "weights", "hubert", feat_proj_layer_norm=False, feat_extract_norm="group")
    backbone = load(tmp_path / "weights", "hubert")
    audio = sound(1).float()
    audio = (audio - audio.mean()) / audio.std(unbiased=False)
    with torch.no_grad():
        ours = backbone.encode(audio, everything(audio)).hidden_states[-1]
        theirs = model(audio).last_hidden_state
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_batch_norm_uses_its_own_statistics_in_train_mode(tmp_path):
    save_mini(tmp_path / "weights", "hubert", conv_pos_batch_norm=True, feat_extract_norm="group")
    backbone = load(tmp_path / "weights", "hubert").train()
    norm = backbone.encoder.pos_conv_embed.batch_norm
    assert backbone.training
    assert not norm.training
    before = norm.running_mean.clone()
    two, one = sound(), sound()[:1]
    together = backbone.encode(two, everything(two)).hidden_states[-1]
    alone = backbone.encode(one, everything(one)).hidden_states[-1]
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(norm.running_mean, before)
