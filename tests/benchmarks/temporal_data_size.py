"""How far each temporal choice predicts, by the number of fitted rows: `python -m tests.benchmarks.temporal_data_size`.

Features at 10 per second drive voxels through responses of their own (three logistic steps: rise, fall, end of the
undershoot; Lindquist & Wager 2007, Human Brain Mapping 28:764), which no basis here is made of. Volumes come every 2 s,
noise is autocorrelated. Prints the mean correlation on held-out stories and draws docs/images/temporal_data_size.svg.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve, lfilter

from brainlit.encoding import ProbeConfig, TemporalBand, haemodynamic_rows, parts_of
from brainlit.encoding.temporal import Temporal, TemporalPart

Array = npt.NDArray[np.float64]
TR_S, BIN_S, STORY_TRS, N_SCORED_STORIES = 2.0, 0.1, 300, 3
LEAD_S = 40.0
"""Sound before the first volume, so that responses have settled."""
MOST_LATENT = 200
"""Independent courses that features are mixtures of: states of a speech model have some hundred that matter."""
NOISE_MEMORY = 0.4
SIGNAL = (0.05, 0.35)
"""Range over voxels of the share of variance that is signal."""
SIZES, WIDTHS = (300, 1200, 4000, 9000), (50, 1024)
SEEDS = (10, 11, 12, 13, 14)
"""Others than those on which weights and mixtures were chosen, 0 to 4."""
CONFIG = ProbeConfig(low_level_impact=False, temporal="auto")
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "temporal_data_size.svg"


@dataclass(frozen=True, eq=False)
class Listener:
    """A band in all temporal forms, responses to it, and which rows are fitted and scored."""

    band: TemporalBand
    Y: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64]
    fit: npt.NDArray[np.bool_]

    @property
    def roles(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        return self.groups, self.fit, ~self.fit

    def some(self, temporal: Temporal) -> TemporalBand:
        """The band as a temporal choice wants it."""
        return TemporalBand({part: self.band.parts[part] for part in parts_of(temporal)})


def voxel_responses(n_voxels: int, rng: np.random.Generator) -> Array:
    """One response per voxel at lags 0, BIN_S, ..., (n_lags, n_voxels): peaks at 4 to 7 s, sometimes an undershoot."""
    lags_s = np.arange(0, LEAD_S, BIN_S)[:, None]

    def step(at_s: Array, width_s: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-(lags_s - at_s) / width_s)))

    def between(low: float, high: float) -> Array:
        return rng.uniform(low, high, n_voxels)

    rise_s, dip = between(2.6, 4.6), between(0.0, 0.35)
    fall_s = rise_s + between(3.0, 5.0)
    first, second = step(rise_s, between(0.5, 0.9)), step(fall_s, between(0.8, 1.5))
    third = step(fall_s + between(6.0, 10.0), between(1.0, 2.0))
    return first - (1 + dip) * second + dip * third


def courses(n_times: int, n_latent: int, rng: np.random.Generator) -> Array:
    """Independent courses with memories of 0.1 to 2 s, in decreasing strength: (n_times, n_latent)."""
    memory = np.exp(-BIN_S / np.exp(rng.uniform(np.log(0.1), np.log(2.0), n_latent)))
    noise = rng.standard_normal((n_times, n_latent))
    smooth = np.stack([remembering(noise[:, k], m) for k, m in enumerate(memory)], axis=1)
    return np.asarray(smooth * np.arange(1, n_latent + 1) ** -0.5)


def remembering(noise: Array, memory: float) -> Array:
    """AR(1) of unit variance."""
    return np.asarray(lfilter([np.sqrt(1 - memory**2)], [1, -memory], noise, axis=0))


def story_rows(values: Array, n_trs: int) -> dict[TemporalPart, npt.NDArray[np.float32]]:
    """All temporal forms of one story's features, whose values begin LEAD_S before the first volume."""
    times_s = (np.arange(len(values)) + 0.5) * BIN_S - LEAD_S
    read_s = (np.arange(n_trs) + 0.5) * TR_S
    durations = np.full(len(times_s), BIN_S)
    rows = haemodynamic_rows(values, times_s, read_s, "hrf_derivatives", durations_s=durations)
    own = values[times_s > 0][: round(n_trs * TR_S / BIN_S)]
    means = own.reshape(n_trs, -1, values.shape[1]).mean(axis=1)
    return {"hrf": rows["hrf"], "derivatives": rows["derivatives"], "fir": means.astype(np.float32)}


def simulate(seed: int, n_fit: int, n_columns: int, n_voxels: int = 60, n_scored: int = N_SCORED_STORIES) -> Listener:
    """Stories of about STORY_TRS volumes, the last ones scored; the world depends on seed and number of columns."""
    rng = np.random.default_rng([seed, n_columns])
    n_latent = min(n_columns, MOST_LATENT)
    mixing = rng.standard_normal((n_latent, n_columns)) / np.sqrt(n_latent)
    tastes = rng.standard_normal((n_columns, n_voxels))
    responses, share = voxel_responses(n_voxels, rng), rng.uniform(*SIGNAL, n_voxels)
    n_stories = max(1, round(n_fit / STORY_TRS))
    sizes = [n_fit // n_stories] * n_stories + [STORY_TRS] * n_scored
    forms: list[Mapping[TemporalPart, npt.NDArray[np.float32]]] = []
    signals, noises = [], []
    for n_trs in sizes:
        latent = courses(round((LEAD_S + n_trs * TR_S) / BIN_S), n_latent, rng)
        forms.append(story_rows(latent @ mixing, n_trs))
        driven = fftconvolve(latent @ (mixing @ tastes), responses, axes=0)[: len(latent)]
        signals.append(driven[round((LEAD_S + TR_S / 2) / BIN_S) :: round(TR_S / BIN_S)][:n_trs])
        noises.append(remembering(rng.standard_normal((n_trs, n_voxels)), NOISE_MEMORY))
    signal = np.concatenate(signals)
    Y = np.sqrt(share) * signal / signal.std(axis=0) + np.sqrt(1 - share) * np.concatenate(noises)
    band = TemporalBand({part: np.concatenate([form[part] for form in forms]) for part in forms[0]})
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return Listener(band, Y.astype(np.float32), groups, groups < n_stories)
