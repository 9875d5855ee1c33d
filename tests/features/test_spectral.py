from dataclasses import replace

import numpy as np
import pytest

from brainlit.features import (
    envelope,
    log_mel,
    low_level_spaces,
    phone_classes,
    phone_rate,
    word_length,
    word_rate,
)
from brainlit.features.low_level import envelope_frames, mel_frames
from brainlit.features.phones import PHONE_CLASSES
from brainlit.stories import Intervals, Story
from brainlit.timebase import TimeBase

RATE_HZ = 16_000


def intervals(labels, start_s, duration_s=0.1):
    return Intervals(tuple(labels), np.asarray(start_s, dtype=float), np.full(len(labels), duration_s))


def tone_story(start_s, stop_s, tr_s=2.0, n_trs=6, tone_hz=1000.0, onset_s=0.0):
    """Silence with a tone from start_s to stop_s."""
    time_s = np.arange(int(12.5 * RATE_HZ)) / RATE_HZ
    tone = 8000 * np.sin(2 * np.pi * tone_hz * time_s) * ((time_s >= start_s) & (time_s < stop_s))
    words = intervals(["a", "don't", "tree"], [0.2, 2.5, 3.2])
    phones = intervals(["B", "AH0", "sp", "N"], [0.0, 1.0, 1.2, 4.0])
    return Story("tone", tone.astype(np.int16), words, phones, TimeBase.regular(n_trs, tr_s, onset_s))


@pytest.mark.parametrize(("tr_s", "row"), [(1.5, 2), (2.0, 2), (2.0045, 2)])
def test_a_tone_inside_one_row_is_found_in_that_row_only(tr_s, row):
    story = tone_story(row * tr_s + 0.1, (row + 1) * tr_s - 0.1, tr_s)
    for space in (log_mel(story), envelope(story)):
        active = np.flatnonzero(space.values.max(axis=1) > 1e-6)
        assert active.tolist() == [row], space.name


def test_the_mel_band_follows_the_tone_and_silence_is_zero():
    low, high = log_mel(tone_story(0, 12, tone_hz=300)), log_mel(tone_story(0, 12, tone_hz=4000))
    assert low.values[1].argmax() < high.values[1].argmax()
    assert not log_mel(tone_story(0, 0)).values.any()


def test_rows_before_and_after_the_sound_are_silent():
    story = tone_story(0, 12.5, onset_s=-4.0, n_trs=12)
    values = log_mel(story).values
    assert not values[:2].any()
    assert (values[2:8].max(axis=1) > 1).all()
    assert not values[9:].any()


def test_envelope_of_a_tone_is_its_root_mean_square():
    story = tone_story(0, 12.5)
    assert envelope(story).values[2, 0] == pytest.approx(8000 / 32768 / np.sqrt(2), rel=1e-3)


def test_frames_do_not_depend_on_how_they_are_read(monkeypatch):
    story = replace(tone_story(0, 1), audio=np.random.default_rng(0).integers(-9000, 9000, 70_001).astype(np.int16))
    whole = mel_frames(story, 20)[0], envelope_frames(story)[0]
    monkeypatch.setattr("brainlit.features.low_level._FRAMES_PER_BLOCK", 37)
    np.testing.assert_allclose(mel_frames(story, 20)[0], whole[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(envelope_frames(story)[0], whole[1], rtol=1e-6)


def test_frame_times_are_the_middle_of_what_is_heard():
    click = np.zeros(RATE_HZ, dtype=np.int16)
    click[8000] = 30000
    story = replace(tone_story(0, 1), audio=click)
    for frames, times_s in ((mel_frames(story, 8)[0].sum(axis=1), mel_frames(story, 8)[1]), envelope_frames(story)):
        loud_s = times_s[frames > 1e-6]
        assert 0.5 - 0.02 < loud_s.min() <= 0.5 <= loud_s.max() < 0.5 + 0.02


def test_mel_frames_equal_torchaudio_on_the_whole_signal():
    import torch
    import torchaudio

    audio = np.random.default_rng(1).integers(-9000, 9000, RATE_HZ).astype(np.int16)
    transform = torchaudio.transforms.MelSpectrogram(
        RATE_HZ, n_fft=512, win_length=400, hop_length=160, n_mels=20, center=True, pad_mode="constant"
    )
    expected = np.log1p(transform(torch.from_numpy(audio / np.float32(32768))).T.numpy() / 1e-4)
    np.testing.assert_allclose(
        mel_frames(replace(tone_story(0, 1), audio=audio), 20)[0], expected, rtol=1e-3, atol=1e-3
    )


def test_words_and_phones_are_counted_by_their_middle():
    story = tone_story(0, 1)
    assert word_rate(story).values[:, 0].tolist() == [1, 2, 0, 0, 0, 0]
    assert word_length(story).values[:, 0].tolist() == [1, 4, 0, 0, 0, 0]
    assert phone_rate(story).values[:, 0].tolist() == [2, 0, 1, 0, 0, 0]
    at_edge = replace(story, words=intervals(["x", "y"], [1.9, 1.97], duration_s=0.1))
    assert word_rate(at_edge).values[:2, 0].tolist() == [1, 1]


def test_phone_classes_count_each_class():
    values = phone_classes(tone_story(0, 1)).values
    assert PHONE_CLASSES == ("vowel", "stop", "fricative", "affricate", "nasal", "approximant")
    assert values[:3].tolist() == [[1, 1, 0, 0, 0, 0], [0] * 6, [0, 0, 0, 0, 1, 0]]
    assert not values[3:].any()


def test_stories_without_phones_have_four_spaces_and_say_so():
    story = replace(tone_story(0, 1), phones=None)
    names = [space.name for space in low_level_spaces(story)]
    assert names == ["log_mel", "envelope", "word_rate", "word_length"]
    assert [space.name for space in low_level_spaces(tone_story(0, 1))] == [*names, "phone_rate", "phone_classes"]
    for space in (phone_rate, phone_classes):
        with pytest.raises(ValueError, match="'tone' has no phone times"):
            space(story)


def test_an_unknown_phone_alphabet_names_the_story():
    story = replace(tone_story(0, 1), phones=intervals(["θ", "ŋ"], [0, 1]))
    with pytest.raises(ValueError, match="story 'tone': 2 of 2 phones"):
        phone_classes(story)


def test_every_space_has_one_row_per_volume():
    story = tone_story(0, 5, tr_s=1.5, n_trs=9)
    assert all(space.values.shape == (9, len(space.columns)) for space in low_level_spaces(story))
    assert all(space.kind == "low_level" for space in low_level_spaces(story))
