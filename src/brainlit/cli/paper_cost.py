"""What the whole paper (arXiv 2410.09230) costs: `brainlit plan --paper`. An estimate, from operations and rates.

Operations are counted by the formulas below. Rates of a processor are measured (a file of `make bench`, or the one that
was recorded); those of GPUs are peaks of their data sheets times a share that is assumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainlit.cli.errors import UsageError
from brainlit.results.tables import markdown_table
from brainlit.stories.lebel2023_facts import CHOOSE_STORIES, STORIES_27, TEST_STORY, TRIMMED_VOLUMES, VOLUMES

# --- Operations; every multiplication and every addition is one ---

FRAMES_PER_S = 50
N_LAYERS, HIDDEN = 12, 768
FRAME_WEIGHTS = N_LAYERS * 12 * HIDDEN**2
"""Weights that each frame passes in a transformer of base size: 85 million."""
CONVOLUTIONS_PER_S = 2 * 512 * 10 * 3200 + 2 * 512**2 * (3 * (1600 + 800 + 400 + 200) + 2 * (100 + 50))
"""Of wav2vec 2.0's seven convolutions, for a second of sound."""
WHISPER_S, WHISPER_SHORT_S = 30.0, 15.0
"""Windows shorter than the second are followed by silence up to the first (`positions: auto`)."""


def encoded_s(family: str, window_s: float) -> float:
    """Seconds that the transformer encodes for a window."""
    return WHISPER_S if family == "whisper" and window_s < WHISPER_SHORT_S else window_s


def forward_operations(family: str, window_s: float) -> float:
    """A window through front end and transformer: 2 per weight and frame, 4 per pair of frames and feature.

    Whisper's two small convolutions are left out.
    """
    convolutions = 0.0 if family == "whisper" else CONVOLUTIONS_PER_S * window_s
    return convolutions + trunk_operations(encoded_s(family, window_s) * FRAMES_PER_S)


def trunk_operations(n_frames: float) -> float:
    """The transformer alone, forward."""
    return 2 * n_frames * FRAME_WEIGHTS + 4 * N_LAYERS * n_frames**2 * HIDDEN


def training_operations(family: str, window_s: float) -> float:
    """Forward, and backward through the transformer, which is twice its forward pass; the front end is frozen."""
    backward = 2 * trunk_operations(encoded_s(family, window_s) * FRAMES_PER_S)
    return forward_operations(family, window_s) + backward


@dataclass(frozen=True)
class Regime:
    """A way to tune: epochs, and whether each subject has a model of its own."""

    epochs: int
    per_subject: bool = True


