"""Responses to the stories of a manifest: when their rows happened, and single runs, read and cleaned."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.stories.base import Float32Array, SubjectLeftOut
from brainlit.stories.manifest.schema import ManifestError, filled
from brainlit.stories.readers.bids import repetition_time_s, slice_reference
from brainlit.stories.readers.cleaning import CleaningError, ConfoundPatterns, clean_series, read_run_confounds
from brainlit.stories.readers.images import VoxelMask
from brainlit.stories.readers.runs import Run, RunFinder
from brainlit.stories.readers.tables import Table, read_table
from brainlit.timebase import TimeBase

log = logging.getLogger(__name__)

_SAME_TR = 0.01
_SAME_MOMENT = 0.1
MIDDLE = 0.5
_FITS, _FAR_OFF = 0.1, 0.5
"""Another axis fits the sound if it ends within this part of it; rows are far off below this part of it."""


class Clocks:
    """The clock of every story.

    Parameters
    ----------
    finder : RunFinder
        Asked for the first run of a story, where the manifest leaves TR or number of rows to the files.
    """

    def __init__(self, finder: RunFinder) -> None:
        self.finder, self.manifest, self.where = finder, finder.manifest, finder.where
        self._n_trs_of: dict[str, int] = {}

    def first_volume_s(self, story: str) -> float:
        """When row 0 of the response file starts, in seconds of the audio file."""
        spec = self.manifest.stories[story]
        return float(self._tr_starts(spec.tr_starts, story)[0]) if spec.tr_starts else float(spec.onset_s or 0.0)

    def _tr_starts(self, pattern: str, story: str) -> npt.NDArray[Any]:
        return read_table(self._path(pattern, story)).values[:, 0]

    def timebase(self, story: str) -> TimeBase:
        """When each row that is used happened; refuses tables of row starts that are no clock, and too few rows."""
        spec, n_trs, tr_s = self.manifest.stories[story], self.n_trs(story), self.tr_s(story)
        first = spec.volumes_discarded
        try:
            if spec.tr_starts is None:
                return TimeBase.regular(n_trs, tr_s, float(spec.onset_s or 0.0) + first * tr_s)
            return TimeBase(self._tr_starts(spec.tr_starts, story)[first : first + n_trs], tr_s)
        except ValueError as error:
            file = f"{self.where}: stories.{story}" if spec.tr_starts is None else self._path(spec.tr_starts, story)
            raise ManifestError(f"{file}: {error}") from error

    def n_trs(self, story: str) -> int:
        """Rows that are used: as the manifest says, as the table of row starts has, or as the first run has."""
        if story not in self._n_trs_of:
            spec, run = self.manifest.stories[story], self.finder.first_run(story)
            n_rows = run.n_rows() if spec.tr_starts is None else len(self._tr_starts(spec.tr_starts, story))
            left = n_rows - spec.volumes_discarded
            if left < (spec.n_trs or 1):
                file = run.files[0] if spec.tr_starts is None else self._path(spec.tr_starts, story)
                raise ManifestError(
                    f"{self.where}: {file} has {n_rows} rows; with volumes_discarded {spec.volumes_discarded} there are"
                    f" not {spec.n_trs or 1} left for {story!r}. Check volumes_discarded and n_trs."
                )
            self._n_trs_of[story] = spec.n_trs or left
        return self._n_trs_of[story]

    def require_rows_are_volumes(self, story: str, sound_s: float) -> None:
        """Refuse a table whose rows fall far short of the sound, or go far beyond it, while another axis fits it."""
        spec, run = self.manifest.stories[story], self.finder.first_run(story)
        if spec.n_trs is not None or spec.tr_starts is not None or run.is_image:
            return
        shape, tr_s = run.whole_shape(), self.tr_s(story)
        ends_s = [float(spec.onset_s or 0.0) + n * tr_s for n in shape]
        rows_s = ends_s[-2]
        fits = [abs(end_s - sound_s) <= _FITS * sound_s for end_s in ends_s]
        if not _FAR_OFF * sound_s <= rows_s <= sound_s / _FAR_OFF and any(fits):
            n = shape[fits.index(True)]
            raise ManifestError(
                f"{self.where}: {run.files[0]} has {shape[-2]} rows, which end at {rows_s:g} s, but the sound of"
                f" {story!r} lasts {sound_s:g} s, as {n} volumes would: is it transposed? Its shape is {shape}; need"
                " (rows, columns) or (repeats, rows, columns), a row per volume. If columns stand before rows, say"
                f" responses.transposed: {str(not run.transposed).lower()}; if the rows are right, say n_trs."
            )

    def tr_s(self, story: str) -> float:
        """Repetition time as the manifest says it, or else the first run."""
        tr_s = self.manifest.stories[story].tr_s
        if tr_s is None:
            run = self.finder.first_run(story)
            tr_s, says = run.tr()
            if tr_s is None:
                raise ManifestError(
                    f"{self.where}: stories.{story}: give tr_s, the seconds from volume to volume: {run.files[0]}"
                    f" {says}, and no JSON beside it has a RepetitionTime."
                )
        return tr_s

    def slice_reference(self, story: str, run: Run) -> float:
        """Part of the TR that the values of a run's volumes belong to: as its JSON says it, or else the middle."""
        found = slice_reference(run.sidecars, self.tr_s(story)) if run.sidecars else None
        return MIDDLE if found is None else found

    @cached_property
    def first_slice_reference(self) -> float:
        """That of the first run of the first story, which stands for all."""
        story = next(iter(self.manifest.stories))
        return self.slice_reference(story, self.finder.first_run(story))

    def _path(self, pattern: str, story: str) -> Path:
        return self.manifest.root / filled(pattern, **self.manifest.told(story))


