"""Rows of the suite about encoding models: ridges, the partition, and how they grow; and downstream probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from brainlit.downstream.clip import Clip
from brainlit.downstream.evaluate import evaluate
from brainlit.downstream.probes import LayerProbeConfig
from brainlit.downstream.task import TEST, Task
from brainlit.encoding import (
    BANDS,
    EncodingModel,
    ProbeCache,
    ProbeConfig,
    gamma_pool,
    model_name,
    run_probe,
    run_probes,
    subsets,
)
from tests.benchmarks import plain
from tests.benchmarks.probe_speed import Simulation, simulate
from tests.benchmarks.suite_measuring import Agreement, Answer, Case, Row, near, near_correlations

N_FOLDS = 4
KEPT = 0.999
"""Share of himalaya's mean held-out correlation that a probe at its default settings has to keep."""


@dataclass(frozen=True)
class Shape:
    """Rows that are fitted (one story more is scored), their stories, voxels, features of each band, mixtures."""

    n_trs: int
    story_trs: int
    n_voxels: int
    n_features: tuple[int, ...]
    n_gammas: Mapping[int, int]

    def data(self, seed: int = 0) -> Simulation:
        """Simulated bands and responses."""
        return simulate(self.n_trs, self.n_voxels, self.n_features, seed, self.story_trs)

    def config(self) -> ProbeConfig:
        """The settings of a probe as they are by default, but for its mixtures, and means per TR at four delays."""
        return ProbeConfig(n_gammas=dict(self.n_gammas), low_level_impact=False, leave_out_fit=False, n_folds=N_FOLDS)

    def gammas(self) -> np.ndarray:
        """The mixtures that both sides try."""
        return gamma_pool(len(self.n_features), self.n_gammas, self.config().seed)

    def sizes(self) -> dict[str, object]:
        """For the file."""
        return {
            "TRs": self.n_trs,
            "voxels": self.n_voxels,
            "columns": [4 * n for n in self.n_features],
            "mixtures": len(self.gammas()),
            "folds": N_FOLDS,
            "alphas": len(self.config().alphas),
        }


POOL = {1: 1, 2: 1, 3: 1}
SINGLE = {
    "full": Shape(3000, 300, 4000, (256,), {1: 1}),
    "quick": Shape(1200, 300, 1000, (96,), {1: 1}),
    "tiny": Shape(1200, 60, 30, (6,), {1: 1}),
}
BANDED = {
    "full": Shape(1200, 300, 2000, (72, 48, 72), POOL),
    "quick": Shape(800, 200, 500, (40, 24, 40), POOL),
    "tiny": Shape(160, 40, 30, (6, 4, 6), POOL),
}
PARTITION = {
    "full": Shape(800, 200, 1000, (48, 32, 48), POOL),
    "quick": Shape(480, 120, 300, (24, 16, 24), POOL),
    "tiny": Shape(160, 40, 20, (5, 4, 5), POOL),
}
GROWING = {
    "full": (Shape(400, 100, 500, (24, 16, 24), POOL), (1, 2, 4)),
    "quick": (Shape(240, 60, 100, (12, 8, 12), POOL), (1, 2, 4)),
    "tiny": (Shape(240, 60, 15, (5, 4, 5), POOL), (1, 2)),
}


# --- One band, several bands, all sets of bands ---


def fitted(data: Simulation, config: ProbeConfig) -> tuple[EncodingModel, np.ndarray]:
    """brainlit's encoding model of all bands, and its correlations with the held-out story."""
    fit = data.fit
    model = EncodingModel(config).fit({name: X[fit] for name, X in data.raw.items()}, data.Y[fit], data.groups[fit])
    late = {name: X[~fit] for name, X in data.raw.items()}
    return model, model.score(late, data.Y[~fit], data.groups[~fit])


def arranged(data: Simulation) -> plain.Columns:
    """The same rows, prepared plainly."""
    return plain.columns_of(list(data.raw.values()), data.Y, data.groups, data.fit)


def scored(data: plain.Columns, predicted: np.ndarray) -> np.ndarray:
    """Correlations of plain predictions."""
    return plain.correlations(data.Y[~data.fit], predicted, data.groups[~data.fit])


