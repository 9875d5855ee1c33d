"""The probe without a trainer: from a model, or from ready features, to the saved records of some subjects."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm.auto import tqdm

from brainlit.encoding.arrays import Float32Array
from brainlit.encoding.bootstrap import BLOCK_TRS, HOW_DRAWN, block_weights
from brainlit.encoding.config import DEFAULT_BANDS, ProbeConfig
from brainlit.encoding.mixtures import FIRST_MIXTURES
from brainlit.encoding.probe_fit import ProbeCache
from brainlit.encoding.result import VERSION as FORMULAS_VERSION
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.temporal import Band
from brainlit.probing import tuned_sound
from brainlit.probing.budget import ProbeScope
from brainlit.probing.folds import FoldPlan
from brainlit.probing.hidden_states import layer_features, n_rows, temporal_layer_features
from brainlit.probing.inputs import (
    ProbeData,
    ProbedModule,
    Stimulus,
    borrowed_state,
    from_start,
    probe_data,
    probe_folds,
    resolve_layers,
    settings_hash,
)
from brainlit.probing.layer_fits import Features, LayerFits
from brainlit.probing.process_group import ProcessGroup
from brainlit.probing.temporal_rows import TemporalForm, held_rows
from brainlit.probing.word_rows import HeardWords, WordRows, heard_words, tuning_words, word_rows
from brainlit.results.map_places import mni_space
from brainlit.results.record import ProbeRecord, save_record
from brainlit.results.scores import ScoreRow, ScoreTable, curve_rows, probe_rows, regions_with_all

if TYPE_CHECKING:
    from brainlit.datamodules import StoryDataModule
    from brainlit.splits import Span

Layers = Literal["all"] | Sequence[int]
DEFAULT_BOOTSTRAP: Mapping[str, int] = {"block_trs": BLOCK_TRS, "n_bootstraps": 1000, "seed": 0}


@dataclass(frozen=True)
class ProbeContext:
    """When a probe is made, how much of it, and what else its records say.

    Parameters
    ----------
    stage : str
        'before', 'during' or 'after' training.
    epoch, step : int
        Epochs and optimiser steps trained so far.
    facts : mapping
        Plain JSON, put beside the facts that every record has; `warnings` are added to those of the probe.
    scope : ProbeScope, optional
        What is left of the probe where something is left out.
    warm : bool
        Whether a voxel tries only the mixtures that were best for it in the probe before.
    heard : HeardWords, optional
        The words that tuning heard; by default those of the data's role `tune`. Where there is none, nothing is said
        of unseen words.
    """

    stage: str = "before"
    epoch: int = 0
    step: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    scope: ProbeScope | None = None
    warm: bool = False
    heard: HeardWords | None = None


BEFORE = ProbeContext()


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

    Attributes
    ----------
    progress : bool
        Whether progress bars are shown.
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
        self.config, self.layers, self.partition_layer = config, layers, partition_layer
        self.bootstrap, self.with_window, self.score_role = dict(bootstrap), with_window, score_role
        self.progress = True
        self.fits = LayerFits(config, ProbeCache() if cache is None else cache)
        self._data: dict[str, ProbeData] = {}
        self._data_of: StoryDataModule | None = None
        self._predicted: dict[str, Float32Array | None] = {}
        self._stimulus: Stimulus | None = None

    # --- What is measured ---

    def measure(
        self,
        module: ProbedModule,
        datamodule: StoryDataModule,
        subjects: Sequence[str],
        folder: Path,
        context: ProbeContext = BEFORE,
    ) -> list[ProbeRecord]:
        """Probe the subjects with the module's hidden states, and save a record for each in the folder.

        Parameters
        ----------
        module : ProbedModule
            Its mode, and all random states, come back as they were.
        datamodule : StoryDataModule, set up
        folder : Path
            Records go to <folder>/<subject>/epoch-<n>.h5.

        Raises
        ------
        ValueError
            If there is nothing to fit or score on, or a layer does not exist.
        """
        with borrowed_state(module):
            features, features_s = self.features(module, datamodule)
            compared = self.resolve_layers(module)[1]
            return self.measure_features(
                features, datamodule, subjects, folder, context, partition_layer=compared, features_s=features_s
            )

    def features(self, module: ProbedModule, datamodule: StoryDataModule) -> tuple[Features, float]:
        """Hidden states of the layers asked for, a row per TR of `spans`, and the seconds that they took.

        Means per TR, or the parts of the temporal choice of the backbone's band.
        """
        started, form = time.monotonic(), TemporalForm.of(self.config, "backbone")
        asked = (module, datamodule, self.spans(datamodule), self.resolve_layers(module)[0])
        is_plain = form.is_plain(datamodule.store)
        features: Features = (
            layer_features(*asked, progress=self.progress)
            if is_plain
            else temporal_layer_features(*asked, form, progress=self.progress)
        )
        return features, time.monotonic() - started

    def measure_features(
        self,
        features: Features,
        datamodule: StoryDataModule,
        subjects: Sequence[str],
        folder: Path,
        context: ProbeContext = BEFORE,
        *,
        partition_layer: int | None = None,
        features_s: float = 0.0,
        group: ProcessGroup | None = None,
    ) -> list[ProbeRecord]:
        """The same for features that are there already, whatever they come from.

        Parameters
        ----------
        features : mapping of layer to array of shape (n_rows, n_features)
            A row per TR of `spans(datamodule)`, in their order. All of them are in the layer curve. Arrays count as
            means per TR and are held over it where the temporal choice convolves; `features` gives finer ones.
        partition_layer : int, optional
            Which of them is compared with the other bands; by default the engine's, counted from the end of the sorted
            layers where it is negative.
        features_s : float
            Seconds that the features took, for the records.
        group : ProcessGroup, optional
            Processes that share the voxels out, all of which call this within the group's context; the records come
            from the first.

        Raises
        ------
        ValueError
            If an array has not a row per TR, or there is no such layer.
        """
        group = group or ProcessGroup()
        compared = self.chosen(features, partition_layer)
        _check_rows(features, n_rows(self.spans(datamodule)))
        features = self.as_bands(features, datamodule)
        if context.scope is not None:
            features = {layer: values for layer, values in features.items() if layer in context.scope.layers}
        together = self.who_heard_the_same(datamodule, subjects)
        self.fits.partition_s = self.fits.layers_s = 0.0
        records: list[ProbeRecord] = []
        shown = {"desc": f"probe {context.stage}", "unit": "model", "leave": False, "disable": not self.progress}
        with tqdm(total=len(together) * len(features), **shown) as bar:
            for data in together:
                started = time.monotonic()
                rows: dict[str, list[ScoreRow]] = {name: [] for name in data}
                found: Mapping[str, ProbeResult] = {}
                by_layer: dict[str, dict[int, Float32Array]] = {name: {} for name in data}
                fits = self.fits.results(data, features, compared, context.scope, context.warm, group)
                for layer, results in fits:
                    bar.update()
                    found = found or results  # the compared layer comes first
                    for name, result in results.items():
                        regions = regions_with_all(data[name].regions, found[name].used)
                        count = probe_rows if layer == compared else curve_rows
                        rows[name] += count(result, regions, layer, self.blocks(result))
                        by_layer[name][layer] = np.asarray(result.r_by_model["backbone"], dtype=np.float32)
                if self.config.tuned_sound and found:
                    for name in found:
                        regions = regions_with_all(data[name].regions, found[name].used)
                        rows[name] += self._tuned_sound_rows(datamodule, name, features[compared], regions, compared)
                of_words = self._word_rows(datamodule, found, context)
                for name, result in found.items():
                    regions = regions_with_all(data[name].regions, result.used)
                    rows[name] += of_words.scores(result, regions, compared, self.bootstrap)
                # Each subject's share of what all of them took together, with that of the features.
                seconds = (time.monotonic() - started) / len(data) + features_s / len(subjects)
                for name, result in found.items():
                    table = ScoreTable(rows[name])
                    said = {"words": of_words.facts(self.bootstrap["block_trs"])}
                    record = self._record(datamodule, name, result, table, compared, context, seconds, said)
                    record = replace(record, r_by_layer=dict(sorted(by_layer[name].items())))
                    save_record(record, result, folder)
                    records.append(record)
        return records

    def as_bands(self, features: Features, datamodule: StoryDataModule) -> Features:
        """Features in the parts of the temporal choice of the backbone's band, those per TR held over it."""
        form, spans = TemporalForm.of(self.config, "backbone"), self.spans(datamodule)
        if form.is_plain(datamodule.store):
            return features
        return {
            layer: held_rows(values, datamodule.store, spans, form) if isinstance(values, np.ndarray) else values
            for layer, values in features.items()
        }

    def spans(self, datamodule: StoryDataModule) -> list[Span]:
        """The spans whose rows the features have, in order: those to fit on, then those to score.

        With folds, every stretch that some fold has a use for, once.
        """
        if self.has_folds(datamodule):
            return self.folds(datamodule).spans
        return [*datamodule.roles.spans("fit"), *datamodule.roles.spans(self.score_role)]

    def has_folds(self, datamodule: StoryDataModule) -> bool:
        """Whether rows are scored fold by fold; what a checkpoint is chosen by never is."""
        return datamodule.roles.folds is not None and self.score_role == "score"

    def folds(self, datamodule: StoryDataModule) -> FoldPlan:
        """What every fold fits and scores with these settings; ValueError where it cannot."""
        return FoldPlan.of(datamodule, self.config)

    def resolve_layers(self, module: ProbedModule) -> tuple[list[int], int]:
        """Hidden states of the curve (with the compared one) and the compared one, counted from 0.

        Raises
        ------
        ValueError
            If one does not exist.
        """
        compared = from_start(self.partition_layer, module.backbone.n_layers + 1)
        return sorted({compared, *resolve_layers(self.layers, module)}), compared

    def fingerprint(self, datamodule: StoryDataModule, subject: str) -> str:
        """Hash of all that decides the numbers of a subject besides the weights: records compare where it agrees."""
        roles = datamodule.roles
        spans = [[str(span) for span in roles.spans(role)] for role in ("fit", self.score_role)]
        settings = [_deciding(self.config), self.bootstrap, HOW_DRAWN, self.layers, self.partition_layer]
        settings += [asdict(datamodule.window)] if self.with_window else []
        settings += [FORMULAS_VERSION]
        settings += [self.folds(datamodule).facts()["folds"]] if self.has_folds(datamodule) else []
        return settings_hash(datamodule.store.fingerprint, subject, spans, settings)

    def subject_data(self, datamodule: StoryDataModule, subject: str) -> ProbeData:
        """What the store holds of a subject; read once per data module."""
        if self._data_of is not datamodule:
            self._predicted = {}
            self._data, self._data_of, self._stimulus = {}, datamodule, Stimulus(datamodule.store, self.config)
        if subject not in self._data and self.has_folds(datamodule):
            plan, own = self.folds(datamodule), (self.config, self._stimulus)
            self._data[subject] = probe_folds(datamodule.store, subject, plan, *own)
        if subject not in self._data:
            roles = datamodule.roles
            fit, score = roles.spans("fit"), roles.spans(self.score_role)
            self._data[subject] = probe_data(datamodule.store, subject, fit, score, self.config, self._stimulus)
        return self._data[subject]

    def chosen(self, features: Features, partition_layer: int | None = None) -> int:
        """The layer of ready features that is compared with the other bands."""
        asked, layers = self.partition_layer if partition_layer is None else partition_layer, sorted(features)
        if asked >= 0 and asked not in features:
            raise ValueError(f"layer {asked} does not exist: there are features of the layers {layers}.")
        return asked if asked >= 0 else layers[from_start(asked, len(layers))]

    def remember(self, folder: Path, subjects: Sequence[str], epoch: int) -> None:
        """Where no search of this process can be gone on from, take the newest record before the epoch."""
        for subject in subjects:
            paths = [path for path in sorted((folder / subject).glob("epoch-*.h5")) if path.stem < f"epoch-{epoch:03d}"]
            if subject not in self.fits.starts and paths:
                self.fits.read_start(subject, paths[-1])

    def who_heard_the_same(self, datamodule: StoryDataModule, subjects: Sequence[str]) -> list[dict[str, ProbeData]]:
        """The data of subjects whose encoding models have the same rows, and are searched together."""
        groups: dict[bytes, dict[str, ProbeData]] = {}
        for subject in subjects:
            data = self.subject_data(datamodule, subject)
            groups.setdefault(data.rows.tobytes(), {})[subject] = data
        return list(groups.values())

    def blocks(self, result: ProbeResult) -> Any:
        """The draws of the bootstrap for the scored rows."""
        boot = self.bootstrap
        return block_weights(result.score_groups, boot["block_trs"], boot["n_bootstraps"], boot["seed"])

    # --- How ---

    def _word_rows(self, datamodule: StoryDataModule, subjects: Iterable[str], context: ProbeContext) -> WordRows:
        """Which scored rows rest on which words, for subjects who heard the same rows; no sets for nobody."""
        first, store, roles = next(iter(subjects), None), datamodule.store, datamodule.roles
        if first is None:
            return WordRows()
        there = set(store.heard(first))
        if self.has_folds(datamodule):
            plan = self.folds(datamodule)  # every fold is fitted on other words, so that only those of tuning are told
            spans = [plan.used(span) for own in plan.score for span in own if span.story in there]
            heard_in = {"tune": context.heard or tuning_words(datamodule)}
            return word_rows(store, spans, heard_in, self.config.response, 0)
        fit, scored = ([span for span in roles.spans(role) if span.story in there] for role in ("fit", self.score_role))
        heard = {"tune": context.heard or tuning_words(datamodule), "fit": heard_words(store, fit)}
        return word_rows(store, scored, heard, self.config.response, self.config.skip_trs)

    def _tuned_sound_rows(
        self, datamodule: StoryDataModule, subject: str, features: Band, regions: Mapping[str, Any], layer: int
    ) -> list[ScoreRow]:
        """The numbers with a low-level band that has seen the tuning stories; none for who was not tuned on."""
        if subject in datamodule.held_out_subjects:
            return []
        data = self.subject_data(datamodule, subject)
        if subject not in self._predicted:
            tune = datamodule.roles.spans("tune")
            given = (datamodule.store, subject, tune, self.spans(datamodule))
            self._predicted[subject] = tuned_sound.predicted_from_sound(*given, self.config)
        predicted = self._predicted[subject]
        if predicted is None:
            return []
        result = tuned_sound.tuned_sound_result(data, features[data.rows], predicted, self.config)
        return tuned_sound.renamed(probe_rows(result, regions, layer, self.blocks(result)))

    def _record(
        self,
        datamodule: StoryDataModule,
        subject: str,
        result: ProbeResult,
        table: ScoreTable,
        compared: int,
        context: ProbeContext,
        seconds: float,
        said: Mapping[str, Any],
    ) -> ProbeRecord:
        person = datamodule.store.subject(subject)
        return ProbeRecord(
            subject=subject,
            stage=context.stage,
            epoch=context.epoch,
            step=context.step,
            layer=compared,
            fingerprint=self.fingerprint(datamodule, subject),
            table=table,
            r=np.asarray(result.r_by_model["backbone"], dtype=np.float64),
            ceiling=result.ceiling,
            regions=regions_with_all(person.regions, result.used),
            vertices=person.vertices,
            coordinates_mm=person.coordinates_mm if person.vertices is None else None,
            facts={
                **self._facts(result, self.subject_data(datamodule, subject), context, seconds),
                **({} if (space := mni_space(datamodule.store.settings)) is None else {"space": space}),
                **said,
            },
        )

    def _facts(self, result: ProbeResult, data: ProbeData, context: ProbeContext, seconds: float) -> dict[str, Any]:
        """What a reader needs to check the numbers."""
        config, grid, scope = self.config, self.config.alphas, context.scope
        n_gammas = dict(config.n_gammas if scope is None else scope.n_gammas)
        most = max(n_gammas)
        n_gammas |= dict.fromkeys(range(most + 1, len(result.split) + 1), n_gammas[most])
        edge = {model: round(float(share), 4) for model, share in result.alpha_at_edge.items()}
        n_voxels, n_used = len(result.used), int(result.used.sum())
        searched = " searched coarse to fine" if result.meta.get("mixture_search") == "coarse" else ""
        return {
            **data.facts,
            "n_fit_trs": int(result.meta.get("n_fit_trs", int(data.fit.sum()))),
            **{key: result.meta[key] for key in ("n_fit_trs_by_fold", "n_score_trs_by_fold") if key in result.meta},
            "n_score_trs": len(result.score_groups),
            "n_voxels": n_voxels,
            "n_used": n_used,
            "n_dropped": int(result.n_dropped),
            "n_left_out": n_voxels - n_used - int(result.n_dropped),
            "delays_trs": list(config.delays_trs),
            "temporal": dict(result.meta.get("temporal", {})),
            **({} if config.bands == DEFAULT_BANDS or self._stimulus is None else {"bands": self._stimulus.spaces}),
            "filter": self._filter_words(),
            "ridge": f"{len(grid)} alphas from {min(grid):.3g} to {max(grid):.3g}, {config.n_folds} folds over stories"
            f"{' inside each of the folds' if data.folds else ''},"
            f" mixtures per number of bands {n_gammas}{searched},"
            f" solver {result.meta.get('solver', config.solver.name)}, seed {config.seed}",
            "alpha_at_edge": edge,
            "bootstrap": self.bootstrap,
            "thinned": None if scope is None else scope.json(),
            "warm_start": bool(result.meta.get("warm_start", False)),
            "seconds": round(seconds, 2),
            **context.facts,
            "warnings": [*result.meta.get("warnings", []), *context.facts.get("warnings", [])],
        }

    def _filter_words(self) -> str:
        """What features passed, or why they passed nothing."""
        if not self.config.matched_filter:
            return "none: features keep the drifts that responses may have lost (probe.matched_filter)"
        store = self._data_of.store if self._data_of is not None else None
        passed = None if store is None else store.response_filter
        if passed is None:
            return "none: it is not known what the responses passed (response_filter of the source or manifest)"
        return f"features passed what the responses passed: {passed.in_words}"


def _check_rows(features: Features, n_trs: int) -> None:
    for layer, values in features.items():
        if len(values.shape) != 2 or len(values) != n_trs:
            raise ValueError(
                f"features of layer {layer} have shape {values.shape}; need ({n_trs}, n_features), a row per TR of the"
                " spans to fit and score."
            )


def _deciding(config: ProbeConfig) -> dict[str, Any]:
    """Settings that decide what comes out, and not how long it takes or where it is computed.

    In the form that records have always hashed: the solver's name and precision beside the others.
    """
    decides = {**asdict(config), "solver": config.solver.name, "precision": config.solver.precision}
    del decides["leave_out_fit"]  # adds numbers and changes none
    if decides["bands"] == DEFAULT_BANDS:
        del decides["bands"]
    if decides["mixture_search"] == "all":
        del decides["mixture_search"]  # as all were searched before there was a choice
    else:
        decides["first_mixtures"] = FIRST_MIXTURES  # coarse records of before they were these chose other mixtures
    return decides