def _other_columns(left: Table, right: Table) -> bool:
    """Whether two files of one subject say that their columns differ; one mask is that of all volumes."""
    named = None not in (left.columns, right.columns) and left.columns != right.columns
    placed = not isinstance(left.places, (VoxelMask, type(None))) and left.places != right.places
    return named or bool(placed)


class ResponseReader:
    """Reads and cleans single runs."""

    def __init__(self, finder: RunFinder) -> None:
        self.finder, self.manifest, self.where = finder, finder.manifest, finder.where
        self.clocks = Clocks(finder)
        self._patterns = ConfoundPatterns(finder.confound_tables)
        self._first_of: dict[str, tuple[Table, Path]] = {}

    def first_usable(self, subject: str) -> tuple[Run, Table]:
        """The first run of a subject and a row of it; SubjectLeftOut if no story has a usable column."""
        first: tuple[Run, Table] | None = None
        for story in self.finder.heard(subject):
            run = self.finder.runs(subject, story)[0]
            table = self._read(subject, story, run)
            first = first or (run, self._first_of[subject][0])
            if np.isfinite(self._clean(story, run, table)).any():
                return first
        if first is None:
            raise SubjectLeftOut("no story was heard")
        raise SubjectLeftOut(f"every column is constant or holds NaN (see {first[0].files[0].name})")

    def _read(self, subject: str, story: str, run: Run) -> Table:
        if run.has_header:  # nothing is unpacked that will not fit
            self._rows(story, run, run.shape())
        table = run.read(self.finder.mask(subject))
        n_columns = table.values.shape[1]
        one_row = Table(table.values[:1].copy(), table.columns, table.places)
        first, file = self._first_of.setdefault(subject, (one_row, run.files[0]))
        if n_columns != first.values.shape[1]:
            raise ManifestError(
                f"{self.where}: {run.files[0]} has {n_columns} columns, but {file} has {first.values.shape[1]}. All"
                f" runs of {subject} need the same columns."
            )
        if _other_columns(table, first):
            raise ManifestError(
                f"{self.where}: {run.files[0]} has as many columns as {file}, but others, or in another order. All runs"
                f" of {subject} need the same columns."
            )
        return table

    def cleaned(self, subject: str, story: str, run: Run) -> Float32Array:
        """Responses of one presentation, (n_trs, n_columns), as the manifest wants them cleaned; z-scored."""
        return self._clean(story, run, self._read(subject, story, run))

    def _clean(self, story: str, run: Run, table: Table) -> Float32Array:
        said, tr_s = self.manifest.responses, self.clocks.tr_s(story)
        self._require_same_tr(story, run, tr_s)
        self._require_same_moment(story, run)
        rows = self._rows(story, run, table.values.shape)
        try:
            confounds = None
            if said.confounds is not None and run.confounds is not None:
                names, n_volumes = said.confounds.columns, len(table.values)
                confounds = read_run_confounds(run.confounds, names, run.files[0], n_volumes, self._patterns)[rows]
            return clean_series(table.values[rows], tr_s, said.high_pass_s, said.low_pass_s, confounds)
        except CleaningError as error:
            raise ManifestError(f"{run.files[0]}: {error}") from error

    def _rows(self, story: str, run: Run, shape: tuple[int, ...]) -> slice:
        """The rows that are used, of a run of this shape."""
        spec, n_trs, n_rows = self.manifest.stories[story], self.clocks.n_trs(story), shape[0]
        first = spec.volumes_discarded
        if n_rows < first + n_trs or (spec.n_trs is None and n_rows != first + n_trs):
            turned = " Its columns would fit: is it transposed?" if shape[1:] == (first + n_trs,) else ""
            discarded = f" after {first} that are discarded" if first else ""
            raise ManifestError(
                f"{self.where}: {run.files[0]} has {n_rows} rows, but {story!r} has {n_trs} TRs{discarded}.{turned}"
                f" Rows are volumes; where runs differ in length, n_trs in stories.{story} cuts all to one."
            )
        return slice(first, first + n_trs)

    def _require_same_moment(self, story: str, run: Run) -> None:
        """One moment of a volume holds for the whole data set."""
        if self.manifest.responses.slice_reference is None and run.sidecars:
            theirs, first = self.clocks.slice_reference(story, run), self.clocks.first_slice_reference
            if abs(theirs - first) > _SAME_MOMENT:
                raise ManifestError(
                    f"{self.where}: {run.sidecars[0]} says that values belong to {theirs:.2f} of the TR, but the first"
                    f" run has {first:.2f}. Process all runs alike, or give responses.slice_reference."
                )

    def _require_same_tr(self, story: str, run: Run, tr_s: float) -> None:
        theirs, _ = run.tr()
        if theirs is None or abs(theirs - tr_s) <= _SAME_TR * tr_s:
            return
        in_json = repetition_time_s(run.sidecars) is not None
        if not in_json and self.manifest.stories[story].tr_s is not None:  # headers are often wrong
            log.warning("%s: its header says a TR of %g s; %s uses %g s.", run.files[0], theirs, story, tr_s)
            return
        where = run.sidecars[0] if in_json else run.files[0]
        raise ManifestError(
            f"{self.where}: {where} says a repetition time of {theirs} s, but {story!r} has {tr_s} s. Correct tr_s, or"
            " the file; a story has one TR."
        )
