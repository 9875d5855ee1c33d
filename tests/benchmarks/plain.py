"""Plain references of the suite: what one would write without brainlit, with which they share no code.

Numpy, torch, transformers, scikit-learn and himalaya as their own pages say; nothing here imports brainlit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Array = npt.NDArray[Any]
SKIP_TRS = 5
"""Rows at the start of each story that are neither fitted nor scored."""


# --- Rows of an encoding model ---


class Columns(NamedTuple):
    """Delayed bands and responses on the rows that are used; `fit`: which of these are fitted, the rest is scored."""

    bands: list[Array]
    Y: Array
    fit: Array
    groups: Array


def by_story(values: Array, groups: Array) -> Array:
    """Each story less its own mean."""
    centred = np.array(values, dtype=np.float64)
    for story in np.unique(groups):
        centred[groups == story] -= centred[groups == story].mean(axis=0)
    return centred


def columns_of(
    raw: Sequence[Array], Y: Array, groups: Array, fit: Array, delays_trs: Sequence[int] = (1, 2, 3, 4)
) -> Columns:
    """Standardise by the fitted rows, delay inside stories, and give each band rows of mean square 1."""
    place = np.concatenate([np.arange((groups == story).sum()) for story in np.unique(groups)])
    used = place >= SKIP_TRS
    bands = []
    for X in raw:
        centred = by_story(X, groups)
        centred /= centred[fit & used].std(axis=0)
        delayed = np.zeros((len(X), X.shape[1] * len(delays_trs)))
        for k, delay in enumerate(delays_trs):
            late = place >= delay
            delayed[late, k * X.shape[1] : (k + 1) * X.shape[1]] = centred[np.flatnonzero(late) - delay]
        kept = by_story(delayed[used], groups[used])
        kept /= np.sqrt((kept[fit[used]] ** 2).sum(axis=1).mean())
        bands.append(kept)
    responses = by_story(Y[used], groups[used])
    return Columns(bands, responses / responses[fit[used]].std(axis=0), fit[used], groups[used])


def story_folds(groups: Array, n_folds: int) -> list[tuple[Array, Array]]:
    """Rows to train on and rows held out: whole stories, one after the other.

    A fold ends where a story ends, as near as can be to an equal share of the rows; the earlier of two that are as
    near. Of ten stories as long as each other, four folds hold out 2, 3, 2 and 3.
    """
    stories, counts = np.unique(groups, return_counts=True)
    ends = np.cumsum(counts)
    cuts = [int(np.abs(ends - k * ends[-1] / n_folds).argmin()) + 1 for k in range(1, n_folds)]
    parts = np.split(stories, cuts)
    assert all(len(part) for part in parts), f"{len(stories)} stories are too few or too uneven for {n_folds} folds"
    return [(np.flatnonzero(~np.isin(groups, part)), np.flatnonzero(np.isin(groups, part))) for part in parts]


def correlations(Y: Array, predicted: Array, groups: Array) -> Array:
    """Of every voxel, stories centred."""
    y, p = by_story(Y, groups), by_story(predicted, groups)
    return np.asarray((y * p).sum(axis=0) / np.sqrt((y**2).sum(axis=0) * (p**2).sum(axis=0)))


def r2(Y: Array, predicted: Array, groups: Array) -> Array:
    """1 - SSE / SST of every voxel, stories centred."""
    y, p = by_story(Y, groups), by_story(predicted, groups)
    return np.asarray(1 - ((y - p) ** 2).sum(axis=0) / (y**2).sum(axis=0))


# --- Ridges ---


def bootstrap_ridge(data: Columns, alphas: Sequence[float], seed: int = 0) -> Array:
    """The field's bootstrap ridge of one band, as it is usually written: float64; predictions of the scored rows.

    Three times a quarter of the rows, in chunks of 20 TRs drawn by lot, is held out; for each alpha the correlation
    of every voxel there. The alpha with the best mean counts for a voxel. The last fit multiplies by the diagonal
    matrix of shrunken singular values for each alpha.
    """
    X, Y = data.bands[0][data.fit], data.Y[data.fit]
    rng = np.random.default_rng(seed)
    chunks = np.arange(len(X) - len(X) % 20).reshape(-1, 20)
    scores = np.zeros((len(alphas), Y.shape[1]))
    for _ in range(3):
        held = np.sort(chunks[rng.permutation(len(chunks))[: round(len(chunks) / 4)]].ravel())
        train = np.setdiff1d(np.arange(len(X)), held)
        U, sizes, Vt = np.linalg.svd(X[train], full_matrices=False)
        projected, rotated = U.T @ Y[train], X[held] @ Vt.T
        wanted = _zscored(Y[held])
        for k, alpha in enumerate(alphas):
            predicted = (rotated * (sizes / (sizes**2 + alpha))) @ projected
            scores[k] += (wanted * _zscored(predicted)).mean(axis=0)
    best = scores.argmax(axis=0)
    U, sizes, Vt = np.linalg.svd(X, full_matrices=False)
    projected, weights = U.T @ Y, np.zeros((X.shape[1], Y.shape[1]))
    for k in np.unique(best):
        shrunken = np.diag(sizes / (sizes**2 + alphas[k]))
        weights[:, best == k] = Vt.T @ shrunken @ projected[:, best == k]
    return np.asarray(data.bands[0][~data.fit] @ weights)


def ridge_by_stories(data: Columns, alphas: Sequence[float], n_folds: int) -> Array:
    """Ridge of one band in float64, alphas chosen by squared error on whole stories; predictions of the scored rows."""
    X, Y = data.bands[0][data.fit], data.Y[data.fit]
    errors = np.zeros((len(alphas), Y.shape[1]))
    for train, held in story_folds(data.groups[data.fit], n_folds):
        U, sizes, Vt = np.linalg.svd(X[train], full_matrices=False)
        projected, rotated = U.T @ Y[train], X[held] @ Vt.T
        for k, alpha in enumerate(alphas):
            errors[k] += ((Y[held] - (rotated * (sizes / (sizes**2 + alpha))) @ projected) ** 2).mean(axis=0)
    best = errors.argmin(axis=0)
    U, sizes, Vt = np.linalg.svd(X, full_matrices=False)
    shrunken = sizes[:, None] / (sizes[:, None] ** 2 + np.asarray(alphas)[best])
    return np.asarray(data.bands[0][~data.fit] @ (Vt.T @ (shrunken * (U.T @ Y))))


def _zscored(values: Array) -> Array:
    return np.asarray((values - values.mean(axis=0)) / values.std(axis=0))


def random_search(data: Columns, members: Sequence[int], gammas: Array, alphas: Sequence[float], n_folds: int) -> Array:
    """himalaya's MultipleKernelRidgeCV on its torch backend in float32; predictions of the scored rows.

    Its default solver, random_search, tries the mixtures given, on linear kernels of the bands.
    """
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import MultipleKernelRidgeCV

    backend = set_backend("torch")
    bands = [torch.from_numpy(data.bands[k].astype(np.float32)) for k in members]
    fit = torch.from_numpy(data.fit)
    model = MultipleKernelRidgeCV(
        kernels="precomputed",
        solver="random_search",
        solver_params={
            "n_iter": backend.asarray(gammas.astype(np.float32)),
            "alphas": backend.asarray(np.asarray(alphas, dtype=np.float32)),
            "n_targets_batch": 2000,
            "progress_bar": False,
        },
        cv=story_folds(data.groups[data.fit], n_folds),
    )
    model.fit(torch.stack([X[fit] @ X[fit].T for X in bands]), torch.from_numpy(data.Y[data.fit].astype(np.float32)))
    predicted = model.predict(torch.stack([X[~fit] @ X[fit].T for X in bands]))
    set_backend("numpy")
    return np.asarray(predicted)


# --- A store and a loader ---


def save_arrays(stories: Mapping[str, tuple[Array, Array]], folder: Path) -> None:
    """Sound and responses of each story as .npy files, down to the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, arrays in stories.items():
        for kind, values in zip(("sound", "responses"), arrays, strict=True):
            with (folder / f"{name}-{kind}.npy").open("wb") as file:
                np.save(file, values)
                file.flush()
                os.fsync(file.fileno())


