"""Hidden states of another model as targets: as slow as responses, as many, and of the same variance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from brainlit.backbones.cache import cached_folder
from brainlit.datamodules.targets.config import RepresentationConfig
from brainlit.datamodules.targets.stored import StoredTargets, file_name
from brainlit.datamodules.targets.voxels import Float32Array, VoxelTargets
from brainlit.demo.haemodynamics import HRF_S, haemodynamic_response
from brainlit.demo.streams import random_stream
from brainlit.encoding.roles import Span
from brainlit.store import StoryStore

RECIPE = 1
"""Part of the cache's key: another number wherever the numbers below change."""

COLUMNS_AT_ONCE = 2048
"""Projections drawn at a time: 210 MB of weights for the 25,600 hidden states of a large speech model."""


class Representation(Protocol):
    """A model of which there are hidden states per row."""

    name: str
    """Name of the set of targets where it is not the subjects'."""

    def settings(self) -> dict[str, Any]:
        """All that decides the numbers, as plain JSON values."""

    def features(self, store: StoryStore, stories: Sequence[str]) -> Iterator[Float32Array]:
        """Hidden states of each story, shape (n_trs, n_features)."""


def representation_targets(
    model: Representation, store: StoryStore, stories: Sequence[str], config: RepresentationConfig, voxels: VoxelTargets
) -> StoredTargets:
    """Targets from the hidden states of a model, for whole stories; computed once, then kept in the cache.

    Hidden states per row go through the haemodynamic response (if asked), are z-scored per story like the responses of
    a store, projected to the dimension asked for, and z-scored again; so every target has mean 0 and variance 1 in
    every story that it varies in. The projection is a fixed Gaussian matrix, another one for each subject: inner
    products between rows stay about as they were, and the targets of any subject have the rank of the hidden states.

    Parameters
    ----------
    stories : sequence of str
        The stories to compute.
    voxels : VoxelTargets
        The subjects, with as many targets as they have target voxels, where `dimension` is voxels.

    Returns
    -------
    StoredTargets
        With the subjects and stories of `voxels`, or with the model's name for its only set of targets, and all
        stories.

    Raises
    ------
    ValueError
        If there are no stories, or the model cannot do what it is asked for.
    """
    if not stories:
        raise ValueError("no story has a role, so there is nothing to compute targets of; give data.roles stories.")
    common = {"recipe": RECIPE, "store": store.fingerprint, "stories": list(stories), "model": model.settings()}
    settings = common | {"kind": model.name, "haemodynamic": config.haemodynamic}
    whole = {story: Span(story, 0, store.n_trs(story)) for story in stories}
    states = cached_folder("targets", settings, lambda folder: _compute(model, store, stories, config, folder))
    if config.dimension == "own":
        n_features = _states_of(states, 0).shape[1]
        return StoredTargets(states, {model.name: n_features}, {model.name: whole.values()})
    if config.dimension == "voxels":
        sizes = dict(voxels.sizes)
        spans = {subject: [whole[story] for story in stories if voxels.heard(subject, story)] for subject in sizes}
    else:
        sizes, spans = {model.name: config.dimension}, {model.name: list(whole.values())}
    projected = settings | {"projection": asdict(config), "sizes": sizes, "subjects": list(sizes)}
    projected["spans"] = {name: [str(span) for span in own] for name, own in spans.items()}
    order = {story: number for number, story in enumerate(stories)}
    sources = {name: [order[span.story] for span in own] for name, own in spans.items()}
    folder = cached_folder("targets", projected, lambda new: _project(states, sizes, sources, config.seed, new))
    return StoredTargets(folder, sizes, spans)


def haemodynamic_matrix(n_trs: int, tr_s: float) -> npt.NDArray[np.float32]:
    """What takes values per row to the signal at the ends of the rows, shape (n_trs, n_trs).

    A row's value counts as an event in the middle of the row, and scale does not matter, for targets are z-scored. The
    peak of an event comes 5 s after it: two rows later at a TR of 2 s.
    """
    from scipy.linalg import toeplitz

    lags_s = (np.arange(n_trs) + 0.5) * tr_s
    kernel = np.where(lags_s < HRF_S, haemodynamic_response(lags_s), 0.0)
    matrix: npt.NDArray[np.float32] = toeplitz(kernel, np.zeros(n_trs)).astype(np.float32)
    return matrix


def z_scored(values: Float32Array) -> Float32Array:
    """Mean 0 and variance 1 over rows; columns that do not vary become 0."""
    centred = values - values.mean(axis=0, dtype=np.float64).astype(np.float32)
    sd = np.sqrt(np.square(centred).mean(axis=0, dtype=np.float64))
    level = np.abs(values).max(axis=0, initial=0.0)
    scale = np.where(sd > 1e-6 * level, sd, np.inf)
    return np.asarray(centred / scale, dtype=np.float32)


def projection(n_features: int, subject: str, block: int, seed: int) -> Float32Array:
    """A block of COLUMNS_AT_ONCE columns of a subject's Gaussian projection, shape (n_features, COLUMNS_AT_ONCE).

    It depends on nothing but these numbers: more targets leave the first ones as they were.
    """
    rng = random_stream(seed, "projection", subject, block)
    weights = rng.standard_normal((n_features, COLUMNS_AT_ONCE), dtype=np.float32)
    return weights / np.float32(np.sqrt(n_features))


def _compute(
    model: Representation, store: StoryStore, stories: Sequence[str], config: RepresentationConfig, folder: Path
) -> None:
    """Standardised hidden states of every story into an empty folder."""
    for number, (story, values) in enumerate(zip(stories, model.features(store, stories), strict=True)):
        if config.haemodynamic:
            matrix = haemodynamic_matrix(store.n_trs(story), store.tr_s)
            values = matrix @ (values - values.mean(axis=0))
        np.save(folder / file_name(0, number), z_scored(values))


def _project(
    states: Path, sizes: Mapping[str, int], sources: Mapping[str, Sequence[int]], seed: int, folder: Path
) -> None:
    """Projections of standardised hidden states into an empty folder, some columns at a time."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    blocks = [(n, name, at) for n, name in enumerate(sizes) for at in range(0, sizes[name], COLUMNS_AT_ONCE)]
    n_features = _states_of(states, 0).shape[1]
    for number, name, start in tqdm(blocks, desc="projected targets", unit="block", disable=len(blocks) < 4):
        stop = min(start + COLUMNS_AT_ONCE, sizes[name])
        drawn = projection(n_features, name, start // COLUMNS_AT_ONCE, seed)[:, : stop - start]
        weights = torch.from_numpy(drawn).to(device)
        for place, source in enumerate(sources[name]):
            values = torch.from_numpy(np.array(_states_of(states, source)))
            rows = z_scored((values.to(device) @ weights).cpu().numpy())
            _write_columns(folder / file_name(number, place), rows, start, sizes[name])


def _write_columns(file: Path, values: Float32Array, start: int, n_columns: int) -> None:
    """Columns from start on of a file of (n_rows, n_columns), which is made with the first ones."""
    mode, shape = ("w+" if start == 0 else "r+"), (len(values), n_columns)
    out = np.lib.format.open_memmap(file, mode=mode, dtype=np.float32, shape=shape)
    out[:, start : start + values.shape[1]] = values
    out.flush()


def _states_of(folder: Path, number: int) -> Float32Array:
    values: Float32Array = np.load(folder / file_name(0, number), mmap_mode="r", allow_pickle=False)
    return values
