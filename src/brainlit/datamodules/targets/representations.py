"""Hidden states of another model as targets: as slow as responses, as many, with the variance of one presentation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tqdm.auto import tqdm

from brainlit.backbones import BACKBONES, BackboneConfig, SpeechBackbone, WeightsError, load_backbone
from brainlit.backbones.frames import pool_per_tr
from brainlit.backbones.registry import resolve_weights
from brainlit.backbones.tiny_text import tiny_language_model
from brainlit.backbones.weights import cached_folder
from brainlit.datamodules.dataset import WindowDataset
from brainlit.datamodules.targets.config import (
    LanguageTargetsConfig,
    RepresentationConfig,
    SpeechTargetsConfig,
    layer_numbers,
)
from brainlit.datamodules.targets.stored import StoredTargets, VoxelTargets, file_name
from brainlit.datamodules.windows import WindowBatch, WindowConfig, evaluation_windows
from brainlit.demo.haemodynamics import HRF_S, haemodynamic_response
from brainlit.demo.text import random_stream
from brainlit.encoding.arrays import Float32Array
from brainlit.features import LanguageModel, LanguageModelConfig
from brainlit.features.per_tr import to_trs
from brainlit.splits import Span
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


def haemodynamic_matrix(n_trs: int, tr_s: float) -> Float32Array:
    """What takes values per row to the signal at the ends of the rows, shape (n_trs, n_trs).

    A row's value counts as an event in the middle of the row, and scale does not matter, for targets are z-scored. The
    peak of an event comes 5 s after it: two rows later at a TR of 2 s.
    """
    from scipy.linalg import toeplitz

    lags_s = (np.arange(n_trs) + 0.5) * tr_s
    kernel = np.where(lags_s < HRF_S, haemodynamic_response(lags_s), 0.0)
    matrix: Float32Array = toeplitz(kernel, np.zeros(n_trs)).astype(np.float32)
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


def _identity_of_weights(weights: str) -> dict[str, Any]:
    """A hub id as it is; of a folder its name with the names, sizes and times of its files, which change with them.

    A folder elsewhere with other times is taken for other weights: computed twice rather than mistaken.
    """
    folder = Path(weights).expanduser()
    if not folder.is_dir():
        return {"name": weights}
    files = sorted(path for path in folder.iterdir() if path.is_file())
    stats = [(path.name, path.stat()) for path in files]
    return {"name": folder.resolve().name, "files": [[name, s.st_size, s.st_mtime_ns] for name, s in stats]}


# --- A text language model ---


class LanguageRepresentation:
    """Hidden states of a text language model, one vector per word in its left context, summed or averaged per row."""

    name = "language_model"

    def __init__(self, config: LanguageTargetsConfig) -> None:
        self.config = config

    def settings(self) -> dict[str, Any]:
        """All that decides the numbers; of a folder the sizes and times of its files."""
        config = self.config
        return {
            "weights": _identity_of_weights(self._weights()),
            "layers": config.layers if isinstance(config.layers, str) else list(config.layers),
            "context_words": config.context_words,
            "per_tr": config.per_tr,
        }

    def features(self, store: StoryStore, stories: Sequence[str]) -> Iterator[Float32Array]:
        """Hidden states of the layers side by side, shape (n_trs, n_layers * hidden_size); 0 in rows without words.

        Raises
        ------
        LanguageModelError
            If the weights cannot be had or are no text model's.
        ValueError
            If the model has no such layer.
        """
        config = self.config
        settings = LanguageModelConfig(self._weights(), layer=0, context_words=config.context_words)
        model = LanguageModel(settings, choose_layers=partial(layer_numbers, self.name, config.layers))
        for story in stories:
            words = store.words(story)
            states, _ = model.states(words.labels, story)
            yield to_trs(states, words.middle_s, store.timebase(story), config.per_tr)

    def _weights(self) -> str:
        return str(tiny_language_model(self.config.seed)) if self.config.weights == "tiny" else self.config.weights


# --- A large speech model ---


class SpeechRepresentation:
    """Hidden states of a speech model, averaged over the frames of each row, from the windows that training uses.

    Each row is heard with the sound before it that the tuned model hears; where the model cannot take windows so long,
    they hold fewer rows.
    """

    name = "large_speech_model"

    def __init__(self, config: SpeechTargetsConfig, window: WindowConfig) -> None:
        self.config, self.window = config, window

    def settings(self) -> dict[str, Any]:
        """All that decides the numbers; small models that are made here are described by what they are."""
        config = self.config
        made_here = config.weights.startswith(("tiny", "random:"))
        described = self.backbone.describe() if made_here else {}
        return {
            "family": config.family,
            "weights": _identity_of_weights(config.weights) | ({} if made_here else self._commit()),
            "seed": config.seed,
            "made_of": {key: described[key] for key in ("origin", "architecture") if key in described},
            "layers": config.layers if isinstance(config.layers, str) else list(config.layers),
            "window": {name: getattr(self.window, name) for name in ("n_trs", "context_s", "shift_s")},
        }

    def _commit(self) -> dict[str, str]:
        """The hub's commit of the weights, for a branch moves on; nothing for others, or where they are not at hand."""
        config = self.config
        try:
            address, origin = resolve_weights(
                BACKBONES[config.family], BackboneConfig(config.family, config.weights, config.seed)
            )
            if "hub_id" not in origin:
                return {}
            commit = address.commit or self.backbone.origin.get("commit")
        except (WeightsError, KeyError):
            return {}
        return {"commit": commit} if commit else {}

    @cached_property
    def backbone(self) -> SpeechBackbone:
        """The model, on the GPU where there is one."""
        config = self.config
        backbone = load_backbone(BackboneConfig(family=config.family, weights=config.weights, seed=config.seed))
        return backbone.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def features(self, store: StoryStore, stories: Sequence[str]) -> Iterator[Float32Array]:
        """Hidden states of the layers side by side, shape (n_trs, n_layers * hidden_size); 0 in rows without sound.

        Raises
        ------
        ValueError
            If the model has no such layer, or cannot take the context with one row.
        """
        backbone = self.backbone
        layers = layer_numbers("speech_model", self.config.layers, backbone.n_layers)
        dataset = WindowDataset(store, fitting_window(self.window, backbone, store.tr_s), VoxelTargets(store, {}))
        for story in tqdm(stories, desc=f"hidden states of {self.config.weights}", unit="story"):
            windows = evaluation_windows([Span(story, 0, store.n_trs(story))], dataset.config.n_trs)
            size = self.config.batch_size
            batches = (windows[at : at + size] for at in range(0, len(windows), size))
            yield np.concatenate([_rows_of_batch(backbone, dataset.read(batch), layers) for batch in batches])
        del self.backbone  # its memory is wanted for the model that is tuned