class StoriesInMemory(torch.utils.data.Dataset[tuple[Tensor, Tensor, int, int]]):
    """Windows as published loaders make them: for each story a float32 matrix with the sound of every row and the
    four before it side by side, and its responses, all in memory.

    Parameters
    ----------
    stories : mapping of name to (int16 sound, responses of shape (n_trs, n_voxels))
    row_samples : int
        Samples per row.
    """

    def __init__(self, stories: Mapping[str, tuple[Array, Array]], row_samples: int, n_rows: int = 5) -> None:
        self.sound, self.responses, self.index = [], [], []
        for k, (sound, responses) in enumerate(stories.values()):
            samples = torch.from_numpy(sound[: len(responses) * row_samples]).float() / 32_768
            rows = torch.cat([torch.zeros(n_rows - 1, row_samples), samples.view(-1, row_samples)])
            self.sound.append(torch.hstack([rows[j : j + len(responses)] for j in range(n_rows)]))
            self.responses.append(torch.from_numpy(responses.astype(np.float32)))
            self.index += [(k, row) for row in range(len(responses))]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, at: int) -> tuple[Tensor, Tensor, int, int]:
        story, row = self.index[at]
        return self.sound[story][row], self.responses[story][row], story, row


def in_memory_batches(data: StoriesInMemory, batch_size: int) -> Iterator[list[Tensor]]:
    """One shuffled epoch."""
    return iter(torch.utils.data.DataLoader(data, batch_size=batch_size, shuffle=True))


