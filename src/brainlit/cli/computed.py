"""What the verbs that only compute leave behind: predictions.h5 of predict, and what the number of test is the r of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.files import atomic_path
from brainlit.hdf5 import new_file, write_array, write_text
from brainlit.hints import few
from brainlit.results.run_directory import read_json_if_there
from brainlit.results.summary import SUMMARY_FILE
from brainlit.splits import Span

TEST_R = "test/r"
MOST_NAMED = 4
"""Stories that the sentence under it names."""
OF_VOXELS = ("brain", "permuted")
"""Regimes whose targets in validation and test are the responses of voxels."""
PREDICTIONS_FILE = "predictions.h5"


def about_test_r(trainer: Any, model: Any, datamodule: Any, checkpoint: Path) -> str:
    """Why `test/r` is another number than the r of the run's report: whose predictions, which layer, which rows.

    Parameters
    ----------
    trainer : Trainer
        After its test.
    model : BrainTuning
    datamodule : StoryDataModule
    checkpoint : Path
        What was tested; the summary of its run says how the report's r was made.

    Returns
    -------
    str
        Empty where test has no r, for nothing is predicted.
    """
    if TEST_R not in trainer.callback_metrics:
        return ""
    layer, n_layers = int(model.hparams["layer"]), int(model.backbone.n_layers)
    n_batches, n_all = int(sum(trainer.num_test_batches)), len(datamodule.test_dataloader())
    regime, spans = str(datamodule.regime), [_span_words(s, datamodule.store) for s in datamodule.roles.spans("score")]
    part = "all" if n_batches >= n_all else f"those in the first {n_batches} of {n_all} batches of the"
    representations = f"the representations of the regime {regime}, which are no brain's"
    target = "the responses" if regime in OF_VOXELS else representations
    own = (
        f"the correlation of the tuned head's own predictions, from layer {layer % (n_layers + 1)} in"
        f" {checkpoint.name}, with {target}, over {part} {datamodule.roles.n_trs('score')} rows of"
        f" {few(spans, MOST_NAMED)}, as the mean of all targets"
    )
    reports = _report_words(read_json_if_there(checkpoint.resolve().parent.parent / SUMMARY_FILE), datamodule)
    return f"{TEST_R} is {own}; the r of the report is another number: {reports}."


def _span_words(span: Span, store: Any) -> str:
    return span.story if (span.start_tr, span.stop_tr) == (0, store.n_trs(span.story)) else str(span)


def _report_words(summary: Mapping[str, Any], datamodule: Any) -> str:
    """What the r of the report is: exactly where the run has a probe, in general where it has none."""
    probe = summary.get("probe") or {}
    rows = probe.get("n_score_trs")
    layer = f"layer {probe['layer']}" if "layer" in probe else "a layer"
    fitted = probe.get("fit_stories") or datamodule.roles.stories("fit")
    on = f" on {few(fitted, MOST_NAMED)}" if fitted else ""
    over = f"the {rows} rows" if rows is not None else "the rows"
    return (
        f"it is that of ridge encoding models, which are fitted anew{on} to the states of {layer} before training and"
        f" after its last step, over {over} that a probe scores (not the first of a story), by region"
    )


def predicted_sentence(trainer: Any, batches: Sequence[dict[str, Any]], datamodule: Any, checkpoint: Path) -> str:
    """Write the predictions and say where; a trial (fast_dev_run) writes none over those that may be there."""
    n_batches, n_all = int(sum(trainer.num_predict_batches)), len(datamodule.predict_dataloader())
    part = f" ({n_batches} of {n_all} batches)" if n_batches < n_all else ""
    if trainer.fast_dev_run:
        return f"A trial run (fast_dev_run): what was predicted{part} is not written."
    rest = f"{part}: rows of the others are NaN" if part else ""
    return f"Predictions: {write_predictions(batches, datamodule, checkpoint)}{rest}"


def write_predictions(batches: Sequence[dict[str, Any]], datamodule: Any, checkpoint: Path) -> Path:
    """Write <subject>/<story>, float32 (n_trs, n_targets), NaN outside the scored spans, and <subject>/voxels.

    Parameters
    ----------
    batches : sequence of dict
        What Trainer.predict returns: story, first_tr and predictions by subject, per batch.
    datamodule : StoryDataModule
        Set up; names the stories, spans and target voxels.
    checkpoint : Path
        The file goes into the folder of its run, <run>/checkpoints/<checkpoint>.

    Returns
    -------
    Path
        <run>/predictions.h5.
    """
    path = checkpoint.resolve().parent.parent / PREDICTIONS_FILE
    rows = collect_rows(batches, datamodule.story_names, datamodule.store.n_trs)
    with atomic_path(path) as temporary, new_file(temporary) as file:
        write_text(file, "checkpoint", str(checkpoint))
        for (subject, story), values in rows.items():
            write_array(file, f"{subject}/{story}", values)
        write_text(file, "regime", datamodule.regime)
        if datamodule.regime in ("brain", "permuted"):  # the others predict representations, which are no voxels
            for subject, voxels in datamodule.target_voxels.items():
                write_array(file, f"{subject}/voxels", voxels)
    return path


def collect_rows(
    batches: Sequence[dict[str, Any]], story_names: Sequence[str], n_trs_of: Any
) -> dict[tuple[str, str], npt.NDArray[np.float32]]:
    """Put windows back in their places: (subject, story) -> (n_trs, n_targets), NaN where nothing was predicted.

    Windows overlap at the end of a span; each row is that of the window in which it counts, as in `test/r`.
    """
    rows: dict[tuple[str, str], npt.NDArray[np.float32]] = {}
    for batch in batches:
        for k, (index, first) in enumerate(zip(batch["story"].tolist(), batch["first_tr"].tolist(), strict=True)):
            story, counts = story_names[index], batch["row_mask"][k].cpu().numpy()
            for subject, predicted in batch["predictions"].items():
                values = predicted[k].float().cpu().numpy()
                shape = (n_trs_of(story), values.shape[1])
                target = rows.setdefault((subject, story), np.full(shape, np.nan, dtype=np.float32))
                target[first + np.flatnonzero(counts)] = values[counts]
    return rows