@dataclass(frozen=True)
class Study:
    """What is run.

    Parameters
    ----------
    families : tuple of str
    n_voxels : tuple of int
        Of each subject.
    regimes : mapping of name to Regime
        Those that tune; the pretrained model is probed beside them.
    n_seeds : int
    n_tune_trs, n_trs : int
        Windows of an epoch, and rows of all stories.
    window_s, probed_s : float
        Sound of a training window, and of one whose states are probed.
    n_layers, n_mixtures, n_folds, n_components : int
        Of the probe: layers, mixtures of bands, folds, principal components of all bands together.
    downstream_s : float
        Sound of the downstream tasks.
    """

    families: tuple[str, ...] = ("wav2vec", "hubert", "whisper")
    n_voxels: tuple[int, ...] = (23_539, 43_613, 50_732, 25_889, 18_530, 23_486, 28_319, 25_572)
    regimes: Mapping[str, Regime] = field(
        default_factory=lambda: {
            "brain": Regime(30),
            "permuted": Regime(30),
            "large_speech_model": Regime(30),
            "language_model": Regime(30),
            "stimulus": Regime(300, per_subject=False),
        }
    )
    n_seeds: int = 1
    n_tune_trs: int = sum(
        VOLUMES[story] - TRIMMED_VOLUMES for story in STORIES_27 if story not in (*CHOOSE_STORIES, TEST_STORY)
    )
    n_trs: int = sum(VOLUMES[story] - TRIMMED_VOLUMES for story in STORIES_27)
    window_s: float = 10.0
    probed_s: float = 18.0
    n_layers: int = 7
    n_mixtures: int = 23
    n_folds: int = 4
    n_components: int = 3711
    downstream_s: float = 97 * 3600.0

    @property
    def n_models(self) -> int:
        """Tuned models of one family."""
        return sum(self.n_seeds * (len(self.n_voxels) if regime.per_subject else 1) for regime in self.regimes.values())

    @property
    def n_epochs(self) -> int:
        """Epochs of all tuned models of one family."""
        return sum(
            self.n_seeds * regime.epochs * (len(self.n_voxels) if regime.per_subject else 1)
            for regime in self.regimes.values()
        )

    @property
    def n_probes_of_all(self) -> int:
        """How often all subjects are probed, one family: with the pretrained model, and once for regime and seed."""
        return 1 + self.n_seeds * len(self.regimes)

    def probe_operations(self) -> float:
        """One probe of all subjects: for each layer, mixture and fold 9 R^3 + 4 R^2 V."""
        r = self.n_components
        voxels = sum(9.0 * r**3 + 4.0 * r**2 * n for n in self.n_voxels)
        return self.n_layers * self.n_mixtures * self.n_folds * voxels

    def operations(self) -> dict[str, float]:
        """By part."""
        found = dict.fromkeys(("training", "features", "probes", "downstream"), 0.0)
        for family in self.families:
            found["training"] += self.n_epochs * self.n_tune_trs * training_operations(family, self.window_s)
            each = self.n_trs * forward_operations(family, self.probed_s)
            found["features"] += (1 + self.n_models) * each
            found["probes"] += self.n_probes_of_all * self.probe_operations()
            heard = self.downstream_s / self.window_s * forward_operations(family, self.window_s)
            found["downstream"] += (1 + self.n_models) * heard
        return found


# --- Rates ---


@dataclass(frozen=True)
class Rates:
    """Operations per second that one processor core or GPU does of each kind of work, and where that is from."""

    training: float
    forward: float
    ridge: float
    source: str


RECORDED = Rates(
    training=100e9,
    forward=100e9,
    ridge=75e9,
    source="recorded on one core of an Intel Xeon (AVX-512), full sizes",
)
"""Rows step, features_per_tr and banded of `make bench`; docs/benchmarks.md has the run."""
GPU_SHARE = 0.3
GPUS: Mapping[str, tuple[float, float]] = {"H200": (989e12, 67e12), "A100": (312e12, 19.5e12)}
"""Peaks of the data sheets: dense bfloat16 products, and float32 without tensor cores."""


def gpu_rates(name: str) -> Rates:
    """Networks in bfloat16, ridges in float32, both at the share of the peak that is assumed."""
    half, single = GPUS[name]
    return Rates(GPU_SHARE * half, GPU_SHARE * half, GPU_SHARE * single, "assumed")


