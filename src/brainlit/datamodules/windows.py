"""Windows: stretches of consecutive TRs with the sound that belongs to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypedDict

import numpy as np
from torch import Tensor
from torch.utils.data.distributed import DistributedSampler

from brainlit.splits import Span

LEAST_ROOM = 4
"""With a random phase the windows of a span hold at least a fourth of a window more rows than the span."""


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
        Rows from one training window to the next; None means n_trs: each row counts once per epoch.
    shift_s : float
        Moves the sound of every row by so many seconds: negative hears earlier sound, positive later.
    random_phase : bool
        Cut the stories at other places in each epoch (a function of seed and epoch only).
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

    def without_rows(self) -> Window:
        """A window of the same length in which no row counts; its sound is not heard either."""
        return self._replace(start_tr=self.first_tr, stop_tr=self.first_tr)


class Step(NamedTuple):
    """The windows of one training step, and the subject whose responses it reads; None for all subjects."""

    windows: tuple[Window, ...]
    subject: str | None = None


class WindowBatch(TypedDict):
    """What a loader yields; B windows of one length.

    audio : int16 (B, n_samples), zero where there is no sound.
    audio_mask : bool (B, n_samples), True where the story has sound.
    bin_edges_s : float32 (B, n_bins + 1), edges of context and target rows in seconds from the window's first sample.
        The first may be slightly negative on a clock whose TRs are longer than the nominal one.
    read_s : float32 (B, n_trs), when each target row was acquired, on the same clock: its start plus the part of it to
        which the data set's slice timing refers (the middle where that is not known).
    text : B strings, the words wholly inside the window's sound, lower case, one space between them.
    targets : per subject float32 (B, n_trs, n_targets), 0 where masked.
    target_mask : per subject bool (B, n_trs), False where the subject did not hear the story, the step is another
        subject's, or row_mask is False.
    row_mask : bool (B, n_trs), False for rows that are padding or belong to another window of an evaluation.
    story : int64 (B,), index into the data module's story_names.
    first_tr : int64 (B,), the first target row.
    """

    audio: Tensor
    audio_mask: Tensor
    bin_edges_s: Tensor
    read_s: Tensor
    text: list[str]
    targets: dict[str, Tensor]
    target_mask: dict[str, Tensor]
    row_mask: Tensor
    story: Tensor
    first_tr: Tensor


def training_windows(spans: Sequence[Span], config: WindowConfig, rng: np.random.Generator | None) -> list[Window]:
    """Windows over spans, in which each row counts exactly once; their number does not depend on the phase.

    The windows of a span hold some rows more than it has. Without a phase the last one is moved back into the span;
    with one the second window is moved back by a random part of what is too much, and the last by the rest. What is
    moved back hears and predicts rows of its neighbour too, but they do not count. (The first window stays: moved
    forward it would hear what comes after its rows, moved back what comes before the span.) A span shorter than n_trs
    gives one padded window.

    With another stride than n_trs rows count several times (or not in every epoch): see `_strided_windows`.

    Parameters
    ----------
    rng : Generator or None
        Draws one phase per span; None for no phase.
    """
    stride, size = config.stride_trs or config.n_trs, config.n_trs
    if stride != size:
        return [window for span in spans for window in _strided_windows(span, size, stride, rng)]
    windows = []
    for span in spans:
        n_rows = span.stop_tr - span.start_tr
        # A random phase needs room: where (nearly) whole windows fill a span, it gets one window more.
        room = size // LEAST_ROOM if config.random_phase and n_rows > size else 0
        n_windows = math.ceil((n_rows + room) / size)
        too_many = n_windows * size - n_rows
        moved = max(0, too_many - size + 1)  # of the last window at least one row counts, and of the second
        if rng is not None and n_windows > 2:
            moved = int(rng.integers(moved, min(too_many, size - 1) + 1))
        stops = [min(size, n_rows), *(k * size - moved for k in range(2, n_windows)), n_rows][:n_windows]
        for start, stop in pairwise([0, *stops]):
            first = max(stop - size, 0)
            windows.append(Window(span.story, *(span.start_tr + row for row in (first, start, stop))))
    return windows


def _strided_windows(span: Span, n_trs: int, stride: int, rng: np.random.Generator | None) -> list[Window]:
    """Whole windows, stride rows apart.

    With a phase they are shifted together by a random part of a stride and then moved back into the span, so that rows
    at both ends are left out of some epochs.
    """
    last = max(span.stop_tr - span.start_tr - n_trs, 0)
    starts = np.arange(math.ceil(last / stride) + 1) * stride
    if rng is not None:
        # The windows overhang the span by starts[-1] - last rows: half of that to each side, then a random phase.
        starts = starts - (starts[-1] - last) // 2 + rng.integers(stride) - stride // 2
    firsts = (np.clip(starts, 0, last) + span.start_tr).tolist()
    return [Window(span.story, first, first, min(first + n_trs, span.stop_tr)) for first in firsts]


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


# --- Which windows make up each training step of an epoch, for one process or several ---

Hearers = Callable[[str], tuple[str, ...]]
"""From a story to the subjects who heard it."""
Subjects = tuple[str | None, ...]


class EpochSteps(DistributedSampler[Step]):
    """Training steps in random order; those of epoch e depend on (seed, e) and on nothing else.

    Without `hearers` a step is a batch of windows for all subjects. With it each batch comes once per subject, in turn,
    as one step with this subject's responses alone (arXiv 2510.21520); a batch then holds windows of stories that the
    same subjects heard, so that every step has all its rows and the number of steps is the same in each epoch.

    Several processes share every step: each takes its part of the step's windows, and all work for the same subject.
    One that is left without a window gets one in which no row counts.

    As a DistributedSampler, which Lightning leaves as it is and whose `set_epoch` it calls at the start of each epoch,
    also after a run is resumed.

    Parameters
    ----------
    batch_size : int
        Windows per step and process.
    hearers : callable or None
        Who heard a story, for steps of one subject at a time.
    rank, n_ranks : int
        Which process this is, of how many.

    Attributes
    ----------
    first : int
        Steps that the next iteration leaves out.
    """

    def __init__(
        self,
        spans: Sequence[Span],
        config: WindowConfig,
        seed: int,
        batch_size: int,
        hearers: Hearers | None = None,
        rank: int = 0,
        n_ranks: int = 1,
    ) -> None:
        self.spans, self.config, self.hearers = list(spans), config, hearers
        self.windows_per_step = batch_size * n_ranks
        n_steps = sum(len(subjects) for _, subjects in self._batches(training_windows(self.spans, config, None)))
        # As many items as all processes have steps together, for the sampler's length is its share of the items.
        super().__init__(range(n_steps * n_ranks), n_ranks, rank, shuffle=False, seed=seed)  # type: ignore[arg-type]
        self.first = 0

    def __iter__(self) -> Iterator[Step]:
        rng = np.random.default_rng([self.seed, self.epoch])
        windows = training_windows(self.spans, self.config, rng if self.config.random_phase else None)
        batches = self._batches([windows[k] for k in rng.permutation(len(windows))])  # the same order in every process
        if self.hearers is not None:
            batches = [batches[k] for k in rng.permutation(len(batches))]
        mine = [(_share(windows, self.rank, self.num_replicas), subjects) for windows, subjects in batches]
        steps = [Step(windows, subject) for windows, subjects in mine for subject in subjects]
        return iter(steps[self.first :])

    def _batches(self, windows: Sequence[Window]) -> list[tuple[list[Window], Subjects]]:
        """Windows in batches, each with the subjects that it is a step for (None: all of them in one)."""
        groups: dict[Subjects, list[Window]] = {}
        for window in windows:
            groups.setdefault((None,) if self.hearers is None else self.hearers(window.story), []).append(window)
        starts = {subjects: range(0, len(group), self.windows_per_step) for subjects, group in groups.items()}
        return [(groups[own][at : at + self.windows_per_step], own) for own in groups for at in starts[own]]


class EvaluationSteps(DistributedSampler[Step]):
    """Windows of an evaluation in order, batch by batch; each of them in one process only.

    Lightning's own sampler gives some windows twice where processes cannot have equally many; here the last step of a
    process may have fewer windows than the others, or one in which no row counts.

    Parameters
    ----------
    batch_size : int
        Windows per step and process.
    rank, n_ranks : int
        Which process this is, of how many.
    """

    def __init__(self, windows: Sequence[Window], batch_size: int, rank: int = 0, n_ranks: int = 1) -> None:
        size = batch_size * n_ranks
        self.batches = [windows[at : at + size] for at in range(0, len(windows), size)]
        super().__init__(range(len(self.batches) * n_ranks), n_ranks, rank, shuffle=False)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Step]:
        return iter([Step(_share(batch, self.rank, self.num_replicas)) for batch in self.batches])


def _share(batch: Sequence[Window], rank: int, n_ranks: int) -> tuple[Window, ...]:
    """A process's part of a batch; where there are fewer windows than processes, one without rows for some."""
    return tuple(batch[rank::n_ranks]) or (batch[0].without_rows(),)
