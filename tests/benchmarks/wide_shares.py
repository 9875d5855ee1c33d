"""Shares of bands with many columns and falling spectra: whole, at as few rows as are allowed, and of components.

Run as `python -m tests.benchmarks.wide_shares`; prints a table of bias and coverage, first of responses of all kinds,
then of responses that follow sound only. `--cut` measures what is refused: bands cut to a quarter as many columns as
rows. Data sets have seeds from 60,000 on; settings were chosen on seeds below 2,000. Truth and data are those of
`tests.encoding.simulate_wide`, which knows nothing of the package.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from tqdm import tqdm

from brainlit.encoding import ProbeConfig, region_shares
from brainlit.encoding.statistics import Score
from tests.encoding.simulate_wide import (
    DELAYS,
    Wide,
    WideData,
    cut_bands,
    directions_of,
    draw_world,
    shares,
    simulate_wide,
)

FIRST_SEED = 60_000
MIXTURES = ((0.5, 0.3, 0.2), (1.0, 0.0, 0.0), (0.3, 0.7, 0.0), (0.0, 0.5, 0.5))
SOUND = ((1.0, 0.0, 0.0),)
NULL_PARTS = ("backbone", "semantic", "backbone&semantic")
PARTS = tuple(shares(draw_world(0, Wide(6, 2, 2))))
SMALL = Wide(25, 5, 10)


@dataclass(frozen=True)
class Cell:
    """Bands, rows, and whether the backbone is so many of its components, learned on as many further rows as fitted."""

    name: str
    setting: Wide
    n_fit: int
    n_score: int = 450
    components: int | None = None


CELLS = (
    Cell("160 columns, 350 rows", SMALL, 360),
    Cell("the same, features that change slowly", replace(SMALL, memory=(0.9, 0.9, 0.9)), 360),
    Cell("the same, steeper spectra", replace(SMALL, decay=2.0), 360),
    Cell("the same, signal of 5 to 15 %", replace(SMALL, signal=(0.05, 0.15)), 360),
    Cell("400 columns, 820 rows", Wide(60, 10, 30), 840),
    Cell("100 components of 256 x 4, and 120 columns, 585 rows", Wide(256, 10, 20), 600, components=100),
    Cell("50 x 4, 10 x 4 and 20 x 4 columns, 295 rows", Wide(50, 10, 20), 300),
    Cell("1,024 x 4, 50 x 4 and 100 x 4 columns, 1,174 rows", Wide(), 1200),
)
ENOUGH = 5
"""Refused data sets after which the others of a cell are not tried: whether rows are enough is not left to chance."""


@dataclass
class Found:
    """Errors, hits and widths of each data set, (n_sets, n_parts), or why there were none."""

    errors: list[list[float]] = field(default_factory=list)
    hits: list[list[bool]] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def measure(cell: Cell, mixtures: tuple[tuple[float, float, float], ...], n: int, first: int, *, cut: bool) -> Found:
    """Shares of n data sets beside their truth."""
    found = Found()
    for k in tqdm(range(n), desc=cell.name, mininterval=10, leave=False):
        setting = replace(cell.setting, fractions=mixtures[k % len(mixtures)])
        extra = cell.n_fit if cell.components else 0
        data = simulate_wide(first + k, cell.n_fit, cell.n_score, setting, n_other=extra)
        try:
            known, parts = _both(data, cell.components, cut=cut)
        except ValueError as error:
            found.refused.append(str(error))
            if len(found.refused) == ENOUGH and not found.errors:
                break
            continue
        found.errors.append([parts[part].value - truth for part, truth in known.items()])
        found.hits.append([parts[part].low <= truth <= parts[part].high for part, truth in known.items()])
        found.widths.append(float(np.mean([parts[part].high - parts[part].low for part in known])))
    return found


def _both(data: WideData, components: int | None, *, cut: bool) -> tuple[Mapping[str, float], Mapping[str, Score]]:
    """Truth and shares."""
    roles, how = (data.groups, data.fit, data.score), ProbeConfig(delays_trs=DELAYS)
    if cut:
        bands = cut_bands(data, int(data.fit.sum()) // 4)
        return shares(data.world), region_shares(bands, data.Y, *roles, replace(how, delays_trs=(0,))).parts
    directions = directions_of(data, components) if components else None
    found = region_shares(data.bands, data.Y, *roles, how, backbone_components=components)
    return shares(data.world, directions), found.parts


def line(name: str, found: Found, only: tuple[str, ...] = ()) -> str:
    """Bias of the worst part (over all data sets, over those of one mixture), coverage, and of the worst part."""
    n_refused = len(found.refused)
    if not found.errors:
        return f"| {name} | {n_refused} | refused | | | | |"
    parts = [k for k, part in enumerate(PARTS) if part in (only or PARTS)]
    errors, hits = np.array(found.errors)[:, parts], 100 * np.array(found.hits)[:, parts]
    turns = 1 if only else len(MIXTURES)
    worst = max(np.abs(errors[k::turns].mean(axis=0)).max() for k in range(turns))
    error = hits.mean(axis=1).std() / np.sqrt(len(hits))
    return (
        f"| {name} | {len(hits)}{f', {n_refused} refused' if n_refused else ''} |"
        f" {np.abs(errors.mean(axis=0)).max():.3f}, {worst:.3f} | {errors.std():.3f} |"
        f" {hits.mean():.1f} +- {error:.1f} % | {hits.mean(axis=0).min():.1f} % | {np.mean(found.widths):.3f} |"
    )


def table(n: int, first: int, chosen: list[Cell], *, cut: bool) -> Iterator[str]:
    """Two tables and what refusals say."""
    said = {}
    for mixtures, only, title in (
        (MIXTURES, (), "all mixtures, all parts"),
        (SOUND, NULL_PARTS, "sound only, null parts"),
    ):
        yield f"\n{title}\n\n| what is fitted | sets | bias at most | sd of the error | covers | worst part | width |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
        for cell in chosen:
            found = measure(cell, mixtures, n, first, cut=cut)
            said |= {cell.name: found.refused[0]} if found.refused else {}
            yield line(cell.name, found, only)
    yield from (f"\n{name}: {why}" for name, why in said.items())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--n", type=int, default=200, help="data sets per row")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--cells", type=int, nargs="+", default=list(range(len(CELLS))), help="rows of the table")
    parser.add_argument("--cut", action="store_true", help="cut bands to a quarter as many columns as rows")
    given = parser.parse_args()
    for text in table(given.n, given.first_seed, [CELLS[k] for k in given.cells], cut=given.cut):
        print(text, flush=True)


if __name__ == "__main__":
    main()
