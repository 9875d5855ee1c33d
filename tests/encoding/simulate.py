"""Responses with a known partition: bands, voxels and noise drawn from a population whose seven parts can be computed.

Three sources (low-level, semantic, the backbone's own) are channels of AR(1) noise. The bands mix them: the low-level
band holds its source, the semantic band its source and some of the low-level one, the backbone low-level channels at
several lags, semantic ones and its own. A voxel adds a linear response to each source over four delays, with the
planted fractions of its signal variance, and noise that is autocorrelated in time and correlated between neighbours.
Every column of every delayed band and every signal is a linear function of the sources at a few lags, so the R2 that
each nested model would reach with endless data follows from their covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from brainlit.encoding import BANDS, model_name, partition_variance, subsets
from brainlit.encoding.arrays import BoolArray, FloatArray, IntArray

SOURCES = ("low_level", "semantic", "own")
DELAYS = (1, 2, 3, 4)
BACKBONE_LAGS = (0, 1, 2)
N_LAGS = max(DELAYS) + max(BACKBONE_LAGS) + 1
BURN_IN = 50


@dataclass(frozen=True)
class Setting:
    """What is planted and how it is measured.

    Parameters
    ----------
    fractions : three numbers that sum to 1
        Share of the signal variance from the sources low-level, semantic and the backbone's own; voxels scatter around
        it, a fraction of 0 is 0 in every voxel.
    backbone : three numbers
        How much of each source the backbone holds (weights of its mixture); (1, 0, 0) holds only low-level channels.
    overlap : float
        Share of the semantic band's variance that is low-level.
    signal : (float, float)
        Range of the share of a voxel's variance that is signal.
    decay : float
        The k-th channel of a source has a standard deviation of k^-decay, in bands and in responses.
    memory : three numbers
        AR(1) coefficients of the sources.
    noise_memory : float
        AR(1) coefficient of the noise.
    noise_range : float
        Voxels over which the correlation of the noise falls to 1/e.
    """

    fractions: tuple[float, float, float] = (0.5, 0.3, 0.2)
    backbone: tuple[float, float, float] = (1.0, 0.7, 0.7)
    overlap: float = 0.2
    decay: float = 0.0
    n_features: int = 12
    n_voxels: int = 30
    signal: tuple[float, float] = (0.15, 0.45)
    memory: tuple[float, float, float] = (0.3, 0.6, 0.5)
    noise_memory: float = 0.4
    noise_range: float = 3.0
    story_trs: tuple[int, int] = (150, 300)


@dataclass(frozen=True, eq=False)
class Population:
    """One drawn world: how bands and signals are made of the sources. Lags are counted back from the response.

    Parameters
    ----------
    mixtures : mapping of band to array of shape (n_lags_of_band, n_channels, n_features)
    responses : array of shape (n_lags, n_channels, n_voxels)
        Weights of the signals, whose variance is the voxel's share of signal.
    signal : array of shape (n_voxels,)
    """

    setting: Setting
    mixtures: dict[str, FloatArray]
    responses: FloatArray
    signal: FloatArray


@dataclass(frozen=True, eq=False)
class Simulated:
    """One data set, and the population it comes from."""

    bands: dict[str, FloatArray]
    Y: FloatArray
    groups: IntArray
    fit: BoolArray
    score: BoolArray
    population: Population = field(repr=False)


def draw_population(seed: int, setting: Setting) -> Population:
    """Draw mixing matrices and voxels."""
    rng = np.random.default_rng([seed, 1])
    d = setting.n_features
    size = _sizes(setting)[:, None]
    low, semantic, own = (slice(k * d, (k + 1) * d) for k in range(3))
    mixtures = {band: np.zeros((1, 3 * d, d)) for band in ("low_level", "semantic")}
    mixtures["low_level"][0, low] = size * _rotation(rng, d)
    mixtures["semantic"][0, semantic] = np.sqrt(1 - setting.overlap) * size * _rotation(rng, d)
    mixtures["semantic"][0, low] = np.sqrt(setting.overlap) * size * _rotation(rng, d)
    backbone = np.zeros((len(BACKBONE_LAGS), 3 * d, d))
    for share, channels, lags in zip(setting.backbone, (low, semantic, own), (BACKBONE_LAGS, (0,), (0,)), strict=True):
        for lag in lags:
            backbone[lag, channels] = share * size * rng.standard_normal((d, d)) / np.sqrt(d * len(lags))
    mixtures["backbone"] = backbone
    return Population(setting, mixtures, *_draw_responses(rng, setting))


def _sizes(setting: Setting) -> FloatArray:
    """Standard deviation of each channel of a source."""
    return np.asarray(np.arange(1.0, setting.n_features + 1) ** -setting.decay)


def _rotation(rng: np.random.Generator, d: int) -> FloatArray:
    return np.asarray(np.linalg.qr(rng.standard_normal((d, d)))[0])


def _draw_responses(rng: np.random.Generator, setting: Setting) -> tuple[FloatArray, FloatArray]:
    d, n_voxels = setting.n_features, setting.n_voxels
    planted = np.asarray(setting.fractions)
    fractions = np.zeros((3, n_voxels))
    fractions[planted > 0] = rng.dirichlet(20.0 * planted[planted > 0], n_voxels).T
    signal = rng.uniform(*setting.signal, n_voxels)
    responses = np.zeros((N_LAGS, 3 * d, n_voxels))
    for k, memory in enumerate(setting.memory):
        weights = np.zeros((N_LAGS, d, n_voxels))
        weights[list(DELAYS)] = _sizes(setting)[:, None] * rng.standard_normal((len(DELAYS), d, n_voxels))
        variance = np.einsum("lcv,lm,mcv->v", weights, _lag_covariance(memory), weights)
        responses[:, k * d : (k + 1) * d] = weights * np.sqrt(fractions[k] * signal / variance)
    return responses, signal


def _lag_covariance(memory: float) -> FloatArray:
    lags = np.arange(N_LAGS)
    return np.asarray(memory ** np.abs(lags[:, None] - lags))


def simulate(
    seed: int, n_fit: int, n_score: int, setting: Setting | None = None, *, population_seed: int | None = None
) -> Simulated:
    """Draw a data set of about n_fit and n_score TRs, in stories of their own.

    Parameters
    ----------
    population_seed : int, optional
        Of the world (the seed by default), so that many data sets can come from one.
    """
    how = setting or Setting()
    population = draw_population(seed if population_seed is None else population_seed, how)
    rng = np.random.default_rng([seed, 2])
    lengths = [_story_lengths(rng, n, how.story_trs) for n in (n_fit, n_score)]
    stories = np.concatenate(lengths)
    groups = np.repeat(np.arange(len(stories)), stories)
    fit = groups < len(lengths[0])
    drawn = [_draw_story(rng, int(n), population) for n in stories]
    bands = {band: np.concatenate([bands[band] for bands, _ in drawn]) for band in BANDS}
    return Simulated(bands, np.concatenate([Y for _, Y in drawn]), groups, fit, ~fit, population)


def _story_lengths(rng: np.random.Generator, n_trs: int, between: tuple[int, int]) -> IntArray:
    """Lengths of as many stories as are needed, each inside the range, that add up to about n_trs."""
    n_stories = max(1, round(n_trs / np.mean(between)))
    lengths = rng.uniform(*between, n_stories)
    return np.asarray(np.clip(np.round(lengths * n_trs / lengths.sum()), *between), dtype=np.int64)


def _draw_story(
    rng: np.random.Generator, n_trs: int, population: Population
) -> tuple[dict[str, FloatArray], FloatArray]:
    setting = population.setting
    memory = np.repeat(setting.memory, setting.n_features)
    sources = _ar1(rng, n_trs + N_LAGS, memory)
    bands = {band: _mix(sources, weights)[N_LAGS:] for band, weights in population.mixtures.items()}
    signal = _mix(sources, population.responses)[N_LAGS:]
    noise = _ar1(rng, n_trs, np.full(setting.n_voxels, setting.noise_memory))
    return bands, signal + np.sqrt(1 - population.signal) * (noise @ _neighbours(setting).T)


def _neighbours(setting: Setting) -> FloatArray:
    """Square root of the noise correlation between voxels."""
    place = np.arange(setting.n_voxels)
    apart = np.abs(place[:, None] - place) / max(setting.noise_range, 1e-9)
    return np.linalg.cholesky(np.exp(-apart) + 1e-9 * np.eye(len(place)))


def _ar1(rng: np.random.Generator, n_trs: int, memory: npt.ArrayLike) -> FloatArray:
    """Stationary AR(1) columns of unit variance."""
    phi = np.asarray(memory, dtype=np.float64)
    values = rng.standard_normal((n_trs, len(phi)))
    values[1:] *= np.sqrt(1 - phi**2)
    for t in range(1, n_trs):
        values[t] += phi * values[t - 1]
    return values


def _mix(sources: FloatArray, weights: FloatArray) -> FloatArray:
    mixed = np.zeros((len(sources), weights.shape[2]))
    for lag, part in enumerate(weights):
        mixed[lag:] += sources[: len(sources) - lag] @ part
    return mixed


def population_r2(population: Population) -> dict[str, FloatArray]:
    """R2 of every nested model with endless data, per voxel, in units of the signal's variance: (n_voxels,) each."""
    columns, covariance, targets, variance = _moments(population)
    r2 = {}
    for members in subsets(BANDS):
        cross, weights = _regress([columns[band] for band in members], covariance, targets)
        r2[model_name(members)] = (cross * weights).sum(axis=0) / variance
    return r2