# --- Speech models ---


def normalised(sound: Tensor) -> Tensor:
    """Each clip at mean 0 and variance 1, as the feature extractor of transformers does it."""
    return (sound - sound.mean(-1, keepdim=True)) / torch.sqrt(sound.var(-1, unbiased=False, keepdim=True) + 1e-7)


def speech_model(like: Any) -> Any:
    """A model of transformers with the configuration and weights of another one, frozen convolutions, eval mode."""
    model = type(like)(deepcopy(like.config))
    model.load_state_dict(like.state_dict())
    model.freeze_feature_encoder()
    return model.eval()


class TuningLoop:
    """The paper's loop: float32, mean pooling, one linear map per subject, mean squared error, Adam.

    Parameters
    ----------
    like : transformers model
        To start from.
    heads : mapping of subject to (weight, bias)
    """

    def __init__(self, like: Any, heads: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self.model = speech_model(like)
        self.heads = {}
        for name, (weight, bias) in heads.items():
            self.heads[name] = nn.Linear(weight.shape[1], weight.shape[0])
            self.heads[name].load_state_dict({"weight": weight.detach().clone(), "bias": bias.detach().clone()})
        trained = [p for p in self.model.parameters() if p.requires_grad]
        head = [p for linear in self.heads.values() for p in linear.parameters()]
        groups = [{"params": trained, "lr": 5e-5}, {"params": head, "lr": 1e-4}]
        self.optimizer = torch.optim.Adam(groups, fused=False, foreach=False)

    def step(self, audio: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Array]:
        """A pass through the model for each subject, then one step; the mean loss and a gradient."""
        self.optimizer.zero_grad()
        total = 0.0
        for name, target in targets.items():
            hidden = self.model(normalised(audio.float() / 32_768)).last_hidden_state
            loss = nn.functional.mse_loss(self.heads[name](hidden.mean(1)), target) / len(targets)
            loss.backward()
            total += float(loss.detach())
        gradient = self.model.encoder.layers[0].attention.q_proj.weight.grad
        found = {"loss": np.array([total]), "gradient": gradient.numpy().copy()}
        self.optimizer.step()
        return found


def last_frames(model: Any, sound: Array, ends: Sequence[int], window: int, layers: Sequence[int]) -> Array:
    """The last frame of some layers for windows that end at these samples, (n_windows, n_layers, size).

    One window at a time, as published code does, and gradients are on.
    """
    found = []
    for end in ends:
        clip = torch.from_numpy(sound[end - window : end].astype(np.float32) / 32_768)[None]
        states = model(normalised(clip), output_hidden_states=True).hidden_states
        found.append(np.stack([states[k][0, -1].detach().numpy() for k in layers]))
    return np.array(found)


def lanczos(values: Array, times_s: Array, at_s: Array, n_lobes: int = 3) -> Array:
    """Values at times_s resampled to at_s with a Lanczos kernel whose cut-off is half the rate of at_s."""
    rate = 1 / float(np.diff(at_s).mean())
    x = (at_s[:, None] - times_s) * rate
    kernel = np.where(np.abs(x) < n_lobes, np.sinc(x) * np.sinc(x / n_lobes), 0.0)
    return np.asarray(kernel @ values)


def held_out_r(X: Array, Y: Array, groups: Array, alpha: float = 1.0) -> Array:
    """Ridge of delayed features with one alpha, fitted on all stories but the last one and scored there."""
    data = columns_of([X], Y, groups, groups < groups.max())
    own, wanted = data.bands[0][data.fit], data.Y[data.fit]
    weights = np.linalg.solve(own.T @ own + alpha * np.eye(own.shape[1]), own.T @ wanted)
    late = ~data.fit
    return correlations(data.Y[late], data.bands[0][late] @ weights, data.groups[late])


# --- Downstream ---


def logistic(
    features: Mapping[str, Mapping[int, Array]], targets: Mapping[str, Array], strengths: Sequence[float], max_iter: int
) -> dict[str, Array]:
    """scikit-learn's logistic regression for each layer and strength; both chosen on 'choose', accuracies on 'test'."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    best, test = [], []
    for layer in features["train"]:
        scaler = StandardScaler().fit(features["train"][layer])
        X = {part: scaler.transform(features[part][layer]) for part in features}
        found = []
        for strength in strengths:
            model = LogisticRegression(C=1 / (strength * len(X["train"])), max_iter=max_iter, tol=1e-5)
            model.fit(X["train"], targets["train"])
            found.append([float((model.predict(X[part]) == targets[part]).mean()) for part in ("choose", "test")])
        choice = max(range(len(found)), key=lambda k, found=found: (found[k][0], strengths[k]))
        best.append(found[choice][0])
        test.append(found[choice][1])
    return {"choose": np.array(best), "test": np.array(test)}


def bootstrap_interval(right: Array, speakers: Array, n_boot: int, seed: int) -> tuple[float, float]:
    """Percentiles of an accuracy over draws of speakers, in a loop."""
    rng = np.random.default_rng(seed)
    names = np.unique(speakers)
    rows = {name: np.flatnonzero(speakers == name) for name in names}
    drawn = []
    for _ in range(n_boot):
        chosen = np.concatenate([rows[name] for name in rng.choice(names, len(names))])
        drawn.append(right[chosen].mean())
    return float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


# --- Commands ---


def up_front(imports: Sequence[str], verbs: Sequence[str]) -> str:
    """A script as research code often begins: everything is imported, then --help is printed."""
    listed = "".join(f"commands.add_parser({verb!r}, help={verb!r})\n" for verb in verbs)
    return (
        f"import argparse, {', '.join(imports)}\n"
        "parser = argparse.ArgumentParser()\n"
        "commands = parser.add_subparsers(dest='verb', metavar='VERB')\n"
        f"{listed}"
        "parser.parse_args(['--help'])\n"
    )
