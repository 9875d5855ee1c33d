"""The layout of the Narratives collection with short stories: as published, but for the number of volumes.

The numbers here are typed off the collection's events, not taken from brainlit, so that a wrong clock is noticed.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import soundfile
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiLabel, GiftiLabelTable

TR_S = 1.5
N_VERTICES = 40962
N_DRIVEN = 8
"""Vertices per hemisphere that hold data: the first ones."""
RATE_HZ = 4000
MUSIC_S = {"black": None, "bronx": None, "forgot": None, "piemanpni": None, "pieman": 0.0, "slumlordreach": 4.5}
"""Seconds of scan at which the music of a task begins, where there is one; the sound file begins with it."""
STORY_S = {"black": 12.0, "bronx": 12.0, "forgot": 12.0, "piemanpni": 12.0, "pieman": 15.0, "slumlord": 29.5}
REACH_AFTER_S = 75.0
"""Seconds after the story slumlord at which reach begins (940 in the real scan, which would be large here)."""


@dataclass(frozen=True)
class Planted:
    """What the files hold.

    Parameters
    ----------
    n_trs : int
        Volumes in which each story is told.
    burst_s : mapping of story to float
        Seconds of the sound file at which a loud word is said; every driven vertex peaks in the volume of that time.
    """

    n_trs: int
    burst_s: Mapping[str, float]


def write_narratives(
    root: Path,
    stories: Sequence[str] = ("black", "bronx"),
    runs: Sequence[str] = ("sub-127", "sub-265"),
    n_trs: int = 40,
    derivative: str = "afni-nosmooth",
) -> Planted:
    """Write sound, alignment, events and responses of some stories below root.

    Parameters
    ----------
    stories : sequence of str
        Of black, bronx, forgot, piemanpni, pieman, and slumlord and reach, which share a scan.
    runs : sequence of str
        'sub-127', or 'sub-002_run-1' for one of two.
    """
    rng = np.random.default_rng(0)
    tasks: dict[str, list[str]] = {}
    for story in stories:
        tasks.setdefault("slumlordreach" if story in ("slumlord", "reach") else story, []).append(story)
    burst_s: dict[str, float] = {}
    events: dict[str, dict[str, dict[str, int]]] = {}
    for task, names in tasks.items():
        begins_s = {name: STORY_S.get(name, STORY_S["slumlord"] + REACH_AFTER_S) for name in names}
        music_s = MUSIC_S[task]
        file_s = music_s if music_s is not None else begins_s[names[0]]
        events[task] = {name: {"onset": round(s / TR_S), "duration": n_trs} for name, s in begins_s.items()}
        burst_s |= {name: round(begins_s[name] - file_s + 0.55 * n_trs * TR_S + 0.7, 2) for name in names}
        n_volumes = max(one["onset"] for one in events[task].values()) + n_trs + 2
        bursts = [burst_s[name] for name in names]
        _write_sound(root / "stimuli" / f"{task}_audio.wav", n_volumes * TR_S - file_s, bursts, rng)
        _write_gentle(root / "stimuli" / "gentle" / task, n_volumes * TR_S - file_s - 3, bursts)
        rows = [] if music_s is None else [(music_s, 10.0, "music")]
        rows += [(s, n_trs * TR_S, "story") for s in begins_s.values()]
        for run in runs:
            subject, _, number = run.partition("_")
            stem = f"{subject}_task-{task}" + (f"_{number}" if number else "")
            _write_events(root / subject / "func" / f"{stem}_events.tsv", rows, f"{task}_audio.wav")
            peaks = [int((file_s + one) // TR_S) for one in bursts]
            for hemi in "LR":
                name = f"{stem}_space-fsaverage6_hemi-{hemi}_desc-clean.func.gii"
                write_hemisphere(root / "derivatives" / derivative / subject / "func" / name, n_volumes, peaks, rng)
    (root / "code").mkdir(parents=True, exist_ok=True)
    (root / "code" / "event_meta.json").write_text(json.dumps(events, indent=2))
    return Planted(n_trs, burst_s)


def write_hemisphere(
    path: Path, n_volumes: int, peaks: Sequence[int], rng: np.random.Generator, n_vertices: int = N_VERTICES
) -> None:
    """One data array per volume; vertices without data are 0, the medial wall NaN."""
    values = np.zeros((n_volumes, n_vertices), dtype=np.float32)
    values[:, -1000:] = np.nan
    values[:, :N_DRIVEN] = rng.normal(0, 5, (n_volumes, N_DRIVEN))
    for peak in peaks:
        values[peak, :N_DRIVEN] += 60
    arrays = [GiftiDataArray(row, intent="NIFTI_INTENT_TIME_SERIES", datatype="NIFTI_TYPE_FLOAT32") for row in values]
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(GiftiImage(darrays=arrays), path)  # type: ignore[no-untyped-call]


def write_areas(root: Path, derivative: str = "afni-nosmooth", others: Sequence[str] = ()) -> None:
    """The areas of HCP-MMP1 as the collection ships them; here A1 is vertices 0..3, 4 (number 8) the next four.

    `others` are one vertex each, after these.
    """
    for hemi in "LR":
        table = GiftiLabelTable()
        for number, name in ((0, "???"), (24, f"{hemi}_A1_ROI"), (8, f"{hemi}_4_ROI")):
            label = GiftiLabel(key=number)
            label.label = name
            table.labels.append(label)
        numbers = np.zeros(N_VERTICES, dtype=np.int32)
        numbers[:4], numbers[4:8] = 24, 8
        for k, name in enumerate(others):
            label = GiftiLabel(key=100 + k)
            label.label = f"{hemi}_{name}_ROI"
            table.labels.append(label)
            numbers[8 + k] = 100 + k
        path = (
            root / "derivatives" / derivative / "tpl-fsaverage6" / f"tpl-fsaverage6_hemi-{hemi}_desc-MMP_dseg.label.gii"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        array = GiftiDataArray(numbers, intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32")
        nib.save(GiftiImage(darrays=[array], labeltable=table), path)  # type: ignore[no-untyped-call]


def _write_sound(path: Path, duration_s: float, bursts_s: Sequence[float], rng: np.random.Generator) -> None:
    sound = 0.01 * rng.standard_normal((round(duration_s * RATE_HZ), 2))
    for burst_s in bursts_s:
        sound[round(burst_s * RATE_HZ) : round((burst_s + 0.3) * RATE_HZ)] *= 50
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(sound, -1, 1), RATE_HZ)


def _write_gentle(folder: Path, duration_s: float, bursts_s: Sequence[float]) -> None:
    """Both files of gentle. Every ninth word is not found, every seventh is not in the dictionary."""
    starts_s = sorted([*np.arange(1.0, duration_s, 0.7).round(2).tolist(), *bursts_s])
    words: list[dict[str, Any]] = []
    for k, start_s in enumerate(starts_s):
        if k % 9 == 5 and start_s not in bursts_s:
            words.append({"case": "not-found-in-audio", "word": "Orchard", "startOffset": k, "endOffset": k + 7})
            continue
        unknown = k % 7 == 3 and start_s not in bursts_s
        text = "Burst" if start_s in bursts_s else "Pie"
        phones = [("oov_S", 0.2)] if unknown else [("p_B", 0.05), ("ay_E", 0.15)]
        words.append(
            {
                "case": "success", "word": text, "alignedWord": "<unk>" if unknown else text.lower(),
                "start": start_s, "end": round(start_s + 0.2, 2), "startOffset": k, "endOffset": k + len(text),
                "phones": [{"phone": phone, "duration": duration} for phone, duration in phones],
            }
        )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    transcript = " ".join(word["word"] for word in words)
    (folder / "align.json").write_text(json.dumps({"transcript": transcript, "words": words}, indent=1))
    with (folder / "align.csv").open("w", newline="") as file:
        for word in words:
            csv.writer(file).writerow(
                [word["word"], word.get("alignedWord", ""), word.get("start", ""), word.get("end", "")]
            )


def _write_events(path: Path, rows: Sequence[tuple[float, float, str]], sound: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["onset\tduration\ttrial_type\tstim_file"]
    lines += [f"{onset_s}\t{duration_s}\t{kind}\t{sound}" for onset_s, duration_s, kind in rows]
    path.write_text("\n".join(lines) + "\n")