def fitting_window(window: WindowConfig, backbone: SpeechBackbone, tr_s: float) -> WindowConfig:
    """The window, with fewer rows where the backbone cannot take so long a one.

    Raises
    ------
    ValueError
        If not even one row fits beside the context.
    """
    if backbone.max_samples is None:
        return window
    most_s = backbone.max_samples / backbone.sample_rate_hz
    n_trs = min(window.n_trs, math.floor((most_s - window.context_s) / tr_s + 1e-9))
    if n_trs < 1:
        raise ValueError(
            f"a row of {tr_s:g} s with window.context_s {window.context_s:g} is longer than the {most_s:g} s that the"
            " speech model takes; use a shorter context."
        )
    return replace(window, n_trs=n_trs)


@torch.inference_mode()
def _rows_of_batch(backbone: SpeechBackbone, batch: WindowBatch, layers: Sequence[int]) -> Float32Array:
    """Mean hidden states of the rows that count, in order: (n_rows, n_layers * hidden_size)."""
    device = next(backbone.parameters()).device
    encoded = backbone.encode(batch["audio"].to(device), batch["audio_mask"].to(device))
    edges_s, row_mask = batch["bin_edges_s"].to(device), batch["row_mask"]
    pooled = [
        pool_per_tr(encoded.hidden_states[layer], encoded.frame_mask, encoded.frame_times_s, edges_s)[0]
        for layer in layers
    ]
    rows = torch.cat(pooled, dim=2)[:, -row_mask.shape[1] :].float().cpu()
    values: Float32Array = rows[row_mask].numpy()
    return values
