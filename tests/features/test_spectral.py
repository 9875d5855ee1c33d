from dataclasses import replace

import numpy as np
import pytest
import torch
import torchaudio
from scipy.fft import dct

from brainlit.features import envelope, log_mel
from brainlit.features.spectral import POWER_FLOOR, envelope_frames, mel_frames, mfcc, power_frames, power_spectrum
from brainlit.timebase import TimeBase
from tests.features.tone import RATE_HZ, tone_story

SPACES = (log_mel, envelope, power_spectrum, mfcc)


def noise_story(n_samples, seed=0, loudness=9000):
    noise = np.random.default_rng(seed).integers(-loudness, loudness, n_samples).astype(np.int16)
    return replace(tone_story(0, 1), audio=noise)


@pytest.mark.parametrize(("tr_s", "row"), [(1.5, 2), (2.0, 2), (2.0045, 2)])
def test_a_tone_inside_one_row_is_found_in_that_row_only(tr_s, row):
    story = tone_story(row * tr_s + 0.1, (row + 1) * tr_s - 0.1, tr_s)
    for space in SPACES:
        active = np.flatnonzero(np.abs(space(story).values).max(axis=1) > 1e-6)
        assert active.tolist() == [row], space.__name__


def test_the_mel_band_follows_the_tone_and_silence_is_zero():
    low, high = log_mel(tone_story(0, 12, tone_hz=300)), log_mel(tone_story(0, 12, tone_hz=4000))
    assert low.values[1].argmax() < high.values[1].argmax()
    for space in SPACES:
        assert not space(tone_story(0, 0)).values.any()


def test_rows_before_and_after_the_sound_are_silent():
    story = tone_story(0, 12.5, onset_s=-4.0, n_trs=12)
    for space in SPACES:
        loud = np.abs(space(story).values).max(axis=1)
        assert not loud[:2].any()
        assert (loud[2:8] > 0.1).all()
        assert not loud[9:].any()


def test_envelope_of_a_tone_is_its_root_mean_square():
    story = tone_story(0, 12.5)
    assert envelope(story).values[2, 0] == pytest.approx(8000 / 32768 / np.sqrt(2), rel=1e-3)


@pytest.mark.parametrize("tone_hz", [62.5, 1000.0, 7906.25])
def test_the_band_of_a_tone_bears_its_frequency(tone_hz):
    space = power_spectrum(tone_story(0, 12, tone_hz=tone_hz))
    assert space.columns[space.values[1].argmax()] == f"hz_{tone_hz:07.1f}"
    assert len(space.columns) == 256
    assert (space.columns[0], space.columns[-1]) == ("hz_00031.2", "hz_08000.0")


def test_frames_do_not_depend_on_how_they_are_read(monkeypatch):
    story = noise_story(70_001)
    readers = {
        "mel": lambda: mel_frames(story, 20),
        "rms": lambda: envelope_frames(story),
        "hz": lambda: power_frames(story),
    }
    whole = {name: read()[0] for name, read in readers.items()}
    monkeypatch.setattr("brainlit.features.spectral._FRAMES_PER_BLOCK", 37)
    for name, read in readers.items():
        np.testing.assert_allclose(read()[0], whole[name], rtol=1e-3, atol=1e-3, err_msg=name)


def test_frame_times_are_the_middle_of_what_is_heard():
    click = np.zeros(RATE_HZ, dtype=np.int16)
    click[8000] = 30000
    story = replace(tone_story(0, 1), audio=click)
    for frames, times_s in (mel_frames(story, 8), power_frames(story), envelope_frames(story)):
        loud_s = times_s[frames.reshape(len(frames), -1).sum(axis=1) > 1e-6]
        assert 0.5 - 0.02 < loud_s.min() <= 0.5 <= loud_s.max() < 0.5 + 0.02


def test_mel_frames_equal_torchaudio_on_the_whole_signal():
    story = noise_story(RATE_HZ, seed=1)
    transform = torchaudio.transforms.MelSpectrogram(
        RATE_HZ, n_fft=512, win_length=400, hop_length=160, n_mels=20, center=True, pad_mode="constant"
    )
    expected = np.log1p(transform(torch.from_numpy(story.audio / np.float32(32768))).T.numpy() / 1e-4)
    np.testing.assert_allclose(mel_frames(story, 20)[0], expected, rtol=1e-3, atol=1e-3)


def test_power_frames_equal_a_plain_fourier_transform():
    story = noise_story(RATE_HZ)
    k = 40
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    middle = story.audio[k * 160 - 200 : k * 160 + 200] / 32768 * window
    power = np.abs(np.fft.rfft(middle, 512)) ** 2
    np.testing.assert_allclose(power_frames(story)[0][k], np.log1p(power[1:] / POWER_FLOOR), rtol=1e-3, atol=1e-3)


def test_mfcc_is_the_cosine_transform_of_the_mel_bands():
    story = noise_story(12 * RATE_HZ)
    mel, times_s = mel_frames(story, 40)
    expected = story.timebase.average_per_tr(dct(mel, axis=1, norm="ortho")[:, :13], times_s)
    np.testing.assert_allclose(mfcc(story).values, expected, rtol=1e-4, atol=1e-3)


def test_mfcc_equals_torchaudio_where_the_floor_does_not_matter():
    story = noise_story(12 * RATE_HZ, loudness=30_000)
    sizes = {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40, "pad_mode": "constant"}
    transform = torchaudio.transforms.MFCC(RATE_HZ, n_mfcc=13, log_mels=True, melkwargs=sizes)
    expected = transform(torch.from_numpy(story.audio / np.float32(32768))).numpy()[1:, 200:1000].mean(axis=1)
    clock = TimeBase(story.timebase.tr_starts_s[1:5], story.timebase.tr_s)
    ours = mfcc(replace(story, timebase=clock)).values[:, 1:].mean(axis=0)
    np.testing.assert_allclose(ours, expected, atol=0.02)
