"""Windows: stretches of consecutive TRs with the sound that belongs to them, cut from the store when asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from brainlit.datamodules.targets import TargetSource
from brainlit.encoding.roles import Span
from brainlit.store import StoryStore


@dataclass(frozen=True)
class WindowConfig:
    """How much of a story one item holds.

    `n_trs: 1, context_s: 8` is the window of the paper (10 s that end where the TR ends, at a TR of 2 s); a longer
    n_trs encodes each frame about once instead of once per TR that can hear it.

    Parameters
    ----------
    n_trs : int
        Rows with targets per window.
    context_s : float
        Seconds of sound before the first of them; whole TRs of it become context rows without targets.
    stride_trs : int or None
        Rows from one training window to the next; None means n_trs (each row about once per epoch).
    shift_s : float
        Moves the sound of every row by so many seconds: negative hears earlier sound, positive later.
    random_phase : bool
        Cut the training windows at other places in each epoch (a function of seed and epoch only).
    """

    n_trs: int = 16
    context_s: float = 8.0
    stride_trs: int | None = None
    shift_s: float = 0.0
    random_phase: bool = True

    def __post_init__(self) -> None:
        if self.n_trs < 1:
            raise ValueError(f"window.n_trs is {self.n_trs}; a window needs at least one row.")
        if not (math.isfinite(self.context_s) and self.context_s >= 0):
            raise ValueError(f"window.context_s is {self.context_s}; give seconds of sound, 0 or more.")
        if self.stride_trs is not None and self.stride_trs < 1:
            raise ValueError(f"window.stride_trs is {self.stride_trs}; give at least 1, or null for n_trs.")
        if not math.isfinite(self.shift_s):
            raise ValueError(f"window.shift_s is {self.shift_s}; give a finite number of seconds.")

    def context_trs(self, tr_s: float) -> int:
        """Whole rows that fit into the context.

        >>> WindowConfig(context_s=8.0).context_trs(2.0), WindowConfig(context_s=8.0).context_trs(1.5)
        (4, 5)
        """
        return math.floor(self.context_s / tr_s + 1e-9)

    def purge_trs(self, tr_s: float, max_delay_trs: int) -> int:
        """Rows between spans of different roles so that no window with its delays reaches from one into the other.

        A window's rows stay inside its span and nothing after the span is heard; before it, context_s of sound and the
        delays reach back, and a shift moves both.

        >>> WindowConfig(context_s=8.0, shift_s=-1.0).purge_trs(tr_s=2.0, max_delay_trs=4)
        9
        """
        return math.ceil((self.context_s + abs(self.shift_s)) / tr_s - 1e-9) + max_delay_trs


class Window(NamedTuple):
    """Rows first_tr .. first_tr + n_trs - 1 of a story, of which start_tr .. stop_tr - 1 count; the rest is masked."""

    story: str
    first_tr: int
    start_tr: int
    stop_tr: int


class WindowBatch(TypedDict):
    """What a loader yields; B windows of one length.

    audio : int16 (B, n_samples), zero where there is no sound.
    audio_mask : bool (B, n_samples), True where the story has sound.
    bin_edges_s : float32 (B, n_bins + 1), edges of context and target rows in seconds from the window's first sample.
        The first may be slightly negative on a clock whose TRs are longer than the nominal one.
    targets : per subject float32 (B, n_trs, n_targets), 0 where masked.
    target_mask : per subject bool (B, n_trs), False where the subject did not hear the story or row_mask is False.
    row_mask : bool (B, n_trs), False for rows that are padding or belong to another window of an evaluation.
    story : int64 (B,), index into the data module's story_names.
    first_tr : int64 (B,), the first target row.
    """

    audio: Tensor
    audio_mask: Tensor
    bin_edges_s: Tensor
    targets: dict[str, Tensor]
    target_mask: dict[str, Tensor]
    row_mask: Tensor
    story: Tensor
    first_tr: Tensor


def training_windows(spans: Sequence[Span], config: WindowConfig, rng: np.random.Generator | None) -> list[Window]:
    """Windows over spans, stride_trs apart; their number does not depend on the phase.

    Without a phase they start at the span's first row and the last one is moved back into the span. With one they are
    shifted together by a random part of a stride and then moved back into the span, so over epochs each row is met in
    all places of a window and rows at both ends are left out of some epochs. A span shorter than n_trs gives one
    padded window.

    Parameters
    ----------
    rng : Generator or None
        Draws one phase per span; None for no phase.
    """
    stride = config.stride_trs or config.n_trs
    windows = []
    for span in spans:
        last = max(span.stop_tr - span.start_tr - config.n_trs, 0)
        starts = np.arange(math.ceil(last / stride) + 1) * stride
        if rng is not None:
            starts = starts - (starts[-1] - last) // 2 + rng.integers(stride) - stride // 2
        for first in np.clip(starts, 0, last) + span.start_tr:
            windows.append(_window(span, int(first), config.n_trs))
    return windows


def evaluation_windows(spans: Sequence[Span], n_trs: int) -> list[Window]:
    """Windows in which each row of the spans counts exactly once; the last of a span is moved back into it.

    >>> [tuple(w)[1:] for w in evaluation_windows([Span("a", 0, 10)], 4)]
    [(0, 0, 4), (4, 4, 8), (6, 8, 10)]
    """
    windows = []
    for span in spans:
        for start in range(span.start_tr, span.stop_tr, n_trs):
            first = max(min(start, span.stop_tr - n_trs), span.start_tr)
            windows.append(Window(span.story, first, start, min(start + n_trs, span.stop_tr)))
    return windows


class WindowDataset(Dataset[Window]):
    """Cuts windows from the store; indexed by `Window`, so that a sampler can cut other ones each epoch.

    A loader asks it for whole batches (`__getitems__`): sound goes from the file into the batch without a copy.

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

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: int | Window) -> Window:
        return key if isinstance(key, Window) else self.windows[key]

    def __getitems__(self, keys: Sequence[int | Window]) -> WindowBatch:
        return self.read([self[key] for key in keys])

    def read(self, windows: Sequence[Window]) -> WindowBatch:
        """The batch of some windows."""
        row_mask = self._row_mask(windows)
        targets, target_mask = self._read_targets(windows, row_mask)
        config = self.config
        n_samples = self.store.timebase(windows[0].story).window_length(config.n_trs, config.context_s)
        audio = np.empty((len(windows), n_samples), dtype=np.int16)
        audio_mask = np.empty((len(windows), n_samples), dtype=np.bool_)
        edges_s = np.empty((len(windows), self.n_bins + 1), dtype=np.float32)
        for k, window in enumerate(windows):
            self._read_window(window, audio[k], audio_mask[k], edges_s[k])
        return {
            "audio": torch.from_numpy(audio),
            "audio_mask": torch.from_numpy(audio_mask),
            "bin_edges_s": torch.from_numpy(edges_s),
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
    ) -> None:
        """Fill one row of a batch with sound, its mask and the edges of its bins."""
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

    def _row_mask(self, windows: Sequence[Window]) -> npt.NDArray[np.bool_]:
        rows = np.array([window.first_tr for window in windows])[:, None] + np.arange(self.config.n_trs)
        bounds = np.array([(window.start_tr, window.stop_tr) for window in windows])
        return np.asarray((rows >= bounds[:, :1]) & (rows < bounds[:, 1:]))

    def _read_targets(
        self, windows: Sequence[Window], row_mask: npt.NDArray[np.bool_]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        targets, masks = {}, {}
        for subject, n_targets in self.targets.sizes.items():
            values = np.zeros((*row_mask.shape, n_targets), dtype=np.float32)
            mask = row_mask.copy()
            for k, window in enumerate(windows):
                rows = self.targets.rows(subject, window.story, window.start_tr, window.stop_tr)
                if rows is None:
                    mask[k] = False
                else:
                    values[k, mask[k]] = rows
            targets[subject], masks[subject] = torch.from_numpy(values), torch.from_numpy(mask)
        return targets, masks


class EpochWindows(Sampler[Window]):
    """Training windows in random order; epoch e's windows and order depend on (seed, e) and on nothing else.

    Lightning calls `set_epoch` at the start of each epoch, also after a run is resumed.
    """

    def __init__(self, spans: Sequence[Span], config: WindowConfig, seed: int) -> None:
        self.spans, self.config, self.seed = list(spans), config, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(training_windows(self.spans, self.config, None))

    def __iter__(self) -> Iterator[Window]:
        rng = np.random.default_rng([self.seed, self.epoch])
        windows = training_windows(self.spans, self.config, rng if self.config.random_phase else None)
        return iter([windows[k] for k in rng.permutation(len(windows))])


def keep_batch(batch: Any) -> Any:
    """A collate function for batches that the data set has put together."""
    return batch


def _window(span: Span, first_tr: int, n_trs: int) -> Window:
    return Window(span.story, first_tr, first_tr, min(first_tr + n_trs, span.stop_tr))
