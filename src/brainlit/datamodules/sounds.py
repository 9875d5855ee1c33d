"""Windows of any sound, cut as a run cuts those of its stories in evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader

from brainlit.datamodules.dataset import NoTargets, WindowDataset, evaluation_loader
from brainlit.datamodules.story import StoryDataModule
from brainlit.datamodules.windows import EvaluationSteps, WindowBatch, evaluation_windows
from brainlit.encoding.arrays import Float32Array, FloatArray, IntArray
from brainlit.splits import Span
from brainlit.stories import Intervals
from brainlit.timebase import TimeBase

Sounds = Mapping[str, npt.NDArray[np.int16]]


class SoundStories:
    """Sounds in place of a store: each is a story without words, whose first row begins with its first sample.

    Parameters
    ----------
    sounds : mapping of name to int16 array of shape (n_samples,)
        Mono, at the rate of the clock (16 kHz).
    tr_s : float
        Seconds from row to row.
    slice_reference : float
        Part of the TR that the values of a row belong to, as in the store of the responses.

    Raises
    ------
    ValueError
        If a sound is shorter than one row.
    """

    def __init__(self, sounds: Sounds, tr_s: float, slice_reference: float) -> None:
        self.tr_s, self.slice_reference, self._sounds = tr_s, slice_reference, dict(sounds)
        self._clocks = {name: sound_clock(name, len(samples), tr_s) for name, samples in sounds.items()}

    @property
    def story_names(self) -> list[str]:
        """The sounds, in their order."""
        return list(self._sounds)

    def timebase(self, story: str) -> TimeBase:
        """The sound's clock."""
        return self._clocks[story]

    def n_trs(self, story: str) -> int:
        """Number of rows of a sound."""
        return self._clocks[story].n_trs

    def words(self, story: str) -> Intervals:
        """None are known."""
        return Intervals((), np.zeros(0), np.zeros(0))

    def read_audio(self, story: str, start_sample: int, out: npt.NDArray[np.int16]) -> slice:
        """Fill `out` from start_sample on; the part of it that the sound covers, as a store does."""
        samples = self._sounds[story]
        start = min(max(-start_sample, 0), len(out))
        stop = max(min(len(out), len(samples) - start_sample), start)
        out[start:stop] = samples[start_sample + start : start_sample + stop]
        return slice(start, stop)


def sound_clock(name: str, n_samples: int, tr_s: float) -> TimeBase:
    """Rows from the first sample on; a last one of which less than half would be sound is left out.

    Raises
    ------
    ValueError
        If the sound is shorter than a row.

    >>> sound_clock("a", 16_000 * 21, tr_s=2.0).n_trs, sound_clock("a", 16_000 * 20 + 500, tr_s=2.0).n_trs
    (11, 10)
    """
    one = TimeBase.regular(1, tr_s)
    duration_s = float(one.times_of_samples_s(n_samples))
    if duration_s < tr_s:
        raise ValueError(
            f"{name} lasts {duration_s:.2f} s, less than one row of {tr_s:g} s, the TR that the model was tuned at:"
            " there is nothing to predict. Give a longer sound."
        )
    return TimeBase.regular(math.floor(duration_s / tr_s + 0.5), tr_s)


class SoundDataModule(L.LightningDataModule):
    """Windows of sounds for a model of a run: of its length and context, at its TR, in the order of the sounds.

    Parameters
    ----------
    of_run : StoryDataModule
        Of the run that tuned the model; says what it predicts, and for whom.
    sounds : mapping of name to int16 array of shape (n_samples,)
        Mono, 16 kHz.

    Attributes
    ----------
    stories : SoundStories
    spans : list of Span
        All rows of each sound. Both exist after `setup`.
    """

    stories: SoundStories
    spans: list[Span]

    def __init__(self, of_run: StoryDataModule, sounds: Sounds) -> None:
        super().__init__()
        self.of_run, self.sounds = of_run, dict(sounds)

    def prepare_data(self) -> None:
        """See that the store of the run is there."""
        self.of_run.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Settle what the run predicts, and the rows of the sounds.

        Raises
        ------
        ValueError
            As the run's data module does, and if a sound is shorter than one row.
        """
        self.of_run.setup(stage)
        store = self.of_run.store
        self.stories = SoundStories(self.sounds, store.tr_s, store.slice_reference)
        self.spans = [Span(name, 0, self.stories.n_trs(name)) for name in self.stories.story_names]

    def predict_dataloader(self) -> DataLoader[WindowBatch]:
        """Each row of each sound once."""
        run, window = self.of_run, self.of_run.window
        dataset = WindowDataset(self.stories, window, NoTargets(list(run.target_sizes)))
        steps = EvaluationSteps(evaluation_windows(self.spans, window.n_trs), run.batch_size)
        return evaluation_loader(dataset, steps, run.num_workers)

    # What the model asks the data of its run

    @property
    def regime(self) -> str:
        """Of the run."""
        return str(self.of_run.regime)

    @property
    def tr_s(self) -> float:
        """Of the run."""
        return self.of_run.tr_s

    @property
    def context_trs(self) -> int:
        """Of the run's windows."""
        return self.of_run.context_trs

    @property
    def target_sizes(self) -> dict[str, int]:
        """What the head predicts."""
        return self.of_run.target_sizes

    @property
    def target_columns(self) -> dict[str, IntArray] | None:
        """Columns of the responses that these are."""
        return self.of_run.target_columns

    @property
    def target_ceilings(self) -> dict[str, FloatArray]:
        """For losses that need them."""
        return self.of_run.target_ceilings


def rows_at(rows: npt.NDArray[Any], from_tr_s: float, to_tr_s: float, reference: float) -> Float32Array:
    """Rows of one TR read at another, in a straight line between the moments that two rows belong to.

    Parameters
    ----------
    rows : array of shape (n_rows, n_columns)
        Row k is the volume from k x from_tr_s on.
    reference : float
        Part of its TR after a row's start to which it belongs.

    Returns
    -------
    float32 array of shape (n_new_rows, n_columns)
        As many as fill the same time; before the first moment and after the last they are the nearest row.
    """
    n_new = max(math.floor(len(rows) * from_tr_s / to_tr_s + 1e-9), 1)
    places = (np.arange(n_new) + reference) * to_tr_s / from_tr_s - reference
    places = np.clip(places, 0, len(rows) - 1)
    before = np.minimum(places.astype(np.int64), max(len(rows) - 2, 0))
    after, share = np.minimum(before + 1, len(rows) - 1), (places - before)[:, None]
    return np.asarray((1 - share) * rows[before] + share * rows[after], dtype=np.float32)
