"""What temporal bases and a matched filter give on ten real listeners: `python -m tests.benchmarks.alice_time`.

Word rate, log-mel, GloVe and two states of Whisper base predict the mean of the ten intact listeners to one chapter,
six regions, through `run_probe`: five purged folds of contiguous rows are scored, mixtures and strength are chosen by
purged folds inside the fitted rows. Prints the table of docs/time.md. Needs the recordings (BRAINLIT_ALICE;
data/alice.md); GloVe and Whisper join where BRAINLIT_GLOVE and BRAINLIT_WHISPER name a file of vectors and a folder of
weights.

With --listeners it prints instead what word rate gives in the mean and in single listeners, how far the listeners
agree, and their ceilings: the other table there.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainlit.datamodules import StoryDataModule, WindowConfig
from brainlit.encoding import ProbeConfig, run_probe
from brainlit.encoding.ceiling import noise_ceiling
from brainlit.encoding.temporal import Temporal, TemporalBand
from brainlit.features import FeatureConfig
from brainlit.probing.hidden_states import layer_features, temporal_layer_features
from brainlit.probing.temporal_rows import TemporalForm, stimulus_rows
from brainlit.splits import Span
from brainlit.store.between_members import between_members
from brainlit.stories import GroupMean, ManifestSource

MANIFEST = Path(__file__).parents[2] / "data" / "alice" / "manifest.yaml"
GAP_TRS = 6
N_FOLDS = 5
REGIONS = ("LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG")
STATES = (1, 6)
WHOLE = Span("alice", 0, 362)
Array = npt.NDArray[np.float64]
Band = npt.NDArray[np.float32] | TemporalBand
WAYS: Mapping[str, tuple[TemporalForm, int]] = {
    "fir": (TemporalForm("fir"), 0),
    "fir, filtered": (TemporalForm("fir", matched_filter=True), 0),
    "hrf, filtered": (TemporalForm("hrf", matched_filter=True), 0),
    "hrf_derivatives, filtered": (TemporalForm("hrf_derivatives", matched_filter=True), 0),
    "auto, filtered": (TemporalForm("auto", matched_filter=True), 0),
    "hrf, filtered, own scale": (TemporalForm("hrf", matched_filter=True, keeps_scale=True), 0),
    "hrf, filtered, 3 TRs late": (TemporalForm("hrf", matched_filter=True), 3),
}
"""Temporal form, and rows by which features come late."""


def data_module(folder: Path, glove: str | None) -> StoryDataModule:
    """Alice with the spaces that are asked about, ready to be read."""
    module = StoryDataModule(
        GroupMean(ManifestSource(str(MANIFEST)), beside_members=True),
        store_dir=str(folder),
        features=FeatureConfig(low_level=["word_rate", "log_mel"], vectors=glove),
        window=WindowConfig(n_trs=10),
        roles={"fit": ["alice[0:200]"], "score": ["alice[220:362]"]},
        subjects=["group"],
    )
    module.only_probe()
    module.prepare_data()
    module.setup()
    return module


def bands(data: StoryDataModule, whisper: str | None) -> Iterator[tuple[str, list[Band]]]:
    """Every feature in the form of every way."""
    store, forms = data.store, [form for form, _ in WAYS.values()]
    for space in (entry.name for entry in store.feature_space_entries):
        per_tr = next(one.values for one in store.feature_spaces("alice") if one.name == space)
        yield space, [per_tr if f.is_plain(store) else stimulus_rows(store, [WHOLE], [space], f) for f in forms]
    if whisper is None:
        return
    from brainlit.backbones import BackboneConfig
    from brainlit.tuning import BrainTuning

    module = BrainTuning(backbone=BackboneConfig(family="whisper", weights=whisper, positions="truncated")).eval()
    asked = (module, data, [WHOLE], STATES)
    states = [layer_features(*asked) if f.is_plain(store) else temporal_layer_features(*asked, f) for f in forms]
    for layer in STATES:
        yield f"Whisper base, state {layer}", [found[layer] for found in states]


def held_out_r(band: Band, Y: Array, temporal: Temporal) -> Array:
    """Correlation with held-out time by column of Y, over the rows of all folds."""
    return correlations(predictions(band, Y, temporal), Y)


def correlations(predicted: Array, Y: Array) -> Array:
    """Of predictions and responses that are centred in each fold."""
    observed = np.concatenate([Y[own] - Y[own].mean(axis=0) for own in np.array_split(np.arange(len(Y)), N_FOLDS)])
    return np.array([np.corrcoef(predicted[:, k], observed[:, k])[0, 1] for k in range(Y.shape[1])])


def predictions(band: Band, Y: Array, temporal: Temporal) -> Array:
    """Every row from models that never saw it."""
    rows = np.arange(len(Y))
    config = ProbeConfig(temporal=temporal, skip_trs=0, n_folds=4, alphas=tuple(np.logspace(-2, 5, 15)))
    predicted = np.empty_like(Y)
    for own in np.array_split(rows, N_FOLDS):
        # before, gap, held out, gap, after: stretches of their own, of which the gaps take no part
        edges = np.array([0, own[0] - GAP_TRS, own[0], own[-1] + 1, own[-1] + 1 + GAP_TRS])
        groups = np.searchsorted(np.maximum(edges, 0), rows, side="right") - 1
        roles = (groups, np.isin(groups, (0, 4)), groups == 2)
        result = run_probe({"backbone": band}, Y.astype(np.float32), *roles, config)
        predicted[own] = result.predictions["backbone"]
    return predicted


def rolled(band: Band, rows: int) -> Band:
    """Every row comes some rows later, the last ones first."""
    if isinstance(band, TemporalBand):
        return replace(band, parts={part: np.roll(values, rows, axis=0) for part, values in band.parts.items()})
    return np.roll(band, rows, axis=0)


def measure(glove: str | None, whisper: str | None) -> dict[str, dict[str, Array]]:
    """Held-out r by region for each feature and way."""
    with tempfile.TemporaryDirectory() as folder:
        data = data_module(Path(folder) / "store", glove)
        Y = np.asarray(data.store.responses("group", "alice"), dtype=np.float64)  # the intact ones: (362, 6)
        found: dict[str, dict[str, Array]] = {}
        for name, forms in bands(data, whisper):
            found[name] = {
                way: held_out_r(rolled(band, late_trs), Y, form.temporal)
                for (way, (form, late_trs)), band in zip(WAYS.items(), forms, strict=True)
            }
        return found


def table(scores: Mapping[str, Mapping[str, Array]]) -> str:
    """As Markdown: features down, ways across, mean r of the six regions."""
    lines = [f"| feature | {' | '.join(WAYS)} |", "| --- " * (len(WAYS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{r.mean():.3f}' for r in ways.values())} |" for name, ways in scores.items()]
    return "\n".join(lines)


# --- The mean against single listeners ---


def measure_listeners() -> dict[str, Array]:
    """By what it is, a number for each of the six regions; single listeners as their mean, least and most."""
    with tempfile.TemporaryDirectory() as folder:
        data = data_module(Path(folder) / "store", None)
        store = data.store
        members = store.members("group")["alice"]
        per_tr = next(one.values for one in store.feature_spaces("alice") if one.name == "word_rate")
        hrf = TemporalForm("hrf", matched_filter=True)
        forms = {"fir": (per_tr, TemporalForm("fir")), "hrf": (stimulus_rows(store, [WHOLE], ["word_rate"], hrf), hrf)}
        heard = {name: np.asarray(store.responses(name, "alice"), dtype=np.float64) for name in ("group", *members)}
        rows: dict[str, Array] = {}
        for way, (band, form) in forms.items():
            of_mean = predictions(band, heard["group"], form.temporal)
            single = np.stack([held_out_r(band, heard[name], form.temporal) for name in members])
            carried = np.stack([correlations(of_mean, heard[name]) for name in members])
            rows[f"word rate, {way}: mean of {len(members)}"] = correlations(of_mean, heard["group"])
            rows[f"word rate, {way}: fitted on the mean, single listeners"] = carried.mean(axis=0)
            rows[f"word rate, {way}: single listeners"] = single.mean(axis=0)
            rows[f"word rate, {way}: least of them"] = single.min(axis=0)
            rows[f"word rate, {way}: most of them"] = single.max(axis=0)
        agreement = np.stack(list(between_members(store, "group").r.values()))
        repeats = store.repeats("group", "alice")
        assert repeats is not None  # a group has its members' responses
        ceiling = noise_ceiling(repeats)
        rows["each with the mean of the others"] = agreement.mean(axis=0)
        rows["least of them"], rows["most of them"] = agreement.min(axis=0), agreement.max(axis=0)
        rows["ceiling of one"] = np.sqrt(ceiling.explainable_variance)
        rows[f"ceiling of the mean of {len(members)}"] = ceiling.ceiling_r
        return rows


def listeners_table(rows: Mapping[str, Array], regions: Sequence[str]) -> str:
    """As Markdown: what it is down, regions and their mean across."""
    lines = [f"| r | {' | '.join(regions)} | mean |", "| --- " * (len(regions) + 2) + "|"]
    lines += [f"| {name} | {' | '.join(f'{r:.2f}' for r in (*own, own.mean()))} |" for name, own in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    if "--listeners" in sys.argv[1:]:
        print(listeners_table(measure_listeners(), REGIONS))
    else:
        print(table(measure(os.environ.get("BRAINLIT_GLOVE"), os.environ.get("BRAINLIT_WHISPER"))))
