"""The probe without a trainer: from a model, or from ready features, to the saved records of some subjects."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from brainlit.encoding.bootstrap import BLOCK_TRS, block_weights
from brainlit.probing.budget import Thinning
from brainlit.probing.inputs import ProbeData, borrowed_state, fingerprint, layer_features, n_rows, probe_data
from brainlit.probing.layer_fits import Fits
from brainlit.probing.process_group import Meeting
from brainlit.results.record import ProbeRecord, save_record
from brainlit.results.scores import ScoreRow, ScoreTable, curve_rows, probe_rows, regions_with_all

if TYPE_CHECKING:
    from brainlit.encoding.config import ProbeConfig
    from brainlit.encoding.probe_fit import ProbeCache
    from brainlit.encoding.result import ProbeResult
    from brainlit.splits import Span


Layers = Literal["all"] | Sequence[int]
Features = Mapping[int, npt.NDArray[np.float32]]
DEFAULT_BOOTSTRAP: Mapping[str, int] = {"block_trs": BLOCK_TRS, "n_bootstraps": 1000, "seed": 0}
NOT_IN_FINGERPRINT = ("memory_gb", "n_targets_batch", "device")
"""Settings of a probe that decide how long it takes and not what comes out."""


@dataclass(frozen=True)
class Moment:
    """When a probe is made, how much of it, and what else its records' facts say.

    Parameters
    ----------
    stage : str
        'before', 'during' or 'after' training.
    epoch, step : int
        Epochs and optimiser steps trained so far.
    facts : mapping
        Plain JSON, put beside the facts that every record has; `warnings` are added to those of the probe.
    thinning : Thinning, optional
        What to leave out.
    warm : bool
        Whether a voxel tries only the mixtures that were best for it in the probe before.
    features_s : float
        Seconds that the features took.
    """

    stage: str = "before"
    epoch: int = 0
    step: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    thinning: Thinning | None = None
    warm: bool = False
    features_s: float = 0.0


class ProbeEngine:
    """Measures how well a backbone's layers predict the responses of subjects, and saves a record for each.

    Encoding models are fitted on the stories of the data module's role `fit` and scored on those of `score`. One layer
    is compared with the low-level and semantic bands of the store; every other layer is fitted alone.

    Parameters
    ----------
    config : ProbeConfig
    layers : 'all' or sequence of int
        Hidden states of the layer curve; 0 is the input of the first layer, negative ones count from the end.
    partition_layer : int
        Hidden state that is compared with the other bands.
    bootstrap : mapping with block_trs, n_bootstraps and seed
        Block bootstrap of the intervals.
    cache : ProbeCache, optional
        Keeps what does not depend on the backbone from one call to the next; one of its own where not given.
    with_window : bool
        Whether the windows in which the backbone hears the stories are part of a record's fingerprint.
    score_role : str
        Role of the stories that are scored: 'score', or 'choose' to choose a checkpoint by.
    """

    def __init__(
        self,
        config: ProbeConfig,
        layers: Layers = "all",
        partition_layer: int = -1,
        bootstrap: Mapping[str, int] = DEFAULT_BOOTSTRAP,
        cache: ProbeCache | None = None,
        with_window: bool = False,
        score_role: str = "score",
    ) -> None:
        from brainlit.encoding.probe_fit import ProbeCache

        self.config, self.layers, self.partition_layer = config, layers, partition_layer
        self.bootstrap, self.with_window, self.score_role = dict(bootstrap), with_window, score_role
        self.fits = Fits(config, ProbeCache() if cache is None else cache)
        self._data: dict[str, ProbeData] = {}
        self._data_of: Any = None

    # --- What is measured ---

    def measure(
        self,
        module: Any,
        datamodule: Any,
        subjects: Sequence[str],
        folder: Path,
        *,
        stage: str = "before",
        epoch: int = 0,
        step: int = 0,
        facts: Mapping[str, Any] | None = None,
    ) -> list[ProbeRecord]:
        """Probe the subjects with the module's hidden states, and save a record for each in the folder.

        Parameters
        ----------
        module : nn.Module with `pooled_states(batch, layers)` and `backbone.n_layers`
            Its mode, and all random states, come back as they were.
        datamodule : StoryDataModule, set up
        folder : Path
            Records go to <folder>/<subject>/epoch-<n>.h5.
        facts : mapping, optional
            Further facts of the records; see `Moment`, like stage, epoch and step.

        Raises
        ------
        ValueError
            If there is nothing to fit or score on, or a layer does not exist.
        """
        with borrowed_state(module):
            features, features_s = self.features(module, datamodule)
            moment = Moment(stage, epoch, step, facts or {}, features_s=features_s)
            chosen = self.resolve_layers(int(module.backbone.n_layers) + 1)[1]
            return self.probe(features, datamodule, subjects, folder, moment, Meeting(folder), chosen)

    def features(self, module: Any, datamodule: Any) -> tuple[dict[int, npt.NDArray[np.float32]], float]:
        """Hidden states of the layers asked for, a row per TR of `spans`, and the seconds that they took."""
        started = time.monotonic()
        layers, _ = self.resolve_layers(int(module.backbone.n_layers) + 1)
        features = layer_features(module, datamodule, self.spans(datamodule), layers)
        return features, time.monotonic() - started

    def measure_features(
        self,
        features: Features,
        datamodule: Any,
        subjects: Sequence[str],
        folder: Path,
        *,
        partition_layer: int | None = None,
        stage: str = "before",
        epoch: int = 0,
        step: int = 0,
        facts: Mapping[str, Any] | None = None,
        features_s: float = 0.0,
    ) -> list[ProbeRecord]:
        """The same for features that are there already, whatever they come from.

        Parameters
        ----------
        features : mapping of layer to array of shape (n_rows, n_features)
            A row per TR of `spans(datamodule)`, in their order. All of them are in the layer curve.
        partition_layer : int, optional
            Which of them is compared with the other bands; by default the engine's, counted from the end of the sorted
            layers where it is negative.
        features_s : float
            Seconds that the features took, for the records.

        Raises
        ------
        ValueError
            If an array has not a row per TR, or there is no such layer.
        """
        moment = Moment(stage, epoch, step, facts or {}, features_s=features_s)
        chosen = self.chosen(features, partition_layer)
        return self.probe(features, datamodule, subjects, folder, moment, Meeting(folder), chosen)

    def probe(
        self,
        features: Features,
        datamodule: Any,
        subjects: Sequence[str],
        folder: Path,
        moment: Moment,
        meeting: Meeting,
        chosen: int,
    ) -> list[ProbeRecord]:
        """The same within a meeting of processes, which share the voxels out; the records come from the first."""
        _check_rows(features, n_rows(self.spans(datamodule)))
        if moment.thinning is not None:
            features = {layer: values for layer, values in features.items() if layer in moment.thinning.layers}
        groups = self.who_heard_the_same(datamodule, subjects)
        self.fits.partition_s = self.fits.layers_s = 0.0
        records: list[ProbeRecord] = []
        with tqdm(total=len(groups) * len(features), desc=f"probe {moment.stage}", unit="model", leave=False) as bar:
            for group in groups:
                own = replace(moment, features_s=moment.features_s * len(group) / len(subjects))
                records += self._probe_subjects(datamodule, group, features, chosen, folder, own, meeting, bar)
        return records

    def spans(self, datamodule: Any) -> list[Span]:
        """The spans whose rows the features have, in order: those to fit on, then those to score."""
        return [*datamodule.roles.spans("fit"), *datamodule.roles.spans(self.score_role)]

    def resolve_layers(self, n_states: int) -> tuple[list[int], int]:
        """Layers of the curve (with the compared one) and the compared one, counted from 0, of so many hidden states.

        Raises
        ------
        ValueError
            If one does not exist.
        """
        asked = range(n_states) if self.layers == "all" else self.layers
        chosen = _from_start(self.partition_layer, n_states)
        return sorted({chosen, *(_from_start(int(layer), n_states) for layer in asked)}), chosen

    def fingerprint(self, datamodule: Any, subject: str) -> str:
        """Hash of all that decides the numbers of a subject besides the weights: records compare where it agrees."""
        roles = datamodule.roles
        spans = [[str(span) for span in roles.spans(role)] for role in ("fit", self.score_role)]
        config = {key: value for key, value in asdict(self.config).items() if key not in NOT_IN_FINGERPRINT}
        settings = [config, self.bootstrap, self.layers, self.partition_layer]
        settings += [asdict(datamodule.window)] if self.with_window else []
        return fingerprint(datamodule.store.fingerprint, subject, spans, settings)

    def subject_data(self, datamodule: Any, subject: str) -> ProbeData:
        """What the store holds of a subject; read once per data module."""
        if self._data_of is not datamodule:
            self._data, self._data_of = {}, datamodule
        if subject not in self._data:
            roles = datamodule.roles
            self._data[subject] = probe_data(
                datamodule.store,
                subject,
                roles.spans("fit"),
                roles.spans(self.score_role),
                self.config.skip_trs,
                sub_bands=self.config.sub_bands,
            )
        return self._data[subject]

    def chosen(self, features: Features, partition_layer: int | None = None) -> int:
        """The layer of ready features that is compared with the other bands."""
        asked, layers = self.partition_layer if partition_layer is None else partition_layer, sorted(features)
        if asked >= 0 and asked not in features:
            raise ValueError(f"layer {asked} does not exist: there are features of the layers {layers}.")
        return asked if asked >= 0 else layers[_from_start(asked, len(layers))]

    def remember(self, folder: Path, subjects: Sequence[str], epoch: int) -> None:
        """Where no search of this process can be gone on from, take the newest record before the epoch."""
        for subject in subjects:
            paths = [path for path in sorted((folder / subject).glob("epoch-*.h5")) if path.stem < f"epoch-{epoch:03d}"]
            if subject not in self.fits.starts and paths:
                self.fits.read_start(subject, paths[-1])

    def who_heard_the_same(self, datamodule: Any, subjects: Sequence[str]) -> list[list[str]]:
        """Subjects whose encoding models have the same rows, and are searched together."""
        groups: dict[bytes, list[str]] = {}
        for subject in subjects:
            groups.setdefault(self.subject_data(datamodule, subject).rows.tobytes(), []).append(subject)
        return list(groups.values())

    def blocks(self, result: ProbeResult) -> Any:
        """The draws of the bootstrap for the scored rows."""
        boot = self.bootstrap
        return block_weights(result.score_groups, boot["block_trs"], boot["n_bootstraps"], boot["seed"])

    # --- How ---

    def _probe_subjects(
        self,
        datamodule: Any,
        subjects: Sequence[str],
        features: Features,
        chosen: int,
        folder: Path,
        moment: Moment,
        meeting: Meeting,
        bar: Any,
    ) -> list[ProbeRecord]:
        """Search subjects with the same rows together; one record each."""
        started = time.monotonic()
        data = {subject: self.subject_data(datamodule, subject) for subject in subjects}
        regions = {subject: datamodule.store.subject(subject).regions for subject in subjects}
        rows: dict[str, list[ScoreRow]] = {}
        compared: dict[str, ProbeResult] = {}
        for layer, results in self.fits.results(
            data, regions, features, chosen, moment.thinning, moment.warm, meeting, bar
        ):
            compared = compared or results
            for name, result in results.items():
                named, blocks = regions_with_all(regions[name], compared[name].used), self.blocks(result)
                count = probe_rows if layer == chosen else curve_rows
                rows.setdefault(name, []).extend(count(result, named, layer, blocks))
        seconds = (time.monotonic() - started + moment.features_s) / len(subjects)
        records = []
        for name, result in compared.items():
            facts = self._facts(result, data[name], moment, seconds)
            record = self._record(datamodule, name, result, ScoreTable(rows[name]), chosen, moment, facts)
            save_record(record, result, folder)
            records.append(record)
        return records

    def _record(
        self,
        datamodule: Any,
        subject: str,
        result: ProbeResult,
        table: ScoreTable,
        chosen: int,
        moment: Moment,
        facts: Mapping[str, Any],
    ) -> ProbeRecord:
        person = datamodule.store.subject(subject)
        return ProbeRecord(
            subject=subject,
            stage=moment.stage,
            epoch=moment.epoch,
            step=moment.step,
            layer=chosen,
            fingerprint=self.fingerprint(datamodule, subject),
            table=table,
            r=np.asarray(result.r_by_model["backbone"], dtype=np.float64),
            ceiling=result.ceiling,
            regions=regions_with_all(person.regions, result.used),
            vertices=person.vertices,
            facts=facts,
        )

    def _facts(self, result: ProbeResult, data: ProbeData, moment: Moment, seconds: float) -> dict[str, Any]:
        """What a reader needs to check the numbers."""
        config, grid, thinning = self.config, self.config.alphas, moment.thinning
        n_gammas = dict(config.n_gammas if thinning is None else thinning.n_gammas)
        edge = {model: round(float(share), 4) for model, share in result.alpha_at_edge.items()}
        n_voxels, n_used = len(result.used), int(result.used.sum())
        return {
            **data.facts,
            "n_fit_trs": int(result.meta.get("n_fit_trs", int(data.fit.sum()))),
            "n_score_trs": len(result.score_groups),
            "n_voxels": n_voxels,
            "n_used": n_used,
            "n_dropped": int(result.n_dropped),
            "n_left_out": n_voxels - n_used - int(result.n_dropped),
            "delays_trs": list(config.delays_trs),
            "ridge": f"{len(grid)} alphas from {min(grid):.3g} to {max(grid):.3g}, {config.n_folds} folds over stories,"
            f" mixtures per number of bands {n_gammas}, solver {result.meta.get('solver', config.solver)},"
            f" seed {config.seed}",
            "alpha_at_edge": edge,
            "bootstrap": self.bootstrap,
            "thinned": None if thinning is None else thinning.json(),
            "warm_start": bool(result.meta.get("warm_start", False)),
            "seconds": round(seconds, 2),
            **moment.facts,
            "warnings": [*result.meta.get("warnings", []), *moment.facts.get("warnings", [])],
        }


def _check_rows(features: Features, n_trs: int) -> None:
    for layer, values in features.items():
        if values.ndim != 2 or len(values) != n_trs:
            raise ValueError(
                f"features of layer {layer} have shape {values.shape}; need ({n_trs}, n_features), a row per TR of the"
                " spans to fit and score."
            )


def _from_start(layer: int, n_states: int) -> int:
    if not -n_states <= layer < n_states:
        raise ValueError(f"layer {layer} does not exist: the backbone has hidden states 0..{n_states - 1}.")
    return layer % n_states
