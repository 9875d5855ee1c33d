"""A small ds003020 on disk: its names, shapes and types, few voxels, and responses whose cause is known.

Responses are made on the true clock: the real scanner log of a story where there is one (shared/facts), a made one for
the other logged stories, and 2.0045 s for the rest. Nothing here uses the code under test.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
import soundfile

FACTS = Path(os.environ.get("BRAINLIT_FACTS") or Path(__file__).parents[3] / "shared" / "facts")
REAL_LOGS = FACTS / "lebel2023_tr_reports"

VOLUMES = {
    "alternateithicatom": 363, "souls": 375, "avatar": 387, "legacy": 420, "odetostepfather": 424,
    "undertheinfluence": 324, "howtodraw": 374, "myfirstdaywiththeyankees": 378, "naked": 442, "life": 450,
    "stagefright": 313, "tildeath": 343, "sloth": 457, "fromboyhoodtofatherhood": 368, "inamoment": 225,
    "adollshouse": 261, "sweetaspie": 177, "wheretheressmoke": 311,
}  # fmt: skip
_LOGGED = """
    alternateithicatom avatar fromboyhoodtofatherhood howtodraw legacy life myfirstdaywiththeyankees naked
    odetostepfather sloth souls undertheinfluence wheretheressmoke
"""
LOGGED = _LOGGED.split()
STORIES = ("alternateithicatom", "souls", "avatar", "naked", "life", "stagefright", "wheretheressmoke")
TEST_STORY = "wheretheressmoke"
TR_S, SOUND_START_S, DELAY_S = 2.0045, 10.023, 5.0

MARKS = ("sp", "{BR}", "{LG}", "{NS}", "ls", "SENTENCE_START", "")
_PHONES = "AA1 AE0 AH0 EH2 IY1 OW1 B CH D F K L M N P R S SH T V W Z"
PHONES = _PHONES.split()
_HEADS, _TAILS = ("bo", "ka", "ri", "su", "tu", "mi"), ("bell", "dren", "fun", "gar")
WORDS = tuple(head + tail for head in _HEADS for tail in _TAILS)
MARKER = "lighthouse"
"""A word that is said a few times per story; voxel 'marker' rises for a moment DELAY_S after each."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lebel:
    """What was planted.

    Parameters
    ----------
    kinds : array of str, shape (n_voxels,)
        'sound' follows the rate of words, 'meaning' their vectors, both DELAY_S after the sound; 'marker', 'null',
        'constant', 'nan'.
    row_starts_s : mapping of story to array (n_trs,)
        True start of each row, in seconds of sound.
    markers_s : mapping of story to array
        When the marker word begins.
    """

    root: Path
    stories: tuple[str, ...]
    subjects: tuple[str, ...]
    kinds: npt.NDArray[np.str_]
    row_starts_s: dict[str, FloatArray]
    markers_s: dict[str, FloatArray]


@dataclass(frozen=True)
class _Told:
    """Words (True where a mark), their edges, and the phones of the words."""

    labels: list[str]
    is_mark: npt.NDArray[np.bool_]
    edges_s: FloatArray
    markers_s: FloatArray
    duration_s: float


