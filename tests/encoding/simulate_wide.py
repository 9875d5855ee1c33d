"""Wide bands whose spectra fall as those of hidden states do, and the partition that endless data would give.

Sources are AR(1) channels: low-level, semantic, and the backbone's own. The k-th channel of a band has variance
k^-decay. Each low-level channel is heard, at one of three lags, by many channels of the backbone from all over its
spectrum, beside a semantic one and one of its own; so components of little variance know what the leading ones do not.
Bands are rotations of their channels. Channels that share no source are independent, which makes the covariance of all
columns block-diagonal, and the R2 of every nested model with endless data cheap to compute even for 4,096 columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
DELAYS = (1, 2, 3, 4)
LAGS = (0, 1, 2)
"""How many TRs late a channel of the backbone may hear a low-level one."""
N_LAGS = max(DELAYS) + max(LAGS) + 1
SKIPPED = 5
"""First rows of each story, which are not used."""
NAMES = ("backbone", "low_level", "semantic")


@dataclass(frozen=True)
class Wide:
    """What is planted and how it is measured.

    Parameters
    ----------
    n_backbone, n_low_level, n_semantic : int
        Features per band, before delays; n_semantic is a multiple of n_low_level.
    fractions : three numbers that sum to 1
        Share of the signal variance from the sources low-level, semantic and the backbone's own.
    heard : three numbers
        Weights of a low-level, a semantic and an own source in each channel of the backbone.
    overlap : float
        Share of the semantic band's variance that is low-level.
    decay : float
        The k-th channel has variance k^-decay, in bands and in responses.
    """

    n_backbone: int = 1024
    n_low_level: int = 50
    n_semantic: int = 100
    fractions: tuple[float, float, float] = (0.5, 0.3, 0.2)
    heard: tuple[float, float, float] = (1.0, 0.7, 0.7)
    overlap: float = 0.2
    decay: float = 1.0
    memory: tuple[float, float, float] = (0.3, 0.6, 0.5)
    n_voxels: int = 12
    signal: tuple[float, float] = (0.15, 0.45)
    noise_memory: float = 0.4
    story_trs: tuple[int, int] = (150, 300)


@dataclass(frozen=True, eq=False)
class World:
    """One drawn population.

    Parameters
    ----------
    hears, lag, means : int arrays of shape (n_backbone,)
        The low-level channel that each channel of the backbone hears, how late, and its semantic channel.
    rotations : mapping of band to array of shape (n_channels, n_features)
    responses : three arrays of shape (n_delays, n_channels of the source, n_voxels)
    signal : array of shape (n_voxels,)
        Share of each voxel's variance that is signal.
    """

    setting: Wide
    hears: npt.NDArray[np.int64]
    lag: npt.NDArray[np.int64]
    means: npt.NDArray[np.int64]
    rotations: Mapping[str, Matrix]
    responses: tuple[Matrix, Matrix, Matrix]
    signal: Matrix


@dataclass(frozen=True, eq=False)
class WideData:
    """One data set, and the world it comes from."""

    bands: dict[str, Matrix]
    Y: Matrix
    groups: npt.NDArray[np.int64]
    fit: npt.NDArray[np.bool_]
    score: npt.NDArray[np.bool_]
    world: World = field(repr=False)


def sizes(n: int, setting: Wide) -> Matrix:
    """Standard deviation of each of n channels."""
    return np.asarray(np.arange(1.0, n + 1) ** (-setting.decay / 2))


def draw_world(seed: int, setting: Wide) -> World:
    """Draw who hears what, rotations and voxels."""
    rng = np.random.default_rng([seed, 11])
    n_b, n_l, n_s = setting.n_backbone, setting.n_low_level, setting.n_semantic
    hears = rng.permutation(n_b) % n_l
    means = hears + n_l * rng.integers(0, n_s // n_l, n_b)
    lag = rng.choice(LAGS, n_b)
    counts = dict(zip(NAMES, (n_b, n_l, n_s), strict=True))
    rotations = {band: np.linalg.qr(rng.standard_normal((n, n)))[0] for band, n in counts.items()}
    signal = rng.uniform(*setting.signal, setting.n_voxels)
    planted = np.asarray(setting.fractions)
    fractions = np.zeros((3, setting.n_voxels))
    fractions[planted > 0] = rng.dirichlet(20.0 * planted[planted > 0], setting.n_voxels).T
    responses = []
    for n, memory, fraction in zip((n_l, n_s, n_b), setting.memory, fractions, strict=True):
        weights = sizes(n, setting)[:, None] * rng.standard_normal((len(DELAYS), n, setting.n_voxels))
        toeplitz = memory ** np.abs(np.subtract.outer(DELAYS, DELAYS))
        variance = np.einsum("dcv,de,ecv->v", weights, toeplitz, weights, optimize=True)
        responses.append(weights * np.sqrt(fraction * signal / variance))
    low, semantic, own = responses
    return World(setting, hears, lag, means, rotations, (low, semantic, own), signal)


def simulate_wide(seed: int, n_fit: int, n_score: int, setting: Wide | None = None, *, n_other: int = 0) -> WideData:
    """About n_fit fitted, n_score scored and n_other other TRs, in stories of their own."""
    world = draw_world(seed, setting or Wide())
    rng = np.random.default_rng([seed, 12])
    lengths = [_lengths(rng, n, world.setting.story_trs) for n in (n_fit, n_score, n_other) if n]
    stories = [_story(rng, int(n), world) for n in np.concatenate(lengths)]
    groups = np.repeat(np.arange(len(stories)), np.concatenate(lengths))
    fit = groups < len(lengths[0])
    score = ~fit & (groups < len(lengths[0]) + len(lengths[1]))
    bands = {band: np.concatenate([own[band] for own, _ in stories]) for band in NAMES}
    return WideData(bands, np.concatenate([Y for _, Y in stories]), groups, fit, score, world)


def _lengths(rng: np.random.Generator, n_trs: int, between: tuple[int, int]) -> npt.NDArray[np.int64]:
    n_stories = max(1, round(n_trs / np.mean(between)))
    lengths = rng.uniform(*between, n_stories)
    return np.asarray(np.clip(np.round(lengths * n_trs / lengths.sum()), *between), dtype=np.int64)


def _story(rng: np.random.Generator, n_trs: int, world: World) -> tuple[dict[str, Matrix], Matrix]:
    setting, n_all = world.setting, n_trs + N_LAGS
    counts = (setting.n_low_level, setting.n_semantic, setting.n_backbone)
    low, meaning, own = (_ar1(rng, n_all, n, phi) for n, phi in zip(counts, setting.memory, strict=True))
    late = np.arange(N_LAGS, n_all)
    a, b, c = np.asarray(setting.heard) / np.linalg.norm(setting.heard)
    heard = low[late[:, None] - world.lag, world.hears]
    channels = {
        "backbone": a * heard + b * meaning[late[:, None], world.means] + c * own[late],
        "low_level": low[late],
        "semantic": np.sqrt(1 - setting.overlap) * meaning[late]
        + np.sqrt(setting.overlap) * low[late[:, None], np.arange(setting.n_semantic) % setting.n_low_level],
    }
    bands = {band: (X * sizes(X.shape[1], setting)) @ world.rotations[band] for band, X in channels.items()}
    Y = np.sqrt(1 - world.signal) * _ar1(rng, n_trs, setting.n_voxels, setting.noise_memory)
    for source, weights in zip((low, meaning, own), world.responses, strict=True):
        for delay, of_delay in zip(DELAYS, weights, strict=True):
            Y += source[late - delay] @ of_delay
    return bands, Y


def _ar1(rng: np.random.Generator, n_trs: int, n: int, phi: float) -> Matrix:
    values = rng.standard_normal((n_trs, n))
    values[1:] *= np.sqrt(1 - phi**2)
    for t in range(1, n_trs):
        values[t] += phi * values[t - 1]
    return values


# --- Columns, and fewer of them ---


def _late(data: WideData) -> npt.NDArray[np.bool_]:
    """Rows that are not among the first of their story."""
    return np.concatenate([np.arange((data.groups == g).sum()) for g in np.unique(data.groups)]) >= SKIPPED


def _centred(X: Matrix, groups: npt.NDArray[np.int64]) -> Matrix:
    return np.concatenate([X[groups == g] - X[groups == g].mean(axis=0) for g in np.unique(groups)])


def _columns(data: WideData, band: str) -> tuple[Matrix, Matrix]:
    """A band's features in units of their sd on the fitted rows, at each delay, (n_trs, n_columns); and 1 / sd."""
    centred = _centred(data.bands[band], data.groups)
    scale = 1.0 / np.sqrt(np.square(centred[data.fit & _late(data)]).mean(axis=0))
    columns = np.zeros((len(centred), len(DELAYS), len(scale)))
    for g in np.unique(data.groups):
        own = np.flatnonzero(data.groups == g)
        for k, delay in enumerate(DELAYS):
            columns[own[delay:], k] = centred[own[:-delay]] * scale
    return _centred(columns.reshape(len(centred), -1), data.groups), scale


