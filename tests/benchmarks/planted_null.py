"""What tuning changes in voxels that mean nothing: `python -m tests.benchmarks.planted_null RUN...`.

The demo's auditory voxels follow low-level features; no speech model explains anything there that these do not. RUNs
are folders of `brainlit fit` on the demo, each of another seed; shares need its 12 stories to fit, for which
experiments/quick.yaml has too few. The untuned and the tuned model are probed as the probe's defaults say, and a table
gives mean changes with t intervals over seeds, the speech model's own part by `region_shares`, and how many of its
intervals hold the 0 that was planted.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainlit.cli.probe import _datamodule
from brainlit.cli.probe_options import ProbeCLI, settings_of_run
from brainlit.cli.probe_sources import from_model
from brainlit.cli.trust import config_file
from brainlit.encoding import ProbeResult, region_shares, run_probe
from brainlit.encoding.statistics import Score, student_quantile
from brainlit.probing.engine import ProbeEngine
from brainlit.probing.inputs import borrowed_state
from brainlit.results.run_directory import RunDirectory

Array = npt.NDArray[np.float64]
REGIONS = ("auditory", "attention", "arousal", "modulation", "semantic")
"""Planted nulls, of which modulation has a part of its own (sound that the probe lacks), and what is no null."""
IMPACTS = ("residual_lag0", "residual_lags", "banded_ridge")


@dataclass(frozen=True)
class Moment:
    """One model, one region: numbers averaged over subjects, and each subject's own part, or why there is none."""

    numbers: Mapping[str, float]
    own_parts: Sequence[tuple[float, float, float]]
    why_not: str = ""


def measure(run_path: Path) -> dict[tuple[str, str], Moment]:
    """By moment ('before', 'after') and region."""
    run = RunDirectory.open(run_path)
    cli = ProbeCLI(["-c", str(config_file(run.path))], settings_of_run(run))
    datamodule = _datamodule(cli.resolved["data"])
    last = sorted((run.path / "checkpoints").glob("last*.ckpt"))[0]
    models = {"before": from_model(cli, datamodule, None, None), "after": from_model(cli, datamodule, last, run)}
    engine = ProbeEngine(cli.settings.engine().config, [-1], -1)
    found = {}
    for moment, probed in models.items():
        assert probed.module is not None
        with borrowed_state(probed.module):
            features, _ = engine.features(probed.module, datamodule)
        by_region: dict[str, list[tuple[dict[str, float], Score | str]]] = {r: [] for r in REGIONS}
        for subject in datamodule.probed_subjects:
            data = engine.subject_data(datamodule, subject)
            bands = {"backbone": features[max(features)][data.rows], **data.stimulus}
            roles = (data.groups, data.fit, data.score, engine.config)
            result = run_probe(bands, data.responses, *roles)
            for region in REGIONS:
                voxels = data.regions[region]
                own: Score | str
                try:
                    own = region_shares(bands, data.responses[:, voxels], *roles).parts["backbone"]
                except ValueError as error:
                    own = str(error)
                by_region[region].append((numbers_of(result, voxels), own))
        for region, each in by_region.items():
            means = {name: float(np.mean([numbers[name] for numbers, _ in each])) for name in each[0][0]}
            own_parts = [(own.value, own.low, own.high) for _, own in each if not isinstance(own, str)]
            why_not = "; ".join(dict.fromkeys(own for _, own in each if isinstance(own, str)))
            found[moment, region] = Moment(means, own_parts, why_not)
    return found


def numbers_of(result: ProbeResult, voxels: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Alignment, low-level share and impacts of a region, as docs/probe.md defines them."""
    r2 = {model: values[voxels].sum() for model, values in result.r2_by_model.items()}
    r = float(np.mean(result.r_by_model["backbone"][voxels]))
    shared = r2["backbone"] + r2["low_level"] - r2["backbone+low_level"]
    impacts = {f"impact_{way}": 100 * (r - float(np.mean(result.r_rest[way][voxels]))) / r for way in IMPACTS}
    return {"r_backbone": r, "low_level_share": float(shared / r2["backbone"]), **impacts}


def table(runs: Sequence[Mapping[tuple[str, str], Moment]]) -> str:
    """As Markdown: change by tuning, then the own part."""
    lines = [f"| {len(runs)} seeds | {' | '.join(REGIONS)} |", f"|{' --- |' * (len(REGIONS) + 1)}"]
    for name in runs[0]["before", REGIONS[0]].numbers:
        cells = [
            interval([run["after", r].numbers[name] - run["before", r].numbers[name] for run in runs]) for r in REGIONS
        ]
        lines.append(f"| change of {name} | {' | '.join(cells)} |")
    for moment in ("before", "after"):
        cells = []
        for region in REGIONS:
            if why_not := next((run[moment, region].why_not for run in runs if run[moment, region].why_not), ""):
                cells.append(f"no shares: {why_not}")
                continue
            own = np.array([part for run in runs for part in run[moment, region].own_parts])
            means = [float(np.mean([part[0] for part in run[moment, region].own_parts])) for run in runs]
            holds = int(((own[:, 1] <= 0) & (own[:, 2] >= 0)).sum())
            cells.append(f"{interval(means)}, {holds} of {len(own)} intervals hold 0")
        lines.append(f"| own part, share of the joint R2, {moment} | {' | '.join(cells)} |")
    return "\n".join(lines)


def interval(values: Sequence[float]) -> str:
    """Mean over seeds with its 95 % t interval."""
    mean, half = float(np.mean(values)), student_quantile(len(values) - 1, 0.95) * float(np.std(values, ddof=1))
    half /= np.sqrt(len(values))
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"


if __name__ == "__main__":
    print(table([measure(Path(name)) for name in sys.argv[1:]]))