def measured_rates(path: Path) -> Rates:
    """Rates of one core from a file of `make bench`.

    Raises
    ------
    UsageError
        If it is no such file, or lacks a row.
    """
    again = f"write it again: make bench ARGS='--output {path}'"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows: dict[str, Any] = {row["name"]: row for row in found["rows"]}
        machine = found["machine"]
        n_cores, processor = int(machine["threads"]), str(machine["processor"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--bench {path} cannot be read as a file of make bench ({error}); {again}.") from error
    if missing := [name for name in ("step", "features_per_tr", "banded") if name not in rows]:
        raise UsageError(f"--bench {path} lacks {', '.join(missing)}, of which rates are made; {again}.")
    step, banded, features = (rows[name] for name in ("step", "banded", "features_per_tr"))
    context_s = float(features["sizes"]["context s"]) + 2.0
    return Rates(
        training=step["operations"] / step["ours_s"] / n_cores,
        forward=forward_operations("wav2vec", context_s) / features["ours_s"] / n_cores,
        ridge=banded["operations"] / banded["ours_s"] / n_cores,
        source=f"measured on one core, {found['date'][:10]}: {processor}; sizes of {step['size']!r}",
    )


def seconds_of(operations: Mapping[str, float], rates: Rates, n_units: int) -> dict[str, float]:
    """Of each part on so many cores or GPUs, all of them busy."""
    kinds = {"training": rates.training, "features": rates.forward, "probes": rates.ridge, "downstream": rates.forward}
    return {part: n / kinds[part] / n_units for part, n in operations.items()}


# --- In words ---


def paper_text(study: Study, core: Rates) -> str:
    """The cost on one H200, on 8 A100s and on 2 cores, and all that was assumed."""
    operations = study.operations()
    machines = {"one H200": (gpu_rates("H200"), 1), "8 A100": (gpu_rates("A100"), 8), "2 cores": (core, 2)}
    columns = {name: seconds_of(operations, *of) for name, of in machines.items()}
    rows = [
        [part, f"{n:.2g}", *(duration(column[part]) for column in columns.values())] for part, n in operations.items()
    ]
    total = [f"{sum(operations.values()):.2g}", *(duration(sum(column.values())) for column in columns.values())]
    n_families, n_subjects = len(study.families), len(study.n_voxels)
    n_tuned = n_families * study.n_models
    lines = [
        f"The whole paper, an estimate: {n_families} families ({', '.join(study.families)}) x {n_subjects} subjects x"
        f" {len(study.regimes)} regimes that tune ({', '.join(study.regimes)}) x {study.n_seeds} seed"
        f"{'s' * (study.n_seeds > 1)}:",
        f"{n_tuned} trainings, {n_tuned + n_families} models whose features are taken,"
        f" {n_families * study.n_probes_of_all * n_subjects} probes of one subject.",
        "",
        *markdown_table(["part", "operations", *columns], [*rows, ["**all**", *total]]),
        "",
        "Assumed:",
        *(f"- {said}" for said in _assumptions(study, core)),
    ]
    return "\n".join(lines)


def _assumptions(study: Study, core: Rates) -> list[str]:
    epochs = ", ".join(
        f"{name} {regime.epochs}{'' if regime.per_subject else ' (one model for all subjects)'}"
        for name, regime in study.regimes.items()
    )
    peaks = ", ".join(
        f"{name} {half / 1e12:g} x 1e12 operations per second in bfloat16 and {single / 1e12:g} in float32"
        for name, (half, single) in GPUS.items()
    )
    return [
        f"epochs: {epochs}; none ends early; an epoch is {study.n_tune_trs:,} windows of {study.window_s:g} s, one"
        " for each row of 24 stories",
        "models of base size: 12 layers of 768; Whisper encodes 30 s for windows below 15; the front end is frozen and"
        " computed in every step; validation, reading and the optimiser are not counted",
        f"features: windows of {study.probed_s:g} s, one for each of {study.n_trs:,} rows of 27 stories, for each model"
        " once (one checkpoint each; published extraction encodes 20 windows where this is one)",
        f"probes: {study.n_layers} layers, {study.n_mixtures} mixtures, {study.n_folds} folds, {study.n_components:,}"
        f" components, {min(study.n_voxels):,} to {max(study.n_voxels):,} voxels per subject (above a ceiling of"
        " 0.4); for each layer, mixture and fold 9 R^3 + 4 R^2 V operations; permutation tests and bootstraps not"
        " counted",
        f"downstream: {study.downstream_s / 3600:g} hours of clips through each model once; fine-tuning for recognition"
        " and the probes themselves not counted",
        "runs do not depend on each other, so that 8 GPUs and 2 cores are all busy until the end, one run on each",
        f"GPUs: {GPU_SHARE:.0%} of the peak, a guess that nobody measured here; peaks of the data sheets: {peaks}",
        f"a core: {core.training / 1e9:.0f} x 1e9 operations per second in training, {core.forward / 1e9:.0f} in"
        f" forward passes, {core.ridge / 1e9:.0f} in ridges ({core.source})",
    ]


def duration(seconds: float) -> str:
    """In the unit that suits it, two digits.

    >>> duration(59.0), duration(5400.0), duration(86400.0 * 20), duration(3e8)
    ('0.98 min', '1.5 h', '20 days', '9.5 years')
    """
    for unit, length_s, most in (("min", 60.0, 60), ("h", 3600.0, 48), ("days", 86_400.0, 1000)):
        if seconds < most * length_s:
            return f"{float(f'{seconds / length_s:.2g}'):g} {unit}"
    return f"{float(f'{seconds / (365.25 * 86_400):.2g}'):,g} years"
