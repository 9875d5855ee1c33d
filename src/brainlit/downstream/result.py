"""What probes of one model's layers said about one task: every prediction, and the scores that follow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from brainlit.downstream.pairs import DEMO_MEANING, TokenPairs, WordPairs, demo_pairs, english_pairs, pair_tokens
from brainlit.downstream.scores import Draws, Estimate, clip_sums, estimate, score_of
from brainlit.downstream.task import TEST, IntArray, Kind, Metric
from brainlit.files import atomic_path
from brainlit.hints import did_you_mean

# --- npz
# Arrays and a record of plain values in one .npz file, without pickle.


FORMAT = 1

Arrays = Mapping[str, npt.NDArray[Any]]


def save_npz(path: Path, record: Mapping[str, Any], arrays: Arrays) -> Path:
    """Write both, atomically; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, **record})
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, record=np.asarray(text), **cast(Any, arrays))
    return path


def load_npz(path: Path, what: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The record and the arrays of a file that `save_npz` wrote.

    Parameters
    ----------
    what : str
        What the file should hold, for the error.

    Raises
    ------
    ValueError
        If it holds something else.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    record = json.loads(str(arrays.pop("record", "{}")))
    if record.pop("format", None) != FORMAT:
        raise ValueError(f"{path} holds no {what} of this version; run `brainlit downstream` again.")
    return record, arrays


FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ProbeOutcome:
    """One kind of probe on all layers.

    Parameters
    ----------
    chosen : int
        Index into the layers of the one that was best on 'choose'.
    choose_scores : float array of shape (n_layers,)
        Score on 'choose' at each layer's best setting, mean over seeds.
    settings : float array of shape (n_layers,)
        The regularisation that was best on 'choose', layer by layer.
    predictions : mapping of test part to int array of shape (n_layers, n_seeds, n_clips) or (..., n_clips, n_labels)
        At those settings.
    """

    chosen: int
    choose_scores: FloatArray
    settings: FloatArray
    predictions: Mapping[str, IntArray]


@dataclass(frozen=True, eq=False)
class TaskResult:
    """One model on one task.

    Parameters
    ----------
    task, model : str
    layers : tuple of int
    truth : mapping of test part to int array
        The right answers, as in Task.
    clips, speakers : mapping of test part to tuple of str
        What results of other models are paired by, and whom intervals are drawn by; speakers are empty where they are
        unknown, or are what was asked.
    probes : mapping of probe to ProbeOutcome
    controls : mapping of control to its Estimate by part
    warnings : tuple of str
        What a reader of the score must know.
    facts : mapping of str to str
        Of the task.
    """

    task: str
    model: str
    kind: Kind
    metric: Metric
    labels: tuple[str, ...]
    layers: tuple[int, ...]
    truth: Mapping[str, IntArray]
    clips: Mapping[str, tuple[str, ...]]
    speakers: Mapping[str, tuple[str, ...]]
    probes: Mapping[str, ProbeOutcome]
    controls: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[str, ...]:
        """The test parts."""
        return tuple(self.truth)

    @property
    def main_probe(self) -> str:
        """The linear probe where there is one, else the first."""
        return "linear" if "linear" in self.probes else next(iter(self.probes))

    def chosen_layer(self, probe: str | None = None) -> int:
        """The layer that was best on 'choose'."""
        return self.layers[self._outcome(probe).chosen]

    def score(
        self,
        part: str = TEST,
        probe: str | None = None,
        layer: int | None = None,
        metric: Metric | None = None,
        draws: Draws | None = None,
    ) -> Estimate:
        """Score on a test part with its interval.

        Parameters
        ----------
        probe : str, optional
            None: the linear one.
        layer : int, optional
            None: the one that was chosen on 'choose'. The best of several layers on test is no fair score.
        metric : str, optional
            None: the task's own.
        """
        return estimate(metric or self.metric, self.sums(part, probe, layer, metric), self.speakers[part], draws)

    def sums(
        self, part: str = TEST, probe: str | None = None, layer: int | None = None, metric: Metric | None = None
    ) -> FloatArray:
        """What each clip adds to the score: (n_seeds, n_clips, n); see `clip_sums`."""
        answers = self.predictions(part, probe, layer)
        how = metric or self.metric
        return np.stack([clip_sums(how, self.kind, self.truth[part], one, len(self.labels)) for one in answers])

    def predictions(self, part: str = TEST, probe: str | None = None, layer: int | None = None) -> IntArray:
        """What was said about each clip: (n_seeds, n_clips), or (n_seeds, n_clips, n_labels)."""
        if part not in self.truth:
            raise ValueError(f"task {self.task!r} has no test part {part!r}. {did_you_mean(part, self.truth)}")
        outcome = self._outcome(probe)
        if layer is not None and layer not in self.layers:
            raise ValueError(f"layer {layer} was not probed; these were: {list(self.layers)}.")
        of_layers = outcome.predictions[part]
        return np.asarray(of_layers[outcome.chosen if layer is None else self.layers.index(layer)])

    def rows(self, draws: Draws | None = None) -> list[dict[str, Any]]:
        """All scores as plain rows: the curve over layers of every probe and part, and the controls.

        `chosen` marks the layer that was best on 'choose'; `seed_sd` is the standard deviation over seeds.
        """
        common = {"task": self.task, "model": self.model, "metric": self.metric}
        found = []
        for probe, outcome in self.probes.items():
            for part in self.parts:
                for k, layer in enumerate(self.layers):
                    found.append(
                        {**common, "part": part, "probe": probe, "layer": layer, "chosen": k == outcome.chosen}
                        | {"choose_score": float(outcome.choose_scores[k]), "setting": float(outcome.settings[k])}
                        | {"seed_sd": self._seed_sd(part, probe, layer)}
                        | asdict(self.score(part, probe, layer, draws=draws))
                    )
        for control, parts in self.controls.items():
            found += [{**common, "part": part, "probe": control, **asdict(one)} for part, one in parts.items()]
        return found

    def _seed_sd(self, part: str, probe: str, layer: int) -> float:
        values = score_of(self.metric, self.sums(part, probe, layer).sum(axis=1))
        return float(values.std(ddof=1)) if len(values) > 1 else 0.0

    def _outcome(self, probe: str | None) -> ProbeOutcome:
        name = probe or self.main_probe
        if name not in self.probes:
            raise ValueError(f"{self.task!r} was not probed with {name!r}. {did_you_mean(name, self.probes)}")
        return self.probes[name]

    def save(self, path: Path) -> Path:
        """Write everything into one .npz file, without pickle; `load_result` reads it."""
        arrays: dict[str, npt.NDArray[Any]] = {f"truth/{part}": values for part, values in self.truth.items()}
        for probe, outcome in self.probes.items():
            arrays |= {f"choose/{probe}": outcome.choose_scores, f"settings/{probe}": outcome.settings}
            arrays |= {f"predictions/{probe}/{part}": _small(values) for part, values in outcome.predictions.items()}
        return save_npz(Path(path), self._record(), arrays)

    def _record(self) -> dict[str, Any]:
        """All that is no array, as plain values."""
        plain = ("task", "model", "kind", "metric", "labels", "layers", "clips", "speakers", "warnings", "facts")
        return {
            **{name: getattr(self, name) for name in plain},
            "chosen": {probe: outcome.chosen for probe, outcome in self.probes.items()},
            "controls": {
                name: {part: asdict(one) for part, one in parts.items()} for name, parts in self.controls.items()
            },
        }


def load_result(path: Path) -> TaskResult:
    """A result from its file.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    record, arrays = load_npz(Path(path), "result of a downstream task")
    chosen, controls = record.pop("chosen"), record.pop("controls")
    truth = {part: arrays[f"truth/{part}"] for part in record["clips"]}
    probes = {
        probe: ProbeOutcome(
            index,
            arrays[f"choose/{probe}"],
            arrays[f"settings/{probe}"],
            {part: arrays[f"predictions/{probe}/{part}"].astype(np.int64) for part in truth},
        )
        for probe, index in chosen.items()
    }
    for name in ("labels", "layers", "warnings"):
        record[name] = tuple(record[name])
    for name in ("clips", "speakers"):
        record[name] = {part: tuple(values) for part, values in record[name].items()}
    estimates = {name: {part: Estimate(**one) for part, one in parts.items()} for name, parts in controls.items()}
    return TaskResult(**record, truth=truth, probes=probes, controls=estimates)


def _small(values: IntArray) -> npt.NDArray[Any]:
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


# --- run_files
# What a run keeps of the tasks that its models were given: <run>/downstream/<model>/.
#
# A model's folder holds one file per task (`TaskResult.save`) and one of words (`WordStates`), from which preference,
# separation and maps follow. Models are 'untuned' (the backbone before the first step), 'tuned' (the run's last
# weights, those that the last probe saw), or the name of another checkpoint.


Float32Array: TypeAlias = npt.NDArray[np.float32]

UNTUNED, TUNED = "untuned", "tuned"
FOLDER, WORDS_FILE = "downstream", "words.npz"


@dataclass(frozen=True, eq=False)
class WordStates:
    """Spoken words and what each layer of a model makes of them.

    Parameters
    ----------
    words, speakers, categories : tuples of str, length n_tokens
        Of each token; its category is '' where there is none.
    phones : mapping of word to its phones
    meaning : str
        What words have to do with each other in a semantic pair: DEMO_MEANING, or else WordNet is asked.
    layers : mapping of layer to float32 array of shape (n_tokens, n_features)
        States averaged over the frames of the word, each word heard by itself.
    facts : mapping
        Plain JSON: stories, model, how many were left out.
    """

    words: tuple[str, ...]
    speakers: tuple[str, ...]
    categories: tuple[str, ...]
    phones: Mapping[str, tuple[str, ...]]
    meaning: str
    layers: Mapping[int, Float32Array]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def pairs(self, seed: int = 0) -> WordPairs:
        """Semantic, near-homophone and random pairs of these words."""
        if self.meaning == DEMO_MEANING:
            return demo_pairs(self.phones, seed=seed)
        return english_pairs(set(self.words), self.phones, seed=seed)

    def token_pairs(self, seed: int = 0) -> TokenPairs:
        """Which tokens are compared; the same for every model that heard the same tokens."""
        return pair_tokens(self.words, self.speakers, self.pairs(seed), seed=seed)

    def same_tokens(self, other: WordStates) -> bool:
        """Whether the other model heard the same words, so that the two can be paired."""
        return (self.words, self.speakers, self.facts.get("clips")) == (
            other.words,
            other.speakers,
            other.facts.get("clips"),
        )

    def save(self, path: Path) -> Path:
        """Write everything into one .npz file, without pickle; `load_words` reads it."""
        plain = ("words", "speakers", "categories", "phones", "meaning", "facts")
        arrays = {f"layer-{layer}": values.astype(np.float16) for layer, values in self.layers.items()}
        return save_npz(path, {name: getattr(self, name) for name in plain}, arrays)


def load_words(path: Path) -> WordStates:
    """What `WordStates.save` wrote.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    record, arrays = load_npz(path, "states of words")
    return WordStates(
        words=tuple(record["words"]),
        speakers=tuple(record["speakers"]),
        categories=tuple(record["categories"]),
        phones={word: tuple(phones) for word, phones in record["phones"].items()},
        meaning=record["meaning"],
        layers={int(name.removeprefix("layer-")): values.astype(np.float32) for name, values in arrays.items()},
        facts=record["facts"],
    )


def model_folder(run: Path, model: str) -> Path:
    """Where the results of one model of a run lie."""
    return run / FOLDER / model


def task_path(folder: Path, task: str) -> Path:
    """The file of a task's result in a model's folder: demo/word_category is in demo-word_category.npz."""
    return folder / f"{task.replace('/', '-')}.npz"


def find_results(folder: Path) -> dict[str, TaskResult]:
    """The results of one model by task, in alphabetical order; none where the folder is missing."""
    paths = sorted(path for path in folder.glob("*.npz") if path.name != WORDS_FILE)
    return {result.task: result for result in map(load_result, paths)}


def find_words(folder: Path) -> WordStates | None:
    """The words that a model heard, or None."""
    path = folder / WORDS_FILE
    return load_words(path) if path.is_file() else None
