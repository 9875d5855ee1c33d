"""Two probes against each other, region by region, on the same responses and TRs.

What makes a minute of a story easy or hard to predict does so for both models, so differences are taken block by block:
the bootstrap draws the same blocks for both, and the permutation test exchanges the two predictions within blocks. Both
hold the fitted weights fixed. Where probes know their scores without each fit story, a jackknife over these is added:
the interval and p are then those of models fitted on other stories, too. Another training run is in neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from brainlit.comparison.effects import over_subjects
from brainlit.comparison.probe_pairs import ProbePair, probe_files, read_pair, shared_subjects
from brainlit.encoding import fdr, paired_wilcoxon
from brainlit.encoding.arrays import FloatArray
from brainlit.encoding.bootstrap import BLOCK_TRS, block_weights, region_replicates
from brainlit.encoding.left_out import FEWEST_STORIES, p_with_fit
from brainlit.encoding.permutation import PermutationTest, block_difference_test
from brainlit.encoding.statistics import Score, mean_score, student_quantile
from brainlit.files import write_csv
from brainlit.hints import did_you_mean
from brainlit.results.run_directory import read_json_if_there, write_json_atomic
from brainlit.results.scores import stretch_of
from brainlit.results.summary import ALL_SUBJECTS, RUN_FILE
from brainlit.results.tables import SIMULATED, change_said, count_said, markdown_table

Metric = Literal["r", "r2"]
METRICS: tuple[Metric, ...] = ("r", "r2")
FALSE_DISCOVERIES = 0.05
JSON_FILE, TABLE_FILE = "comparison.json", "comparison.csv"
COLUMNS = (
    "subject", "region", "metric", "n_voxels", "a", "b", "difference", "low", "high", "test", "p", "smallest_p", "q",
    "n_higher", "n_lower", "n_trs", "n_stories", "n_subjects", "n_parts", "simulated",
)  # fmt: skip


@dataclass(frozen=True)
class CompareConfig:
    """How two probes are compared.

    Parameters
    ----------
    metric : 'r' or 'r2'
        Correlation or 1 - SSE / SST of the backbone alone.
    bootstrap_trs, permutation_trs : int
        Rows per block of the interval and of the test.
    n_bootstraps, n_permutations, seed : int
    hold_fits : bool
        Leave the jackknife over fit stories out: what is compared are these very weights.
    """

    metric: Metric = "r"
    bootstrap_trs: int = BLOCK_TRS
    permutation_trs: int = BLOCK_TRS
    n_bootstraps: int = 2000
    n_permutations: int = 2000
    seed: int = 0
    hold_fits: bool = False

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"metric is {self.metric!r}. {did_you_mean(self.metric, METRICS)}")
        if min(self.bootstrap_trs, self.permutation_trs, self.n_bootstraps, self.n_permutations) < 1:
            raise ValueError(
                f"blocks of {self.bootstrap_trs} and {self.permutation_trs} TRs, {self.n_bootstraps} bootstraps,"
                f" {self.n_permutations} permutations: each must be at least 1."
            )


@dataclass(frozen=True)
class RegionDifference:
    """A against B in one region, of one subject or of the mean over subjects.

    Parameters
    ----------
    a, b, difference : Score
        Means over the voxels; the replicates of the difference are paired.
    test : 'blocks', 'blocks and fit' or 'wilcoxon'
        Exchange of predictions within blocks of time (one subject), alone or with the jackknife over fit stories; or
        signed ranks of the subjects' differences.
    p, smallest_p, q : float
        Two-sided; the smallest p that so many blocks, permutations or subjects can give; q is p after the false
        discovery rate over the regions of this subject.
    n_higher, n_lower : int
        Voxels in which A, or B, is better at a false discovery rate of 5 % over the subject's voxels.
    n_trs, n_stories : int
        What was scored; of several subjects, of the one with the fewest rows.
    n_parts : int
        Parts of the fit stories that were left out in turn; 0 where fits are held fixed.
    """

    subject: str
    region: str
    n_voxels: int
    a: Score
    b: Score
    difference: Score
    test: str
    p: float
    smallest_p: float
    q: float
    n_higher: int
    n_lower: int
    n_trs: int
    n_stories: int
    n_subjects: int = 1
    n_parts: int = 0


@dataclass(frozen=True)
class ProbeComparison:
    """All differences of two probes, and how they were made."""

    a: Path
    b: Path
    config: CompareConfig
    rows: tuple[RegionDifference, ...]
    notes: tuple[str, ...] = ()
    simulated: bool = False


def compare_probes(
    a: Path | str, b: Path | str, region: str | None = None, config: CompareConfig | None = None
) -> ProbeComparison:
    """Test, per region and per voxel, whether the backbone of probe A predicts better than that of probe B.

    Parameters
    ----------
    a, b : path
        Folders of `brainlit probe`, run directories (the last epoch that was probed), or record files.
    region : str, optional
        Only this one; by default all regions of the records.

    Raises
    ------
    FileNotFoundError
        If a path holds no probe.
    ProbesDifferError
        If the probes share no subject, are one and the same, or differ in scored rows, voxels or responses.
    ValueError
        If no record has the region, or there are too few rows for the blocks.
    """
    config, a, b = config or CompareConfig(), Path(a), Path(b)
    files_a, files_b = probe_files(a), probe_files(b)
    shared = shared_subjects(files_a, files_b, a, b)
    alone = sorted(set(files_a) ^ set(files_b))
    notes = (f"Left out, because only one of the two probes has them: {', '.join(alone)}.",) if alone else ()
    rows: list[RegionDifference] = []
    for subject in shared:
        rows += subject_rows(subject, read_pair(subject, files_a[subject], files_b[subject], region), config)
    simulated = all(_is_simulated(files_a[subject]) or _is_simulated(files_b[subject]) for subject in shared)
    return ProbeComparison(a, b, config, (*_over_subjects(rows, shared), *rows), notes, simulated)


def _is_simulated(record: Path) -> bool:
    """Whether the run or probe folder that a record lies in says so of its listeners."""
    return bool(read_json_if_there(record.parents[2] / RUN_FILE).get("simulated"))


def probes_table(comparison: ProbeComparison) -> str:
    """Markdown: one line per subject and region, then what the columns mean."""
    metric = "r" if comparison.config.metric == "r" else "R2"
    heads = ["subject", "region", "voxels", f"{metric} A", f"{metric} B", "A - B (95 % interval)", "p", "q"]
    rows = [
        [
            *(row.subject, row.region, str(row.n_voxels), f"{row.a.value:.3f}", f"{row.b.value:.3f}"),
            *(change_said(row.difference), f"{row.p:.3g}", f"{row.q:.3g}", str(row.n_higher), str(row.n_lower)),
        ]
        for row in comparison.rows
    ]
    table = markdown_table([*heads, "A better", "B better"], rows)
    notes = [f"- {line}" for line in _explained(comparison)]
    listeners = [SIMULATED, ""] if comparison.simulated else []
    return "\n".join([*listeners, f"A: {comparison.a}, B: {comparison.b}", "", *table, "", *notes])


def write_comparison(comparison: ProbeComparison, folder: Path) -> tuple[Path, Path]:
    """Write comparison.json and comparison.csv into a folder.

    Raises
    ------
    FileExistsError
        If it holds a comparison: nothing is overwritten.
    """
    for name in (JSON_FILE, TABLE_FILE):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} is there already and is not overwritten. Give another --output.")
    rows = [{**_plain(row, comparison.config.metric), "simulated": comparison.simulated} for row in comparison.rows]
    whole = {
        "simulated": comparison.simulated,
        "a": str(comparison.a),
        "b": str(comparison.b),
        "config": vars(comparison.config),
        "rows": rows,
    }
    file = write_json_atomic(folder / JSON_FILE, {**whole, "explained": list(_explained(comparison))})
    return file, write_csv(folder / TABLE_FILE, COLUMNS, rows)


# --- Statistics ---


def subject_rows(subject: str, pair: ProbePair, config: CompareConfig) -> list[RegionDifference]:
    """Every region of one subject; ValueError where there are too few rows for the blocks."""
    scores = _paired_scores(pair, config)
    test = partial(
        block_difference_test,
        *(pair.observed, pair.a, pair.b, pair.groups),
        score=config.metric,
        block_trs=config.permutation_trs,
        n_permutations=config.n_permutations,
        seed=config.seed,
    )
    by_region, by_voxel = test(regions=pair.regions), test()
    n_parts = 0 if config.hold_fits else pair.n_parts
    p_regions, p_voxels = by_region.p, by_voxel.p
    if n_parts:
        of_regions = np.array([pair.fit_variance(config.metric, mask) for mask in pair.regions.values()])
        p_regions = _p_with_fit(by_region, of_regions, n_parts)
        p_voxels = _p_with_fit(by_voxel, pair.fit_variance(config.metric), n_parts)
        scores = {
            name: (a, b, _joined(difference, variance, n_parts))
            for (name, (a, b, difference)), variance in zip(scores.items(), of_regions, strict=True)
        }
    found = fdr(p_voxels) <= FALSE_DISCOVERIES
    higher, lower = found & (by_voxel.statistic > 0), found & (by_voxel.statistic < 0)
    tested = zip(pair.regions.items(), p_regions, fdr(p_regions), strict=True)
    return [
        RegionDifference(
            subject,
            name,
            int(mask.sum()),
            *scores[name],
            test="blocks and fit" if n_parts else "blocks",
            p=float(p),
            smallest_p=by_region.smallest_p,
            q=float(q),
            n_higher=int((higher & mask).sum()),
            n_lower=int((lower & mask).sum()),
            n_trs=len(pair.groups),
            n_stories=pair.n_stories,
            n_parts=n_parts,
        )
        for (name, mask), p, q in tested
    ]


def _p_with_fit(test: PermutationTest, fit_variance: FloatArray, n_parts: int) -> FloatArray:
    """p of a difference whose fit errs too: never smaller than that of exchanged blocks alone."""
    return np.fmax(test.p, p_with_fit(test.statistic, test.null_sd, fit_variance, n_parts))


def _joined(difference: Score, fit_variance: float, n_parts: int) -> Score:
    """The interval over time with that over fits, added up as in `effects.over_seeds`."""
    return difference.joined(student_quantile(n_parts - 1, difference.level) * fit_variance**0.5)


def _paired_scores(pair: ProbePair, config: CompareConfig) -> dict[str, tuple[Score, Score, Score]]:
    """A, B and A - B of each region, from the same draws; draw 0 counts every block once."""
    block_of_row, weights = block_weights(pair.groups, config.bootstrap_trs, config.n_bootstraps, config.seed)
    given = pair.groups, (block_of_row, weights), pair.observed, pair.a, pair.b
    stretch = stretch_of(*given, factor=pair.overlap_factor)
    if stretch is None:
        raise ValueError(
            f"the scored stories have too few blocks of {config.bootstrap_trs} TRs for an interval, or neighbouring"
            " rows are too alike for such short ones; give a smaller --bootstrap_trs, or a larger one."
        )
    blocks = (block_of_row, np.concatenate([np.ones_like(weights[:1]), weights]))
    which = METRICS.index(config.metric)
    drawn = [region_replicates(pair.observed, p, pair.groups, pair.regions, blocks) for p in (pair.a, pair.b)]
    scores = {}
    for name in pair.regions:
        a, b = (Score(float(own[name][which][0]), own[name][which][1:]).stretched(stretch) for own in drawn)
        scores[name] = (a, b, a - b)
    return scores


def _over_subjects(rows: Sequence[RegionDifference], subjects: Sequence[str]) -> list[RegionDifference]:
    """Mean over subjects of the regions that all of them have; nothing for a single subject."""
    names = dict.fromkeys(row.region for row in rows)
    by_region = {name: [row for row in rows if row.region == name] for name in names}
    groups = {name: own for name, own in by_region.items() if len(own) == len(subjects)}
    if len(subjects) < 2 or not groups:
        return []
    test = paired_wilcoxon(np.array([[row.difference.value for row in own] for own in groups.values()]).T)
    tested = zip(groups.items(), test.p, test.smallest_p, fdr(test.p), strict=True)
    return [
        RegionDifference(
            ALL_SUBJECTS,
            name,
            sum(row.n_voxels for row in own),
            mean_score([row.a for row in own]),
            mean_score([row.b for row in own]),
            over_subjects([row.difference for row in own]),
            test="wilcoxon",
            p=float(p),
            smallest_p=float(smallest_p),
            q=float(q),
            n_higher=sum(row.n_higher for row in own),
            n_lower=sum(row.n_lower for row in own),
            n_trs=min(row.n_trs for row in own),
            n_stories=min(row.n_stories for row in own),
            n_subjects=len(own),
            n_parts=min(row.n_parts for row in own),
        )
        for (name, own), p, smallest_p, q in tested
    ]


# --- Words ---


def _explained(comparison: ProbeComparison) -> Iterator[str]:
    config, rows = comparison.config, comparison.rows
    formula = "Pearson r of response and prediction" if config.metric == "r" else "R2 = 1 - SSE / SST"
    one = [row for row in rows if row.test != "wilcoxon"]
    people = [row for row in rows if row.test == "wilcoxon"]
    heard = sorted(
        {f"{row.n_trs} TRs of {count_said(row.n_stories, 'story', 'stories')} ({row.subject})" for row in one}
    )
    yield f"Mean over voxels of {formula}, ridge on the backbone alone, both on the same {'; '.join(heard)}."
    parts = sorted({row.n_parts for row in one if row.n_parts})
    yield (
        f"Intervals: block bootstrap over time within stories, {config.bootstrap_trs}-TR blocks or longer,"
        f" the same for A and B, {config.n_bootstraps} draws, seed {config.seed}, widened for the number of blocks"
        + ("; joined with a jackknife over fit stories." if parts else ".")
    )
    yield from _what_is_drawn(config, one, parts)
    smallest = max(row.smallest_p for row in one)
    yield (
        f"p of one subject: A and B exchanged within {config.permutation_trs}-TR blocks or longer, two-sided,"
        f" (b + 1) / (m + 1) with {config.n_permutations} permutations; the smallest p that can come out is"
        f" {smallest:.3g}" + (", and where fits are drawn p is at least that of the joined error." if parts else ".")
    )
    if people:
        yield (
            f"p of all: Wilcoxon's signed-rank test of the differences of {people[0].n_subjects} subjects, two-sided;"
            f" the smallest p that they can give is {max(row.smallest_p for row in people):.3g}. Their interval joins"
            " time and subjects (Student's t)."
        )
    else:
        yield "One subject: nothing is shown about other people."
    yield (
        f"q: p after the false discovery rate over a subject's regions, {len({row.region for row in one})} here"
        " (Benjamini-Hochberg). A better, B better: voxels with a difference at a false discovery rate of"
        f" {FALSE_DISCOVERIES:.0%} over all voxels of a subject."
    )
    yield from comparison.notes


def _what_is_drawn(config: CompareConfig, rows: Sequence[RegionDifference], parts: Sequence[int]) -> Iterator[str]:
    """What intervals and p are about, and what is in neither."""
    if parts:
        said = " to ".join(str(n) for n in dict.fromkeys((parts[0], parts[-1])))
        yield (
            f"Drawn: minutes of the scored stories, and fit stories ({said} parts left out in turn; each voxel keeps"
            " its alpha)."
        )
    fixed = sorted({row.subject for row in rows if not row.n_parts})
    if fixed:
        why = (
            "as asked (--hold_fits)"
            if config.hold_fits
            else f"for at least {FEWEST_STORIES} fit stories are needed, and probes that know their scores without them"
            " (probe again with --probe.leave_out_fit true; folds have none)"
        )
        yield (
            f"Drawn for {', '.join(fixed)}: minutes of the scored stories only. The fitted weights are held fixed,"
            f" {why}; fitted on other stories, models that are equally good come out different more often than p says."
        )
    yield (
        "Not drawn: the training run. A second run of the same recipe (another seed) is another model, and its"
        " difference to the first is often beyond these intervals; claims about recipes need several seeds each"
        " (brainlit compare)."
    )


def _plain(row: RegionDifference, metric: str) -> dict[str, Any]:
    """A row as plain JSON; what is not a number is None."""
    whole = {**vars(row), "a": row.a.value, "b": row.b.value, "metric": metric}
    whole |= {**row.difference.json(), "difference": row.difference.value}
    undefined = {name for name, value in whole.items() if isinstance(value, float) and not np.isfinite(value)}
    return {name: None if name in undefined else whole[name] for name in COLUMNS if name in whole}