def searched(data: Simulation, shape: Shape, members: tuple[int, ...] | None = None) -> np.ndarray:
    """What himalaya predicts with some of the bands (all by default), each mixture inside of them tried."""
    own = members or tuple(range(len(shape.n_features)))
    gammas = shape.gammas()
    inside = gammas[np.isclose(gammas[:, list(own)].sum(axis=1), 1.0)][:, list(own)]
    return plain.random_search(arranged(data), own, inside, shape.config().alphas, N_FOLDS)


def single_band(size: str, folder: Path) -> Iterator[Case]:
    """One band against the field's bootstrap ridge.

    That one chooses alphas on other rows and by another measure, so its correlations are others: ours may not be lower.
    That ours are right is shown by a plain ridge that chooses as brainlit does.
    """
    shape = SINGLE[size]
    data, config = shape.data(), shape.config()
    of_bootstrap: list[float] = []

    def ours() -> Answer:
        return {"r": fitted(data, config)[1]}

    def reference() -> Answer:
        own = arranged(data)
        r = scored(own, plain.bootstrap_ridge(own, config.alphas))
        of_bootstrap[:] = [float(r.mean())]
        return {"r": r}

    def same_folds() -> Answer:
        own = arranged(data)
        return {"r": scored(own, plain.ridge_by_stories(own, config.alphas, N_FOLDS))}

    def agree(own: Answer, wanted: Answer) -> Agreement:
        close = near_correlations(mean=0.0001, most=0.002)(own, wanted)
        lower = of_bootstrap[0] - float(np.mean(own["r"]))
        said = f"a plain ridge with the same folds: {close.said}; the bootstrap ridge's mean r is {of_bootstrap[0]:.4f}"
        return Agreement(close.same and lower <= 0.003, f"{said} (at most 0.003 higher than ours)")

    sizes = {**shape.sizes(), "folds": "4 of whole stories; 3 draws of chunks of 20 TRs"}
    yield Case(sizes, ours, reference, agree, check=(ours, same_folds))


def banded(size: str, folder: Path) -> Iterator[Case]:
    """Three bands against himalaya's random search."""
    shape = BANDED[size]
    data, config = shape.data(), shape.config()
    models: list[EncodingModel] = []

    def ours() -> Answer:
        model, r = fitted(data, config)
        models[:] = [model]
        return {"r": r}

    def reference() -> Answer:
        return {"r": scored(arranged(data), searched(data, shape))}

    def operations() -> float:
        return ridge_operations(sum(len(w) for w in models[0].weights_.values()), shape)

    yield Case(shape.sizes(), ours, reference, kept_score, operations=operations)


def ridge_operations(n_components: int, shape: Shape) -> float:
    """Of a search: for each mixture and fold an eigendecomposition (9 R^3) and two products (4 R^2 V)."""
    each = 9 * n_components**3 + 4 * n_components**2 * shape.n_voxels
    return float(len(shape.gammas()) * N_FOLDS * each)


def kept_score(ours: Answer, reference: Answer) -> Agreement:
    """Whether the mean correlation is at least 99.9 % of himalaya's and not above it by more; 99 % of voxels near."""
    means = [float(np.mean(answer["r"])) for answer in (ours, reference)]
    far = float(np.quantile(np.abs(ours["r"] - reference["r"]), 0.99))
    share = means[0] / means[1]
    said = f"mean r {means[0]:.4f} is {share:.2%} of {means[1]:.4f}, 99% of voxels within {far:.4f} (0.05)"
    return Agreement(KEPT <= share <= 2 - KEPT and far <= 0.05, said)


def partition(size: str, folder: Path) -> Iterator[Case]:
    """Seven nested models against seven searches of himalaya."""
    shape = PARTITION[size]
    data, config = shape.data(), shape.config()

    def ours() -> Answer:
        found = run_probe(data.raw, data.Y, data.groups, data.fit, ~data.fit, config)
        return {model_name(bands): found.r2_by_model[model_name(bands)] for bands in subsets(BANDS)}

    def reference() -> Answer:
        return {model_name(bands): himalaya_r2(data, shape, bands) for bands in subsets(BANDS)}

    yield Case({**shape.sizes(), "models": 7}, ours, reference, same_parts)


