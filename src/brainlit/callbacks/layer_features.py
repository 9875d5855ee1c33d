"""Hidden states per scanner row, from the stretches of sound that training uses ('segment' mode)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor, nn
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from brainlit.callbacks.state import borrowed_state
from brainlit.encoding.roles import Span

Float32Array = npt.NDArray[np.float32]


class PoolsStates(Protocol):
    """What the probe needs of a LightningModule."""

    def pooled_states(self, batch: dict[str, Any], layers: Sequence[int]) -> Tensor:
        """Tensor of shape (n_layers_asked, batch, n_bins, hidden_size)."""
        ...


def layer_features(
    module: nn.Module,
    datamodule: Any,
    spans: Sequence[Span],
    layers: Sequence[int],
    progress: bool = True,
) -> dict[int, Float32Array]:
    """One feature vector per layer and row, for all rows of the spans, in their order.

    Parameters
    ----------
    module : LightningModule with `pooled_states`
        Put into eval mode for the forward passes; mode and random states come back, whatever happens.
    datamodule : StoryDataModule
        Gives `evaluation_batches(spans)`, which cover each row once, and `story_names`.
    spans : sequence of Span
    layers : sequence of int
        Hidden states, 0 being the input of the first layer; no negative numbers.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict of layer to float32 array of shape (n_rows, hidden_size); n_rows is the sum of the spans' rows.

    Raises
    ------
    ValueError
        If a layer number is negative.
    RuntimeError
        If the batches leave out a row, or a state is not finite.
    """
    if any(layer < 0 for layer in layers):
        raise ValueError(f"layers are {list(layers)}; count them from 0 (the input of the first layer).")
    sink = _RowSink(spans, list(datamodule.story_names), len(layers))
    device = next(module.parameters()).device
    with borrowed_state(module), torch.inference_mode():
        module.eval()
        batches = datamodule.evaluation_batches(spans)
        for batch in tqdm(batches, desc="hidden states", unit="batch", leave=False, disable=not progress):
            states = module.pooled_states(move_data_to_device(batch, device), list(layers))  # type: ignore[operator]
            sink.put(batch, states.float().cpu().numpy())
    return dict(zip(layers, sink.whole(), strict=True))


def n_rows(spans: Sequence[Span]) -> int:
    """Rows of all spans together."""
    return sum(span.stop_tr - span.start_tr for span in spans)


class _RowSink:
    """Collects the target rows of batches into one array per layer, (n_layers, n_rows, hidden_size)."""

    def __init__(self, spans: Sequence[Span], story_names: Sequence[str], n_layers: int) -> None:
        self.spans, self.story_names, self.n_layers = list(spans), story_names, n_layers
        self.starts = np.cumsum([0, *(span.stop_tr - span.start_tr for span in spans)])
        self.filled = np.zeros(int(self.starts[-1]), dtype=np.bool_)
        self.values: Float32Array | None = None

    def put(self, batch: dict[str, Any], states: Float32Array) -> None:
        """Keep each row's last bins (the first ones are context), except masked rows and rows of other spans."""
        if not np.isfinite(states).all():
            raise RuntimeError("hidden states hold NaN or infinite values: training has diverged; lower the rates.")
        if self.values is None:
            self.values = np.zeros((self.n_layers, len(self.filled), states.shape[-1]), dtype=np.float32)
        row_mask = batch["row_mask"].cpu().numpy()
        rows_of = states[:, :, states.shape[2] - row_mask.shape[1] :]
        for k, (story, first) in enumerate(zip(batch["story"].tolist(), batch["first_tr"].tolist(), strict=True)):
            rows = np.flatnonzero(row_mask[k])
            self._place(self.story_names[story], first + rows, rows_of[:, k, rows])

    def _place(self, story: str, trs: npt.NDArray[np.int64], values: Float32Array) -> None:
        assert self.values is not None
        for span, start in zip(self.spans, self.starts[:-1], strict=True):
            inside = (trs >= span.start_tr) & (trs < span.stop_tr)
            if span.story == story and inside.any():
                at = start + trs[inside] - span.start_tr
                self.values[:, at] = values[:, inside]
                self.filled[at] = True

    def whole(self) -> list[Float32Array]:
        """The arrays, one per layer, once every row has come."""
        if self.values is None or not self.filled.all():
            missing = int((~self.filled).sum())
            raise RuntimeError(
                f"{missing} of {len(self.filled)} rows have no hidden state: evaluation_batches must cover every row"
                " of the spans."
            )
        return list(self.values)
