"""ds002322 as published: file names, 372 volumes, events beside the subject's folders; tiny brains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.layouts.volumes import write_run, write_sound

N_VOLUMES = 372
CLICK_S = 300.5
STARTED_S = {"sub-18": 0.657, "sub-22": 0.427, "sub-53": 0.0052}
"""When the sound started in the scan: the published events of three subjects."""
SOUND = "stimuli/DownTheRabbitHoleFinal_mono_exp120_NR16_pad.wav"
WORDS = "code/annotations.tsv"


@dataclass(frozen=True)
class AliceFiles:
    """What was written: a click in the sound at CLICK_S, and a response to it in the planted voxel."""

    root: Path
    subjects: tuple[str, ...]

    def run(self, subject: str) -> Path:
        """Published, preprocessed run."""
        return self.root / "derivatives" / subject / f"{subject}_task-alice_bold_preprocessed.nii.gz"

    def events(self, subject: str) -> Path:
        """Published events: beside func/, not in it."""
        return self.root / subject / f"{subject}_task-alice_events.tsv"


def write_alice_bids(root: Path, subjects: tuple[str, ...] = ("sub-18",), n_volumes: int = N_VOLUMES) -> AliceFiles:
    """Write the layout. The header of every second subject says 1 s per volume, as SPM does where it does not know."""
    files = AliceFiles(root, subjects)
    write_sound(root / SOUND, 748.0, CLICK_S, seed=0)
    for n, subject in enumerate(subjects):
        planted = int((CLICK_S + STARTED_S[subject]) / 2.0)
        write_run(files.run(subject), n_volumes, planted, seed=n, header_tr_s=2.0 if n % 2 == 0 else 1.0)
        write_events(files.events(subject), STARTED_S[subject])
    _write_words(root / WORDS)
    return files


def write_events(path: Path, started_s: float) -> None:
    """One event: the sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = Path(SOUND).name
    path.write_text(f"onset\tduration\tstim_file\n{started_s}\t748\t{name}\n", encoding="utf-8")


def _write_words(path: Path) -> None:
    """A word a second from 20 s on; 'rabbit' at the click."""
    rows = ["Words\tWord Onset\tWord Offset\tSentences"]
    for second in range(20, 744):
        word = "rabbit" if second == int(CLICK_S) else f"word{second}"
        rows.append(f"{word}\t{second + 0.5}\t{second + 0.9}\t1")
    rows.insert(3, "\t\t\t1")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
