"""Folders of finished runs whose numbers are planted: what each regime did to alignment, tasks and words is known."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from brainlit.demo.text import CATEGORIES
from brainlit.downstream.evaluate import task_result
from brainlit.downstream.pairs import DEMO_MEANING
from brainlit.downstream.result import TUNED, UNTUNED, ProbeOutcome, TaskResult, model_folder, task_path
from brainlit.downstream.tasks import WORDS
from brainlit.downstream.words import WordStates
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.statistics import Score
from brainlit.results.record import ProbeRecord, save_record
from brainlit.results.run_directory import RunDirectory, collect, write_json_atomic, write_provenance
from brainlit.results.scores import ScoreRow, ScoreTable
from brainlit.results.summary import RUN_FILE, build_summary, write_summary
from tests.downstream.planted import planted_task
from tests.results.fake_run import FakeBrain

SEEDS = (11, 12, 13)
LAYERS = (1, 2, 3, 4)
GAINS = {"pretrained": 0.0, "brain": 0.15, "permuted": -0.01, "stimulus": 0.03, "language_model": 0.12}
"""Of the last layer in semantic voxels; the first layer gains a tenth of it, auditory voxels half."""
SHARE_FALLS = {"brain": 0.3, "permuted": 0.01, "stimulus": 0.02, "language_model": 0.2}
RIGHT = {"pretrained": 0.40, "brain": 0.70, "permuted": 0.41, "stimulus": 0.45, "language_model": 0.6}
"""Share of seen words whose category is read; that of unseen words is 0.25 in all."""
MEANING = {"pretrained": 0.3, "brain": 1.2, "permuted": 0.3, "stimulus": 0.3, "language_model": 1.0}
PARTS = {"train": 8, "choose": 8, "test": 200, "test_unseen_words": 100}


def planted_run(
    root: Path, seed: int, regime: str, *, draw: int = 1, model: str = "wav2vec (tiny)", more: float = 0.0
) -> RunDirectory:
    """One finished run; `more` is added to its alignment after tuning."""
    name = f"{model.partition(' ')[0]}-{regime}-{seed}" + (f"-draw{draw}" if draw > 1 else "")
    run = RunDirectory.create(root, "reproduce", name)
    facts = {"regime": regime, "control": regime == "permuted", "simulated": True, "seed": seed}
    data = {"store": "planted", "store_fingerprint": f"store-{seed}"}
    about = {"model": f"{model}, 4 layers of 128", "data": "planted", "data_module": data}
    write_json_atomic(run.path / RUN_FILE, {**facts, **about})
    write_provenance(run.path, collect(seed=seed))
    for epoch in (0, 4) if regime != "pretrained" else (0,):
        planted = _record(seed, regime if epoch else "pretrained", epoch, (more + 0.002 * draw) if epoch else 0.0)
        save_record(planted, _result(), run.probes)
    _plant_downstream(run.path, seed, regime)
    run.finish()
    write_summary(run, build_summary(run))
    return run


def planted_reproduction(root: Path, seeds: tuple[int, ...] = SEEDS, model: str = "wav2vec (tiny)") -> list[Path]:
    """All runs of several seeds; two permutations each."""
    return [
        planted_run(root, seed, regime, draw=draw, model=model).path
        for seed in seeds
        for regime in GAINS
        for draw in ((1, 2) if regime == "permuted" else (1,))
    ]


@lru_cache(maxsize=1)
def _result() -> ProbeResult:
    """What `save_record` wants beside the record; nothing of it is read by a comparison."""
    return FakeBrain("sub-1").probe(0, 2, alone=True)


def _record(seed: int, regime: str, epoch: int, more: float) -> ProbeRecord:
    """Numbers of the regime plus what is peculiar to the seed; replicates are common to all states of a seed."""
    noise = 0.02 * np.random.default_rng(seed).standard_normal(100)
    own = 0.01 * (seed % 3)
    gain = GAINS[regime] + (more + own if epoch else 0.0)
    falls = SHARE_FALLS.get(regime, 0.0) + (own if epoch else 0.0)
    rows = []
    for region, share_of_gain in (("all voxels", 0.5), ("semantic", 1.0), ("auditory", 0.5)):
        for layer in LAYERS:
            value = 0.3 + own + share_of_gain * gain * (0.1 + 0.3 * (layer - 1))
            rows.append(ScoreRow(region, layer, "r_backbone", 8, Score(value, value + noise)))
        fall, own_part = (falls, gain / 20) if region != "auditory" else (0.0, 0.0)  # nothing can change there
        for metric, value in (
            ("low_level_share", 0.8 - fall),
            ("impact_banded_ridge", 60 - 80 * fall),
            ("partition_backbone", 0.01 + own_part),
        ):
            rows.append(ScoreRow(region, 4, metric, 8, Score(value, value + noise)))
    used = _result().used
    return ProbeRecord(
        subject="sub-1",
        stage="after" if epoch else "before",
        epoch=epoch,
        step=10 * epoch,
        layer=4,
        fingerprint=f"print-{seed}",
        table=ScoreTable(rows),
        r=np.full(len(used), 0.3),
        regions=dict.fromkeys(("all voxels", "semantic", "auditory"), used),
        facts={"score_stories": ["a", "b"], "score_spans": ["a[0:55]", "b[0:55]"], "n_score_trs": 110, "warnings": []},
    )


def _plant_downstream(run: Path, seed: int, regime: str) -> None:
    model = UNTUNED if regime == "pretrained" else TUNED
    folder = model_folder(run, model)
    folder.mkdir(parents=True)
    for name, right in (("demo/word_category", RIGHT[regime]), ("demo/phones", 0.6)):
        planted_answers(name, right, seed, model).save(task_path(folder, name))
    planted_words(MEANING[regime], seed).save(task_path(folder, WORDS))


def planted_answers(name: str, right: float, seed: int, model: str = TUNED) -> TaskResult:
    """A result with that share of right answers (the same clips are easy for all), of unseen words a quarter."""
    task = planted_task(name=name, sizes=PARTS, metric="accuracy")
    easy = np.random.default_rng(seed).permutation(PARTS["test"])
    said = {}
    for part, is_right in (("test", easy < right * len(easy)), ("test_unseen_words", np.arange(100) % 4 == 0)):
        truth = task.targets[part]
        said[part] = np.where(is_right, truth, (truth + 1) % len(task.labels))[None, None]
    result = task_result(task, model, (4,), {"linear": ProbeOutcome(0, np.zeros(1), np.zeros(1), said)})
    units = {"speakers": 10, "clips": 200}
    controls = {name: {"test": Score(at, bounds=(at, at), n_units=units)} for name, at in CONTROLS.items()}
    return replace(result, controls=controls, warnings=("test: words by themselves reach this score.",))


CONTROLS = {"majority": 0.27, "transcript": 0.9}


def planted_words(meaning: float, seed: int) -> WordStates:
    """Four nouns of each category; words at one place of two categories sound alike, but for the last phone."""
    names = {(c, k): noun for c, kind in enumerate(CATEGORIES.values()) for k, noun in enumerate(kind.nouns[:4])}
    rng = np.random.default_rng(1000 + seed)
    category, sound = rng.standard_normal((8, 24)), rng.standard_normal((4, 24))
    noise = 0.5 * rng.standard_normal((2, len(names), 2, 24))
    kinds = tuple(CATEGORIES)
    layers = {}
    for layer, strength in ((0, 0.3), (1, meaning)):
        of_word = np.stack([strength * category[c] + 0.8 * sound[k] for c, k in names])
        layers[layer] = (of_word[:, None] + noise[layer]).reshape(-1, 24).astype(np.float32)
    return WordStates(
        words=tuple(noun for noun in names.values() for _ in range(2)),
        speakers=tuple(voice for _ in names for voice in ("ann", "bob")),
        categories=tuple(kinds[c] for c, _ in names for _ in range(2)),
        phones={noun: (f"A{k}", f"B{k}", f"C{c}") for (c, k), noun in names.items()},
        meaning=DEMO_MEANING,
        layers=layers,
    )
