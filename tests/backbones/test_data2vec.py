"""data2vec: what is peculiar to it among the convolutional families."""

import torch
from transformers import Data2VecAudioConfig, Data2VecAudioModel

from brainlit.backbones.frames import normalise_clips
from tests.backbones.conftest import MINI, OF_FAMILY, everything, load, save_mini, sound


def test_padding_flows_into_real_frames_in_transformers_and_not_here(tmp_path):
    model = save_mini(tmp_path / "weights", "data2vec", num_conv_pos_embeddings=3)
    backbone = load(tmp_path / "weights", "data2vec")
    audio, mask = sound(), torch.ones(2, 16_000, dtype=torch.bool)
    mask[1, 10_000:] = False
    with torch.no_grad():
        ours = backbone.encode(audio, mask)
        alone = backbone.encode(audio[1:, :10_000], everything(audio[1:, :10_000])).hidden_states
        padded = model(normalise_clips(audio, mask), attention_mask=mask.long(), output_hidden_states=True)
        theirs = model(normalise_clips(audio, mask)[1:, :10_000], output_hidden_states=True)
    real = ours.frame_mask[1]
    for mine, clip, reference in zip(ours.hidden_states, alone, theirs.hidden_states, strict=True):
        torch.testing.assert_close(clip[0], reference[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mine[1, real], reference[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(padded.hidden_states[0][1, real], theirs.hidden_states[0][0], atol=1e-3)


def test_settings_that_only_its_kin_know_change_nothing(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {**MINI, **OF_FAMILY["data2vec"]}
        del settings["feat_extract_norm"]
        plain = Data2VecAudioModel(Data2VecAudioConfig(**settings)).eval()
    plain.save_pretrained(tmp_path / "plain")
    plain.config.feat_extract_norm, plain.config.do_stable_layer_norm = "group", True
    plain.save_pretrained(tmp_path / "said")
    audio = sound()
    with torch.no_grad():
        states = [
            load(tmp_path / name, "data2vec").encode(audio, everything(audio))[0][-1] for name in ("plain", "said")
        ]
    torch.testing.assert_close(states[0], states[1], rtol=1e-5, atol=1e-5)
    assert load(tmp_path / "said", "data2vec").describe()["attention_mask"]
