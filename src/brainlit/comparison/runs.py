"""Tuned against permuted, seed by seed: is it the match between sound and brain that makes a model more semantic?

Runs are paired by model and seed: `brain` and `permuted` runs of one pair share stories, listeners, starting weights
and the probe before tuning, so the difference of their alignments after tuning is what the match alone brought. Several
permutations of one seed are averaged first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.comparison.effects import BRAIN, PERMUTED
from brainlit.encoding.statistics import Score, mean_score
from brainlit.results.record import ProbeRecord, load_record
from brainlit.results.run_directory import read_json
from brainlit.results.scores import ScoreTable
from brainlit.results.summary import SUMMARY_FILE, find_score, regions_of

Summary = Mapping[str, Any]
KEPT_METRICS = ("r_backbone", "low_level_share", "partition_backbone", "impact_")
"""Beginnings of the names of what is kept of a probe's table: replicates of 30 whole runs would fill the memory."""
KEPT_REGIONS = ("auditory", "null")
SAME_START = 1e-3
"""Largest difference of r before tuning between runs of one seed; on a GPU sums have no fixed order."""


@dataclass(frozen=True)
class FinishedRun:
    """What a comparison needs of a run.

    Parameters
    ----------
    summary : mapping
        Its summary.json.
    after, before : mapping of subject to ProbeRecord
        The probes of the last and of the first moment; their tables hold KEPT_METRICS of the compared region and of
        KEPT_REGIONS only. `after` is empty where nothing was tuned.
    path : Path or None
        Its folder.
    """

    summary: Summary
    after: Mapping[str, ProbeRecord]
    before: Mapping[str, ProbeRecord] = field(default_factory=dict)
    path: Path | None = None

    @property
    def name(self) -> str:
        """Experiment and id."""
        return f"{self.summary['run'].get('experiment')}/{self.summary['run'].get('id')}"

    @property
    def regime(self) -> str:
        """What was predicted."""
        return str(self.summary["run"].get("regime"))


@dataclass(frozen=True)
class SeedResult:
    """What one model shows about one region with one seed.

    Parameters
    ----------
    model : str
        Family and weights.
    beyond_permuted : Score
        r_brain - r_permuted; replicates are paired over held-out time, None where the probes are not at hand.
    r_before, r_brain, r_permuted : float
        Mean held-out correlation of the backbone's layer before tuning, after it, and after permuted tuning. Numbers
        of the permuted control are means over its permutations.
    permuted_rise : (float, float, float)
        Rise of the permuted control with its 95 % interval over held-out time.
    share_before, share_brain, share_permuted : float or None
        Low-level share; None where it is not defined.
    null_brain : float or None
        r of the voxels that follow nothing, after tuning; None where the data have none.
    """

    model: str
    seed: int
    beyond_permuted: Score
    r_before: float
    r_brain: float
    r_permuted: float
    permuted_rise: tuple[float, float | None, float | None]
    share_before: float | None
    share_brain: float | None
    share_permuted: float | None
    null_brain: float | None
    n_permutations: int = 1

    @property
    def gain_percent(self) -> float:
        """100 (r_brain - r_before) / r_before."""
        return 100 * (self.r_brain - self.r_before) / self.r_before


def read_summaries(runs: Iterable[Path | str]) -> list[dict[str, Any]]:
    """The summaries of finished runs.

    Raises
    ------
    FileNotFoundError
        If a run has no summary: it has not finished, or is no run.
    """
    summaries = []
    for run in runs:
        path = Path(run) / SUMMARY_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{run} has no {SUMMARY_FILE}. Let the run finish, or write it: brainlit report {run}"
            )
        summaries.append(read_json(path))
    return summaries


def read_finished(runs: Iterable[Path | str], region: str | None = None) -> list[FinishedRun]:
    """Finished runs with their first and last probes; errors are those of `read_summaries`.

    Parameters
    ----------
    region : str, optional
        Which region's numbers are kept; that of each run's headline by default.
    """
    from tqdm import tqdm

    paths = [Path(run) for run in runs]
    shown = tqdm(paths, desc="Reading runs", unit="run", leave=False, delay=3)
    return [_finished(path, summary, region) for path, summary in zip(shown, read_summaries(paths), strict=True)]


