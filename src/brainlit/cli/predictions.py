"""What a tuned model predicts for the scored stories, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.encoding.roles import Span
from brainlit.store.atomic import atomic_path

PREDICTIONS_FILE = "predictions.h5"


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
    import h5py

    path = checkpoint.resolve().parent.parent / PREDICTIONS_FILE
    rows = collect_rows(batches, datamodule.story_names, datamodule.roles.spans("score"), datamodule.store.n_trs)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["checkpoint"] = str(checkpoint)
        for (subject, story), values in rows.items():
            file[f"{subject}/{story}"] = values
        file.attrs["regime"] = datamodule.regime
        if datamodule.regime in ("brain", "permuted"):  # the others predict representations, which are no voxels
            for subject, voxels in datamodule.target_voxels.items():
                file[f"{subject}/voxels"] = voxels
    return path


def collect_rows(
    batches: Sequence[dict[str, Any]], story_names: Sequence[str], spans: Sequence[Span], n_trs_of: Any
) -> dict[tuple[str, str], npt.NDArray[np.float32]]:
    """Put windows back in their places: (subject, story) -> (n_trs, n_targets), NaN where nothing was predicted."""
    rows: dict[tuple[str, str], npt.NDArray[np.float32]] = {}
    for batch in batches:
        for k, (index, first) in enumerate(zip(batch["story"].tolist(), batch["first_tr"].tolist(), strict=True)):
            story = story_names[index]
            stop = next(s.stop_tr for s in spans if s.story == story and s.start_tr <= first < s.stop_tr)
            for subject, predicted in batch["predictions"].items():
                values = predicted[k].float().cpu().numpy()
                shape = (n_trs_of(story), values.shape[1])
                target = rows.setdefault((subject, story), np.full(shape, np.nan, dtype=np.float32))
                n_rows = min(len(values), stop - first)
                target[first : first + n_rows] = values[:n_rows]
    return rows
