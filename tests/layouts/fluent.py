"""fluent_speech_commands_dataset as it unpacks: three tables in data, sounds in wavs/speakers/SPEAKER."""

from __future__ import annotations

from pathlib import Path

from tests.layouts.speech import write_lines, write_speech

HEADER = ",path,speakerId,transcription,action,object,location"
PHRASES = (
    ("Turn on the lights in the kitchen", "activate,lights,kitchen"),
    ("Switch on the lights", "activate,lights,none"),
    ('"Heat down, please"', "decrease,heat,none"),
    ("Set the language", "change language,none,none"),
)
SPEAKERS = {"train": "2BqVo8kVB2Skwgyb", "valid": "4BrX8aDqK2cLZRYl", "test": "V4ZbwLm9G5irobWn"}


def write_fluent(root: Path) -> None:
    """One speaker per part says all phrases; the test says the last one in words of its own."""
    for part, speaker in SPEAKERS.items():
        rows = [HEADER]
        for k, (phrase, intent) in enumerate(PHRASES):
            said = "Change the language" if part == "test" and k == len(PHRASES) - 1 else phrase
            name = f"wavs/speakers/{speaker}/029f645{k}-447a-11e9-a9a5-5dbec3b8816a.wav"
            rows.append(f"{k},{name},{speaker},{said},{intent}")
            write_speech(root / name)
        write_lines(root / "data" / f"{part}_data.csv", rows)
    write_lines(root / "data" / "speaker_demographics.csv", ["speakerId,gender"])
