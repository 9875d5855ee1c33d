"""Sound files that were cut, or have other bytes than they had, are refused; odd ones that are whole are read."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from brainlit.stories.readers.announced import AudioError
from brainlit.stories.readers.audio import read_audio, read_sound
from brainlit.stories.readers.compressed_sound import ogg_crc
from brainlit.stories.readers.sound_files import opened
from tests.stories.readers.voices import RATE_HZ, syllables

SPEECH = syllables(1, 3)


def as_bytes(sound: np.ndarray[Any, Any] = SPEECH, rate_hz: int = RATE_HZ, **how: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound, rate_hz, **how)
    return file.getvalue()


def read(path: Path, content: bytes) -> np.ndarray[Any, Any]:
    path.write_bytes(content)
    return read_audio(path) / 32768


def wav(
    samples: bytes, data_size: int | None = None, after: bytes = b"", rate_hz: int = RATE_HZ, **fields: Any
) -> bytes:
    """A mono WAV of 16 bits, written field by field."""
    size = len(samples) if data_size is None else data_size
    per_second = fields.get("per_second", 2 * rate_hz)
    order = fields.get("order", "<")
    fmt = struct.pack(f"{order}4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, per_second, 2, 16)
    body = b"WAVE" + fmt + struct.pack(f"{order}4sI", b"data", size) + samples + after
    return (b"RIFF" if order == "<" else b"RIFX") + struct.pack(f"{order}I", len(body)) + body


PCM = np.rint(32767 * SPEECH).astype("<i2").tobytes()
KINDS: dict[str, dict[str, Any]] = {
    "a.wav": {"format": "WAV"},
    "a24.wav": {"format": "WAV", "subtype": "PCM_24"},
    "rf64.wav": {"format": "RF64"},
    "a.w64": {"format": "W64"},
    "a.aiff": {"format": "AIFF"},
    "a.au": {"format": "AU"},
    "a.caf": {"format": "CAF"},
    "nist.wav": {"format": "NIST"},
    "a.flac": {"format": "FLAC"},
    "a.ogg": {"format": "OGG"},
    "a.opus": {"format": "OGG", "subtype": "OPUS"},
    "a.mp3": {"format": "MP3"},
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("cut", [0.5, 0.75, 0.97])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, name: str, cut: float) -> None:
    whole = as_bytes(**KINDS[name])
    assert np.corrcoef(read(tmp_path / name, whole), SPEECH)[0, 1] > 0.97
    with pytest.raises(AudioError, match=f"{name}.*(cut off|not a readable).* (again|Convert it to WAV)"):
        read(tmp_path / name, whole[: round(cut * len(whole))])


def test_the_refusal_says_what_is_announced_and_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(
        AudioError, match=r"a\.wav is cut off: its header announces 96000 bytes.*of which 50000 are there"
    ):
        read(tmp_path / "a.wav", wav(PCM)[:50_044])
    with pytest.raises(AudioError, match=r"announced, but reading stops after 0\.\d\d s"):
        read(tmp_path / "a.flac", as_bytes(format="FLAC")[:20_000])


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.opus"])
def test_other_bytes_are_found_where_there_are_checksums(tmp_path: Path, name: str) -> None:
    whole = as_bytes(**KINDS[name])
    for place in (0.2, 0.55, 0.9):
        changed = bytearray(whole)
        changed[int(place * len(whole))] ^= 0x10
        with pytest.raises(AudioError, match=f"{name} is damaged"):
            read(tmp_path / name, bytes(changed))


# WAV


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F000, 0x8000_0000, 0xFFFF_FFD8])
@pytest.mark.parametrize("order", ["<", ">"])
def test_lengths_that_a_pipe_could_not_know_are_those_of_the_file(tmp_path: Path, size: int, order: str) -> None:
    samples = PCM if order == "<" else np.frombuffer(PCM, "<i2").astype(">i2").tobytes()
    path = tmp_path / "pipe.wav"
    path.write_bytes(wav(samples, size, order=order))
    sound = read_sound(path)
    assert np.array_equal(sound.samples, np.frombuffer(PCM, "<i2"))
    assert [(note.kind, note.level) for note in sound.notes] == [("open_length", "info")]


@pytest.mark.parametrize("size", [0, 2**64 - 1])
def test_the_same_of_rf64(tmp_path: Path, size: int) -> None:
    whole = bytearray(as_bytes(format="RF64"))
    at = whole.index(b"ds64") + 16
    whole[at : at + 16] = 2 * size.to_bytes(8, "little")
    path = tmp_path / "pipe.wav"
    path.write_bytes(whole)
    sound = read_sound(path)
    assert np.abs(sound.samples / 32768 - SPEECH).max() < 1e-4
    assert [note.kind for note in sound.notes] == ["open_length"]


def test_chunks_after_the_samples_are_no_samples(tmp_path: Path) -> None:
    notes = b"LIST" + struct.pack("<I", 12) + b"INFOxyz\0\0\0\0\0"
    for after in (notes, b"TAG" + bytes(125), bytes(512), b"LIST" + struct.pack("<I", 99) + b"cut"):
        assert np.array_equal(read(tmp_path / "a.wav", wav(PCM, after=after)) * 32768, np.frombuffer(PCM, "<i2"))
    odd = as_bytes(np.rint(SPEECH[:1001] * 127) / 128, format="WAV", subtype="PCM_U8")
    assert len(read(tmp_path / "a.wav", odd)) == 1001
    tagged = b"ID3\x03\0\0\0\0\0\x14" + bytes(20) + wav(PCM)
    assert len(read(tmp_path / "a.wav", tagged)) == len(SPEECH)
    with pytest.raises(AudioError, match="is cut off"):
        read(tmp_path / "a.wav", tagged[:50_000])


def test_samples_that_the_header_does_not_announce_are_not_left_out(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"a\.wav holds 76000 bytes after the 20000 bytes of samples"):
        read(tmp_path / "a.wav", wav(PCM, 20_000))


def test_a_rate_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        AudioError, match="contradicts itself: 16000 samples per second of 2 bytes are not the 32064 byt"
    ):
        read(tmp_path / "a.wav", wav(PCM, per_second=32_064))
    assert len(read(tmp_path / "a.wav", wav(PCM, per_second=0))) == len(SPEECH)
    for rate_hz in (3, 2**30):
        with pytest.raises(AudioError, match="as no sound has"):
            read(tmp_path / "a.wav", wav(PCM, rate_hz=rate_hz))


# FLAC


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_the_md5_of_flac_is_met(tmp_path: Path, subtype: str, n_channels: int) -> None:
    sound = np.repeat(SPEECH[:, None], n_channels, axis=1)
    whole = bytearray(as_bytes(sound, format="FLAC", subtype=subtype))
    step = {"PCM_S8": 2**-7, "PCM_16": 2**-15, "PCM_24": 2**-15}[subtype]
    assert np.abs(read(tmp_path / "a.flac", bytes(whole)) - SPEECH).max() <= 1.01 * step
    whole[30] ^= 1
    if subtype != "PCM_S8":
        with pytest.raises(AudioError, match="its samples have another MD5"):
            read(tmp_path / "a.flac", bytes(whole))
    whole[26:42] = bytes(16)
    assert len(read(tmp_path / "a.flac", bytes(whole))) == len(SPEECH), "without an MD5 there is none to meet"


def test_a_rate_that_is_not_that_of_the_frames_is_refused(tmp_path: Path) -> None:
    whole = bytearray(as_bytes(format="FLAC"))
    whole[20] ^= 0x40
    with pytest.raises(AudioError, match=r"contradicts itself: 16004 Hz in its header are 16000 Hz in its frames"):
        read(tmp_path / "a.flac", bytes(whole))
    for rate_hz in (8_000, 12_345, 44_100, 65_535):
        assert len(read(tmp_path / "a.flac", as_bytes(rate_hz=rate_hz, format="FLAC"))) > 0


def test_flac_of_unknown_length_is_read_to_its_end(tmp_path: Path) -> None:
    whole = bytearray(as_bytes(format="FLAC"))
    whole[21] &= 0xF0
    whole[22:26] = bytes(4)
    assert np.abs(read(tmp_path / "a.flac", bytes(whole)) - SPEECH).max() < 1e-4


# Ogg


def test_the_checksum_of_ogg_is_the_one_of_its_specification() -> None:
    """Bit by bit: polynomial 0x04c11db7, from the highest bit, nothing inverted."""
    page = np.random.default_rng(0).bytes(300)
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = ((crc << 1) ^ (0x04C1_1DB7 if crc >> 31 else 0)) & 0xFFFF_FFFF
    assert ogg_crc(page) == crc != zlib.crc32(page)


def test_ogg_that_lacks_pages_or_holds_two_streams_is_refused(tmp_path: Path) -> None:
    whole = as_bytes(syllables(1, 12), format="OGG")
    pages = [b"OggS" + part for part in whole.split(b"OggS")[1:]]
    assert len(pages) > 5
    with pytest.raises(AudioError, match=r"a\.ogg is cut off: its last page \(number \d+\) is not marked as the end"):
        read(tmp_path / "a.ogg", b"".join(pages[:-1]))
    with pytest.raises(AudioError, match=r"lacks pages: number 3 should stand at byte \d+, not 4"):
        read(tmp_path / "a.ogg", b"".join(pages[:3] + pages[4:]))
    other = as_bytes(format="OGG")
    with pytest.raises(AudioError, match="holds several streams"):
        read(tmp_path / "a.ogg", whole + other)


# MP3


def as_mp3(n_channels: int, rate_hz: int, mode: str, has_header: bool = True) -> bytes:
    file = io.BytesIO()
    sound = np.repeat(syllables(1, 3, rate_hz)[:, None], n_channels, axis=1)
    how: dict[str, Any] = {"format": "MP3", "bitrate_mode": mode, "compression_level": 0.5}
    with soundfile.SoundFile(file, "w", rate_hz, n_channels, **how) as mp3:
        mp3.write(sound)
    content = file.getvalue()
    return content if has_header else content[content.index(content[:2], 64) :]


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE", "AVERAGE"])
@pytest.mark.parametrize(("n_channels", "rate_hz"), [(1, 16_000), (2, 44_100), (1, 8_000)])
def test_mp3_is_read_whole_or_refused(tmp_path: Path, n_channels: int, rate_hz: int, mode: str) -> None:
    whole = as_mp3(n_channels, rate_hz, mode)
    tag = b"ID3\x03\0\0\0\0\x02\0" + bytes(256)
    for content in (whole, tag + whole, tag + bytes(100) + whole, whole + b"TAG" + bytes(125), whole + bytes(300)):
        assert len(read(tmp_path / "a.mp3", content)) == 3 * RATE_HZ
    for cut in (len(whole) // 3, len(whole) - 5):
        with pytest.raises(AudioError, match=r"a\.mp3.* is cut off"):
            read(tmp_path / "a.mp3", whole[:cut])
    for n_bytes in (100, 5):
        with pytest.raises(AudioError, match=r"a\.mp3 is damaged at byte \d+"):
            read(tmp_path / "a.mp3", whole[: len(whole) // 2] + whole[len(whole) // 2 + n_bytes :])
    damaged = bytearray(whole)
    damaged[7] ^= 255  # libsndfile does not take it for a header then, and guesses the length
    if mode == "VARIABLE":
        with pytest.raises(AudioError, match=r"announced, but reading stops after"):
            read(tmp_path / "a.mp3", bytes(damaged))
    with pytest.raises(AudioError, match=r"announces \d+ frames of MPEG, but holds \d+"):
        read(tmp_path / "a.mp3", whole + tag + whole)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_mp3_without_a_header_of_its_length_is_read_whole_or_refused(tmp_path: Path, mode: str) -> None:
    """libsndfile guesses how long it is, and reads no more than that: of variable bit rates a third."""
    content = as_mp3(1, 16_000, mode, has_header=False)
    if mode == "CONSTANT":
        assert abs(len(read(tmp_path / "a.mp3", content)) - 3 * RATE_HZ) < 3000
    else:
        with pytest.raises(AudioError, match=r"a\.mp3.*announced, but reading stops after"):
            read(tmp_path / "a.mp3", content)


def test_samples_that_begin_like_mp3_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound Designer II has no header of its own: its first bytes are the first sample."""
    monkeypatch.chdir(tmp_path)  # libsndfile leaves a file "._" where it writes this kind
    sound = np.full(1000, -(2**-12))
    sound[100:] = SPEECH[:900]
    content = as_bytes(sound, format="SD2", subtype="PCM_24")
    assert content[:2] == b"\xff\xf8"
    (tmp_path / "a.sd2").write_bytes(content)
    with pytest.raises(AudioError, match="not a readable sound file"):
        read_audio(tmp_path / "a.sd2")


