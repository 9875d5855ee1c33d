"""Which windows make up each training step of an epoch, for one process or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data.distributed import DistributedSampler

from brainlit.datamodules.windows import Step, Window, WindowConfig, training_windows
from brainlit.encoding.roles import Span

Hearers = Callable[[str], tuple[str, ...]]
"""From a story to the subjects who heard it."""
Subjects = tuple[str | None, ...]


class EpochSteps(DistributedSampler[Step]):
    """Training steps in random order; those of epoch e depend on (seed, e) and on nothing else.

    Without `hearers` a step is a batch of windows for all subjects. With it each batch comes once per subject, in turn,
    as one step with this subject's responses alone (arXiv 2510.21520); a batch then holds windows of stories that the
    same subjects heard, so that every step has all its rows and the number of steps is the same in each epoch.

    Several processes share every step: each takes its part of the step's windows, and all work for the same subject.
    As a DistributedSampler, which Lightning leaves as it is and whose `set_epoch` it calls at the start of each epoch,
    also after a run is resumed.

    Parameters
    ----------
    spans : sequence of Span
    config : WindowConfig
    seed : int
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
        super().__init__(range(n_steps * n_ranks), n_ranks, rank, shuffle=False, seed=seed)  # type: ignore[arg-type]
        self.first = 0

    def __iter__(self) -> Iterator[Step]:
        rng = np.random.default_rng([self.seed, self.epoch])
        windows = training_windows(self.spans, self.config, rng if self.config.random_phase else None)
        batches = self._batches([windows[k] for k in rng.permutation(len(windows))])
        if self.hearers is not None:
            batches = [batches[k] for k in rng.permutation(len(batches))]
        steps = [Step(self._share(windows), subject) for windows, subjects in batches for subject in subjects]
        return iter(steps[self.first :])

    def _batches(self, windows: Sequence[Window]) -> list[tuple[list[Window], Subjects]]:
        """Windows in batches, each with the subjects that it is a step for (None: all of them in one)."""
        groups: dict[Subjects, list[Window]] = {}
        for window in windows:
            groups.setdefault((None,) if self.hearers is None else self.hearers(window.story), []).append(window)
        starts = {subjects: range(0, len(group), self.windows_per_step) for subjects, group in groups.items()}
        return [(groups[own][at : at + self.windows_per_step], own) for own in groups for at in starts[own]]

    def _share(self, batch: Sequence[Window]) -> tuple[Window, ...]:
        """This process's part of a batch; where there are fewer windows than processes, some do one twice."""
        own = batch[self.rank :: self.num_replicas]
        return tuple(own or [batch[self.rank % len(batch)]])
