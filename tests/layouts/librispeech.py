"""LibriSpeech as it unpacks: a folder per set, speaker and chapter, FLAC, and the words of a chapter in one file."""

from __future__ import annotations

from pathlib import Path

from tests.layouts.speech import write_lines, write_speech

CHAPTERS = {"train-clean-100": [("103", "1240"), ("1034", "121119")], "dev-clean": [("84", "121123")],
            "test-clean": [("61", "70968")], "test-other": [("367", "130732")]}  # fmt: skip
WORDS = ("CHAPTER ONE MISSUS RACHEL LYNDE", "AND I'M TO TAKE IT")


def write_librispeech(root: Path) -> None:
    """Two utterances per chapter."""
    for name, chapters in CHAPTERS.items():
        for speaker, chapter in chapters:
            home = root / name / speaker / chapter
            names = [f"{speaker}-{chapter}-{k:04}" for k in range(len(WORDS))]
            for utterance in names:
                write_speech(home / f"{utterance}.flac")
            lines = [f"{utterance} {text}" for utterance, text in zip(names, WORDS, strict=True)]
            write_lines(home / f"{speaker}-{chapter}.trans.txt", lines)
    write_lines(root / "SPEAKERS.TXT", ["; some pipe|separated|information"])
