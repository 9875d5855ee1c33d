"""The spectrogram is the published feature extractor's, of a whole batch, and of the sound alone."""

import numpy as np
import pytest
import torch
from transformers import SeamlessM4TFeatureExtractor, WhisperFeatureExtractor

from brainlit.backbones.frames import real_sound
from brainlit.backbones.log_mel import KaldiLogMel, WhisperLogMel

GAINS = (30, 1000, 9000)


def clips(n_samples=24_000):
    rng = np.random.default_rng(0)
    t = np.arange(n_samples) / 16_000
    sounds = [gain * (np.sin(2 * np.pi * (300 + 2000 * t) * t) + rng.normal(size=n_samples)) / 2 for gain in GAINS]
    return torch.from_numpy(np.stack(sounds).astype(np.int16))


def everything(audio):
    return torch.ones_like(audio, dtype=torch.bool)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("n_samples", [24_000, 24_159])
def test_the_published_feature_extractors_numbers_in_one_batch(n_mels, n_samples):
    audio = clips(n_samples)
    ours = WhisperLogMel(n_mels)(real_sound(audio, everything(audio)))
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    sounds = [clip.numpy() / 32768 for clip in audio]
    theirs = extractor(sounds, sampling_rate=16_000, padding="do_not_pad", return_tensors="pt").input_features
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    in_float64 = extractor._np_extract_fbank_features(np.stack(sounds), "cpu")
    torch.testing.assert_close(ours, torch.from_numpy(in_float64).float(), rtol=0, atol=1e-3)


def test_padded_to_30_s_as_published():
    audio = clips()
    padded = torch.nn.functional.pad(real_sound(audio, everything(audio)), (0, 480_000 - 24_000))
    theirs = WhisperFeatureExtractor()([clip.numpy() / 32768 for clip in audio], sampling_rate=16_000)
    torch.testing.assert_close(WhisperLogMel(80)(padded), torch.tensor(theirs.input_features), rtol=0, atol=1e-4)


def test_a_clip_does_not_depend_on_its_batch():
    audio = clips()
    log_mel, sound = WhisperLogMel(80), real_sound(audio, everything(audio))
    torch.testing.assert_close(log_mel(sound)[:1], log_mel(sound[:1]))
    assert log_mel(sound)[0].amax() < log_mel(sound)[2].amax() - 0.5


@pytest.mark.parametrize("n_samples", [24_000, 24_159])
def test_kaldis_numbers_in_one_batch(n_samples):
    audio = clips(n_samples)
    audio[0, 5_000:9_000] = 0
    ours = KaldiLogMel(80)(real_sound(audio, everything(audio)))
    extractor = SeamlessM4TFeatureExtractor()
    theirs = torch.stack([torch.from_numpy(extractor._extract_fbank_features(clip.numpy() / 32768)) for clip in audio])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_silence_is_finite():
    assert (WhisperLogMel(80)(torch.zeros(1, 1600)) == -1.5).all()


def test_full_precision_under_autocast():
    sound = real_sound(clips(), everything(clips()))
    log_mel = WhisperLogMel(80)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = log_mel(sound)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, log_mel(sound), rtol=0, atol=0)


def test_nothing_of_it_is_saved():
    assert WhisperLogMel(80).state_dict() == KaldiLogMel(80).state_dict() == {}


def test_padding_becomes_zero_whatever_it_held():
    audio, mask = clips(1000), everything(clips(1000))
    mask[1, 600:] = False
    sound = real_sound(audio, mask)
    assert (sound[1, 600:] == 0).all()
    torch.testing.assert_close(sound[mask], audio[mask].float() / 32768)
    dirty = torch.where(mask, audio.float() / 32768, torch.nan)
    torch.testing.assert_close(real_sound(dirty, mask), sound)


def test_bad_audio_is_refused():
    with pytest.raises(TypeError, match="int64"):
        real_sound(torch.zeros(1, 10, dtype=torch.int64), torch.ones(1, 10, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\(1, 10\).*\(1, 11\)"):
        real_sound(torch.zeros(1, 10), torch.ones(1, 11, dtype=torch.bool))