def population_split(population: Population) -> dict[str, float]:
    """Product measure of each band with endless data, as shares of the region's joint R2; and 'joint', that R2."""
    columns, covariance, targets, variance = _moments(population)
    cross, weights = _regress([columns[band] for band in BANDS], covariance, targets)
    gain = (cross * weights / variance) @ population.signal
    each = dict(zip(BANDS, (part.sum() for part in np.split(gain, len(BANDS))), strict=True))
    joint = gain.sum() / population.signal.sum()
    return {**{band: float(value / gain.sum()) for band, value in each.items()}, "joint": float(joint)}


def _moments(population: Population) -> tuple[dict[str, FloatArray], FloatArray, FloatArray, FloatArray]:
    """Columns of the delayed bands, covariance of the sources' lags, weights of the signals and their variance."""
    setting = population.setting
    channels = 3 * setting.n_features
    covariance = np.zeros((N_LAGS, channels, N_LAGS, channels))
    for c, memory in enumerate(np.repeat(setting.memory, setting.n_features)):
        covariance[:, c, :, c] = _lag_covariance(memory)
    flat = covariance.reshape(N_LAGS * channels, -1)
    columns = {band: _delayed_columns(weights) for band, weights in population.mixtures.items()}
    targets = population.responses.reshape(N_LAGS * channels, -1)
    return columns, flat, targets, np.einsum("sv,st,tv->v", targets, flat, targets, optimize=True)