def _components(F: Matrix) -> tuple[Matrix, Matrix]:
    """Variances of the rows of F, largest first, and their directions, (n_columns, k)."""
    values, sides = np.linalg.eigh(F @ F.T) if len(F) < F.shape[1] else np.linalg.eigh(F.T @ F)
    real = values[::-1] > 1e-9 * values[-1]
    values, sides = values[::-1][real], sides[:, ::-1][:, real]
    return values, F.T @ sides / np.sqrt(values) if len(F) < F.shape[1] else sides


def directions_of(data: WideData, k: int) -> Matrix:
    """The k leading components of the backbone's delayed columns on the other stories: (n_delays, n_backbone, k)."""
    columns, scale = _columns(data, "backbone")
    other = ~data.fit & ~data.score & _late(data)
    leading = _components(columns[other])[1][:, :k]
    return leading.reshape(len(DELAYS), len(scale), k) * scale[:, None]


def cut_bands(data: WideData, n_columns: int) -> dict[str, Matrix]:
    """So many leading components of the delayed bands in all, each band cut at the same share of its variance."""
    columns = {band: _columns(data, band)[0] for band in NAMES}
    fitted = data.fit & _late(data)
    found = {band: _components(X[fitted]) for band, X in columns.items()}
    before = {band: (np.cumsum(lam) - lam) / lam.sum() for band, (lam, _) in found.items()}
    every = np.sort(np.concatenate(list(before.values())))
    limit = every[n_columns] if len(every) > n_columns else np.inf
    return {band: columns[band] @ found[band][1][:, before[band] < limit] for band in NAMES}


