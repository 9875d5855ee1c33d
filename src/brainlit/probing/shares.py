"""`brainlit probe --shares`: each region's parts as endless data would give them, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from brainlit.encoding.arrays import Float32Array
from brainlit.encoding.asymptotic_partition import RegionShares, region_shares
from brainlit.encoding.temporal import TemporalBand
from brainlit.files import write_csv
from brainlit.results.scores import regions_with_all
from brainlit.results.style import part_label
from brainlit.results.tables import markdown_table

if TYPE_CHECKING:
    from brainlit.datamodules import StoryDataModule
    from brainlit.encoding.statistics import Score
    from brainlit.probing.engine import ProbeEngine
    from brainlit.probing.inputs import ProbeData


FILE = "shares.csv"
COLUMNS = (
    "subject", "region", "part", "value", "low", "high", "n_voxels", "n_fit_trs", "n_scored_blocks", "kept_variance",
    "is_cut",
)  # fmt: skip
JOINT, LOW_LEVEL = "joint_r2", "low_level_share"
NAMES = {JOINT: "R2 of all bands", LOW_LEVEL: "low-level share"}


@dataclass(frozen=True)
class SubjectShares:
    """The shares of one region of one subject, or why there are none."""

    subject: str
    region: str
    found: RegionShares | None
    why_not: str = ""

    def shares(self) -> dict[str, Score]:
        """By part, then the joint R2 and the low-level share."""
        if self.found is None:
            return {}
        more = {JOINT: self.found.joint_r2, LOW_LEVEL: self.found.low_level_share}
        return {**self.found.parts, **{name: share for name, share in more.items() if share is not None}}


def measure_shares(
    engine: ProbeEngine, features: Float32Array | TemporalBand, datamodule: StoryDataModule, subjects: Sequence[str]
) -> list[SubjectShares]:
    """The shares of every region of every subject; see `encoding.shares`.

    Parameters
    ----------
    features : array of shape (n_rows, n_features)
        The compared layer, a row per TR of `engine.spans(datamodule)`.
    """
    found = []
    for subject in tqdm(subjects, desc="shares", unit="subject", leave=False):
        data = engine.subject_data(datamodule, subject)
        bands = {"backbone": features[data.rows], **data.stimulus}
        good = np.asarray(np.isfinite(data.responses).all(axis=0))
        for region, mask in regions_with_all(data.regions, good).items():
            shares, why_not = _of_region(bands, data.responses[:, mask], data, engine)
            found.append(SubjectShares(subject, region, shares, why_not))
    return found


def _of_region(
    bands: Mapping[str, Float32Array | TemporalBand], responses: Float32Array, data: ProbeData, engine: ProbeEngine
) -> tuple[RegionShares | None, str]:
    """Where there is nothing to share out, or too little to say so, the reason in words."""
    try:
        return region_shares(bands, responses, data.groups, data.fit, data.score, engine.config), ""
    except ValueError as error:
        return None, str(error)


def write_shares(shares: Sequence[SubjectShares], folder: Path) -> Path:
    """One row for every part of every region of every subject, as CSV."""
    rows = []
    for one in shares:
        for part, share in one.shares().items():
            numbers = {"value": share.value, "low": share.low, "high": share.high}
            about = {name: getattr(one.found, name) for name in COLUMNS[6:]}
            rows.append({"subject": one.subject, "region": one.region, "part": part, **numbers, **about})
    return write_csv(folder / FILE, COLUMNS, rows)


def shares_table(shares: Sequence[SubjectShares]) -> str:
    """Markdown: regions down the page, parts across it, and what they rest on."""
    return "\n".join(_lines(shares))


def _lines(shares: Sequence[SubjectShares]) -> Iterator[str]:
    parts = list(dict.fromkeys(part for one in shares for part in one.shares()))
    if parts:
        yield from markdown_table(
            ["subject", "region", "voxels", *(NAMES.get(part) or part_label(part) for part in parts)],
            [
                [one.subject, one.region, str(one.found.n_voxels), *(_cell(one.shares().get(part)) for part in parts)]
                for one in shares
                if one.found is not None
            ],
        )
        yield ""
        yield (
            "- shares: parts of the R2 of all bands together as endless data would give them (least squares, covariance"
            " of held-out responses and predictions; docs/calibration.md), [low, high]: 95 % interval over other"
            " minutes of such stories, noise of the fit included"
        )
    for one in shares:
        if one.found is None:
            yield f"- no shares for {one.region} of {one.subject}: {one.why_not}"


def _cell(share: Score | None) -> str:
    return "-" if share is None else f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]"
