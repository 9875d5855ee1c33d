"""The repository of CREMA-D: AudioWAV/ACTOR_SENTENCE_EMOTION_LEVEL.wav and the table of actors."""

from __future__ import annotations

from pathlib import Path

from tests.layouts.speech import write_lines, write_speech

ACTORS = {"1001": "Male", "1002": "Female", "1005": "Male", "1008": "Female", "1010": "Female", "1040": "Male",
          "1064": "Male", "1076": "Female"}  # fmt: skip
EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
ODD = "1040_ITH_SAD_X"
BROKEN = ("1064_IEO_DIS_MD", "1076_MTI_SAD_XX")


def write_crema_d(root: Path) -> None:
    """Each actor says one sentence in six emotions; one name has one X, two recordings are those known to be broken."""
    for actor in ACTORS:
        for emotion in EMOTIONS:
            write_speech(root / "AudioWAV" / f"{actor}_DFA_{emotion}_XX.wav")
    for name in (ODD, "1001_IEO_ANG_HI", *BROKEN):
        write_speech(root / "AudioWAV" / f"{name}.wav")
    rows = [f'{actor},40,"{sex}","Caucasian","Not Hispanic"' for actor, sex in ACTORS.items()]
    write_lines(root / "VideoDemographics.csv", ['"ActorID","Age","Sex","Race","Ethnicity"', *rows])
