"""What responses were filtered by over time, so that features can pass the same.

Drift is taken out of responses before anyone fits them, by a polynomial and cosines or by what a Savitzky-Golay
smoother follows. A feature that keeps its drift spends weights on what the responses no longer hold, so whatever is
known of a data set's filter is stated by its source, kept in the store, and applied to features story by story.

Time is counted in rows, as all of these filters do: an irregular clock has no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.hints import did_you_mean
from brainlit.timebase import FloatArray

_ROUNDING = 1e-10
"""Directions of a basis this much weaker than its strongest are rounding: slow cosines nearly repeat a trend."""


@dataclass(frozen=True)
class ResponseFilter:
    """What was taken out of the responses to a story over time, in this order: Savitzky-Golay, then trend and cosines.

    Parameters
    ----------
    polynomial : int
        Order of the trend; 0 takes out the mean only, which always goes.
    high_pass_s : float or None
        Cosines (discrete cosine transform over the whole recording) with periods of this many seconds and more.
    savgol : (window_s, order) or None
        What a Savitzky-Golay smoother of this window follows. Its rows are the next odd number.
    trimmed_trs : (int, int)
        Rows that were filtered too and then cut off at the start and the end.
    standardised : bool
        Whether the rows were z-scored afterwards, story by story.
    source : str
        How this is known, in words.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    polynomial: int = 0
    high_pass_s: float | None = None
    savgol: tuple[float, int] | None = None
    trimmed_trs: tuple[int, int] = (0, 0)
    standardised: bool = True
    source: str = ""

    def __post_init__(self) -> None:
        if not (_is_count(self.polynomial) and self.polynomial <= 10):
            raise ValueError(f"polynomial is {self.polynomial!r}; give the order of a trend, 0 (the mean) to 10.")
        if self.high_pass_s is not None and not (np.isfinite(self.high_pass_s) and self.high_pass_s > 0):
            raise ValueError(f"high_pass_s is {self.high_pass_s}; give seconds above 0, or null for no cosines.")
        if self.savgol is not None:
            window_s, order = _pair("savgol", self.savgol, "[window_s, order]")
            if not (np.isfinite(window_s) and window_s > 0 and _is_count(order)):
                raise ValueError(f"savgol is {self.savgol!r}; give [window_s, order], such as [120.0, 2].")
            object.__setattr__(self, "savgol", (float(window_s), int(order)))
        trimmed = _pair("trimmed_trs", self.trimmed_trs, "[rows at the start, rows at the end]")
        if not all(map(_is_count, trimmed)):
            raise ValueError(f"trimmed_trs is {self.trimmed_trs!r}; give two whole numbers, 0 or more.")
        object.__setattr__(self, "trimmed_trs", (int(trimmed[0]), int(trimmed[1])))

    def apply(self, rows: npt.ArrayLike, tr_s: float, first_tr: int = 0, n_trs: int | None = None) -> FloatArray:
        """Rows of one story as the responses were filtered; not z-scored.

        Trend and cosines are those of the whole recording, with the rows that were trimmed; in the rows that are there
        they are fitted by least squares. The smoother runs over the rows that are there, and fits one polynomial to the
        half window at either end (scipy's `interp`); to fewer rows than a window it fits one polynomial in all.

        Parameters
        ----------
        rows : array of shape (n_rows, n_columns)
        tr_s : float
            Seconds from row to row.
        first_tr : int
            Row of the story (after trimming) that the first of them is.
        n_trs : int, optional
            Rows of the story after trimming; None: it ends with these rows.

        Returns
        -------
        float64 array of shape (n_rows, n_columns)
            Every column with mean 0.

        Raises
        ------
        ValueError
            If rows hold a value that is not finite, are not rows of such a story, or so few that nothing is left.
        """
        values = np.asarray(rows, dtype=np.float64)
        n_story = first_tr + len(values) if n_trs is None and values.ndim else n_trs or 0
        _check(values, tr_s, first_tr, n_story)
        if self.savgol is not None:
            values = values - self._followed(values, tr_s)
        basis = _basis(self, len(values), float(tr_s), int(first_tr), int(n_story))
        return np.asarray(values - basis @ (basis.T @ values))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse."""
        said = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in said.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ResponseFilter:
        """The filter of `to_json`, or of a mapping with some of its keys.

        Raises
        ------
        ValueError
            If a key is unknown or a value out of range.
        """
        known = [one.name for one in fields(cls)]
        for key in content:
            if key not in known:
                raise ValueError(f"{key!r} is no part of a response filter. {did_you_mean(key, known)}")
        try:
            return cls(**content)
        except TypeError as error:
            raise ValueError(f"{dict(content)!r} is no response filter: {error}.") from error

    @property
    def in_words(self) -> str:
        """What reports say of it.

        >>> ResponseFilter(polynomial=2, high_pass_s=128.0, source="the authors").in_words
        'without a trend of order 2 and cosines of 128 s and more; z-scored per story (the authors)'
        """
        smoothed = [] if self.savgol is None else [
            f"what a Savitzky-Golay smoother of order {self.savgol[1]} over {self.savgol[0]:g} s follows"
        ]  # fmt: skip
        trend = [f"a trend of order {self.polynomial}"] if self.polynomial else []
        cosines = [] if self.high_pass_s is None else [f"cosines of {self.high_pass_s:g} s and more"]
        parts = [f"without {' and '.join([*smoothed, *trend, *cosines]) or 'their mean'}"]
        if any(self.trimmed_trs):
            parts.append(f"then {self.trimmed_trs[0]} rows cut off at the start and {self.trimmed_trs[1]} at the end")
        if self.standardised:
            parts.append("z-scored per story")
        return "; ".join(parts) + (f" ({self.source})" if self.source else "")

    def _followed(self, values: FloatArray, tr_s: float) -> FloatArray:
        from scipy.signal import savgol_filter

        window_s, order = self.savgol or (0.0, 0)
        n_window = 2 * int(np.ceil(max(window_s / tr_s - 1, 0) / 2 - 1e-9)) + 1
        if n_window > len(values):
            trend, _ = np.linalg.qr(_polynomials(np.linspace(-1, 1, len(values)), min(order, len(values) - 1)))
            return np.asarray(trend @ (trend.T @ values))
        return np.asarray(savgol_filter(values, n_window, min(order, n_window - 1), axis=0, mode="interp"))


def slow_cosines(n_trs: int, tr_s: float, high_pass_s: float) -> FloatArray:
    """Constant and cosines of the discrete cosine transform with periods of high_pass_s and more, (n_trs, n_slow).

    Cosine k has the period 2 n_trs tr_s / k, so k runs to 2 n_trs tr_s / high_pass_s (the set of SPM), and never to
    more than a recording of n_trs rows can tell from a line.
    """
    n_cosines = int(max(min(2 * n_trs * tr_s / high_pass_s, n_trs - 2), 0))
    t = (2 * np.arange(n_trs) + 1) / (2 * n_trs)
    return np.asarray(np.cos(np.pi * np.outer(t, np.arange(n_cosines + 1))))


@lru_cache(maxsize=64)
def _basis(passed: ResponseFilter, n_rows: int, tr_s: float, first_tr: int, n_trs: int) -> FloatArray:
    """Orthonormal basis of trend and cosines of the whole recording in the rows that are there, (n_rows, n_out)."""
    before, after = passed.trimmed_trs
    n_whole = before + n_trs + after
    here = slice(before + first_tr, before + first_tr + n_rows)
    columns = _polynomials((2 * np.arange(n_whole) + 1 - n_whole) / n_whole, passed.polynomial)
    if passed.high_pass_s is not None:
        columns = np.concatenate([columns, slow_cosines(n_whole, tr_s, passed.high_pass_s)], axis=1)
    columns = columns[here] / np.linalg.norm(columns[here], axis=0).clip(min=_ROUNDING)
    left, strength, _ = np.linalg.svd(columns, full_matrices=False)
    basis = left[:, strength > _ROUNDING * strength[0]]
    if basis.shape[1] >= n_rows:
        raise ValueError(
            f"{n_rows} rows of {tr_s:g} s are as few as the {basis.shape[1]} that the responses' filter takes out of"
            f" them (polynomial {passed.polynomial}, high_pass_s {passed.high_pass_s}): nothing is left. Use longer"
            " stretches of the story, or switch the filter off."
        )
    return np.asarray(basis)


def _polynomials(t: FloatArray, order: int) -> FloatArray:
    """Legendre polynomials, which least squares tells apart better than powers: (n, order + 1)."""
    return np.asarray(np.polynomial.legendre.legvander(t, order))


def _check(values: FloatArray, tr_s: float, first_tr: int, n_trs: int) -> None:
    if values.ndim != 2 or not len(values):
        raise ValueError(f"rows have shape {values.shape}; need (n_rows, n_columns) with a row or more.")
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values).all(axis=0))
        raise ValueError(
            f"{len(bad)} of {values.shape[1]} columns hold NaN or infinite values, such as column {bad[0]}."
        )
    if not (np.isfinite(tr_s) and tr_s > 0):
        raise ValueError(f"tr_s is {tr_s}; a repetition time is a positive number of seconds.")
    if first_tr < 0 or first_tr + len(values) > n_trs:
        raise ValueError(f"rows {first_tr} to {first_tr + len(values) - 1} are not all inside a story of {n_trs} rows.")


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= 0


def _pair(name: str, value: Any, what: str) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name} is {value!r}; give {what}.")
    return value[0], value[1]
