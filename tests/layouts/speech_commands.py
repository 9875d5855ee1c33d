"""speech_commands_v0.02 as it unpacks: a folder per word, noise, two lists; three people say each word once."""

from __future__ import annotations

from pathlib import Path

from tests.layouts.speech import write_lines, write_speech

_WORDS = """
    bed bird cat dog down eight five four go happy house left marvin nine no off on one right seven sheila six stop
    three tree two up wow yes zero backward follow forward learn visual
"""
WORDS = _WORDS.split()
SPEAKERS = {"train": "004ae714", "choose": "0132a06d", "test": "017c4098"}


def write_speech_commands(root: Path, words: list[str] = WORDS) -> None:
    """Write the words, the noise, and the lists of two of the three speakers."""
    for word in words:
        for speaker in SPEAKERS.values():
            write_speech(root / word / f"{speaker}_nohash_0.wav")
    for name in ("doing_the_dishes", "pink_noise"):
        write_speech(root / "_background_noise_" / f"{name}.wav")
    for part, name in (("choose", "validation_list.txt"), ("test", "testing_list.txt")):
        write_lines(root / name, [f"{word}/{SPEAKERS[part]}_nohash_0.wav" for word in words])
    write_lines(root / "README.md", ["# Speech Commands Data Set v0.02"])