def test_compressed_samples_in_aiff_are_read(tmp_path: Path) -> None:
    """Its header counts packets and not samples."""
    assert len(read(tmp_path / "a.aiff", as_bytes(format="AIFF", subtype="IMA_ADPCM"))) == len(SPEECH)


# What is no sound


CURE = "Convert it to WAV or FLAC"


@pytest.mark.parametrize("content", [b"", b"RIFF", b"<html></html>", b"fLaC", b"OggS", b"\xff\xfb\x90\x00", PCM[:99]])
def test_what_is_no_sound_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    for name in ("a.wav", "a.raw", "a.mp3"):
        with pytest.raises(AudioError, match=name):
            read(tmp_path / name, content)


def test_folders_and_what_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "a.wav"):
        with pytest.raises(FileNotFoundError, match="does not exist"), opened(path):
            pass


def test_whole_files_say_what_they_are(tmp_path: Path) -> None:
    kinds: list[tuple[str, Callable[..., bytes], float, bool]] = [
        ("PCM_16", as_bytes, 32768.0, False),
        ("PCM_24", as_bytes, 1.0, False),
        ("PCM_U8", as_bytes, 1.0, True),
    ]
    for subtype, make, full_scale, is_coarse in kinds:
        (tmp_path / "a.wav").write_bytes(make(format="WAV", subtype=subtype))
        with opened(tmp_path / "a.wav") as file:
            assert (file.rate_hz, file.n_channels, file.full_scale, file.is_coarse) == (
                RATE_HZ,
                1,
                full_scale,
                is_coarse,
            )
            assert sum(map(len, file.blocks())) == len(SPEECH)
