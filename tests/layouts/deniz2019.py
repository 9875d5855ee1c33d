"""The layout of the reading and listening data of Deniz et al. (2019), with few voxels.

The numbers are typed off the lab's public metadata (lengths of scans, scanner logs), not taken from brainlit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import soundfile

TR_S = 2.0045
SOUND_START_S = 10.023
N_VOLUMES = {"story_01": 363, "story_02": 387, "story_03": 374, "story_04": 420, "story_05": 450, "story_06": 378,
             "story_07": 442, "story_08": 424, "story_09": 375, "story_10": 324, "story_11": 311}  # fmt: skip
TITLES = {"story_01": "alternateithicatom", "story_10": "undertheinfluence", "story_11": "wheretheressmoke"}
RATE_HZ = 2000
N_VOXELS = 12
N_DRIVEN = 8
"""Voxels that follow the burst; two more are noise, one is constant, one NaN."""


@dataclass(frozen=True)
class Planted:
    """Seconds of sound at which each story's loud word is said; driven voxels peak in the volume of that time."""

    burst_s: Mapping[str, float]


def write_deniz2019(
    root: Path,
    subjects: Sequence[str] = ("subject01",),
    modalities: Sequence[str] = ("listening",),
    stories: Sequence[str] = ("story_01", "story_10", "story_11"),
) -> Planted:
    """Write responses, mappers, sounds and TextGrids of some stories (of story_01, story_10, story_11) below root."""
    rng = np.random.default_rng(0)
    burst_s = {TITLES[name]: 100.3 + 37.1 * k for k, name in enumerate(stories)}
    for name in stories:
        _write_story(root / "stimuli", name, burst_s[TITLES[name]], rng)
    for subject in subjects:
        _write_mapper(root / "mappers" / f"{subject}_mappers.hdf")
        for modality in modalities:
            parts = {"trn": [n for n in stories if n != "story_11"], "val": [n for n in stories if n == "story_11"]}
            for part, names in parts.items():
                path = root / "responses" / f"{subject}_{modality}_fmri_data_{part}.hdf"
                path.parent.mkdir(parents=True, exist_ok=True)
                with h5py.File(path, "w") as file:
                    for name in names:
                        file[name] = _responses(name, burst_s[TITLES[name]], rng)
    return Planted(burst_s)


def _responses(name: str, burst_s: float, rng: np.random.Generator) -> np.ndarray:
    """(n_volumes, n_voxels) float64, or (2, n_volumes, n_voxels) for the story that was presented twice."""
    values = rng.standard_normal((2, N_VOLUMES[name], N_VOXELS))
    values[:, int((SOUND_START_S + burst_s) // TR_S), :N_DRIVEN] += 12
    values[:, :, 10], values[:, :, 11] = 0.0, np.nan
    values[:, :10, 0] += 500  # what trimming takes away
    return values if name == "story_11" else values[0]


def _write_mapper(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for region, voxels in {"AC": [0, 1, 2], "Broca": [3, 4], "V1": [8, 9], "FFA": []}.items():
            mask = np.zeros(N_VOXELS)
            mask[voxels] = 1
            file[f"roi_mask_{region}"] = mask
        file["flatmap_mask"] = np.ones((4, 5), dtype=bool)
        file["voxel_to_fsaverage_shape"] = np.array([327684, N_VOXELS])


def _write_story(folder: Path, name: str, burst_s: float, rng: np.random.Generator) -> None:
    duration_s = N_VOLUMES[name] * TR_S - 2 * SOUND_START_S
    sound = 0.01 * rng.standard_normal(round(duration_s * RATE_HZ))
    sound[round(burst_s * RATE_HZ) : round((burst_s + 0.4) * RATE_HZ)] *= 50
    grids = folder / "textgrids" / "stimulus_textgrids"
    grids.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{name}.wav", np.clip(sound, -1, 1), RATE_HZ)
    (folder / f"{name}.txt").write_text("so today burst")
    ends_s = np.arange(0.5, burst_s, 0.5)
    words = [(end - 0.5, end, "sp" if k % 5 == 0 else "SENTENCE_START" if k == 3 else "today")
             for k, end in enumerate(ends_s)]  # fmt: skip
    words += [(ends_s[-1], burst_s, "br"), (burst_s, burst_s + 0.4, "burst"), (burst_s + 0.4, duration_s, "")]
    phones = [(start, end, "sp" if text != "burst" else "B") for start, end, text in words]
    (grids / f"{TITLES[name]}.TextGrid").write_text(_textgrid({"phone": phones, "word": words}, duration_s))


def _textgrid(tiers: Mapping[str, Sequence[tuple[float, float, str]]], duration_s: float) -> str:
    """Short text format, as the lab's files are."""
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", f"{duration_s}", "<exists>", "2"]
    for name, intervals in tiers.items():
        lines += ['"IntervalTier"', f'"{name}"', "0", f"{duration_s}", f"{len(intervals)}"]
        lines += [line for start, end, text in intervals for line in (f"{start}", f"{end}", f'"{text}"')]
    return "\n".join(lines) + "\n"
