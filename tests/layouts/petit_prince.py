"""The English part of ds003643 as published: file names, run numbers, volumes per run and durations; tiny brains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.layouts.volumes import write_run, write_sound

# README of ds003643, version 2.0.6: seconds of sound, volumes of the raw runs and of the preprocessed ones.
SOUND_S = (554.7, 587.8, 671.4, 598.2, 522.2, 678.1, 642.0, 575.8, 727.1)
RAW = (286, 302, 344, 307, 269, 347, 329, 296, 372)
PREPROCESSED = (282, 298, 340, 303, 265, 343, 325, 292, 368)
FIRST_RUN = {"sub-EN057": 15, "sub-EN092": 3}
"""Run number of section 1 in the file names; it differs from subject to subject."""


@dataclass(frozen=True)
class PetitPrinceFiles:
    """What was written: in section k there is a click in the sound, and a response to it in the planted voxel."""

    root: Path
    subjects: tuple[str, ...]
    sections: tuple[int, ...]

    @staticmethod
    def click_s(section: int) -> float:
        """Second of the section's sound."""
        return 101.0 + 14 * section

    def run(self, subject: str, section: int) -> Path:
        """Published, preprocessed run."""
        number = FIRST_RUN[subject] + section - 1
        name = f"{subject}_task-lppEN_run-{number:02d}_space-MNIColin27_desc-preproc_bold.nii.gz"
        return self.root / "derivatives" / subject / "func" / name


def write_petit_prince(
    root: Path, subjects: tuple[str, ...] = ("sub-EN057",), sections: tuple[int, ...] = tuple(range(1, 10))
) -> PetitPrinceFiles:
    """Write the layout; the scanner runs from 8 s before the sound, and the first four volumes are dropped."""
    files = PetitPrinceFiles(root, subjects, sections)
    for section in sections:
        sound = root / "stimuli" / f"task-lppEN_section-{section}.wav"
        write_sound(sound, SOUND_S[section - 1], files.click_s(section), seed=section)
        for n, subject in enumerate(subjects):
            seconds_of_scan = files.click_s(section) + 8.0
            planted = int(seconds_of_scan / 2.0) - 4
            write_run(files.run(subject, section), PREPROCESSED[section - 1], planted, seed=100 * n + section)
    _write_words(root / "annotation" / "EN" / "lppEN_word_information.csv", files)
    return files


def _write_words(path: Path, files: PetitPrinceFiles) -> None:
    """An index column without a name, times from the start of each section; a word a second, 'sheep' at the click.

    The published table has more columns, which nobody reads.
    """
    rows = [",word,lemma,onset,offset,logfreq,pos,section"]
    for section in range(1, 10):
        for second in range(int(SOUND_S[section - 1])):
            word = "sheep" if second == files.click_s(section) else ("#" if second % 50 == 0 else f"word{second}")
            rows.append(f"{len(rows) - 1},{word},{word},{second}.0,{second}.5,-4.5,NOUN,{section}")
    rows.append(f"{len(rows) - 1},,,1.0,1.5,,,1")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
