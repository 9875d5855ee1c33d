"""A loader that can go on in the middle of an epoch, and that draws nothing from the global random state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from brainlit.datamodules.dataset import WindowDataset, keep_batch
from brainlit.datamodules.steps import EpochSteps
from brainlit.datamodules.windows import WindowBatch


class StepLoader(DataLoader[WindowBatch]):
    """Batches of the steps of a sampler, and where in its epoch it is.

    An iteration begins with its first batch: only then is the sampler asked, after `set_epoch` was called, whatever
    was read ahead. Batches are counted as they are handed out, so those that workers have read ahead do not count.

    Parameters
    ----------
    dataset : WindowDataset
    sampler : EpochSteps
    num_workers : int
    """

    sampler: EpochSteps

    def __init__(self, dataset: WindowDataset, sampler: EpochSteps, num_workers: int = 0) -> None:
        super().__init__(
            dataset,
            batch_size=None,  # an item of the sampler is a whole step
            sampler=sampler,
            collate_fn=keep_batch,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            generator=torch.Generator().manual_seed(sampler.seed),
        )
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


def evaluation_loader(
    dataset: WindowDataset, batch_size: int, num_workers: int, seed: int = 0
) -> DataLoader[WindowBatch]:
    """A loader of a data set's own windows, in order; like StepLoader it leaves the global random state alone."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=keep_batch,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        generator=torch.Generator().manual_seed(seed),
    )
