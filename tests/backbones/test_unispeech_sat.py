"""UniSpeech-SAT: what is peculiar to it among the convolutional families."""

from tests.backbones.conftest import load, save_mini


def test_it_always_has_a_mask_embedding(tmp_path):
    save_mini(tmp_path / "weights", "unispeech-sat", mask_time_prob=0.0)
    save_mini(tmp_path / "hubert", "hubert", mask_time_prob=0.0)
    assert load(tmp_path / "weights", "unispeech-sat").mask_embedding is not None
    assert load(tmp_path / "hubert", "hubert").mask_embedding is None
