"""Batches of windows, cut from the store when asked for: sound, words and targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from brainlit.datamodules.windows import EpochSteps, EvaluationSteps, Step, Window, WindowBatch, WindowConfig
from brainlit.encoding.arrays import BoolArray, Float32Array
from brainlit.stories import Intervals
from brainlit.timebase import TimeBase


class TargetSource(Protocol):
    """Anything that yields rows of targets per subject (or per other thing to predict)."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of targets of each subject."""

    def heard(self, subject: str, story: str) -> bool:
        """Whether there are targets of the subject for the story."""

    def rows(self, subject: str, story: str, start_tr: int, stop_tr: int) -> Float32Array | None:
        """Rows start_tr .. stop_tr - 1, shape (n_rows, n_targets); None if the subject has none for the story."""


class NoTargets:
    """No targets of anybody: for batches of sound alone.

    Parameters
    ----------
    subjects : sequence of str
        For whom a batch has rows all the same, of no columns; a model that predicts counts them.
    """

    def __init__(self, subjects: Sequence[str] = ()) -> None:
        self.sizes: Mapping[str, int] = dict.fromkeys(subjects, 0)

    def heard(self, subject: str, story: str) -> bool:
        """Never."""
        return False

    def rows(self, subject: str, story: str, start_tr: int, stop_tr: int) -> Float32Array | None:
        """None."""
        return None


class Stories(Protocol):
    """What windows are cut from; a StoryStore is one."""

    @property
    def story_names(self) -> list[str]:
        """All stories, in the order in which a batch counts them."""

    @property
    def tr_s(self) -> float:
        """Nominal repetition time, the same for every story."""

    @property
    def slice_reference(self) -> float:
        """Part of the TR that the values of a volume belong to."""

    def timebase(self, story: str) -> TimeBase:
        """A story's clock."""

    def words(self, story: str) -> Intervals:
        """Its words with their times."""

    def read_audio(self, story: str, start_sample: int, out: npt.NDArray[np.int16]) -> slice:
        """Fill the part of `out` that the story covers from start_sample on; returns that part."""


