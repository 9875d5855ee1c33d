"""Tuned against permuted, seed by seed: is it the match between sound and brain that makes a model more semantic?

Runs are paired by seed: `brain` and `permuted` runs of one seed share stories, listeners, starting weights and the
probe before tuning, so the difference of their alignments after tuning is what the match alone brought.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.results.lookup import find_score, regions_of
from brainlit.results.run_directory import read_json
from brainlit.results.summary import SUMMARY_FILE

Summary = Mapping[str, Any]
REGIMES = ("brain", "permuted")


@dataclass(frozen=True)
class SeedResult:
    """What one seed shows about one region.

    Parameters
    ----------
    r_before, r_brain, r_permuted : float
        Mean held-out correlation of the backbone's layer before tuning, after it, and after permuted tuning.
    permuted_rise : (float, float, float)
        Rise of the permuted control with its 95 % interval over held-out time.
    share_before, share_brain, share_permuted : float or None
        Low-level share; None where it is not defined.
    null_brain : float or None
        r of the voxels that follow nothing, after tuning; None where the data have none.
    """

    seed: int
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

    @property
    def beyond_permuted(self) -> float:
        """r_brain - r_permuted."""
        return self.r_brain - self.r_permuted


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


def pair_by_seed(summaries: Sequence[Summary], region: str | None = None) -> list[SeedResult]:
    """One result per seed that has a brain and a permuted run; the region is that of the headline by default.

    Raises
    ------
    ValueError
        If no seed has both, one has a regime twice, or the probes before tuning differ, so that they are not a pair.
    """
    found: dict[tuple[int, str], Summary] = {}
    for summary in summaries:
        key = (int(summary["run"]["seed"]), str(summary["run"].get("regime")))
        if key in found:
            raise ValueError(f"two runs of seed {key[0]} have the regime {key[1]!r}; name only one of them.")
        found[key] = summary
    seeds = sorted({seed for seed, _ in found})
    paired = [seed for seed in seeds if all((seed, regime) in found for regime in REGIMES)]
    if not paired:
        raise ValueError(f"the seeds {seeds} have no brain and permuted run together; train both with the same SEED.")
    return [_seed_result(seed, found[seed, "brain"], found[seed, "permuted"], region) for seed in paired]


def comparison_table(results: Sequence[SeedResult]) -> str:
    """Markdown: one line per seed, then mean and range over seeds."""
    lines = [
        "| seed | r before | r tuned | gain | r permuted | tuned - permuted | permuted rise (95 % interval) |"
        " low-level share before / tuned / permuted | null r |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        rise, low, high = result.permuted_rise
        interval = "" if low is None or high is None else f" ({low:+.3f} to {high:+.3f})"
        shares = " / ".join(_number(s) for s in (result.share_before, result.share_brain, result.share_permuted))
        lines.append(
            f"| {result.seed} | {result.r_before:.3f} | {result.r_brain:.3f} | {result.gain_percent:+.0f} % |"
            f" {result.r_permuted:.3f} | {result.beyond_permuted:+.3f} | {rise:+.3f}{interval} | {shares} |"
            f" {_number(result.null_brain)} |"
        )
    return "\n".join([*lines, "", *_over_seeds(results)])


def _over_seeds(results: Sequence[SeedResult]) -> list[str]:
    """Mean and range of what is claimed, over seeds."""
    claims = {
        "gain over the backbone before tuning (%)": [result.gain_percent for result in results],
        "r tuned - r permuted": [result.beyond_permuted for result in results],
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


def _seed_result(seed: int, brain: Summary, permuted: Summary, region: str | None) -> SeedResult:
    name = region or str(brain["headline_region"])
    row, control = (_row(summary, name, "r_backbone") for summary in (brain, permuted))
    if abs(row["before"]["value"] - control["before"]["value"]) > 1e-6:
        raise ValueError(
            f"seed {seed}: before tuning the brain run has r {row['before']['value']:.4f} in {name}, the permuted run"
            f" {control['before']['value']:.4f}; they did not start from the same model, stories and probe."
        )
    share, control_share = (find_score(summary, name, "low_level_share") for summary in (brain, permuted))
    null = find_score(brain, "null", "r_backbone") if "null" in regions_of(brain) else None
    rise = control["difference"]
    return SeedResult(
        seed=seed,
        r_before=row["before"]["value"],
        r_brain=row["after"]["value"],
        r_permuted=control["after"]["value"],
        permuted_rise=(rise["value"], rise["low"], rise["high"]),
        share_before=_value(share, "before"),
        share_brain=_value(share, "after"),
        share_permuted=_value(control_share, "after"),
        null_brain=_value(null, "after"),
    )


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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
