"""What temporal bases and a matched filter give on ten real listeners: `python -m tests.benchmarks.alice_time`.

Word rate, log-mel, GloVe and two states of Whisper base predict the mean of the ten intact listeners to one chapter,
six regions, through `run_probe`: five purged folds of contiguous rows are scored, mixtures and strength are chosen by
purged folds inside the fitted rows. Prints the table of docs/time.md. Needs the recordings (BRAINLIT_ALICE;
data/alice.md); GloVe and Whisper join where BRAINLIT_GLOVE and BRAINLIT_WHISPER name a file of vectors and a folder of weights.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
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
WAYS: Mapping[str, tuple[Temporal, bool, int]] = {
    "fir": ("fir", False, 0),
    "fir, filtered": ("fir", True, 0),
    "hrf, filtered": ("hrf", True, 0),
    "hrf_derivatives, filtered": ("hrf_derivatives", True, 0),
    "auto, filtered": ("auto", True, 0),
    "hrf, filtered, 3 TRs late": ("hrf", True, 3),
}
"""Temporal choice, whether features pass what the responses passed, and rows by which features come late."""


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


def bands(data: StoryDataModule, whisper: str | None) -> Iterator[tuple[str, Mapping[Temporal, Band]]]:
    """Every feature in the form of every temporal choice."""
    store, choices = data.store, dict.fromkeys(choice for choice, _, _ in WAYS.values())
    for space in (entry.name for entry in store.feature_space_entries):
        per_tr = next(one.values for one in store.feature_spaces("alice") if one.name == space)
        forms = {choice: TemporalForm(choice) for choice in choices}
        yield space, {c: stimulus_rows(store, [WHOLE], [space], f) if f.convolves else per_tr for c, f in forms.items()}
    if whisper is None:
        return
    from brainlit.backbones import BackboneConfig
    from brainlit.tuning import BrainTuning

    module = BrainTuning(backbone=BackboneConfig(family="whisper", weights=whisper, positions="truncated")).eval()
    asked = (module, data, [WHOLE], STATES)
    states: dict[Temporal, Mapping[int, Band]] = {"fir": layer_features(*asked)}
    for choice in choices:
        if choice != "fir":
            states[choice] = temporal_layer_features(*asked, TemporalForm(choice))
    for layer in STATES:
        yield f"Whisper base, state {layer}", {choice: found[layer] for choice, found in states.items()}


def held_out_r(band: Band, Y: Array, store: StoryStore, temporal: Temporal, filtered: bool, late_trs: int) -> Array:
    """Correlation with held-out time by column of Y, over the rows of all folds."""
    rows, passed = np.arange(len(Y)), store.response_filter
    config = ProbeConfig(temporal=temporal, skip_trs=0, n_folds=4, alphas=tuple(np.logspace(-2, 5, 15)))
    predicted, observed = np.empty_like(Y), np.empty_like(Y)
    for own in np.array_split(rows, N_FOLDS):
        # before, gap, held out, gap, after: stretches of their own, of which the gaps take no part
        edges = [0, own[0] - GAP_TRS, own[0], own[-1] + 1, own[-1] + 1 + GAP_TRS]
        groups = np.searchsorted(np.maximum(edges, 0), rows, side="right") - 1
        starts = {int(label): int(np.flatnonzero(groups == label)[0]) for label in np.unique(groups)}
        filters = {}
        if filtered and passed is not None:
            filters = {
                label: partial(passed.apply, tr_s=store.tr_s, first_tr=at, n_trs=len(Y)) for label, at in starts.items()
            }
        late = band if late_trs == 0 else rolled(band, late_trs)
        roles = (groups, np.isin(groups, (0, 4)), groups == 2)
        result = run_probe({"backbone": late}, Y.astype(np.float32), *roles, config, filters=filters)
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
        return {
            name: {way: held_out_r(forms[how[0]], Y, data.store, *how) for way, how in WAYS.items()}
            for name, forms in bands(data, whisper)
        }


def table(scores: Mapping[str, Mapping[str, Array]]) -> str:
    """As Markdown: features down, ways across, mean r of the six regions."""
    lines = [f"| feature | {' | '.join(WAYS)} |", "| --- " * (len(WAYS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{r.mean():.3f}' for r in ways.values())} |" for name, ways in scores.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(measure(os.environ.get("BRAINLIT_GLOVE"), os.environ.get("BRAINLIT_WHISPER"))))