def write_lebel2023(
    root: Path,
    stories: Sequence[str] = STORIES,
    subjects: Sequence[str] = ("UTS03",),
    n_voxels: int = 24,
    n_repeats: int = 10,
    noise: float = 1.0,
    n_dims: int = 12,
    rate_hz: int = 8_000,
    seed: int = 0,
) -> Lebel:
    """Write stimuli, TextGrids, responses, scanner logs, masks, word vectors and respdict.json below `root`.

    Parameters
    ----------
    stories : names of VOLUMES
        Each as long as the real one. The sound of the first is stereo at 22.05 kHz, of the others mono at rate_hz.
    noise : float
        Standard deviation of the noise of one presentation, in those of the signal.
    n_dims : int
        Length of the vectors in english1000sm.hf5 (985 in the real one).
    """
    rng = np.random.default_rng(seed)
    derivative = root / "derivative"
    for folder in ("stimuli", "derivative/TextGrids", "derivative/tr_reports"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (derivative / "respdict.json").write_text(json.dumps(VOLUMES))
    vectors = rng.normal(size=(n_dims, len(WORDS) + 1))
    _write_vectors(derivative / "english1000sm.hf5", vectors)
    told: dict[str, _Told] = {}
    starts: dict[str, FloatArray] = {}
    for k, story in enumerate(stories):
        starts[story] = _row_starts_s(derivative / "tr_reports", story, rng)
        told[story] = _tell(rng, duration_s=(VOLUMES[story] - 5) * TR_S - SOUND_START_S - 1.0)
        _write_sound(root / "stimuli" / f"{story}.wav", told[story], rng, *((22_050, 2) if k == 0 else (rate_hz, 1)))
        _write_textgrid(derivative / "TextGrids" / f"{story}.TextGrid", told[story], rng, k)
    kinds = _kinds(n_voxels)
    for subject in subjects:
        _write_mask(derivative, subject, n_voxels, rng)
        folder = derivative / "preprocessed_data" / subject
        folder.mkdir(parents=True, exist_ok=True)
        weights = rng.normal(size=(n_voxels, n_dims))
        for story in stories:
            if (subject, story) != ("UTS04", "life"):
                signal = _signal(told[story], starts[story], kinds, weights, vectors)
                _write_responses(folder / f"{story}.hf5", story, signal, kinds, noise, n_repeats, rng)
    markers = {story: told[story].markers_s for story in stories}
    return Lebel(root, tuple(stories), tuple(subjects), kinds, starts, markers)


def _kinds(n_voxels: int) -> npt.NDArray[np.str_]:
    """Three single voxels at the end; of the rest, 40 % follow sound, 40 % meaning, 20 % nothing."""
    rest = n_voxels - 3
    n_sound = round(0.4 * rest)
    return np.array(
        ["sound"] * n_sound + ["meaning"] * n_sound + ["null"] * (rest - 2 * n_sound) + ["marker", "constant", "nan"]
    )


def _row_starts_s(folder: Path, story: str, rng: np.random.Generator) -> FloatArray:
    """Volumes 10 to n - 10 of the log that is put into the folder, or of the nominal clock."""
    n_volumes = VOLUMES[story] - 5
    if story not in LOGGED:
        return np.arange(10, n_volumes - 5) * TR_S - SOUND_START_S
    path = folder / f"{story}.report"
    if (REAL_LOGS / path.name).is_file():
        shutil.copy(REAL_LOGS / path.name, path)
    else:
        write_log(path, n_volumes, rng, missed=200 if story == "naked" else None)
    events = [line.split() for line in path.read_text().splitlines()]
    triggers = [float(seconds) for seconds, label in events if label.endswith("trigger")]
    sound_start = next(float(seconds) for seconds, label in events if label == "sound-start")
    for k in range(1, n_volumes):
        if k >= len(triggers) or triggers[k] - triggers[k - 1] > 3:
            triggers.insert(k, triggers[k - 1] + TR_S)
    return np.array(triggers[10 : n_volumes - 5]) - sound_start


def write_log(path: Path, n_volumes: int, rng: np.random.Generator, missed: int | None = None) -> None:
    """A log like the real ones: triggers seen on a grid of 8 ms, one of them perhaps missed."""
    triggers = np.rint((np.arange(n_volumes) * 2.00449 + rng.uniform(0, 0.004)) / 0.008) * 0.008
    triggers[0] = 0.0
    events = [(t, "trigger" if k else "init-trigger") for k, t in enumerate(triggers) if k != missed]
    lines = [f"{t:.6f} {label}" for t, label in sorted([*events, (10.0231, "sound-start")])]
    path.write_text("\n".join([*lines, f"{triggers[-1] - 9.6:.6f} sound-stop"]) + "\n")


def _tell(rng: np.random.Generator, duration_s: float) -> _Told:
    """Words whose rate waxes and wanes over half minutes, with pauses; the last ten seconds are silent."""
    labels: list[str] = []
    is_mark: list[bool] = []
    edges, now = [0.0], 0.0
    wanted = iter([*np.linspace(40, duration_s - 40, 8), np.inf])
    next_marker = next(wanted)
    while now < duration_s - 12:
        pause = rng.random() < 0.15 + 0.15 * np.sin(2 * np.pi * now / 31)
        due = now >= next_marker
        next_marker = next(wanted) if due else next_marker
        mark = pause and not due
        labels.append(MARKER if due else str(rng.choice(MARKS if mark else WORDS)))
        is_mark.append(mark)
        now = round(now + (rng.uniform(0.3, 3.0) if mark else rng.uniform(0.15, 0.45)), 3)
        edges.append(now)
    marker_rows = [k for k, label in enumerate(labels) if label == MARKER]
    return _Told(labels, np.array(is_mark), np.array(edges), np.array(edges)[marker_rows], duration_s)


def _write_sound(path: Path, told: _Told, rng: np.random.Generator, rate_hz: int, n_channels: int) -> None:
    """Noise, loud in words and soft elsewhere."""
    edges = np.rint(told.edges_s * rate_hz).astype(int)
    envelope = np.full(round(told.duration_s * rate_hz), 0.01, dtype=np.float32)
    envelope[: edges[-1]] = np.repeat(np.where(told.is_mark, 0.01, 0.2), np.diff(edges))
    hiss = rng.normal(size=rate_hz * 7).astype(np.float32)
    sound = np.resize(hiss, len(envelope)) * envelope
    soundfile.write(path, np.stack([sound] * n_channels, axis=1), rate_hz, subtype="PCM_16")


def _write_textgrid(path: Path, told: _Told, rng: np.random.Generator, k: int) -> None:
    """Both tiers, phone first; case of names and labels, and Praat's three forms, change with k."""
    upper, short = k % 2 == 1, k % 3 == 1
    intervals = list(zip(told.edges_s, told.edges_s[1:], told.labels, strict=False))
    words = [(a, b, text.upper() if upper else text) for a, b, text in intervals]
    phones: list[tuple[float, float, str]] = []
    for (a, b, text), mark in zip(intervals, told.is_mark, strict=True):
        cuts = [a, b] if mark else np.round(np.linspace(a, b, 1 + rng.integers(1, 4)), 4)
        spoken = [text] if mark else rng.choice(PHONES, size=len(cuts) - 1)
        phones += [(start, stop, str(p)) for start, stop, p in zip(cuts, cuts[1:], spoken, strict=False)]
    end = told.edges_s[-1]
    if k % 3 == 2:
        path.write_text(_chronological(end, phones, words), encoding="utf-8")
        return
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", f"0\n{end}\n<exists>\n2"]
    for name, tier in (("phone", phones), ("word", words)):
        lines.append(f'"IntervalTier"\n"{name.upper() if upper else name}"\n0\n{end}\n{len(tier)}')
        if short:
            lines += [f'{a}\n{b}\n"{text}"' for a, b, text in tier]
        else:
            lines += [f"    intervals [{n}]:\n        xmin = {a} \n        xmax = {b} \n        text = \"{text}\" "
                      for n, (a, b, text) in enumerate(tier, start=1)]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _chronological(end: float, phones: list[tuple[float, float, str]], words: list[tuple[float, float, str]]) -> str:
    """Tiers first, then all intervals in the order of time, each with the number of its tier."""
    lines = ['"Praat chronological TextGrid text file"', f"0 {end}   ! Time domain.", "2   ! Number of tiers."]
    lines += [f'"IntervalTier" "{name}" 0 {end}' for name in ("phone", "word")]
    events = sorted([(1, *phone) for phone in phones] + [(2, *word) for word in words], key=lambda e: (e[1], e[0]))
    return "\n".join(lines + [f'\n! {["phone", "word"][n - 1]}:\n{n} {a} {b}\n"{text}"' for n, a, b, text in events])


def _signal(
    told: _Told, starts_s: FloatArray, kinds: npt.NDArray[np.str_], weights: FloatArray, vectors: FloatArray
) -> FloatArray:
    """Noise-free responses (n_trs, n_voxels) at the middle of each row: each word adds a bump, DELAY_S after it."""
    middles_s = starts_s + TR_S / 2
    spoken = np.flatnonzero(~told.is_mark)
    onset_s = told.edges_s[:-1][spoken]
    bump = np.exp(-0.5 * ((middles_s[:, None] - onset_s - DELAY_S) / 1.5) ** 2)
    columns = [[*WORDS, MARKER].index(told.labels[k]) for k in spoken]
    signal = np.zeros((len(starts_s), len(kinds)))
    signal[:, kinds == "sound"] = bump.sum(axis=1)[:, None]
    signal[:, kinds == "meaning"] = (bump @ vectors[:, columns].T @ weights.T)[:, kinds == "meaning"]
    is_marker = np.array([told.labels[k] == MARKER for k in spoken])
    signal[:, kinds == "marker"] = bump[:, is_marker].sum(axis=1)[:, None]
    return signal


def _zscore(values: FloatArray) -> FloatArray:
    std = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(std > 0, std, 1)


def _write_responses(
    path: Path,
    story: str,
    signal: FloatArray,
    kinds: npt.NDArray[np.str_],
    noise: float,
    n_repeats: int,
    rng: np.random.Generator,
) -> None:
    n_presentations = n_repeats if story == TEST_STORY else 1
    size = (n_presentations, *signal.shape)
    amount = np.where(kinds == "constant", 0.0, np.where(kinds == "marker", 0.02, noise))
    each = np.stack([_zscore(one) for one in _zscore(signal) + amount * rng.normal(size=size)])
    each[:, :, kinds == "nan"] = np.nan
    with h5py.File(path, "w") as file:
        file["data"] = _zscore(each.mean(axis=0))
        if n_presentations > 1:
            file["individual_repeats"] = each


def _write_mask(derivative: Path, subject: str, n_voxels: int, rng: np.random.Generator) -> None:
    folder = derivative / "pycortex-db" / subject / "transforms" / f"{subject}_auto"
    folder.mkdir(parents=True, exist_ok=True)
    n_z = -(-2 * n_voxels // 30)
    mask = np.zeros(6 * 5 * n_z, dtype=np.uint8)
    mask[rng.choice(mask.size, n_voxels, replace=False)] = 1
    affine = np.array([[-2.6, 0, 0, 90], [0, 2.6, 0.1, -70], [0, 0, 2.6, -40], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(mask.reshape(6, 5, n_z), affine)
    (folder / "mask_thick.nii.gz").write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def _write_vectors(path: Path, vectors: FloatArray) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = vectors
        file["vocab"] = np.array([word.encode() for word in (*WORDS, MARKER)], dtype="S16")
