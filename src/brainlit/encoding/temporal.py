"""From features at their own times to what a haemodynamic response makes of them at every volume.

Blood answers to neural events with a delay of some seconds and a width of several. Means per TR with four delays
leave that shape to the ridge, column by column. Here the shape is given: a feature with the values v_i at the times t_i
is convolved with a response h and read when the volumes were acquired,

    x(T_k) = sum_i v_i h(T_k - t_i),

with h the double gamma of SPM, and, where asked for, its derivatives by onset and by dispersion, which let the response
of a voxel come earlier or later, wider or narrower (Friston et al. 1998, NeuroImage 7:30). h is evaluated at the very
lags T_k - t_i: no grid is laid over time, so words, frames, slow and irregular volumes are all exact.

What responses were cleaned of has to leave the features too, after the convolution (`take_out`): otherwise a model
spends its weights on drifts that the responses no longer hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import (
    Array,
    Float32Array,
    FloatArray,
    IntArray,
    group_slices,
)
from brainlit.hints import did_you_mean

Temporal = Literal["fir", "hrf", "hrf_derivatives", "auto"]
"""How a band reaches the volumes: by delays, the canonical response, that and its derivatives, or all, weighed."""
TemporalPart = Literal["hrf", "derivatives", "fir"]
HaemodynamicBasis = Literal["hrf", "hrf_derivatives"]
PARTS: Mapping[Temporal, tuple[TemporalPart, ...]] = {
    "fir": ("fir",),
    "hrf": ("hrf",),
    "hrf_derivatives": ("hrf", "derivatives"),
    "auto": ("hrf", "derivatives", "fir"),
}
ONSET_STEP_S, DISPERSION_STEP_S = 1.0, 0.01
"""Steps of the finite differences that SPM calls derivatives."""


@dataclass(frozen=True)
class HaemodynamicResponse:
    """The difference of two gamma densities: a peak, then a weaker undershoot. The defaults are SPM12's (`spm_hrf`).

    Parameters
    ----------
    delay_s : float
        Mean of the first density, in seconds after the event; the peak lies about one dispersion before it.
    undershoot_s : float
        Mean of the second one, likewise.
    dispersion_s : float
        Scale of the first: variance over mean, in seconds.
    undershoot_dispersion_s : float
        Scale of the second.
    ratio : float
        The area of the peak over that of the undershoot.
    length_s : float
        The response is 0 from here on.

    Raises
    ------
    ValueError
        If one of them is not positive, or a density has no peak after the event (delay below dispersion).
    """

    delay_s: float = 6.0
    undershoot_s: float = 16.0
    dispersion_s: float = 1.0
    undershoot_dispersion_s: float = 1.0
    ratio: float = 6.0
    length_s: float = 32.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"the haemodynamic response's {name} is {value}; give a positive number.")
        for delay, dispersion in (("delay_s", "dispersion_s"), ("undershoot_s", "undershoot_dispersion_s")):
            if getattr(self, delay) <= getattr(self, dispersion):
                raise ValueError(
                    f"the haemodynamic response's {delay} is {getattr(self, delay)} s and its {dispersion}"
                    f" {getattr(self, dispersion)} s: it would fall from the event on. Give a longer delay."
                )

    def at(self, lags_s: npt.ArrayLike) -> FloatArray:
        """The response at some seconds after an event, per second; 0 before it and from length_s on.

        >>> HaemodynamicResponse().at([-1.0, 5.0, 15.0, 32.0]).round(3).tolist()
        [0.0, 0.211, -0.018, 0.0]
        """
        from scipy.stats import gamma

        lags = np.asarray(lags_s, dtype=np.float64)
        peak = gamma.pdf(lags, self.delay_s / self.dispersion_s, scale=self.dispersion_s)
        shape = self.undershoot_s / self.undershoot_dispersion_s
        undershoot = gamma.pdf(lags, shape, scale=self.undershoot_dispersion_s)
        inside = (lags >= 0) & (lags < self.length_s)
        return np.where(inside, peak - undershoot / self.ratio, 0.0) / (1.0 - 1.0 / self.ratio)

    def by_onset(self, lags_s: npt.ArrayLike) -> FloatArray:
        """How the response changes with a later onset, as SPM has it: minus what it gains when it comes 1 s later."""
        lags = np.asarray(lags_s, dtype=np.float64)
        return (self.at(lags) - self.at(lags - ONSET_STEP_S)) / ONSET_STEP_S

    def by_dispersion(self, lags_s: npt.ArrayLike) -> FloatArray:
        """The same for the dispersion of the peak: minus what it gains with 0.01 s more."""
        return (self.at(lags_s) - self._wider().at(lags_s)) / DISPERSION_STEP_S

    def _wider(self) -> HaemodynamicResponse:
        return replace(self, dispersion_s=self.dispersion_s + DISPERSION_STEP_S)


def haemodynamic_rows(
    values: npt.ArrayLike,
    times_s: npt.ArrayLike,
    read_s: npt.ArrayLike,
    basis: HaemodynamicBasis = "hrf",
    response: HaemodynamicResponse | None = None,
    *,
    durations_s: npt.ArrayLike | None = None,
) -> dict[str, Float32Array]:
    """Features of one story, convolved with each response of a basis and read at every volume.

    Parameters
    ----------
    values : array of shape (n_times, n_features)
        Of events (words, phones: 1 for a rate, a vector for a meaning) or of frames.
    times_s : array of shape (n_times,)
        Their middles in seconds of sound, in any order; what lies before the first volume counts too.
    read_s : array of shape (n_rows,)
        When the rows were acquired, in seconds of sound: `TimeBase.tr_starts_s` plus the part of the TR that slice
        timing refers to (the middle, half a TR, where nothing is known). In any order, at any distance.
    basis : 'hrf' or 'hrf_derivatives'
    response : HaemodynamicResponse, optional
    durations_s : array of shape (n_times,), optional
        What each value stands for in time: given for frames (their spacing), whose sum is an integral; without it
        values are impulses.

    Returns
    -------
    dict
        'hrf': float32 array of shape (n_rows, n_features); with derivatives also 'derivatives': float32 array of shape
        (n_rows, 2 n_features), by onset and then by dispersion. Two bands, so that a banded ridge can trust the
        first more.

    Raises
    ------
    ValueError
        If shapes do not fit, a time or value is not finite, or there is no such basis.
    """
    if basis not in get_args(HaemodynamicBasis):
        raise ValueError(f"there is no basis {basis!r}. {did_you_mean(basis, get_args(HaemodynamicBasis))}")
    x, times, read = (np.asarray(a, dtype=np.float64) for a in (values, times_s, read_s))
    _check(x, times, read)
    if durations_s is not None:
        x = x * np.broadcast_to(np.asarray(durations_s, dtype=np.float64), times.shape)[:, None]
    h = response or HaemodynamicResponse()
    order = np.argsort(times, kind="stable")
    lags = _Lags.between(times[order], read, h.length_s + ONSET_STEP_S)
    rows = {"hrf": lags.sum_up(h.at, x[order])}
    if basis == "hrf_derivatives":
        changes = [lags.sum_up(change, x[order]) for change in (h.by_onset, h.by_dispersion)]
        rows["derivatives"] = np.concatenate(changes, axis=1)
    return rows


def take_out(X: npt.ArrayLike, groups: npt.ArrayLike, nuisance: Sequence[npt.ArrayLike]) -> Float32Array:
    """What is left of features when the regressors that their story's responses were cleaned of are regressed out.

    Parameters
    ----------
    X : array of shape (n_rows, n_features)
    groups : int array of shape (n_rows,)
        Stories, each in one piece.
    nuisance : sequence of arrays of shape (n_rows_of_story, n_regressors)
        For each story in order: drifts (`brainlit.stories.readers.cleaning.drift_basis`), confounds. The mean always
        goes. Regressors may be correlated or constant.

    Returns
    -------
    float32 array of shape (n_rows, n_features)
        Zero-mean in every story.

    Raises
    ------
    ValueError
        If there is not one set of regressors for every story, of its length.
    """
    values, stories = np.asarray(X, dtype=np.float64), group_slices(groups)
    sizes = [np.shape(own)[:1] for own in nuisance]
    if sizes != [(story.stop - story.start,) for story in stories]:
        raise ValueError(
            f"nuisance has {sizes} rows; need one array per story, of {[s.stop - s.start for s in stories]}."
        )
    left = np.empty(values.shape, dtype=np.float32)
    for story, own in zip(stories, nuisance, strict=True):
        regressors = np.column_stack([np.ones(story.stop - story.start), np.asarray(own, dtype=np.float64)])
        # least squares and not a projection by QR: confounds are often dependent, and a QR would divide by nothing
        weights = np.linalg.lstsq(regressors, values[story], rcond=None)[0]
        left[story] = values[story] - regressors @ weights
    return left


@dataclass(frozen=True, eq=False)
class _Lags:
    """The pairs of a read-out and an earlier event within reach, in the layout of a sparse matrix by rows."""

    lags_s: FloatArray
    columns: IntArray
    row_starts: IntArray
    n_times: int

    @classmethod
    def between(cls, times_s: FloatArray, read_s: FloatArray, reach_s: float) -> _Lags:
        """times_s in increasing order: what a read-out reaches is then one stretch of them."""
        first, last = np.searchsorted(times_s, read_s - reach_s), np.searchsorted(times_s, read_s, side="right")
        row_starts = np.concatenate([[0], np.cumsum(last - first)])
        # columns count on from `first` within every row: a running number less what came before the row
        columns = np.arange(row_starts[-1]) + np.repeat(first - row_starts[:-1], last - first)
        lags_s = np.repeat(read_s, last - first) - times_s[columns]
        return cls(lags_s, columns, row_starts, len(times_s))

    def sum_up(self, h: Callable[[FloatArray], FloatArray], values: FloatArray) -> Float32Array:
        """Sum of h(lag) times value for every read-out."""
        from scipy.sparse import csr_array

        shape = (len(self.row_starts) - 1, self.n_times)
        matrix = csr_array((h(self.lags_s), self.columns, self.row_starts), shape=shape)
        return np.asarray(matrix @ values, dtype=np.float32)


def _check(values: FloatArray, times_s: FloatArray, read_s: FloatArray) -> None:
    if values.ndim != 2 or times_s.shape != values.shape[:1] or read_s.ndim != 1:
        raise ValueError(
            f"values have shape {values.shape}, times {times_s.shape} and read-outs {read_s.shape}; need"
            " (n_times, n_features), (n_times,) and (n_rows,)."
        )
    for name, array in (("values", values), ("times_s", times_s), ("read_s", read_s)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} hold a value that is not finite; every event needs a time and numbers.")


# --- A band in the forms that its temporal choice asks for ---


def parts_of(temporal: Temporal) -> tuple[TemporalPart, ...]:
    """The parts that a band of this choice is made of.

    Raises
    ------
    ValueError
        If there is no such choice.

    >>> parts_of("hrf_derivatives")
    ('hrf', 'derivatives')
    """
    if temporal not in PARTS:
        raise ValueError(f"there is no temporal {temporal!r}. {did_you_mean(str(temporal), PARTS)}")
    return PARTS[temporal]


DERIVATIVES_PRIOR: Mapping[TemporalPart, float] = {"hrf": 0.75, "derivatives": 0.25}
"""Shares of the prior variance under `hrf_derivatives`: most voxels answer nearly as the canonical response does."""


@dataclass(frozen=True, eq=False)
class TemporalBand:
    """One feature space in several temporal forms, which are one band of the ridge.

    It stands wherever an array of features per TR stands: it has a shape and a length, and rows are taken from it.

    Parameters
    ----------
    parts : mapping of 'hrf', 'derivatives', 'fir' to array of shape (n_trs, n_columns of the part)
        'fir' per TR as it is (the ridge delays it), the others as `haemodynamic_rows` has them (they get no delays).
    weights : mapping of part to float, optional
        Share of the band's prior variance that each part gets; made to sum to 1. None: the fixed ones, or, where 'fir'
        stands beside others, those that cross-validation chooses.
    is_delayed : bool
        Whether 'fir' holds its delays already, side by side: where delays reach back over the border of a span, or a
        filter came after them.
    keeps_scale : bool
        Whether columns keep their variances, instead of getting one each: for spaces whose distances mean something.

    Raises
    ------
    ValueError
        If a part is unknown, parts differ in rows, or weights are negative, all 0 or of other parts.
    """

    parts: Mapping[TemporalPart, Array]
    weights: Mapping[TemporalPart, float] | None = None
    is_delayed: bool = False
    keeps_scale: bool = False

    def __post_init__(self) -> None:
        arrays = {name: np.asarray(X) for name, X in self.parts.items()}
        for name in arrays:
            if name not in get_args(TemporalPart):
                raise ValueError(f"there is no temporal part {name!r}. {did_you_mean(name, get_args(TemporalPart))}")
        shapes = [X.shape for X in arrays.values()]
        if not shapes or any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
            raise ValueError(f"parts have shapes {shapes}; need (n_trs, n_columns), with the same rows in all.")
        object.__setattr__(self, "parts", {name: arrays[name] for name in get_args(TemporalPart) if name in arrays})
        if self.weights is not None:
            object.__setattr__(self, "weights", _checked_weights(self.weights, tuple(self.parts)))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and columns of all parts."""
        return len(self), sum(X.shape[1] for X in self.parts.values())

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __getitem__(self, rows: slice | npt.NDArray[np.bool_] | IntArray) -> TemporalBand:
        """The same for some rows."""
        return self.changed(lambda X: X[rows])

    @property
    def prior(self) -> Mapping[TemporalPart, float]:
        """The weight of every part that has one.

        Raises
        ------
        ValueError
            If they are still to be chosen.
        """
        if self.is_open:
            raise ValueError(
                f"the weights of the parts {', '.join(self.parts)} are not chosen yet; `choose_weights` chooses them."
            )
        fixed = DERIVATIVES_PRIOR if len(self.parts) > 1 else dict.fromkeys(self.parts, 1.0)
        return {name: share for name, share in (self.weights or fixed).items() if share > 0}

    @property
    def is_open(self) -> bool:
        """Whether weights are still to be chosen: where 'fir' stands beside other parts."""
        return self.weights is None and "fir" in self.parts and len(self.parts) > 1

    def changed(self, change: Callable[[Array], Array]) -> TemporalBand:
        """The band with every part changed."""
        return replace(self, parts={name: change(X) for name, X in self.parts.items()})

    def used_parts(self) -> TemporalBand:
        """The band without the parts that have no weight."""
        return replace(self, parts={name: self.parts[name] for name in self.prior}, weights=self.prior)

    def only(self, part: TemporalPart) -> TemporalBand:
        """The band of one of its parts."""
        return replace(self, parts={part: self.parts[part]}, weights=None)

    def delays(self, part: TemporalPart, delays_trs: Sequence[int]) -> tuple[int, ...]:
        """The delays that a part still gets: what was convolved comes late already."""
        return tuple(delays_trs) if part == "fir" and not self.is_delayed else (0,)


Band = Array | TemporalBand
"""What a probe takes as features: an array per TR, which it delays, or a band in several temporal forms."""


def as_band(X: Band | npt.ArrayLike) -> TemporalBand:
    """A plain array is a band whose only part is delayed."""
    return X if isinstance(X, TemporalBand) else TemporalBand({"fir": np.asarray(X)})


def n_delayed(band: Band, delays_trs: Sequence[int]) -> int:
    """Columns of a band once its parts are delayed."""
    form = as_band(band)
    return sum(X.shape[1] * len(form.delays(name, delays_trs)) for name, X in form.parts.items())


def _checked_weights(
    weights: Mapping[TemporalPart, float], parts: tuple[TemporalPart, ...]
) -> dict[TemporalPart, float]:
    values = {name: float(weights.get(name, 0.0)) for name in parts}
    whole = sum(values.values())
    if set(weights) - set(parts) or min(values.values()) < 0 or not (np.isfinite(whole) and whole > 0):
        raise ValueError(
            f"weights are {dict(weights)} for the parts {', '.join(parts)}; need a share of the prior variance for"
            " parts that are there, none negative and not all 0."
        )
    return {name: value / whole for name, value in values.items()}
