"""Which frames are hidden and which serve as distractors, drawn from explicit generators.

A window's draws depend on seed, step and window alone, so they are the same in whichever process and batch it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from brainlit.backbones import SpeechBackbone
from brainlit.tuning.objectives.base import ObjectiveConfig

MASK_S = 0.2
"""Length of a masked span: 10 frames of 20 ms in wav2vec 2.0 and HuBERT."""
MASK_PROB = 0.8
"""HuBERT: 8 % of frames begin a span of 10 (arXiv 2106.07447, section IV.C)."""
MASK_PROBS = {"wav2vec": 0.65}
"""wav2vec 2.0: 6.5 % of frames begin a span of 10 (arXiv 2006.11477, section 4.2)."""


def mask_settings(config: ObjectiveConfig, backbone: SpeechBackbone) -> tuple[float, int]:
    """mask_prob and mask_length (frames), those of the family where the config leaves them open."""
    prob = config.mask_prob if config.mask_prob is not None else MASK_PROBS.get(backbone.family, MASK_PROB)
    length = config.mask_length if config.mask_length is not None else round(MASK_S * backbone.frame_rate_hz)
    return prob, max(length, 1)


def clip_generators(seed: int, step: int | None, batch: Mapping[str, Any]) -> list[np.random.Generator]:
    """A generator for each window of a batch, whatever else is in the batch.

    Parameters
    ----------
    step : int or None
        None draws the same for a window at all times, as validation wants it.
    batch : mapping
        Its `story` and `first_tr` say which windows these are.
    """
    when = 0 if step is None else step + 1
    windows = zip(batch["story"].tolist(), batch["first_tr"].tolist(), strict=True)
    return [np.random.default_rng([seed, when, story, first_tr]) for story, first_tr in windows]


def hide_spans(
    frame_mask: Tensor, mask_prob: float, mask_length: int, generators: Sequence[np.random.Generator]
) -> Tensor:
    """Frames to hide, in spans that may overlap: see span_mask.

    Parameters
    ----------
    frame_mask : bool Tensor of shape (batch, n_frames)
        Frames of real sound; the others are never hidden.

    Returns
    -------
    bool Tensor of shape (batch, n_frames), on the device of frame_mask
    """
    clips = zip(frame_mask.cpu().numpy(), generators, strict=True)
    hidden = np.stack([span_mask(clip, mask_prob, mask_length, rng) for clip, rng in clips])
    return torch.from_numpy(hidden).to(frame_mask.device)


def span_mask(
    real: npt.NDArray[np.bool_], mask_prob: float, mask_length: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Frames of one clip to hide, bool of shape (n_frames,).

    mask_prob x n_real / mask_length spans, rounded up or down at random, at least one, and not more than would fit side
    by side; their first frames are drawn without replacement. Spans overlap, so about 1 - exp(-mask_prob) of the
    frames are hidden (49 % in wav2vec 2.0). A clip with no more real frames than one span is left alone.
    """
    hidden = np.zeros(len(real), dtype=np.bool_)
    frames = np.flatnonzero(real)
    n_starts = len(frames) - mask_length + 1
    if n_starts < 2:
        return hidden
    n_spans = int(mask_prob * len(frames) / mask_length + rng.random())
    n_spans = min(max(n_spans, 1), len(frames) // mask_length)
    starts = rng.choice(n_starts, n_spans, replace=False)
    # Spans count real frames, so padding inside a span lengthens it instead of being hidden.
    hidden[frames[starts[:, None] + np.arange(mask_length)]] = True
    return hidden


def draw_others(n_items: int, n_draws: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """For each of n_items, n_draws of the others with replacement; int64 of shape (n_items, n_draws).

    Zeros where there is no other.

    >>> draw_others(2, 3, np.random.default_rng(0)).tolist()
    [[1, 1, 1], [0, 0, 0]]
    """
    if n_items < 2:
        return np.zeros((n_items, n_draws), dtype=np.int64)
    drawn = rng.integers(0, n_items - 1, (n_items, n_draws))
    return np.asarray(drawn + (drawn >= np.arange(n_items)[:, None]))
