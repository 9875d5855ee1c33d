"""Tuned against permuted, seed by seed: is it the match between sound and brain that makes a model more semantic?

Runs are paired by model and seed: `brain` and `permuted` runs of one pair share stories, listeners, starting weights
and the probe before tuning, so the difference of their alignments after tuning is what the match alone brought.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.results.lookup import find_score, regions_of
from brainlit.results.record import ProbeRecord, find_records
from brainlit.results.region_scores import Score, mean_score
from brainlit.results.run_directory import read_json
from brainlit.results.summary import SUMMARY_FILE

Summary = Mapping[str, Any]
REGIMES = ("brain", "permuted")


@dataclass(frozen=True)
class FinishedRun:
    """A run's summary, and its probes from after tuning, by subject."""

    summary: Summary
    after: Mapping[str, ProbeRecord]


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
        Mean held-out correlation of the backbone's layer before tuning, after it, and after permuted tuning.
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


def read_finished(runs: Iterable[Path | str]) -> list[FinishedRun]:
    """Finished runs with their last probes; errors are those of `read_summaries`."""
    paths = [Path(run) for run in runs]
    return [
        FinishedRun(summary, _last_records(path)) for path, summary in zip(paths, read_summaries(paths), strict=True)
    ]


def pair_by_seed(runs: Sequence[FinishedRun], region: str | None = None) -> list[SeedResult]:
    """One result per model and seed that has a brain and a permuted run; the headline's region by default.

    Raises
    ------
    ValueError
        If no seed has both, one has a regime twice, or the probes before tuning differ, so that they are not a pair.
    """
    found: dict[tuple[str, int, str], FinishedRun] = {}
    for run in runs:
        facts = run.summary["run"]
        key = (_model(facts), int(facts["seed"]), str(facts.get("regime")))
        if key in found:
            raise ValueError(f"two runs of {key[0]}, seed {key[1]} have the regime {key[2]!r}; name only one of them.")
        found[key] = run
    pairs = sorted({(model, seed) for model, seed, _ in found})
    paired = [pair for pair in pairs if all((*pair, regime) in found for regime in REGIMES)]
    if not paired:
        raise ValueError(f"{pairs} have no brain and permuted run together; train both with the same MODEL and SEED.")
    return [_seed_result(found[(*pair, "brain")], found[(*pair, "permuted")], region) for pair in paired]


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


def _seed_result(tuned: FinishedRun, permuted: FinishedRun, region: str | None) -> SeedResult:
    brain, facts = tuned.summary, tuned.summary["run"]
    name = region or str(brain["headline_region"])
    row, control = (_row(run.summary, name, "r_backbone") for run in (tuned, permuted))
    if abs(row["before"]["value"] - control["before"]["value"]) > 1e-6:
        raise ValueError(
            f"{_model(facts)}, seed {facts['seed']}: before tuning the brain run has r {row['before']['value']:.4f} in"
            f" {name}, the permuted run {control['before']['value']:.4f}; they did not start from the same model,"
            " stories and probe."
        )
    share, control_share = (find_score(run.summary, name, "low_level_share") for run in (tuned, permuted))
    null = find_score(brain, "null", "r_backbone") if "null" in regions_of(brain) else None
    rise = control["difference"]
    return SeedResult(
        model=_model(facts),
        seed=int(facts["seed"]),
        beyond_permuted=_difference(tuned, permuted, name, row["after"]["value"] - control["after"]["value"]),
        r_before=row["before"]["value"],
        r_brain=row["after"]["value"],
        r_permuted=control["after"]["value"],
        permuted_rise=(rise["value"], rise["low"], rise["high"]),
        share_before=_value(share, "before"),
        share_brain=_value(share, "after"),
        share_permuted=_value(control_share, "after"),
        null_brain=_value(null, "after"),
    )


def _difference(tuned: FinishedRun, permuted: FinishedRun, region: str, value: float) -> Score:
    """r tuned - r permuted with replicates, where both were probed alike; without them otherwise."""
    prints = [{name: record.fingerprint for name, record in run.after.items()} for run in (tuned, permuted)]
    if not prints[0] or prints[0] != prints[1]:
        return Score(value)
    a, b = (_mean_alignment(run.after.values(), region) for run in (tuned, permuted))
    return Score(value, (a - b).replicates)


def _mean_alignment(records: Iterable[ProbeRecord], region: str) -> Score:
    rows = [record.table.get(region, record.layer, "r_backbone") for record in records]
    return mean_score([row.score for row in rows if row is not None])


def _last_records(run: Path) -> dict[str, ProbeRecord]:
    records = find_records(run / "probes")
    last = max((record.epoch for record in records), default=0)
    return {record.subject: record for record in records if record.epoch == last}


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