class WindowDataset(Dataset[WindowBatch]):
    """Cuts windows from stories when asked for; what it gives out are whole batches.

    It is asked for a `Step`, so that a sampler can cut other windows each epoch. Sound goes from the file into the
    batch without a copy.

    Parameters
    ----------
    targets : TargetSource
        Asked for the rows of every subject.
    """

    def __init__(self, store: Stories, config: WindowConfig, targets: TargetSource) -> None:
        self.store, self.config, self.targets = store, config, targets
        self.story_index = {name: k for k, name in enumerate(store.story_names)}
        self.context_trs = config.context_trs(store.tr_s)
        self.n_bins = self.context_trs + config.n_trs
        self._words: dict[str, Intervals] = {}

    def __getitem__(self, step: Step) -> WindowBatch:
        return self.read(step.windows, step.subject)

    def read(self, windows: Sequence[Window], only_subject: str | None = None) -> WindowBatch:
        """The batch of some windows; with one subject's targets if asked, those of the others being masked."""
        row_mask = self._row_mask(windows)
        targets, target_mask = self._read_targets(windows, row_mask, only_subject)
        config = self.config
        n_samples = self.store.timebase(windows[0].story).window_length(config.n_trs, config.context_s)
        audio = np.empty((len(windows), n_samples), dtype=np.int16)
        audio_mask = np.empty((len(windows), n_samples), dtype=np.bool_)
        edges_s = np.empty((len(windows), self.n_bins + 1), dtype=np.float32)
        text = [self._read_window(window, audio[k], audio_mask[k], edges_s[k]) for k, window in enumerate(windows)]
        return {
            "audio": torch.from_numpy(audio),
            "audio_mask": torch.from_numpy(audio_mask),
            "bin_edges_s": torch.from_numpy(edges_s),
            "read_s": torch.from_numpy(self._read_moments(edges_s)),
            "text": text,
            "targets": targets,
            "target_mask": target_mask,
            "row_mask": torch.from_numpy(row_mask),
            "story": torch.tensor([self.story_index[window.story] for window in windows]),
            "first_tr": torch.tensor([window.first_tr for window in windows]),
        }

    def _read_window(self, window: Window, audio: npt.NDArray[np.int16], mask: BoolArray, edges_s: Float32Array) -> str:
        """Fill one row of a batch with sound, its mask and the edges of its bins; returns the words of the sound."""
        clock, config = self.store.timebase(window.story), self.config
        start, stop = clock.window_samples(window.first_tr, config.n_trs, config.context_s, config.shift_s)
        if window.start_tr == window.stop_tr:
            stop = start  # no row counts, and nothing is heard
        elif window.stop_tr < window.first_tr + config.n_trs:
            # The last rows are padding: nothing after the span is heard.
            stop = int(clock.samples_at(clock.tr_edges_s(window.stop_tr, 0)[0] + config.shift_s))
        covered = self.store.read_audio(window.story, start, audio[: stop - start])
        mask[covered] = True
        for outside in (slice(0, covered.start), slice(covered.stop, None)):
            audio[outside], mask[outside] = 0, False
        row_edges_s = clock.tr_edges_s(window.first_tr - self.context_trs, self.n_bins)
        edges_s[:] = row_edges_s + (config.shift_s - start / clock.sample_rate_hz)
        heard_s = clock.times_of_samples_s([start + covered.start, start + covered.stop])
        return self._text_between(window.story, *heard_s.tolist())

    def _read_moments(self, edges_s: Float32Array) -> Float32Array:
        """When the target rows were acquired: the part of the TR after its start that slice timing refers to."""
        reference = np.float32(self.store.slice_reference)
        rows_s = edges_s[:, self.context_trs :]
        return np.asarray(rows_s[:, :-1] + reference * np.diff(rows_s))

    def _text_between(self, story: str, start_s: float, stop_s: float) -> str:
        """Words that begin and end between two times."""
        if story not in self._words:
            self._words[story] = self.store.words(story)
        words = self._words[story]
        first, stop = np.searchsorted(words.start_s, [start_s, stop_s])
        inside = np.flatnonzero(words.end_s[first:stop] <= stop_s) + first
        return " ".join(" ".join(words.labels[k] for k in inside).lower().split())

    def _row_mask(self, windows: Sequence[Window]) -> BoolArray:
        rows = np.array([window.first_tr for window in windows])[:, None] + np.arange(self.config.n_trs)
        bounds = np.array([(window.start_tr, window.stop_tr) for window in windows])
        return np.asarray((rows >= bounds[:, :1]) & (rows < bounds[:, 1:]))

    def _read_targets(
        self, windows: Sequence[Window], row_mask: BoolArray, only_subject: str | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        targets, masks = {}, {}
        for subject, n_targets in self.targets.sizes.items():
            values = np.zeros((*row_mask.shape, n_targets), dtype=np.float32)
            mask = row_mask.copy()
            if only_subject not in (None, subject):
                mask[:] = False
            for k in np.flatnonzero(mask.any(axis=1)).tolist():
                window = windows[k]
                rows = self.targets.rows(subject, window.story, window.start_tr, window.stop_tr)
                if rows is None:
                    mask[k] = False
                else:
                    values[k, mask[k]] = rows
            targets[subject], masks[subject] = torch.from_numpy(values), torch.from_numpy(mask)
        return targets, masks


# --- Loaders, which draw nothing from the global random state ---


class StepLoader(DataLoader[WindowBatch]):
    """Batches of the steps of a sampler, and where in its epoch it is.

    An iteration begins with its first batch: only then is the sampler asked, after `set_epoch` was called, whatever
    was read ahead. Batches are counted as they are handed out, so those that workers have read ahead do not count.
    """

    sampler: EpochSteps

    def __init__(self, dataset: WindowDataset, sampler: EpochSteps, num_workers: int = 0) -> None:
        # No batch size, for an item of the sampler is a whole step.
        super().__init__(dataset, batch_size=None, sampler=sampler, **_shared_settings(num_workers, sampler.seed))
        self._place = {"epoch": 0, "batch": 0, "n_batches": len(sampler)}
        self._loaded: dict[str, int] | None = None

    def __iter__(self) -> Iterator[WindowBatch]:  # type: ignore[override]
        """The rest of the epoch where a state of this epoch was loaded, and else the whole of it."""
        sampler = self.sampler
        sampler.first = self._first_batch(sampler.epoch)
        self._place = {"epoch": sampler.epoch, "batch": sampler.first, "n_batches": len(sampler)}
        for batch in super().__iter__():
            self._place["batch"] += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Epoch, batches of it that were handed out, and batches that it has."""
        return dict(self._place)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next iteration, if it is of the same epoch, begin after the last batch that was handed out."""
        self._loaded = dict(state_dict)

    def _first_batch(self, epoch: int) -> int:
        loaded, self._loaded = self._loaded, None
        if loaded is None or loaded["epoch"] != epoch:
            return 0
        if loaded["n_batches"] != len(self.sampler):
            raise ValueError(
                f"the checkpoint was made after {loaded['batch']} of {loaded['n_batches']} batches of epoch {epoch},"
                f" and an epoch of this run has {len(self.sampler)}: resume on as many devices as before, or from a"
                " checkpoint of the end of an epoch."
            )
        return loaded["batch"]


def evaluation_loader(dataset: WindowDataset, steps: EvaluationSteps, num_workers: int) -> DataLoader[WindowBatch]:
    """A loader of the steps of an evaluation; like StepLoader it leaves the global random state alone."""
    return DataLoader(dataset, batch_size=None, sampler=steps, **_shared_settings(num_workers, steps.seed))


def _shared_settings(num_workers: int, seed: int) -> dict[str, Any]:
    return {
        "num_workers": num_workers,
        "collate_fn": _keep_batch,
        "pin_memory": torch.cuda.is_available(),
        "persistent_workers": num_workers > 0,
        "generator": torch.Generator().manual_seed(seed),
    }


def _keep_batch(batch: Any) -> Any:
    """A collate function for batches that the data set has put together."""
    return batch
