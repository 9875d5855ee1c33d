"""Responses with the phases of their frequencies drawn at random: same spectra and covariance, no match with sound."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from brainlit.backbones.cache import cached_folder
from brainlit.datamodules.targets.stored import StoredTargets, file_name
from brainlit.datamodules.targets.voxels import Float32Array, VoxelTargets
from brainlit.demo.streams import random_stream
from brainlit.encoding.roles import Span

RECIPE = 1
"""Part of the cache's key: another number wherever the numbers below change."""


def phase_targets(voxels: VoxelTargets, spans: Sequence[Span], seed: int) -> StoredTargets:
    """Phase-randomised surrogates of all tuning spans, each span by itself; computed once, then kept in the cache.

    One random phase per frequency and span serves all voxels and all subjects, so every power and cross spectrum stays
    as it was (Prichard & Theiler 1994, Phys. Rev. Lett. 73:951), and with them mean, variance, autocorrelation and the
    covariance of voxels and of subjects who heard the same rows. As each row depends on the whole span, the surrogates
    are written to disk: as many bytes as the tuning rows of all target voxels have in float32, which is 1.9 GB for 27
    stories of 350 TRs and 50,000 voxels.
    """
    heard = {subject: [span for span in spans if voxels.heard(subject, span.story)] for subject in voxels.sizes}
    settings: dict[str, Any] = {
        "recipe": RECIPE,
        "kind": "phase",
        "store": voxels.store.fingerprint,
        "voxels": {name: hashlib.sha256(own.tobytes()).hexdigest() for name, own in voxels.voxels.items()},
        "spans": {subject: [str(span) for span in own] for subject, own in heard.items()},
        "subjects": list(heard),
        "seed": seed,
    }

    def build(folder: Path) -> None:
        pieces = [(n, name, k, span) for n, name in enumerate(heard) for k, span in enumerate(heard[name])]
        for subject_number, subject, number, span in tqdm(pieces, desc="phase-randomised responses", unit="story"):
            values = voxels.rows(subject, span.story, span.start_tr, span.stop_tr)
            assert values is not None
            rng = random_stream(seed, "phases", span.story, span.start_tr, span.stop_tr)
            np.save(folder / file_name(subject_number, number), randomise_phases(values, rng))

    return StoredTargets(cached_folder("targets", settings, build), voxels.sizes, heard)


def randomise_phases(values: Float32Array, rng: np.random.Generator) -> Float32Array:
    """Add the same random phases to the frequencies of all columns: (n_rows, n_columns) -> the same shape.

    The mean stays as it is. The highest frequency of an even number of rows keeps or turns its sign: a real series has
    no other phases there.
    """
    from scipy.fft import irfft, rfft

    n_rows = len(values)
    angles = rng.uniform(0, 2 * np.pi, n_rows // 2 + 1)
    angles[0] = 0.0
    if n_rows % 2 == 0:
        angles[-1] = np.pi * (angles[-1] > np.pi)
    turned = rfft(values, axis=0) * np.exp(1j * angles).astype(np.complex64)[:, None]
    surrogate: Float32Array = irfft(turned, n=n_rows, axis=0).astype(np.float32)
    return surrogate
