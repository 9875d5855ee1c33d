"""Batches of windows, cut from the store when asked for: sound, words and targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from brainlit.datamodules.targets.voxels import TargetSource
from brainlit.datamodules.windows import Step, Window, WindowBatch, WindowConfig
from brainlit.store import StoryStore
from brainlit.stories import Intervals


class WindowDataset(Dataset[WindowBatch]):
    """Cuts windows from the store when asked for; what it gives out are whole batches.

    Training asks for a `Step`, so that a sampler can cut other windows each epoch; evaluation asks for many windows at
    once (`__getitems__`). Sound goes from the file into the batch without a copy.

    Parameters
    ----------
    windows : sequence of Window
        What len() counts and an int index means.
    targets : TargetSource
        Asked for the rows of every subject.
    """

    def __init__(
        self, store: StoryStore, config: WindowConfig, windows: Sequence[Window], targets: TargetSource
    ) -> None:
        self.store, self.config, self.windows, self.targets = store, config, windows, targets
        self.story_index = {name: k for k, name in enumerate(store.story_names)}
        self.context_trs = config.context_trs(store.tr_s)
        self.n_bins = self.context_trs + config.n_trs
        self._words: dict[str, Intervals] = {}

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: int | Step) -> WindowBatch:
        return self.read(key.windows, key.subject) if isinstance(key, Step) else self.read([self.windows[key]])

    def __getitems__(self, keys: Sequence[int]) -> WindowBatch:
        return self.read([self.windows[key] for key in keys])

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
            "text": text,
            "targets": targets,
            "target_mask": target_mask,
            "row_mask": torch.from_numpy(row_mask),
            "story": torch.tensor([self.story_index[window.story] for window in windows]),
            "first_tr": torch.tensor([window.first_tr for window in windows]),
        }

    def _read_window(
        self,
        window: Window,
        audio: npt.NDArray[np.int16],
        mask: npt.NDArray[np.bool_],
        edges_s: npt.NDArray[np.float32],
    ) -> str:
        """Fill one row of a batch with sound, its mask and the edges of its bins; returns the words of the sound."""
        clock, config = self.store.timebase(window.story), self.config
        start, stop = clock.window_samples(window.first_tr, config.n_trs, config.context_s, config.shift_s)
        if (
            window.stop_tr < window.first_tr + config.n_trs
        ):  # the last rows are padding: nothing after the span is heard
            stop = int(clock.samples_at(clock.tr_edges_s(window.stop_tr, 0)[0] + config.shift_s))
        covered = self.store.read_audio(window.story, start, audio[: stop - start])
        mask[covered] = True
        for outside in (slice(0, covered.start), slice(covered.stop, None)):
            audio[outside], mask[outside] = 0, False
        row_edges_s = clock.tr_edges_s(window.first_tr - self.context_trs, self.n_bins)
        edges_s[:] = row_edges_s + (config.shift_s - start / clock.sample_rate_hz)
        heard_s = clock.times_of_samples_s([start + covered.start, start + covered.stop])
        return self._text_between(window.story, *heard_s.tolist())

    def _text_between(self, story: str, start_s: float, stop_s: float) -> str:
        """Words that begin and end between two times."""
        if story not in self._words:
            self._words[story] = self.store.words(story)
        words = self._words[story]
        first, stop = np.searchsorted(words.start_s, [start_s, stop_s])
        inside = np.flatnonzero(words.end_s[first:stop] <= stop_s) + first
        return " ".join(" ".join(words.labels[k] for k in inside).lower().split())

    def _row_mask(self, windows: Sequence[Window]) -> npt.NDArray[np.bool_]:
        rows = np.array([window.first_tr for window in windows])[:, None] + np.arange(self.config.n_trs)
        bounds = np.array([(window.start_tr, window.stop_tr) for window in windows])
        return np.asarray((rows >= bounds[:, :1]) & (rows < bounds[:, 1:]))

    def _read_targets(
        self, windows: Sequence[Window], row_mask: npt.NDArray[np.bool_], only_subject: str | None
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


def keep_batch(batch: Any) -> Any:
    """A collate function for batches that the data set has put together."""
    return batch