def himalaya_r2(data: Simulation, shape: Shape, bands: tuple[str, ...]) -> np.ndarray:
    """R2 of one model."""
    own = arranged(data)
    predicted = searched(data, shape, tuple(BANDS.index(band) for band in bands))
    return plain.r2(own.Y[~own.fit], predicted, own.groups[~own.fit])


def same_parts(ours: Answer, reference: Answer) -> Agreement:
    """Whether R2 of every model is near, and the maps of what each band alone adds correlate by .98 or more."""
    close = near(0.05)(ours, reference)
    joint = max(reference, key=len)
    correlations = []
    for band in BANDS:
        without = model_name(tuple(other for other in BANDS if other != band))
        own, theirs = (answer[joint] - answer[without] for answer in (ours, reference))
        correlations.append(float(np.corrcoef(own, theirs)[0, 1]))
    means = max(abs(float(np.mean(ours[name] - values))) for name, values in reference.items())
    said = f"R2 {close.said}, means within {means:.5f} (0.001), unique R2 correlate by {min(correlations):.4f} (0.98)"
    return Agreement(close.same and means <= 0.001 and min(correlations) >= 0.98, said)


# --- Growth ---


def growth_voxels(size: str, folder: Path) -> Iterator[Case]:
    """Three bands, more and more voxels."""
    shape, steps = GROWING[size]
    yield from (_joint(replace(shape, n_voxels=k * shape.n_voxels), k * shape.n_voxels) for k in steps)


def growth_trs(size: str, folder: Path) -> Iterator[Case]:
    """Three bands, more and more TRs."""
    shape, steps = GROWING[size]
    yield from (_joint(replace(shape, n_trs=k * shape.n_trs), k * shape.n_trs) for k in steps)


def _joint(shape: Shape, at: int) -> Case:
    data, config = shape.data(), shape.config()
    return Case(
        shape.sizes(),
        lambda: {"r": fitted(data, config)[1]},
        lambda: {"r": scored(arranged(data), searched(data, shape))},
        near_correlations(mean=0.001, most=0.05),
        at=at,
    )


PAIR = (("backbone",), ("low_level",), ("backbone", "low_level"))


def growth_layers(size: str, folder: Path) -> Iterator[Case]:
    """Layers of one model: the stimulus band is the same for all."""
    shape, steps = GROWING[size]
    shape = replace(shape, n_features=shape.n_features[:2])
    data = shape.data()
    rng, backbone = np.random.default_rng(1), data.raw["backbone"]
    layers = [backbone + 0.1 * rng.standard_normal(backbone.shape, dtype=np.float32) for _ in range(max(steps))]
    of_layer = [replace(data, raw={**data.raw, "backbone": layer}) for layer in layers]

    def ours(n: int) -> Answer:
        cache, found = ProbeCache(), {}
        for k, own in enumerate(of_layer[:n]):
            result = run_probe(own.raw, own.Y, own.groups, own.fit, ~own.fit, shape.config(), cache=cache)
            found |= {f"{k} {model_name(bands)}": result.r_by_model[model_name(bands)] for bands in PAIR}
        return found

    yield from (_pairs(shape, of_layer[:n], lambda n=n: ours(n), n, "layers") for n in steps)


def growth_subjects(size: str, folder: Path) -> Iterator[Case]:
    """People who heard the same: the bands are the same for all."""
    shape, steps = GROWING[size]
    shape = replace(shape, n_features=shape.n_features[:2])
    first = replace(shape, n_voxels=max(steps) * shape.n_voxels).data()
    people = [replace(first, Y=Y) for Y in np.split(first.Y, max(steps), axis=1)]

    def ours(n: int) -> Answer:
        Ys = {f"S{k}": people[k].Y for k in range(n)}
        results = run_probes(first.raw, Ys, first.groups, first.fit, ~first.fit, shape.config())
        return {f"{k} {model_name(b)}": results[f"S{k}"].r_by_model[model_name(b)] for k in range(n) for b in PAIR}

    yield from (_pairs(shape, people[:n], lambda n=n: ours(n), n, "subjects") for n in steps)