# --- What endless data would give ---


def shares(world: World, directions: Matrix | None = None) -> dict[str, float]:
    """The seven parts as shares of the joint R2 of endless data, summed over voxels.

    Parameters
    ----------
    directions : array of shape (n_delays, n_backbone, k), optional
        Only these k combinations of the backbone's delayed features are its band, instead of all.
    """
    explained = dict.fromkeys(_models(), 0.0)
    pieces = _blocks(world) if directions is None else [_whole(world, directions)]
    for columns, covariance, targets in pieces:
        moved = covariance(targets)
        for model in explained:
            A = np.concatenate([columns[band] for band in model], axis=1)
            cross, gram = A.T @ moved, A.T @ covariance(A)
            size = np.sqrt(np.maximum(np.diag(gram), 1e-300))
            weights = np.linalg.lstsq(gram / size / size[:, None], cross / size[:, None], rcond=1e-10)[0]
            explained[model] += float((cross / size[:, None] * weights).sum())
    return _parts(explained)


def _models() -> list[tuple[str, ...]]:
    return [members for n in (1, 2, 3) for members in combinations(NAMES, n)]


def _parts(explained: Mapping[tuple[str, ...], float]) -> dict[str, float]:
    """Unique and shared parts of three bands, written out."""
    b, l, s, bl, bs, ls, bls = (explained[model] for model in _models())  # noqa: E741
    parts = {
        "backbone": bls - ls,
        "low_level": bls - bs,
        "semantic": bls - bl,
        "backbone&low_level": bs + ls - s - bls,
        "backbone&semantic": bl + ls - l - bls,
        "low_level&semantic": bl + bs - b - bls,
        "backbone&low_level&semantic": b + l + s - bl - bs - ls + bls,
    }
    return {part: value / bls for part, value in parts.items()}


def _blocks(world: World) -> Iterator[tuple[dict[str, Matrix], Covariance, Matrix]]:
    """Columns, covariance and responses of each set of channels that share sources: those of one low-level channel."""
    setting = world.setting
    n_l, n_s = setting.n_low_level, setting.n_semantic
    for g in range(n_l):
        semantic, backbone = np.arange(g, n_s, n_l), np.flatnonzero(world.hears == g)
        yield _moments(world, np.array([g]), semantic, backbone, None)


