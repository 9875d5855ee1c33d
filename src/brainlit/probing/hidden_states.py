"""Hidden states of a model for the rows of a probe: means per TR, or frames convolved with a haemodynamic response.

States come from the stretches of sound that training uses. With a haemodynamic response the frames of every TR are
averaged in bins of about a tenth of a second, collected for one story after the other, and convolved there: no more
than a story of bins is in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor, nn
from tqdm.auto import tqdm

from brainlit.encoding.arrays import BoolArray, Float32Array, IntArray
from brainlit.encoding.temporal import TemporalBand
from brainlit.probing.inputs import ProbedModule, borrowed_state
from brainlit.probing.temporal_rows import Parts, TemporalForm, cut_spans
from brainlit.splits import Span
from brainlit.stories.base import TimedValues

if TYPE_CHECKING:
    from brainlit.datamodules import StoryDataModule


def layer_features(
    module: ProbedModule,
    datamodule: StoryDataModule,
    spans: Sequence[Span],
    layers: Sequence[int],
    progress: bool = True,
) -> dict[int, Float32Array]:
    """One feature vector per layer and row, for all rows of the spans, in their order: means per TR.

    Parameters
    ----------
    module : ProbedModule, an nn.Module
        Put into eval mode for the forward passes; mode and random states come back, whatever happens.
    datamodule : StoryDataModule
        Its `evaluation_batches(spans)` cover each row once.
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
    found = _SpanRows(spans, len(layers))
    _run(module, datamodule, spans, layers, found, 1, progress)
    return dict(zip(layers, found.per_tr(), strict=True))


def temporal_layer_features(
    module: ProbedModule,
    datamodule: StoryDataModule,
    spans: Sequence[Span],
    layers: Sequence[int],
    form: TemporalForm,
    progress: bool = True,
) -> dict[int, TemporalBand]:
    """The same in the parts of a temporal choice, for which the model hears the whole of every story.

    Parameters and errors are those of `layer_features`. What the sound file holds before the first row is heard too,
    as far as the response reaches. Where there is no sound, states count as their mean, so that a story does not begin
    with a jump. The part fir is made of the means of the bins of each TR.
    """
    store = datamodule.store
    n_bins = max(1, round(store.tr_s / form.bin_s)) if form.parts != ("fir",) else 1
    whole = []
    for story in dict.fromkeys(span.story for span in spans):
        sounding_s = min(form.response.length_s, max(0.0, float(store.timebase(story).tr_starts_s[0])))
        before = int(sounding_s / store.tr_s) if n_bins > 1 else 0
        whole.append(Span(story, -before, store.n_trs(story)))
    found = _ConvolvedStories(datamodule, whole, len(layers), n_bins, form)
    _run(module, datamodule, whole, layers, found, n_bins, progress)
    return dict(zip(layers, found.bands(spans), strict=True))


def n_rows(spans: Sequence[Span]) -> int:
    """Rows of all spans together."""
    return sum(span.n_trs for span in spans)


def _run(
    module: ProbedModule,
    datamodule: StoryDataModule,
    spans: Sequence[Span],
    layers: Sequence[int],
    found: _SpanRows,
    n_bins: int,
    progress: bool,
) -> None:
    """Hand the states of every batch over, n_bins of them for a row."""
    if any(layer < 0 for layer in layers):
        raise ValueError(f"layers are {list(layers)}; count them from 0 (the input of the first layer).")
    story_names, network = list(datamodule.story_names), cast(nn.Module, module)
    device = next(network.parameters()).device
    with borrowed_state(network), torch.inference_mode():
        network.eval()
        batches = datamodule.evaluation_batches(spans, with_targets=False)
        for batch in tqdm(batches, desc="hidden states", unit="batch", leave=False, disable=not progress):
            given: dict[str, Any] = dict(batch)
            if n_bins > 1:
                given["bin_edges_s"] = finer_edges(batch["bin_edges_s"], n_bins)
            states = module.pooled_states(move_data_to_device(given, device), list(layers))
            found.put(batch, story_names, states.float().cpu().numpy(), n_bins)


def finer_edges(edges_s: Tensor, n_bins: int) -> Tensor:
    """Every bin cut into n_bins equal ones: (batch, n + 1) -> (batch, n_bins x n + 1).

    >>> finer_edges(torch.tensor([[0.0, 2.0, 3.0]]), 2).tolist()
    [[0.0, 1.0, 2.0, 2.5, 3.0]]
    """
    shares = torch.arange(n_bins, device=edges_s.device, dtype=edges_s.dtype) / n_bins
    inside = edges_s[:, :-1, None] + shares * edges_s.diff(dim=1)[:, :, None]
    return torch.cat([inside.flatten(1), edges_s[:, -1:]], dim=1)