def _pairs(shape: Shape, data: list[Simulation], ours: Callable[[], Answer], n: int, what: str) -> Case:
    """Two bands and their three models for each of several; himalaya fits every one of them by itself."""

    def reference() -> Answer:
        found = {}
        for k, own in enumerate(data):
            for bands in PAIR:
                predicted = searched(own, shape, tuple(BANDS.index(band) for band in bands))
                found[f"{k} {model_name(bands)}"] = scored(arranged(own), predicted)
        return found

    sizes = {**shape.sizes(), what: n, "models": 3 * n}
    return Case(sizes, ours, reference, near_correlations(mean=0.001, most=0.05), at=n)


# --- Downstream ---


def downstream(size: str, folder: Path) -> Iterator[Case]:
    """Logistic probes of several layers, chosen and scored, with an interval over speakers."""
    n_clips, n_features, n_layers, n_labels = {
        "full": (2000, 768, 4, 12),
        "quick": (800, 256, 3, 8),
        "tiny": (200, 12, 2, 3),
    }[size]
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((n_labels, n_features))
    parts = {"train": n_clips, "choose": n_clips // 2, "test": n_clips // 2}
    targets = {part: rng.integers(0, n_labels, n) for part, n in parts.items()}
    features = {
        part: {
            layer: np.float32(centres[own] * (0.1 + 0.05 * layer) + rng.standard_normal((len(own), n_features)))
            for layer in range(n_layers)
        }
        for part, own in targets.items()
    }
    speakers = {part: [f"s{k % 20:02d}" for k in range(n)] for part, n in parts.items()}
    silence = np.zeros(16, dtype=np.int16)
    clips = {
        part: [Clip(f"{part}-{k}", silence, speaker=name) for k, name in enumerate(names)]
        for part, names in speakers.items()
    }
    labels = tuple(f"label{k:02d}" for k in range(n_labels))
    task = Task("suite", "single", labels, clips, targets, metric="accuracy")
    config = LayerProbeConfig(probes=("linear",))

    def ours() -> Answer:
        result = evaluate(task, features, config, progress=False)
        outcome = result.probes["linear"]
        result.score()  # with its interval
        right = outcome.predictions[TEST][:, 0] == targets["test"]
        return {"choose": outcome.choose_scores, "test": right.mean(axis=1)}

    def reference() -> Answer:
        found = plain.logistic(features, targets, config.strengths, config.max_steps)
        chosen = int(found["choose"].argmax())
        right = (np.arange(len(targets["test"])) < found["test"][chosen] * len(targets["test"])).astype(float)
        plain.bootstrap_interval(right, np.array(speakers["test"]), 1000, 0)
        return found

    sizes = {
        "clips": n_clips,
        "features": n_features,
        "layers": n_layers,
        "labels": n_labels,
        "strengths": len(config.strengths),
    }
    yield Case(sizes, ours, reference, near(0.0101))


HIMALAYA = "himalaya MultipleKernelRidgeCV, random_search, float32, the same mixtures, alphas and folds"
OURS = "EncodingModel at its default settings (float32, 99.9 % of each band's variance)"
ROWS = (
    Row(
        "single_band",
        OURS,
        "the field's bootstrap ridge, float64, 3 draws",
        single_band,
        least_ratio=6.0,
        warm=False,
    ),
    Row("banded", OURS, HIMALAYA, banded, least_ratio=6.0, warm=False),
    Row("partition", "run_probe, all 7 models", f"7 fits of {HIMALAYA}", partition, least_ratio=12.0, warm=False),
    Row("growth_voxels", OURS, HIMALAYA, growth_voxels, repeats=1, warm=False),
    Row("growth_trs", OURS, HIMALAYA, growth_trs, repeats=1, warm=False),
    Row(
        "growth_layers",
        "run_probe with one cache",
        f"a fit per model: {HIMALAYA}",
        growth_layers,
        repeats=1,
        warm=False,
    ),
    Row("growth_subjects", "run_probes of all", f"a fit per model: {HIMALAYA}", growth_subjects, repeats=1, warm=False),
    Row("downstream", "evaluate, linear probes", "scikit-learn's LogisticRegression, bootstrap in a loop", downstream),
)