def _whole(world: World, directions: Matrix) -> tuple[dict[str, Matrix], Covariance, Matrix]:
    setting = world.setting
    every = (np.arange(n) for n in (setting.n_low_level, setting.n_semantic, setting.n_backbone))
    return _moments(world, *every, directions)


class Covariance:
    """Covariance of some sources at all lags, times a matrix whose rows are lag by lag, source by source."""

    def __init__(self, memory: npt.ArrayLike) -> None:
        apart = np.abs(np.subtract.outer(np.arange(N_LAGS), np.arange(N_LAGS)))
        self.by_memory = {float(phi): float(phi) ** apart for phi in np.unique(memory)}
        self.memory = np.asarray(memory)

    def __call__(self, A: Matrix) -> Matrix:
        """(n_lags * n_sources, k) -> the same shape."""
        cube = A.reshape(N_LAGS, len(self.memory), -1)
        moved = np.empty_like(cube)
        for phi, toeplitz in self.by_memory.items():
            own = self.memory == phi
            moved[:, own] = np.tensordot(toeplitz, cube[:, own], axes=1)
        return moved.reshape(A.shape)


def _moments(
    world: World,
    low: npt.NDArray[np.int64],
    semantic: npt.NDArray[np.int64],
    backbone: npt.NDArray[np.int64],
    directions: Matrix | None,
) -> tuple[dict[str, Matrix], Covariance, Matrix]:
    """Columns of the delayed bands and responses as combinations of the given channels' sources at each lag."""
    setting = world.setting
    edges = np.cumsum([0, len(low), len(semantic), len(backbone)])
    n_sources, place = int(edges[-1]), {int(c): k for k, c in enumerate(low)}
    of_meaning = {int(c): int(edges[1]) + k for k, c in enumerate(semantic)}
    a, b, c = np.asarray(setting.heard) / np.linalg.norm(setting.heard)
    size = sizes(setting.n_backbone, setting)[backbone]
    heard = np.zeros((max(LAGS) + 1, n_sources, len(backbone)))
    each = np.arange(len(backbone))
    heard[world.lag[backbone], [place[int(g)] for g in world.hears[backbone]], each] = a * size
    heard[0, [of_meaning[int(h)] for h in world.means[backbone]], each] = b * size
    heard[0, edges[2] + each, each] = c * size
    columns = {
        "low_level": _delayed(np.eye(n_sources)[None, :, : len(low)]),
        "semantic": _delayed(_meaning(setting, semantic, place, edges)[None]),
    }
    if directions is None:
        columns["backbone"] = _delayed(heard)
    else:
        made = np.zeros((N_LAGS, n_sources, directions.shape[2]))
        for delay, own in zip(DELAYS, directions, strict=True):
            of_channels = world.rotations["backbone"] @ own
            for lag, weights in enumerate(heard):
                made[delay + lag] += weights @ of_channels
        columns["backbone"] = made.reshape(N_LAGS * n_sources, -1)
    targets = np.zeros((N_LAGS, n_sources, setting.n_voxels))
    for weights, channels, start in zip(world.responses, (low, semantic, backbone), edges, strict=False):
        targets[list(DELAYS), start : start + len(channels)] = weights[:, channels]
    memory = np.repeat(setting.memory, np.diff(edges))
    return columns, Covariance(memory), targets.reshape(N_LAGS * n_sources, -1)


def _meaning(
    setting: Wide, semantic: npt.NDArray[np.int64], place: Mapping[int, int], edges: npt.NDArray[np.int64]
) -> Matrix:
    mixed = np.zeros((int(edges[-1]), len(semantic)))
    for k, channel in enumerate(semantic):
        mixed[edges[1] + k, k] = np.sqrt(1 - setting.overlap)
        mixed[place[int(channel) % setting.n_low_level], k] = np.sqrt(setting.overlap)
    return mixed


def _delayed(weights: Matrix) -> Matrix:
    """(n_lags of the band, n_sources, n_channels) -> (N_LAGS * n_sources, n_delays * n_channels)."""
    n, n_sources, n_channels = weights.shape
    columns = np.zeros((N_LAGS, n_sources, len(DELAYS), n_channels))
    for k, delay in enumerate(DELAYS):
        columns[delay : delay + n, :, k] = weights
    return columns.reshape(N_LAGS * n_sources, -1)
