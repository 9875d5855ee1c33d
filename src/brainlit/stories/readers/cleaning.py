"""From scanner units to z-scores: drift, fast noise and confounds are regressed out together, column by column."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from brainlit.hints import did_you_mean
from brainlit.stories.base import Float32Array, FloatArray, SourceError
from brainlit.stories.readers.tables import float_or_nan, read_cells
from brainlit.stories.response_filter import ResponseFilter, slow_cosines

log = logging.getLogger(__name__)

_COLUMNS_AT_ONCE = 16_384  # float64 copies of a whole brain would take several times its size
_ROUNDING = 1e-7  # the files hold float32
_MISSING = ("", "n/a", "nan")
_FMRIPREP_CUTOFF_S = 128.0
_WILD = set("*?[")


class CleaningError(SourceError):
    """Confounds or filters that do not fit the responses; the message names file, place, cause and cure."""


def clean_series(
    values: Float32Array | FloatArray,
    tr_s: float,
    high_pass_s: float | None = 128.0,
    low_pass_s: float | None = None,
    confounds: FloatArray | None = None,
) -> Float32Array:
    """Take drift, fast noise and confounds out of each column, then z-score it over time; (n_trs, n_columns).

    One regression on cosines, a line and the confounds, so that no step puts back what another took out (Lindquist et
    al. 2019, doi:10.1002/hbm.24528). `nilearn.signal.clean` does it; its own cosine filter gives the same, but drops
    the drift where confounds already hold cosines, as fMRIPrep's do, so drift goes in as regressors. Cosine k of the
    discrete cosine transform has the period 2 n_trs tr_s / k.

    Parameters
    ----------
    values : array of shape (n_trs, n_columns)
        Any units. Columns that hold a NaN, are constant, or of which nothing but rounding remains come back as NaN.
    tr_s : float
        Seconds from row to row.
    high_pass_s : float or None
        Periods of this many seconds and more are drift; None takes out the mean only.
    low_pass_s : float or None
        Periods below this many seconds are noise; None keeps them.
    confounds : array of shape (n_trs, n_confounds), optional
        Finite; constant columns change nothing.

    Raises
    ------
    CleaningError
        If the confounds have other rows or a NaN, or nothing remains.
    """
    from nilearn.signal import clean

    basis = _nuisance_basis(len(values), tr_s, high_pass_s, low_pass_s, confounds)
    cleaned = np.full(values.shape, np.nan, dtype=np.float32)
    usable = np.flatnonzero(np.isfinite(values).all(axis=0))
    for first in range(0, len(usable), _COLUMNS_AT_ONCE):
        columns = usable[first : first + _COLUMNS_AT_ONCE]
        raw = np.asarray(values[:, columns], dtype=np.float64)
        residual = clean(raw, confounds=basis, detrend=False, filter=False, standardize=None) if basis.size else raw
        remains = residual.std(axis=0) > _ROUNDING * np.abs(raw).max(axis=0)
        cleaned[:, columns] = np.where(remains, zscore(residual), np.nan)
    return cleaned


class ConfoundPatterns:
    """Names with '*' that a data set has in some of its runs only, such as motion_outlier* where nobody moved.

    Parameters
    ----------
    tables : callable
        Gives all tables of confounds of the data set; asked for when a pattern matches nothing in one of them.
    """

    def __init__(self, tables: Callable[[], Iterable[Path]]) -> None:
        self._tables, self._known = tables, dict[str, bool]()

    def may_be_empty(self, name: str, path: Path) -> bool:
        """Whether a name that matches no column of a table is a pattern that matches one of another; says so once."""
        if name not in self._known:
            others = (other for other in self._tables() if other != path and other.is_file())
            self._known[name] = bool(_WILD & set(name)) and any(
                fnmatchcase(column, name) for other in others for column in _header(other)
            )
            if self._known[name]:
                log.warning("confounds: runs without a column %s (%s is the first) have none of them.", name, path)
        return self._known[name]


def _header(path: Path) -> list[str]:
    rows = read_cells(path, "\t", CleaningError)
    return rows[0][1] if rows else []


def read_confounds(path: Path, names: Sequence[str], patterns: ConfoundPatterns | None = None) -> FloatArray:
    """Columns of an fMRIPrep confounds table, shape (n_trs, n_confounds), in the order of the names.

    Parameters
    ----------
    path : Path
        A `*_desc-confounds_timeseries.tsv` (https://fmriprep.org/en/stable/outputs.html#confounds): a header, then a
        row per volume, separated by tabs.
    names : sequence of str
        Names of columns; '*', '?' and '[..]' match as in file names ('trans_*' also takes derivatives and squares).
    patterns : ConfoundPatterns, optional
        Those that may match nothing here.

    Raises
    ------
    CleaningError
        If a name matches no column, or a cell is no number. Only 'n/a' in the first row counts as 0: derivatives have
        no value there.
    """
    rows = read_cells(path, "\t", CleaningError)
    if len(rows) < 2:
        raise CleaningError(f"{path} is no table with a header and rows. Is it the table of confounds?")
    header = rows.pop(0)[1]
    columns: dict[str, int] = {}
    for name in names:
        found = [k for k, column in enumerate(header) if fnmatchcase(column, name)]
        if not found and not (patterns and patterns.may_be_empty(name, path)):
            raise CleaningError(f"{path} has no column {name!r}. {did_you_mean(name, header)}")
        columns |= {header[k]: k for k in found}
    first = rows[0][0]
    cells = [[_number(path, line, line == first, row[k], name) for name, k in columns.items()] for line, row in rows]
    return np.array(cells, dtype=np.float64).reshape(len(rows), len(columns))


def cleaning_filter(high_pass_s: float | None, confounds: Sequence[str] = ()) -> ResponseFilter | None:
    """What `clean_series` takes out of responses that can be taken out of features too; None if that is not known.

    Confounds are each subject's own, and features those of a story that all hear; of fMRIPrep's, only its cosines
    (128 s) are the same for everyone.

    Parameters
    ----------
    high_pass_s : float or None
        As in `clean_series`. None says that drift was removed before, in a way that is not known.
    confounds : sequence of str
        Names of the columns that are regressed out, as in `read_confounds`.
    """
    cosines = [_FMRIPREP_CUTOFF_S] * any(fnmatchcase("cosine00", name) for name in confounds)
    periods_s = [*cosines, *([] if high_pass_s is None else [high_pass_s])]
    if not periods_s:
        return None
    own = "; its confounds are each subject's own and stay in features" if confounds else ""
    return ResponseFilter(0 if high_pass_s is None else 1, min(periods_s), source=f"cleaned by brainlit{own}")


def read_run_confounds(
    path: Path, names: Sequence[str], run: Path, n_volumes: int, patterns: ConfoundPatterns | None = None
) -> FloatArray:
    """As `read_confounds`, and the table must have as many rows as the run has volumes."""
    confounds = read_confounds(path, names, patterns)
    if len(confounds) != n_volumes:
        raise CleaningError(
            f"{path} has {len(confounds)} rows, but {run} has {n_volumes} volumes. Take the run's own table."
        )
    return confounds


def zscore(values: FloatArray) -> FloatArray:
    """Each column at mean 0 and standard deviation 1 over time; constant columns and those with a NaN become NaN.

    >>> zscore(np.array([[0.0, 5.0], [2.0, 5.0]])).tolist()
    [[-1.0, nan], [1.0, nan]]
    """
    varies = values.max(axis=0) > values.min(axis=0)
    scale = np.where(varies, values.std(axis=0), np.nan)
    return np.asarray((values - values.mean(axis=0)) / scale)


def drift_basis(n_trs: int, tr_s: float, high_pass_s: float) -> FloatArray:
    """Orthonormal constant, straight line and cosines with periods of high_pass_s and more, shape (n_trs, n_slow).

    The line is what is left of a trend in a recording too short for any cosine.
    """
    t = (2 * np.arange(n_trs) + 1) / (2 * n_trs)
    return np.asarray(np.linalg.qr(np.column_stack([slow_cosines(n_trs, tr_s, high_pass_s), t]))[0])


def _nuisance_basis(
    n_trs: int, tr_s: float, high_pass_s: float | None, low_pass_s: float | None, confounds: FloatArray | None
) -> FloatArray:
    """Orthonormal basis of all that is taken out besides the mean, shape (n_trs, n_out); its columns have no mean."""
    parts = [np.zeros((n_trs, 0)) if high_pass_s is None else drift_basis(n_trs, tr_s, high_pass_s)]
    if confounds is not None:
        if confounds.ndim != 2 or len(confounds) != n_trs or not np.isfinite(confounds).all():
            raise CleaningError(f"confounds have shape {confounds.shape}, or a NaN; need {n_trs} finite rows.")
        parts.append(_unit(confounds - confounds.mean(axis=0)))
    if low_pass_s is not None:
        # Cosines with periods below low_pass_s; the slowest of them follows the last that is kept.
        fast = np.arange(int(min(2 * n_trs * tr_s / low_pass_s, n_trs)) + 1, n_trs)
        parts.append(_unit(np.cos(np.pi * np.outer(np.arange(n_trs) + 0.5, fast) / n_trs)))
    together = np.concatenate(parts, axis=1)
    left, strength, _ = np.linalg.svd(together - together.mean(axis=0), full_matrices=False)
    # Confounds may repeat the cosines or each other; what is left of a repetition is rounding and no direction.
    basis = left[:, strength > _ROUNDING * strength.max(initial=0.0)]
    if basis.shape[1] >= n_trs - 1:
        raise CleaningError(
            f"drift, fast noise and confounds together take all of {n_trs} rows out. Use fewer confounds, a longer"
            f" high_pass_s ({high_pass_s}) or a shorter low_pass_s ({low_pass_s})."
        )
    return np.asarray(basis)


def _unit(columns: FloatArray) -> FloatArray:
    """Columns at length 1; those that are constant are dropped."""
    length = np.linalg.norm(columns, axis=0)
    return np.asarray(columns[:, length > 0] / length[length > 0])


def _number(path: Path, line: int, is_first: bool, cell: str, name: str) -> float:
    if is_first and cell.lower() in _MISSING:
        return 0.0
    value = float_or_nan(cell)
    if not np.isfinite(value):
        raise CleaningError(f"{path}, line {line}: {name} is {cell!r}; need a number. Choose other confounds.")
    return value
