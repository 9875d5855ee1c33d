"""What a tuned model expects of a sound that nobody heard in the scanner: the files of one sound.

predictions.h5 has every voxel, a table per subject the means of its regions, and `series` what other tools open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.encoding.arrays import BoolArray, Float32Array, FloatArray, IntArray
from brainlit.files import write_csv
from brainlit.hdf5 import new_file, write_array, write_json_text, write_text
from brainlit.results.scores import ALL_VOXELS
from brainlit.results.series import write_series
from brainlit.stories.base import Subject

PREDICTIONS_FILE = "predictions.h5"
COLUMNS = ("time_s", "region", "n_voxels", "mean_predicted_z")
CONTROL_SAID = "A control: the model was tuned on responses that were taken away from their sound (regime permuted)."
PREDICTED_SAID = "These are predictions: no measured response to this sound was read, so nothing is set against them."
_SAME_TR_S = 1e-6


@dataclass(frozen=True)
class PredictedListener:
    """One subject, and the responses that the model expects of this subject.

    Parameters
    ----------
    subject : Subject
    voxels : int array of shape (n_voxels,)
        Columns of the subject's responses that the model predicts.
    rows : float32 array of shape (n_trs, n_voxels)
    """

    subject: Subject
    voxels: IntArray
    rows: Float32Array

    @property
    def regions(self) -> dict[str, BoolArray]:
        """Which of the predicted voxels are in each region that has any; all of them last."""
        masks = {name: np.asarray(mask[self.voxels]) for name, mask in self.subject.regions.items()}
        return {name: mask for name, mask in masks.items() if mask.any()} | {
            ALL_VOXELS: np.ones(len(self.voxels), dtype=np.bool_)
        }

    def region_means(self) -> dict[str, FloatArray]:
        """Mean over the voxels of each region, (n_trs,)."""
        return {name: self.rows[:, mask].mean(axis=1, dtype=np.float64) for name, mask in self.regions.items()}


@dataclass(frozen=True)
class PredictedSound:
    """A sound with what a model expects of it.

    Parameters
    ----------
    name : str
        Of its file, without the suffix.
    tr_s : float
        From row to row; row k is the volume from k x tr_s after the first sample on.
    listeners : sequence of PredictedListener
    about : sequence of str
        What is to be said of the numbers, a sentence each; of simulated listeners first of all.
    facts : mapping
        Plain JSON values: file, checkpoint, run, settings.
    """

    name: str
    tr_s: float
    listeners: Sequence[PredictedListener]
    about: Sequence[str]
    facts: Mapping[str, Any]

    @property
    def n_trs(self) -> int:
        """Number of rows."""
        return len(self.listeners[0].rows)

    @property
    def times_s(self) -> FloatArray:
        """Start of each row in seconds of sound."""
        return np.asarray(np.arange(self.n_trs) * self.tr_s)


def units_said(filtered: str | None) -> str:
    """What z is of.

    Parameters
    ----------
    filtered : str or None
        `ResponseFilter.in_words` of the data; None where it is not known.
    """
    passed = f", after their filter ({filtered})" if filtered else ""
    return (
        "Numbers are z: the unit of the targets, which are the responses of each voxel z-scored within each"
        f" story{passed}. 0 is the mean of a story, and 1 a standard deviation over its rows."
    )


def history_said(context_s: float, tr_s: float, asked_tr_s: float) -> str:
    """What holds for rows at the start, and for rows at another TR than that of the run."""
    start = (
        f"Rows in the first {context_s:g} s have less sound before them than a window has context: what is not there"
        " counts as the mean state, as in predictions for stories of the run."
    )
    if abs(asked_tr_s - tr_s) < _SAME_TR_S:
        return start
    return (
        f"{start} Predicted at the TR of the run, {tr_s:g} s, and read at {asked_tr_s:g} s in a straight line between"
        " rows."
    )


def write_predicted(folder: Path, sound: PredictedSound) -> list[Path]:
    """Write predictions.h5, a table per subject, and series where there are places for them; returns the files."""
    written = [_write_voxels(folder / PREDICTIONS_FILE, sound)]
    said = " ".join(sound.about)
    for listener in sound.listeners:
        table = folder / f"{listener.subject.name}_regions.csv"
        written.append(write_csv(table, COLUMNS, _region_rows(sound, listener)))
        written += write_series(folder, listener.subject, listener.voxels, listener.rows, sound.tr_s, said)
    return written


def _write_voxels(path: Path, sound: PredictedSound) -> Path:
    """<subject>/predicted, float32 (n_trs, n_voxels), <subject>/voxels, times_s, and in attributes what they are."""
    with new_file(path) as file:
        write_array(file, "times_s", sound.times_s)
        for listener in sound.listeners:
            write_array(file, f"{listener.subject.name}/predicted", listener.rows)
            write_array(file, f"{listener.subject.name}/voxels", listener.voxels)
        file.attrs["tr_s"] = sound.tr_s
        write_text(file, "about", " ".join(sound.about))
        write_json_text(file, "facts", dict(sound.facts))
    return path


def _region_rows(sound: PredictedSound, listener: PredictedListener) -> Iterator[dict[str, Any]]:
    means, sizes = listener.region_means(), {name: int(mask.sum()) for name, mask in listener.regions.items()}
    for k, time_s in enumerate(sound.times_s):
        for region, values in means.items():
            yield dict(zip(COLUMNS, (f"{time_s:.6g}", region, sizes[region], f"{values[k]:.6f}"), strict=True))
