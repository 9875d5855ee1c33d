"""A run directory with real probes of planted features: the backbone learns meaning between epoch 0 and epoch 4."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brainlit.encoding.bootstrap import block_weights
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.probe import run_probe
from brainlit.encoding.result import ProbeResult
from brainlit.results.record import ProbeRecord, save_record
from brainlit.results.run_directory import RunDirectory, collect, write_json_atomic, write_provenance
from brainlit.results.scores import ScoreTable, curve_rows, probe_rows, regions_with_all
from brainlit.results.summary import RUN_FILE

N_TRS, N_FIT, N_SCORE = 60, 4, 2
KINDS = ("semantic", "auditory", "null")
CONFIG = ProbeConfig(delays_trs=(1, 2), n_gammas={1: 1, 2: 2, 3: 2}, alphas=(1.0, 10.0, 100.0, 1000.0), n_folds=2)
BOOTSTRAP = {"block_trs": 10, "n_bootstraps": 200, "seed": 0}


class FakeBrain:
    """Stories of noise; low-level and semantic series of 3 columns; voxels of three kinds, one TR later.

    Parameters
    ----------
    n_voxels : int
        A multiple of 3: as many semantic as auditory as null voxels.
    """

    def __init__(self, subject: str, n_voxels: int = 24, seed: int = 0) -> None:
        stimulus = np.random.default_rng(seed)
        rng = np.random.default_rng([seed, *subject.encode()])
        n = N_TRS * (N_FIT + N_SCORE)
        self.subject = subject
        self.groups = np.repeat(np.arange(N_FIT + N_SCORE), N_TRS)
        self.fit, self.score = self.groups < N_FIT, self.groups >= N_FIT
        self.low_level, self.semantic = stimulus.standard_normal((2, n, 3))
        kind = np.repeat(np.arange(3), n_voxels // 3)
        self.regions = {name: kind == k for k, name in enumerate(KINDS)}
        signal = np.where(kind == 0, self.semantic @ rng.standard_normal((3, n_voxels)), 0)
        signal = signal + np.where(kind < 2, self.low_level @ rng.standard_normal((3, n_voxels)), 0)
        noise = rng.standard_normal((3, n, n_voxels)) * 3.0
        self.repeats = np.roll(signal, 1, axis=0) + noise
        self.responses = self.repeats.mean(axis=0).astype(np.float32)
        self.vertices = rng.choice(20_484, n_voxels, replace=False).astype(np.int64)
        self.ceiling = np.where(kind == 2, np.nan, 0.75)

    def backbone(self, epoch: int, layer: int, learns: float = 1.0) -> np.ndarray:
        """Low-level features, with meaning growing by epoch and layer, in noise of its own."""
        rng = np.random.default_rng([epoch, layer])
        meaning = learns * 0.2 * epoch * layer * self.semantic
        both = np.concatenate([self.low_level, meaning], axis=1)
        return (both + 0.5 * rng.standard_normal(both.shape)).astype(np.float32)

    def probe(self, epoch: int, layer: int, learns: float = 1.0, *, alone: bool = False) -> ProbeResult:
        """The probe of one layer with all bands, or alone."""
        bands = {"backbone": self.backbone(epoch, layer, learns)}
        if not alone:
            bands |= {"low_level": self.low_level, "semantic": self.semantic}
        return run_probe(bands, self.responses, self.groups, self.fit, self.score, CONFIG, ceiling=self.ceiling)


def fake_record(
    brain: FakeBrain, stage: str, epoch: int, learns: float = 1.0, places: bool = True
) -> tuple[ProbeRecord, ProbeResult]:
    """The record of layer 2 of 3, with a curve over layers 1 and 2."""
    result = brain.probe(epoch, 2, learns)
    regions = regions_with_all(brain.regions, result.used)
    blocks = block_weights(result.score_groups, **BOOTSTRAP)
    rows = probe_rows(result, regions, 2, blocks)
    first = brain.probe(epoch, 1, learns, alone=True)
    rows += curve_rows(first, regions, 1, blocks)
    spans = [f"story{k}[0:{N_TRS}]" for k in range(N_FIT + N_SCORE)]
    facts = {
        "fit_spans": spans[:N_FIT],
        "score_spans": spans[N_FIT:],
        "score_stories": [f"story{k}" for k in range(N_FIT, N_FIT + N_SCORE)],
        "n_fit_trs": N_FIT * (N_TRS - 5),
        "n_score_trs": len(result.score_groups),
        "n_voxels": len(result.used),
        "n_used": int(result.used.sum()),
        "n_dropped": result.n_dropped,
        "n_repeats": 3,
        "delays_trs": [1, 2],
        "ridge": "4 alphas",
        "bootstrap": BOOTSTRAP,
        "warnings": [],
        "seconds": 1.0,
    }
    record = ProbeRecord(
        subject=brain.subject,
        stage=stage,
        epoch=epoch,
        step=10 * epoch,
        layer=2,
        fingerprint=f"print-{brain.subject}",
        table=ScoreTable(rows),
        r=result.r_by_model["backbone"],
        ceiling=result.ceiling,
        regions=regions,
        vertices=brain.vertices if places else None,
        r_by_layer={1: first.r.astype(np.float32), 2: result.r_by_model["backbone"].astype(np.float32)},
        facts=facts,
    )
    return record, result


def fake_run(
    root: Path,
    subjects: tuple[str, ...] = ("sub-1", "sub-2"),
    learns: float = 1.0,
    epochs: tuple[int, ...] = (0, 2, 4),
    control: bool = False,
    places: bool = True,
    run_id: str = "one",
) -> RunDirectory:
    """A run directory with probes, metrics and provenance."""
    run = RunDirectory.create(root, "fake", run_id)
    for epoch in epochs:
        stage = "before" if epoch == 0 else "after" if epoch == epochs[-1] else "during"
        for subject in subjects:
            save_record(*fake_record(FakeBrain(subject), stage, epoch, learns, places), run.probes)
    facts = {"regime": "permuted" if control else "brain", "control": control, "simulated": True}
    words = {"model": "wav2vec (tiny), 4 layers of 128", "data": "fake stories", "training": "4 epochs"}
    write_json_atomic(run.path / RUN_FILE, {**facts, **words})
    write_provenance(run.path, collect(seed=3))
    steps = range(0, 40, 2)
    lines = ["epoch,step,train/loss,val/loss", *(f"{k // 10},{k},{1 - k / 80:.3f}," for k in steps)]
    lines += [f"{k},{10 * k + 9},,{0.98 - k / 20:.3f}" for k in range(4)]
    (run.path / "metrics.csv").write_text("\n".join(lines) + "\n")
    return run
