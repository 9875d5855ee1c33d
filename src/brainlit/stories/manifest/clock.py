"""When the rows of the responses to each story of a manifest happened, in seconds of its sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from brainlit.stories.manifest.keys import ManifestError, filled
from brainlit.stories.manifest.schema import Manifest
from brainlit.stories.readers.runs import RunFinder
from brainlit.stories.readers.tables import read_table
from brainlit.timebase import TimeBase


class Clocks:
    """The clock of every story.

    Parameters
    ----------
    finder : RunFinder
        Asked for the first run of a story, where the manifest leaves TR or number of rows to the files.
    where : Path
        The manifest's file, for messages.
    """

    def __init__(self, manifest: Manifest, finder: RunFinder, where: Path) -> None:
        self.manifest, self.finder, self.where = manifest, finder, where
        self._n_trs_of: dict[str, int] = {}

    def first_volume_s(self, story: str) -> float:
        """When row 0 of the response file starts, in seconds of the audio file."""
        spec = self.manifest.stories[story]
        return float(self._tr_starts(spec.tr_starts, story)[0]) if spec.tr_starts else float(spec.onset_s or 0.0)

    def _tr_starts(self, pattern: str, story: str) -> npt.NDArray[Any]:
        return read_table(self._path(pattern, story)).values[:, 0]

    def timebase(self, story: str) -> TimeBase:
        """When each row that is used happened.

        Raises
        ------
        ManifestError
            If the rows do not suffice, or the table of row starts is no clock.
        """
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

    def tr_s(self, story: str) -> float:
        """Repetition time as the manifest says it, or else the first run."""
        tr_s = self.manifest.stories[story].tr_s
        if tr_s is None:
            run = self.finder.first_run(story)
            tr_s = run.tr_s()
            if tr_s is None:
                raise ManifestError(f"{self.where}: stories.{story}: 'tr_s' is missing, and {run.files[0]} says none.")
        return tr_s

    def _path(self, pattern: str, story: str) -> Path:
        return self.manifest.root / filled(pattern, story=story)