def runs_by_seed(runs: Iterable[FinishedRun]) -> dict[tuple[str, int], dict[str, list[FinishedRun]]]:
    """Runs of each model and seed, by regime; only `permuted` may be there several times: further permutations.

    Raises
    ------
    ValueError
        If a run has no seed, or is one too many.
    """
    found: dict[tuple[str, int], dict[str, list[FinishedRun]]] = {}
    for run in runs:
        facts = run.summary["run"]
        if facts.get("seed") is None:
            raise ValueError(f"the run {run.name} does not say its seed, so it cannot be paired; train it again.")
        model, seed = _model(facts), int(facts["seed"])
        same = found.setdefault((model, seed), {}).setdefault(run.regime, [])
        if same and (run.regime != PERMUTED or run.name in [other.name for other in same]):
            raise ValueError(f"two runs of {model}, seed {seed} have the regime {run.regime!r}; name only one of them.")
        same.append(run)
    return dict(sorted(found.items()))


def has_pairs(runs: Iterable[FinishedRun]) -> bool:
    """Whether any model and seed has a brain and a permuted run; errors are those of `runs_by_seed`."""
    return any({BRAIN, PERMUTED} <= set(regimes) for regimes in runs_by_seed(runs).values())


def pair_by_seed(runs: Sequence[FinishedRun], region: str | None = None) -> list[SeedResult]:
    """One result per model and seed that has a brain and a permuted run; the headline's region by default.

    Raises
    ------
    ValueError
        If no seed has both, one has a regime twice, or the probes before tuning differ, so that they are not a pair.
    """
    found = runs_by_seed(runs)
    paired = [regimes for regimes in found.values() if all(regime in regimes for regime in (BRAIN, PERMUTED))]
    if not paired:
        raise ValueError(
            f"{list(found)} have no brain and permuted run together; train both with the same MODEL and SEED."
        )
    return [_seed_result(regimes[BRAIN][0], regimes[PERMUTED], region) for regimes in paired]


