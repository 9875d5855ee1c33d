"""Responses to the stories of a manifest: read from their files, put on the clock, cleaned, one run at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.stories.base import Float32Array, FloatArray, SubjectLeftOut
from brainlit.stories.manifest.clock import Clocks
from brainlit.stories.manifest.keys import ManifestError
from brainlit.stories.manifest.schema import Manifest
from brainlit.stories.readers.cleaning import CleaningError, clean_series, read_confounds
from brainlit.stories.readers.runs import Run, RunFinder
from brainlit.stories.readers.tables import Table

log = logging.getLogger(__name__)

_SAME_TR = 0.01


class ResponseReader:
    """Reads and cleans single runs.

    Parameters
    ----------
    where : Path
        The manifest's file, for messages.
    """

    def __init__(self, manifest: Manifest, finder: RunFinder, clocks: Clocks, where: Path) -> None:
        self.manifest, self.finder, self.clocks, self.where = manifest, finder, clocks, where
        self._n_columns_of: dict[str, tuple[int, Path]] = {}

    def first_usable(self, subject: str) -> tuple[Run, Table]:
        """The first run of a subject and its values, if any story has a usable column.

        Raises
        ------
        SubjectLeftOut
            If none has.
        """
        first: tuple[Run, Table] | None = None
        for story in self.finder.heard(subject):
            run = self.finder.runs(subject, story)[0]
            table = self._read(subject, run)
            first = first or (run, table)
            if np.isfinite(self._clean(story, run, table)).any():
                return first
        if first is None:
            raise SubjectLeftOut("no story was heard")
        raise SubjectLeftOut(f"every column is constant or holds NaN (see {first[0].files[0].name})")

    def _read(self, subject: str, run: Run) -> Table:
        table = run.read(self.finder.mask(subject))
        n_columns, file = self._n_columns_of.setdefault(subject, (table.values.shape[1], run.files[0]))
        if table.values.shape[1] != n_columns:
            raise ManifestError(
                f"{self.where}: {run.files[0]} has {table.values.shape[1]} columns, but {file} has {n_columns}. All"
                f" runs of {subject} need the same columns."
            )
        return table

    def cleaned(self, subject: str, story: str, run: Run) -> Float32Array:
        """Responses of one presentation, (n_trs, n_columns), as the manifest wants them cleaned; z-scored."""
        return self._clean(story, run, self._read(subject, run))

    def _clean(self, story: str, run: Run, table: Table) -> Float32Array:
        said, tr_s = self.manifest.responses, self.clocks.tr_s(story)
        self._require_same_tr(story, run, tr_s)
        rows = self._rows(story, run, table)
        try:
            confounds = None if run.confounds is None else self._confounds(run, len(table.values))[rows]
            return clean_series(table.values[rows], tr_s, said.high_pass_s, said.low_pass_s, confounds)
        except CleaningError as error:
            raise ManifestError(f"{run.files[0]}: {error}") from error

    def _rows(self, story: str, run: Run, table: Table) -> slice:
        """The rows that are used."""
        spec, n_trs, n_rows = self.manifest.stories[story], self.clocks.n_trs(story), len(table.values)
        first = spec.volumes_discarded
        if n_rows < first + n_trs or (spec.n_trs is None and n_rows != first + n_trs):
            turned = " Its columns would fit: is it transposed?" if table.values.shape[1] == first + n_trs else ""
            discarded = f" after {first} that are discarded" if first else ""
            raise ManifestError(
                f"{self.where}: {run.files[0]} has {n_rows} rows, but {story!r} has {n_trs} TRs{discarded}.{turned}"
                f" Rows are volumes; where runs differ in length, n_trs in stories.{story} cuts all to one."
            )
        return slice(first, first + n_trs)

    def _confounds(self, run: Run, n_rows: int) -> FloatArray:
        said = self.manifest.responses.confounds
        assert said is not None
        assert run.confounds is not None
        confounds = read_confounds(run.confounds, said.columns)
        if len(confounds) != n_rows:
            raise ManifestError(
                f"{run.confounds} has {len(confounds)} rows, but {run.files[0]} has {n_rows}. They must be one run."
            )
        return confounds

    def _require_same_tr(self, story: str, run: Run, tr_s: float) -> None:
        theirs = run.tr_s()
        if theirs is None or abs(theirs - tr_s) <= _SAME_TR * tr_s:
            return
        if run.sidecar is None:  # headers are often wrong
            log.warning("%s: its header says a TR of %g s; %s uses %g s.", run.files[0], theirs, story, tr_s)
            return
        raise ManifestError(
            f"{self.where}: {run.sidecar} says a repetition time of {theirs} s, but {story!r} has {tr_s} s. Correct"
            " tr_s, or leave it out."
        )


class Presentations(Sequence[Float32Array]):
    """Presentations of a story to a subject, each read and cleaned when asked for."""

    def __init__(self, reader: ResponseReader, subject: str, story: str, runs: Sequence[Run]) -> None:
        self._reader, self._subject, self._story, self._runs = reader, subject, story, runs

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        return self._reader.cleaned(self._subject, self._story, self._runs[index])
