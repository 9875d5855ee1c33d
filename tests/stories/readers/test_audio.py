"""Any sound becomes mono 16 kHz int16 without moving in time."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from brainlit.downstream.clip import Clip
from brainlit.stories import SoundNote
from brainlit.stories.readers.audio import AudioError, Sound, read_audio, read_sound, resample, to_int16
from tests.stories.readers.voices import syllables


def test_what_is_already_right_comes_back_bit_by_bit(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).integers(-32768, 32767, size=999).astype(np.int16)
    soundfile.write(tmp_path / "a.flac", sound, 16_000)
    assert np.array_equal(read_audio(tmp_path / "a.flac"), sound)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000])
def test_a_tone_keeps_its_pitch_and_a_click_its_time(tmp_path: Path, rate_hz: int) -> None:
    t = np.arange(2 * rate_hz) / rate_hz
    left = 0.5 * np.sin(2 * np.pi * 440 * t)
    soundfile.write(tmp_path / "a.wav", np.column_stack([left, np.zeros_like(left)]), rate_hz, subtype="FLOAT")
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    for channel, share in ((None, 1), ("left", 1), (0, 1), ("mean", 0.5)):
        audio = read_audio(tmp_path / "a.wav", channel) / 32768
        assert len(audio) == 32_000
        assert np.abs(audio - share * expected)[200:-200].max() < 2e-3, "only the mean of all counts silence"
    click = np.zeros(2 * rate_hz, dtype=np.float32)
    click[round(1.25 * rate_hz)] = 1
    assert abs(int(np.abs(resample(click, rate_hz)).argmax()) - 20_000) <= 1


def test_loud_sounds_are_clipped_and_do_not_wrap() -> None:
    assert to_int16(np.array([1.5, -1.5, 0.5], dtype=np.float32)).tolist() == [32767, -32768, 16384]


def test_what_is_no_sound_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("not a sound")
    with pytest.raises(AudioError, match=r"not a readable sound file.* Convert it to WAV or FLAC"):
        read_audio(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", np.zeros(0), 16_000)
    with pytest.raises(AudioError, match="holds 0 samples"):
        read_audio(tmp_path / "b.wav")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_audio(tmp_path / "c.wav")


# Scale


@pytest.mark.parametrize(("factor", "subtype"), [(32768, "FLOAT"), (2**31, "DOUBLE"), (20, "FLOAT"), (6.0, "DOUBLE")])
@pytest.mark.parametrize("rate_hz", [16_000, 22_050])
def test_floats_beyond_full_scale_are_divided_by_their_peak_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, factor: float, subtype: str, rate_hz: int
) -> None:
    t = np.arange(2 * rate_hz) / rate_hz
    sound = 0.3 * np.sin(2 * np.pi * 300 * t) * np.sin(2 * np.pi * 1.5 * t)
    path = tmp_path / "a.wav"
    soundfile.write(path, sound * factor, rate_hz, subtype=subtype)
    with caplog.at_level("WARNING"):
        read = read_sound(path)
    t = np.arange(len(read.samples)) / 16_000
    expected = np.sin(2 * np.pi * 300 * t) * np.sin(2 * np.pi * 1.5 * t)
    assert np.corrcoef(expected, read.samples)[0, 1] > 0.9999
    assert np.abs(read.samples / 32767 - expected)[200:-200].max() < 3e-3, "nothing is clipped"
    said = re.match(r"samples go up to (\S+) times", only_note(read, "scaled_sound", "warning").message)
    assert said is not None
    assert float(said[1]) == pytest.approx(0.3 * factor, rel=1e-2)
    assert f"{path}: samples go up to" in caplog.text


def test_every_part_of_a_file_has_the_scale_of_the_whole(tmp_path: Path) -> None:
    """Soft at its beginning, far beyond full scale at its end."""
    sound = np.linspace(0.1, 50, 32_000) * np.sin(np.arange(32_000) / 9)
    soundfile.write(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT")
    whole = read_audio(tmp_path / "a.wav")
    for start_s, stop_s in ((0.0, 0.25), (1.5, 2.0)):
        part = Clip("part", tmp_path / "a.wav", start_s, stop_s).sound()
        assert np.array_equal(part, whole[round(start_s * 16_000) : round(stop_s * 16_000)])
        assert np.abs(part).max() / 32767 == pytest.approx(np.abs(sound[: round(stop_s * 16_000)]).max() / 50, rel=0.01)


@pytest.mark.parametrize("peak", [0.1, 1.0])
def test_sounds_within_full_scale_keep_their_level(tmp_path: Path, peak: float) -> None:
    sound = peak * np.sin(2 * np.pi * 300 * np.arange(16_000) / 16_000)
    soundfile.write(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT")
    read = read_sound(tmp_path / "a.wav")
    assert np.abs(read.samples - 32768 * sound).max() <= 1
    assert read.notes == ()


@pytest.mark.parametrize(("peak", "level"), [(2**-9, "warning"), (2**-13, "error"), (0.3 * 2**-16, "error")])
def test_sounds_that_16_bits_cannot_hold_are_said(tmp_path: Path, peak: float, level: str) -> None:
    """Values in units of int16 in a file of int32 among them."""
    soundfile.write(tmp_path / "a.wav", peak * np.sin(np.arange(16_000) / 9), 16_000, subtype="PCM_32")
    note = only_note(read_sound(tmp_path / "a.wav"), "soft_sound", level)
    assert note.message.startswith(f"samples go up to {peak:.2g} of full scale")


def test_a_single_value_out_of_all_bounds_is_damage(tmp_path: Path) -> None:
    sound = 0.1 * np.sin(np.arange(16_000) / 5).astype(np.float32)
    sound[700] = 1e20
    soundfile.write(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"a\.wav holds a value of 1e\+20 times full scale \(sample 700\)"):
        read_audio(tmp_path / "a.wav")


# Channels


def two_channels(path: Path, left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> Path:
    soundfile.write(path, np.column_stack([left, right]), 16_000)
    return path


def test_channels_that_cancel_are_named_and_one_can_be_chosen(tmp_path: Path) -> None:
    speech = syllables(1, 12)
    path = two_channels(tmp_path / "a.wav", speech, -speech)
    for channel in (None, "mean"):
        with pytest.raises(AudioError, match=r"a\.wav: its channels cancel each other.*polarity.*`channel: left`"):
            read_audio(path, channel)
    left, right = read_audio(path, "left"), read_audio(path, 1)
    assert np.abs(left / 32768 - speech).max() < 1e-4
    assert np.abs(left + right).max() <= 1


def test_channels_that_cancel_in_a_part_are_found(tmp_path: Path) -> None:
    speech = syllables(1, 36)
    turned = np.where(np.arange(len(speech)) < len(speech) // 2, speech, -0.8 * speech)
    with pytest.raises(AudioError, match=r"cancel each other when they are averaged in \d\d % of the sound"):
        read_audio(two_channels(tmp_path / "a.wav", speech, turned))


def test_triggers_and_other_speakers_are_named_and_a_channel_can_be_chosen(tmp_path: Path) -> None:
    speech, other = syllables(1, 12), syllables(2, 12)
    clicks = np.where(np.arange(len(speech)) % 32_000 < 160, 0.95, 0.0)
    for name, stranger in (("clicks", clicks), ("speaker", other)):
        path = two_channels(tmp_path / f"{name}.wav", speech, stranger)
        with pytest.raises(AudioError, match=rf"{name}\.wav: channel 0 \(left\) and channel 1 \(right\) are not one"):
            read_audio(path)
        assert np.abs(read_audio(path, "left") / 32768 - speech).max() < 1e-4
        assert np.abs(read_audio(path, "right") / 32768 - stranger).max() < 1e-4
        both = read_sound(path, "mean")
        assert np.abs(both.samples / 32768 - (speech + stranger) / 2).max() < 1e-4
        assert "averaged all the same" in both.notes[0].message
        assert (both.notes[0].kind, both.notes[0].level) == ("strange_channels", "warning")


def test_a_silent_channel_is_left_out_and_it_is_said(tmp_path: Path) -> None:
    speech, hiss = syllables(1, 12), 1e-5 * np.random.default_rng(0).standard_normal(12 * 16_000)
    for right in (0 * speech, hiss):
        read = read_sound(two_channels(tmp_path / "a.wav", speech, right))
        assert np.abs(read.samples / 32768 - speech).max() < 1e-4
        assert "channel 1 (right) is silent" in only_note(read, "silent_channel", "info").message
    path = two_channels(tmp_path / "a.wav", speech, 0 * speech)
    with pytest.raises(AudioError, match="channel 1 is silent, but not 0"):
        read_audio(path, "right")


def test_of_many_channels_the_ones_that_belong_together_are_averaged(tmp_path: Path) -> None:
    speech, other = syllables(1, 12), syllables(2, 12)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.column_stack([speech, 0 * speech, 0.5 * speech]), 16_000, subtype="FLOAT")
    assert np.abs(read_audio(path) / 32768 - 0.75 * speech).max() < 1e-4
    soundfile.write(path, np.column_stack([speech, speech, other]), 16_000)
    with pytest.raises(AudioError, match="channel 0 and channel 2 are not one sound"):
        read_audio(path)
    assert np.abs(read_audio(path, 2) / 32768 - other).max() < 1e-4
    with pytest.raises(AudioError, match="has 3 channels, 0 to 2; channel: 3 is none of them"):
        read_audio(path, 3)


def test_a_mono_file_has_a_left_channel_only(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.arange(1000, dtype=np.int16), 16_000)
    assert np.array_equal(read_audio(tmp_path / "a.wav", "left"), np.arange(1000))
    with pytest.raises(AudioError, match="has one channel, number 0; channel: right is none of them"):
        read_audio(tmp_path / "a.wav", "right")


# Clipping


@pytest.mark.parametrize(("limit", "level"), [(0.02, "error"), (0.12, "warning")])
@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_clipped_recordings_are_noticed_whatever_became_of_their_level(
    tmp_path: Path, limit: float, level: str, gain: float
) -> None:
    flat = np.clip(syllables(1, 12), -limit, limit)
    part = float((np.abs(flat) == limit).sum() / np.count_nonzero(flat))
    assert (part > 0.05) == (level == "error")
    soundfile.write(tmp_path / "a.wav", flat * gain * max(1.0, 0.1 / limit), 16_000)
    note = only_note(read_sound(tmp_path / "a.wav"), "clipped_sound", level)
    assert float(note.message.split()[0]) == pytest.approx(100 * part, rel=0.3)


def only_note(sound: Sound, kind: str, level: str) -> SoundNote:
    (note,) = sound.notes
    assert (note.kind, note.level) == (kind, level)
    return note
