"""Finished runs read for a comparison, and tuned against permuted, seed by seed.

Is it the match between sound and brain that makes a model more semantic? Runs are paired by model and seed: `brain` and
`permuted` runs of one pair share stories, listeners, starting weights and the probe before tuning, so the difference of
their alignments after tuning is what the match alone brought. Several permutations of one seed are averaged first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.comparison.effects import BRAIN, BRAIN_ONLY, NULL, PERMUTED, PLANTED_NULLS
from brainlit.encoding.statistics import Score, mean_score
from brainlit.results.record import ProbeRecord, load_record, record_files
from brainlit.results.run_directory import read_json
from brainlit.results.scores import RATIOS, ScoreTable
from brainlit.results.summary import SUMMARY_FILE, find_score, regions_of, stage_value
from brainlit.results.tables import change_said, markdown_table, number_said, simulated_said

Summary = Mapping[str, Any]
_TERMS = tuple({term: None for ratio in RATIOS.values() for term in ratio.terms})
KEPT_METRICS = ("r_backbone", "low_level_share", "partition_backbone", "impact_", *_TERMS)
"""Beginnings of the names of what is kept of a probe's table, what ratios divide included: replicates of 30 whole runs
would fill the memory."""
KEPT_REGIONS = (*PLANTED_NULLS, NULL, BRAIN_ONLY)
"""Beside the compared one; auditory voxels also of real people."""
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
        return run_name(self.summary)

    @property
    def regime(self) -> str:
        """What was predicted."""
        return str(self.summary["run"].get("regime"))


@dataclass(frozen=True)
class TuningChange:
    """What tuning did to one region in one run, mean over subjects.

    Parameters
    ----------
    r_before, r_after : float
        Mean held-out correlation of the backbone's layer.
    rise : Score
        r_after - r_before with its 95 % interval over held-out time.
    share_before, share_after : float or None
        Low-level share; None where it is not defined.
    people : mapping of subject to float
        The rise of each.
    """

    layer: int
    n_voxels: int
    n_subjects: int
    r_before: float
    r_after: float
    rise: Score
    share_before: float | None
    share_after: float | None
    people: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SeedResult:
    """What one model shows about one region with one seed.

    Parameters
    ----------
    model : str
        Family and weights.
    beyond_permuted : Score
        r_brain - r_permuted; replicates are paired over held-out time, None where the probes are not at hand.
    brain : TuningChange
        Of the brain run.
    r_permuted : float
        r after permuted tuning. Numbers of the permuted control are means over its permutations.
    permuted_rise : Score
        Rise of the permuted control with its 95 % interval over held-out time.
    share_permuted : float or None
        Low-level share; None where it is not defined.
    null_brain : float or None
        r of the voxels that follow nothing, after tuning; None where the data have none.
    simulated : bool
        Whether the listeners are.
    """

    model: str
    seed: int
    beyond_permuted: Score
    brain: TuningChange
    r_permuted: float
    permuted_rise: Score
    share_permuted: float | None
    null_brain: float | None
    n_permutations: int = 1
    simulated: bool = False

    @property
    def gain_percent(self) -> float:
        """100 (r_after - r_before) / r_before of the brain run."""
        return 100 * (self.brain.r_after - self.brain.r_before) / self.brain.r_before


def read_summaries(runs: Iterable[Path | str]) -> list[dict[str, Any]]:
    """The summaries of finished runs.

    Raises
    ------
    FileNotFoundError
        If a run has no summary: it has not finished, or is no run.
    ValueError
        If a run was a trial (fast_dev_run).
    """
    summaries = []
    for run in runs:
        path = Path(run) / SUMMARY_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{run} has no {SUMMARY_FILE}. Let the run finish, or write it: brainlit report {run}"
            )
        summaries.append(read_json(path))
        if summaries[-1]["run"].get("trial"):
            raise ValueError(f"{run} was a trial run (fast_dev_run) and has no result; leave it out.")
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
    paired = [regimes for regimes in found.values() if {BRAIN, PERMUTED} <= set(regimes)]
    if not paired:
        raise ValueError(
            f"{list(found)} have no brain and permuted run together; train both with the same MODEL and SEED."
        )
    return [_seed_result(regimes[BRAIN][0], regimes[PERMUTED], region) for regimes in paired]


def pairs_table(results: Sequence[SeedResult]) -> str:
    """Markdown: one line per model and seed, then each model's mean and range over seeds.

    It begins with a line about the listeners where these are simulated.
    """
    heads = [
        *("model", "seed", "r before", "r tuned", "gain", "r permuted", "tuned - permuted (95 % interval)"),
        *("permuted rise (95 % interval)", "low-level share before / tuned / permuted", "null r"),
    ]
    listeners = simulated_said(result.simulated for result in results)
    lines = [*([listeners, ""] if listeners else []), *markdown_table(heads, map(_cells, results))]
    models = dict.fromkeys(result.model for result in results)
    for model in models:
        lines += ["", *([f"{model}:"] if len(models) > 1 else [])]
        lines += _over_seeds([result for result in results if result.model == model])
    draws = sorted({result.n_permutations for result in results})
    if draws != [1]:
        lines.append(f"- permuted: mean over {' or '.join(map(str, draws))} permutations of each seed")
    return "\n".join(lines)


def _cells(result: SeedResult) -> list[str]:
    brain = result.brain
    return [
        *(result.model, str(result.seed), f"{brain.r_before:.3f}", f"{brain.r_after:.3f}"),
        *(f"{result.gain_percent:+.0f} %", f"{result.r_permuted:.3f}"),
        *(change_said(result.beyond_permuted), change_said(result.permuted_rise)),
        " / ".join(map(number_said, (brain.share_before, brain.share_after, result.share_permuted))),
        number_said(result.null_brain),
    ]


def _over_seeds(results: Sequence[SeedResult]) -> list[str]:
    """Mean and range of what is claimed, over seeds."""
    shares = [(result.brain.share_before, result.brain.share_after) for result in results]
    claims = {
        "gain over the backbone before tuning (%)": [result.gain_percent for result in results],
        "r tuned - r permuted": [result.beyond_permuted.value for result in results],
        "fall of the low-level share": [a - b for a, b in shares if a is not None and b is not None],
    }
    return [
        f"- {name}: mean {np.mean(values):.3g}, range {min(values):.3g} to {max(values):.3g} over {len(values)} seeds"
        for name, values in claims.items()
        if values
    ]


def tuning_change(summary: Summary, region: str) -> TuningChange:
    """Alignment and low-level share of a region before and after tuning.

    Raises
    ------
    ValueError
        If the run has no alignment before and after in this region.
    """
    row = find_score(summary, region, "r_backbone")
    if row is None or "difference" not in row:
        raise ValueError(
            f"the run {run_name(summary)} has no r_backbone before and after tuning in {region!r}; regions:"
            f" {', '.join(regions_of(summary)) or 'none'}. The untuned model needs no run of its own: leave regime"
            " pretrained out."
        )
    share, change = find_score(summary, region, "low_level_share"), row["difference"]
    bounds = None if None in (change["low"], change["high"]) else (change["low"], change["high"])
    own = {name: find_score(summary, region, "r_backbone", name) for name in summary["probe"].get("subjects", ())}
    return TuningChange(
        layer=int(row["layer"]),
        n_voxels=int(row["n_voxels"]),
        n_subjects=int(row["n_subjects"]),
        r_before=float(row["before"]["value"]),
        r_after=float(row["after"]["value"]),
        rise=Score(float(change["value"]), bounds=bounds),
        share_before=stage_value(share, "before"),
        share_after=stage_value(share, "after"),
        people={n: rise for n, one in own.items() if (rise := stage_value(one, "difference")) is not None},
    )


def run_name(summary: Summary) -> str:
    """Experiment and id."""
    return f"{summary['run'].get('experiment')}/{summary['run'].get('id')}"


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Mean of the numbers that are defined; None where none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _seed_result(tuned: FinishedRun, permuted: Sequence[FinishedRun], region: str | None) -> SeedResult:
    facts, name = tuned.summary["run"], region or str(tuned.summary["headline_region"])
    brain, controls = tuning_change(tuned.summary, name), [tuning_change(run.summary, name) for run in permuted]
    for control in controls:
        if abs(brain.r_before - control.r_before) > SAME_START:
            raise ValueError(
                f"{_model(facts)}, seed {facts['seed']}: before tuning the brain run has r {brain.r_before:.4f}"
                f" in {name}, the permuted run {control.r_before:.4f}; they did not start from the same"
                " model, stories and probe."
            )
    null = find_score(tuned.summary, "null", "r_backbone") if "null" in regions_of(tuned.summary) else None
    r_permuted = float(np.mean([control.r_after for control in controls]))
    return SeedResult(
        model=_model(facts),
        seed=int(facts["seed"]),
        beyond_permuted=_difference(tuned, permuted, name, brain.r_after - r_permuted),
        brain=brain,
        r_permuted=r_permuted,
        permuted_rise=mean_score([control.rise for control in controls]),
        share_permuted=mean_of_known(control.share_after for control in controls),
        null_brain=stage_value(null, "after"),
        n_permutations=len(permuted),
        simulated=bool(facts.get("simulated")),
    )


def _difference(tuned: FinishedRun, permuted: Sequence[FinishedRun], region: str, value: float) -> Score:
    """r tuned - mean r permuted with replicates, where all were probed alike; without them otherwise."""
    prints = [{name: record.fingerprint for name, record in run.after.items()} for run in (tuned, *permuted)]
    if not prints[0] or any(other != prints[0] for other in prints):
        return Score(value)
    own, *others = (_alignment(run.after, region) for run in (tuned, *permuted))
    return Score(value, (own - mean_score(others)).replicates)


def _alignment(records: Mapping[str, ProbeRecord], region: str) -> Score:
    """r of the compared layer, mean over subjects."""
    layer = next(iter(records.values())).layer
    rows = [record.table.get(region, layer, "r_backbone") for record in records.values()]
    return mean_score([row.score for row in rows if row is not None])


def _finished(path: Path, summary: Summary, region: str | None) -> FinishedRun:
    """The run with its first and last probes; what was probed in between is not read."""
    regions = {region or str(summary["headline_region"]), *KEPT_REGIONS}
    files: dict[str, list[Path]] = {}
    for file in record_files(path / "probes"):
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
