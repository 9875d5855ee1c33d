"""What temporal bases and a matched filter give on ten real listeners: `python -m tests.benchmarks.alice_time`.

Word rate, log-mel, GloVe and two states of Whisper base predict the mean of the ten intact listeners to one chapter,
six regions, through `run_probe`: five purged folds of contiguous rows are scored, mixtures and strength are chosen by
purged folds inside the fitted rows. Prints the table of docs/time.md. Needs the recordings (BRAINLIT_ALICE;
data/alice.md); GloVe and Whisper join where BRAINLIT_GLOVE and BRAINLIT_WHISPER name a file of vectors and a folder of
weights.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainlit.datamodules import StoryDataModule, WindowConfig
from brainlit.encoding import ProbeConfig, run_probe
from brainlit.encoding.temporal import Temporal, TemporalBand
from brainlit.features import FeatureConfig
from brainlit.probing.hidden_states import layer_features, temporal_layer_features
from brainlit.probing.temporal_rows import TemporalForm, stimulus_rows
from brainlit.splits import Span
from brainlit.store import StoryStore
from brainlit.stories import ManifestSource

MANIFEST = Path(__file__).parents[2] / "data" / "alice" / "manifest.yaml"
GAP_TRS = 6
N_FOLDS = 5
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
        ManifestSource(str(MANIFEST)),
        store_dir=str(folder),
        features=FeatureConfig(low_level=["word_rate", "log_mel"], vectors=glove),
        window=WindowConfig(n_trs=10),
        roles={"fit": ["alice[0:200]"], "score": ["alice[220:362]"]},
    )
    module.only_probe()
    module.prepare_data()
    module.setup()
    return module


def mean_listener(store: StoryStore) -> Array:
    """Responses averaged over the intact listeners, (362, 6)."""
    found = [store.responses(name, "alice") for name in store.subject_names if name != "s33"]
    return np.asarray(np.mean([rows for rows in found if rows is not None], axis=0, dtype=np.float64))


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
    rows = np.arange(len(Y))
    config = ProbeConfig(temporal=temporal, skip_trs=0, n_folds=4, alphas=tuple(np.logspace(-2, 5, 15)))
    predicted, observed = np.empty_like(Y), np.empty_like(Y)
    for own in np.array_split(rows, N_FOLDS):
        # before, gap, held out, gap, after: stretches of their own, of which the gaps take no part
        edges = np.array([0, own[0] - GAP_TRS, own[0], own[-1] + 1, own[-1] + 1 + GAP_TRS])
        groups = np.searchsorted(np.maximum(edges, 0), rows, side="right") - 1
        roles = (groups, np.isin(groups, (0, 4)), groups == 2)
        result = run_probe({"backbone": band}, Y.astype(np.float32), *roles, config)
        predicted[own] = result.predictions["backbone"]
        observed[own] = Y[own] - Y[own].mean(axis=0)
    return np.array([np.corrcoef(predicted[:, k], observed[:, k])[0, 1] for k in range(Y.shape[1])])


def rolled(band: Band, rows: int) -> Band:
    """Every row comes some rows later, the last ones first."""
    if isinstance(band, TemporalBand):
        return replace(band, parts={part: np.roll(values, rows, axis=0) for part, values in band.parts.items()})
    return np.roll(band, rows, axis=0)


def measure(glove: str | None, whisper: str | None) -> dict[str, dict[str, Array]]:
    """Held-out r by region for each feature and way."""
    with tempfile.TemporaryDirectory() as folder:
        data = data_module(Path(folder) / "store", glove)
        Y = mean_listener(data.store)
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


if __name__ == "__main__":
    print(table(measure(os.environ.get("BRAINLIT_GLOVE"), os.environ.get("BRAINLIT_WHISPER"))))