def _regress(parts: list[FloatArray], covariance: FloatArray, targets: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Covariance of some columns with the signals, and the weights of the best prediction."""
    A = np.concatenate(parts, axis=1)
    cross = A.T @ covariance @ targets
    return cross, np.linalg.pinv(A.T @ covariance @ A, rcond=1e-10, hermitian=True) @ cross


def _delayed_columns(weights: FloatArray) -> FloatArray:
    """What each column of a delayed band is made of: (n_lags * n_channels, n_delays * n_features)."""
    _, channels, d = weights.shape
    columns = np.zeros((N_LAGS, channels, len(DELAYS), d))
    for k, delay in enumerate(DELAYS):
        columns[delay : delay + len(weights), :, k] = weights
    return columns.reshape(N_LAGS * channels, -1)


def truth(population: Population, voxels: Sequence[int] | slice = slice(None)) -> dict[str, float]:
    """The region's parts as shares of its joint R2: R2 summed over voxels (weighted by their signal), then divided."""
    weight = population.signal[voxels]
    r2 = {model: np.array([(values[voxels] * weight).sum()]) for model, values in population_r2(population).items()}
    parts = partition_variance(r2, BANDS)
    return {part: float(value[0] / r2[model_name(BANDS)][0]) for part, value in parts.items()}
