"""Pairs of predictions: two probes of one subject that share rows, voxels and responses, or a word on what differs.

A difference of means of two probes that do not share them is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainlit.encoding.arrays import BoolArray, FloatArray, IntArray
from brainlit.encoding.left_out import jackknife_variance
from brainlit.encoding.result import ProbeResult
from brainlit.hints import did_you_mean
from brainlit.results.record import ProbeRecord, load_record, record_files

SAME_RESPONSE = 0.9999
"""Correlation above which two columns are the same response: they may be scaled by other rows, never other numbers."""


class ProbesDifferError(ValueError):
    """Two probes that cannot be compared; the message names what differs."""


@dataclass(frozen=True, eq=False)
class ProbePair:
    """Responses and predictions of both probes for one subject, over the voxels that they used.

    Responses have norm 1 and predictions are in the same units: r and R2 do not change, and it does not matter that
    the two probes may have scaled their voxels by other fitted rows.

    Parameters
    ----------
    left_out : pair of mapping of 'r', 'r2' to array of shape (n_parts, n_used)
        Scores of A and B without each part of the fit stories in turn; empty where a probe does not have them.
    same_fit : bool
        Whether both were fitted on the same stories.
    overlap_factor : float
        How much wider intervals must be because the probes are over folds, which share fitted rows.
    """

    observed: FloatArray
    a: FloatArray
    b: FloatArray
    groups: IntArray
    regions: Mapping[str, BoolArray]
    n_stories: int
    left_out: tuple[Mapping[str, FloatArray], Mapping[str, FloatArray]] = ({}, {})
    same_fit: bool = True
    overlap_factor: float = 1.0

    @property
    def n_parts(self) -> int:
        """Parts of the fit stories that were left out in turn (the fewer, of two probes); 0 where one has none."""
        return min(len(own["r"]) if "r" in own else 0 for own in self.left_out)

    def fit_variance(self, metric: str, region: BoolArray | None = None) -> FloatArray:
        """Variance of A - B by the jackknife over fit stories: of every voxel, or of a region's mean (shape ()).

        Where both were fitted on the same stories, the same are left out of both.
        """
        a, b = (own[metric] if region is None else own[metric][:, region].mean(axis=1) for own in self.left_out)
        if self.same_fit and len(a) == len(b):
            return jackknife_variance(a - b)
        return jackknife_variance(a) + jackknife_variance(b)


def probe_files(path: Path) -> dict[str, Path]:
    """The record file of each subject: of the last epoch that was probed, where a run holds several.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    if path.is_file():
        return {load_record(path).subject: path}
    for folder in (path / "probes", path):
        found = record_files(folder)
        if found:
            return {file.parent.name: file for file in found if file.name == found[-1].name}
    raise FileNotFoundError(
        f"{path} holds no probe. Give a folder that brainlit probe wrote, a run's folder, or a file"
        " probes/<subject>/epoch-<n>.h5."
    )


def shared_subjects(files_a: Mapping[str, Path], files_b: Mapping[str, Path], a: Path, b: Path) -> list[str]:
    """The subjects of both probes.

    Raises
    ------
    ProbesDifferError
        If there is none, or both are the same files.
    """
    shared = [subject for subject in sorted(files_a) if subject in files_b]
    if not shared:
        raise ProbesDifferError(
            f"there is nothing to compare: {a} has probes of {', '.join(sorted(files_a))}, {b} of"
            f" {', '.join(sorted(files_b))}. Probe the same subjects."
        )
    if all(files_a[subject].samefile(files_b[subject]) for subject in shared):
        raise ProbesDifferError(f"there is nothing to compare: {a} and {b} are the same probe. Name two probes.")
    return shared


def read_pair(subject: str, file_a: Path, file_b: Path, region: str | None) -> ProbePair:
    """Read both probes of a subject, with the regions of the first one (or one region only).

    Raises
    ------
    ProbesDifferError
        If scored rows, voxels or responses differ.
    ValueError
        If there is no such region.
    """
    records, results = zip(*((load_record(file), ProbeResult.load(file)) for file in (file_a, file_b)), strict=True)
    _require_same_rows(subject, records, results)
    _require_same_voxels(subject, records, results)
    used, groups = results[0].used, _numbered(results[0])
    observed, predicted = zip(*(_scaled(result) for result in results), strict=True)
    differ = int(((observed[0] * observed[1]).sum(axis=0) < SAME_RESPONSE).sum())
    if differ:
        raise ProbesDifferError(
            f"the responses of {subject} differ in {differ} of {int(used.sum())} voxels; both probes must be scored"
            " against the same responses. Probe both on the same store."
        )
    regions = {name: mask[used] for name, mask in records[0].regions.items()}
    if region is not None:
        if region not in regions:
            raise ValueError(f"{subject} has no region {region!r}. {did_you_mean(region, regions)}")
        regions = {region: regions[region]}
    n_stories = len(records[0].facts.get("score_stories", [])) or int(groups[-1]) + 1
    left_out = tuple({name: values[:, used] for name, values in result.left_out.items()} for result in results)
    fits = [list(record.facts.get("fit_spans", [])) for record in records]
    scores, same_fit = (left_out[0], left_out[1]), fits[0] == fits[1]
    factor = max(result.overlap_factor for result in results)
    return ProbePair(observed[0], predicted[0], predicted[1], groups, regions, n_stories, scores, same_fit, factor)


def _require_same_rows(subject: str, records: Sequence[ProbeRecord], results: Sequence[ProbeResult]) -> None:
    spans = [list(record.facts.get("score_spans", [])) for record in records]
    if spans[0] != spans[1]:
        said = " and ".join(", ".join(some) or "nothing" for some in spans)
        raise ProbesDifferError(
            f"the two probes of {subject} are scored on other rows: {said}. Score both on the same."
        )
    lengths = [np.bincount(_numbered(result)).tolist() for result in results]
    if lengths[0] != lengths[1]:
        raise ProbesDifferError(
            f"the two probes of {subject} score {sum(lengths[0])} and {sum(lengths[1])} TRs of the same stories. Give"
            " both the same --probe.skip_trs."
        )


def _require_same_voxels(subject: str, records: Sequence[ProbeRecord], results: Sequence[ProbeResult]) -> None:
    sizes = [result.used.size for result in results]
    if sizes[0] != sizes[1]:
        raise ProbesDifferError(
            f"the two probes of {subject} have {sizes[0]} and {sizes[1]} voxels: not the same ones."
        )
    differ = int((results[0].used != results[1].used).sum())
    if differ:
        raise ProbesDifferError(
            f"{differ} voxels of {subject} are used in one probe and dropped in the other: they are missing or"
            " constant in some of the stories. Fit both on the same stories."
        )
    first, second = (record.regions for record in records)
    other = [name for name in first if name in second and (first[name] != second[name]).any()]
    if other:
        raise ProbesDifferError(
            f"the region {other[0]!r} of {subject} has other voxels in the two probes. Probe both on the same store."
        )


def _scaled(result: ProbeResult) -> tuple[FloatArray, FloatArray]:
    """Responses at norm 1 and the backbone's predictions in the same units, (n_trs, n_used) each."""
    observed = np.asarray(result.observed[:, result.used], dtype=np.float64)
    norm = np.sqrt(np.square(observed).sum(axis=0))
    return observed / norm, np.asarray(result.predictions["backbone"][:, result.used], dtype=np.float64) / norm


def _numbered(result: ProbeResult) -> IntArray:
    """Number of the scored span of each row, from 0: in a record they are counted together with the fitted ones."""
    return np.cumsum(np.diff(result.score_groups, prepend=result.score_groups[0]) != 0)
