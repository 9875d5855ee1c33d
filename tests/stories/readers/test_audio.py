"""Any sound becomes mono 16 kHz int16 without moving in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from brainlit.stories.readers.audio import AudioError, read_audio, resample, to_int16


def test_what_is_already_right_comes_back_bit_by_bit(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).integers(-32768, 32767, size=999).astype(np.int16)
    soundfile.write(tmp_path / "a.flac", sound, 16_000)
    assert np.array_equal(read_audio(tmp_path / "a.flac"), sound)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000])
def test_a_tone_keeps_its_pitch_and_a_click_its_time(tmp_path: Path, rate_hz: int) -> None:
    t = np.arange(2 * rate_hz) / rate_hz
    left = 0.5 * np.sin(2 * np.pi * 440 * t)
    soundfile.write(tmp_path / "a.wav", np.column_stack([left, np.zeros_like(left)]), rate_hz, subtype="FLOAT")
    audio = read_audio(tmp_path / "a.wav") / 32768
    assert len(audio) == 32_000
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    assert np.abs(audio - expected)[200:-200].max() < 2e-3
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