class _SpanRows:
    """Collects the target rows of batches span by span, (n_layers, n_rows, hidden_size) or bins of them."""

    def __init__(self, spans: Sequence[Span], n_layers: int) -> None:
        self.spans, self.n_layers = list(spans), n_layers
        self.filled = [np.zeros(span.n_trs, dtype=np.bool_) for span in spans]
        self.values: dict[int, Float32Array] = {}

    def put(self, batch: Any, story_names: Sequence[str], states: Float32Array, n_bins: int) -> None:
        """Keep each row's last bins (the first ones are context), except masked rows and rows of other spans."""
        if not np.isfinite(states).all():
            raise RuntimeError("hidden states hold NaN or infinite values: training has diverged; lower the rates.")
        row_mask = batch["row_mask"].cpu().numpy()
        n_target_bins = row_mask.shape[1] * n_bins
        # A window's bins are its context, then its own rows; only these were asked for.
        own = states[:, :, states.shape[2] - n_target_bins :]
        rows_of = own.reshape(*own.shape[:2], row_mask.shape[1], n_bins, own.shape[-1])
        for k, (story, first) in enumerate(zip(batch["story"].tolist(), batch["first_tr"].tolist(), strict=True)):
            rows = np.flatnonzero(row_mask[k])
            self._place(story_names[story], first + rows, rows_of[:, k, rows])

    def _place(self, story: str, trs: IntArray, values: Float32Array) -> None:
        for number, span in enumerate(self.spans):
            # One story may have several spans, and a window may reach into another one of them.
            inside = (trs >= span.start_tr) & (trs < span.stop_tr)
            if span.story != story or not inside.any():
                continue
            if number not in self.values:
                self.values[number] = np.zeros((self.n_layers, span.n_trs, *values.shape[2:]), dtype=np.float32)
            at = trs[inside] - span.start_tr
            self.values[number][:, at] = values[:, inside]
            self.filled[number][at] = True
            if self.filled[number].all():
                self.finish(number)

    def finish(self, number: int) -> None:
        """All rows of a span are there."""

    def per_tr(self) -> list[Float32Array]:
        """One bin for each row: the arrays, one per layer, once every row has come."""
        self._check()
        return list(np.concatenate([self.values[number][:, :, 0] for number in range(len(self.spans))], axis=1))

    def _check(self) -> None:
        filled = np.concatenate(self.filled)
        if not filled.all():
            raise RuntimeError(
                f"{int((~filled).sum())} of {len(filled)} rows have no hidden state: evaluation_batches must cover"
                " every row of the spans."
            )


class _ConvolvedStories(_SpanRows):
    """Convolves a story as soon as all its bins are there."""

    def __init__(
        self, datamodule: StoryDataModule, stories: Sequence[Span], n_layers: int, n_bins: int, form: TemporalForm
    ) -> None:
        super().__init__(stories, n_layers)
        self.store, self.n_bins, self.form = datamodule.store, n_bins, form
        self.done: list[dict[str, Parts]] = [{} for _ in range(n_layers)]

    def finish(self, number: int) -> None:
        """Convolve every layer of a story and forget its bins."""
        span = self.spans[number]
        edges_s = self.store.timebase(span.story).tr_edges_s(span.start_tr, span.n_trs)
        edges_s = finer_edges(torch.from_numpy(np.array(edges_s))[None], self.n_bins)[0].numpy()
        middles_s, width_s = (edges_s[1:] + edges_s[:-1]) / 2, self.store.tr_s / self.n_bins
        for done, bins in zip(self.done, self.values.pop(number), strict=True):
            centred, heard = _centred(bins.reshape(-1, bins.shape[-1]))
            per_tr = _means(centred, heard, self.n_bins)[-span.start_tr :]
            timed = TimedValues(centred, middles_s, width_s)
            done[span.story] = self.form.rows(timed, per_tr, self.store, span.story)

    def bands(self, spans: Sequence[Span]) -> list[TemporalBand]:
        """One band for each layer, with the rows of the spans, once every row has come."""
        self._check()
        return [cut_spans(stories, spans, self.form) for stories in self.done]


def _centred(bins: Float32Array) -> tuple[Float32Array, BoolArray]:
    """Bins less their mean; bins without sound, in which every state is 0, at the mean; and which heard sound."""
    heard = np.asarray((bins != 0).any(axis=1))
    if not heard.any():
        return bins, heard
    centred = bins - bins[heard].mean(axis=0, dtype=np.float64).astype(np.float32)
    centred[~heard] = 0.0
    return centred, heard


def _means(centred: Float32Array, heard: BoolArray, n_bins: int) -> Float32Array:
    """Mean of the bins of each row that heard sound, (n_rows, hidden_size); 0 where none did."""
    count = heard.reshape(-1, n_bins).sum(axis=1)
    total = centred.reshape(-1, n_bins, centred.shape[-1]).sum(axis=1)
    return np.asarray(total / np.maximum(count, 1)[:, None], dtype=np.float32)