def comparison_table(results: Sequence[SeedResult]) -> str:
    """Markdown: one line per model and seed, then each model's mean and range over seeds."""
    lines = [
        "| model | seed | r before | r tuned | gain | r permuted | tuned - permuted (95 % interval) |"
        " permuted rise (95 % interval) | low-level share before / tuned / permuted | null r |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        shares = " / ".join(_number(s) for s in (result.share_before, result.share_brain, result.share_permuted))
        beyond = (result.beyond_permuted.value, *(result.beyond_permuted.interval or (None, None)))
        lines.append(
            f"| {result.model} | {result.seed} | {result.r_before:.3f} | {result.r_brain:.3f} |"
            f" {result.gain_percent:+.0f} % | {result.r_permuted:.3f} | {_with_interval(beyond)} |"
            f" {_with_interval(result.permuted_rise)} | {shares} | {_number(result.null_brain)} |"
        )
    models = dict.fromkeys(result.model for result in results)
    for model in models:
        lines += ["", *([f"{model}:"] if len(models) > 1 else [])]
        lines += _over_seeds([result for result in results if result.model == model])
    draws = sorted({result.n_permutations for result in results})
    if draws != [1]:
        lines.append(f"- permuted: mean over {' or '.join(map(str, draws))} permutations of each seed")
    return "\n".join(lines)


def _over_seeds(results: Sequence[SeedResult]) -> list[str]:
    """Mean and range of what is claimed, over seeds."""
    claims = {
        "gain over the backbone before tuning (%)": [result.gain_percent for result in results],
        "r tuned - r permuted": [result.beyond_permuted.value for result in results],
        "fall of the low-level share": [
            result.share_before - result.share_brain
            for result in results
            if result.share_before is not None and result.share_brain is not None
        ],
    }
    return [
        f"- {name}: mean {np.mean(values):.3g}, range {min(values):.3g} to {max(values):.3g} over {len(values)} seeds"
        for name, values in claims.items()
        if values
    ]


def _seed_result(tuned: FinishedRun, permuted: Sequence[FinishedRun], region: str | None) -> SeedResult:
    brain, facts = tuned.summary, tuned.summary["run"]
    name = region or str(brain["headline_region"])
    row, controls = _row(brain, name, "r_backbone"), [_row(run.summary, name, "r_backbone") for run in permuted]
    for control in controls:
        if abs(row["before"]["value"] - control["before"]["value"]) > SAME_START:
            raise ValueError(
                f"{_model(facts)}, seed {facts['seed']}: before tuning the brain run has r {row['before']['value']:.4f}"
                f" in {name}, the permuted run {control['before']['value']:.4f}; they did not start from the same"
                " model, stories and probe."
            )
    share = find_score(brain, name, "low_level_share")
    null = find_score(brain, "null", "r_backbone") if "null" in regions_of(brain) else None
    after, rises = row["after"]["value"], [control["difference"] for control in controls]
    r_permuted = float(np.mean([control["after"]["value"] for control in controls]))
    rise = float(np.mean([rise["value"] for rise in rises]))
    return SeedResult(
        model=_model(facts),
        seed=int(facts["seed"]),
        beyond_permuted=_difference(tuned, permuted, name, after - r_permuted),
        r_before=row["before"]["value"],
        r_brain=after,
        r_permuted=r_permuted,
        permuted_rise=(rise, _mean_of(rises, "low"), _mean_of(rises, "high")),
        share_before=_value(share, "before"),
        share_brain=_value(share, "after"),
        share_permuted=_mean_share(permuted, name),
        null_brain=_value(null, "after"),
        n_permutations=len(permuted),
    )


def _mean_of(rows: Sequence[Mapping[str, Any]], end: str) -> float | None:
    """Mean of one end of the intervals of several permutations: as wide as if they erred alike."""
    values = [row[end] for row in rows]
    return None if None in values else float(np.mean(values))


def _mean_share(permuted: Sequence[FinishedRun], region: str) -> float | None:
    shares = [_value(find_score(run.summary, region, "low_level_share"), "after") for run in permuted]
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known else None


def _difference(tuned: FinishedRun, permuted: Sequence[FinishedRun], region: str, value: float) -> Score:
    """r tuned - mean r permuted with replicates, where all were probed alike; without them otherwise."""
    prints = [{name: record.fingerprint for name, record in run.after.items()} for run in (tuned, *permuted)]
    if not prints[0] or any(other != prints[0] for other in prints):
        return Score(value)
    own, *others = (_mean_alignment(run.after.values(), region) for run in (tuned, *permuted))
    return Score(value, (own - mean_score(others)).replicates)


def _mean_alignment(records: Iterable[ProbeRecord], region: str) -> Score:
    rows = [record.table.get(region, record.layer, "r_backbone") for record in records]
    return mean_score([row.score for row in rows if row is not None])


def _finished(path: Path, summary: Summary, region: str | None) -> FinishedRun:
    """The run with its first and last probes; what was probed in between is not read."""
    regions = {region or str(summary["headline_region"]), *KEPT_REGIONS}
    files: dict[str, list[Path]] = {}
    for file in sorted((path / "probes").glob("*/epoch-*.h5"), key=lambda file: int(file.stem.partition("-")[2])):
        files.setdefault(file.parent.name, []).append(file)
    first, last = ([_thinned(load_record(own[k]), regions) for own in files.values()] for k in (0, -1))
    before = {record.subject: record for record in first if record.epoch == 0}
    end = max((record.epoch for record in last), default=0)
    return FinishedRun(summary, {r.subject: r for r in last if r.epoch == end > 0}, before, path)


def _thinned(record: ProbeRecord, regions: set[str]) -> ProbeRecord:
    kept = [row for row in record.table.rows if row.region in regions and row.metric.startswith(KEPT_METRICS)]
    return replace(record, table=ScoreTable(kept), regions={}, vertices=None, ceiling=None)


def _model(facts: Mapping[str, Any]) -> str:
    """'wav2vec (tiny)' of 'wav2vec (tiny), 4 layers of 128, ...'."""
    return str(facts.get("model", "")).split(",")[0]


def _row(summary: Summary, region: str, metric: str) -> dict[str, Any]:
    row = find_score(summary, region, metric)
    if row is None or "difference" not in row:
        run = summary["run"]
        raise ValueError(
            f"the run {run.get('experiment')}/{run.get('id')} has no {metric} before and after in {region!r};"
            f" regions: {', '.join(regions_of(summary))}."
        )
    return row


def _value(row: Mapping[str, Any] | None, stage: str) -> float | None:
    value = None if row is None else row.get(stage, {}).get("value")
    return None if value is None else float(value)


def _with_interval(numbers: tuple[float, float | None, float | None]) -> str:
    value, low, high = numbers
    return f"{value:+.3f}" + ("" if low is None or high is None else f" ({low:+.3f} to {high:+.3f})")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
