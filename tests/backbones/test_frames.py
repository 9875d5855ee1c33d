"""Frames happen in the middle of what they hear, padding counts for nothing, and a clip is normalised by itself."""

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from brainlit.backbones.frames import FrameGrid, normalise_clips
from brainlit.backbones.wav2vec import Wav2vecBackbone

TINY_ARCHITECTURE = Wav2vecBackbone.tiny_architecture()
BASE = FrameGrid((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), 16_000)
TINY = FrameGrid(TINY_ARCHITECTURE["conv_kernel"], TINY_ARCHITECTURE["conv_stride"], 16_000)


def test_known_grids():
    assert (BASE.hop_samples, BASE.field_samples, BASE.frame_rate_hz) == (320, 400, 50.0)
    assert (TINY.hop_samples, TINY.field_samples, TINY.frame_rate_hz) == (640, 1810, 25.0)


@pytest.mark.parametrize(("grid", "settings"), [(BASE, {}), (TINY, TINY_ARCHITECTURE)])
def test_frame_count_is_that_of_the_convolutions(grid, settings):
    with torch.device("meta"):
        model = Wav2Vec2Model(Wav2Vec2Config(**{**settings, "num_hidden_layers": 1}))
    for n_samples in [*range(grid.field_samples, grid.field_samples + 700, 37), 16_000, 160_000]:
        assert grid.n_frames(n_samples) == int(model._get_feat_extract_output_lengths(torch.tensor(n_samples)))


def test_too_short_audio_is_refused_with_the_length_needed():
    with pytest.raises(ValueError, match=r"399 samples.*400"):
        BASE.n_frames(399)


def test_an_impulse_is_heard_by_the_frames_around_it_and_their_times_say_so():
    """Through the real convolutions with random weights, to half a frame."""
    torch.manual_seed(0)
    model = Wav2Vec2Model(Wav2Vec2Config(**{**TINY_ARCHITECTURE, "num_hidden_layers": 1})).eval()
    n_samples = 32_000
    times_s = TINY.times_s(n_samples)
    with torch.no_grad():
        silence = model.feature_extractor(torch.zeros(1, n_samples))
        for sample in (1_500, 7_777, 16_000, 28_000):
            sound = torch.zeros(1, n_samples)
            sound[0, sample] = 50.0
            heard = ((model.feature_extractor(sound) - silence).abs().amax(1)[0] > 0).nonzero()[:, 0]
            expected = [k for k in range(len(times_s)) if k * 640 <= sample < k * 640 + 1810]
            assert heard.tolist() == expected
            middle_s = float(times_s[heard].mean())
            assert abs(middle_s - (sample + 0.5) / 16_000) <= 0.5 * 640 / 16_000 + 1e-6


def test_times_do_not_drift():
    times_s = BASE.times_s(16_000 * 600)
    assert float(times_s[0]) == pytest.approx(200 / 16_000)
    assert float(times_s[-1]) == pytest.approx((len(times_s) - 1) * 0.02 + 0.0125, abs=1e-4)


@pytest.mark.parametrize(("first", "last"), [(0, 16_000), (5_000, 16_000), (0, 9_001), (3_333, 12_345), (8_000, 8_000)])
def test_mask_against_a_slow_loop(first, last):
    audio_mask = torch.zeros(1, 16_000, dtype=torch.bool)
    audio_mask[0, first:last] = True
    expected = [bool(audio_mask[0, k * 320 : k * 320 + 400].all()) for k in range(BASE.n_frames(16_000))]
    assert BASE.mask(audio_mask)[0].tolist() == expected


def test_normalised_as_the_published_feature_extractor_does_one_clip():
    rng = np.random.default_rng(0)
    clips = [(rng.normal(size=n) * gain + 300).astype(np.int16) for n, gain in [(4000, 50), (6000, 3000), (5000, 900)]]
    audio, mask = torch.zeros(3, 6000, dtype=torch.int16), torch.zeros(3, 6000, dtype=torch.bool)
    for row, clip in enumerate(clips):
        audio[row, 6000 - len(clip) :] = torch.from_numpy(clip)
        mask[row, 6000 - len(clip) :] = True
    ours = normalise_clips(audio, mask)
    reference = Wav2Vec2FeatureExtractor(do_normalize=True)
    for row, clip in enumerate(clips):
        theirs = reference(clip / 32768.0, sampling_rate=16_000).input_values[0]
        torch.testing.assert_close(ours[row, 6000 - len(clip) :], torch.tensor(theirs).float(), rtol=1e-4, atol=1e-4)
        assert (ours[row, : 6000 - len(clip)] == 0).all()


def test_a_clip_does_not_depend_on_its_batch():
    """The error of pitfall 9: normalising over the whole batch."""
    torch.manual_seed(0)
    loud, quiet = torch.randn(1, 2000) * 0.5, torch.randn(1, 2000) * 0.005
    mask = torch.ones(2, 2000, dtype=torch.bool)
    together = normalise_clips(torch.cat([loud, quiet]), mask)
    torch.testing.assert_close(together[1:], normalise_clips(quiet, mask[:1]))
    torch.testing.assert_close(together.std(1), torch.ones(2), rtol=0.02, atol=0)


def test_int16_and_floats_give_the_same():
    sound = torch.randint(-8000, 8000, (2, 1000), dtype=torch.int16)
    mask = torch.ones(2, 1000, dtype=torch.bool)
    torch.testing.assert_close(normalise_clips(sound, mask), normalise_clips(sound.float() / 32768, mask))


def test_silence_and_nothing_stay_zero():
    mask = torch.tensor([[True] * 100, [False] * 100])
    assert (normalise_clips(torch.zeros(2, 100, dtype=torch.int16), mask) == 0).all()


def test_bad_audio_is_refused():
    with pytest.raises(TypeError, match="int64"):
        normalise_clips(torch.zeros(1, 10, dtype=torch.int64), torch.ones(1, 10, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\(1, 10\).*\(1, 11\)"):
        normalise_clips(torch.zeros(1, 10), torch.ones(1, 11, dtype=torch.bool))
