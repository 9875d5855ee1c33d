"""What is fitted before the first step, from one pass over training windows: standardisation, and the head's first map.

The backbone gets its gradients through the head. Behind random weights they say little, and a short run ends before the
head has learned to say more; so the head starts as the ridge that predicts the targets best from the states of the
untouched backbone, its strength chosen for each target on stories (or stretches of one) that it was not fitted on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from brainlit.encoding.banded import banded_ridge_cv
from brainlit.tuning.heads import SMALLEST_SD, BottleneckHead, Head, LinearHead, SharedHead, SharedLowRankHead

log = logging.getLogger(__name__)

HeadStart = Literal["ridge", "random"]

N_BATCHES = 16
"""Training batches that are heard before the first step."""
N_FOLDS = 4
PURGE_TRS = 10
"""Rows between fitted and held-out stretches of one story: 20 s at a TR of 2 s, as far as the response reaches."""
_NO_SOUND = "no training window has sound: check the stories of the tune role and the onset of the sound."
FEWEST_ROWS = 100
"""With fewer rows of a subject nothing is left to choose by once folds and the rows between them are taken off."""


class LinearMap(NamedTuple):
    """From the rows that a head maps to the targets of one subject: rows @ weight + bias.

    Parameters
    ----------
    weight : Tensor of shape (n_inputs, n_targets)
    bias : Tensor of shape (n_targets,)
    """

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class HeardBatch:
    """What the untouched backbone makes of a batch, and what the head needs of the batch; on one device.

    Parameters
    ----------
    pooled : float32 Tensor of shape (batch, n_bins, hidden_size)
    heard : bool Tensor of shape (batch, n_bins)
    times : tuple of Tensor
        Edges of the bins and when rows were read, as Head.forward takes them; empty where it takes none.
    targets, target_mask : dict of subject to Tensor of shape (batch, n_trs, n_targets) and (batch, n_trs)
    story, first_tr : int64 Tensors of shape (batch,)
    """

    pooled: Tensor
    heard: Tensor
    times: tuple[Tensor, ...]
    targets: Mapping[str, Tensor]
    target_mask: Mapping[str, Tensor]
    story: Tensor
    first_tr: Tensor


class Moments(NamedTuple):
    """Sums over rows with sound, in fp64: of shape (), (hidden_size,) and (hidden_size,)."""

    n_rows: Tensor
    total: Tensor
    squares: Tensor

    @classmethod
    def of(cls, heard: Sequence[HeardBatch]) -> Moments:
        """Of all batches.

        Raises
        ------
        ValueError
            If there is no batch.
        """
        if not heard:
            raise ValueError(_NO_SOUND)
        rows = [batch.pooled[batch.heard].double() for batch in heard]
        sums = [torch.stack([values.sum(0), values.square().sum(0)]) for values in rows]
        total, squares = torch.stack(sums).sum(0)
        return cls(total.new_tensor(sum(len(values) for values in rows)), total, squares)

    def mean_and_sd(self) -> tuple[Tensor, Tensor]:
        """Float32 Tensors of shape (hidden_size,).

        Raises
        ------
        ValueError
            If no row has sound.
        """
        if not self.n_rows:
            raise ValueError(_NO_SOUND)
        mean = self.total / self.n_rows
        return mean.float(), (self.squares / self.n_rows - mean.square()).clamp(min=0).sqrt().float()


def start_head(head: Head, heard: Sequence[HeardBatch]) -> None:
    """Give the head the map that ridge finds for each subject; one who has too few rows keeps random weights.

    The head's standardisation must be there already. Rows are the head's own, without dropout: after its delays or its
    haemodynamic response, as they begin.
    """
    maps, shown = {}, []
    for subject in head.target_sizes:
        rows, targets, stories = subject_rows(head, heard, subject)
        if len(rows) < FEWEST_ROWS:
            log.info("head of %s starts at random: %d rows were heard, ridge needs %d", subject, len(rows), FEWEST_ROWS)
            continue
        maps[subject] = ridge_map(rows, targets, stories)
        shown.append(rows)
    if maps:
        set_maps(head, maps, max(shown, key=len))


@torch.no_grad()
def subject_rows(
    head: Head, batches: Iterable[HeardBatch], subject: str
) -> tuple[Tensor, Tensor, npt.NDArray[np.int64]]:
    """Rows of the map, targets and story of each row that the subject heard, story by story in order of time.

    Returns
    -------
    rows, targets : float32 Tensors of shape (n_rows, n_inputs) and (n_rows, n_targets)
    stories : int64 array of shape (n_rows,)
    """
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    was_training = head.training
    head.eval()
    for batch in batches:
        mask, targets = batch.target_mask[subject], batch.targets[subject]
        n_trs = mask.shape[1]
        rows = head.rows(batch.pooled, batch.heard, n_trs, *batch.times)
        trs = batch.first_tr[:, None] + torch.arange(n_trs, device=mask.device)
        story = batch.story[:, None].expand_as(trs)
        found.append((rows[mask], targets[mask], story[mask], trs[mask]))
    head.train(was_training)
    rows, targets, story, trs = (torch.cat(part) for part in zip(*found, strict=True))
    order = np.lexsort((trs.cpu().numpy(), story.cpu().numpy()))
    places = torch.from_numpy(order).to(rows.device)
    return rows[places].float(), targets[places].float(), story.cpu().numpy()[order]


def ridge_map(rows: Tensor, targets: Tensor, stories: npt.NDArray[np.int64]) -> LinearMap:
    """The ridge from rows to targets, with its strength chosen for each target by cross-validation over the stories.

    Parameters
    ----------
    rows, targets : Tensors of shape (n_rows, n_inputs) and (n_rows, n_targets)
    stories : int array of shape (n_rows,)
        Equal ones together; with fewer than 4 of them, stretches are held out instead.
    """
    x_mean, y_mean = rows.mean(0), targets.mean(0)
    centred = rows - x_mean
    size = centred.square().sum(1).mean().sqrt()  # rows of mean square 1, on which the alphas are ratios of variances
    fitted = banded_ridge_cv(
        {"states": (centred / size).cpu().numpy()},
        (targets - y_mean).cpu().numpy(),
        stories,
        n_folds=N_FOLDS,
        purge_trs=PURGE_TRS,
    )
    weight = torch.from_numpy(np.asarray(fitted.weights["states"], dtype=np.float32)).to(rows.device) / size
    return LinearMap(weight, y_mean - x_mean @ weight)


# --- Maps become the weights of a head, by its kind ---


@singledispatch
def set_maps(head: Head, maps: Mapping[str, LinearMap], rows: Tensor) -> None:
    """Let the head predict what the maps predict, as far as it can; subjects without a map keep what they have.

    A linear head does exactly that. A bottleneck takes the maps of `rank` features that come nearest, by the squares of
    what they predict of the rows. Heads that share a map take the mean of the maps, and deviations of 0.

    Parameters
    ----------
    head : Head
        Changed in place.
    maps : mapping of subject to LinearMap
    rows : Tensor of shape (n_rows, n_inputs)
        Typical ones.

    Raises
    ------
    TypeError
        If nobody said how this kind of head begins.
    """
    raise TypeError(f"nothing says how a {type(head).__name__} begins with a ridge: give --model.head_start random.")


@set_maps.register
def _of_linear(head: LinearHead, maps: Mapping[str, LinearMap], rows: Tensor) -> None:
    _write(head.linear, maps, head.target_sizes)


@set_maps.register
@torch.no_grad()
def _of_bottleneck(head: BottleneckHead, maps: Mapping[str, LinearMap], rows: Tensor) -> None:
    """The features are the first principal components of all predictions, each of variance 1 over the rows."""
    weight, middle = torch.cat([one.weight for one in maps.values()], dim=1), rows.mean(0)
    predicted = (rows - middle).double() @ weight.double()
    left, sizes, _ = torch.linalg.svd(predicted, full_matrices=False)
    n_kept = int((sizes[: head.narrow.out_features] > sizes[0] * SMALLEST_SD).sum())
    loadings = (predicted.T @ left[:, :n_kept] / sizes[:n_kept]).float()
    scale = (sizes[:n_kept] / len(rows) ** 0.5).float()
    head.narrow.weight[:n_kept] = (weight @ loadings / scale).T
    widen = weight.new_zeros(head.narrow.out_features, weight.shape[1])
    widen[:n_kept] = (loadings * scale).T
    parts = torch.split(widen, [one.weight.shape[1] for one in maps.values()], dim=1)
    nearest = {
        subject: LinearMap(part, middle @ one.weight + one.bias - head.narrow(middle) @ part)
        for (subject, one), part in zip(maps.items(), parts, strict=True)
    }
    _write(head.linear, nearest, head.target_sizes)


@set_maps.register(SharedHead)
@set_maps.register(SharedLowRankHead)
@torch.no_grad()
def _of_shared(head: SharedHead | SharedLowRankHead, maps: Mapping[str, LinearMap], rows: Tensor) -> None:
    head.linear.weight.copy_(torch.stack([one.weight for one in maps.values()]).mean(0).T)
    head.linear.bias.copy_(torch.stack([one.bias for one in maps.values()]).mean(0))


@torch.no_grad()
def _write(linear: nn.Linear, maps: Mapping[str, LinearMap], target_sizes: Mapping[str, int]) -> None:
    """Into the rows of a layer whose outputs are the subjects' targets, one subject after another."""
    start = 0
    for subject, size in target_sizes.items():
        if subject in maps:
            linear.weight[start : start + size] = maps[subject].weight.T
            linear.bias[start : start + size] = maps[subject].bias
        start += size
