"""What probes of one model's layers said about one task: every prediction, the scores that follow, and their file.

A run keeps its results in <run>/downstream/<model>/, one file per task, and one of words (`words.WordStates`). Models
are 'untuned' (the backbone before the first step), 'tuned' (the run's last weights, those that the last probe saw),
'untrained' (random weights), or the name of another checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from brainlit.downstream.scores import BootstrapConfig, clip_sums, estimate, score_from_row, score_of, score_row
from brainlit.downstream.task import TEST, Kind, Metric
from brainlit.downstream.tasks import WORDS
from brainlit.encoding.arrays import FloatArray, IntArray
from brainlit.encoding.statistics import Score
from brainlit.files import atomic_path
from brainlit.guard import file_guard, read_npz
from brainlit.hints import did_you_mean

UNTRAINED, UNTUNED, TUNED = "untrained", "untuned", "tuned"
FOLDER = "downstream"
_FORMAT = 1
_CURE = "Run `brainlit downstream` again, or fetch the file again from where it is whole."


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
    controls : mapping of control to its Score by part
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
    controls: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
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
        bootstrap: BootstrapConfig | None = None,
    ) -> Score:
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
        return estimate(metric or self.metric, self.sums(part, probe, layer, metric), self.speakers[part], bootstrap)

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

    def rows(self, bootstrap: BootstrapConfig | None = None) -> list[dict[str, Any]]:
        """All scores as plain rows: the curve over layers of every probe and part, and the controls.

        `chosen` marks the layer that was best on 'choose'; `seed_sd` is the standard deviation over seeds.
        """
        common = {"task": self.task, "model": self.model, "metric": self.metric}
        found = [
            {**common, "part": part, "probe": probe, "layer": layer, "chosen": k == outcome.chosen}
            | {"choose_score": float(outcome.choose_scores[k]), "setting": float(outcome.settings[k])}
            | {"seed_sd": self._seed_sd(part, probe, layer)}
            | score_row(self.score(part, probe, layer, bootstrap=bootstrap))
            for probe, outcome in self.probes.items()
            for part in self.parts
            for k, layer in enumerate(self.layers)
        ]
        for control, parts in self.controls.items():
            found += [{**common, "part": part, "probe": control, **score_row(one)} for part, one in parts.items()]
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
            for part, values in outcome.predictions.items():
                smallest = np.min_scalar_type(int(values.max(initial=0)))
                arrays[f"predictions/{probe}/{part}"] = values.astype(smallest)
        plain = ("task", "model", "kind", "metric", "labels", "layers", "clips", "speakers", "warnings", "facts")
        record = {name: getattr(self, name) for name in plain}
        record["chosen"] = {probe: outcome.chosen for probe, outcome in self.probes.items()}
        record["controls"] = {
            name: {part: score_row(one) for part, one in parts.items()} for name, parts in self.controls.items()
        }
        return save_npz(Path(path), record, arrays)


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
    scores = {name: {part: score_from_row(one) for part, one in parts.items()} for name, parts in controls.items()}
    return TaskResult(**record, truth=truth, probes=probes, controls=scores)


# --- Arrays and a record of plain values in one .npz file, without pickle ---


def save_npz(path: Path, record: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Path:
    """Write both, atomically; folders are made."""
    text = json.dumps({"format": _FORMAT, **record})
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
    UnreadableFileError
        If it holds something else, or is not what was written.
    """
    arrays = read_npz(path, what, _CURE)
    with file_guard(path, what, _CURE):
        record = json.loads(str(arrays.pop("record", "{}")))
    if record.pop("format", None) != _FORMAT:
        raise ValueError(f"{path} holds no {what} of this version; run `brainlit downstream` again.")
    return record, arrays


# --- What a run keeps ---


def model_folder(run: Path, model: str) -> Path:
    """Where the results of one model of a run lie."""
    return run / FOLDER / model


def task_path(folder: Path, task: str, recognition: bool = False) -> Path:
    """The file of a task's result in a model's folder: demo-phones.npz for demo/phones, .json for recognition."""
    return folder / f"{task.replace('/', '-')}{'.json' if recognition else '.npz'}"


def find_results(folder: Path) -> dict[str, TaskResult]:
    """The results of one model by task, in alphabetical order; none where the folder is missing."""
    paths = sorted(path for path in folder.glob("*.npz") if path != task_path(folder, WORDS))
    return {result.task: result for result in map(load_result, paths)}


def model_folders(root: Path) -> dict[str, Path]:
    """The folders of a run's models by name: untrained, untuned, tuned, then checkpoints in alphabetical order."""
    first = (UNTRAINED, UNTUNED, TUNED)
    names = [path.name for path in sorted((root / FOLDER).glob("*")) if path.is_dir()]
    return {name: model_folder(root, name) for name in sorted(names, key=lambda name: [name != one for one in first])}
